//! What the server says: every object as `protocol.md` 2.2 has it, and the same values read back by `serde_json`.
#![allow(clippy::unwrap_used, reason = "a test")]

use bytes::BytesMut;
use proptest::option;
use proptest::prelude::*;
use ringroom::ids::{Epoch, Position, RequestId, WirePosition};
use ringroom::limits::{BODY_BYTES_MAX, FRAME_BYTES_MAX, POSITION_BYTES_MAX, PRESENCE_NAMES_MAX};
use ringroom::protocol::encode::{AnnouncedLimits, MemberEvent, Outgoing, Welcome, frame, message_bytes_max};
use ringroom::protocol::error::Reason;
use ringroom::protocol::frame::{Cut, cut};
use ringroom::protocol::message::{Request, decode};
use serde_json::{Value, json};

const LIMITS: AnnouncedLimits =
    AnnouncedLimits { frame_bytes: 65536, body_bytes: 61440, rooms: 100, replay: 1000, requests_per_s: 50, requests_burst: 100 };

const LONGEST_AT: WirePosition = WirePosition { epoch: Epoch(u32::MAX), position: Position { ms: u64::MAX, n: u64::MAX } };

fn at(ms: u64) -> WirePosition {
    WirePosition { epoch: Epoch(0x9f2c), position: Position { ms, n: 0 } }
}

/// The JSON of one frame, which has to be all that was written.
fn written(object: &Outgoing<'_>) -> String {
    let mut out = BytesMut::new();
    frame(object, &mut out);
    match cut(&out, FRAME_BYTES_MAX) {
        Cut::Frame { json, rest: [] } => String::from_utf8(json.to_vec()).unwrap(),
        other => panic!("{object:?} is not one frame: {other:?}"),
    }
}

fn parsed(object: &Outgoing<'_>) -> Value {
    serde_json::from_str(&written(object)).unwrap()
}

fn welcome<'a>() -> Welcome<'a> {
    Welcome {
        user: "alice",
        session: 0x01f3,
        node: "a",
        heartbeat_ms: 25_000,
        inbox_at: at(0),
        inbox_replay: 0,
        inbox_recovered: None,
        limits: LIMITS,
        expires_at: None,
    }
}

