//! The end of a connection in three steps: what is queued goes out, nothing is in flight any longer, the slot is free.
//!
//! `Closing` sends the rest and the `bye`; `Lingering` has shut down its side and throws away what still comes, so that the last object arrives;
//! `Joining` waits until the kernel holds nothing of the connection. Only then is the socket closed and the slot freed.

use super::Reactor;
use super::connection::{Connection, Phase};
use super::core::Core;
use crate::config::Deadline;
use crate::ids::Key;
use crate::limits::LINGER_BYTES_MAX;
use crate::mutation::{Mutation, planted};
use crate::ring::{Io, Side};

impl<S> Core<S> {
    /// Takes a connection out of the slab, with nothing in flight and nothing queued.
    pub(super) fn take_out(&mut self, key: Key) -> Option<Connection<S>> {
        self.deadlines.cancel(key.slot);
        self.stalls.cancel(key.slot);
        self.no_longer_a_stranger(key);
        if !self.clients.is_empty() {
            self.clients.remove(&key);
        }
        self.connections.remove(key)
    }
}

impl<I: Io> Reactor<I> {
    /// Moves every connection on the list as far as it can go.
    pub(super) fn advance_closing(&mut self) {
        while let Some(key) = self.core.closing.pop() {
            self.advance_close(key);
        }
    }

    fn advance_close(&mut self, key: Key) {
        let closed_ms = self.core.due_ms(Deadline::Linger);
        let Some(connection) = self.core.connections.get_mut(key) else { return };
        match connection.phase {
            Phase::Handshake | Phase::Open => {}
            Phase::Closing if connection.sending || !connection.queue.is_empty() => {}
            Phase::Closing if connection.eof => self.join(key),
            Phase::Closing => {
                connection.phase = Phase::Lingering;
                connection.deadline_ms = closed_ms;
                self.io.shutdown(&connection.socket, Side::Write);
                self.core.check_no_later(key, closed_ms);
                self.core.want_rearm(key);
            }
            Phase::Lingering => {
                if connection.eof || connection.discarded as usize >= LINGER_BYTES_MAX {
                    self.join(key);
                }
            }
            Phase::Joining => {
                if connection.is_joined() || planted(Mutation::FreeSlotInFlight) {
                    self.release(key);
                }
            }
        }
    }

    /// Nothing more is sent or read: what is in flight is cut short.
    pub(super) fn join(&mut self, key: Key) {
        let Some(connection) = self.core.connections.get_mut(key) else { return };
        if connection.phase == Phase::Joining {
            return;
        }
        connection.phase = Phase::Joining;
        if connection.sending {
            // A send that waits for a reader that never reads ends only when its socket does.
            self.io.shutdown(&connection.socket, Side::Both);
            self.core.cut.push(key);
        }
        self.core.drop_queue(key);
        self.core.want_rearm(key);
        self.core.closing.push(key);
    }

    /// Closes the socket and frees the slot.
    fn release(&mut self, key: Key) {
        let connection = self.core.take_out(key).expect("found by the caller");
        debug_assert!(connection.queue.is_empty());
        self.core.shared.connections.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
        drop(connection);
        // A descriptor is free again: a listener that had run out of them need not wait for its timer.
        for accept in &mut self.accepts {
            accept.descriptor_came_back();
        }
    }

    /// Cancels the sends of joining connections, as far as the submission queue has room.
    pub(super) fn submit_cuts(&mut self) {
        while let Some(key) = self.core.cut.pop() {
            // A rest that waits for the submission queue is with this side: it ends when its turn to be submitted comes.
            let waits = self.retry.iter().any(|(waiting, _)| *waiting == key);
            let in_flight = !waits && self.core.connections.get(key).is_some_and(|c| c.sending);
            if in_flight && self.io.cancel_send(key).is_err() {
                self.core.cut.push(key);
                return;
            }
        }
    }

    /// The process stops: every connection that is left is cut.
    pub(super) fn stop_all(&mut self) {
        for slot in 0..self.core.connections.slots() {
            let Some(key) = self.core.connections.key_at(slot) else { continue };
            self.core.end_and_settle(key, super::effects::Ending::silent(super::counters::Ended::Stopped));
            self.join(key);
        }
    }
}
