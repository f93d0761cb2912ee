//! What the server says: each object written by hand into a buffer, with room for the transport's header in front.

use bytes::BytesMut;

use crate::ids::{RequestId, WirePosition};
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
    /// A page of history where nothing is retained.
    NoHistory {
        id: Option<RequestId>,
        room: &'a str,
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
pub fn frame(object: &Outgoing<'_>, out: &mut BytesMut) {
    let _ = (object, out);
    unimplemented!()
}

/// Bytes that a `message` frame takes at most.
pub fn message_bytes_max(room: &str, from: &str, body: &str) -> usize {
    room.len() + from.len() + body.len() + 256
}
