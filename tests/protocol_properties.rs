//! Any bytes: the decoder never panics and is exactly as strict as `serde_json`; frames do not depend on the pieces.
#![allow(clippy::unwrap_used, reason = "a test")]

#[allow(dead_code, reason = "a part of the checks")]
#[path = "fuzz/check.rs"]
mod check;

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use ringroom::protocol::message::decode;

/// Pieces of JSON, and of what is nearly JSON.
const TOKENS: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"\"",
    b"\\",
    b" ",
    b"\t",
    b"\n",
    b"\r",
    b"\x0b",
    b"\0",
    b"\"type\"",
    b"\"id\"",
    b"\"room\"",
    b"\"body\"",
    b"\"send\"",
    b"\"ping\"",
    b"\"hello\"",
    b"true",
    b"false",
    b"null",
    b"nul",
    b"0",
    b"-",
    b"-0",
    b"01",
    b"1.",
    b"1.5",
    b"1e",
    b"1e999",
    b"1E+3",
    b"-1",
    b"9007199254740991",
    b"9007199254740992",
    b"\"a\"",
    b"\"\\u0061\"",
    b"\"\\ud800\"",
    b"\\u12g4",
    b"\"\\ud83d\\ude00\"",
    b"\xc3\xa9",
    b"\xc0\xaf",
    b"\xed\xa0\x80",
    b"\xff",
    b"\x7f",
    b"\xef\xbb\xbf",
    b"{}",
    b"[]",
    b"[[[[[[[[",
    b"]]]]]]]]",
    b"{\"a\":",
    b"\"\\\"\"",
    b"\"\\x\"",
    b"/",
    b"NaN",
    b"'",
];

const KEYS: &[&str] = &[
    "type",
    "id",
    "id",
    "room",
    "body",
    "key",
    "ephemeral",
    "version",
    "user",
    "token",
    "device",
    "inbox",
    "since",
    "history",
    "presence",
    "echo",
    "before",
    "after",
    "limit",
    "",
    "other",
    "Type",
    "ty\\u0070e",
    "\\u0069d",
    "\\ud800",
];

/// What a member is most likely to hold, by the first field that knows it.
const FITTING: &[(&[&str], &[&str])] = &[
    (
        &["key", "token", "device", "inbox", "since", "before", "after"],
        &["\"9f2c.17-0\"", "\"b\\u006fb\"", "\"\"", "\"\\ud800\"", "null", "5"],
    ),
    (
        &["id", "history", "limit", "version"],
        &["0", "1", "1000", "1001", "9007199254740991", "9007199254740992", "4294967296", "-0", "1.0", "null"],
    ),
    (&["ephemeral", "presence", "echo"], &["true", "false", "null", "0"]),
    (&["room", "user"], &["\"b\\u006fb\"", "\"@bob\"", "\"a b\"", "null"]),
];

const VALUES: &[&str] = &[
    "\"hello\"",
    "\"join\"",
    "\"leave\"",
    "\"send\"",
    "\"history\"",
    "\"presence\"",
    "\"ping\"",
    "\"pong\"",
    "\"bye\"",
    "\"lobby\"",
    "\"lobby\"",
    "\"@bob\"",
    "\"b\\u006fb\"",
    "\"@\"",
    "\"a b\"",
    "\"\"",
    "\"\\ud800\"",
    "\"\\n\"",
    "0",
    "1",
    "7",
    "50",
    "1000",
    "1001",
    "-1",
    "-0",
    "1.0",
    "1e2",
    "4294967296",
    "9007199254740991",
    "9007199254740992",
    "18446744073709551616",
    "true",
    "false",
    "null",
    "{}",
    "[]",
    "{\"a\":[1,{\"type\":\"x\",\"type\":2}]}",
    "[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]",
    "[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]",
    "1e999",
    "\"0123456789012345678901234567890123456789012345678901234567890123\"",
    "\"01234567890123456789012345678901234567890123456789012345678901234\"",
    "\"9f2c.17-0\"",
];

const SPACES: &[&str] = &["", "", "", " ", "\n", "\t\r "];

const TYPES: &[&str] = &["hello", "join", "leave", "send", "history", "presence", "ping", "pong", "bye", "nonsense"];

fn tokens() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(select(TOKENS), 0..40).prop_map(|tokens| tokens.concat())
}

fn space() -> impl Strategy<Value = &'static str> {
    select(SPACES)
}

