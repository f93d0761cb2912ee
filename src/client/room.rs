//! What a session knows of one room (or of the user's inbox): where it stands, and what it has seen.
//!
//! Owns the rule that makes "once": a message is for the caller if the room is being read ([`Phase::In`]) and its position is not among the last ones
//! seen. Positions are opaque, so they are compared for equality alone; a replay has at most 1,000 messages, so remembering a few more than that
//! recognises every double a replay can bring.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use super::event::{Join, Joined, Message};

/// Positions remembered per room; more than a replay has.
const SEEN_MAX: usize = 1_100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not joined on this connection: whatever comes will come again.
    Out,
    In,
}

#[derive(Debug)]
pub(super) struct Room {
    pub(super) wanted: Join,
    pub(super) phase: Phase,
    /// The newest position that the caller is past.
    pub(super) last: Option<String>,
    /// The caller's join that was not answered yet.
    pub(super) ticket: Option<u64>,
    /// Answered, but nothing of its replay has come: told with the first message, because until then the room could not be taken up from anywhere.
    pub(super) held: Option<Joined>,
    seen: Seen,
}

/// What becomes of a message.
#[derive(Debug)]
pub(super) enum Taken {
    /// For the caller, after the `Joined` that was held back.
    New(Option<Joined>),
    /// Seen before, or it will come again.
    Dropped,
}

impl Room {
    pub(super) fn new(wanted: Join) -> Self {
        let last = wanted.since.clone();
        Self { wanted, phase: Phase::Out, last, ticket: None, held: None, seen: Seen::default() }
    }

    pub(super) fn take(&mut self, message: &Message) -> Taken {
        if self.phase == Phase::Out {
            return Taken::Dropped;
        }
        if let Some(at) = &message.at {
            if !self.seen.insert(at) {
                return Taken::Dropped;
            }
            self.last = Some(at.clone());
        }
        Taken::New(self.announce())
    }

    /// The held-back answer, now that it may be told.
    fn announce(&mut self) -> Option<Joined> {
        let held = self.held.take()?;
        self.ticket = None;
        Some(held)
    }

    /// The connection is gone; a join that was not told is asked again as if new.
    pub(super) fn disconnect(&mut self) {
        self.phase = Phase::Out;
        self.held = None;
    }
}

/// The last positions, in the order seen.
#[derive(Debug, Default)]
struct Seen {
    order: VecDeque<Arc<str>>,
    known: HashSet<Arc<str>>,
}

impl Seen {
    /// False when it was there.
    fn insert(&mut self, at: &str) -> bool {
        if self.known.contains(at) {
            return false;
        }
        if self.order.len() == SEEN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        let at: Arc<str> = at.into();
        self.order.push_back(at.clone());
        self.known.insert(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_remembered_up_to_the_bound_and_for_a_whole_replay() {
        let mut seen = Seen::default();
        for n in 0..5_000 {
            assert!(seen.insert(&format!("1.{n}-0")));
        }
        assert_eq!((seen.order.len(), seen.known.len()), (SEEN_MAX, SEEN_MAX));
        assert!((4_000..5_000).all(|n| !seen.insert(&format!("1.{n}-0"))));
    }
}
