//! What a client says: one JSON object to one [`Request`], borrowed from the bytes it came in.

use std::borrow::Cow;

use crate::ids::{RequestId, RoomName, UserName};
use crate::protocol::error::Refusal;

/// A decoded object (`protocol.md` 2.1). Texts borrow from the frame where JSON has no escapes.
#[derive(Clone, Debug, PartialEq)]
pub enum Request<'a> {
    Hello(Hello<'a>),
    Join(Join<'a>),
    Leave { id: Option<RequestId>, room: RoomName },
    Send(Send<'a>),
    History { id: Option<RequestId>, room: RoomName, before: Option<Cow<'a, str>>, after: Option<Cow<'a, str>>, limit: Option<u32> },
    Presence { id: Option<RequestId>, room: RoomName },
    Ping { id: Option<RequestId> },
    Pong,
    Bye,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Hello<'a> {
    pub version: u64,
    pub user: Option<UserName>,
    pub token: Option<Cow<'a, str>>,
    pub device: Option<Cow<'a, str>>,
    pub inbox: Option<Cow<'a, str>>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Join<'a> {
    pub id: Option<RequestId>,
    pub room: RoomName,
    pub since: Option<Cow<'a, str>>,
    pub history: Option<u32>,
    pub presence: bool,
    pub echo: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Send<'a> {
    pub id: Option<RequestId>,
    pub room: RoomName,
    /// The JSON value exactly as it was written, white space included.
    pub body: &'a str,
    pub key: Option<Cow<'a, str>>,
    pub ephemeral: bool,
}

/// Decodes one object. Never panics; `Refusal.reason` is `malformed`, `bad_field`, `unknown_type` or `body_too_large`.
pub fn decode(json: &[u8]) -> Result<Request<'_>, Refusal> {
    let _ = json;
    unimplemented!()
}
