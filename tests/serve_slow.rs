//! Readers that are slow or never read: they go, everybody else gets everything; who reads slowly but steadily stays.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::Read;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
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

/// The number that a message's body begins with.
fn number(object: &Value) -> usize {
    object["body"].as_str().unwrap().split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_reader_of_a_room_that_drops_its_oldest_stays_is_told_and_finds_the_rest_in_the_history() {
    const MESSAGES: usize = 200;
    let config = "[queues]\nslow_reader = \"close\"\nsoft_mark_bytes = 65_536\nhard_mark_bytes = 262_144\n\
                  [history]\nroom_messages = 10_000\nroom_bytes = 16_000_000\n\
                  [[rooms]]\npattern = \"game:*\"\nslow_reader = \"drop_oldest\"\n";
    let server = Server::start(3, config);
    let mut sender = Client::member(server.address(), "sender", "game:1");
    let mut slow = narrow_member(&server, "slow", "game:1");
    // In a room that drops nothing, on the same server, as slow a reader ends.
    sender.join("other");
    let mut lost = narrow_member(&server, "lost", "other");
    for n in 0..MESSAGES {
        publish(&mut sender, &mut [], "game:1", n, 20_000);
        publish(&mut sender, &mut [], "other", n, 20_000);
    }
    wait_for_members(&mut sender, "other", 1);
    lost.read_to_the_end();

    let (mut seen, mut gaps, mut last) = (Vec::new(), Vec::new(), None);
    while seen.last() != Some(&(MESSAGES - 1)) {
        let object = slow.next();
        assert_eq!(object["room"], "game:1", "{object}");
        if object["type"] == "gap" {
            assert_eq!(object["since"].as_str(), last.as_deref(), "behind the last message it got");
            gaps.push(object["since"].as_str().unwrap().to_owned());
            continue;
        }
        last = Some(object["at"].as_str().unwrap().to_owned());
        seen.push(number(&object));
    }
    assert!(seen.is_sorted_by(|a, b| a < b), "{seen:?}");
    let holes = seen.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
    assert_eq!((holes, seen[0]), (gaps.len(), 0), "one gap for each hole: {seen:?}");
    assert!(!gaps.is_empty(), "nothing was dropped");

    let mut all = seen.clone();
    for mut after in gaps {
        loop {
            slow.say(&json!({"type": "history", "room": "game:1", "after": after, "limit": 1_000}).to_string());
            let page = slow.expect("history");
            let messages = page["messages"].as_array().unwrap();
            let fresh: Vec<_> = messages.iter().filter(|message| !all.contains(&number(message))).collect();
            all.extend(fresh.iter().map(|message| number(message)));
            if fresh.len() < messages.len() || page["more"] == false {
                break;
            }
            after = messages.last().unwrap()["at"].as_str().unwrap().to_owned();
        }
    }
    all.sort_unstable();
    assert!(all.into_iter().eq(0..MESSAGES), "what was dropped is in the history, once");
    let ended = server.stop();
    ended.assert_clean();
    assert_eq!(ended.ends("slow_consumer"), 1, "{:?}", ended.ends);
    assert_eq!(usize::try_from(ended.counter("dropped_oldest")).unwrap(), MESSAGES - seen.len());
}

#[test]
fn ephemeral_messages_go_first_and_cost_nobody_a_message() {
    let server = Server::start(2, "[queues]\nsoft_mark_bytes = 65_536\n");
    let mut sender = Client::member(server.address(), "sender", "lobby");
    let mut slow = narrow_member(&server, "slow", "lobby");
    for n in 0..100 {
        let body = format!("{n} {}", "x".repeat(20_000));
        let flag = if n % 20 == 0 { "" } else { r#","ephemeral":true"# };
        sender.say(&format!(r#"{{"type":"send","room":"lobby","body":"{body}"{flag}}}"#));
        assert_eq!(sender.find("message")["body"], body);
    }
    let mut got = Vec::new();
    while got.iter().filter(|n| *n % 20 == 0).count() < 5 {
        got.push(number(&slow.expect("message")));
    }
    assert!(got.is_sorted() && got.len() < 100, "{got:?}");
    let ended = server.stop();
    ended.assert_clean();
    assert!(ended.counter("dropped_ephemeral") > 0);
    assert_eq!((ended.ends("slow_consumer"), ended.counter("gaps")), (0, 0));
}

#[test]
fn over_the_budget_of_a_shard_the_largest_queue_ends_first() {
    const OTHERS: usize = 12;
    let server = Server::start(1, "[queues]\nsoft_mark_bytes = 900_000\nhard_mark_bytes = 1_000_000\nshard_bytes_max = 1_000_000\n");
    let mut sender = Client::login(server.address(), "sender");
    let mut others: Vec<Client> = (0..OTHERS).map(|n| narrow_member(&server, &format!("u{n}"), &format!("r{n}"))).collect();
    let mut largest = narrow_member(&server, "largest", "large");
    for room in (0..OTHERS).map(|n| format!("r{n}")).chain(["large".to_owned()]) {
        sender.join(&room);
    }
    for n in 0..15 {
        publish(&mut sender, &mut [], "large", n, 60_000);
    }
    let members = |sender: &mut Client, room: &str| {
        sender.say(&format!(r#"{{"type":"presence","room":"{room}"}}"#));
        sender.find("presence")["members"].as_u64().unwrap()
    };
    assert_eq!(members(&mut sender, "large"), 2, "one queue alone is within the budget");
    let mut sent = 0;
    while members(&mut sender, "large") == 2 {
        assert!(sent < OTHERS * 10, "far over the budget, and nobody has ended");
        publish(&mut sender, &mut [], &format!("r{}", sent % OTHERS), sent, 60_000);
        sent += 1;
    }
    for n in 0..OTHERS {
        assert_eq!(members(&mut sender, &format!("r{n}")), 2, "a smaller queue has ended");
    }
    largest.read_to_the_end();
    for (n, other) in others.iter_mut().enumerate() {
        for n in (0..sent).filter(|m| m % OTHERS == n) {
            assert_eq!(number(&other.expect("message")), n);
        }
    }
    let ended = server.stop();
    ended.assert_clean();
    assert_eq!((ended.ends("slow_consumer"), ended.counter("evicted")), (1, 1));
}
