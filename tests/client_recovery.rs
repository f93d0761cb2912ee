//! Once and in order over a network that breaks and a server that forgets: the library against the real program, with a reader of raw frames beside it.
#![allow(clippy::unwrap_used, reason = "tests")]

mod client_support;

use std::thread;
use std::time::{Duration, Instant};

use client_support::{PATIENCE, Proxy, Raw, Server, eager};
use ringroom::client::{Client, Error, Event, Join, Lifetime, Options, Post};
use serde_json::value::{RawValue, to_raw_value};

const MESSAGES: u64 = 300;

/// Connects through a network that may break at any byte of the login too.
fn connect(proxy: &Proxy, options: &Options) -> Client {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match Client::connect(proxy.address, options.clone()) {
            Ok(client) => return client,
            Err(Error::Login(_) | Error::Unreachable(_)) if Instant::now() < deadline => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Sends the numbers under their keys, as many ahead as the session takes, and waits for every answer.
fn send_numbers(client: &mut Client, numbers: std::ops::Range<u64>) -> u64 {
    let mut duplicates = 0;
    for n in numbers {
        let (body, key) = (to_raw_value(&n).unwrap(), format!("number-{n}"));
        let post = Post { room: "r", body: &body, key: Some(&key), lifetime: Lifetime::Retained };
        client.post(&post).unwrap();
        // Paced by the answers, so that the cuts meet messages of all ages.
        while client.session().unanswered_sends() > 4 {
            duplicates += note(client);
        }
    }
    while client.session().unanswered_sends() > 0 {
        duplicates += note(client);
    }
    duplicates
}

fn note(client: &mut Client) -> u64 {
    match client.receive(PATIENCE).unwrap().expect("an answer in time") {
        Event::Sent(sent) => u64::from(sent.duplicate),
        Event::Failed { refusal, .. } => panic!("{refusal}"),
        _ => 0,
    }
}

/// Bodies as the caller gets them, until `last`; never a remark that something may be missing.
fn receive_until(client: &mut Client, last: u64) -> Vec<u64> {
    let mut bodies: Vec<u64> = Vec::new();
    while bodies.last() != Some(&last) {
        match client.receive(PATIENCE).unwrap().unwrap_or_else(|| panic!("after {bodies:?}")) {
            Event::Message(message) => bodies.push(message.body.get().parse().unwrap()),
            Event::Missed { room } => panic!("missed in {room} after {bodies:?}"),
            _ => {}
        }
    }
    bodies
}

#[test]
fn every_message_comes_once_and_in_order_over_connections_cut_at_any_byte() {
    for seed in [1, 2, 3] {
        eprintln!("seed {seed}");
        let server = Server::start();
        let (there, back) = (Proxy::start(server.address, seed), Proxy::start(server.address, seed + 100));
        let mut raw = Raw::join(server.address, "witness", "r");
        let witness = thread::spawn(move || raw.bodies_until(MESSAGES));
        let join = Join { echo: false, ..Join::default() };
        let (mut receiver, mut sender) = (connect(&back, &eager("receiver")), connect(&there, &eager("sender")));
        receiver.join("r", join.clone()).unwrap();
        sender.join("r", join).unwrap();
        there.cut_within(3_000);
        back.cut_within(5_000);
        // The connections of before know no cuts.
        for client in [&mut receiver, &mut sender] {
            client.session().disconnected(ringroom::client::Down::Transport("test".into()), Instant::now());
        }
        let reading = thread::spawn(move || (receive_until(&mut receiver, MESSAGES), receiver));
        let duplicates = send_numbers(&mut sender, 0..MESSAGES);
        there.cut_within(0);
        back.cut_within(0);
        send_numbers(&mut sender, MESSAGES..MESSAGES + 1);
        let wanted: Vec<u64> = (0..=MESSAGES).collect();
        assert_eq!(witness.join().unwrap(), wanted, "the server's side, seed {seed}");
        let (received, receiver) = reading.join().unwrap();
        assert_eq!(received, wanted, "the caller's side, seed {seed}");
        eprintln!("cuts {} + {}, repeats that were duplicates {duplicates}", there.cuts(), back.cuts());
        assert!(there.cuts() >= 10 && back.cuts() >= 5, "the network did not break: {} + {}", there.cuts(), back.cuts());
        receiver.close();
    }
}

#[test]
fn a_server_that_forgets_is_told_and_nothing_comes_twice() {
    let first = Server::start();
    let proxy = Proxy::start(first.address, 1);
    let (mut reader, mut writer) = (connect(&proxy, &eager("reader")), connect(&proxy, &eager("writer")));
    reader.join("r", Join::default()).unwrap();
    writer.join("r", Join { echo: false, ..Join::default() }).unwrap();
    send_numbers(&mut writer, 0..5);
    assert_eq!(receive_until(&mut reader, 4), [0, 1, 2, 3, 4]);
    let second = Server::start();
    proxy.point_to(second.address);
    drop(first);
    send_numbers(&mut writer, 5..10);
    let mut told = Vec::new();
    while told.last().map(String::as_str) != Some("9") {
        match reader.receive(PATIENCE).unwrap().unwrap() {
            Event::Message(message) => told.push(message.body.get().to_owned()),
            Event::Missed { room } => told.push(format!("missed {room}")),
            _ => {}
        }
    }
    assert_eq!(told, ["missed @reader", "missed r", "5", "6", "7", "8", "9"]);
    assert_eq!(reader.session().rooms().collect::<Vec<_>>(), ["r"]);
}

#[test]
fn direct_messages_of_an_absence_come_with_the_next_login() {
    let server = Server::start();
    let mut bob = Client::connect(server.address, eager("bob")).unwrap();
    let mut alice = Client::connect(server.address, eager("alice")).unwrap();
    alice.send("@bob", &1).unwrap();
    assert_eq!(receive_until(&mut bob, 1), [1]);
    let inbox = bob.session().position("@bob").map(String::from);
    bob.close();
    for n in 2..=4 {
        alice.send("@bob", &n).unwrap();
    }
    let mut bob = Client::connect(server.address, Options { inbox, ..eager("bob") }).unwrap();
    assert_eq!(receive_until(&mut bob, 4), [2, 3, 4]);
}

#[test]
fn a_key_said_again_in_another_life_is_not_sent_again() {
    let server = Server::start();
    let body = RawValue::from_string("1".into()).unwrap();
    let mut places = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(server.address, eager("alice")).unwrap();
        client.join("r", Join::default()).unwrap();
        let sent = client.send_with_key("r", &body, "key").unwrap();
        places.push((sent.at, sent.duplicate));
        client.close();
    }
    assert!(places[0].0 == places[1].0 && !places[0].1 && places[1].1, "{places:?}");
}

#[test]
fn calls_that_can_not_succeed_say_why() {
    let server = Server::start();
    let mut client = Client::connect(server.address, eager("alice")).unwrap();
    let refused = client.send("nowhere", &1).unwrap_err();
    assert!(matches!(&refused, Error::Refused(refusal) if refusal.reason == "not_joined"), "{refused}");
    assert!(matches!(client.join("@bob", Join::default()), Err(Error::Rejected(_))));
    assert!(matches!(client.send("r", &"x".repeat(62_000)), Err(Error::Rejected(_))));
    assert!(client.receive(Duration::from_millis(1)).unwrap().is_none());
    client.join("r", Join::default()).unwrap();
    assert_eq!(client.presence("r").unwrap(), ["alice"]);
    client.send("r", &7).unwrap();
    let (messages, more) = client.history("r", &ringroom::client::Page::Newest, 10).unwrap();
    assert_eq!((messages.len(), messages[0].body.get(), more), (1, "7", false));
    client.leave("r").unwrap();
    assert!(matches!(client.presence("r"), Err(Error::Refused(_))));
}
