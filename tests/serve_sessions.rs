//! Who may be in, and how often: `hello`, sessions of one user, devices, inboxes, presence, rooms.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use serde_json::json;
use support::{Client, Server, assert_bye, assert_error, hello};

#[test]
fn nothing_but_hello_is_read_first() {
    let server = Server::start(2, "");
    for first in [r#"{"type":"ping"}"#, r#"{"type":"join","room":"lobby"}"#, r#"{"type":"dance"}"#, "nonsense"] {
        let mut client = Client::connect(server.address());
        client.say(first);
        assert_bye(&client.bye(), 401, "hello_first");
    }
    for (first, code, reason) in [
        (r#"{"type":"hello","version":2,"user":"ann"}"#, 505, "version"),
        (r#"{"type":"hello","version":1}"#, 400, "bad_field"),
        (r#"{"type":"hello","version":1,"user":"@ann"}"#, 400, "bad_field"),
    ] {
        let mut client = Client::connect(server.address());
        client.say(first);
        assert_bye(&client.bye(), code, reason);
    }
    server.stop().assert_clean();
}

#[test]
fn welcome_says_who_and_what_is_allowed() {
    let server = Server::start(2, "[server]\nnode = \"n-1\"\n[limits]\nheartbeat_ms = 20_000\n");
    let mut client = Client::connect(server.address());
    client.say(&hello("ann"));
    let welcome = client.expect("welcome");
    assert_eq!((&welcome["version"], &welcome["user"], &welcome["node"]), (&json!(1), &json!("ann"), &json!("n-1")));
    assert_eq!(welcome["heartbeat_ms"], 20_000);
    assert!(welcome["session"].is_string());
    let at = welcome["inbox"]["at"].as_str().unwrap();
    assert!(at.ends_with(".0-0") && at.len() <= 64, "{at}");
    let limits = &welcome["limits"];
    assert_eq!((&limits["frame_bytes"], &limits["body_bytes"], &limits["rooms"]), (&json!(65_536), &json!(61_440), &json!(128)));
    server.stop().assert_clean();
}

#[test]
fn a_second_hello_renews_the_same_user_and_ends_another() {
    let server = Server::start(3, "");
    let mut client = Client::connect(server.address());
    client.say(&hello("ann"));
    let first = client.expect("welcome");
    client.join("lobby");
    client.say(&hello("ann"));
    assert_eq!(client.expect("welcome")["session"], first["session"]);
    // Still a member.
    client.send("lobby", "1");
    client.expect("sent");
    client.expect("message");
    client.say(&hello("bob"));
    assert_bye(&client.bye(), 403, "forbidden");
    server.stop().assert_clean();
}

#[test]
fn sixteen_sessions_of_a_user_get_every_message_and_a_seventeenth_gets_none() {
    let server = Server::start(3, "");
    let mut sessions: Vec<Client> = (0..16).map(|_| Client::login(server.address(), "ann")).collect();
    for session in &mut sessions {
        session.join("lobby");
    }
    let mut one_more = Client::connect(server.address());
    one_more.say(&hello("ann"));
    assert_bye(&one_more.bye(), 429, "too_many_sessions");
    let mut bob = Client::member(server.address(), "bob", "lobby");
    for n in 0..20 {
        bob.send("lobby", &n.to_string());
        bob.send("@ann", &n.to_string());
    }
    for session in &mut sessions {
        let got: Vec<_> = (0..40).map(|_| session.expect("message")).collect();
        for room in ["lobby", "@ann"] {
            let bodies = got.iter().filter(|m| m["room"] == room).map(|m| m["body"].as_u64().unwrap());
            assert!(bodies.eq(0..20), "{room}: {got:?}");
        }
        assert!(session.sync().is_empty(), "no message comes twice");
    }
    // With one gone there is a place again.
    sessions.pop().unwrap().finish();
    support::wait_until("a place for a session", || {
        let mut again = Client::connect(server.address());
        again.say(&hello("ann"));
        again.next()["type"] == "welcome"
    });
    server.stop().assert_clean();
}

#[test]
fn a_device_replaces_its_own_older_session_alone() {
    let server = Server::start(3, "");
    let with_device = |user: &str, device: &str| json!({"type":"hello","version":1,"user":user,"device":device}).to_string();
    let connect = |user: &str, device: &str| {
        let mut client = Client::connect(server.address());
        client.say(&with_device(user, device));
        client.expect("welcome");
        client
    };
    let mut old = connect("ann", "phone");
    old.join("lobby");
    let mut tablet = connect("ann", "tablet");
    let mut stranger = connect("bob", "phone");
    let mut new = connect("ann", "phone");
    assert_bye(&old.bye(), 409, "replaced");
    new.join("lobby");
    for client in [&mut tablet, &mut stranger, &mut new] {
        assert!(client.sync().is_empty());
    }
    // A full house of sessions lets a phone in that was in it.
    let mut others: Vec<Client> = (0..14).map(|n| connect("ann", &format!("d{n}"))).collect();
    let mut again = connect("ann", "phone");
    assert_bye(&new.bye(), 409, "replaced");
    again.sync();
    others.iter_mut().for_each(|client| drop(client.sync()));
    server.stop().assert_clean();
}

#[test]
fn an_inbox_is_written_by_anybody_and_read_by_its_owner() {
    let server = Server::start(3, "");
    let mut ann = Client::login(server.address(), "ann");
    let mut bob = Client::login(server.address(), "bob");
    for request in ["join", "leave"] {
        for room in ["@bob", "@ann"] {
            bob.say(&json!({"type": request, "id": 3, "room": room}).to_string());
            let error = bob.next();
            assert_error(&error, 403, "forbidden");
            assert_eq!(error["id"], 3);
        }
    }
    for request in ["history", "presence"] {
        bob.say(&json!({"type": request, "id": 4, "room": "@ann"}).to_string());
        assert_error(&bob.next(), 403, "forbidden");
        bob.say(&json!({"type": request, "id": 5, "room": "@bob"}).to_string());
        assert_eq!(bob.expect(request)["id"], 5);
        bob.say(&json!({"type": request, "id": 6, "room": "lobby"}).to_string());
        assert_error(&bob.next(), 403, "not_joined");
    }
    bob.say(r#"{"type":"send","id":9,"room":"@ann","body":"psst"}"#);
    let sent = bob.expect("sent");
    let message = ann.expect("message");
    assert_eq!((&sent["id"], &sent["room"]), (&json!(9), &json!("@ann")));
    assert_eq!((&message["room"], &message["from"], &message["body"]), (&json!("@ann"), &json!("bob"), &json!("psst")));
    assert_eq!(sent["at"], message["at"]);
    // To oneself, and to somebody who is not there.
    ann.send("@ann", "2");
    ann.expect("sent");
    assert_eq!(ann.expect("message")["body"], 2);
    ann.send("@nobody-yet", "3");
    ann.expect("sent");
    assert!(bob.sync().is_empty() && ann.sync().is_empty());
    server.stop().assert_clean();
}

#[test]
fn presence_tells_of_users_not_of_sessions() {
    let server = Server::start(3, "");
    let mut watcher = Client::login(server.address(), "watcher");
    watcher.say(r#"{"type":"join","room":"lobby","presence":true}"#);
    assert_eq!(watcher.expect("joined")["members"], 1);
    let mut blind = Client::member(server.address(), "blind", "lobby");
    let event = |object: support::Value| (object["user"].clone(), object["event"].clone(), object["members"].clone());
    assert_eq!(event(watcher.expect("member")), (json!("blind"), json!("join"), json!(2)));
    let mut one = Client::member(server.address(), "ann", "lobby");
    assert_eq!(event(watcher.expect("member")), (json!("ann"), json!("join"), json!(3)));
    let mut two = Client::member(server.address(), "ann", "lobby");
    one.say(r#"{"type":"leave","room":"lobby"}"#);
    one.expect("left");
    watcher.say(r#"{"type":"presence","id":1,"room":"lobby"}"#);
    let presence = watcher.expect("presence");
    let mut users: Vec<_> = presence["users"].as_array().unwrap().iter().map(|user| user.as_str().unwrap()).collect();
    users.sort_unstable();
    assert_eq!((presence["members"].as_u64(), &presence["truncated"]), (Some(3), &json!(false)));
    assert_eq!(users, ["ann", "blind", "watcher"]);
    two.say(r#"{"type":"bye"}"#);
    assert_bye(&two.bye(), 0, "bye");
    assert_eq!(event(watcher.expect("member")), (json!("ann"), json!("leave"), json!(2)));
    assert!(blind.sync().is_empty(), "only those who asked are told");
    server.stop().assert_clean();
}

#[test]
fn a_room_over_200_users_tells_once_that_it_tells_no_more() {
    let server = Server::start(3, "");
    let mut watcher = Client::login(server.address(), "watcher");
    watcher.say(r#"{"type":"join","room":"lobby","presence":true}"#);
    watcher.expect("joined");
    let mut members = Vec::new();
    for n in 0..201 {
        members.push(Client::member(server.address(), &format!("u{n}"), "lobby"));
    }
    for n in 2..=200 {
        assert_eq!(watcher.expect("member")["members"], n);
    }
    let off = watcher.expect("member");
    assert_eq!((&off["event"], off.get("user"), off.get("members")), (&json!("off"), None, None), "{off}");
    let mut late = Client::login(server.address(), "late");
    late.say(r#"{"type":"join","room":"lobby","presence":true}"#);
    assert_eq!(late.expect("joined")["members"], 203);
    assert_eq!(late.expect("member")["event"], "off");
    members.drain(..100).for_each(Client::reset);
    late.send("lobby", "1");
    assert_eq!(watcher.expect("message")["body"], 1, "nothing of the room's coming and going");
    server.stop().assert_clean();
}

#[test]
fn after_left_nothing_of_the_room_comes() {
    let server = Server::start(3, "");
    let mut loud = Client::member(server.address(), "loud", "lobby");
    let mut ann = Client::login(server.address(), "ann");
    for _ in 0..20 {
        ann.join("lobby");
        (0..20).for_each(|n| loud.send("lobby", &n.to_string()));
        ann.say(r#"{"type":"leave","id":5,"room":"lobby"}"#);
        assert_eq!(ann.find("left")["id"], 5);
        (0..20).for_each(|n| loud.send("lobby", &n.to_string()));
        loud.sync();
        assert!(ann.sync().is_empty());
        ann.send("lobby", "1");
        assert_error(&ann.next(), 403, "not_joined");
    }
    ann.say(r#"{"type":"leave","id":6,"room":"lobby"}"#);
    assert_eq!(ann.expect("left")["id"], 6, "also when it was not joined");
    server.stop().assert_clean();
}

#[test]
fn one_room_over_the_limit_is_refused_until_another_is_left() {
    let server = Server::start(3, "");
    let mut ann = Client::login(server.address(), "ann");
    for n in 0..128 {
        ann.join(&format!("room-{n}"));
    }
    ann.say(r#"{"type":"join","id":1,"room":"room-128"}"#);
    let error = ann.next();
    assert_error(&error, 429, "too_many_rooms");
    assert_eq!(error["id"], 1);
    assert_eq!(ann.join("room-5")["members"], 1, "a second join of the same room is none more");
    ann.say(r#"{"type":"leave","room":"room-77"}"#);
    ann.expect("left");
    ann.join("room-128");
    server.stop().assert_clean();
}

#[test]
fn ephemeral_messages_have_no_position() {
    let server = Server::start(3, "");
    let mut ann = Client::member(server.address(), "ann", "lobby");
    let mut bob = Client::member(server.address(), "bob", "lobby");
    for room in ["lobby", "@bob"] {
        ann.say(&json!({"type":"send","id":8,"room":room,"body":{"typing":true},"ephemeral":true}).to_string());
        let (sent, message) = (ann.find("sent"), bob.expect("message"));
        assert_eq!((&sent["id"], sent.get("at"), message.get("at")), (&json!(8), None, None));
        assert_eq!((&message["room"], &message["body"]), (&json!(room), &json!({"typing": true})));
    }
    server.stop().assert_clean();
}

#[test]
fn request_numbers_come_back_with_answers_and_errors() {
    let server = Server::start(3, "");
    let mut ann = Client::login(server.address(), "ann");
    let most = (1u64 << 53) - 1;
    for id in [0, 1, most] {
        for (mut request, answer) in [
            (json!({"type":"join","room":"lobby"}), "joined"),
            (json!({"type":"presence","room":"lobby"}), "presence"),
            (json!({"type":"history","room":"lobby"}), "history"),
            (json!({"type":"ping"}), "pong"),
            (json!({"type":"send","room":"nowhere","body":1}), "error"),
            (json!({"type":"leave","room":"lobby"}), "left"),
        ] {
            ann.say(&request.to_string());
            assert_eq!(ann.expect(answer).get("id"), None);
            request["id"] = json!(id);
            if request["type"] != "leave" {
                ann.say(&request.to_string());
                assert_eq!(ann.expect(answer)["id"], id);
            }
        }
    }
    server.stop().assert_clean();
}

#[test]
fn echo_false_keeps_a_senders_own_messages_from_that_session_alone() {
    let server = Server::start(3, "");
    let mut quiet = Client::login(server.address(), "ann");
    quiet.say(r#"{"type":"join","room":"lobby","echo":false}"#);
    quiet.expect("joined");
    let mut other = Client::member(server.address(), "ann", "lobby");
    quiet.send("lobby", "1");
    quiet.expect("sent");
    assert_eq!(other.expect("message")["body"], 1, "the user's other session is no echo");
    other.send("lobby", "2");
    assert_eq!(quiet.expect("message")["body"], 2);
    other.expect("sent");
    other.expect("message");
    assert!(quiet.sync().is_empty());
    // Joined again, it changes its mind.
    quiet.join("lobby");
    quiet.send("lobby", "3");
    quiet.expect("sent");
    assert_eq!(quiet.expect("message")["body"], 3);
    server.stop().assert_clean();
}

#[test]
fn every_address_is_served_ipv6_too() {
    let ipv6 = std::net::TcpListener::bind("[::1]:0").is_ok();
    let mut args = vec!["--shards", "3", "--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0"];
    if ipv6 {
        args.extend(["--listen", "[::1]:0"]);
    }
    let server = Server::start_with(&args, "", "true");
    assert_eq!(server.addresses.len(), 2 + usize::from(ipv6));
    let mut members = Vec::new();
    for (n, address) in server.addresses.iter().enumerate() {
        members.extend((0..4).map(|m| Client::member(*address, &format!("u{n}-{m}"), "lobby")));
    }
    members[0].send("lobby", "\"all\"");
    members.iter_mut().for_each(|member| assert_eq!(member.find("message")["body"], "all"));
    server.stop().assert_clean();
}

#[test]
fn a_connection_that_breaks_and_comes_back_is_no_news_and_one_that_stays_away_is() {
    let server = Server::start(3, "[limits]\nabsence_ms = 60_000\n");
    let mut watcher = Client::login(server.address(), "watcher");
    watcher.say(r#"{"type":"join","room":"lobby","presence":true}"#);
    watcher.expect("joined");
    let mut ann = Client::member(server.address(), "ann", "lobby");
    assert_eq!(watcher.expect("member")["event"], "join");
    for n in 0..5 {
        if n % 2 == 0 {
            ann.reset()
        } else {
            ann.finish()
        }
        ann = Client::member(server.address(), "ann", "lobby");
    }
    assert!(watcher.sync().is_empty(), "she was never away");
    ann.say(r#"{"type":"leave","room":"lobby"}"#);
    assert_eq!(watcher.expect("member")["event"], "leave");
    let ended = server.stop();
    ended.assert_clean();
    assert!(ended.counter("returns") <= 5);

    let server = Server::start(3, "[limits]\nabsence_ms = 50\n");
    let mut watcher = Client::login(server.address(), "watcher");
    watcher.say(r#"{"type":"join","room":"lobby","presence":true}"#);
    watcher.expect("joined");
    Client::member(server.address(), "ann", "lobby").reset();
    let news: Vec<_> = (0..2).map(|_| watcher.expect("member")["event"].clone()).collect();
    assert_eq!(news, ["join", "leave"]);
    server.stop().assert_clean();
}
