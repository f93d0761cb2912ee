//! Dialects: how a target speaks on the wire, and nothing else.
//!
//! A worker is the same for every target: it has connections, due messages, a ring, books. What differs is here: the bytes of a login, of a message,
//! of the answer to a keep-alive, and the cutting of what arrives into [`Event`]s. A dialect has no socket, no clock and no books; it appends to a buffer
//! and reads slices, so that nothing is allocated while messages are due. Dispatch is a match on [`Dialect`], never a virtual call.
//!
//! A new target is: a file with a struct that has the methods of [`Dialect`] (see [`ringroom`]), a variant in [`Target`] and in [`Dialect`], a line in
//! each match here. What it can't do is said in [`Abilities`], and the plan refuses what needs it before load starts.

mod head;
pub mod mqtt;
pub mod nats;
pub mod redis;
pub mod ringroom;

use super::body::{Bodies, Stamp};
use super::names::Names;
use super::plan::ServerLimits;

use mqtt::Mqtt;
use nats::Nats;
use redis::Redis;
use ringroom::Ringroom;

/// Whom to drive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    #[default]
    Ringroom,
    /// A NATS server
    Nats,
    /// Redis pub/sub, 6.0 or newer
    Redis,
    /// An MQTT 3.1.1 broker, quality of service 0
    Mqtt,
}

impl Target {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ringroom => "ringroom",
            Self::Nats => "nats",
            Self::Redis => "redis",
            Self::Mqtt => "mqtt",
        }
    }

    /// Where it listens when nobody says otherwise.
    pub fn default_address(self) -> &'static str {
        match self {
            Self::Ringroom => "127.0.0.1:7777",
            Self::Nats => "127.0.0.1:4222",
            Self::Redis => "127.0.0.1:6379",
            Self::Mqtt => "127.0.0.1:1883",
        }
    }

    pub fn abilities(self) -> Abilities {
        match self {
            Self::Ringroom => ringroom::ABILITIES,
            Self::Nats => nats::ABILITIES,
            Self::Redis => redis::ABILITIES,
            Self::Mqtt => mqtt::ABILITIES,
        }
    }

    /// The position in a delivery's `whole`, where the target has any.
    pub fn position(self, whole: &[u8]) -> Option<&[u8]> {
        match self {
            Self::Ringroom => ringroom::position(whole),
            Self::Nats | Self::Redis | Self::Mqtt => None,
        }
    }
}

/// What a target promises, and so what is checked and what a plan may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// Every message gets an answer ([`Event::Sent`]). Without it the sender's own copy stands in for the answer.
    pub answers: bool,
    /// All members of a room see one order. Without it only each sender's order is checked.
    pub room_order: bool,
    /// A login can name the position to go on from.
    pub resume: bool,
    /// Past messages can be asked for.
    pub history: bool,
}

/// A connection's login.
#[derive(Clone, Copy, Debug)]
pub struct Login<'a> {
    pub connection: u32,
    /// Rooms to read, by number; inboxes are not among them.
    pub rooms: &'a [Wanted<'a>],
    /// The connection reads its own inbox ([`Names::inbox`]).
    pub inbox: bool,
}

/// A room to read from now on, or from a position on.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    pub room: u32,
    pub since: Option<&'a [u8]>,
}

/// What has arrived. Slices point into the receive buffer or the connection's tail.
#[derive(Debug)]
pub enum Event<'a> {
    /// One of this run's messages, whole and unchanged (see [`delivery`]), and its unit for [`Target::position`].
    Delivery { stamp: Stamp, whole: &'a [u8] },
    /// The answer to a message: by its number, or (`None`) to the oldest one that has none.
    Sent { id: Option<u64> },
    /// A step of the login is answered; this one with the server's limits.
    Welcome(Box<ServerLimits>),
    /// A step of the login is answered: a room is joined. `at` is its newest position, `replay` messages follow; where a target has none of this, none.
    Joined { room: Option<u32>, at: Option<&'a [u8]>, replay: u64, recovered: Option<bool> },
    /// The answer to [`Dialect::history`].
    History { id: u64, messages: u64 },
    /// To be answered with [`Dialect::keep_alive`].
    Ping,
    /// A request was refused: with its number, if it had one.
    Refused { id: Option<u64>, reason: String },
    /// The server ends the connection.
    Bye { reason: String },
    /// The server says that messages may be missing.
    Gap,
    /// A message whose unit is not as the protocol has it, or no unit at all.
    Garbled(&'a [u8]),
    /// Of no interest here: another run's message, an object of a later version.
    Other,
}

/// A message that the server says is in `room`: ours when its body is, and was sent there.
pub fn delivery<'a>(bodies: &Bodies, room: u32, body: &[u8], whole: &'a [u8]) -> Event<'a> {
    match bodies.read(body).filter(|stamp| stamp.room == room) {
        Some(stamp) => Event::Delivery { stamp, whole },
        None => Event::Garbled(whole),
    }
}

/// The stream can't be cut any further, in the server's or our words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken(pub String);

/// The incomplete unit at the end of what a connection has received.
#[derive(Debug, Default)]
pub struct Tail {
    bytes: Vec<u8>,
}

