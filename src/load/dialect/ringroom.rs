//! ringroom's own protocol: frames of a length and a JSON object.
//!
//! Written apart from the server's protocol module, so that a mistake there is not made twice. Bytes come straight from a receive buffer; only the
//! incomplete tail of one is copied. A delivery in the usual shape (type, room first, body last) is recognised by comparing bytes at known places and
//! never goes through a JSON parser; everything else takes the slow path, which accepts any order of fields. Bytes that are neither are reported,
//! never skipped.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::limits::{FRAME_BYTES_MAX, TCP_HEADER_BYTES};
use crate::load::body::{Bodies, Stamp};
use crate::load::names::{NUMBER_DIGITS, Names};
use crate::load::plan::ServerLimits;

use super::{Abilities, Broken, Event, Login, Tail, delivery};

pub const ABILITIES: Abilities = Abilities { answers: true, room_order: true, resume: true, history: true };

const MESSAGE_OPEN: &[u8] = br#"{"type":"message","room":""#;
const SENT_OPEN: &[u8] = br#"{"type":"sent","id":"#;
const SEND_OPEN: &[u8] = br#"{"type":"send","id":"#;
const BODY_KEY: &[u8] = br#""body":"#;
/// All request numbers of sends have this many digits: [`crate::load::page::SEND_ID_FIRST`] has.
const ID_DIGITS: usize = 10;

/// What stands in front of a body in a `send`; number and name are patched.
#[derive(Debug)]
struct Head {
    bytes: Vec<u8>,
    number: usize,
}

impl Head {
    fn new(name: &str) -> Self {
        let text = format!(r#"{{"type":"send","id":0000000000,"room":"{name}","body":"#);
        let number = text.len() - r#"","body":"#.len() - NUMBER_DIGITS;
        Self { bytes: text.into_bytes(), number }
    }
}

#[derive(Debug)]
pub struct Ringroom {
    names: Names,
    bodies: Bodies,
    room: Head,
    inbox: Head,
    /// Where the body began in the last delivery: the next one mostly has it there too.
    body_at: usize,
}

impl Ringroom {
    pub fn new(names: Names, bodies: Bodies) -> Self {
        let inbox = Head::new(&names.room(names.inbox(0)));
        // A run without rooms has only inboxes; the head of rooms is then never used.
        let room = Head::new(&Names::new(names.run(), 1).room(0));
        Self { names, bodies, room, inbox, body_at: 0 }
    }

