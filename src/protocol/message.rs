//! What a client says: one JSON object to one [`Request`], borrowed from the bytes it came in.
//!
//! Owns the rules of `protocol.md` 2.1 that one object can keep or break by itself: grammar, nesting, names, ranges,
//! fields that exclude each other. Whether the request fits the session (logged in, a member, within its rate) is
//! for `chat`. Bytes come in from a whole frame, a [`Request`] or a [`Refusal`] goes out; nothing is kept.
//!
//! Faults are told in this order: grammar (`malformed`), a doubled `type` or `id`, `type` itself, then the fields of
//! that type. Fields of other types are never looked into. It never panics, and takes time linear in the bytes.

use std::borrow::Cow;

use crate::ids::{RequestId, RoomName, UserName};
use crate::limits::{BODY_BYTES_MAX, DEDUP_KEY_BYTES_MAX, DEVICE_BYTES_MAX};
use crate::protocol::error::{Reason, Refusal};
use crate::protocol::field::{Fault, Field, FieldSet, Fields, broken};
use crate::protocol::scan::{self, Broken};

/// Messages that one `history` may ask for. Raising it raises how long one answer keeps a room's home busy.
pub const HISTORY_LIMIT_MAX: u32 = 1_000;

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

impl Request<'_> {
    /// The client's number of the request, if it gave one.
    pub fn id(&self) -> Option<RequestId> {
        match self {
            Request::Join(join) => join.id,
            Request::Send(send) => send.id,
            Request::Leave { id, .. } | Request::Presence { id, .. } | Request::History { id, .. } | Request::Ping { id } => *id,
            Request::Hello(_) | Request::Pong | Request::Bye => None,
        }
    }
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
///
/// `Refusal.id` is the object's `id` where it can be told: always if the object is well formed and `id` is valid and
/// stands once, and for a malformed one if `id` stands before what breaks it.
pub fn decode(json: &[u8]) -> Result<Request<'_>, Refusal> {
    let mut fields = Fields::default();
    scan(json, &mut fields)
        .map_err(|message| Fault { reason: Reason::Malformed, message })
        .and_then(|()| request(&fields))
        .map_err(|fault| Refusal { id: fields.readable_id(), reason: fault.reason, message: fault.message })
}

fn scan<'a>(json: &'a [u8], fields: &mut Fields<'a>) -> Result<(), Broken> {
    let mut take = |text: &'a str| scan::object(text, |member| fields.take(&text[member.key], &text[member.value]));
    match std::str::from_utf8(json) {
        Ok(text) => take(text),
        Err(error) => {
            // Only for the `id` that may stand in front.
            let _ = std::str::from_utf8(&json[..error.valid_up_to()]).map(take);
            Err("not UTF-8")
        }
    }
}

const HELLO: FieldSet = FieldSet::of(&[Field::Version, Field::User, Field::Token, Field::Device, Field::Inbox]);
const JOIN: FieldSet = FieldSet::of(&[Field::Room, Field::Since, Field::History, Field::Presence, Field::Echo]);
const ROOM: FieldSet = FieldSet::of(&[Field::Room]);
const SEND: FieldSet = FieldSet::of(&[Field::Room, Field::Body, Field::Key, Field::Ephemeral]);
const HISTORY: FieldSet = FieldSet::of(&[Field::Room, Field::Before, Field::After, Field::Limit]);

fn request<'a>(fields: &Fields<'a>) -> Result<Request<'a>, Fault> {
    fields.once(FieldSet::of(&[Field::Type, Field::Id]))?;
    match &*fields.required_text(Field::Type)? {
        "send" => send(fields),
        "ping" => Ok(Request::Ping { id: fields.id()? }),
        "pong" => Ok(Request::Pong),
        "join" => join(fields),
        "leave" => {
            fields.once(ROOM)?;
            Ok(Request::Leave { id: fields.id()?, room: fields.room()? })
        }
        "history" => history(fields),
        "presence" => {
            fields.once(ROOM)?;
            Ok(Request::Presence { id: fields.id()?, room: fields.room()? })
        }
        "hello" => hello(fields),
        "bye" => Ok(Request::Bye),
        _ => Err(Fault { reason: Reason::UnknownType, message: "type is not one of protocol version 1" }),
    }
}

fn hello<'a>(fields: &Fields<'a>) -> Result<Request<'a>, Fault> {
    fields.once(HELLO)?;
    Ok(Request::Hello(Hello {
        version: fields.required_integer(Field::Version)?,
        user: fields.user()?,
        token: fields.text(Field::Token, usize::MAX)?,
        device: fields.text(Field::Device, DEVICE_BYTES_MAX)?,
        inbox: fields.position(Field::Inbox)?,
    }))
}

fn join<'a>(fields: &Fields<'a>) -> Result<Request<'a>, Fault> {
    fields.once(JOIN)?;
    let join = Join {
        id: fields.id()?,
        room: fields.room()?,
        since: fields.position(Field::Since)?,
        history: fields.count(Field::History)?,
        presence: fields.flag(Field::Presence)?.unwrap_or(false),
        echo: fields.flag(Field::Echo)?.unwrap_or(true),
    };
    Ok(Request::Join(join))
}

fn send<'a>(fields: &Fields<'a>) -> Result<Request<'a>, Fault> {
    fields.once(SEND)?;
    let send = Send {
        id: fields.id()?,
        room: fields.room()?,
        body: fields.required(Field::Body)?,
        key: fields.text(Field::Key, DEDUP_KEY_BYTES_MAX)?,
        ephemeral: fields.flag(Field::Ephemeral)?.unwrap_or(false),
    };
    if send.body.len() > BODY_BYTES_MAX {
        return Err(Fault { reason: Reason::BodyTooLarge, message: "body is over 61440 bytes" });
    }
    Ok(Request::Send(send))
}

const _: () = assert!(BODY_BYTES_MAX == 61_440, "the text above names the bound");

fn history<'a>(fields: &Fields<'a>) -> Result<Request<'a>, Fault> {
    fields.once(HISTORY)?;
    let (id, room) = (fields.id()?, fields.room()?);
    let before = fields.position(Field::Before)?;
    let after = fields.position(Field::After)?;
    if before.is_some() && after.is_some() {
        return Err(Fault::bad_field("before and after exclude each other"));
    }
    let limit = fields.count(Field::Limit)?;
    if limit.is_some_and(|limit| limit == 0 || limit > HISTORY_LIMIT_MAX) {
        return Err(broken(Field::Limit));
    }
    Ok(Request::History { id, room, before, after, limit })
}

const _: () = assert!(HISTORY_LIMIT_MAX == 1_000, "the words of the field name the bound");
