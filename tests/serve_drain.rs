//! The end that a signal asks for, under load: everybody is told, nothing is left.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use support::{Client, Server, assert_bye, frame, hello};

#[test]
fn under_load_every_client_gets_a_bye_with_its_own_time_to_come_back() {
    const CLIENTS: usize = 60;
    const IN_FLIGHT: usize = 20;
    let server = Server::start(3, "");
    let (running, got) = (Arc::new(Barrier::new(CLIENTS + 1)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|n| {
            let (mut client, running, got) = (Client::login(server.address(), &format!("u{n}")), running.clone(), got.clone());
            thread::spawn(move || {
                let room = format!("room-{}", n % 7);
                client.join(&room);
                running.wait();
                let send = frame(&format!(r#"{{"type":"send","room":"{room}","body":"{}"}}"#, "x".repeat(100)));
                (0..IN_FLIGHT).for_each(|_| client.raw(&send));
                loop {
                    let object = client.next();
                    got.fetch_add(1, Ordering::Relaxed);
                    match object["type"].as_str() {
                        Some("bye") => {
                            client.assert_closed();
                            return object;
                        }
                        // The next one goes out when one is answered.
                        Some("sent") => drop(client.try_raw(&send)),
                        _ => {}
                    }
                }
            })
        })
        .collect();
    running.wait();
    support::wait_until("load", || got.load(Ordering::Relaxed) > 20_000);
    server.signal("-TERM");
    let mut times = BTreeSet::new();
    for client in clients {
        let bye = client.join().unwrap();
        assert_bye(&bye, 503, "draining");
        times.insert(bye["retry_after_ms"].as_u64().unwrap());
    }
    assert!(times.len() > CLIENTS / 2, "spread out: {times:?}");
    let ended = server.ended();
    ended.assert_clean();
    assert_eq!(ended.ends("draining"), CLIENTS as u64, "{:?}", ended.ends);
}

#[test]
fn what_was_read_before_the_signal_is_answered() {
    let server = Server::start(3, "");
    let mut clients: Vec<Client> = (0..20).map(|n| Client::member(server.address(), &format!("u{n}"), &format!("r{n}"))).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(&format!("r{n}"), "1");
        client.sync();
    }
    server.signal("-TERM");
    for client in &mut clients {
        assert_bye(&client.bye(), 503, "draining");
    }
    server.ended().assert_clean();
}

#[test]
fn strangers_and_newcomers_get_their_bye_too() {
    let server = Server::start(3, "");
    let mut silent: Vec<Client> = (0..20).map(|_| Client::connect(server.address())).collect();
    let mut half: Vec<Client> = (0..20).map(|_| Client::connect(server.address())).collect();
    for client in &mut half {
        client.raw(&frame(&hello("ann"))[..10]);
    }
    server.signal("-TERM");
    for client in silent.iter_mut().chain(&mut half) {
        assert_bye(&client.bye(), 503, "draining");
    }
    server.ended().assert_clean();
}

#[test]
fn a_client_that_never_reads_does_not_stop_the_end() {
    let server = Server::start(2, "");
    let mut ann = Client::member(server.address(), "ann", "lobby");
    let mut deaf = Client::connect_narrow(server.address(), 4_096);
    deaf.say(&hello("deaf"));
    deaf.say(r#"{"type":"join","room":"lobby"}"#);
    deaf.expect("welcome");
    deaf.expect("joined");
    for _ in 0..10 {
        ann.send("lobby", &format!("\"{}\"", "x".repeat(60_000)));
        ann.find("message");
    }
    server.signal("-TERM");
    let ended = server.ended();
    ended.assert_clean();
    assert_eq!(ended.ends("draining"), 2, "{:?}", ended.ends);
    assert_bye(&ann.bye(), 503, "draining");
}

#[test]
fn a_second_signal_stops_at_once() {
    let mut server = Server::start(2, "");
    let client = Client::login(server.address(), "ann");
    // The client stays, so the drain would last as long as its lingering. Two kinds, because two of one kind may become one.
    let script = format!("kill -TERM {0} && kill -INT {0}", server.pid());
    assert!(std::process::Command::new("sh").args(["-c", &script]).status().unwrap().success());
    support::wait_until("the end", || !server.runs());
    let ended = server.ended();
    assert_eq!(ended.code, Some(75), "{}", ended.log);
    assert!(ended.log.contains("second signal"), "{}", ended.log);
    drop(client);
}

/// The row of the table of deadlines that is about the whole process.
#[test]
fn the_drain_time_ends_the_process_whoever_is_left() {
    let row = ringroom::config::Deadline::Drain.row();
    let server = Server::start(2, "[limits]\ndrain_ms = 300\n");
    // It never closes, so that its connection lingers longer than the drain may take.
    let client = Client::login(server.address(), "ann");
    server.signal("-TERM");
    let ended = server.ended();
    assert_eq!(format!("exit {}", ended.code.unwrap()), row.then, "{}", ended.log);
    assert!(ended.log.contains(row.key), "{}", ended.log);
    drop(client);
}