    pub fn login(&self, login: &Login<'_>, out: &mut Vec<u8>) -> u32 {
        let (user, token) = (self.names.user(login.connection), self.names.token(login.connection));
        let (field, who) = token.map_or(("user", &*user), |token| ("token", token));
        frame(out, &format!(r#"{{"type":"hello","version":1,"{field}":"{who}"}}"#));
        for (id, wanted) in login.rooms.iter().enumerate() {
            let room = self.names.room(wanted.room);
            let since = wanted.since.map(|position| format!(r#","since":"{}""#, String::from_utf8_lossy(position)));
            frame(out, &format!(r#"{{"type":"join","id":{id},"room":"{room}"{}}}"#, since.unwrap_or_default()));
        }
        u32::try_from(login.rooms.len() + 1).expect("rooms are numbered by u32")
    }

    pub fn publish(&self, id: u64, stamp: &Stamp, out: &mut Vec<u8>) {
        let head = if self.names.is_inbox(stamp.room) { &self.inbox } else { &self.room };
        let length = head.bytes.len() + self.bodies.size_of(stamp) + 1;
        out.extend_from_slice(&u32::try_from(length).expect("frames of the generator are at most 64 KiB").to_be_bytes());
        let start = out.len();
        out.extend_from_slice(&head.bytes);
        write_number(&mut out[start + SEND_OPEN.len()..][..ID_DIGITS], id);
        out[start + head.number..][..NUMBER_DIGITS].copy_from_slice(&self.names.digits(stamp.room));
        self.bodies.write(stamp, out);
        out.push(b'}');
    }

    pub fn keep_alive(&self, out: &mut Vec<u8>) {
        frame(out, r#"{"type":"pong"}"#);
    }

    pub fn history(&self, id: u64, (room, limit): (u32, u32), out: &mut Vec<u8>) {
        frame(out, &format!(r#"{{"type":"history","id":{id},"room":"{}","limit":{limit}}}"#, self.names.room(room)));
    }

    pub fn goodbye(&self, out: &mut Vec<u8>) {
        frame(out, r#"{"type":"bye"}"#);
    }

    pub fn decode(&mut self, tail: &mut Tail, bytes: &[u8], on_event: &mut impl FnMut(Event<'_>)) -> Result<(), Broken> {
        let mut rest = if tail.is_empty() { bytes } else { self.complete(tail, bytes, on_event)? };
        while let Some(header) = rest.first_chunk() {
            let length = frame_length(*header)?;
            let Some(frame) = rest.get(TCP_HEADER_BYTES..TCP_HEADER_BYTES + length) else { break };
            on_event(self.read(frame));
            rest = &rest[TCP_HEADER_BYTES + length..];
        }
        tail.bytes.extend_from_slice(rest);
        Ok(())
    }

    /// Adds to the tail just what its frame lacks; the bytes behind it are given back.
    fn complete<'a>(&mut self, tail: &mut Tail, bytes: &'a [u8], on_event: &mut impl FnMut(Event<'_>)) -> Result<&'a [u8], Broken> {
        let lacking = TCP_HEADER_BYTES.saturating_sub(tail.bytes.len());
        let (header, rest) = bytes.split_at(lacking.min(bytes.len()));
        tail.bytes.extend_from_slice(header);
        let Some(header) = tail.bytes.first_chunk() else { return Ok(rest) };
        let whole = TCP_HEADER_BYTES + frame_length(*header)?;
        let (end, rest) = rest.split_at((whole - tail.bytes.len()).min(rest.len()));
        tail.bytes.extend_from_slice(end);
        if tail.bytes.len() == whole {
            on_event(self.read(&tail.bytes[TCP_HEADER_BYTES..]));
            tail.bytes.clear();
        }
        Ok(rest)
    }

    fn read<'a>(&mut self, frame: &'a [u8]) -> Event<'a> {
        if let Some(event) = self.usual_delivery(frame) {
            return event;
        }
        if let Some(id) = frame.strip_prefix(SENT_OPEN).and_then(leading_number) {
            return Event::Sent { id: Some(id) };
        }
        self.read_any(frame)
    }

    /// A `message` with `room` at its start and the body at its end.
    fn usual_delivery<'a>(&mut self, frame: &'a [u8]) -> Option<Event<'a>> {
        let (room, rest) = split_name(frame.strip_prefix(MESSAGE_OPEN)?)?;
        let room = self.names.number(room)?;
        let at = if rest.get(..self.body_at).is_some_and(|before| before.ends_with(BODY_KEY)) {
            self.body_at
        } else {
            // No string before the body can hold these bytes: its quotes would be escaped.
            rest.windows(BODY_KEY.len()).position(|bytes| bytes == BODY_KEY)? + BODY_KEY.len()
        };
        self.body_at = at;
        let body = rest[at..].strip_suffix(b"}")?;
        // Anything wrong, be it only fields behind the body: let the parser look.
        let stamp = self.bodies.read(body).filter(|stamp| stamp.room == room)?;
        Some(Event::Delivery { stamp, whole: frame })
    }

    #[cold]
    fn read_any<'a>(&self, frame: &'a [u8]) -> Event<'a> {
        let Ok(any) = serde_json::from_slice::<Any<'_>>(frame) else { return Event::Garbled(frame) };
        match any.kind.as_ref() {
            "message" => self.unusual_delivery(frame, &any),
            "sent" => Event::Sent { id: any.id },
            "welcome" => Event::Welcome(Box::new(any.limits.unwrap_or_default())),
            "joined" => Event::Joined {
                room: any.room.as_deref().and_then(|room| self.names.number(room.as_bytes())),
                at: any.at.map(str::as_bytes),
                replay: any.replay.unwrap_or(0),
                recovered: any.recovered,
            },
            "history" => {
                Event::History { id: any.id.unwrap_or(0), messages: any.messages.map_or(0, |m| super::super::plan::as_u64(m.len())) }
            }
            "ping" => Event::Ping,
            "gap" => Event::Gap,
            "error" => Event::Refused { id: any.id, reason: any.why() },
            "bye" => Event::Bye { reason: any.why() },
            _ => Event::Other,
        }
    }

    fn unusual_delivery<'a>(&self, frame: &'a [u8], any: &Any<'a>) -> Event<'a> {
        let (Some(room), Some(body)) = (any.room.as_deref(), any.body) else { return Event::Garbled(frame) };
        // Inboxes and rooms carry the run in their names: others are not ours to judge.
        match self.names.number(room.as_bytes()) {
            Some(room) => delivery(&self.bodies, room, body.get().as_bytes(), frame),
            None => Event::Other,
        }
    }
}

/// The position of a delivery.
pub fn position(whole: &[u8]) -> Option<&[u8]> {
    const KEY: &[u8] = br#""at":""#;
    let usual = whole.strip_prefix(MESSAGE_OPEN).and_then(split_name).and_then(|(_, rest)| rest.strip_prefix(br#"","at":""#));
    let rest = match usual {
        Some(rest) => rest,
        None => &whole[whole.windows(KEY.len()).position(|bytes| bytes == KEY)? + KEY.len()..],
    };
    split_name(rest).map(|(position, _)| position)
}

/// What stands before the next quote, and from that quote on.
fn split_name(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.iter().take(crate::limits::POSITION_BYTES_MAX + 2).position(|byte| *byte == b'"')?;
    Some(text.split_at(end))
}

fn frame(out: &mut Vec<u8>, text: &str) {
    let length = u32::try_from(text.len()).expect("frames of the generator are at most 64 KiB");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn frame_length(header: [u8; TCP_HEADER_BYTES]) -> Result<usize, Broken> {
    let length = u32::from_be_bytes(header);
    match usize::try_from(length) {
        Ok(bytes) if bytes > 0 && bytes <= FRAME_BYTES_MAX => Ok(bytes),
        _ => Err(Broken(format!("a frame of length {length}"))),
    }
}

fn write_number(digits: &mut [u8], number: u64) {
    let mut rest = number;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).expect("one digit");
        rest /= 10;
    }
}

fn leading_number(text: &[u8]) -> Option<u64> {
    let end = text.iter().position(|b| !b.is_ascii_digit())?;
    if end == 0 || end > 16 {
        return None;
    }
    Some(text[..end].iter().fold(0, |n, digit| n * 10 + u64::from(digit - b'0')))
}

/// The fields of any object that the generator looks at.
#[derive(Deserialize)]
struct Any<'a> {
    #[serde(borrow, rename = "type")]
    kind: std::borrow::Cow<'a, str>,
    id: Option<u64>,
    #[serde(borrow)]
    room: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
    #[serde(borrow)]
    messages: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    at: Option<&'a str>,
    replay: Option<u64>,
    recovered: Option<bool>,
    code: Option<u32>,
    reason: Option<String>,
    message: Option<String>,
    limits: Option<ServerLimits>,
}

impl Any<'_> {
    fn why(&self) -> String {
        let reason = self.reason.as_deref().unwrap_or("no reason given");
        let text = match &self.message {
            Some(message) => format!("{} {reason}: {message}", self.code.unwrap_or(0)),
            None => format!("{} {reason}", self.code.unwrap_or(0)),
        };
        text.escape_debug().take(200).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::Value;

    use super::super::super::body::BODY_BYTES_MIN;
    use super::super::super::names::RunId;
    use super::super::super::page::SEND_ID_FIRST;
    use super::super::super::schedule::Random;
    use super::super::Wanted;
    use super::*;

    const STAMP: Stamp = Stamp { room: 9, lane: 1, sender: 77, sequence: 1_234, previous: 1_200, intended_ns: 9_876_543_210 };

    fn names() -> Names {
        Names::new(RunId::new(12_345_678), 50)
    }

    fn bodies(size: usize) -> Bodies {
        Bodies::new(RunId::new(12_345_678), format!("{size}").parse().unwrap())
    }

    fn dialect() -> Ringroom {
        Ringroom::new(names(), bodies(128))
    }

    fn body() -> String {
        let mut out = Vec::new();
        bodies(128).write(&STAMP, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn message() -> String {
        format!(r#"{{"type":"message","room":"{}","at":"9f2c.17-0","from":"a","ts":17,"body":{}}}"#, names().room(STAMP.room), body())
    }

    /// The stamp of a delivery whose room and body agree.
    fn stamp(text: &str) -> Option<Stamp> {
        let mut dialect = dialect();
        match dialect.read(text.as_bytes()) {
            Event::Delivery { stamp, whole } => {
                assert_eq!(position(whole), text.contains("9f2c").then_some(&b"9f2c.17-0"[..]));
                Some(stamp)
            }
            _ => None,
        }
    }

    #[test]
    fn a_send_is_a_frame_of_the_object_with_room_number_and_body() {
        for (room, size) in [(42, BODY_BYTES_MIN), (42, 61_440), (57, 100)] {
            let dialect = Ringroom::new(names(), bodies(size));
            let mut out = b"before".to_vec();
            dialect.publish(SEND_ID_FIRST + 12, &Stamp { room, ..STAMP }, &mut out);
            let (header, text) = out[6..].split_at(4);
            assert_eq!(u32::from_be_bytes(header.try_into().unwrap()) as usize, text.len());
            let value: Value = serde_json::from_slice(text).unwrap();
            assert_eq!(value["id"], SEND_ID_FIRST + 12);
            assert_eq!(value["room"], names().room(room));
            let body_at = text.windows(8).position(|w| w == br#""body":{"#).unwrap() + 7;
            assert_eq!(text.len() - 1 - body_at, size);
        }
    }

    #[test]
    fn a_login_says_who_and_asks_for_each_room() {
        let rooms = [Wanted { room: 3, since: None }, Wanted { room: 4, since: Some(b"9f.1-0") }];
        let mut out = Vec::new();
        assert_eq!(dialect().login(&Login { connection: 7, rooms: &rooms, inbox: true }, &mut out), 3);
        let mut objects = Vec::new();
        while !out.is_empty() {
            let length = u32::from_be_bytes(out[..4].try_into().unwrap()) as usize;
            objects.push(serde_json::from_slice::<Value>(&out[4..4 + length]).unwrap());
            out.drain(..4 + length);
        }
        assert_eq!(objects.iter().map(|o| o["type"].as_str().unwrap()).collect::<Vec<_>>(), ["hello", "join", "join"]);
        assert_eq!(objects[0]["user"], names().user(7));
        assert_eq!((&objects[1]["room"], &objects[1]["since"]), (&Value::from(names().room(3)), &Value::Null));
        assert_eq!(objects[2]["since"], "9f.1-0");
    }

    #[test]
    fn a_delivery_gives_back_its_stamp() {
        assert!(dialect().usual_delivery(message().as_bytes()).is_some());
        assert_eq!(stamp(&message()), Some(STAMP));
    }

    #[test]
    fn fields_may_stand_in_any_order() {
        let room = names().room(STAMP.room);
        let text = format!(r#"{{ "body": {}, "later":{{"a":[1]}},"room":"{room}" , "type":"message"}}"#, body());
        assert!(dialect().usual_delivery(text.as_bytes()).is_none());
        assert_eq!(stamp(&text), Some(STAMP));
        let text = message().replace("}}", r#"},"later":1}"#);
        assert_eq!(stamp(&text), Some(STAMP), "{text}");
    }

    #[test]
    fn a_changed_byte_of_the_body_is_not_the_same_delivery() {
        let text = message();
        for at in text.len() - 1 - 128..text.len() - 1 {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            // A changed digit of the sequence or the time is another stamp: the checker's affair.
            assert_ne!(stamp(&String::from_utf8_lossy(&bytes)), Some(STAMP), "byte {at}");
        }
    }

    #[test]
    fn a_message_in_another_room_than_it_was_sent_to_does_not_agree() {
        assert_eq!(stamp(&message().replacen("-00000009", "-00000008", 1)), None);
    }

    #[test]
    fn answers_are_told_apart() {
        let mut dialect = dialect();
        let mut read = |text: &'static str| dialect.read(text.as_bytes());
        assert!(matches!(read(r#"{"type":"sent","id":1000000007,"room":"r","at":"1.2-0"}"#), Event::Sent { id: Some(1_000_000_007) }));
        assert!(matches!(read(r#"{"id":5,"type":"sent"}"#), Event::Sent { id: Some(5) }));
        assert!(matches!(read(r#"{"type":"ping"}"#), Event::Ping));
        let joined = read(r#"{"type":"joined","room":"r614e-00000004","at":"9f.3-0","replay":3,"recovered":true}"#);
        assert!(matches!(joined, Event::Joined { room: Some(4), at: Some(b"9f.3-0"), replay: 3, recovered: Some(true) }), "{joined:?}");
        assert!(matches!(read(r#"{"type":"history","id":4,"messages":[{"a":1},{}],"more":false}"#), Event::History { id: 4, messages: 2 }));
        assert!(matches!(read(r#"{"type":"gap","room":"r","since":"1.0-0"}"#), Event::Gap));
        assert!(matches!(read(r#"{"type":"error","id":3,"code":503,"reason":"overloaded"}"#), Event::Refused { id: Some(3), .. }));
        assert!(matches!(read(r#"{"type":"bye","code":503,"reason":"draining"}"#), Event::Bye { .. }));
        assert!(matches!(read(r#"{"type":"later"}"#), Event::Other));
        assert!(matches!(read("{"), Event::Garbled(_)));
        assert!(matches!(read(r#"{"type":"message","room":"lobby","from":"a","ts":17,"body":{"text":"hi"}}"#), Event::Other));
        let Event::Welcome(limits) = read(r#"{"type":"welcome","limits":{"body_bytes":61440,"requests_per_s":50,"more":true}}"#) else {
            panic!("a welcome")
        };
        assert_eq!((limits.body_bytes, limits.requests_per_s, limits.rooms), (Some(61_440), Some(50), None));
    }

    /// Lengths of the frames in `pieces`, read as garbled ones.
    fn frames_of(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let (mut dialect, mut tail, mut frames) = (dialect(), Tail::default(), Vec::new());
        for piece in pieces {
            let mut note = |event: Event<'_>| match event {
                Event::Garbled(bytes) => frames.push(bytes.to_vec()),
                other => panic!("{other:?}"),
            };
            dialect.decode(&mut tail, piece, &mut note).unwrap();
        }
        assert!(tail.is_empty());
        frames
    }

    #[test]
    fn whole_input_and_byte_by_byte_agree() {
        let mut random = Random::new(11);
        for _ in 0..200 {
            let expected: Vec<Vec<u8>> =
                (0..random.below(20)).map(|n| vec![b'a' + (n % 26) as u8; 1 + random.below(700) as usize]).collect();
            let mut stream = Vec::new();
            expected.iter().for_each(|text| frame(&mut stream, std::str::from_utf8(text).unwrap()));
            assert_eq!(frames_of(&[&stream]), expected);
            assert_eq!(frames_of(&stream.chunks(1).collect::<Vec<_>>()), expected);
            let mut pieces = Vec::new();
            let mut rest = stream.as_slice();
            while !rest.is_empty() {
                let (piece, more) = rest.split_at((1 + random.below(900) as usize).min(rest.len()));
                pieces.push(piece);
                rest = more;
            }
            assert_eq!(frames_of(&pieces), expected);
        }
    }

    #[test]
    fn a_length_out_of_bounds_ends_the_stream() {
        let feed = |tail: &mut Tail, bytes: &[u8]| dialect().decode(tail, bytes, &mut |_| {});
        for length in [0u32, 65_537, u32::MAX] {
            let bytes = length.to_be_bytes();
            assert_eq!(feed(&mut Tail::default(), &bytes), Err(Broken(format!("a frame of length {length}"))));
            let mut tail = Tail::default();
            feed(&mut tail, &bytes[..2]).unwrap();
            assert!(feed(&mut tail, &bytes[2..]).is_err());
        }
    }
}
