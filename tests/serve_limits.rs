//! Limits that a client can meet, what it is told there, and the test that reaches each: here, or in the file that is named.
//!
//! | what | key | at the limit | seen by |
//! |---|---|---|---|
//! | connections in all | `limits.connections_max` (0: nofile less a reserve) | bye 503 `overloaded` | `one_connection_too_many_is_told_to_come_back`, `serve_crowd` |
//! | connections of a shard | `limits.connections_per_shard_max` | bye 503 `overloaded` | the same |
//! | connections before login, of a shard | `limits.handshakes_per_shard` | bye 503 `overloaded` | `strangers_have_a_number_of_places_of_their_own` |
//! | bytes before login, of a shard | `queues.handshake_bytes_max` | bye 503 `overloaded` | `strangers_have_a_number_of_bytes_of_their_own` |
//! | bytes of incomplete frames, of a shard | `queues.leftover_bytes_max` | bye 503 `overloaded` | `serve_frames` |
//! | a frame, before and behind `welcome` | `limits::FRAME_BYTES_*` | bye 413 `frame_too_large` | `serve_frames` |
//! | a body | `limits::BODY_BYTES_MAX` | error 413 `body_too_large` | `serve_frames` |
//! | rooms of a session | `limits.rooms_per_session` | error 429 `too_many_rooms` | `serve_sessions` |
//! | rooms of a shard | `limits.rooms_per_shard` | error 503 `overloaded` | `rooms_of_a_shard_have_a_number` |
//! | rooms made in a time | `limits.requests_per_s`: a join is a request | error 429 `rate_limited` | `rooms_are_made_no_faster_than_requests` |
//! | sessions of a user | `limits.sessions_per_user` | bye 429 `too_many_sessions` | `serve_sessions` |
//! | tokens that wait to be checked | `auth.verify_queue` | bye 503 `overloaded` | `serve_jwt` |
//! | failed logins of an address | `auth.failures_burst` | bye 429 `rate_limited` | `serve_jwt`, `serve_proxy` |
//! | keys that are remembered, of a shard | `history.dedup_bytes` | error 503 `overloaded` | `keys_have_a_budget_and_known_ones_stay_known` |
//! | messages that are retained | `history.*` | `recovered` false | `rules_history` |
//! | bytes that wait for a session | `queues.hard_mark_bytes` | bye 429 `slow_consumer` | `serve_slow` |
//! | frames and queue pieces of a shard | `queues.frames_max`, `queues.out_chunks_max` | bye 429 `slow_consumer` | `serve_slow` |
//! | gather buffers of a shard | `queues.gather_buffers` | no code: frames go out one by one | `without_buffers_to_gather_in_everything_still_arrives` |
//! | bad objects in a minute | `limits::BAD_OBJECTS_MAX` | bye 400 `protocol_error` | `serve_frames` |
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use serde_json::json;
use support::{Client, Server, assert_bye, assert_error, frame, hello, wait_until};

#[test]
fn one_connection_too_many_is_told_to_come_back() {
    for config in ["connections_max = 20\n", "connections_per_shard_max = 20\n"] {
        let server = Server::start(1, &format!("[limits]\n{config}"));
        let mut inside: Vec<Client> = (0..20).map(|n| Client::login(server.address(), &format!("u{n}"))).collect();
        for _ in 0..3 {
            let bye = Client::connect(server.address()).bye();
            assert_bye(&bye, 503, "overloaded");
            assert!(bye["retry_after_ms"].as_u64() > Some(0), "{bye}");
        }
        inside.iter_mut().for_each(|client| drop(client.sync()));
        inside.pop().unwrap().finish();
        wait_until("a place", || {
            let mut client = Client::connect(server.address());
            client.try_raw(&frame(&hello("late")));
            client.next()["type"] == "welcome"
        });
        server.stop().assert_clean();
    }
}

#[test]
fn strangers_have_a_number_of_places_of_their_own() {
    let server = Server::start(1, "[limits]\nhandshakes_per_shard = 5\n");
    // Whoever has logged in is no stranger.
    let mut inside: Vec<Client> = (0..20).map(|n| Client::login(server.address(), &format!("u{n}"))).collect();
    let mut silent: Vec<Client> = (0..5).map(|_| Client::connect(server.address())).collect();
    let bye = Client::connect(server.address()).bye();
    assert_bye(&bye, 503, "overloaded");
    assert!(bye["retry_after_ms"].is_u64(), "{bye}");
    silent[0].say(&hello("shy"));
    silent[0].expect("welcome");
    Client::login(server.address(), "next").sync();
    inside.iter_mut().for_each(|client| drop(client.sync()));
    server.stop().assert_clean();
}