impl Tail {
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes kept.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// For dialects without a known length in front: `cut` is shown what has come, takes one unit off its beginning and says how many bytes that was,
    /// or `None` while it is incomplete. What is left stays for the next call, up to `most` bytes.
    pub fn cut(&mut self, bytes: &[u8], most: usize, mut cut: impl FnMut(&[u8]) -> Result<Option<usize>, Broken>) -> Result<(), Broken> {
        let mut all = |mut rest: &[u8]| {
            let whole = rest.len();
            while !rest.is_empty() {
                let Some(taken) = cut(rest)? else { break };
                rest = &rest[taken..];
            }
            Ok(whole - rest.len())
        };
        if self.bytes.is_empty() {
            let taken = all(bytes)?;
            self.bytes.extend_from_slice(&bytes[taken..]);
        } else {
            self.bytes.extend_from_slice(bytes);
            let taken = all(&self.bytes)?;
            self.bytes.drain(..taken);
        }
        if self.bytes.len() > most {
            return Err(Broken(format!("a unit of more than {most} bytes")));
        }
        Ok(())
    }
}

/// One worker's reader and writer.
#[derive(Debug)]
pub enum Dialect {
    Ringroom(Ringroom),
    Nats(Nats),
    Redis(Redis),
    Mqtt(Mqtt),
}

impl Dialect {
    pub fn new(target: Target, names: Names, bodies: Bodies) -> Self {
        match target {
            Target::Ringroom => Self::Ringroom(Ringroom::new(names, bodies)),
            Target::Nats => Self::Nats(Nats::new(names, bodies)),
            Target::Redis => Self::Redis(Redis::new(names, bodies)),
            Target::Mqtt => Self::Mqtt(Mqtt::new(names, bodies)),
        }
    }

    /// Appends the first bytes of a connection. The answer: how many [`Event::Welcome`] and [`Event::Joined`] have to come before it is in.
    pub fn login(&self, login: &Login<'_>, out: &mut Vec<u8>) -> u32 {
        match self {
            Self::Ringroom(dialect) => dialect.login(login, out),
            Self::Nats(dialect) => dialect.login(login, out),
            Self::Redis(dialect) => dialect.login(login, out),
            Self::Mqtt(dialect) => dialect.login(login, out),
        }
    }

    /// Appends a message to the stamp's room. Allocates nothing but room in `out`.
    #[inline]
    pub fn publish(&self, id: u64, stamp: &Stamp, out: &mut Vec<u8>) {
        match self {
            Self::Ringroom(dialect) => dialect.publish(id, stamp, out),
            Self::Nats(dialect) => dialect.publish(id, stamp, out),
            Self::Redis(dialect) => dialect.publish(id, stamp, out),
            Self::Mqtt(dialect) => dialect.publish(id, stamp, out),
        }
    }

    /// Hands everything that `bytes` completes to `on_event`, in order.
    #[inline]
    pub fn decode(&mut self, tail: &mut Tail, bytes: &[u8], on_event: &mut impl FnMut(Event<'_>)) -> Result<(), Broken> {
        match self {
            Self::Ringroom(dialect) => dialect.decode(tail, bytes, on_event),
            Self::Nats(dialect) => dialect.decode(tail, bytes, on_event),
            Self::Redis(dialect) => dialect.decode(tail, bytes, on_event),
            Self::Mqtt(dialect) => dialect.decode(tail, bytes, on_event),
        }
    }

    /// Appends the answer to [`Event::Ping`].
    pub fn keep_alive(&self, out: &mut Vec<u8>) {
        match self {
            Self::Ringroom(dialect) => dialect.keep_alive(out),
            Self::Nats(dialect) => dialect.keep_alive(out),
            Self::Redis(dialect) => dialect.keep_alive(out),
            Self::Mqtt(dialect) => dialect.keep_alive(out),
        }
    }

    /// Appends a request for the newest `limit` messages of a room. Only where [`Abilities::history`].
    pub fn history(&self, id: u64, room: u32, limit: u32, out: &mut Vec<u8>) {
        match self {
            Self::Ringroom(dialect) => dialect.history(id, (room, limit), out),
            Self::Nats(_) | Self::Redis(_) | Self::Mqtt(_) => unreachable!("the plan asks only targets that have a history"),
        }
    }

    /// Appends the last words of a connection.
    pub fn goodbye(&self, out: &mut Vec<u8>) {
        match self {
            Self::Ringroom(dialect) => dialect.goodbye(out),
            Self::Mqtt(dialect) => dialect.goodbye(out),
            // They are told by the end of the connection.
            Self::Nats(_) | Self::Redis(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn units_are_cut_alike_however_the_bytes_come() {
        let line = |bytes: &[u8]| Ok(bytes.iter().position(|byte| *byte == b'\n').map(|at| at + 1));
        for size in 1..12 {
            let (mut tail, mut lines) = (Tail::default(), Vec::new());
            for piece in b"one\ntwo\n\nthree\nrest".chunks(size) {
                let mut note = |bytes: &[u8]| {
                    let taken = line(bytes)?;
                    lines.extend(taken.map(|taken| bytes[..taken].to_vec()));
                    Ok(taken)
                };
                tail.cut(piece, 100, &mut note).unwrap();
            }
            assert_eq!(lines, [b"one\n".to_vec(), b"two\n".to_vec(), b"\n".to_vec(), b"three\n".to_vec()]);
            assert_eq!(tail.bytes, b"rest");
        }
        assert!(Tail::default().cut(b"no end", 5, line).is_err());
    }
}
