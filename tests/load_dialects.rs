//! What real peers say is read alike in whatever pieces it comes, and no bytes harm the reader.
//!
//! `tests/corpus/dialect` holds what a NATS server 2.15, Redis 7.0 and mosquitto 2.0 sent to a client that said who it is, subscribed, published and
//! made mistakes. The bodies in it are of run 12345678, so that they are read as deliveries.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ringroom::limits::BODY_BYTES_MAX;
use ringroom::load::body::Bodies;
use ringroom::load::dialect::{Dialect, Event, Tail, Target};
use ringroom::load::names::{Names, RunId};
use ringroom::load::schedule::Random;

/// An incomplete unit is a body, a line and a little more.
const TAIL_BYTES_MAX: usize = BODY_BYTES_MAX + 64 * 1024;
const RUN: u32 = 12_345_678;

fn dialect(target: Target) -> Dialect {
    let run = RunId::new(RUN);
    Dialect::new(target, Names::new(run, 50), Bodies::new(run, "128".parse().unwrap()))
}

fn target_of(name: &str) -> Target {
    let all = [Target::Ringroom, Target::Nats, Target::Redis, Target::Mqtt];
    all.into_iter().find(|target| name.starts_with(target.name())).unwrap()
}

/// What was recorded, by file name.
fn recorded() -> BTreeMap<String, Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/dialect");
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

/// Events as text, and whether the stream could be cut to its end.
type Reading = (Vec<String>, bool);

fn read<'a>(target: Target, pieces: impl Iterator<Item = &'a [u8]>) -> Reading {
    let (mut dialect, mut tail, mut events) = (dialect(target), Tail::default(), Vec::new());
    for piece in pieces {
        let done = dialect.decode(&mut tail, piece, &mut |event| events.push(format!("{event:?}")));
        if done.is_err() {
            return (events, false);
        }
        assert!(tail.len() <= TAIL_BYTES_MAX, "{} bytes kept", tail.len());
    }
    (events, true)
}

/// The kinds of events, with how many of each.
fn kinds(events: &[String]) -> String {
    let mut runs: Vec<(&str, usize)> = Vec::new();
    for event in events {
        let kind = event.split([' ', '(']).next().unwrap();
        match runs.last_mut() {
            Some((last, count)) if *last == kind => *count += 1,
            _ => runs.push((kind, 1)),
        }
    }
    runs.iter().map(|(kind, count)| format!("{kind} {count}")).collect::<Vec<_>>().join(", ")
}

#[test]
fn what_real_servers_said_is_understood() {
    let expected = [
        ("mqtt-messages", "Welcome 1, Joined 2, Delivery 12, Other 2"),
        ("mqtt-refused", "Bye 1"),
        ("mqtt-retained", "Welcome 1, Joined 2, Other 1"),
        ("nats-messages", "Welcome 1, Joined 1, Delivery 12, Other 1, Delivery 1"),
        ("nats-refused", "Welcome 1, Joined 1, Bye 1"),
        ("nats-unauthorized", "Welcome 1, Bye 1"),
        ("nats-unknown", "Welcome 1, Joined 1, Bye 1"),
        ("redis-refused", "Refused 3"),
    ];
    let recorded = recorded();
    for (name, kinds_expected) in expected {
        let (events, whole) = read(target_of(name), std::iter::once(recorded[name].as_slice()));
        assert!(whole, "{name}");
        assert_eq!(kinds(&events), kinds_expected, "{name}: {events:#?}");
    }
    // In Redis a client's own copy comes before or behind its answer, as the version likes.
    let (events, _) = read(Target::Redis, std::iter::once(recorded["redis-messages"].as_slice()));
    let count = |kind: &str| events.iter().filter(|event| event.starts_with(kind)).count();
    let counts = ["Welcome", "Joined", "Delivery", "Sent", "Other"].map(count);
    assert_eq!((counts, events.len()), ([1, 2, 12, 14, 2], 31), "{events:#?}");
}

#[test]
fn whole_input_and_any_pieces_of_it_agree() {
    let mut random = Random::new(1);
    for (name, bytes) in recorded() {
        let target = target_of(&name);
        let whole = read(target, std::iter::once(bytes.as_slice()));
        assert_eq!(read(target, bytes.chunks(1)), whole, "{name} byte by byte");
        for _ in 0..50 {
            let size = 1 + usize::try_from(random.below(300)).unwrap();
            assert_eq!(read(target, bytes.chunks(size)), whole, "{name} in pieces of {size}");
        }
    }
}

/// The bytes with a few of them changed, taken out, doubled or put elsewhere.
fn corrupted(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=random.below(4) {
        let mut place = |length: usize| usize::try_from(random.below(u32::try_from(length).unwrap())).unwrap();
        let at = place(bytes.len());
        let end = (at + 1 + place(40)).min(bytes.len());
        let part = bytes[at..end].to_vec();
        match place(5) {
            0 => bytes[at] ^= 1 << place(8),
            1 => bytes[at] = b"0123456789\r\n $*%>-{"[place(19)],
            2 => drop(bytes.drain(at..end)),
            3 => drop(bytes.splice(at..at, part)),
            _ => {
                let to = place(bytes.len());
                bytes.splice(to..to, part);
            }
        }
        if bytes.is_empty() {
            bytes.push(b'\n');
        }
    }
    bytes
}

#[test]
fn corrupted_input_harms_nobody_and_is_read_alike_in_any_pieces() {
    let mut broken: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, bytes) in recorded() {
        let (target, mut random) = (target_of(&name), Random::new(2));
        for round in 0..400 {
            let bytes = corrupted(&bytes, &mut random);
            let whole = read(target, std::iter::once(bytes.as_slice()));
            *broken.entry(target.name()).or_default() += usize::from(!whole.1);
            let size = 1 + usize::try_from(random.below(64)).unwrap();
            assert_eq!(read(target, bytes.chunks(1)), whole, "{name} round {round}: {}", bytes.escape_ascii());
            assert_eq!(read(target, bytes.chunks(size)), whole, "{name} round {round} in pieces of {size}: {}", bytes.escape_ascii());
        }
    }
    assert!(broken.len() == 3 && broken.values().all(|count| *count > 0), "what is broken is noticed: {broken:?}");
}

#[test]
fn no_announcement_makes_a_reader_keep_more_than_a_message() {
    let endless: [(Target, &[u8], &[u8]); 8] = [
        (Target::Ringroom, b"\x00\x01\x00\x00", b"x"),
        (Target::Nats, b"", b"x"),
        (Target::Nats, b"MSG r614e-00000003 1 61440\r\n", b"x"),
        (Target::Redis, b"+", b"x"),
        (Target::Redis, b"$61440\r\n", b"x"),
        (Target::Redis, b"*20000\r\n", b":1\r\n"),
        (Target::Redis, b"%9999\r\n", b"%1\r\n"),
        (Target::Mqtt, b"\x30\xff\xe3\x03", b"x"),
    ];
    for (target, start, more) in endless {
        let (mut dialect, mut tail, mut kept) = (dialect(target), Tail::default(), 0);
        let piece = more.repeat(2_048 / more.len());
        dialect.decode(&mut tail, start, &mut |_: Event<'_>| {}).unwrap();
        for _ in 0..100 {
            if dialect.decode(&mut tail, &piece, &mut |_: Event<'_>| {}).is_err() {
                break;
            }
            kept = kept.max(tail.len());
        }
        assert!(kept <= TAIL_BYTES_MAX, "{}: {kept} bytes kept", target.name());
    }
}
