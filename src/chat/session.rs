//! What the rules know of a session: its user, its rooms, its manners.

use std::num::NonZeroU64;
use std::sync::Arc;

use smallvec::SmallVec;

use super::rights::{Right, Rights};
use super::stall::{StallBudget, low};
use crate::ids::{Key, SessionId};
use crate::limits::{BAD_OBJECTS_MAX, BAD_OBJECTS_WINDOW_MS};
use crate::mutation::{Mutation, planted};

#[derive(Debug)]
pub(super) struct Session {
    /// Of the slot that it stands in: tells it from a session that was there before.
    generation: u32,
    pub(super) user: Key,
    /// What the client reads as `session`.
    pub(super) public_id: u64,
    pub(super) rooms: SmallVec<[Entry; 1]>,
    pub(super) device: Option<Box<str>>,
    /// What its token allows; `None`: everything.
    pub(super) rights: Option<Arc<Rights>>,
    /// When its token ends, milliseconds since 1970; `None`: it came without one.
    pub(super) expires_at: Option<NonZeroU64>,
    /// Requests without an answer, whatever shard they went to.
    pub(super) unanswered: u32,
    /// The client has said that it goes; it goes when everything it asked is answered.
    pub(super) leaving: Leaving,
    /// What its slow reading has cost the senders of its rooms.
    pub(super) stalls: StallBudget,
    bad_objects: u8,
    /// When the first of them came, the lower half of the monotonic clock's milliseconds.
    bad_since_ms: u32,
}

/// How a client has said that it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    No,
    /// With `bye`, which is answered.
    Bye,
    /// By closing its side.
    EndOfStream,
}

/// A room in a session's list: from the first join to the last answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) place: Key,
    /// Where the place's list names this session; [`Entry::NO_MEMBER`] before the home's answer and after `left`.
    pub(super) member: u32,
    /// Joins and leaves the home has not answered yet.
    pub(super) unanswered: u16,
    /// The session's last word on this room was `join`: what it sends next is judged as a member's.
    pub(super) wanted: bool,
    pub(super) echo: bool,
}

impl Entry {
    pub(super) const NO_MEMBER: u32 = u32::MAX;

    pub(super) fn is_member(&self) -> bool {
        self.member != Self::NO_MEMBER
    }
}

impl Session {
    pub(super) fn new(id: SessionId, user: Key, device: Option<Box<str>>) -> Self {
        Self {
            generation: id.generation,
            user,
            public_id: 0,
            rooms: SmallVec::new(),
            device,
            rights: None,
            expires_at: None,
            unanswered: 0,
            leaving: Leaving::No,
            stalls: StallBudget::default(),
            bad_objects: 0,
            bad_since_ms: 0,
        }
    }

    /// It is the session of this id, whose slot it was found in.
    pub(super) fn is(&self, id: SessionId) -> bool {
        self.generation == id.generation
    }

    pub(super) fn entry_of(&self, place: Key) -> Option<usize> {
        self.rooms.iter().position(|entry| entry.place == place)
    }

    pub(super) fn allows(&self, room: &str, right: Right) -> bool {
        self.rights.as_ref().is_none_or(|rights| rights.allows(room, right)) || planted(Mutation::IgnoreRights)
    }

    /// Counts a bad object; `true` when it is one too many within the window.
    pub(super) fn misbehaved(&mut self, now_ms: u64) -> bool {
        let now_ms = low(now_ms);
        if self.bad_objects == 0 || u64::from(now_ms.wrapping_sub(self.bad_since_ms)) >= BAD_OBJECTS_WINDOW_MS {
            self.bad_objects = 0;
            self.bad_since_ms = now_ms;
        }
        self.bad_objects += 1;
        self.bad_objects >= BAD_OBJECTS_MAX
    }
}

const _: () = assert!(size_of::<Option<Session>>() <= 112, "a session's cold half");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_eighth_bad_object_within_a_minute_is_one_too_many() {
        let key = Key { slot: 0, generation: 0 };
        let mut session = Session::new(key, key, None);
        for at in 0..7 {
            assert!(!session.misbehaved(1_000 + at));
        }
        assert!(session.misbehaved(60_999));
        let mut patient = Session::new(key, key, None);
        for at in 0..7 {
            assert!(!patient.misbehaved(1_000 + at));
        }
        assert!(!patient.misbehaved(61_000), "the window has passed");
    }
}