#[test]
fn strangers_have_a_number_of_bytes_of_their_own() {
    let server = Server::start(1, "[queues]\nhandshake_bytes_max = 6_148\n");
    let padded = |user: &str, bytes: usize| {
        let hello = hello(user);
        frame(&format!(r#"{},"pad":"{}"}}"#, &hello[..hello.len() - 1], "p".repeat(bytes)))
    };
    let (first, second) = (padded("ann", 3_000), padded("bob", 3_900));
    let (mut ann, mut bob) = (Client::connect(server.address()), Client::connect(server.address()));
    ann.raw(&first[..first.len() - 1]);
    // A login behind it: what ann has sent is kept by then.
    Client::login(server.address(), "carol").sync();
    bob.raw(&second[..second.len() - 1]);
    let bye = bob.bye();
    assert_bye(&bye, 503, "overloaded");
    assert!(bye["retry_after_ms"].as_u64() > Some(0), "{bye}");
    ann.raw(&first[first.len() - 1..]);
    ann.expect("welcome");
    Client::login(server.address(), "bob").sync();
    let ended = server.stop();
    ended.assert_clean();
    assert_eq!(ended.ends("overloaded"), 1, "{:?}", ended.ends);
}

#[test]
fn rooms_of_a_shard_have_a_number() {
    let server = Server::start(1, "[limits]\nrooms_per_shard = 3\n");
    let mut ann = Client::login(server.address(), "ann");
    (0..3).for_each(|n| drop(ann.join(&format!("room-{n}"))));
    let mut bob = Client::login(server.address(), "bob");
    bob.say(r#"{"type":"join","id":9,"room":"room-3"}"#);
    let error = bob.next();
    assert_error(&error, 503, "overloaded");
    assert_eq!(error["id"], 9);
    bob.join("room-2");
    ann.say(r#"{"type":"leave","room":"room-0"}"#);
    ann.expect("left");
    bob.join("room-3");
    server.stop().assert_clean();
}

#[test]
fn rooms_are_made_no_faster_than_requests() {
    let server = Server::start(2, "[limits]\nrequests_per_s = 1\nrequests_burst = 5\nrate_mode = \"reject\"\n");
    let mut ann = Client::login(server.address(), "ann");
    for n in 0..20 {
        ann.say(&json!({"type": "join", "id": n, "room": format!("made-up-{n}")}).to_string());
    }
    let answers: Vec<_> = (0..20).map(|_| ann.next()).collect();
    let (joined, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer["type"] == "joined");
    refused.iter().for_each(|answer| assert_error(answer, 429, "rate_limited"));
    assert!((4..=8).contains(&joined.len()), "a burst of 5, and one a second: {answers:?}");
    server.stop().assert_clean();
}

#[test]
fn keys_have_a_budget_and_known_ones_stay_known() {
    let server = Server::start(1, "[history]\ndedup_bytes = 16_384\n");
    let mut ann = Client::login(server.address(), "ann");
    ann.say(r#"{"type":"join","room":"lobby","echo":false}"#);
    ann.expect("joined");
    let send = |n: usize| json!({"type": "send", "id": n, "room": "lobby", "body": n, "key": format!("k{n}")}).to_string();
    let mut sent = 0;
    let refused = loop {
        ann.say(&send(sent));
        let answer = ann.next();
        if answer["type"] != "sent" {
            break answer;
        }
        sent += 1;
        assert!(sent < 10_000, "there is no bound");
    };
    assert_error(&refused, 503, "overloaded");
    assert!((200..600).contains(&sent), "about 50 bytes for each of {sent}");
    // The last 128 of a user are promised, and a message without a key needs none.
    for n in [sent - 128, sent - 1] {
        ann.say(&send(n));
        assert_eq!(ann.expect("sent")["duplicate"], true);
    }
    ann.send("lobby", "1");
    ann.expect("sent");
    server.stop().assert_clean();
}

#[test]
fn without_buffers_to_gather_in_everything_still_arrives() {
    let server = Server::start(1, "[queues]\ngather_buffers = 1\n");
    let mut members: Vec<Client> = (0..20).map(|n| Client::member(server.address(), &format!("u{n}"), &format!("r{}", n % 10))).collect();
    for n in 0..50 {
        for (member, client) in members.iter_mut().enumerate().take(10) {
            client.send(&format!("r{member}"), &n.to_string());
        }
    }
    for member in &mut members {
        assert!((0..50).all(|n| member.find("message")["body"] == n));
    }
    server.stop().assert_clean();
}
