//! The requests that wait for an answer, in the order in which they were made.
//!
//! Owns their frames, so that one can be said again word for word: same key, same bytes. A request is waiting (not on this connection yet, or to be
//! repeated later) or in flight. Bounded in number and bytes; full is an answer. Requests about one room leave in order: behind one that must wait,
//! the others of its room wait too. It knows nothing of connections or rooms beyond what it is told in [`Requests::write`].

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::event::{Lifetime, Reject};

/// Requests unanswered.
const REQUESTS_MAX: usize = 4_096;
/// Bytes of their frames.
const REQUESTS_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes written ahead of the transport.
const AHEAD_BYTES_MAX: usize = 256 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// As the caller asked.
    Join,
    /// By the session itself, after a reconnect or a gap.
    Rejoin,
    /// The leave that comes before the [`Kind::Rejoin`] after a gap.
    CureLeave,
    Leave,
    Send(Lifetime),
    History,
    Presence,
}

#[derive(Debug)]
pub(super) struct Request {
    pub(super) id: u64,
    pub(super) kind: Kind,
    pub(super) room: String,
    pub(super) frame: Vec<u8>,
    state: State,
    /// When it was first given to a transport: from then on the server may know it.
    pub(super) first: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting { not_before: Option<Instant> },
    InFlight { since: Instant },
}

impl Request {
    pub(super) fn new(id: u64, kind: Kind, room: &str) -> Self {
        Self { id, kind, room: room.to_owned(), frame: Vec::new(), state: State::Waiting { not_before: None }, first: None }
    }

    pub(super) fn is_send(&self) -> bool {
        matches!(self.kind, Kind::Send(_))
    }

    fn is_join(&self) -> bool {
        matches!(self.kind, Kind::Join | Kind::Rejoin | Kind::CureLeave)
    }

    /// To be said again at `when`.
    pub(super) fn postpone(&mut self, when: Instant) {
        self.state = State::Waiting { not_before: Some(when) };
    }
}

#[derive(Debug, Default)]
pub(super) struct Requests {
    list: VecDeque<Request>,
    bytes: usize,
}

impl Requests {
    /// Whether one more of the caller's may come in.
    pub(super) fn admit(&self, bytes: usize) -> Result<(), Reject> {
        let full = self.list.len() >= REQUESTS_MAX || self.bytes + bytes > REQUESTS_BYTES_MAX;
        if full { Err(Reject::Full) } else { Ok(()) }
    }

    pub(super) fn push(&mut self, request: Request) {
        self.bytes += request.frame.len();
        self.list.push_back(request);
    }

    /// In front of all others: joins, which the others stand on.
    pub(super) fn push_front(&mut self, request: Request) {
        self.bytes += request.frame.len();
        self.list.push_front(request);
    }

    /// Takes out the request that an answer names.
    pub(super) fn answered(&mut self, id: u64) -> Option<Request> {
        let index = self.list.iter().position(|request| request.id == id)?;
        let request = self.list.remove(index)?;
        self.bytes -= request.frame.len();
        Some(request)
    }

    /// Puts back what [`Requests::answered`] took, before everything that was asked later.
    pub(super) fn put_back(&mut self, request: Request) {
        self.bytes += request.frame.len();
        // Joins stand in front of all, so the first later one is the place for each other kind.
        let later = self.list.iter().position(|other| !other.is_join() && other.id > request.id);
        let index = if request.is_join() { 0 } else { later.unwrap_or(self.list.len()) };
        self.list.insert(index, request);
    }

    /// Lets go of joins, which are made anew.
    pub(super) fn drop_joins(&mut self) {
        self.disconnect(|request| !request.is_join());
    }

    /// Sends first tried at `when` or before.
    pub(super) fn sends_tried_before(&self, when: Option<Instant>) -> Vec<u64> {
        let old = self.list.iter().filter(|request| request.is_send() && request.first.is_some_and(|first| Some(first) <= when));
        old.map(|request| request.id).collect()
    }

    pub(super) fn sends(&self) -> usize {
        self.list.iter().filter(|request| request.is_send()).count()
    }

    /// The connection is gone: all wait again, except those that `keep` lets go of.
    pub(super) fn disconnect(&mut self, mut keep: impl FnMut(&Request) -> bool) {
        self.list.retain_mut(|request| {
            request.state = State::Waiting { not_before: None };
            keep(request)
        });
        self.bytes = self.list.iter().map(|request| request.frame.len()).sum();
    }

    /// Writes what may go out now. `open` says whether a room can take sends; at most `window` sends are in flight.
    pub(super) fn write(&mut self, now: Instant, out: &mut Vec<u8>, gate: &Gate<'_>) {
        let mut in_flight = self.list.iter().filter(|r| r.is_send() && matches!(r.state, State::InFlight { .. })).count();
        let mut blocked: Vec<&str> = Vec::new();
        for request in &mut self.list {
            let State::Waiting { not_before } = request.state else { continue };
            if out.len() > AHEAD_BYTES_MAX {
                return;
            }
            let is_send = matches!(request.kind, Kind::Send(_));
            let must_wait = not_before.is_some_and(|when| when > now)
                || blocked.contains(&request.room.as_str())
                || (is_send && (in_flight >= gate.window || !(gate.open)(&request.room)));
            if must_wait {
                blocked.push(&request.room);
                continue;
            }
            in_flight += usize::from(is_send);
            out.extend_from_slice(&request.frame);
            request.state = State::InFlight { since: now };
            request.first.get_or_insert(now);
        }
    }

    /// When something has to be looked at: an answer overdue, a repetition due.
    pub(super) fn deadline(&self, patience: Duration, now: Instant) -> Option<Instant> {
        let due = self.list.iter().filter_map(|request| match request.state {
            State::InFlight { since } => Some(since + patience),
            // One that is due and still waits is held back by something else, which wakes it.
            State::Waiting { not_before } => not_before.filter(|when| *when > now),
        });
        due.min()
    }

    pub(super) fn is_overdue(&self, patience: Duration, now: Instant) -> bool {
        self.list.iter().any(|request| matches!(request.state, State::InFlight { since } if since + patience <= now))
    }
}

/// What requests may leave.
pub(super) struct Gate<'a> {
    pub(super) window: usize,
    pub(super) open: &'a dyn Fn(&str) -> bool,
}
