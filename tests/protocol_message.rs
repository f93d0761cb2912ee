//! What one object from a client may and may not be: `protocol.md` 2.1 and rule 15, rule by rule.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::borrow::Cow;

use proptest::prelude::*;
use ringroom::ids::{RequestId, RoomName, UserName};
use ringroom::limits::{BODY_BYTES_MAX, JSON_DEPTH_MAX};
use ringroom::protocol::error::{Reason, Refusal};
use ringroom::protocol::message::{Hello, Join, Request, Send, decode};

fn accepted(json: &str) -> Request<'_> {
    decode(json.as_bytes()).unwrap_or_else(|refusal| panic!("{json} is refused: {refusal:?}"))
}

fn refused(json: impl AsRef<[u8]>) -> Refusal {
    let json = json.as_ref();
    decode(json).err().unwrap_or_else(|| panic!("{} is accepted", String::from_utf8_lossy(json)))
}

fn reason(json: impl AsRef<[u8]>) -> Reason {
    refused(json).reason
}

/// Asserts `bad_field`, the name of the field in the message, and the id 7 carried back.
fn bad_field(json: &str, field: &str) {
    let refusal = refused(json);
    assert_eq!(refusal.reason, Reason::BadField, "{json}");
    assert!(refusal.message.split(' ').any(|word| word == field), "{json}: {} does not name {field}", refusal.message);
    if json.contains(r#""id":7"#) {
        assert_eq!(refusal.id, Some(RequestId(7)), "{json}");
    }
}

fn room(name: &str) -> RoomName {
    RoomName::parse(name).unwrap()
}

fn text(text: &str) -> Option<Cow<'_, str>> {
    Some(Cow::Borrowed(text))
}

