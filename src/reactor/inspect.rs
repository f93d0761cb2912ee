//! What a check may see of a shard: counts and bounds, never contents.

use std::collections::BTreeMap;

use super::Reactor;
use super::connection::{Connection, Phase, State, Waits};
use super::core::Core;
use crate::chat;
use crate::ids::Key;
use crate::memory::frames::Usage;
use crate::ring::Io;

/// What a connection waits for, or makes others wait for, beside what its [`State`] says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Doing {
    /// The token of its first `hello` is being checked.
    pub verifying: bool,
    /// The token of a later one.
    pub renewing: bool,
    /// A join or a leave is on its way.
    pub joining: bool,
    /// Any other request is: a `send` in the log, a page.
    pub asking: bool,
    /// A `send` of it is deferred: the room is stalled, or a queue is full.
    pub held: bool,
    pub out_of_tokens: bool,
    /// Its next request finds no way, or another answer has to come first.
    pub blocked: bool,
    /// Its next request waits until it reads.
    pub not_reading: bool,
}

impl Doing {
    pub fn is_something(self) -> bool {
        self != Self::default()
    }
}

/// A shard's holdings at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    pub connections: BTreeMap<State, usize>,
    pub queued_bytes_max: usize,
    pub queued_bytes: u64,
    /// Bytes of frames that are in flight, or wait for connections that are ending: what a budget of queues can't take back.
    pub leaving_bytes: u64,
    /// Bytes of frames above which sessions are ended for them next.
    pub relief_at: u64,
    /// Sessions whose queue was gone through because they do not read.
    pub crowded: usize,
    /// Bytes of frames and of incomplete or blocked input.
    pub frames: Usage,
    pub queue_chunks: u32,
    pub unread_bytes: usize,
    pub chat: chat::Usage,
    pub counts: chat::Counts,
    /// Users with more tokens than their burst.
    pub buckets_over: usize,
    pub blocked: usize,
    pub starved: usize,
    /// Sockets sent to other shards so far, and taken in from them: what lies between, over all shards, is in transit.
    pub moved: u64,
    pub moved_in: u64,
    /// Envelopes that wait on this side for room in a queue.
    pub outboxes: usize,
    /// Some queue towards this shard holds an envelope.
    pub inbound: bool,
    /// Connections that have not ended and are doing something.
    pub doing: Vec<(Key, Doing)>,
    /// Connections that have ended and still have their slots, with the reason.
    pub ended: Vec<(Key, &'static str)>,
}

impl<I: Io> Reactor<I> {
    /// Walks all connections: for checks and on demand, never per turn.
    pub fn inspect(&self) -> Inspection {
        let core = self.core();
        let mut inspection = Inspection {
            frames: core.frames.usage(),
            queue_chunks: core.queues.used(),
            crowded: core.crowd.len(),
            relief_at: core.relief_at(),
            unread_bytes: core.unread_bytes,
            chat: core.chat.usage(),
            counts: core.chat.counts(),
            buckets_over: core.chat.buckets_over(),
            blocked: core.blocked.len(),
            starved: self.starved.len(),
            moved: core.counters.moved.get(),
            moved_in: core.counters.moved_in.get(),
            outboxes: core.port.waiting(),
            inbound: core.port.has_inbound(),
            ..Inspection::default()
        };
        let mut frames = Vec::new();
        for slot in 0..core.connections.slots() {
            let Some(key) = core.connections.key_at(slot) else { continue };
            let Some(connection) = core.connections.get(key) else { continue };
            if matches!(connection.phase, Phase::Handshake | Phase::Open) {
                let doing = core.doing(key, connection);
                inspection.doing.extend(doing.is_something().then_some((key, doing)));
            } else {
                inspection.ended.push((key, connection.ended.name()));
            }
            *inspection.connections.entry(connection.state()).or_default() += 1;
            inspection.queued_bytes += u64::from(connection.queued_bytes);
            let mut waiting = 0;
            core.queues.peek_while(&connection.queue, &mut frames, |frame| {
                waiting += core.frames.len_of(frame);
                true
            });
            frames.clear();
            let in_flight = connection.queued_bytes - waiting + connection.send_start;
            let ending = if connection.phase == Phase::Open { 0 } else { waiting };
            inspection.leaving_bytes += u64::from(ending + if connection.sending { in_flight } else { 0 });
            inspection.queued_bytes_max = inspection.queued_bytes_max.max(connection.queued_bytes as usize);
        }
        inspection
    }

    /// Some queue towards this shard holds an envelope: while it sleeps, a doorbell has to be on its way.
    pub fn has_inbound(&self) -> bool {
        self.core().port.has_inbound()
    }

    /// Who is in a room, as this shard knows it: users with their sessions where it is the room's home, and sessions of its own.
    pub fn roll(&self, room: &str) -> chat::Roll {
        self.core().chat.roll(room)
    }

    /// The state of one connection; `None` when it is gone.
    pub fn state_of(&self, key: Key) -> Option<State> {
        self.core().connections.get(key).map(|connection| connection.state())
    }
}

impl<S> Core<S> {
    fn doing(&self, key: Key, connection: &Connection<S>) -> Doing {
        let (joining, asking) = self.chat.asks(key);
        let stranger = connection.phase == Phase::Handshake;
        Doing {
            verifying: stranger && connection.waits == Waits::Verdict,
            renewing: !stranger && connection.waits == Waits::Verdict,
            joining,
            asking,
            held: connection.holds > 0,
            out_of_tokens: connection.waits == Waits::Rate,
            blocked: connection.waits == Waits::Mesh,
            not_reading: connection.waits == Waits::Reader,
        }
    }
}
