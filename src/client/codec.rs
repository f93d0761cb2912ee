//! Bytes <-> objects, the client's side: a frame is four bytes of big-endian length and one JSON object.
//!
//! Owns the bytes of a frame that has come in part. Never holds more than one read beyond a frame, never reserves by an announced length. What comes
//! from the server is checked as strictly as the server checks us: a length out of bounds or bytes that are no JSON are a [`Fault`], after which there
//! is no next frame. Unknown fields and unknown types are let through, so that a newer server can say more.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::limits::{FRAME_BYTES_MAX, TCP_HEADER_BYTES};

use super::event::Message;

/// What the server sent is not the protocol; the connection is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An announced length of nothing, or over the limit.
    Length,
    /// No JSON object with the fields that its type has.
    Object,
    /// More bytes handed in than events were taken out for.
    Backlog,
}

/// Bytes that may wait undecoded: one read on top of the largest frame, with a margin for callers that read in larger pieces.
const WAITING_BYTES_MAX: usize = 1024 * 1024;

/// The bytes that have come and are not decoded yet.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    bytes: Vec<u8>,
    start: usize,
}

impl Inbound {
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        if self.bytes.len() - self.start + bytes.len() > WAITING_BYTES_MAX {
            return Err(Fault::Backlog);
        }
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// The next whole object's JSON.
    pub(super) fn next(&mut self) -> Result<Option<&[u8]>, Fault> {
        let rest = &self.bytes[self.start..];
        let Some((header, rest)) = rest.split_first_chunk::<TCP_HEADER_BYTES>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes(*header)).map_err(|_| Fault::Length)?;
        if length == 0 || length > FRAME_BYTES_MAX {
            return Err(Fault::Length);
        }
        if rest.len() < length {
            return Ok(None);
        }
        let begin = self.start + TCP_HEADER_BYTES;
        self.start = begin + length;
        Ok(Some(&self.bytes[begin..begin + length]))
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.start = 0;
    }
}

/// An object of ours (`protocol.md` 2.1).
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Outgoing<'a> {
    Hello {
        version: u8,
        #[serde(skip_serializing_if = "Option::is_none")]
        user: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        token: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        device: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        inbox: Option<&'a str>,
    },
    Join {
        id: u64,
        room: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        since: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        history: Option<u32>,
        presence: bool,
        echo: bool,
    },
    Leave {
        id: u64,
        room: &'a str,
    },
    Send {
        id: u64,
        room: &'a str,
        body: &'a RawValue,
        #[serde(skip_serializing_if = "Option::is_none")]
        key: Option<&'a str>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        ephemeral: bool,
    },
    History {
        id: u64,
        room: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        before: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        after: Option<&'a str>,
        limit: u32,
    },
    Presence {
        id: u64,
        room: &'a str,
    },
    Ping,
    Pong,
    Bye,
}

/// Header and JSON of one object. `None`: over the frame limit.
pub(super) fn frame(object: &Outgoing<'_>) -> Option<Vec<u8>> {
    let mut bytes = vec![0; TCP_HEADER_BYTES];
    serde_json::to_writer(&mut bytes, object).expect("strings, numbers and checked JSON always serialize");
    let length = bytes.len() - TCP_HEADER_BYTES;
    let header = u32::try_from(length).ok().filter(|_| length <= FRAME_BYTES_MAX)?;
    bytes[..TCP_HEADER_BYTES].copy_from_slice(&header.to_be_bytes());
    Some(bytes)
}

/// An object of the server (`protocol.md` 2.2).
#[derive(Debug)]
pub(super) enum Incoming {
    Welcome(Welcome),
    Joined(JoinedAnswer),
    Left(Answer),
    Sent(SentAnswer),
    Message(Message),
    History(HistoryAnswer),
    Presence(PresenceAnswer),
    Member(MemberNews),
    Gap(GapNews),
    Ping,
    Pong,
    Error(Trouble),
    Bye(Trouble),
    Unknown,
}

