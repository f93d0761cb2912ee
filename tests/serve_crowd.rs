//! Many at once, and too many: silent strangers, connections that come and go, a server without descriptors.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::thread;
use std::time::{Duration, Instant};

use ringroom::sys::rlimit::{Resource, raise};
use support::{Client, Server, assert_bye, frame, hello, wait_until};

/// Connections that this process may well make, at most so many; the server has as many descriptors.
fn crowd(most: usize) -> usize {
    let files = usize::try_from(raise(Resource::Files).unwrap().soft).unwrap_or(usize::MAX);
    // Both tests of a crowd may run at once.
    most.min(files.saturating_sub(400) / 2)
}

#[test]
fn thousands_who_say_nothing_keep_nobody_out_and_all_go() {
    let server = Server::start(3, "");
    let before = server.descriptors();
    let mut pair = [Client::member(server.address(), "ann", "pair"), Client::member(server.address(), "bob", "pair")];
    let mut silent: Vec<Client> = (0..crowd(5_000)).map(|_| Client::connect(server.address())).collect();
    let mut late = Client::member(server.address(), "late", "pair");
    pair[0].send("pair", "1");
    for client in pair.iter_mut().chain([&mut late]) {
        assert_eq!(client.find("message")["body"], 1);
    }
    for client in &mut silent {
        assert_bye(&client.bye(), 408, "handshake_timeout");
    }
    let count = silent.len() as u64;
    drop(silent);
    wait_until("their descriptors are free", || server.descriptors() <= before + 3);
    pair.iter_mut().for_each(|client| drop(client.sync()));
    let ended = server.stop();
    ended.assert_clean();
    assert_eq!(ended.ends("handshake_timeout"), count, "{:?}", ended.ends);
}

/// One short life of a client: in `kind` ways it ends before, while or after its socket moves to its user's shard.
fn live_shortly(server: std::net::SocketAddr, n: usize) {
    let mut client = Client::connect(server);
    let first = frame(&hello(&format!("u{n}")));
    let join = frame(r#"{"type":"join","room":"lobby","presence":true}"#);
    let send = frame(r#"{"type":"send","room":"lobby","body":"bye"}"#);
    let all = [first.clone(), join, send].concat();
    match n % 8 {
        0 => client.raw(&first),
        1 => client.raw(&all),
        2 => {
            client.raw(&all);
            client.reset();
        }
        3 => {
            client.raw(&first);
            client.reset();
        }
        4 => {
            client.raw(&all);
            client.finish();
            assert_eq!(client.rest().iter().filter(|object| object["type"] == "sent").count(), 1);
        }
        5 => {
            // Half a frame travels along.
            client.raw(&all[..first.len() + 7]);
        }
        6 => {
            client.raw(&all[..first.len() + 7]);
            client.finish();
            assert_eq!(client.rest().len(), 1, "welcome alone");
        }
        _ => {
            client.raw(&all);
            client.expect("welcome");
        }
    }
}

#[test]
fn clients_that_go_while_their_socket_moves_leave_nothing_behind() {
    let server = Server::start(3, "");
    let mut watcher = Client::login(server.address(), "watcher");
    watcher.say(r#"{"type":"join","room":"lobby"}"#);
    watcher.expect("joined");
    let before = server.descriptors();
    let address = server.address();
    let threads: Vec<_> = (0..4).map(|t| thread::spawn(move || (0..400).for_each(|n| live_shortly(address, n * 4 + t)))).collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    wait_until("their descriptors are free", || server.descriptors() <= before);
    // Nor in the rules: the room has one member.
    wait_until("the room has one member", || {
        watcher.say(r#"{"type":"presence","room":"lobby"}"#);
        watcher.find("presence")["members"] == 1
    });
    let ended = server.stop();
    ended.assert_clean();
    assert!(ended.counter("moved") > 0);
    assert_eq!(ended.counter("accepted"), 4 * 400 + 1);
}

#[test]
fn more_connections_than_descriptors_are_turned_away_without_spinning_and_it_recovers() {
    let server = Server::start_limited(1, "", 256);
    let mut pair = [Client::member(server.address(), "ann", "pair"), Client::member(server.address(), "bob", "pair")];
    let mut crowd: Vec<Client> = (0..crowd(2_000)).map(|_| Client::connect(server.address())).collect();
    let (start, ticks) = (Instant::now(), server.cpu_ticks());
    for n in 0..20 {
        pair[n % 2].send("pair", &n.to_string());
        for client in &mut pair {
            assert_eq!(client.find("message")["body"], n);
        }
        thread::sleep(Duration::from_millis(100));
    }
    let (wall_ms, cpu_ms) = (start.elapsed().as_millis(), u128::from(server.cpu_ticks() - ticks) * 10);
    assert!(cpu_ms < wall_ms / 2, "{cpu_ms} ms of processor in {wall_ms} ms: it spins");
    // Those behind the limit are told so.
    let told = crowd.iter_mut().rev().take(10).map(|client| client.next());
    for bye in told {
        assert_eq!(bye["type"], "bye", "{bye}");
        assert!(bye["reason"] == "handshake_timeout" || bye["retry_after_ms"].is_u64(), "{bye}");
    }
    drop(crowd);
    wait_until("a place for a new client", || {
        let mut client = Client::connect(server.address());
        client.say(&hello("new"));
        client.try_next().is_some_and(|object| object["type"] == "welcome")
    });
    pair.iter_mut().for_each(|client| drop(client.sync()));
    let ended = server.stop();
    ended.assert_clean();
    assert!(ended.ends("overloaded") > 0, "{:?}", ended.ends);
    let errors = ended.counter("accept_errors");
    assert!(errors > 0, "it was out of descriptors: {:?}", ended.counters);
    assert!(errors < 10_000, "it tried again at once, and again: {:?}", ended.counters);
}
