//! A new server takes over the port of a running one: nobody is refused meanwhile, and what can't be taken over is said in one line.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use support::{Client, Server, assert_bye, frame, hello, wait_until};

fn shards(count: usize) -> String {
    count.to_string()
}

fn successor(server: &Server, count: usize) -> Server {
    let address = server.address().to_string();
    Server::start_with(&["--takeover", "--shards", &shards(count), "--listen", &address], "", "true")
}

/// What a takeover that is refused says; it has to end by itself.
fn refused(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringroom"));
    command.env_remove("RUST_LOG").stdin(Stdio::null()).args(["serve", "--takeover"]).args(args);
    command.output().unwrap()
}

#[track_caller]
fn assert_refused(output: &Output, code: i32, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    let line = said.lines().find(|line| line.starts_with("ringroom: ")).unwrap();
    assert!(words.iter().all(|word| line.contains(word)), "{line}");
    assert!(output.stdout.is_empty());
}

/// How often which first object came.
#[derive(Default)]
struct Seen {
    welcome: AtomicU64,
    draining: AtomicU64,
}

/// One connect, one `hello`, one answer: `welcome` or a `bye` that says when to come back, and never a refusal or a reset.
fn knock(address: SocketAddr, user: &str, seen: &Seen) -> Result<(), String> {
    let mut stream = TcpStream::connect(address).map_err(|error| format!("connect: {error}"))?;
    stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
    // A server that has said `bye` may close before it has read this.
    match stream.write_all(&frame(&hello(user))) {
        Err(error) if !matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => return Err(format!("write: {error}")),
        _ => {}
    }
    let mut header = [0; 4];
    stream.read_exact(&mut header).map_err(|error| format!("before the first object: {error}"))?;
    let mut json = vec![0; u32::from_be_bytes(header) as usize];
    stream.read_exact(&mut json).map_err(|error| format!("in the first object: {error}"))?;
    let object: support::Value = serde_json::from_slice(&json).unwrap();
    match (object["type"].as_str(), object["reason"].as_str()) {
        (Some("welcome"), _) => seen.welcome.fetch_add(1, Ordering::Relaxed),
        (Some("bye"), Some("draining")) if object["retry_after_ms"].is_u64() => seen.draining.fetch_add(1, Ordering::Relaxed),
        _ => return Err(object.to_string()),
    };
    Ok(())
}

#[test]
fn no_connect_is_refused_while_servers_take_over_from_each_other_under_fire() {
    let mut server = Server::start(3, "");
    let address = server.address();
    let (seen, over) = (Arc::new(Seen::default()), Arc::new(AtomicBool::new(false)));
    let threads: Vec<_> = (0..6)
        .map(|thread| {
            let (seen, over) = (seen.clone(), over.clone());
            thread::spawn(move || {
                let mut knocks = 0;
                while !over.load(Ordering::Relaxed) {
                    knock(address, &format!("u{thread}-{}", knocks % 50), &seen)?;
                    knocks += 1;
                    // Each leaves a port in TIME_WAIT behind, of which there are 28,000.
                    thread::sleep(Duration::from_millis(2));
                }
                Ok::<u64, String>(knocks)
            })
        })
        .collect();
    for round in 0..3usize {
        let before = seen.welcome.load(Ordering::Relaxed);
        let mut session = Client::login(address, "stays");
        let next = successor(&server, 3 + round / 2);
        // It is told to come back, and finds the new one.
        assert_bye(&session.bye(), 503, "draining");
        let ended = std::mem::replace(&mut server, next).ended();
        ended.assert_clean();
        wait_until("logins at the new server", || seen.welcome.load(Ordering::Relaxed) > before + 200);
    }
    over.store(true, Ordering::Relaxed);
    let knocks: Vec<Result<u64, String>> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert!(knocks.iter().all(Result::is_ok), "{knocks:?}");
    let ended = server.stop();
    ended.assert_clean();
    assert!(ended.log.contains("has left the port"), "{}", ended.log);
    assert!(ended.counter("logins") > 100, "{:?}", ended.counters);
}

#[test]
fn what_stands_in_the_accept_queues_is_told_before_they_close() {
    let server = Server::start(2, "");
    let address = server.address();
    // Nobody accepts while it is stopped; the kernel does.
    server.signal("-STOP");
    let mut queued: Vec<Client> = (0..200).map(|_| Client::connect(address)).collect();
    queued.iter_mut().enumerate().step_by(2).for_each(|(n, client)| client.say(&hello(&format!("u{n}"))));
    server.signal("-TERM");
    server.signal("-CONT");
    for client in &mut queued {
        assert_bye(&client.bye(), 503, "draining");
    }
    let ended = server.ended();
    ended.assert_clean();
    assert_eq!(ended.counter("accepted"), 200);
}

#[test]
fn an_old_server_that_does_not_leave_is_reported_and_the_new_one_serves() {
    let server = Server::start(2, "");
    let address = server.address();
    server.signal("-STOP");
    let next = successor(&server, 2);
    // Longer than the table's `Release`.
    wait_until("its last word", || {
        thread::sleep(Duration::from_millis(200));
        next.log_so_far().contains("still listens after 10000 ms")
    });
    for n in 0..50 {
        Client::login(address, &format!("u{n}")).sync();
    }
    server.signal("-CONT");
    server.ended().assert_clean();
    next.stop().assert_clean();
}

#[test]
fn a_takeover_that_can_not_be_is_refused_with_the_reason() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    assert_refused(&refused(&["--listen", &address]), 69, &[&address, "not ringroom", "stop it or choose another port"]);
    drop(free);
    assert_refused(&refused(&["--listen", &address]), 69, &["nobody listens", &address, "without --takeover"]);
    assert_refused(&refused(&["--listen", "127.0.0.1:0"]), 69, &["nobody listens"]);
    let server = Server::start(3, "");
    let address = server.address().to_string();
    assert_refused(&refused(&["--listen", &address, "--shards", "2"]), 64, &["3 shards", "--shards 3"]);
    // Without the flag a second server is refused as ever.
    let second = Command::new(env!("CARGO_BIN_EXE_ringroom")).args(["serve", "--listen", &address]).output().unwrap();
    assert_eq!(second.status.code(), Some(69));
    assert!(String::from_utf8_lossy(&second.stderr).contains("--takeover"));
    // A successor that can't start leaves the old one alone.
    let mut config = tempfile::NamedTempFile::new().unwrap();
    config.write_all(b"[auth]\nmode = \"jwt\"\nkeys = [\"/nonexistent/key.pem\"]\n").unwrap();
    let path = config.path().to_str().unwrap();
    assert_refused(&refused(&["--listen", &address, "--shards", "3", "--config", path]), 66, &["/nonexistent/key.pem"]);
    for n in 0..20 {
        Client::login(server.address(), &format!("u{n}")).sync();
    }
    server.stop().assert_clean();
}
