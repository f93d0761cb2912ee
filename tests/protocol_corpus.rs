//! Replays the hostile inputs that were picked by hand, and those that fuzzing found.
//!
//! A file's name begins with what has to come of it, up to the first dot: `ok` or a reason for a message; `frame`,
//! `incomplete` or a reason for the first cut of a stream; `client`, `proxy` (it speaks for itself), `incomplete` or what
//! is wrong for the header of a load balancer. A name without a dot is only checked.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::Path;

use ringroom::limits::FRAME_BYTES_MAX;
use ringroom::protocol::frame::{Cut, cut};
use ringroom::protocol::message::decode;
use ringroom::protocol::proxy::{Header, HeaderError, header};

#[path = "fuzz/check.rs"]
mod check;

/// Runs `judge` on every file of a folder, and compares what it says with the name.
fn replay(folder: &str, files_min: usize, judge: fn(&[u8]) -> &'static str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(folder);
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= files_min, "{} lost files", folder.display());
    for file in files {
        let outcome = judge(&fs::read(&file).unwrap());
        let name = file.file_name().unwrap().to_str().unwrap();
        if let Some((expected, _)) = name.split_once('.') {
            assert_eq!(outcome, expected, "{}", file.display());
        }
    }
}

#[test]
fn every_stored_message_comes_out_as_its_name_says() {
    replay("message", 80, |bytes| {
        check::message(bytes);
        decode(bytes).map_or_else(|refusal| refusal.reason.name(), |_| "ok")
    });
}

#[test]
fn every_stored_stream_is_cut_as_its_name_says() {
    replay("frame", 20, |bytes| {
        check::frame(bytes);
        match cut(bytes, FRAME_BYTES_MAX) {
            Cut::Frame { .. } => "frame",
            Cut::Incomplete { .. } => "incomplete",
            Cut::Bad(error) => error.reason().name(),
        }
    });
}

#[test]
fn every_stored_proxy_header_is_read_as_its_name_says() {
    replay("proxy", 30, |bytes| {
        check::proxy(bytes);
        match header(bytes) {
            Header::Whole { client: Some(_), .. } => "client",
            Header::Whole { client: None, .. } => "proxy",
            Header::Incomplete { .. } => "incomplete",
            Header::Bad(HeaderError::Signature) => "signature",
            Header::Bad(HeaderError::Word) => "word",
            Header::Bad(HeaderError::Short) => "short",
            Header::Bad(HeaderError::TooLarge) => "too_large",
        }
    });
}

#[test]
fn every_stored_interval_log_comes_out_as_its_name_says() {
    replay("hlog", 10, check::interval_log);
}

/// Too large to be stored.
#[test]
fn large_hostile_messages_agree_with_the_second_decoder() {
    let many_keys: String = (0..100_000).map(|n| format!(r#""{n}":{n},"#)).collect();
    let escaped_keys = r#""\u0061":0,"#.repeat(10_000);
    let body_of = |body: &str| format!(r#"{{"type":"send","id":1,"room":"a","body":{body}}}"#);
    let inputs = [
        "[".repeat(100_000),
        "{\"a\":".repeat(100_000),
        format!(r#"{{"type":"ping","id":1,"x":{}"#, "[".repeat(100_000)),
        format!(r#"{{{many_keys}"type":"ping"}}"#),
        format!(r#"{{{escaped_keys}"type":"ping"}}"#),
        format!(r#"{{"type":"ping","id":{}}}"#, "9".repeat(10_000_000)),
        format!(r#"{{"type":"ping","x":-0.{0}e+{0}}}"#, "9".repeat(1_000_000)),
        format!(r#"{{"type":"{}"}}"#, "a".repeat(1_000_000)),
        format!(r#"{{"type":"{}"}}"#, r"\n".repeat(500_000)),
        format!(r#"{{"{}":1}}"#, r"\u0000".repeat(100_000)),
        format!(r#"{{"type":"hello","version":1,"token":"{}"}}"#, r"\ud83d\ude00".repeat(100_000)),
        format!("{{\"type\":\"ping\",\"x\":{}1}}", " ".repeat(1_000_000)),
        body_of(&format!("\"{}\"", "é".repeat(30_719))),
        body_of(&format!("\"{}\"", "é".repeat(30_720))),
        body_of(&format!("[{}0]", "[],".repeat(30_000))),
        "\u{feff}".repeat(100_000),
    ];
    for input in inputs {
        check::message(input.as_bytes());
        check::message(&input.as_bytes()[..input.len() / 2]);
    }
}

/// Too large to be stored.
#[test]
fn large_streams_do_not_depend_on_the_pieces_they_come_in() {
    for length in [FRAME_BYTES_MAX - 1, FRAME_BYTES_MAX, FRAME_BYTES_MAX + 1] {
        let mut bytes = u32::try_from(length).unwrap().to_be_bytes().to_vec();
        bytes.resize(4 + length, b' ');
        bytes.extend_from_slice(b"\0\0\0\x02{}");
        check::frame(&bytes);
    }
}
