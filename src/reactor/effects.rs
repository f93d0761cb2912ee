//! Carries out what the rules say: queues frames on sessions, posts envelopes, appends to the log, ends sessions.

use bytes::{Bytes, BytesMut};

use super::connection::{Phase, Waits};
use super::core::Core;
use super::counters::Ended;
use super::crowd::UNDER_PRESSURE_FRAMES_MAX;
use crate::chat::{Class, Effect, Worth};
use crate::config::Deadline;
use crate::ids::{Key, SessionId};
use crate::memory::frames::FrameId;
use crate::mesh::Envelope;
use crate::mutation::{Mutation, planted};
use crate::protocol::encode::{self, Outgoing};
use crate::protocol::error::Reason;

/// A frame on its way into queues.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    pub(super) frame: FrameId,
    pub(super) len: u32,
    /// The store's tag of the frame: what may become of it.
    pub(super) tag: u8,
    pub(super) class: Class,
}

/// The words of a session's end. `said` `None`: the client is gone, nothing is said.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    pub(super) ended: Ended,
    pub(super) message: Option<&'static str>,
    pub(super) retry_after_ms: Option<u64>,
}

impl Ending {
    pub(super) fn said(reason: Reason, message: Option<&'static str>) -> Self {
        Self { ended: Ended::Said(reason), message, retry_after_ms: None }
    }

    pub(super) fn silent(ended: Ended) -> Self {
        Self { ended, message: None, retry_after_ms: None }
    }
}

impl<S> Core<S> {
    pub(super) fn carry_out(&mut self, effect: Effect, targets: &[SessionId]) {
        match effect {
            Effect::Queue { session, payload, worth } => self.queue_worth(session, payload, worth),
            Effect::Fanout { payload, targets: range, class, worth, stamps } => {
                self.fan_out(payload, &targets[range.clone()], class, worth);
                if let Some(first) = targets[range].first().filter(|_| stamps.received.is_sampled()) {
                    self.follow(*first, stamps);
                }
            }
            Effect::Tell { ticket, payload } => self.told(ticket, payload),
            Effect::Post { to, envelope } => self.port.post(to, Envelope::Chat(envelope)),
            Effect::Append { token, entry } => self.log.append(self.now, token, &entry),
            Effect::Close { session, reason, message } => self.end(session, Ending::said(reason, message)),
            Effect::HangUp { session } => self.end(session, Ending::silent(Ended::PeerClosed)),
            Effect::Hold { session } => {
                if let Some(connection) = self.connections.get_mut(session) {
                    connection.holds += 1;
                    self.want_rearm(session);
                }
            }
            Effect::Release { session } => {
                let now_ms = self.now_ms();
                if let Some(connection) = self.connections.get_mut(session) {
                    connection.holds = connection.holds.saturating_sub(1);
                    connection.read_ms = now_ms;
                    self.want_rearm(session);
                }
            }
        }
    }

    /// Queues a frame on one session.
    pub(super) fn queue_payload(&mut self, session: SessionId, payload: Bytes) {
        self.queue_worth(session, payload, Worth::Kept);
    }

    fn queue_worth(&mut self, session: SessionId, payload: Bytes, worth: Worth) {
        let Ok(frame) = self.frames.insert(payload) else {
            return self.end(session, Ending::said(Reason::Overloaded, Some("this server's frame store is full")));
        };
        let item = Item { frame, len: self.frames.len_of(frame), tag: self.tag(frame, worth), class: Class::Interactive };
        if !self.push(session, item) {
            self.frames.release(frame);
        }
        self.hold_to_budget();
    }

    /// Queues one frame on many sessions, whole: between the first and the last nothing else happens.
    fn fan_out(&mut self, payload: Bytes, targets: &[SessionId], class: Class, worth: Worth) {
        let Ok(frame) = self.frames.insert(payload) else {
            for session in targets {
                self.end(*session, Ending::said(Reason::Overloaded, Some("this server's frame store is full")));
            }
            return;
        };
        let item = Item { frame, len: self.frames.len_of(frame), tag: self.tag(frame, worth), class };
        let mut taken = 0;
        for session in targets {
            taken += u32::from(self.push(*session, item));
        }
        self.frames.retain(frame, taken);
        self.frames.release(frame);
        self.hold_to_budget();
        self.counters.deliveries.add(u64::from(taken));
    }

