//! What the server says: each object written by hand into a buffer, with the TCP transport's header in front.
//!
//! Owns the order and the presence of fields (`protocol.md` 2.2). A `body` and the names in a `presence` are copied
//! byte for byte, because they were checked where they came in; names need no escapes by their alphabet; `node` and
//! every text meant for people is escaped. Objects come in as borrowed values and leave as bytes at the end of the
//! caller's buffer; nothing is allocated unless that buffer is too small. A frame over the limit is a broken promise
//! of our own, so it ends in a panic and never on the wire.

use bytes::{BufMut, BytesMut};

use crate::ids::{RequestId, WirePosition};
use crate::limits::{BODY_BYTES_MAX, FRAME_BYTES_MAX, POSITION_BYTES_MAX, TCP_HEADER_BYTES};
use crate::protocol::error::Reason;

/// An object from the server (`protocol.md` 2.2).
#[derive(Clone, Copy, Debug)]
pub enum Outgoing<'a> {
    Welcome(Welcome<'a>),
    Joined {
        id: Option<RequestId>,
        room: &'a str,
        at: WirePosition,
        members: u32,
        replay: u32,
        recovered: Option<bool>,
    },
    Left {
        id: Option<RequestId>,
        room: &'a str,
    },
    Sent {
        id: Option<RequestId>,
        room: &'a str,
        at: Option<WirePosition>,
        duplicate: bool,
    },
    Message {
        room: &'a str,
        at: Option<WirePosition>,
        from: &'a str,
        ts: u64,
        body: &'a str,
    },
    /// `users` is already JSON: the inside of the array, names quoted and comma-separated.
    Presence {
        id: Option<RequestId>,
        room: &'a str,
        members: u32,
        users: &'a str,
        truncated: bool,
    },
    /// `messages` is already JSON: the inside of the array.
    History {
        id: Option<RequestId>,
        room: &'a str,
        messages: &'a str,
        more: bool,
    },
    Member {
        room: &'a str,
        user: &'a str,
        event: MemberEvent,
        members: u32,
    },
    MemberOff {
        room: &'a str,
    },
    Gap {
        room: &'a str,
        since: WirePosition,
    },
    Ping,
    Pong {
        id: Option<RequestId>,
        ts: u64,
    },
    Error {
        id: Option<RequestId>,
        reason: Reason,
        message: &'a str,
        retry_after_ms: Option<u64>,
    },
    Bye {
        reason: Reason,
        message: Option<&'a str>,
        retry_after_ms: Option<u64>,
    },
}

#[derive(Clone, Copy, Debug)]
pub struct Welcome<'a> {
    pub user: &'a str,
    pub session: u64,
    pub node: &'a str,
    pub heartbeat_ms: u64,
    pub inbox_at: WirePosition,
    pub inbox_replay: u32,
    pub inbox_recovered: Option<bool>,
    pub limits: AnnouncedLimits,
    pub expires_at: Option<u64>,
}

/// `welcome.limits`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnnouncedLimits {
    pub frame_bytes: u32,
    pub body_bytes: u32,
    pub rooms: u32,
    pub replay: u32,
    pub requests_per_s: u32,
    pub requests_burst: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberEvent {
    Join,
    Leave,
}

/// Appends header and JSON of one frame to `out`: 4 bytes of big-endian length, then the object.
///
/// # Panics
/// If the JSON is over [`FRAME_BYTES_MAX`]: bodies, names and texts are bounded where they come in.
pub fn frame(object: &Outgoing<'_>, out: &mut BytesMut) {
    let start = out.len();
    out.reserve(bytes_expected(object));
    out.put_slice(&[0; TCP_HEADER_BYTES]);
    write(object, &mut Writer { out });
    let length = out.len() - start - TCP_HEADER_BYTES;
    assert!(length <= FRAME_BYTES_MAX, "an outgoing object of {length} bytes is over the limit");
    let length = u32::try_from(length).expect("the frame limit is below 2^32");
    out[start..start + TCP_HEADER_BYTES].copy_from_slice(&length.to_be_bytes());
}

