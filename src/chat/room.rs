//! A room's two halves: the [`Home`] on the shard its name hashes to, a [`Place`] on every shard that has members of it.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use smallvec::SmallVec;

use super::dedup::Dedup;
use super::effect::Envelope;
use super::history::History;
use super::named::Named;
use super::stall::Stalls;
use crate::config::SlowReader;
use crate::ids::{Key, Position, SessionId, SessionRef, ShardId};

/// The member side of a room on one shard. It lives while it has a member or an unanswered join or leave.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) name: Box<str>,
    pub(super) hash: u64,
    pub(super) home: ShardId,
    pub(super) members: Vec<Member>,
    /// Members that hear of others coming and going.
    pub(super) watchers: u32,
    /// Entries of sessions that point here, members or not yet.
    pub(super) entries: u32,
    /// Joins on their way that name this place. It outlives their sessions, so that the home never learns of an older place after a newer one.
    pub(super) joins: u32,
    /// Sessions of the room on all shards, as its home last said.
    pub(super) sessions: u32,
    /// What becomes of its members that fall behind.
    pub(super) slow_reader: SlowReader,
}

/// A session in a place. `entry` is where the session's own list names the place, so that leaving is O(1).
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) session: SessionId,
    pub(super) entry: u16,
    pub(super) watch: bool,
}

impl Named for Place {
    fn name(&self) -> &[u8] {
        self.name.as_bytes()
    }
    fn hash(&self) -> u64 {
        self.hash
    }
}

/// The home side of a room. It lives while it has a member, an append in the log, a deferred request, or something to remember.
#[derive(Debug)]
pub(super) struct Home {
    pub(super) name: Box<str>,
    pub(super) hash: u64,
    /// The newest position; zero before the first message.
    pub(super) at: Position,
    /// Every message behind this position is retained.
    pub(super) complete_after: Position,
    /// The newest messages; `None` before the first.
    pub(super) history: Option<Box<History>>,
    /// Keys used in the room; `None` before the first.
    pub(super) dedup: Option<Box<Dedup>>,
    /// Readers that hold the room's senders back; `None` before the first.
    pub(super) stalls: Option<Box<Stalls>>,
    /// Neighbours in the shard's list of rooms with history, least recently written first.
    pub(super) older: Option<Key>,
    pub(super) newer: Option<Key>,
    /// Who is in the room, by slot in the shard's users.
    pub(super) users: HashMap<u32, Presence, BuildHasherDefault<WordHasher>>,
    /// Where those sessions are.
    pub(super) shards: SmallVec<[ShardMembers; 2]>,
    /// Somebody has asked for `member` objects since the room came to be.
    pub(super) watched: bool,
    /// Appends handed to the log, and how many of them have been settled (answered, or given up).
    pub(super) appends: u64,
    pub(super) settled: u64,
    /// Requests that wait for room in a queue or for an append, in order.
    pub(super) deferred: VecDeque<Deferred>,
}

/// A user in a room: with so many sessions, or without one since so lately that the room still counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Presence(u32);

impl Presence {
    const ABSENT: u32 = 1 << 31;
    pub(super) const ONE: Presence = Presence(1);

    pub(super) fn absent(stamp: u32) -> Self {
        Presence(Self::ABSENT | stamp)
    }

    pub(super) fn is_absent(self) -> bool {
        self.0 & Self::ABSENT != 0
    }

    pub(super) fn sessions(self) -> u32 {
        if self.is_absent() { 0 } else { self.0 }
    }

    pub(super) fn with_one_more(self) -> Self {
        if self.is_absent() { Self::ONE } else { Presence(self.0 + 1) }
    }

    /// `None` when it was the last one.
    pub(super) fn with_one_less(self) -> Option<Self> {
        assert!(!self.is_absent() && self.0 > 0, "a session leaves a room that it is in");
        (self.0 > 1).then(|| Presence(self.0 - 1))
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct ShardMembers {
    pub(super) shard: ShardId,
    pub(super) place: Key,
    pub(super) sessions: u32,
}

/// A request that may not be judged yet.
#[derive(Debug)]
pub(super) struct Deferred {
    pub(super) envelope: Envelope,
    pub(super) from: SessionRef,
    /// Judged when this many appends of the room are settled.
    pub(super) settled: u64,
    /// A `send` is refused at this time, milliseconds of the monotonic clock.
    pub(super) deadline_ms: u64,
    /// The sender's shard was told to stop reading from it.
    pub(super) held: bool,
}

impl Named for Home {
    fn name(&self) -> &[u8] {
        self.name.as_bytes()
    }
    fn hash(&self) -> u64 {
        self.hash
    }
}

impl Home {
    pub(super) fn new(name: &str, hash: u64, complete_after: Position) -> Self {
        Self {
            name: name.into(),
            hash,
            at: Position::default(),
            complete_after,
            history: None,
            dedup: None,
            stalls: None,
            older: None,
            newer: None,
            users: HashMap::default(),
            shards: SmallVec::new(),
            watched: false,
            appends: 0,
            settled: 0,
            deferred: VecDeque::new(),
        }
    }

    /// Distinct users, those that have gone so lately that nobody was told among them.
    pub(super) fn members(&self) -> u32 {
        u32::try_from(self.users.len()).unwrap_or(u32::MAX)
    }

    /// Sessions on all shards.
    pub(super) fn sessions(&self) -> u32 {
        self.shards.iter().map(|s| s.sessions).sum()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.users.is_empty()
            && self.shards.is_empty()
            && self.appends == self.settled
            && self.deferred.is_empty()
            && self.history.is_none()
            && self.dedup.is_none()
    }

    pub(super) fn add_session(&mut self, shard: ShardId, place: Key) {
        if let Some(entry) = self.shards.iter_mut().find(|s| s.shard == shard) {
            // A newer place: the older one's sessions have all ended there, and their `Gone` is deferred here.
            entry.place = place;
            entry.sessions += 1;
            return;
        }
        self.shards.push(ShardMembers { shard, place, sessions: 1 });
    }

    pub(super) fn remove_session(&mut self, shard: ShardId) {
        let found = self.shards.iter().position(|s| s.shard == shard);
        let index = found.expect("a session leaves from a shard that had joined");
        self.shards[index].sessions -= 1;
        if self.shards[index].sessions == 0 {
            self.shards.swap_remove(index);
        }
    }
}

/// Slots are small, dense and not chosen by clients, hashes are hashes already: spreading them is enough.
#[derive(Default, Debug)]
pub(super) struct WordHasher(u64);

impl Hasher for WordHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }
    fn write_u32(&mut self, slot: u32) {
        self.write_u64(u64::from(slot));
    }
    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(26);
    }
}
