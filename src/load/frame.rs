//! What the generator writes: names, the objects of the login, and the `send` frame that is built once and patched in place.
//!
//! A body is a JSON object of exactly `--size` bytes: `{"h":"<56 digits>","x":"xxx..."}`. The digits are seven groups at fixed places:
//! run 8, room 8, lane 2 and sender 6, sequence 8, previous sequence 8, intended time 16 (ns since the start of the run). The sequence counts
//! the messages of a lane in a room; "previous" is the sequence of this sender's last one in it plus one (0: none), which is what lets a
//! receiver check every sender's order without a table per sender. No JSON is built while messages are due.

use crate::limits::TCP_HEADER_BYTES;

use super::plan::Mode;

/// Digits of the header inside the body.
pub const STAMP_DIGITS: usize = 56;
/// `{"h":"` before the digits.
pub const BODY_OPEN: &[u8] = br#"{"h":""#;
/// The smallest body: header and closing.
pub const BODY_BYTES_MIN: usize = BODY_OPEN.len() + STAMP_DIGITS + 2;
/// Six digits of the sender.
pub const USERS_MAX: u32 = 1_000_000;
/// Request numbers of sends start here, so that all have ten digits.
pub const SEND_ID_FIRST: u64 = 1_000_000_000;

const ID_DIGITS: usize = 10;
/// Digits of the number inside a user's or room's name.
const NUMBER_DIGITS: usize = 8;

/// Who and when: what the body of a message says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub room: u32,
    pub lane: u16,
    pub sender: u32,
    pub sequence: u32,
    /// The sender's previous sequence in this room and lane plus one; 0: none.
    pub previous: u32,
    /// Nanoseconds since the start of the run.
    pub intended_ns: u64,
}

/// Which run the names and bodies belong to, so that runs against one server don't meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunId(u32);

impl RunId {
    pub fn new(random: u32) -> Self {
        Self(random % 100_000_000)
    }

    pub fn digits(self) -> [u8; 8] {
        eight_digits(self.0)
    }

    pub fn user(self, connection: u32) -> String {
        format!("u{}-{connection:08}", self.tag())
    }

    /// A room of the plan: with direct messages a user's inbox.
    pub fn room(self, mode: Mode, room: u32) -> String {
        match mode {
            Mode::Direct => format!("@{}", self.user(room)),
            Mode::Rooms | Mode::Idle => format!("r{}-{room:08}", self.tag()),
        }
    }

    fn tag(self) -> String {
        format!("{:04x}", self.0 & 0xffff)
    }
}

/// `text` as a frame: length and bytes.
pub fn framed(text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len()).expect("frames of the generator are at most 64 KiB");
    [&length.to_be_bytes()[..], text.as_bytes()].concat()
}

