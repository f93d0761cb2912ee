//! Decode of a `send` and encode of a `message` with a body of 128 bytes: nanoseconds per operation.
//!
//! Prints parameters, a hash of the results (so that the work can't quietly change), then numbers. Beside `decode`
//! stands the same work done by `serde_json` with borrowed raw values and a depth scan in front, which the
//! hand-written scan has to beat to be worth its lines. Hostile frames show what a byte can cost at worst.
//! Tiny by default; `RINGROOM_BENCH=long` for figures.
#![allow(clippy::print_stdout, reason = "a bench prints its figures")]
#![allow(clippy::unwrap_used, reason = "a bench")]

use std::borrow::Cow;
use std::hint::black_box;
use std::time::Instant;

use bytes::BytesMut;
use ringroom::ids::{Epoch, Position, RoomName, WirePosition};
use ringroom::limits::FRAME_BYTES_MAX;
use ringroom::protocol::encode::{Outgoing, frame};
use ringroom::protocol::frame::{Cut, cut};
use ringroom::protocol::message::{Request, decode};
use serde::Deserialize;
use serde_json::value::RawValue;

const BODY_BYTES: usize = 128;
/// Different objects per pass, so that no branch predictor learns a single one by heart.
const OBJECTS: usize = 64;

/// How much to measure.
struct Plan {
    rounds: usize,
    passes: usize,
}

fn plan() -> Plan {
    match std::env::var("RINGROOM_BENCH").as_deref() {
        Ok("long") => Plan { rounds: 15, passes: 5_000 },
        _ => Plan { rounds: 3, passes: 10 },
    }
}

fn main() {
    let plan = plan();
    let bodies: Vec<String> = (0..OBJECTS).map(body).collect();
    let sends: Vec<String> = bodies.iter().enumerate().map(|(n, body)| send(n, body)).collect();
    let framed: Vec<u8> =
        sends.iter().flat_map(|send| [&u32::try_from(send.len()).unwrap().to_be_bytes(), send.as_bytes()].concat()).collect();
    let mut out = BytesMut::with_capacity(OBJECTS * 512);

    let bytes: usize = sends.iter().map(String::len).sum();
    println!(
        "protocol: body {BODY_BYTES} B, send {} B, {OBJECTS} objects x {} passes, median of {} rounds",
        bytes / OBJECTS,
        plan.passes,
        plan.rounds
    );
    println!("result hash {:016x}", hash(&sends, &bodies, &mut out));

    let ns = |pass: &mut dyn FnMut()| measure(&plan, pass) / OBJECTS as f64;
    let decoded = ns(&mut || for_each(&sends, |json| _ = black_box(decode(json))));
    let by_serde = ns(&mut || for_each(&sends, |json| _ = black_box(decode_by_serde(json))));
    let utf8 = ns(&mut || for_each(&sends, |json| _ = black_box(std::str::from_utf8(json))));
    let cuts = ns(&mut || cut_all(black_box(&framed)));
    let encoded = ns(&mut || {
        out.clear();
        bodies.iter().enumerate().for_each(|(n, body)| frame(&message(n, body), black_box(&mut out)));
    });
    println!("decode send      {decoded:8.1} ns/op");
    println!("  of it UTF-8    {utf8:8.1} ns/op");
    println!("  by serde_json  {by_serde:8.1} ns/op   ratio {:.2}", decoded / by_serde);
    println!("cut              {cuts:8.1} ns/op");
    println!("encode message   {encoded:8.1} ns/op");

    for (name, hostile) in hostile() {
        let few = Plan { rounds: plan.rounds, passes: plan.passes.div_ceil(100) };
        let ns = measure(&few, &mut || for_each(&[&hostile], |json| _ = black_box(decode(json))));
        println!("hostile {name:13} {:6.2} ns/B, {:6.0} us for {} B", ns / hostile.len() as f64, ns / 1_000.0, hostile.len());
    }
}

fn for_each(objects: &[impl AsRef<[u8]>], mut run: impl FnMut(&[u8])) {
    objects.iter().for_each(|object| run(black_box(object.as_ref())));
}