#[derive(Debug, Deserialize)]
pub(super) struct Welcome {
    pub(super) user: String,
    pub(super) heartbeat_ms: u64,
    pub(super) inbox: InboxState,
    pub(super) expires_at: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct InboxState {
    pub(super) at: String,
    pub(super) replay: u32,
    pub(super) recovered: Option<bool>,
}

#[derive(Debug, Deserialize)]
pub(super) struct JoinedAnswer {
    pub(super) id: Option<u64>,
    pub(super) room: String,
    pub(super) at: String,
    pub(super) members: u32,
    pub(super) replay: u32,
    pub(super) recovered: Option<bool>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Answer {
    pub(super) id: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct SentAnswer {
    pub(super) id: Option<u64>,
    pub(super) at: Option<String>,
    #[serde(default)]
    pub(super) duplicate: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct HistoryAnswer {
    pub(super) id: Option<u64>,
    pub(super) room: String,
    pub(super) messages: Vec<Past>,
    pub(super) more: bool,
}

/// A message inside a `history` answer, which has no room of its own.
#[derive(Debug, Deserialize)]
pub(super) struct Past {
    at: Option<String>,
    from: String,
    ts: u64,
    body: Box<RawValue>,
}

impl Past {
    pub(super) fn into_message(self, room: &str) -> Message {
        Message { room: room.to_owned(), at: self.at, from: self.from, ts: self.ts, body: self.body }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct PresenceAnswer {
    pub(super) id: Option<u64>,
    pub(super) room: String,
    pub(super) members: u32,
    pub(super) users: Vec<String>,
    pub(super) truncated: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct MemberNews {
    pub(super) room: String,
    pub(super) event: String,
    pub(super) user: Option<String>,
    pub(super) members: Option<u32>,
}

#[derive(Debug, Deserialize)]
pub(super) struct GapNews {
    pub(super) room: String,
    pub(super) since: String,
}

/// What `error` and `bye` share.
#[derive(Debug, Deserialize)]
pub(super) struct Trouble {
    pub(super) id: Option<u64>,
    pub(super) code: u16,
    pub(super) reason: String,
    pub(super) message: Option<String>,
    pub(super) retry_after_ms: Option<u64>,
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
}

/// Decodes one object.
pub(super) fn decode(json: &[u8]) -> Result<Incoming, Fault> {
    fn read<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, Fault> {
        serde_json::from_slice(json).map_err(|_| Fault::Object)
    }
    Ok(match read::<Head<'_>>(json)?.kind.as_ref() {
        "message" => Incoming::Message(read(json)?),
        "sent" => Incoming::Sent(read(json)?),
        "joined" => Incoming::Joined(read(json)?),
        "left" => Incoming::Left(read(json)?),
        "welcome" => Incoming::Welcome(read(json)?),
        "history" => Incoming::History(read(json)?),
        "presence" => Incoming::Presence(read(json)?),
        "member" => Incoming::Member(read(json)?),
        "gap" => Incoming::Gap(read(json)?),
        "ping" => Incoming::Ping,
        "pong" => Incoming::Pong,
        "error" => Incoming::Error(read(json)?),
        "bye" => Incoming::Bye(read(json)?),
        _ => Incoming::Unknown,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn framed(json: &str) -> Vec<u8> {
        let mut bytes = u32::try_from(json.len()).unwrap().to_be_bytes().to_vec();
        bytes.extend_from_slice(json.as_bytes());
        bytes
    }

    #[test]
    fn frames_come_whole_however_they_are_cut() {
        let stream = [framed("{\"a\":1}"), framed("[2]"), framed("\"three\"")].concat();
        for cut in 1..stream.len() {
            let (mut inbound, mut seen) = (Inbound::default(), Vec::new());
            for piece in stream.chunks(cut) {
                inbound.push(piece).unwrap();
                while let Some(json) = inbound.next().unwrap() {
                    seen.push(String::from_utf8(json.to_vec()).unwrap());
                }
            }
            assert_eq!(seen, ["{\"a\":1}", "[2]", "\"three\""], "cut at {cut}");
        }
    }

    #[test]
    fn a_length_out_of_bounds_is_a_fault_before_its_bytes_come() {
        for length in [0, u32::try_from(FRAME_BYTES_MAX).unwrap() + 1, u32::MAX] {
            let mut inbound = Inbound::default();
            inbound.push(&length.to_be_bytes()).unwrap();
            assert_eq!(inbound.next(), Err(Fault::Length));
        }
    }

    #[test]
    fn bytes_that_nobody_takes_are_bounded() {
        let mut inbound = Inbound::default();
        let piece = vec![0; 64 * 1024];
        let taken = std::iter::repeat_with(|| inbound.push(&piece)).take_while(Result::is_ok).count();
        assert_eq!(taken, 16);
    }

    #[test]
    fn a_body_keeps_its_bytes_both_ways() {
        let body = RawValue::from_string("{ \"a\" : [1,  \"\\u00e9\"] }".into()).unwrap();
        let bytes = frame(&Outgoing::Send { id: 1, room: "r", body: &body, key: Some("k"), ephemeral: false }).unwrap();
        let text = std::str::from_utf8(&bytes[4..]).unwrap();
        assert_eq!(text, "{\"type\":\"send\",\"id\":1,\"room\":\"r\",\"body\":{ \"a\" : [1,  \"\\u00e9\"] },\"key\":\"k\"}");
        let message = format!("{{\"type\":\"message\",\"room\":\"r\",\"at\":\"1.2-0\",\"from\":\"a\",\"ts\":2,\"body\":{}}}", body.get());
        let Incoming::Message(message) = decode(message.as_bytes()).unwrap() else { panic!("a message") };
        assert_eq!(message.body.get(), body.get());
    }

    #[test]
    fn unknown_types_pass_and_broken_objects_do_not() {
        assert!(matches!(decode(b"{\"type\":\"novelty\",\"x\":1}"), Ok(Incoming::Unknown)));
        for bad in ["", "{", "[]", "{\"type\":1}", "{\"type\":\"joined\"}", "{\"x\":1}"] {
            assert_eq!(decode(bad.as_bytes()).unwrap_err(), Fault::Object, "{bad}");
        }
    }
}
