//! The few words of the protocol that a server without chat needs for `ringroom load` to drive it: shared by the floor and the baselines.
//!
//! Requests are told apart by their first bytes and fields found at the places where that generator puts them; answers are canned, and a
//! `message` has the same shape and length as the server's, the sender's name and the position constant. So all sides of a comparison read and write
//! the same bytes per frame, and none of them parses JSON.
#![allow(dead_code, reason = "each bench is a crate of its own and uses its part")]

pub(crate) const PONG: &[u8] = br#"{"type":"pong","id":1,"ts":1700000000000}"#;
pub(crate) const WELCOME: &[u8] = br#"{"type":"welcome","version":1,"user":"u0000-00000000","session":"0000000000000000","node":"floor","heartbeat_ms":25000,"inbox":{"at":"01234567.0-0","replay":0},"limits":{"frame_bytes":65536,"body_bytes":61440,"rooms":128,"replay":0,"requests_per_s":1000000,"requests_burst":1000000}}"#;

const SEND: &[u8] = br#"{"type":"send","id":"#;
const JOIN: &[u8] = br#"{"type":"join","id":"#;
const HELLO: &[u8] = br#"{"type":"hello","version":1,"user":""#;
const PING: &[u8] = br#"{"type":"ping""#;
const ROOM: &[u8] = br#","room":""#;
const BODY: &[u8] = br#"","body":"#;
const AT: &[u8] = br#"","at":"01234567.1700000000000-0""#;
const FROM: &[u8] = br#","from":"u0000-00000000","ts":1700000000000,"body":"#;

/// What a client says, as far as it is understood here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request<'a> {
    Hello { user: &'a [u8] },
    Join { id: &'a [u8], room: &'a [u8] },
    Send { id: &'a [u8], room: &'a [u8], body: &'a [u8] },
    Ping,
}

impl<'a> Request<'a> {
    /// `None`: not a word of the generator, so the connection is of no use.
    pub(crate) fn read(json: &'a [u8]) -> Option<Self> {
        if let Some(rest) = json.strip_prefix(SEND) {
            let (id, rest) = id_and_rest(rest)?;
            let (room, rest) = name_and_rest(rest)?;
            let body = rest.strip_prefix(BODY)?.strip_suffix(b"}")?;
            return Some(Self::Send { id, room, body });
        }
        if let Some(rest) = json.strip_prefix(JOIN) {
            let (id, rest) = id_and_rest(rest)?;
            let (room, _) = name_and_rest(rest)?;
            return Some(Self::Join { id, room });
        }
        if let Some(rest) = json.strip_prefix(HELLO) {
            let (user, _) = name_and_rest(rest)?;
            return Some(Self::Hello { user });
        }
        json.starts_with(PING).then_some(Self::Ping)
    }
}

/// `7,"room":"name...` as `7` and `name...`.
fn id_and_rest(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|byte| !byte.is_ascii_digit())?;
    Some((&text[..end], text[end..].strip_prefix(ROOM)?))
}

/// `name"...` as `name` and `"...`.
fn name_and_rest(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|byte| *byte == b'"')?;
    Some(text.split_at(end))
}

/// The room in which a user's direct messages arrive.
pub(crate) fn inbox(user: &[u8]) -> Vec<u8> {
    [b"@", user].concat()
}

/// The parts of each answer, to be put behind each other.
pub(crate) fn joined<'a>(id: &'a [u8], room: &'a [u8]) -> [&'a [u8]; 6] {
    [br#"{"type":"joined","id":"#, id, ROOM, room, AT, br#","members":1,"replay":0}"#]
}

pub(crate) fn sent<'a>(id: &'a [u8], room: &'a [u8]) -> [&'a [u8]; 6] {
    [br#"{"type":"sent","id":"#, id, ROOM, room, AT, b"}"]
}

pub(crate) fn message<'a>(room: &'a [u8], body: &'a [u8]) -> [&'a [u8]; 7] {
    [br#"{"type":"message""#, ROOM, room, AT, FROM, body, b"}"]
}

/// The frame of an answer, length first, appended to `out`.
pub(crate) fn pack(parts: &[&[u8]], out: &mut Vec<u8>) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    out.extend_from_slice(&u32::try_from(length).expect("a small frame").to_be_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
}
