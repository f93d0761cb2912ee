//! What a check may see of a shard: counts and bounds, never contents.

use std::collections::BTreeMap;

use super::Reactor;
use super::connection::{Phase, State};
use crate::chat;
use crate::ids::Key;
use crate::memory::frames::Usage;
use crate::ring::Io;

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
    pub blocked: usize,
    pub starved: usize,
    /// Sockets sent to other shards so far, and taken in from them: what lies between, over all shards, is in transit.
    pub moved: u64,
    pub moved_in: u64,
    /// Envelopes that wait on this side for room in a queue.
    pub outboxes: usize,
    /// Some queue towards this shard holds an envelope.
    pub inbound: bool,
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
            let Some(connection) = core.connections.key_at(slot).and_then(|key| core.connections.get(key)) else { continue };
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

    /// The state of one connection; `None` when it is gone.
    pub fn state_of(&self, key: Key) -> Option<State> {
        self.core().connections.get(key).map(|connection| connection.state())
    }
}