/// An object of depth `depth`, itself counted, in a field that nobody knows.
fn nested(depth: usize) -> String {
    format!(r#"{{"type":"ping","id":7,"x":{}{}}}"#, "[".repeat(depth - 1), "]".repeat(depth - 1))
}

#[test]
fn every_type_is_read_with_all_its_fields() {
    let id = Some(RequestId(7));
    assert_eq!(
        accepted(r#"{"type":"hello","version":1,"user":"alice","token":"t","device":"d","inbox":"9f2c.1-0"}"#),
        Request::Hello(Hello {
            version: 1,
            user: UserName::parse("alice").ok(),
            token: text("t"),
            device: text("d"),
            inbox: text("9f2c.1-0")
        })
    );
    assert_eq!(
        accepted(r#"{"type":"join","id":7,"room":"lobby","since":"9f2c.1-0","presence":true,"echo":false}"#),
        Request::Join(Join { id, room: room("lobby"), since: text("9f2c.1-0"), history: None, presence: true, echo: false })
    );
    assert_eq!(
        accepted(r#"{"type":"join","room":"lobby","history":20}"#),
        Request::Join(Join { id: None, room: room("lobby"), since: None, history: Some(20), presence: false, echo: true })
    );
    assert_eq!(accepted(r#"{"type":"leave","id":7,"room":"lobby"}"#), Request::Leave { id, room: room("lobby") });
    assert_eq!(
        accepted(r#"{"type":"send","id":7,"room":"@bob","body":{"text":"hi"},"key":"k1","ephemeral":true}"#),
        Request::Send(Send { id, room: room("@bob"), body: r#"{"text":"hi"}"#, key: text("k1"), ephemeral: true })
    );
    assert_eq!(
        accepted(r#"{"type":"history","id":7,"room":"lobby","before":"9f2c.1-0","limit":1000}"#),
        Request::History { id, room: room("lobby"), before: text("9f2c.1-0"), after: None, limit: Some(1000) }
    );
    assert_eq!(
        accepted(r#"{"type":"history","room":"lobby","after":"9f2c.1-0"}"#),
        Request::History { id: None, room: room("lobby"), before: None, after: text("9f2c.1-0"), limit: None }
    );
    assert_eq!(accepted(r#"{"type":"presence","id":7,"room":"lobby"}"#), Request::Presence { id, room: room("lobby") });
    assert_eq!(accepted(r#"{"type":"ping","id":7}"#), Request::Ping { id });
    assert_eq!(accepted(r#"{"type":"pong"}"#), Request::Pong);
    assert_eq!(accepted(r#"{"type":"bye"}"#), Request::Bye);
}

#[test]
fn what_is_not_utf8_is_malformed() {
    for bytes in [&b"\xff"[..], b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"] {
        let json = [&br#"{"type":"ping","id":7,"x":""#[..], bytes, br#""}"#].concat();
        let refusal = refused(&json);
        assert_eq!((refusal.reason, refusal.id), (Reason::Malformed, Some(RequestId(7))), "{bytes:x?}");
    }
    assert_eq!(refused(b"{\"type\":\"ping\",\"id\":1\xff2}").id, None, "half a number is no id");
}

#[test]
fn what_is_not_one_json_object_is_malformed() {
    for json in ["", " ", "[]", "1", "null", "\"ping\"", "{", "}", "{}{}", "{} x", "\u{feff}{}", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{,}"]
    {
        assert_eq!(reason(json), Reason::Malformed, "{json}");
    }
    for value in [
        "tru",
        "nul",
        "True",
        "NaN",
        "01",
        "-",
        "+1",
        ".5",
        "1.",
        "1e",
        "1e+",
        "0x1",
        "'a'",
        "\"\n\"",
        r#""\x""#,
        r#""\u12g4""#,
        "[1,]",
        "[1 2]",
    ] {
        assert_eq!(reason(format!(r#"{{"type":"ping","x":{value}}}"#)), Reason::Malformed, "{value}");
        assert_eq!(reason(format!(r#"{{"type":"ping","x":[{value}]}}"#)), Reason::Malformed, "[{value}]");
    }
}

#[test]
fn nesting_is_allowed_to_depth_16_and_malformed_below_it() {
    accepted(&nested(JSON_DEPTH_MAX));
    let refusal = refused(nested(JSON_DEPTH_MAX + 1));
    assert_eq!((refusal.reason, refusal.id), (Reason::Malformed, Some(RequestId(7))));
    accepted(r#"{"type":"ping","x":"[[[[[[[[[[[[[[[[[[[[\"{{{{{{{{{{{{{{{{{{{{"}"#);
    accepted(r#"{"type":"ping","x":[[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[]]}"#);
    let objects = |depth: usize| format!(r#"{}{{"type":"ping"}}{}"#, r#"{"type":"ping","x":"#.repeat(depth - 1), "}".repeat(depth - 1));
    accepted(&objects(JSON_DEPTH_MAX));
    assert_eq!(reason(objects(JSON_DEPTH_MAX + 1)), Reason::Malformed);
}

#[test]
fn bombs_are_refused_without_a_panic() {
    for unit in ["[", "{\"a\":", "{\"type\":\"ping\",\"x\":[", "[[],"] {
        assert_eq!(reason(unit.repeat(100_000)), Reason::Malformed);
        assert_eq!(reason(format!(r#"{{"type":"ping","x":{}"#, unit.repeat(100_000))), Reason::Malformed);
    }
    let keys: String = (0..100_000).map(|n| format!(r#""k{n}":{n},"#)).collect();
    assert_eq!(accepted(&format!(r#"{{{keys}"type":"pong"}}"#)), Request::Pong);
    let digits = "9".repeat(10_000_000);
    assert_eq!(accepted(&format!(r#"{{"type":"pong","x":{digits}}}"#)), Request::Pong);
    bad_field(&format!(r#"{{"type":"ping","id":{digits}}}"#), "id");
    assert_eq!(reason(format!(r#"{{"type":"ping","x":"{}"#, "\\".repeat(100_000))), Reason::Malformed);
}

#[test]
fn an_unknown_type_gives_the_id_back() {
    let refusal = refused(r#"{"type":"shout","id":7}"#);
    assert_eq!((refusal.reason, refusal.id), (Reason::UnknownType, Some(RequestId(7))));
    let refusal = refused(r#"{"type":"SEND","id":"seven"}"#);
    assert_eq!((refusal.reason, refusal.id), (Reason::UnknownType, None));
}

#[test]
fn type_is_one_text() {
    bad_field(r#"{"id":7}"#, "type");
    bad_field(r#"{"type":null,"id":7}"#, "type");
    bad_field(r#"{"type":1,"id":7}"#, "type");
    bad_field(r#"{"type":["ping"],"id":7}"#, "type");
    bad_field(r#"{"type":"\udc00","id":7}"#, "type");
    bad_field(r#"{"type":"ping","id":7,"type":"ping"}"#, "type");
    bad_field(r#"{"type":"ping","id":7,"\u0074ype":"pong"}"#, "type");
    assert_eq!(accepted(r#"{"type":"p\u0069ng"}"#), Request::Ping { id: None });
}

#[test]
fn an_id_is_an_integer_up_to_2_to_the_53_less_1() {
    assert_eq!(accepted(r#"{"type":"ping","id":0}"#), Request::Ping { id: Some(RequestId(0)) });
    let max = accepted(r#"{"type":"ping","id":9007199254740991}"#);
    assert_eq!(max, Request::Ping { id: Some(RequestId(RequestId::MAX)) });
    assert_eq!(accepted(r#"{"type":"ping","id":null}"#), Request::Ping { id: None });
    for id in ["9007199254740992", "18446744073709551616", "-1", "-0", "1.0", "1e2", "\"1\"", "true", "[1]", "{}"] {
        let json = format!(r#"{{"type":"ping","id":{id}}}"#);
        bad_field(&json, "id");
        assert_eq!(refused(&json).id, None);
    }
    for kind in ["ping", "pong", "shout"] {
        let json = format!(r#"{{"type":"{kind}","id":1,"id":2}}"#);
        bad_field(&json, "id");
        assert_eq!(refused(&json).id, None, "which of the two is not to be told");
    }
}

#[test]
fn a_refusal_carries_the_id_that_stands_in_front_of_the_fault() {
    for rest in ["", "x", ",", r#","a""#, r#","a":[1"#, "} {", "}}"] {
        let refusal = refused(format!(r#"{{"id":7,"type":"ping"{rest}"#));
        assert_eq!((refusal.reason, refusal.id), (Reason::Malformed, Some(RequestId(7))), "{rest}");
    }
    assert_eq!(refused(r#"{"type":"ping","id":7"#).id, None, "the number may go on");
    assert_eq!(refused(r#"{"type":"send","room":"a b","body":1,"id":7}"#).id, Some(RequestId(7)));
}

#[test]
fn each_required_field_is_asked_for_by_name() {
    bad_field(r#"{"type":"hello","user":"alice"}"#, "version");
    for kind in ["join", "leave", "send", "history", "presence"] {
        bad_field(&format!(r#"{{"type":"{kind}","id":7,"body":1}}"#), "room");
        bad_field(&format!(r#"{{"type":"{kind}","id":7,"body":1,"room":null}}"#), "room");
    }
    bad_field(r#"{"type":"send","id":7,"room":"lobby"}"#, "body");
    bad_field(r#"{"type":"hello","version":null}"#, "version");
}

#[test]
fn each_field_has_its_json_type() {
    for version in ["\"1\"", "1.0", "-1", "true", "18446744073709551616"] {
        bad_field(&format!(r#"{{"type":"hello","version":{version}}}"#), "version");
    }
    for (kind, field) in [
        ("hello", "user"),
        ("hello", "token"),
        ("hello", "device"),
        ("hello", "inbox"),
        ("join", "since"),
        ("send", "key"),
        ("history", "before"),
        ("history", "after"),
    ] {
        for value in ["1", "true", "[]", "{}", r#""\ud800""#] {
            bad_field(&format!(r#"{{"type":"{kind}","version":1,"id":7,"room":"lobby","body":1,"{field}":{value}}}"#), field);
        }
    }
    for (kind, field) in [("join", "presence"), ("join", "echo"), ("send", "ephemeral")] {
        for value in ["0", "\"true\"", "[]"] {
            bad_field(&format!(r#"{{"type":"{kind}","id":7,"room":"lobby","body":1,"{field}":{value}}}"#), field);
        }
    }
    for (kind, field) in [("join", "history"), ("history", "limit")] {
        for value in ["-1", "1.5", "\"1\"", "4294967296", "true"] {
            bad_field(&format!(r#"{{"type":"{kind}","id":7,"room":"lobby","{field}":{value}}}"#), field);
        }
    }
}

#[test]
fn a_version_that_is_not_spoken_is_still_read() {
    assert!(matches!(accepted(r#"{"type":"hello","version":2}"#), Request::Hello(Hello { version: 2, .. })));
    assert!(matches!(accepted(r#"{"type":"hello","version":18446744073709551615}"#), Request::Hello(Hello { version: u64::MAX, .. })));
}

#[test]
fn an_optional_field_that_is_null_counts_as_absent() {
    let hello = accepted(r#"{"type":"hello","version":1,"user":null,"token":null,"device":null,"inbox":null}"#);
    assert_eq!(hello, accepted(r#"{"type":"hello","version":1}"#));
    let join = accepted(r#"{"type":"join","id":null,"room":"lobby","since":null,"history":3,"presence":null,"echo":null}"#);
    assert_eq!(join, accepted(r#"{"type":"join","room":"lobby","history":3}"#));
    let send = accepted(r#"{"type":"send","room":"lobby","body":1,"key":null,"ephemeral":null}"#);
    assert_eq!(send, accepted(r#"{"type":"send","room":"lobby","body":1}"#));
    let history = accepted(r#"{"type":"history","room":"lobby","before":null,"after":"x","limit":null}"#);
    assert_eq!(history, accepted(r#"{"type":"history","room":"lobby","after":"x"}"#));
}

#[test]
fn a_doubled_field_of_the_type_is_refused_even_when_both_agree() {
    bad_field(r#"{"type":"send","id":7,"room":"a","room":"a","body":1}"#, "room");
    bad_field(r#"{"type":"send","id":7,"room":"a","body":1,"body":1}"#, "body");
    bad_field(r#"{"type":"send","id":7,"room":"a","body":1,"key":null,"key":"k"}"#, "key");
    bad_field(r#"{"type":"send","id":7,"room":"a","body":1,"b\u006fdy":2}"#, "body");
    bad_field(r#"{"type":"hello","version":1,"version":1}"#, "version");
    bad_field(r#"{"type":"join","id":7,"room":"a","echo":true,"echo":false}"#, "echo");
    bad_field(r#"{"type":"history","id":7,"room":"a","limit":1,"limit":2}"#, "limit");
}

#[test]
fn fields_of_no_or_of_another_type_are_ignored_whatever_they_hold() {
    assert_eq!(accepted(r#"{"type":"ping","room":5,"room":6,"body":1,"body":2,"since":[],"history":-1}"#), Request::Ping { id: None });
    assert_eq!(accepted(r#"{"type":"pong","id":"x"}"#), Request::Pong);
    assert_eq!(accepted(r#"{"type":"bye","id":-1}"#), Request::Bye);
    assert_eq!(accepted(r#"{"type":"leave","room":"a","unknown":1,"unknown":2,"":{}}"#), Request::Leave { id: None, room: room("a") });
    assert!(matches!(accepted(r#"{"type":"hello","version":1,"id":{}}"#), Request::Hello(_)));
    assert_eq!(accepted(r#"{"type":"ping","x":{"type":1,"id":"no","type":2}}"#), Request::Ping { id: None });
    let body = "1".repeat(BODY_BYTES_MAX + 1);
    assert_eq!(accepted(&format!(r#"{{"type":"ping","body":{body}}}"#)), Request::Ping { id: None });
}

#[test]
fn a_key_with_half_a_surrogate_pair_is_malformed_and_in_a_value_it_breaks_only_fields_that_are_texts() {
    assert_eq!(reason(r#"{"type":"ping","\ud800":1}"#), Reason::Malformed);
    accepted(r#"{"type":"ping","x":"\ud800","y":{"\udc00":1}}"#);
    bad_field(r#"{"type":"send","id":7,"room":"a","body":1,"key":"\udc00\ud800"}"#, "key");
}

#[test]
fn names_are_checked() {
    for name in ["", "a b", "a/b", "é", "a\\u0000", "@", "@a b", "@@a", "a@b", &"x".repeat(65), &format!("@{}", "x".repeat(65))] {
        bad_field(&format!(r#"{{"type":"join","id":7,"room":"{name}"}}"#), "room");
    }
    for name in ["", "a b", "@bob", "é", &"x".repeat(65)] {
        bad_field(&format!(r#"{{"type":"hello","version":1,"user":"{name}"}}"#), "user");
    }
    let long = "x".repeat(64);
    accepted(&format!(r#"{{"type":"leave","room":"{long}"}}"#));
    accepted(&format!(r#"{{"type":"leave","room":"@{long}"}}"#));
    accepted(&format!(r#"{{"type":"hello","version":1,"user":"{long}"}}"#));
}

#[test]
fn names_and_texts_may_be_written_with_escapes() {
    let hello = accepted(r#"{"type":"hello","version":1,"user":"\u0061lice","device":"\ud83d\ude00\n\"\\"}"#);
    let expected = Hello { version: 1, user: UserName::parse("alice").ok(), token: None, device: text("😀\n\"\\"), inbox: None };
    assert_eq!(hello, Request::Hello(expected));
    assert_eq!(accepted(r#"{"type":"leave","room":"\u0040bob"}"#), Request::Leave { id: None, room: room("@bob") });
}

#[test]
fn texts_are_bounded_in_bytes_with_escapes_resolved() {
    for (kind, field) in
        [("hello", "device"), ("hello", "inbox"), ("join", "since"), ("send", "key"), ("history", "before"), ("history", "after")]
    {
        let json = |value: &str| format!(r#"{{"type":"{kind}","version":1,"id":7,"room":"lobby","body":1,"{field}":"{value}"}}"#);
        accepted(&json(""));
        accepted(&json(&"x".repeat(64)));
        accepted(&json(&"\\u0061".repeat(64)));
        accepted(&json(&"é".repeat(32)));
        bad_field(&json(&"x".repeat(65)), field);
        bad_field(&json(&"é".repeat(33)), field);
        bad_field(&json(&"\\u00e9".repeat(33)), field);
    }
}

#[test]
fn fields_that_exclude_each_other_are_refused_together() {
    bad_field(r#"{"type":"history","id":7,"room":"a","before":"x","after":"y"}"#, "before");
}

#[test]
fn a_limit_is_from_1_to_1000() {
    for limit in ["0", "1001", "4294967296"] {
        bad_field(&format!(r#"{{"type":"history","id":7,"room":"a","limit":{limit}}}"#), "limit");
    }
    accepted(r#"{"type":"history","room":"a","limit":1}"#);
    accepted(r#"{"type":"join","room":"a","history":0}"#);
    accepted(r#"{"type":"join","room":"a","history":4294967295}"#);
}

#[test]
fn a_body_is_any_json_value_byte_for_byte() {
    let bodies = [
        "null",
        "0",
        "-0.0e-0",
        "1e999",
        "\"\"",
        r#""\ud800""#,
        r#""\u0000""#,
        "{ }",
        "[ 1 ,\t2\r\n]",
        r#"{"a":1,"a":2}"#,
        "\"\u{202e}é😀\"",
    ];
    for body in bodies {
        let json = format!("{{\"type\":\"send\",\"room\":\"a\",\"body\": \n{body}\t }}");
        let Request::Send(send) = accepted(&json) else { panic!("not a send") };
        assert_eq!(send.body, body);
    }
}

#[test]
fn a_body_over_its_limit_is_told_apart_and_gives_the_id_back() {
    let json = |bytes: usize| format!(r#"{{"type":"send","id":7,"room":"a","body": "{}" }}"#, "x".repeat(bytes - 2));
    accepted(&json(BODY_BYTES_MAX));
    let refusal = refused(json(BODY_BYTES_MAX + 1));
    assert_eq!((refusal.reason, refusal.id), (Reason::BodyTooLarge, Some(RequestId(7))));
}

#[test]
fn texts_without_escapes_are_borrowed() {
    let json = r#"{"type":"send","room":"a","body":1,"key":"k"}"#;
    let Request::Send(Send { key: Some(Cow::Borrowed("k")), body, .. }) = accepted(json) else { panic!("a copy was made") };
    assert!(json.as_bytes().as_ptr_range().contains(&body.as_ptr()));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_fields_and_the_white_space_do_not_matter(
        order in Just(vec![0usize, 1, 2, 3, 4, 5]).prop_shuffle(),
        spaces in prop::collection::vec(prop::sample::select(vec!["", " ", "\n", "\r\t  "]), 26),
    ) {
        let members = r#""type"_:_"send"|"id"_:_7|"room"_:_"lobby"|"body"_:_[1, {}]|"key"_:_"k"|"ephemeral"_:_true"#;
        let members: Vec<_> = members.split('|').collect();
        let members: Vec<_> = order.into_iter().map(|n| format!("_{}_", members[n])).collect();
        let mut json = format!("_{{{}}}_", members.join(","));
        for space in spaces {
            json = json.replacen('_', space, 1);
        }
        let expected = Send { id: Some(RequestId(7)), room: room("lobby"), body: "[1, {}]", key: text("k"), ephemeral: true };
        prop_assert_eq!(accepted(&json), Request::Send(expected));
    }
}