fn member() -> impl Strategy<Value = String> {
    let value = (select(VALUES), prop::bool::weighted(0.8), any::<Index>());
    (space(), select(KEYS), space(), space(), value, space()).prop_map(|(a, key, b, c, (any, fits, which), d)| {
        let fitting = FITTING.iter().find(|(keys, _)| keys.contains(&key)).map(|(_, values)| *which.get(values));
        let value = fitting.filter(|_| fits).unwrap_or(any);
        format!("{a}\"{key}\"{b}:{c}{value}{d}")
    })
}

/// An object that mostly has a type and its required fields, and anything besides.
fn object() -> impl Strategy<Value = String> {
    let members = prop::collection::vec(member(), 0..6);
    let with = || prop::bool::weighted(0.9);
    (select(TYPES), [with(), with(), with(), with()], members, any::<Index>(), space()).prop_map(
        |(kind, with, mut members, rotate, end)| {
            let usual = [format!("\"type\":\"{kind}\""), "\"room\":\"lobby\"".into(), "\"body\": [1, 2] ".into(), "\"version\":1".into()];
            members.extend(usual.into_iter().zip(with).filter_map(|(member, with)| with.then_some(member)));
            if !members.is_empty() {
                let middle = rotate.index(members.len());
                members.rotate_left(middle);
            }
            format!("{end}{{{}}}{end}", members.join(","))
        },
    )
}

/// An object with a few bytes changed, put in or taken out.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let damage = (any::<Index>(), 0..3u8, any::<u8>());
    (object(), prop::collection::vec(damage, 1..4)).prop_map(|(text, damages)| {
        let mut bytes = text.into_bytes();
        for (place, kind, byte) in damages {
            let at = place.index(bytes.len().max(1));
            match kind {
                0 => bytes.insert(at, byte),
                1 if at < bytes.len() => drop(bytes.remove(at)),
                _ if at < bytes.len() => bytes[at] = byte,
                _ => {}
            }
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn decode_agrees_with_the_second_decoder_on_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check::message(&bytes);
    }

    #[test]
    fn decode_agrees_with_the_second_decoder_on_pieces_of_json(bytes in tokens()) {
        check::message(&bytes);
        check::message(&[b"{\"type\":\"send\",\"room\":\"a\",\"body\":", &bytes[..], b"}"].concat());
    }

    #[test]
    fn decode_agrees_with_the_second_decoder_on_objects(text in object()) {
        check::message(text.as_bytes());
    }

    #[test]
    fn decode_agrees_with_the_second_decoder_on_damaged_objects(bytes in damaged()) {
        check::message(&bytes);
    }

    #[test]
    fn decode_agrees_with_the_second_decoder_on_any_string(text in any::<String>()) {
        let quoted = serde_json::to_string(&text).unwrap();
        check::message(format!(r#"{{"type":"send","room":"a","body":{quoted},"key":{quoted},{quoted}:1}}"#).as_bytes());
        check::message(format!(r#"{{"type":"send","room":"a","body":"{text}"}}"#).as_bytes());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn frames_do_not_depend_on_the_pieces_they_come_in(
        frames in prop::collection::vec((0..400u32, any::<bool>()), 0..6), cut_off in any::<Index>(),
    ) {
        let mut bytes = Vec::new();
        for (length, honest) in frames {
            bytes.extend_from_slice(&length.to_be_bytes());
            let written = if honest { length } else { length / 2 };
            bytes.resize(bytes.len() + written as usize, b'x');
        }
        bytes.truncate(cut_off.index(bytes.len() + 1));
        check::frame(&bytes);
    }

    #[test]
    fn any_bytes_can_be_cut(bytes in prop::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 0..300)) {
        check::frame(&bytes);
    }
}

#[test]
fn the_objects_made_up_reach_every_type_and_every_refusal() {
    let mut runner = TestRunner::deterministic();
    let mut reached = BTreeMap::new();
    for _ in 0..4_000 {
        let text = object().new_tree(&mut runner).unwrap().current();
        let outcome = match decode(text.as_bytes()) {
            Ok(request) => format!("{request:?}").split([' ', '(']).next().unwrap().to_owned(),
            Err(refusal) => refusal.message.to_owned(),
        };
        *reached.entry(outcome).or_insert(0) += 1;
    }
    for outcome in ["Hello", "Join", "Leave", "Send", "History", "Presence", "Ping", "Pong", "Bye"] {
        assert!(reached.get(outcome).is_some_and(|&times| times > 20), "{outcome} in {reached:?}");
    }
    // 18 fields break their rules, most of them also by being doubled, four by being missing.
    assert!(reached.len() > 9 + 30, "{reached:#?}");
}
