//! New connections: multishot accepts, back-off when descriptors run out, a `bye` for those that find no place.
//!
//! A drain ends the accepts, takes what already stands in the listeners' queues, and closes the listeners: a client whose connect has succeeded gets its
//! `bye` and no reset.

use std::sync::atomic::Ordering;

use super::Reactor;
use super::connection::Connection;
use super::core::{Core, Drain};
use super::counters::Ended;
use super::effects::Ending;
use super::overload::Sheds;
use crate::config::Deadline;
use crate::ids::Key;
use crate::limits::ACCEPT_BACKOFF_MS_MAX;
use crate::mesh::Move;
use crate::protocol::error::Reason;
use crate::ring::{Errno, Io, ListenerId};

/// After a failed accept: the first pause, milliseconds. Never none: EMFILE would otherwise spin.
const BACKOFF_MS: u64 = 20;
/// Connections taken from a listener's queue in one turn of a drain.
const EMPTIED_MAX: usize = 256;
/// A client that is turned away may come back after this.
const SHED_RETRY_MS: u64 = 1_000;

/// One listener's accept.
#[derive(Debug)]
pub(super) struct Accept {
    id: ListenerId,
    state: AcceptState,
    backoff_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AcceptState {
    /// To be armed at this time, milliseconds of the monotonic clock.
    Idle {
        at_ms: u64,
    },
    Armed,
    /// No more connections are wanted.
    Cancelling,
    /// The accept has ended; what waits at the listener is taken in, to be told so.
    Emptying,
    /// The listener is closed.
    Off,
}

impl Accept {
    pub(super) fn new(id: u8) -> Self {
        Self { id: ListenerId(id), state: AcceptState::Idle { at_ms: 0 }, backoff_ms: BACKOFF_MS }
    }

    pub(super) fn descriptor_came_back(&mut self) {
        if let AcceptState::Idle { at_ms } = &mut self.state {
            *at_ms = 0;
        }
    }

    /// When the accept wants to be armed.
    pub(super) fn due_ms(&self) -> Option<u64> {
        match self.state {
            AcceptState::Idle { at_ms } => Some(at_ms),
            _ => None,
        }
    }

    pub(super) fn is_off(&self) -> bool {
        self.state == AcceptState::Off
    }

    /// There is more to take from the listener's queue.
    pub(super) fn is_emptying(&self) -> bool {
        self.state == AcceptState::Emptying
    }
}

impl<I: Io> Reactor<I> {
    /// Arms what is due; while draining, ends what is armed.
    pub(super) fn submit_accepts(&mut self) {
        let now_ms = self.core.now_ms();
        let wanted = self.core.drain == Drain::No;
        for accept in &mut self.accepts {
            match accept.state {
                AcceptState::Idle { .. } if !wanted => accept.state = AcceptState::Emptying,
                AcceptState::Idle { at_ms } if at_ms <= now_ms && self.io.accept(accept.id).is_ok() => {
                    accept.state = AcceptState::Armed;
                }
                AcceptState::Armed if !wanted && self.io.cancel_accept(accept.id).is_ok() => {
                    accept.state = AcceptState::Cancelling;
                }
                AcceptState::Emptying => {
                    let stops = self.core.drain == Drain::Stopping;
                    let mut waiting = (0..EMPTIED_MAX).map_while(|_| if stops { None } else { self.io.accept_waiting(accept.id) });
                    let taken = waiting.by_ref().map(|socket| self.core.take_in(socket)).count();
                    if taken < EMPTIED_MAX {
                        self.io.close_listener(accept.id);
                        accept.state = AcceptState::Off;
                    }
                }
                _ => {}
            }
        }
    }

    pub(super) fn accepted(&mut self, listener: ListenerId, result: Result<I::Socket, Errno>, more: bool) {
        let now_ms = self.core.now_ms();
        let accept = &mut self.accepts[usize::from(listener.0)];
        let ended = !more;
        if ended {
            let off = accept.state == AcceptState::Cancelling;
            accept.state = if off { AcceptState::Emptying } else { AcceptState::Idle { at_ms: now_ms } };
        }
        match result {
            Ok(socket) => {
                accept.backoff_ms = BACKOFF_MS;
                self.core.take_in(socket);
            }
            Err(_) if accept.is_emptying() => {}
            Err(errno) => {
                self.core.counters.accept_errors.add(1);
                if accept.backoff_ms == BACKOFF_MS {
                    log::warn!("accept failed with errno {}: trying again, at the latest in a second", errno.0);
                }
                if ended {
                    accept.state = AcceptState::Idle { at_ms: now_ms + accept.backoff_ms };
                }
                accept.backoff_ms = (accept.backoff_ms * 2).min(ACCEPT_BACKOFF_MS_MAX);
            }
        }
    }
}

impl<S> Core<S> {
    /// A connection was accepted: it has the time of a handshake, or none if there is no place for it.
    fn take_in(&mut self, socket: S) {
        self.counters.accepted.add(1);
        let before = self.shared.connections.fetch_add(1, Ordering::Relaxed);
        let room = before < self.connections_max && self.connections.len() < self.settings.limits.connections_per_shard_max;
        // The newcomer is not counted yet.
        let room = room && !self.is_full_of_strangers();
        let Some(key) = self.place(socket) else { return };
        if self.drain != Drain::No {
            self.counters.shed_draining.add(1);
            self.shed(key, Reason::Draining);
        } else if !room || self.sheds != Sheds::Nothing {
            let counter = if room { &self.counters.shed_overload } else { &self.counters.shed_limit };
            counter.add(1);
            self.shed(key, Reason::Overloaded);
        } else {
            self.meet(key);
        }
    }

    fn place(&mut self, socket: S) -> Option<Key> {
        let now_ms = self.now_ms();
        let deadline_ms = self.due_ms(Deadline::Handshake);
        let Ok(key) = self.connections.insert(Connection::new(socket, now_ms, deadline_ms)) else {
            self.shared.connections.fetch_sub(1, Ordering::Relaxed);
            self.count_end(Ended::NoPlace);
            return None;
        };
        self.strangers += 1;
        self.check_no_later(key, deadline_ms);
        self.want_rearm(key);
        Some(key)
    }

    fn shed(&mut self, key: Key, reason: Reason) {
        let retry_ms = if reason == Reason::Draining { self.retry_ms(key.slot) } else { SHED_RETRY_MS };
        let ending = Ending { retry_after_ms: Some(retry_ms), ..Ending::said(reason, None) };
        self.end_and_settle(key, ending);
    }

    /// A socket has moved here, to its user's home shard.
    pub(super) fn moved_in(&mut self, moved: Move<S>) {
        self.counters.moved_in.add(1);
        let Some(key) = self.place(moved.socket) else { return };
        if self.drain != Drain::No {
            return self.shed(key, Reason::Draining);
        }
        // Its `hello` was in time: it is the server that is late.
        if self.now_ms() >= moved.deadline_ms {
            self.counters.moved_late.add(1);
            return self.shed(key, Reason::Overloaded);
        }
        if let Some(client) = moved.client {
            self.clients.insert(key, client);
        }
        self.log_in(key, moved.login);
        self.bytes_in_behind_hello(key, &moved.unread);
    }

    fn bytes_in_behind_hello(&mut self, key: Key, unread: &[u8]) {
        if !unread.is_empty() {
            self.bytes_in(key, unread);
        }
    }
}
