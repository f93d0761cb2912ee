//! Readers that are slow or never read: they go, everybody else gets everything; who reads slowly but steadily stays.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::Read;
use std::thread;
use std::time::Duration;

use support::{Client, Server, frame, hello, wait_until};

/// The receive buffer of a reader that is soon felt.
const NARROW: usize = 4_096;

fn narrow_member(server: &Server, user: &str, room: &str) -> Client {
    let mut client = Client::connect_narrow(server.address(), NARROW);
    client.say(&hello(user));
    client.say(&format!(r#"{{"type":"join","room":"{room}"}}"#));
    client.expect("welcome");
    client.expect("joined");
    client
}

/// Until the room has so many users.
fn wait_for_members(member: &mut Client, room: &str, members: u64) {
    wait_until("slow readers have gone", || {
        member.say(&format!(r#"{{"type":"presence","room":"{room}"}}"#));
        member.find("presence")["members"] == members
    });
}

/// A message of so many bytes of body, read by all before the next.
fn publish(sender: &mut Client, others: &mut [Client], room: &str, n: usize, bytes: usize) {
    let body = format!("{n} {}", "x".repeat(bytes));
    sender.send(room, &format!("\"{body}\""));
    assert_eq!(sender.find("message")["body"], body);
    for other in others {
        assert_eq!(other.find("message")["body"], body);
    }
}

#[test]
fn a_reader_that_never_reads_ends_at_the_hard_mark_and_others_get_everything() {
    let server = Server::start(3, "[queues]\nsoft_mark_bytes = 65_536\nhard_mark_bytes = 200_000\n");
    let mut others: Vec<Client> = (0..8).map(|n| Client::member(server.address(), &format!("u{n}"), "lobby")).collect();
    let mut sender = Client::member(server.address(), "sender", "lobby");
    let mut deaf: Vec<Client> = (0..4).map(|n| narrow_member(&server, &format!("deaf{n}"), "lobby")).collect();
    (0..30).for_each(|n| publish(&mut sender, &mut others, "lobby", n, 50_000));
    wait_for_members(&mut sender, "lobby", 9);
    // What they still get is whole frames and perhaps a bye; then the end.
    deaf.iter_mut().for_each(Client::read_to_the_end);
    others.iter_mut().for_each(|other| assert!(other.sync().is_empty()));
    let ended = server.stop();
    ended.assert_clean();
    assert_eq!(ended.ends("slow_consumer"), 4, "{:?}", ended.ends);
}

#[test]
fn a_reader_without_progress_ends_before_its_queue_is_full() {
    let server = Server::start(2, "[queues]\nno_progress_ms = 500\n");
    let mut sender = Client::member(server.address(), "sender", "lobby");
    let deaf = narrow_member(&server, "deaf", "lobby");
    // More than the kernel takes for it, less than the hard mark.
    (0..8).for_each(|n| publish(&mut sender, &mut [], "lobby", n, 60_000));
    wait_for_members(&mut sender, "lobby", 1);
    drop(deaf);
    let ended = server.stop();
    ended.assert_clean();
    assert_eq!(ended.ends("slow_consumer"), 1, "{:?}", ended.ends);
}

/// The kernel blocks such a client's send on a thread of its own, where a cancel is an interruption.
#[test]
fn a_reader_that_closes_its_side_and_stops_ends_too() {
    let server = Server::start(2, "[queues]\nno_progress_ms = 500\n");
    let mut sender = Client::member(server.address(), "sender", "lobby");
    let mut deaf = narrow_member(&server, "deaf", "lobby");
    (0..8).for_each(|n| publish(&mut sender, &mut [], "lobby", n, 60_000));
    // Its queue is too long for another request: that one waits, and with it the answer to the end of the stream.
    deaf.say(r#"{"type":"ping"}"#);
    deaf.finish();
    wait_for_members(&mut sender, "lobby", 1);
    drop(deaf);
    let ended = server.stop();
    ended.assert_clean();
    assert_eq!(ended.ends("slow_consumer"), 1, "{:?}", ended.ends);
}

#[test]
fn a_reader_that_is_slow_but_never_stops_is_kept() {
    const MESSAGES: usize = 8;
    let server = Server::start(2, "[queues]\nno_progress_ms = 1_000\n");
    let mut sender = Client::member(server.address(), "sender", "lobby");
    let mut slow = narrow_member(&server, "slow", "lobby");
    (0..MESSAGES).for_each(|n| publish(&mut sender, &mut [], "lobby", n, 60_000));
    // A few KiB at a time: one send of the server takes far longer than the time it may stand still.
    let mut first = vec![0; 200_000];
    let mut got = 0;
    while got < first.len() {
        let end = (got + 2_048).min(first.len());
        let count = (&*slow.stream).read(&mut first[got..end]).unwrap();
        assert!(count > 0, "ended although it reads");
        got += count;
        thread::sleep(Duration::from_millis(50));
    }
    slow.put_back(first);
    for n in 0..MESSAGES {
        let object = slow.expect("message");
        assert!(object["body"].as_str().unwrap().starts_with(&format!("{n} ")), "in order, whole");
    }
    assert!(slow.sync().is_empty());
    server.stop().assert_clean();
}

#[test]
fn a_client_that_asks_and_never_reads_takes_nothing_from_others() {
    let server = Server::start(1, "[queues]\nframes_max = 65_536\n");
    let mut ann = Client::member(server.address(), "ann", "lobby");
    let asked = frame(r#"{"type":"ping"}"#).repeat(2_000);
    let askers: Vec<_> = (0..8)
        .map(|n| {
            let mut client = Client::connect_narrow(server.address(), NARROW);
            client.say(&hello(&format!("u{n}")));
            client.stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
            let asked = asked.clone();
            // Until it is ended, or no more is read from it.
            thread::spawn(move || while client.try_raw(&asked) {})
        })
        .collect();
    for n in 0..500 {
        publish(&mut ann, &mut [], "lobby", n, 100);
    }
    askers.into_iter().for_each(|asker| asker.join().unwrap());
    publish(&mut ann, &mut [], "lobby", 500, 100);
    let ended = server.stop();
    ended.assert_clean();
    assert_eq!(ended.ends("overloaded"), 0, "{:?}", ended.ends);
}