    /// Appends a frame to a session's queue and makes the session one to send to; `false` when it does not take it. The count is the caller's.
    fn push(&mut self, session: SessionId, item: Item) -> bool {
        let Some(connection) = self.connections.get(session) else { return false };
        if connection.phase != Phase::Open {
            return false;
        }
        let crowded = connection.queued_bytes as usize + item.len as usize > self.settings.queues.soft_mark_bytes / 2;
        if (crowded || connection.queue.len() >= UNDER_PRESSURE_FRAMES_MAX) && !self.takes(session, item) {
            return false;
        }
        let connection = self.connections.get_mut(session).expect("found above");
        let first = connection.queue.is_empty();
        if self.queues.push(&mut connection.queue, item.frame).is_err() {
            self.end(session, Ending::said(Reason::Overloaded, Some("this server's send queues are full")));
            return false;
        }
        connection.queued_bytes += item.len;
        connection.droppable |= item.is_droppable();
        self.queue_high.note(u64::from(connection.queued_bytes));
        if !connection.slow && connection.queued_bytes as usize > self.settings.queues.soft_mark_bytes {
            connection.slow = true;
            self.marks.push((session, true));
        }
        if connection.sending {
            // The next send is bulk if all it carries is.
            connection.bulk = item.class == Class::Bulk && (first || connection.bulk);
        } else {
            self.mark_dirty(session, item.class);
        }
        true
    }

    /// The session has something to send. An interactive frame pulls a session out of the bulk list.
    pub(super) fn mark_dirty(&mut self, key: Key, class: Class) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let bulk = class == Class::Bulk;
        if connection.dirty && (!connection.bulk || bulk) {
            return;
        }
        connection.dirty = true;
        connection.bulk = bulk;
        if bulk {
            self.bulk.push_back(key);
            self.lists.bulk.enter(self.now.mono_ns);
        } else {
            self.interactive.push_back(key);
            self.lists.interactive.enter(self.now.mono_ns);
        }
    }

    /// Ends a connection: the rules forget the session at once, what is queued and the `bye` go out, then the socket is closed.
    pub(super) fn end(&mut self, key: Key, ending: Ending) {
        let flushed_ms = self.due_ms(Deadline::Flush);
        let Some(connection) = self.connections.get_mut(key) else { return };
        if !matches!(connection.phase, Phase::Handshake | Phase::Open) {
            return;
        }
        if connection.phase == Phase::Open {
            self.ended.push(key);
        }
        self.no_longer_a_stranger(key);
        let connection = self.connections.get_mut(key).expect("found above");
        connection.phase = Phase::Closing;
        connection.ended = ending.ended;
        connection.waits = Waits::No;
        connection.deadline_ms = flushed_ms;
        self.counters.end(ending.ended);
        if let Some(public_id) = self.chat.public_id(key) {
            self.directory.remove(public_id);
        }
        if !planted(Mutation::KeepQuestion) {
            self.asked.remove(&key);
        }
        self.crowd.forget(key);
        self.forget_unread(key);
        if let Ended::Said(reason) = ending.ended {
            if reason == Reason::SlowConsumer {
                self.drop_queue(key);
            }
            self.queue_bye(key, reason, ending);
        }
        self.check_no_later(key, flushed_ms);
        self.want_rearm(key);
        self.closing.push(key);
    }

    /// The last object, above every mark. Without room for it the connection closes without it.
    fn queue_bye(&mut self, key: Key, reason: Reason, ending: Ending) {
        let mut out = BytesMut::with_capacity(256);
        // Whose end is the server's doing may come back, and not with all others at once.
        let retry_after_ms = ending.retry_after_ms.or_else(|| (reason.code() == 503).then(|| self.retry_ms(key.slot)));
        encode::frame(&Outgoing::Bye { reason, message: ending.message, retry_after_ms }, &mut out);
        let Ok(frame) = self.frames.insert(out.freeze()) else { return };
        let len = self.frames.len_of(frame);
        let connection = self.connections.get_mut(key).expect("found by the caller");
        if self.queues.push(&mut connection.queue, frame).is_err() {
            self.frames.release(frame);
            return;
        }
        connection.queued_bytes += len;
        if !connection.sending {
            self.mark_dirty(key, Class::Interactive);
        }
    }

    /// Throws away what is queued and not in flight.
    pub(super) fn drop_queue(&mut self, key: Key) {
        let connection = self.connections.get_mut(key).expect("found by the caller");
        let frames = &mut self.frames;
        let mut dropped = 0;
        self.queues.clear(&mut connection.queue, |frame| {
            dropped += frames.len_of(frame);
            frames.release(frame);
        });
        connection.queued_bytes -= dropped;
    }
}
