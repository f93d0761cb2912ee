//! What the generator reads: frames cut out of the stream, and the one question asked of each, "which of our messages is this?".
//!
//! Written apart from the server's protocol module, so that a mistake there is not made twice. Bytes come straight from a receive buffer;
//! only the incomplete tail of one is copied. A delivery in the usual shape (type, room first, body last) is recognised by comparing bytes
//! at known places and never goes through a JSON parser; everything else takes the slow path, which accepts any order of fields. Bytes that
//! are neither are reported, never skipped: a body that came back changed is not a delivery.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::limits::{FRAME_BYTES_MAX, TCP_HEADER_BYTES};

use super::frame::{self, BODY_OPEN, RunId, STAMP_DIGITS, Stamp};
use super::plan::{Mode, ServerLimits};

/// The stream can't be cut any further: its next length is 0 or over the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadLength(pub u32);

/// The incomplete frame at the end of what a connection has received.
#[derive(Debug, Default)]
pub struct Tail {
    bytes: Vec<u8>,
}

impl Tail {
    /// Hands every frame (without its header) that `bytes` completes to `on_frame`, in order.
    pub fn feed(&mut self, bytes: &[u8], on_frame: &mut impl FnMut(&[u8])) -> Result<(), BadLength> {
        let rest = if self.bytes.is_empty() { bytes } else { self.complete(bytes, on_frame)? };
        let mut rest = rest;
        while let Some(header) = rest.first_chunk() {
            let length = frame_length(*header)?;
            let Some(frame) = rest.get(TCP_HEADER_BYTES..TCP_HEADER_BYTES + length) else { break };
            on_frame(frame);
            rest = &rest[TCP_HEADER_BYTES + length..];
        }
        self.bytes.extend_from_slice(rest);
        Ok(())
    }

    /// Adds to the tail just what its frame lacks; the bytes behind it are given back.
    fn complete<'a>(&mut self, bytes: &'a [u8], on_frame: &mut impl FnMut(&[u8])) -> Result<&'a [u8], BadLength> {
        let lacking = TCP_HEADER_BYTES.saturating_sub(self.bytes.len());
        let (header, rest) = bytes.split_at(lacking.min(bytes.len()));
        self.bytes.extend_from_slice(header);
        let Some(header) = self.bytes.first_chunk() else { return Ok(rest) };
        let whole = TCP_HEADER_BYTES + frame_length(*header)?;
        let (end, rest) = rest.split_at((whole - self.bytes.len()).min(rest.len()));
        self.bytes.extend_from_slice(end);
        if self.bytes.len() == whole {
            on_frame(&self.bytes[TCP_HEADER_BYTES..]);
            self.bytes.clear();
        }
        Ok(rest)
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

fn frame_length(header: [u8; TCP_HEADER_BYTES]) -> Result<usize, BadLength> {
    let length = u32::from_be_bytes(header);
    match usize::try_from(length) {
        Ok(bytes) if bytes > 0 && bytes <= FRAME_BYTES_MAX => Ok(bytes),
        _ => Err(BadLength(length)),
    }
}

/// What a frame means to the generator.
#[derive(Debug)]
pub enum Object<'a> {
    /// One of this run's messages.
    Delivery(Stamp),
    /// The answer to a `send`.
    Sent {
        id: u64,
    },
    Welcome(Box<ServerLimits>),
    Joined,
    Ping,
    /// A request was refused: with its number, if it had one.
    Refused {
        id: Option<u64>,
        reason: String,
    },
    Bye {
        reason: String,
    },
    /// The server says that messages may be missing.
    Gap,
    /// A message whose body is not as it was sent, or no JSON object at all.
    Garbled(&'a [u8]),
    /// Of no interest here: another run's message, presence, a type of a later version.
    Other,
}

/// Reads the objects of one run.
#[derive(Debug)]
pub struct Reader {
    run: RunId,
    mode: Mode,
    message_open: Vec<u8>,
    room_name_bytes: usize,
    body_open: Vec<u8>,
    body_close: Vec<u8>,
    body_bytes: usize,
}

const SENT_OPEN: &[u8] = br#"{"type":"sent","id":"#;

impl Reader {
    pub fn new(run: RunId, mode: Mode, body_bytes: usize) -> Self {
        let body_bytes = body_bytes.max(frame::BODY_BYTES_MIN);
        Self {
            run,
            mode,
            message_open: br#"{"type":"message","room":""#.to_vec(),
            room_name_bytes: run.room(mode, 0).len(),
            body_open: [BODY_OPEN, &run.digits()].concat(),
            body_close: frame::body_close(body_bytes),
            body_bytes,
        }
    }