/// Median over the rounds, nanoseconds per pass.
fn measure(plan: &Plan, pass: &mut dyn FnMut()) -> f64 {
    pass();
    let mut rounds: Vec<f64> = (0..plan.rounds)
        .map(|_| {
            let start = Instant::now();
            (0..plan.passes).for_each(|_| pass());
            start.elapsed().as_nanos() as f64 / plan.passes as f64
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}

/// An object with text, a number and an escape now and then, as a chat client writes it.
fn body(n: usize) -> String {
    let mut body = format!(r#"{{"text":"message {n}{}","n":{n},"text2":""#, if n.is_multiple_of(4) { r"\n" } else { "" });
    body.extend((0..BODY_BYTES - 2 - body.len()).map(|at| if at % 6 == 5 { ' ' } else { 'x' }));
    body + "\"}"
}

fn send(n: usize, body: &str) -> String {
    format!(r#"{{"type":"send","id":{n},"room":"lobby-{n}","body":{body},"key":"k-{n}"}}"#)
}

fn message(n: usize, body: &str) -> Outgoing<'_> {
    let at = WirePosition { epoch: Epoch(0x9f2c), position: Position { ms: 1_732_345_678_901 + n as u64, n: n as u64 % 3 } };
    Outgoing::Message { room: "lobby", at: Some(at), from: "alice", ts: at.position.ms, body }
}

fn cut_all(mut bytes: &[u8]) {
    while let Cut::Frame { json, rest } = cut(bytes, FRAME_BYTES_MAX) {
        black_box(json);
        bytes = rest;
    }
}

/// FNV-1a over what every object decodes to and every message is written as.
fn hash(sends: &[String], bodies: &[String], out: &mut BytesMut) -> u64 {
    let mut seen = Vec::new();
    for (n, (send, body)) in sends.iter().zip(bodies).enumerate() {
        let Ok(Request::Send(request)) = decode(send.as_bytes()) else { panic!("{send} is refused") };
        assert_eq!(decode_by_serde(send.as_bytes()), Some((request.room, request.body)));
        seen.extend_from_slice(format!("{request:?}").as_bytes());
        out.clear();
        frame(&message(n, body), out);
        seen.extend_from_slice(out);
    }
    seen.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// Frames of the largest size in the shapes that cost most.
fn hostile() -> Vec<(&'static str, String)> {
    let fill = |unit: &str, end: &str| {
        let start = r#"{"type":"ping","x":"#;
        let mut text = String::from(start);
        text += &unit[..1];
        let unit = &unit[1..];
        while text.len() + unit.len() + end.len() <= FRAME_BYTES_MAX {
            text += unit;
        }
        text + end
    };
    vec![
        ("arrays", fill("[[],", "0]}")),
        ("objects", fill(r#"[{"":0},"#, "0]}")),
        ("digits", fill("[1,", "0]}")),
        ("escapes", fill(r#""\n"#, "\"}")),
        ("text", fill("\"abcdefgh", "\"}")),
        ("non-ASCII", fill("\"é", "\"}")),
        ("escaped keys", fill(r#"1,"\u0061":1"#, "}")),
    ]
}

#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    room: Cow<'a, str>,
    #[serde(borrow)]
    body: &'a RawValue,
    id: Option<u64>,
    #[serde(borrow)]
    key: Option<Cow<'a, str>>,
    ephemeral: Option<bool>,
}

fn decode_by_serde(json: &[u8]) -> Option<(RoomName, &str)> {
    if depth(json) > 16 {
        return None;
    }
    let members: Members<'_> = serde_json::from_slice(json).ok()?;
    black_box((&members.kind, members.id, &members.key, members.ephemeral));
    Some((RoomName::parse(&members.room).ok()?, members.body.get()))
}

fn depth(json: &[u8]) -> usize {
    let (mut open, mut deepest, mut in_string, mut escaped) = (0usize, 0, false, false);
    for &byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => open += 1,
            b'}' | b']' if !in_string => open = open.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(open);
    }
    deepest
}
