//! Bytes that are no frames, frames that are no objects, and frames in every kind of piece, on real sockets.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::Write;

use support::{Client, Server, assert_bye, assert_error, frame, hello};

/// A small time for what ends by its deadline; others are left as they are, so that a test that is held up is not ended by them.
const IMPATIENT_FOR_FRAMES: &str = "[limits]\nframe_ms = 500\n";

/// A frame whose header promises so many bytes, with none of them.
fn header(length: u32) -> [u8; 4] {
    length.to_be_bytes()
}

/// A `send` to an inbox that nobody has, padded to so many bytes of JSON.
fn padded_send(json_bytes: usize, body_bytes: usize) -> String {
    let fixed = format!(r#"{{"type":"send","id":1,"room":"@nobody","body":"{}","#, "b".repeat(body_bytes - 2));
    let end = r#""pad":""}"#;
    let pad = json_bytes - fixed.len() - end.len();
    format!(r#"{fixed}"pad":"{}"}}"#, "p".repeat(pad))
}

#[test]
fn a_length_of_zero_or_over_the_limit_ends_the_connection_with_its_bye() {
    let server = Server::start(3, "");
    let bad = [(0, 400, "bad_frame"), (1 << 31, 413, "frame_too_large"), (u32::MAX, 413, "frame_too_large")];
    for (length, code, reason) in bad.into_iter().chain([(4 * 1024 + 1, 413, "frame_too_large")]) {
        let mut client = Client::connect(server.address());
        client.raw(&header(length));
        assert_bye(&client.bye(), code, reason);
    }
    for (length, code, reason) in bad.into_iter().chain([(64 * 1024 + 1, 413, "frame_too_large")]) {
        let mut client = Client::login(server.address(), "ann");
        client.say(r#"{"type":"ping","id":1}"#);
        client.raw(&header(length));
        assert_eq!(client.expect("pong")["id"], 1);
        assert_bye(&client.bye(), code, reason);
    }
    let ended = server.stop();
    ended.assert_clean();
    assert_eq!((ended.ends("bad_frame"), ended.ends("frame_too_large")), (2, 6), "{:?}", ended.ends);
}

#[test]
fn what_a_client_still_sends_does_not_break_its_bye_with_a_reset() {
    let server = Server::start(2, "");
    for _ in 0..20 {
        let mut client = Client::login(server.address(), "ann");
        client.raw(&[header(0).to_vec(), vec![b'x'; 50_000]].concat());
        client.raw(&[b'x'; 10_000]);
        assert_bye(&client.bye(), 400, "bad_frame");
        // The end of the stream, not a reset: the server has read what it was sent.
        client.assert_orderly_end();
    }
    server.stop().assert_clean();
}

#[test]
fn frames_of_exactly_the_limit_are_read() {
    let server = Server::start(2, "");
    let mut client = Client::connect(server.address());
    let first = hello("ann");
    let pad = 4 * 1024 - first.len() - r#","pad":"""#.len();
    client.say(&format!(r#"{},"pad":"{}"}}"#, &first[..first.len() - 1], "p".repeat(pad)));
    client.expect("welcome");
    let longest = padded_send(64 * 1024, 60 * 1024);
    assert_eq!(longest.len(), 64 * 1024);
    client.say(&longest);
    assert_eq!(client.expect("sent")["id"], 1);
    server.stop().assert_clean();
}

#[test]
fn the_longest_body_arrives_whole_and_one_byte_more_is_refused_alone() {
    let server = Server::start(2, "");
    let mut client = Client::member(server.address(), "ann", "lobby");
    let body = format!(r#""{}""#, "x".repeat(61_440 - 2));
    client.send("lobby", &body);
    client.expect("sent");
    let message = client.next_text().unwrap();
    assert!(message.ends_with(&format!("\"body\":{body}}}")), "{} bytes", message.len());
    client.send("lobby", &format!(r#""{}""#, "x".repeat(61_441 - 2)));
    assert_error(&client.next(), 413, "body_too_large");
    client.send("lobby", "1");
    client.expect("sent");
    assert_eq!(client.expect("message")["body"], 1);
    server.stop().assert_clean();
}

#[test]
fn a_body_is_carried_byte_for_byte() {
    let server = Server::start(3, "");
    let mut ann = Client::member(server.address(), "ann", "lobby");
    let mut bob = Client::member(server.address(), "bob", "lobby");
    let bodies = [
        r#"{ "b" : 1 ,  "a":[ ] }"#,
        "[1,\t2 ,\n 3\r]",
        r#""\u00e9 \/ \" é 🎈""#,
        "1.50e+3",
        "123456789012345678901234567890",
        "null",
        "false",
        r#"{"a":1,"a":2}"#,
        r#""{\"type\":\"bye\"}""#,
    ];
    for body in bodies {
        ann.send("lobby", body);
        assert!(bob.next_text().unwrap().ends_with(&format!("\"body\":{body}}}")), "{body}");
    }
    server.stop().assert_clean();
}

#[test]
fn one_byte_at_a_time_is_read_like_one_piece() {
    let server = Server::start(3, "");
    let mut client = Client::connect(server.address());
    let words =
        [&hello("ann"), r#"{"type":"join","id":1,"room":"lobby"}"#, r#"{"type":"send","id":2,"room":"lobby","body":[1, 2]}"#].map(frame);
    for byte in words.concat() {
        client.raw(&[byte]);
    }
    client.expect("welcome");
    assert_eq!(client.expect("joined")["id"], 1);
    assert_eq!(client.expect("sent")["id"], 2);
    client.expect("message");
    server.stop().assert_clean();
}

#[test]
fn half_frames_of_some_leave_memory_for_the_pieces_of_others() {
    let server = Server::start(1, "[queues]\nleftover_bytes_max = 65_540\n");
    let mut greedy: Vec<Client> = (0..7).map(|n| Client::login(server.address(), &format!("u{n}"))).collect();
    for client in &mut greedy {
        client.raw(&header(60_000));
        client.raw(&[b' '; 9_358]);
    }
    let mut ended = 0;
    let mut ann = Client::login(server.address(), "ann");
    for n in 0..3 {
        for byte in frame(&format!(r#"{{"type":"send","id":{n},"room":"@nobody","body":1}}"#)) {
            ann.raw(&[byte]);
        }
        assert_eq!(ann.expect("sent")["id"], n);
    }
    for client in &mut greedy {
        // The rest of the frame: a whole one, though it says nothing, for those who are still in.
        if client.try_raw(&[b' '; 50_642]) && client.next()["type"] == "bye" {
            ended += 1;
        }
    }
    assert!(ended > 0, "somebody had to go");
    assert!(ann.sync().is_empty());
    server.stop().assert_clean();
}

#[test]
fn half_a_frame_and_silence_ends_with_frame_timeout() {
    let server = Server::start(2, IMPATIENT_FOR_FRAMES);
    let whole = frame(r#"{"type":"ping","id":7}"#);
    for cut in [1, 4, whole.len() - 1] {
        let mut client = Client::login(server.address(), "ann");
        client.raw(&[whole.clone(), whole[..cut].to_vec()].concat());
        client.expect("pong");
        assert_bye(&client.bye(), 408, "frame_timeout");
    }
    let ended = server.stop();
    ended.assert_clean();
    assert_eq!(ended.ends("frame_timeout"), 3, "{:?}", ended.ends);
}

#[test]
fn a_frame_that_drips_does_not_outlive_its_deadline() {
    let server = Server::start(2, IMPATIENT_FOR_FRAMES);
    let mut client = Client::login(server.address(), "ann");
    client.raw(&header(60_000));
    // A byte now and then counts for the heartbeat, not for the frame.
    while client.try_raw(b" ") {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    server.stop().assert_clean();
}

#[test]
fn no_whole_hello_in_time_ends_with_handshake_timeout() {
    let server = Server::start(2, "[limits]\nhandshake_ms = 700\n");
    let whole = frame(&hello("ann"));
    let mut clients: Vec<Client> = [0, 1, 4, whole.len() - 1]
        .iter()
        .map(|cut| {
            let mut client = Client::connect(server.address());
            client.raw(&whole[..*cut]);
            client
        })
        .collect();
    for client in &mut clients {
        assert_bye(&client.bye(), 408, "handshake_timeout");
    }
    let ended = server.stop();
    ended.assert_clean();
    assert_eq!(ended.ends("handshake_timeout"), 4, "{:?}", ended.ends);
}

#[test]
fn a_silent_client_is_pinged_and_then_ended_as_idle() {
    let server = Server::start(2, "[limits]\nheartbeat_ms = 2_500\n");
    let mut silent = Client::login(server.address(), "silent");
    let mut alive = Client::login(server.address(), "alive");
    // Whoever answers goes on for as many pings as it likes.
    let alive = std::thread::spawn(move || {
        for _ in 0..2 {
            alive.expect("ping");
            alive.say(r#"{"type":"pong"}"#);
        }
        assert!(alive.sync().is_empty());
    });
    silent.expect("ping");
    assert_bye(&silent.next(), 408, "idle");
    silent.assert_closed();
    alive.join().unwrap();
    let ended = server.stop();
    ended.assert_clean();
    assert_eq!(ended.ends("idle"), 1, "{:?}", ended.ends);
}

#[test]
fn half_a_frame_and_a_close_is_an_ordinary_end() {
    let server = Server::start(2, "");
    let (first, then) = (frame(&hello("ann")), frame(r#"{"type":"ping"}"#));
    for cut in 0..first.len() {
        let client = Client::connect(server.address());
        (&*client.stream).write_all(&first[..cut]).unwrap();
    }
    for cut in 0..then.len() {
        let mut client = Client::login(server.address(), "ann");
        client.raw(&then[..cut]);
        client.finish();
        assert!(client.rest().is_empty());
    }
    let before = server.descriptors();
    let mut after = Client::login(server.address(), "bob");
    after.sync();
    assert!(server.descriptors() <= before + 1);
    drop(after);
    let ended = server.stop();
    ended.assert_clean();
    // The last client's end may be the drain's.
    let ends = ended.ends("peer_closed") + ended.ends("peer_lost") + ended.ends("draining");
    assert_eq!(ends, (first.len() + then.len() + 1) as u64, "{:?}", ended.ends);
}

/// Objects that no decoder may choke on, each refused with an `error`.
fn bombs() -> Vec<(String, &'static str)> {
    let deep = |open: &str, close: &str| format!(r#"{{"type":"ping","x":{}{}}}"#, open.repeat(20_000), close.repeat(20_000));
    vec![
        (deep("[", "]"), "malformed"),
        (format!(r#"{{"type":"ping","x":{}"#, "[".repeat(60_000)), "malformed"),
        (format!("{}{}", r#"{"a":"#.repeat(10_000), "1"), "malformed"),
        (format!(r#"{{"type":"send","room":"@a","body":{}1{}}}"#, r#"{"a":"#.repeat(9_000), "}".repeat(9_000)), "malformed"),
        ("[".repeat(65_536), "malformed"),
        (format!(r#"{{"type":"ping","id":{}}}"#, "9".repeat(60_000)), "bad_field"),
        (format!(r#"{{"type":"join","room":"{}"}}"#, "r".repeat(60_000)), "bad_field"),
    ]
}

#[test]
fn json_bombs_are_refused_and_the_session_goes_on() {
    let server = Server::start(2, "");
    let mut client = Client::login(server.address(), "ann");
    for (bomb, reason) in bombs() {
        client.say(&bomb);
        assert_error(&client.next(), 400, reason);
    }
    client.sync();
    server.stop().assert_clean();
}

#[test]
fn the_eighth_bad_object_within_a_minute_ends_the_session() {
    let server = Server::start(2, "");
    let mut client = Client::login(server.address(), "ann");
    let bad: [&[u8]; 8] = [
        b"{",
        b"[]",
        b"\xff\xfe",
        br#"{"type":"join"}"#,
        br#"{"type":"join","room":"a b"}"#,
        br#"{"type":"ping","id":-1}"#,
        br#"{"type":"ping","type":"ping"}"#,
        b"nope",
    ];
    let frames = bad.map(|json| [&u32::try_from(json.len()).unwrap().to_be_bytes(), json].concat());
    client.raw(&frames.concat());
    for _ in 0..7 {
        assert_eq!(client.expect("error")["code"], 400);
    }
    assert_bye(&client.bye(), 400, "protocol_error");
    server.stop().assert_clean();
}

#[test]
fn unknown_types_and_fields_do_not_count_as_bad() {
    let server = Server::start(2, "");
    let mut client = Client::login(server.address(), "ann");
    for id in 0..20 {
        client.say(&format!(r#"{{"type":"dance","id":{id},"steps":[1,2]}}"#));
        let error = client.next();
        assert_error(&error, 400, "unknown_type");
        assert_eq!(error["id"], id);
        client.say(r#"{"type":"ping","later":{"a":1}}"#);
        client.expect("pong");
    }
    server.stop().assert_clean();
}

#[test]
fn web_socket_and_tls_are_closed_without_a_word_and_counted() {
    let server = Server::start(2, "");
    let upgrade = b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n";
    let client_hello = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03];
    for first in [&upgrade[..], &client_hello] {
        let mut client = Client::connect(server.address());
        client.raw(first);
        client.assert_closed();
    }
    // What is no transport at all is told why, as a frame.
    let mut ssh = Client::connect(server.address());
    ssh.raw(b"SSH-2.0-OpenSSH_9.9\r\n");
    assert_bye(&ssh.bye(), 413, "frame_too_large");
    let ended = server.stop();
    ended.assert_clean();
    assert_eq!((ended.ends("other_transport"), ended.ends("frame_too_large")), (2, 1), "{:?}", ended.ends);
}
