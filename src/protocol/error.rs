//! Every code and reason of the wire (`protocol.md` section 4), as one enum.

use crate::ids::RequestId;

/// Why a request was refused or a session ended. `code()` and `name()` are what the client reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    Bye,
    Malformed,
    BadField,
    UnknownType,
    ProtocolError,
    BadFrame,
    HelloFirst,
    BadToken,
    TokenExpired,
    Forbidden,
    NotJoined,
    HandshakeTimeout,
    FrameTimeout,
    Idle,
    Replaced,
    Kicked,
    FrameTooLarge,
    BodyTooLarge,
    RateLimited,
    TooManyRooms,
    TooManySessions,
    SlowConsumer,
    Internal,
    Overloaded,
    Draining,
    LogUnavailable,
    Version,
}

impl Reason {
    /// Every reason, in the order of the enum.
    pub const ALL: [Reason; Reason::Version as usize + 1] = [
        Reason::Bye,
        Reason::Malformed,
        Reason::BadField,
        Reason::UnknownType,
        Reason::ProtocolError,
        Reason::BadFrame,
        Reason::HelloFirst,
        Reason::BadToken,
        Reason::TokenExpired,
        Reason::Forbidden,
        Reason::NotJoined,
        Reason::HandshakeTimeout,
        Reason::FrameTimeout,
        Reason::Idle,
        Reason::Replaced,
        Reason::Kicked,
        Reason::FrameTooLarge,
        Reason::BodyTooLarge,
        Reason::RateLimited,
        Reason::TooManyRooms,
        Reason::TooManySessions,
        Reason::SlowConsumer,
        Reason::Internal,
        Reason::Overloaded,
        Reason::Draining,
        Reason::LogUnavailable,
        Reason::Version,
    ];

    /// The wire's number.
    pub fn code(self) -> u16 {
        match self {
            Reason::Bye => 0,
            Reason::Malformed | Reason::BadField | Reason::UnknownType | Reason::ProtocolError | Reason::BadFrame => 400,
            Reason::HelloFirst | Reason::BadToken | Reason::TokenExpired => 401,
            Reason::Forbidden | Reason::NotJoined => 403,
            Reason::HandshakeTimeout | Reason::FrameTimeout | Reason::Idle => 408,
            Reason::Replaced => 409,
            Reason::Kicked => 410,
            Reason::FrameTooLarge | Reason::BodyTooLarge => 413,
            Reason::RateLimited | Reason::TooManyRooms | Reason::TooManySessions | Reason::SlowConsumer => 429,
            Reason::Internal => 500,
            Reason::Overloaded | Reason::Draining | Reason::LogUnavailable => 503,
            Reason::Version => 505,
        }
    }

    /// The wire's word.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Bye => "bye",
            Reason::Malformed => "malformed",
            Reason::BadField => "bad_field",
            Reason::UnknownType => "unknown_type",
            Reason::ProtocolError => "protocol_error",
            Reason::BadFrame => "bad_frame",
            Reason::HelloFirst => "hello_first",
            Reason::BadToken => "bad_token",
            Reason::TokenExpired => "token_expired",
            Reason::Forbidden => "forbidden",
            Reason::NotJoined => "not_joined",
            Reason::HandshakeTimeout => "handshake_timeout",
            Reason::FrameTimeout => "frame_timeout",
            Reason::Idle => "idle",
            Reason::Replaced => "replaced",
            Reason::Kicked => "kicked",
            Reason::FrameTooLarge => "frame_too_large",
            Reason::BodyTooLarge => "body_too_large",
            Reason::RateLimited => "rate_limited",
            Reason::TooManyRooms => "too_many_rooms",
            Reason::TooManySessions => "too_many_sessions",
            Reason::SlowConsumer => "slow_consumer",
            Reason::Internal => "internal",
            Reason::Overloaded => "overloaded",
            Reason::Draining => "draining",
            Reason::LogUnavailable => "log_unavailable",
            Reason::Version => "version",
        }
    }
}

/// A client's object that can't be taken, with the request number where one could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub id: Option<RequestId>,
    pub reason: Reason,
    /// For a person: which field, which rule. Never the client's own text.
    pub message: &'static str,
}