/// `hello`, and a `join` per room behind it: the first packet of a connection.
pub fn login(user: &str, rooms: &[String]) -> Vec<u8> {
    let mut packet = framed(&format!(r#"{{"type":"hello","version":1,"user":"{user}"}}"#));
    for (id, room) in rooms.iter().enumerate() {
        packet.extend(framed(&format!(r#"{{"type":"join","id":{id},"room":"{room}"}}"#)));
    }
    packet
}

/// A `send` frame whose room, request number and stamp are patched in place.
#[derive(Clone, Debug)]
pub struct Template {
    bytes: Vec<u8>,
    id: usize,
    room: usize,
    stamp: usize,
}

impl Template {
    pub fn new(run: RunId, mode: Mode, body_bytes: usize) -> Self {
        let head = format!(r#"{{"type":"send","id":{SEND_ID_FIRST},"room":""#);
        let name = run.room(mode, 0);
        let text = format!(r#"{head}{name}","body":{}}}"#, body(run, body_bytes));
        let bytes = framed(&text);
        let room_end = TCP_HEADER_BYTES + head.len() + name.len();
        Self {
            id: TCP_HEADER_BYTES + r#"{"type":"send","id":"#.len(),
            room: room_end - NUMBER_DIGITS,
            stamp: room_end + r#"","body":"#.len() + BODY_OPEN.len() + NUMBER_DIGITS,
            bytes,
        }
    }

    /// The frame of one message, header included, until the next call.
    pub fn fill(&mut self, id: u64, stamp: &Stamp) -> &[u8] {
        let room = eight_digits(stamp.room);
        self.bytes[self.id..self.id + ID_DIGITS].copy_from_slice(&ten_digits(id));
        self.bytes[self.room..self.room + NUMBER_DIGITS].copy_from_slice(&room);
        let high = u32::try_from(stamp.intended_ns / 100_000_000 % 100_000_000).expect("eight digits");
        let low = u32::try_from(stamp.intended_ns % 100_000_000).expect("eight digits");
        let who = u32::from(stamp.lane) * USERS_MAX + stamp.sender;
        let groups = [room, eight_digits(who), eight_digits(stamp.sequence), eight_digits(stamp.previous)];
        let mut at = self.stamp;
        for group in groups.into_iter().chain([eight_digits(high), eight_digits(low)]) {
            self.bytes[at..at + 8].copy_from_slice(&group);
            at += 8;
        }
        &self.bytes
    }
}

/// What follows the digits up to the end of the body: closing quote, padding, brace.
pub fn body_close(body_bytes: usize) -> Vec<u8> {
    let padding = body_bytes - BODY_BYTES_MIN;
    let field = r#","x":"""#.len();
    if padding < field {
        // Too little room for a field: white space is carried byte for byte too.
        return format!("\"{}}}", " ".repeat(padding)).into_bytes();
    }
    format!(r#"","x":"{}"}}"#, "x".repeat(padding - field)).into_bytes()
}

fn body(run: RunId, body_bytes: usize) -> String {
    let run = String::from_utf8(run.digits().to_vec()).expect("digits are ASCII");
    let open = String::from_utf8_lossy(BODY_OPEN);
    let rest = "0".repeat(STAMP_DIGITS - run.len());
    format!("{open}{run}{rest}{}", String::from_utf8_lossy(&body_close(body_bytes)))
}

fn eight_digits(number: u32) -> [u8; 8] {
    let mut rest = number;
    let mut digits = [0; 8];
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).expect("one digit");
        rest /= 10;
    }
    digits
}

fn ten_digits(number: u64) -> [u8; ID_DIGITS] {
    let mut rest = number;
    let mut digits = [0; ID_DIGITS];
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).expect("one digit");
        rest /= 10;
    }
    digits
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::Value;

    use super::*;

    const STAMP: Stamp = Stamp { room: 42, lane: 3, sender: 123_456, sequence: 7, previous: 5, intended_ns: 12_345_678_901_234 };

    #[test]
    fn bodies_have_exactly_the_size_asked_for_and_are_json() {
        for mode in [Mode::Rooms, Mode::Direct] {
            for size in (BODY_BYTES_MIN..200).chain([61_440]) {
                let mut template = Template::new(RunId::new(77), mode, size);
                let frame = template.fill(SEND_ID_FIRST + 12, &STAMP).to_vec();
                let (header, text) = frame.split_at(4);
                assert_eq!(u32::from_be_bytes(header.try_into().unwrap()) as usize, text.len());
                let value: Value = serde_json::from_slice(text).unwrap();
                assert_eq!(value["id"], SEND_ID_FIRST + 12);
                assert_eq!(value["room"], RunId::new(77).room(mode, 42));
                let digits = value["body"]["h"].as_str().unwrap();
                assert_eq!(digits, "00000077000000420312345600000007000000050012345678901234");
                let body_at = text.windows(8).position(|w| w == br#""body":{"#).unwrap() + 7;
                assert_eq!(text.len() - 1 - body_at, size);
            }
        }
    }

    #[test]
    fn names_are_names() {
        use crate::ids::{RoomName, UserName};
        let run = RunId::new(u32::MAX);
        assert!(UserName::parse(&run.user(999_999)).is_ok());
        assert!(RoomName::parse(&run.room(Mode::Rooms, 999_999)).is_ok());
        assert!(RoomName::parse(&run.room(Mode::Direct, 999_999)).is_ok());
    }
}