    pub fn read<'a>(&self, frame: &'a [u8]) -> Object<'a> {
        if let Some(stamp) = self.usual_delivery(frame) {
            return Object::Delivery(stamp);
        }
        if let Some(rest) = frame.strip_prefix(SENT_OPEN)
            && let Some(id) = leading_number(rest)
        {
            return Object::Sent { id };
        }
        self.read_any(frame)
    }

    /// A `message` with `room` at its start and the body at its end.
    fn usual_delivery(&self, frame: &[u8]) -> Option<Stamp> {
        let named = frame.strip_prefix(self.message_open.as_slice())?;
        let room = named.get(self.room_name_bytes - 8..self.room_name_bytes)?;
        let body_at = frame.len().checked_sub(self.body_bytes + 1)?;
        let body = &frame[body_at..frame.len() - 1];
        let digits = self.stamp_digits(body)?;
        // The room the server says and the room the message was sent to.
        if digits[8..16] != *room {
            return None;
        }
        read_stamp(digits)
    }

    /// The digits of a body that is ours, whole and unchanged.
    fn stamp_digits<'a>(&self, body: &'a [u8]) -> Option<&'a [u8; STAMP_DIGITS]> {
        if body.len() != self.body_bytes || !body.starts_with(&self.body_open) || !body.ends_with(&self.body_close) {
            return None;
        }
        body[BODY_OPEN.len()..].first_chunk()
    }

    #[cold]
    fn read_any<'a>(&self, frame: &'a [u8]) -> Object<'a> {
        let Ok(any) = serde_json::from_slice::<Any<'_>>(frame) else { return Object::Garbled(frame) };
        match any.kind.as_ref() {
            "message" => self.unusual_delivery(frame, &any),
            "sent" => any.id.map_or(Object::Other, |id| Object::Sent { id }),
            "welcome" => Object::Welcome(Box::new(any.limits.unwrap_or_default())),
            "joined" => Object::Joined,
            "ping" => Object::Ping,
            "gap" => Object::Gap,
            "error" => Object::Refused { id: any.id, reason: any.why() },
            "bye" => Object::Bye { reason: any.why() },
            _ => Object::Other,
        }
    }

    fn unusual_delivery<'a>(&self, frame: &'a [u8], any: &Any<'_>) -> Object<'a> {
        let (Some(room), Some(body)) = (any.room.as_deref(), any.body) else { return Object::Garbled(frame) };
        // Inboxes and rooms carry the run in their names: others are not ours to judge.
        let ours = room.len() == self.room_name_bytes && self.run.room(self.mode, 0)[..room.len() - 8] == room[..room.len() - 8];
        if !ours {
            return Object::Other;
        }
        let stamp = self.stamp_digits(body.get().as_bytes()).and_then(read_stamp);
        match stamp {
            Some(stamp) if self.run.room(self.mode, stamp.room) == room => Object::Delivery(stamp),
            _ => Object::Garbled(frame),
        }
    }
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

fn leading_number(text: &[u8]) -> Option<u64> {
    let end = text.iter().position(|b| !b.is_ascii_digit())?;
    if end == 0 || end > 16 {
        return None;
    }
    Some(text[..end].iter().fold(0, |n, digit| n * 10 + u64::from(digit - b'0')))
}

fn read_stamp(digits: &[u8; STAMP_DIGITS]) -> Option<Stamp> {
    let group = |n: usize| read_eight(digits[n * 8..].first_chunk()?);
    let who = group(2)?;
    Some(Stamp {
        room: group(1)?,
        lane: u16::try_from(who / frame::USERS_MAX).ok()?,
        sender: who % frame::USERS_MAX,
        sequence: group(3)?,
        previous: group(4)?,
        intended_ns: u64::from(group(5)?) * 100_000_000 + u64::from(group(6)?),
    })
}

