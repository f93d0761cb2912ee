//! The driver of a shard: it moves bytes and effects, and is the only place that knows operations in flight.
//!
//! A [`Reactor`] is an [`Io`] and a [`Core`](core::Core): the core has the connections, the rules and the queues and never touches the kernel; the
//! reactor reaps, hands bytes to the core and submits what the core has put on its lists. [`Reactor::turn`] does one round with a budget on each
//! step and at most one system call; [`Reactor::sleep`] is the other one, and waits. `drive` runs it inside a glommio executor, the simulation
//! without one.

mod accept;
mod bytes_in;
mod close;
mod connection;
mod core;
pub mod counters;
mod crowd;
mod deadline;
pub mod drive;
mod effects;
pub mod errand;
pub mod histogram;
mod inspect;
mod overload;
mod publish;
mod receive;
mod send;
mod strangers;
mod turn;
mod verdict;

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};

use crate::chat;
use crate::cluster::log::Log;
use crate::config::Settings;
use crate::ids::{Key, ShardId};
use crate::memory::frames::Loan;
use crate::memory::gathers::Gathers;
use crate::mesh::directory::Directory;
use crate::mesh::{Envelope, Port};
use crate::ring::Io;
pub use connection::{Phase, Receive, State};
use counters::{Counters, Shared};
pub use inspect::{Doing, Inspection};
pub use overload::Sheds;
pub use verdict::TokenLogin;

/// What a shard is made of.
#[derive(Debug)]
pub struct Parts<S> {
    pub rules: chat::Rules,
    pub settings: Arc<Settings>,
    /// Listeners that the `Io` was given.
    pub listeners: u8,
    /// Connections of the whole process, resolved.
    pub connections_max: usize,
    pub port: Port<Envelope<S>>,
    pub log: Box<dyn Log>,
    /// Where logins have tokens; `None`: clients name themselves.
    pub login: Option<TokenLogin>,
    pub directory: Arc<Directory>,
    pub counters: Arc<Counters>,
    pub shared: Arc<Shared>,
    pub control: Receiver<Control>,
    pub errands: Receiver<errand::Errand>,
    pub report: Sender<Report>,
}

/// What the supervisor tells a shard. The sender rings the shard's bell after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// Stop accepting, answer what was read, say `bye` to everybody.
    Drain,
    /// Settings were read again: their limits count from now on.
    Reload(Arc<Settings>),
    /// Stop turning. Connections that are still open are closed.
    Stop,
}

/// What a shard tells the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    Up(ShardId),
    /// No connection is left.
    Drained(ShardId),
}

/// What to do after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// There is more to do.
    Again,
    /// Nothing to do before this time, CLOCK_MONOTONIC nanoseconds, unless the kernel or a bell says so.
    Sleep { until_ns: u64 },
    /// The shard was told to stop and holds nothing any longer.
    Finished,
}

/// A shard's driver. `turn` until it says `Sleep`, then `sleep`, then `turn` again.
#[derive(Debug)]
pub struct Reactor<I: Io> {
    io: I,
    core: core::Core<I::Socket>,
    accepts: Vec<accept::Accept>,
    /// Sends that found no room in the submission queue, or have a rest to send.
    retry: VecDeque<(Key, Loan)>,
    /// The lists of frames gathered in this flush, with the gathered frame.
    gathers: Gathers,
    /// Shards to ring with the next enter.
    rung: Vec<ShardId>,
    /// Envelopes of this turn.
    taken: Vec<(ShardId, Envelope<I::Socket>)>,
    /// Connections whose receive found no buffer.
    starved: VecDeque<Key>,
    expired: Vec<u32>,
    answers: Vec<chat::Appended>,
    /// When there was last something to do.
    busy_ns: u64,
    age: overload::AgeOfWork,
    told_drained: bool,
}
