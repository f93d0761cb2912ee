//! What a session tells its caller, and what it takes: plain values.
//!
//! Owns the shapes and their texts for people. Names and positions are as the wire has them; bodies are the sender's bytes.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::codec::Fault;

/// A number that ties an answer to its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub(super) u64);

/// A message of a room, or of the user's inbox (`@user`).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Message {
    pub room: String,
    /// Its place in the room's order; `None` when it is ephemeral.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    pub from: String,
    /// Milliseconds since 1970.
    pub ts: u64,
    /// JSON, byte for byte as its sender wrote it.
    pub body: Box<RawValue>,
}

impl Message {
    /// The text, where the body is `{"text": ...}` and nothing else.
    pub fn text(&self) -> Option<String> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Text {
            text: String,
        }
        serde_json::from_str(self.body.get()).ok().map(|Text { text }| text)
    }
}

/// How a room is joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// The newest messages to see first.
    pub history: u32,
    /// A position from an earlier life: what came after it is seen first, instead of `history`.
    pub since: Option<String>,
    /// Be told who comes and goes.
    pub presence: bool,
    /// See one's own messages too.
    pub echo: bool,
}

impl Default for Join {
    fn default() -> Self {
        Self { history: 0, since: None, presence: false, echo: true }
    }
}

/// A message to be sent.
#[derive(Clone, Debug)]
pub struct Post<'a> {
    /// A room, or `@user` for that user's inbox.
    pub room: &'a str,
    pub body: &'a RawValue,
    /// Who says the same key again within five minutes sends nothing twice. `None`: the session makes one.
    pub key: Option<&'a str>,
    /// Neither retained nor ordered, and not sent again when the connection breaks.
    pub lifetime: Lifetime,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lifetime {
    #[default]
    Retained,
    Ephemeral,
}

/// One page of a room's past.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Page {
    #[default]
    Newest,
    Before(String),
    After(String),
}

/// What has happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// Logged in, the first time or again. The rooms are being joined again, from where they stood.
    Online {
        user: String,
        expires_at: Option<u64>,
    },
    /// The connection is gone. The session tries again after `retry_in`; nothing needs to be done.
    Offline {
        why: Down,
        retry_in: Duration,
    },
    /// The session is over; nothing more will come. `None`: as asked.
    Ended(Option<Refusal>),
    Joined(Joined),
    Left {
        ticket: Ticket,
        room: String,
    },
    Message(Message),
    /// Messages of this room may be missing before the next one: the server could not bring all that came while this session was away.
    Missed {
        room: String,
    },
    Sent(Sent),
    /// A request was refused, or given up; nothing more comes of it.
    Failed {
        ticket: Ticket,
        room: String,
        refusal: Refusal,
    },
    /// The server refused something that can't be tied to a request.
    Error(Refusal),
    History {
        ticket: Ticket,
        room: String,
        messages: Vec<Message>,
        more: bool,
    },
    Presence {
        ticket: Ticket,
        room: String,
        members: u32,
        users: Vec<String>,
        truncated: bool,
    },
    Member {
        room: String,
        user: String,
        change: Change,
        members: u32,
    },
    /// The room got too large: no more is told about who comes and goes.
    MembersOff {
        room: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Came,
    Went,
}

/// A room was joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The request it answers; `None` when the session joined again by itself.
    pub ticket: Option<Ticket>,
    pub room: String,
    pub members: u32,
    /// Messages from before now that follow; ones that were seen already are left out.
    pub replay: u32,
}

/// A message has its place in the room's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub ticket: Ticket,
    pub room: String,
    pub at: Option<String>,
    /// An earlier send with this key was it.
    pub duplicate: bool,
}

/// The server's no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: u16,
    pub reason: String,
    pub message: Option<String>,
    pub retry_after: Option<Duration>,
}

impl Refusal {
    pub(super) fn local(reason: &str, message: &str) -> Self {
        Self { code: 0, reason: reason.into(), message: Some(message.into()), retry_after: None }
    }

    /// The same request may succeed later.
    pub fn is_temporary(&self) -> bool {
        matches!((self.code, self.reason.as_str()), (503 | 500 | 408, _) | (429, "rate_limited" | "slow_consumer"))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.reason.escape_debug())?;
        self.message.as_ref().map_or(Ok(()), |message| write!(f, ": {}", message.escape_debug()))
    }
}

/// Why a connection is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Down {
    /// The transport says so.
    Transport(String),
    /// The server said goodbye.
    Bye(Refusal),
    /// Nothing came for twice the heartbeat.
    Silent,
    /// No `welcome` in time.
    LoginTimeout,
    /// A request was not answered in time.
    AnswerTimeout,
    /// Messages of the inbox were skipped; a new login brings them.
    Gap,
    Fault(Fault),
}

impl fmt::Display for Down {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Down::Transport(why) => f.write_str(why),
            Down::Bye(refusal) => write!(f, "the server ended it: {refusal}"),
            Down::Silent => f.write_str("the server has gone silent"),
            Down::LoginTimeout => f.write_str("no answer to the login"),
            Down::AnswerTimeout => f.write_str("no answer to a request"),
            Down::Gap => f.write_str("coming back for skipped messages"),
            Down::Fault(fault) => write!(f, "not what a ringroom server says ({fault:?})"),
        }
    }
}

/// Why a request was not taken. Nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// Not a name of a room (`protocol.md` 2).
    Name,
    /// Body, key or whole object over its limit.
    TooLarge,
    /// As many requests wait as may; take events first.
    Full,
    /// The session has ended.
    Ended,
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reject::Name => "no valid name: 1-64 of A-Z a-z 0-9 _ . : -",
            Reject::TooLarge => "too large: a body has at most 60 KiB",
            Reject::Full => "too many requests wait for their answers",
            Reject::Ended => "the session has ended",
        })
    }
}

impl std::error::Error for Reject {}