/// The room in a frame that [`frame`] made of an [`Outgoing::Message`].
pub fn message_room(frame: &[u8]) -> Option<&str> {
    let rest = frame.get(TCP_HEADER_BYTES..)?.strip_prefix(br#"{"type":"message","room":""#)?;
    std::str::from_utf8(rest.split(|byte| *byte == b'"').next()?).ok()
}

/// An upper bound of the bytes that [`frame`] appends for an [`Outgoing::Message`], header included.
pub fn message_bytes_max(room: &str, from: &str, body: &str) -> usize {
    MESSAGE_BYTES_BESIDES_MAX + room.len() + from.len() + body.len()
}

/// Bytes of a message's frame without its room, sender and body.
const MESSAGE_BYTES_BESIDES_MAX: usize =
    TCP_HEADER_BYTES + r#"{"type":"message","room":"","at":"","from":"","ts":,"body":}"#.len() + WIRE_POSITION_BYTES_MAX + U64_BYTES_MAX;
/// Bytes of the longest number, 2^64-1.
const U64_BYTES_MAX: usize = 20;
/// Bytes of the longest position: eight hex digits, two numbers, two separators.
const WIRE_POSITION_BYTES_MAX: usize = 8 + 1 + U64_BYTES_MAX + 1 + U64_BYTES_MAX;
/// Bytes that every object without a body or a list fits, texts for people aside.
const SMALL_OBJECT_BYTES: usize = 512;

const _: () = assert!(WIRE_POSITION_BYTES_MAX <= POSITION_BYTES_MAX);
const _: () = assert!(MESSAGE_BYTES_BESIDES_MAX + 65 + 64 + BODY_BYTES_MAX <= FRAME_BYTES_MAX + TCP_HEADER_BYTES);

/// What to reserve, so that the buffer grows at most once per object.
fn bytes_expected(object: &Outgoing<'_>) -> usize {
    match object {
        Outgoing::Message { room, from, body, .. } => message_bytes_max(room, from, body),
        Outgoing::Presence { users, .. } => SMALL_OBJECT_BYTES + users.len(),
        Outgoing::History { messages, .. } => SMALL_OBJECT_BYTES + messages.len(),
        _ => SMALL_OBJECT_BYTES,
    }
}

fn write(object: &Outgoing<'_>, to: &mut Writer<'_>) {
    match *object {
        Outgoing::Message { room, at, from, ts, body } => {
            to.raw(r#"{"type":"message""#).name(r#","room":""#, room).at(at).name(r#","from":""#, from);
            to.number(r#","ts":"#, ts).raw(r#","body":"#).raw(body);
        }
        Outgoing::Sent { id, room, at, duplicate } => {
            to.raw(r#"{"type":"sent""#).id(id).name(r#","room":""#, room).at(at);
            if duplicate {
                to.raw(r#","duplicate":true"#);
            }
        }
        Outgoing::Pong { id, ts } => {
            to.raw(r#"{"type":"pong""#).id(id).number(r#","ts":"#, ts);
        }
        Outgoing::Ping => {
            to.raw(r#"{"type":"ping""#);
        }
        Outgoing::Member { room, user, event, members } => {
            to.raw(r#"{"type":"member""#).name(r#","room":""#, room).name(r#","user":""#, user);
            to.name(r#","event":""#, event.word()).number(r#","members":"#, members.into());
        }
        Outgoing::MemberOff { room } => {
            to.raw(r#"{"type":"member""#).name(r#","room":""#, room).name(r#","event":""#, "off");
        }
        Outgoing::Gap { room, since } => {
            to.raw(r#"{"type":"gap""#).name(r#","room":""#, room).raw(r#","since":""#).position(since).raw("\"");
        }
        Outgoing::Joined { id, room, at, members, replay, recovered } => {
            to.raw(r#"{"type":"joined""#).id(id).name(r#","room":""#, room).at(Some(at));
            to.number(r#","members":"#, members.into()).number(r#","replay":"#, replay.into()).recovered(recovered);
        }
        Outgoing::Left { id, room } => {
            to.raw(r#"{"type":"left""#).id(id).name(r#","room":""#, room);
        }
        Outgoing::Presence { id, room, members, users, truncated } => {
            to.raw(r#"{"type":"presence""#).id(id).name(r#","room":""#, room).number(r#","members":"#, members.into());
            to.raw(r#","users":["#).raw(users).raw("]").flag(r#","truncated":"#, truncated);
        }
        Outgoing::Error { id, reason, message, retry_after_ms } => {
            to.raw(r#"{"type":"error""#).id(id).reason(reason).text(r#","message":"#, message).retry(retry_after_ms);
        }
        Outgoing::Bye { reason, message, retry_after_ms } => {
            to.raw(r#"{"type":"bye""#).reason(reason);
            if let Some(message) = message {
                to.text(r#","message":"#, message);
            }
            to.retry(retry_after_ms);
        }
        Outgoing::History { id, room, messages, more } => {
            to.raw(r#"{"type":"history""#).id(id).name(r#","room":""#, room);
            to.raw(r#","messages":["#).raw(messages).raw("]").flag(r#","more":"#, more);
        }
        Outgoing::Welcome(ref welcome) => write_welcome(welcome, to),
    }
    to.raw("}");
}

/// All of a `welcome` but its last brace.
fn write_welcome(welcome: &Welcome<'_>, to: &mut Writer<'_>) {
    to.raw(r#"{"type":"welcome","version":1"#).name(r#","user":""#, welcome.user);
    to.raw(r#","session":""#).hex(welcome.session).raw("\"").text(r#","node":"#, welcome.node);
    to.number(r#","heartbeat_ms":"#, welcome.heartbeat_ms);
    to.raw(r#","inbox":{"at":""#).position(welcome.inbox_at).raw("\"");
    to.number(r#","replay":"#, welcome.inbox_replay.into()).recovered(welcome.inbox_recovered);
    let limits = &welcome.limits;
    to.number(r#"},"limits":{"frame_bytes":"#, limits.frame_bytes.into());
    to.number(r#","body_bytes":"#, limits.body_bytes.into());
    to.number(r#","rooms":"#, limits.rooms.into());
    to.number(r#","replay":"#, limits.replay.into());
    to.number(r#","requests_per_s":"#, limits.requests_per_s.into());
    to.number(r#","requests_burst":"#, limits.requests_burst.into()).raw("}");
    if let Some(expires_at) = welcome.expires_at {
        to.number(r#","expires_at":"#, expires_at);
    }
}

impl MemberEvent {
    fn word(self) -> &'static str {
        match self {
            MemberEvent::Join => "join",
            MemberEvent::Leave => "leave",
        }
    }
}

/// Writes pieces of JSON. Where a method takes a `lead`, that is the text in front of the value.
struct Writer<'a> {
    out: &'a mut BytesMut,
}

impl Writer<'_> {
    fn raw(&mut self, text: &str) -> &mut Self {
        self.out.put_slice(text.as_bytes());
        self
    }

    /// `lead` with its opening quote, a text whose alphabet needs no escapes, and the closing quote.
    fn name(&mut self, lead: &str, name: &str) -> &mut Self {
        debug_assert!(name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\'), "not a name");
        self.raw(lead).raw(name).raw("\"")
    }

    /// Any text, quoted and escaped.
    fn text(&mut self, lead: &str, text: &str) -> &mut Self {
        self.raw(lead);
        serde_json::to_writer((&mut *self.out).writer(), text).expect("a text is JSON, and the buffer grows");
        self
    }

    fn number(&mut self, lead: &str, number: u64) -> &mut Self {
        self.raw(lead).raw(itoa::Buffer::new().format(number))
    }

    fn hex(&mut self, number: u64) -> &mut Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digits = number.max(1).ilog2() / 4 + 1;
        for digit in (0..digits).rev() {
            let nibble = (number >> (4 * digit)) & 0xf;
            self.out.put_u8(DIGITS[nibble as usize]);
        }
        self
    }

    fn flag(&mut self, lead: &str, flag: bool) -> &mut Self {
        self.raw(lead).raw(if flag { "true" } else { "false" })
    }

    fn position(&mut self, at: WirePosition) -> &mut Self {
        self.hex(at.epoch.0.into()).number(".", at.position.ms).number("-", at.position.n)
    }

    fn id(&mut self, id: Option<RequestId>) -> &mut Self {
        if let Some(RequestId(id)) = id {
            self.number(r#","id":"#, id);
        }
        self
    }

    fn at(&mut self, at: Option<WirePosition>) -> &mut Self {
        if let Some(at) = at {
            self.raw(r#","at":""#).position(at).raw("\"");
        }
        self
    }

    fn recovered(&mut self, recovered: Option<bool>) -> &mut Self {
        if let Some(recovered) = recovered {
            self.flag(r#","recovered":"#, recovered);
        }
        self
    }

    fn reason(&mut self, reason: Reason) -> &mut Self {
        self.number(r#","code":"#, reason.code().into()).name(r#","reason":""#, reason.name())
    }

    fn retry(&mut self, after_ms: Option<u64>) -> &mut Self {
        if let Some(after_ms) = after_ms {
            self.number(r#","retry_after_ms":"#, after_ms);
        }
        self
    }
}
