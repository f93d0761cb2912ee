//! Completions, and the receives behind them: armed from idle only, cancelled when nothing is wanted, starved until buffers come back.

use super::Reactor;
use super::connection::{Phase, Receive};
use super::counters::Ended;
use super::effects::Ending;
use crate::ids::Key;
use crate::mutation::{Mutation, planted};
use crate::ring::{Buffer, Completion, Errno, Io};

/// Completions after which what was read so far is delivered into queues. One turn can read more than any queue may hold: those that are full by it have
/// to be seen before the next requests of their owners are judged.
const DELIVER_EVERY: usize = 8;

impl<I: Io> Reactor<I> {
    /// Takes at most `budget` completions; `true` when there may be more.
    pub(super) fn reap(&mut self, budget: usize) -> bool {
        for taken in 1..=budget {
            let Some(completion) = self.io.reap() else { return false };
            if taken % DELIVER_EVERY == 0 {
                self.take_answers();
            }
            match completion {
                Completion::Accepted { listener, result, more } => self.accepted(listener, result, more),
                Completion::Received { key, result, more } => self.received(key, result, more),
                Completion::Sent { key, loan, result } => self.sent(key, loan, result),
                Completion::Doorbell => self.obey(),
            }
        }
        true
    }

    fn received(&mut self, key: Key, result: Result<Option<Buffer>, Errno>, more: bool) {
        let Some(connection) = self.core.connections.get_mut(key) else {
            if let Ok(Some(buffer)) = result {
                self.io.recycle(buffer);
            }
            return;
        };
        if !more {
            connection.receive = Receive::Idle;
            self.core.want_rearm(key);
            if connection_is_ending(self.core.connections.get(key).map(|c| c.phase)) {
                self.core.closing.push(key);
            }
        }
        match result {
            Ok(Some(buffer)) => {
                self.core.bytes_in(key, self.io.bytes(&buffer));
                self.io.recycle(buffer);
            }
            Ok(None) => self.end_of_stream(key),
            Err(Errno(libc::ENOBUFS)) => {
                self.core.counters.starved.add(1);
                if let Some(connection) = self.core.connections.get_mut(key).filter(|c| !c.starved) {
                    connection.starved = true;
                    self.starved.push_back(key);
                }
            }
            Err(Errno(libc::ECANCELED | libc::EINTR | libc::EAGAIN)) => {}
            Err(_) => self.lost(key),
        }
    }

    /// The client has closed its side: what it has asked is still answered, what is queued for it still goes out.
    fn end_of_stream(&mut self, key: Key) {
        let Some(connection) = self.core.connections.get_mut(key) else { return };
        connection.eof = true;
        if connection.phase == Phase::Open {
            self.core.hang_up_if_judged(key);
        } else {
            self.core.end_and_settle(key, Ending::silent(Ended::PeerClosed));
        }
        self.core.closing.push(key);
    }

    /// The socket is broken: nothing more goes out or comes in.
    pub(super) fn lost(&mut self, key: Key) {
        self.core.end_and_settle(key, Ending::silent(Ended::PeerLost));
        self.join(key);
    }

    /// Arms and cancels receives, as far as the submission queue has room.
    pub(super) fn submit_receives(&mut self) {
        self.feed_starved();
        for _ in 0..self.core.rearm.len() {
            let Some(key) = self.core.rearm.pop_front() else { return };
            let Some(connection) = self.core.connections.get(key) else { continue };
            let wanted = self.core.wants_bytes(connection) && !connection.starved;
            let full = match connection.receive {
                Receive::Idle if wanted => self.arm(key),
                Receive::Armed if !wanted => self.cancel(key),
                Receive::Cancelling if wanted && planted(Mutation::ArmBeforeCancelEnd) => self.arm(key),
                _ => false,
            };
            if full {
                self.core.rearm.push_back(key);
                return;
            }
            if let Some(connection) = self.core.connections.get_mut(key) {
                connection.rearm = false;
            }
        }
    }

    /// `true` when the submission queue has no room.
    fn arm(&mut self, key: Key) -> bool {
        let connection = self.core.connections.get_mut(key).expect("found by the caller");
        let full = match connection.phase {
            Phase::Open => self.io.receive_multishot(key, &connection.socket),
            _ => self.io.receive_once(key, &connection.socket),
        };
        if full.is_ok() {
            connection.receive = Receive::Armed;
        }
        full.is_err()
    }

    fn cancel(&mut self, key: Key) -> bool {
        let connection = self.core.connections.get_mut(key).expect("found by the caller");
        if self.io.cancel_receive(key).is_err() {
            return true;
        }
        connection.receive = Receive::Cancelling;
        self.core.counters.receive_cancels.add(1);
        false
    }

    /// Buffers have come back: as many starved connections as there are buffers may receive again.
    fn feed_starved(&mut self) {
        let mut buffers = self.io.buffers_left();
        while buffers > 0 {
            let Some(key) = self.starved.pop_front() else { return };
            let Some(connection) = self.core.connections.get_mut(key) else { continue };
            connection.starved = false;
            self.core.want_rearm(key);
            buffers -= 1;
        }
    }
}

fn connection_is_ending(phase: Option<Phase>) -> bool {
    matches!(phase, Some(Phase::Closing | Phase::Lingering | Phase::Joining))
}