/// Eight digits at once, after Lemire's "Quickly parsing eight digits" (2018).
fn read_eight(text: &[u8; 8]) -> Option<u32> {
    let word = u64::from_le_bytes(*text);
    let high_nibbles = word & 0xf0f0_f0f0_f0f0_f0f0;
    let carried = word.wrapping_add(0x0606_0606_0606_0606) & 0xf0f0_f0f0_f0f0_f0f0;
    if high_nibbles != 0x3030_3030_3030_3030 || carried != 0x3030_3030_3030_3030 {
        return None;
    }
    let digits = word - 0x3030_3030_3030_3030;
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8);
    let low = (pairs & 0x0000_00ff_0000_00ff).wrapping_mul(0x000f_4240_0000_0064);
    let high = ((pairs >> 16) & 0x0000_00ff_0000_00ff).wrapping_mul(0x0000_2710_0000_0001);
    u32::try_from(low.wrapping_add(high) >> 32).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::frame::Template;
    use super::super::schedule::Random;
    use super::*;

    const RUN: u32 = 12_345_678;
    const STAMP: Stamp = Stamp { room: 9, lane: 1, sender: 77, sequence: 1_234, previous: 1_200, intended_ns: 9_876_543_210 };

    fn reader() -> Reader {
        Reader::new(RunId::new(RUN), Mode::Rooms, 128)
    }

    fn body() -> String {
        let mut template = Template::new(RunId::new(RUN), Mode::Rooms, 128);
        let frame = template.fill(frame::SEND_ID_FIRST, &STAMP);
        String::from_utf8(frame[frame.len() - 129..frame.len() - 1].to_vec()).unwrap()
    }

    fn message() -> String {
        let room = RunId::new(RUN).room(Mode::Rooms, STAMP.room);
        format!(r#"{{"type":"message","room":"{room}","at":"9f2c.17-0","from":"a","ts":17,"body":{}}}"#, body())
    }

    #[test]
    fn a_delivery_gives_back_its_stamp() {
        let text = message();
        assert_eq!(reader().usual_delivery(text.as_bytes()), Some(STAMP));
        assert!(matches!(reader().read(text.as_bytes()), Object::Delivery(STAMP)));
    }

    #[test]
    fn fields_may_stand_in_any_order() {
        let room = RunId::new(RUN).room(Mode::Rooms, STAMP.room);
        let text = format!(r#"{{ "body": {}, "later":{{"a":[1]}},"room":"{room}" , "type":"message"}}"#, body());
        assert_eq!(reader().usual_delivery(text.as_bytes()), None);
        assert!(matches!(reader().read(text.as_bytes()), Object::Delivery(STAMP)));
    }

    #[test]
    fn a_changed_byte_of_the_body_is_not_a_delivery() {
        let text = message();
        let start = text.len() - 1 - 128;
        for at in start..text.len() - 1 {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            // A changed digit of the sequence or the time is another stamp: the checker's affair.
            match reader().read(&bytes) {
                Object::Delivery(stamp) => assert_ne!(stamp, STAMP, "byte {at}"),
                other => assert!(matches!(other, Object::Garbled(_)), "byte {at}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_message_in_another_room_than_it_was_sent_to_is_garbled() {
        let wrong = message().replacen("-00000009", "-00000008", 1);
        assert!(matches!(reader().read(wrong.as_bytes()), Object::Garbled(_)));
    }

    #[test]
    fn answers_are_told_apart() {
        let read = |text: &'static str| reader().read(text.as_bytes());
        assert!(matches!(read(r#"{"type":"sent","id":1000000007,"room":"r","at":"1.2-0"}"#), Object::Sent { id: 1_000_000_007 }));
        assert!(matches!(read(r#"{"id":5,"type":"sent"}"#), Object::Sent { id: 5 }));
        assert!(matches!(read(r#"{"type":"ping"}"#), Object::Ping));
        assert!(matches!(read(r#"{"type":"joined","room":"r"}"#), Object::Joined));
        assert!(matches!(read(r#"{"type":"gap","room":"r","since":"1.0-0"}"#), Object::Gap));
        assert!(matches!(read(r#"{"type":"error","id":3,"code":503,"reason":"overloaded"}"#), Object::Refused { id: Some(3), .. }));
        assert!(matches!(read(r#"{"type":"bye","code":503,"reason":"draining"}"#), Object::Bye { .. }));
        assert!(matches!(read(r#"{"type":"later"}"#), Object::Other));
        assert!(matches!(read("{"), Object::Garbled(_)));
        let welcome = r#"{"type":"welcome","limits":{"body_bytes":61440,"requests_per_s":50,"more":true}}"#;
        let Object::Welcome(limits) = read(welcome) else { panic!("a welcome") };
        assert_eq!((limits.body_bytes, limits.requests_per_s, limits.rooms), (Some(61_440), Some(50), None));
    }

    #[test]
    fn another_runs_message_is_left_alone() {
        let other = r#"{"type":"message","room":"lobby","from":"a","ts":17,"body":{"text":"hi"}}"#;
        assert!(matches!(reader().read(other.as_bytes()), Object::Other));
    }

    fn frames_of(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let (mut tail, mut frames) = (Tail::default(), Vec::new());
        for piece in pieces {
            tail.feed(piece, &mut |frame| frames.push(frame.to_vec())).unwrap();
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
            let stream: Vec<u8> = expected.iter().flat_map(|f| frame::framed(std::str::from_utf8(f).unwrap())).collect();
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
        for length in [0u32, 65_537, u32::MAX] {
            let bytes = length.to_be_bytes();
            assert_eq!(Tail::default().feed(&bytes, &mut |_| {}), Err(BadLength(length)));
            let mut tail = Tail::default();
            tail.feed(&bytes[..2], &mut |_| {}).unwrap();
            assert_eq!(tail.feed(&bytes[2..], &mut |_| {}), Err(BadLength(length)));
        }
    }

    #[test]
    fn eight_digits_are_read_and_nothing_else() {
        assert_eq!(read_eight(b"00000000"), Some(0));
        assert_eq!(read_eight(b"12345678"), Some(12_345_678));
        assert_eq!(read_eight(b"99999999"), Some(99_999_999));
        for at in 0..8 {
            for byte in (0..=255u8).filter(|b| !b.is_ascii_digit()) {
                let mut text = *b"12345678";
                text[at] = byte;
                assert_eq!(read_eight(&text), None, "{byte} at {at}");
            }
        }
    }
}