#[test]
fn the_exchange_of_the_protocol_page_is_written_as_it_stands_there() {
    let id = RequestId;
    // But for `session`, which is opaque: the shortest hex here.
    assert_eq!(
        written(&Outgoing::Welcome(welcome())),
        r#"{"type":"welcome","version":1,"user":"alice","session":"1f3","node":"a","heartbeat_ms":25000,"inbox":{"at":"9f2c.0-0","replay":0},"limits":{"frame_bytes":65536,"body_bytes":61440,"rooms":100,"replay":1000,"requests_per_s":50,"requests_burst":100}}"#
    );
    let joined = Outgoing::Joined { id: Some(id(1)), room: "lobby", at: at(0), members: 1, replay: 0, recovered: None };
    assert_eq!(written(&joined), r#"{"type":"joined","id":1,"room":"lobby","at":"9f2c.0-0","members":1,"replay":0}"#);
    let sent = Outgoing::Sent { id: Some(id(2)), room: "lobby", at: Some(at(1732345678901)), duplicate: false };
    assert_eq!(written(&sent), r#"{"type":"sent","id":2,"room":"lobby","at":"9f2c.1732345678901-0"}"#);
    let message =
        Outgoing::Message { room: "lobby", at: Some(at(1732345678901)), from: "alice", ts: 1732345678901, body: r#"{"text":"hi"}"# };
    assert_eq!(
        written(&message),
        r#"{"type":"message","room":"lobby","at":"9f2c.1732345678901-0","from":"alice","ts":1732345678901,"body":{"text":"hi"}}"#
    );
}

#[test]
fn every_other_object_is_written_with_its_fields() {
    let id = Some(RequestId(RequestId::MAX));
    let zero = WirePosition { epoch: Epoch(0), position: Position::default() };
    let full = Welcome { inbox_recovered: Some(false), expires_at: Some(1732345678901), session: u64::MAX, ..welcome() };
    let json = written(&Outgoing::Welcome(full));
    assert!(json.contains(r#""session":"ffffffffffffffff","#), "{json}");
    assert!(json.contains(r#""inbox":{"at":"9f2c.0-0","replay":0,"recovered":false},"limits":{"#), "{json}");
    assert!(json.ends_with(r#""requests_burst":100},"expires_at":1732345678901}"#), "{json}");
    let cases = [
        (
            Outgoing::Joined { id: None, room: "r", at: LONGEST_AT, members: u32::MAX, replay: 1000, recovered: Some(true) },
            r#"{"type":"joined","room":"r","at":"ffffffff.18446744073709551615-18446744073709551615","members":4294967295,"replay":1000,"recovered":true}"#,
        ),
        (Outgoing::Left { id, room: "@bob" }, r#"{"type":"left","id":9007199254740991,"room":"@bob"}"#),
        (Outgoing::Sent { id: None, room: "r", at: None, duplicate: false }, r#"{"type":"sent","room":"r"}"#),
        (Outgoing::Sent { id: None, room: "r", at: Some(zero), duplicate: false }, r#"{"type":"sent","room":"r","at":"0.0-0"}"#),
        (
            Outgoing::Sent { id: Some(RequestId(0)), room: "r", at: Some(at(5)), duplicate: true },
            r#"{"type":"sent","id":0,"room":"r","at":"9f2c.5-0","duplicate":true}"#,
        ),
        (
            Outgoing::Message { room: "r", at: None, from: "b", ts: 0, body: "null" },
            r#"{"type":"message","room":"r","from":"b","ts":0,"body":null}"#,
        ),
        (
            Outgoing::Presence { id, room: "r", members: 2, users: r#""a","b""#, truncated: false },
            r#"{"type":"presence","id":9007199254740991,"room":"r","members":2,"users":["a","b"],"truncated":false}"#,
        ),
        (
            Outgoing::Presence { id: None, room: "r", members: 0, users: "", truncated: true },
            r#"{"type":"presence","room":"r","members":0,"users":[],"truncated":true}"#,
        ),
        (
            Outgoing::Member { room: "r", user: "b", event: MemberEvent::Join, members: 3 },
            r#"{"type":"member","room":"r","user":"b","event":"join","members":3}"#,
        ),
        (
            Outgoing::Member { room: "r", user: "b", event: MemberEvent::Leave, members: 2 },
            r#"{"type":"member","room":"r","user":"b","event":"leave","members":2}"#,
        ),
        (Outgoing::MemberOff { room: "r" }, r#"{"type":"member","room":"r","event":"off"}"#),
        (Outgoing::Ping, r#"{"type":"ping"}"#),
        (Outgoing::Pong { id: None, ts: u64::MAX }, r#"{"type":"pong","ts":18446744073709551615}"#),
        (Outgoing::Pong { id: Some(RequestId(7)), ts: 10 }, r#"{"type":"pong","id":7,"ts":10}"#),
        (
            Outgoing::Error { id: Some(RequestId(7)), reason: Reason::NotJoined, message: "join first", retry_after_ms: None },
            r#"{"type":"error","id":7,"code":403,"reason":"not_joined","message":"join first"}"#,
        ),
        (
            Outgoing::Error { id: None, reason: Reason::RateLimited, message: "", retry_after_ms: Some(250) },
            r#"{"type":"error","code":429,"reason":"rate_limited","message":"","retry_after_ms":250}"#,
        ),
        (Outgoing::Bye { reason: Reason::Bye, message: None, retry_after_ms: None }, r#"{"type":"bye","code":0,"reason":"bye"}"#),
        (
            Outgoing::Bye { reason: Reason::Draining, message: Some("restart"), retry_after_ms: Some(0) },
            r#"{"type":"bye","code":503,"reason":"draining","message":"restart","retry_after_ms":0}"#,
        ),
    ];
    for (object, expected) in cases {
        assert_eq!(written(&object), expected);
    }
}

#[test]
fn frames_follow_each_other_in_one_buffer() {
    let mut out = BytesMut::from(&b"before"[..]);
    frame(&Outgoing::Ping, &mut out);
    frame(&Outgoing::MemberOff { room: "r" }, &mut out);
    let bytes = out.strip_prefix(b"before").unwrap();
    let Cut::Frame { json: b"{\"type\":\"ping\"}", rest } = cut(bytes, 100) else { panic!("no ping in {bytes:?}") };
    assert!(matches!(cut(rest, 100), Cut::Frame { json: br#"{"type":"member","room":"r","event":"off"}"#, rest: [] }));
}

#[test]
fn the_bound_of_a_message_is_reached_by_the_longest_one_and_fits_a_frame() {
    let (room, from, body) = (format!("@{}", "r".repeat(64)), "f".repeat(64), "7".repeat(BODY_BYTES_MAX));
    assert_eq!(LONGEST_AT.to_string().len(), 50);
    assert!(LONGEST_AT.to_string().len() <= POSITION_BYTES_MAX);
    let mut out = BytesMut::new();
    frame(&Outgoing::Message { room: &room, at: Some(LONGEST_AT), from: &from, ts: u64::MAX, body: &body }, &mut out);
    assert_eq!(out.len(), message_bytes_max(&room, &from, &body));
    assert!(out.len() <= FRAME_BYTES_MAX);
}

#[test]
fn the_longest_presence_fits_a_frame() {
    let name = format!("\"{}\"", "u".repeat(64));
    let users = vec![name; PRESENCE_NAMES_MAX].join(",");
    let room = format!("@{}", "r".repeat(64));
    written(&Outgoing::Presence { id: Some(RequestId(RequestId::MAX)), room: &room, members: u32::MAX, users: &users, truncated: true });
}

#[test]
fn the_longest_send_that_is_taken_makes_a_message_that_fits() {
    let body = "\\n".repeat((BODY_BYTES_MAX - 2) / 2);
    let json = format!(r#"{{"type":"send","room":"r","body":"{body}"}}"#);
    let Ok(Request::Send(send)) = decode(json.as_bytes()) else { panic!("refused") };
    assert_eq!(send.body.len(), BODY_BYTES_MAX);
    let room = send.room;
    written(&Outgoing::Message { room: room.as_str(), at: Some(LONGEST_AT), from: "f", ts: u64::MAX, body: send.body });
}

#[test]
#[should_panic(expected = "over the limit")]
fn a_frame_over_the_limit_is_a_broken_promise_of_our_own() {
    let body = "7".repeat(FRAME_BYTES_MAX);
    frame(&Outgoing::Message { room: "r", at: None, from: "f", ts: 0, body: &body }, &mut BytesMut::new());
}

fn any_at() -> impl Strategy<Value = WirePosition> {
    any::<(u32, u64, u64)>().prop_map(|(epoch, ms, n)| WirePosition { epoch: Epoch(epoch), position: Position { ms, n } })
}

fn any_id() -> impl Strategy<Value = Option<RequestId>> {
    option::of((0..=RequestId::MAX).prop_map(RequestId))
}

fn name() -> impl Strategy<Value = String> {
    "[A-Za-z0-9_.:-]{1,64}"
}

/// Drops the members that an absent option would leave as `null`.
fn without_nulls(mut object: Value) -> Value {
    object.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    object
}

fn number(id: Option<RequestId>) -> Option<u64> {
    id.map(|RequestId(id)| id)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_message_reads_back_with_the_same_values_and_its_bound_holds(
        room in "@?[A-Za-z0-9_.:-]{1,64}", at in option::of(any_at()), from in name(), ts in any::<u64>(),
        text in any::<String>(), spaces in "[ \t\r\n]{0,4}",
    ) {
        let body = format!("[{spaces}{}{spaces}]", serde_json::to_string(&text).unwrap());
        let object = Outgoing::Message { room: &room, at, from: &from, ts, body: &body };
        let json = written(&object);
        let expected_end = format!("\"body\":{body}}}");
        prop_assert!(json.ends_with(&expected_end));
        prop_assert!(json.len() + 4 <= message_bytes_max(&room, &from, &body));
        let at = at.map(|at| at.to_string());
        let expected = json!({ "type": "message", "room": room, "at": at, "from": from, "ts": ts, "body": [text] });
        prop_assert_eq!(parsed(&object), without_nulls(expected));
    }

    #[test]
    fn answers_read_back_with_the_same_values(
        id in any_id(), room in name(), position in any_at(), members in any::<u32>(), replay in any::<u32>(),
        recovered in any::<Option<bool>>(), ts in any::<u64>(),
    ) {
        let at = position.to_string();
        let joined = Outgoing::Joined { id, room: &room, at: position, members, replay, recovered };
        let expected = json!({
            "type": "joined", "id": number(id), "room": room, "at": at, "members": members, "replay": replay, "recovered": recovered,
        });
        prop_assert_eq!(parsed(&joined), without_nulls(expected));
        let sent = Outgoing::Sent { id, room: &room, at: Some(position), duplicate: true };
        let expected = json!({ "type": "sent", "id": number(id), "room": room, "at": at, "duplicate": true });
        prop_assert_eq!(parsed(&sent), without_nulls(expected));
        let expected = json!({ "type": "left", "id": number(id), "room": room });
        prop_assert_eq!(parsed(&Outgoing::Left { id, room: &room }), without_nulls(expected));
        let expected = json!({ "type": "pong", "id": number(id), "ts": ts });
        prop_assert_eq!(parsed(&Outgoing::Pong { id, ts }), without_nulls(expected));
    }

    #[test]
    fn texts_for_people_are_escaped(
        id in any_id(), text in any::<String>(), retry_after_ms in any::<Option<u64>>(), reason in prop::sample::select(&Reason::ALL[..]),
    ) {
        let error = Outgoing::Error { id, reason, message: &text, retry_after_ms };
        let expected = json!({
            "type": "error", "id": number(id), "code": reason.code(), "reason": reason.name(), "message": text,
            "retry_after_ms": retry_after_ms,
        });
        prop_assert_eq!(parsed(&error), without_nulls(expected));
        let bye = Outgoing::Bye { reason, message: Some(&text), retry_after_ms };
        let expected = json!({
            "type": "bye", "code": reason.code(), "reason": reason.name(), "message": text, "retry_after_ms": retry_after_ms,
        });
        prop_assert_eq!(parsed(&bye), without_nulls(expected));
        let node = Welcome { node: &text, ..welcome() };
        prop_assert_eq!(&parsed(&Outgoing::Welcome(node))["node"], &json!(text));
    }

    #[test]
    fn a_welcome_reads_back_with_the_same_values(
        user in name(), session in any::<u64>(), heartbeat_ms in any::<u64>(), at in any_at(), replay in any::<u32>(),
        recovered in any::<Option<bool>>(), limits in any::<[u32; 6]>(), expires_at in any::<Option<u64>>(),
    ) {
        let [frame_bytes, body_bytes, rooms, limit_replay, requests_per_s, requests_burst] = limits;
        let object = Outgoing::Welcome(Welcome {
            user: &user, session, node: "n", heartbeat_ms, inbox_at: at, inbox_replay: replay, inbox_recovered: recovered,
            limits: AnnouncedLimits { frame_bytes, body_bytes, rooms, replay: limit_replay, requests_per_s, requests_burst }, expires_at,
        });
        let expected = json!({
            "type": "welcome", "version": 1, "user": user, "session": format!("{session:x}"), "node": "n", "heartbeat_ms": heartbeat_ms,
            "inbox": without_nulls(json!({ "at": at.to_string(), "replay": replay, "recovered": recovered })),
            "limits": { "frame_bytes": frame_bytes, "body_bytes": body_bytes, "rooms": rooms, "replay": limit_replay,
                "requests_per_s": requests_per_s, "requests_burst": requests_burst },
            "expires_at": expires_at,
        });
        prop_assert_eq!(parsed(&object), without_nulls(expected));
    }
}
