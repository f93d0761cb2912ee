//! Errands: what the control plane wants of a shard, through a bounded channel of the shard's own and its bell.
//!
//! Who sends one rings after it. The shard takes them between its other work, one after the other, and looks at a bounded number of slots per turn, so
//! that a list of a million rooms never holds a message up. The answer goes to a closure, called once on the shard's thread: it must not wait. An
//! errand whose deadline has passed is dropped unanswered, and so are those of a shard that ends; whoever asked has a deadline of his own.

use ahash::RandomState;
use bytes::Bytes;
use crossbeam_channel::Receiver;

use super::connection::{Phase, State};
use super::core::Core;
use super::counters::Ended;
use super::effects::Ending;
use crate::chat::{Loud, Publish, RoomView, SessionView};
use crate::ids::{Key, RoomName, SessionId, UserName};
use crate::protocol::error::Reason;
use crate::ring::Io;

/// Errands that may wait for a shard.
pub const ERRANDS_WAITING: usize = 256;
/// Messages from outside that the log has not answered.
const PUBLISHES_OPEN: usize = 1_024;
/// Slots looked at in one turn.
const SLOTS_PER_TURN: u32 = 2_048;
/// Errands begun in one turn.
const ERRANDS_PER_TURN: u32 = 32;

/// One thing to do, and who wants to know.
pub struct Errand {
    pub wish: Wish,
    /// CLOCK_MONOTONIC nanoseconds.
    pub deadline_ns: u64,
    pub done: Box<dyn FnOnce(Outcome) + Send>,
}

impl std::fmt::Debug for Errand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Errand").field("wish", &self.wish).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Rooms that have their home here, from this slot on, at most so many.
    Rooms {
        from: u32,
        most: usize,
    },
    Room(RoomName),
    /// The sessions of a user whose home this is.
    Sessions(UserName),
    /// End the session, if it still is the one with this public id.
    Kick {
        session: SessionId,
        public_id: u64,
    },
    /// To a room whose home this is.
    Publish(Publish),
    /// The slowest readers, the busiest rooms, the loudest senders, at most so many each.
    Top {
        most: usize,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// `next`: where to go on; `None`: that was all.
    Rooms {
        rooms: Vec<RoomView>,
        next: Option<u32>,
    },
    Room(Option<(RoomView, Vec<String>)>),
    Sessions(Vec<Reader>),
    /// `false`: it had gone.
    Kicked(bool),
    /// The frame that a session would have read: `sent` or `error`.
    Said(Bytes),
    Top(Top),
    /// The shard has taken as much as it may; later.
    Busy,
}

/// A session with what waits for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reader {
    pub public_id: u64,
    pub view: SessionView,
    pub state: State,
    pub queued_bytes: u32,
    /// Messages and answers that wait.
    pub queued_frames: u32,
    /// How long nothing has gone out, while something waits.
    pub stuck_ms: u64,
    /// How long nothing was read.
    pub quiet_ms: u64,
}

/// A session that takes long to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slow {
    pub public_id: u64,
    pub user: String,
    pub queued_bytes: u32,
    pub queued_frames: u32,
    pub stuck_ms: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Top {
    pub slow: Vec<Slow>,
    pub rooms: Vec<Loud>,
    pub senders: Vec<Loud>,
}

/// A shard's errands: those that wait, the walk that is under way, the messages the log has not answered.
#[derive(Debug)]
pub(super) struct Errands {
    inbox: Receiver<Errand>,
    walk: Option<Walk>,
    open: hashbrown::HashMap<u32, Errand, RandomState>,
    tickets: u32,
}

#[derive(Debug)]
struct Walk {
    errand: Errand,
    slot: u32,
    rooms: Vec<RoomView>,
    slow: Vec<(u32, Key)>,
}

impl Errands {
    pub(super) fn new(inbox: Receiver<Errand>, seeds: [u64; 4]) -> Self {
        let [a, b, c, d] = seeds;
        Self { inbox, walk: None, open: hashbrown::HashMap::with_hasher(RandomState::with_seeds(a, b, c, d)), tickets: 0 }
    }

    pub(super) fn waiting(&self) -> usize {
        self.inbox.len() + self.open.len() + usize::from(self.walk.is_some())
    }
}

impl<I: Io> super::Reactor<I> {
    /// Does some of what the control plane wants; `true` when there is more to do at once.
    pub(super) fn run_errands(&mut self) -> bool {
        let mut slots = SLOTS_PER_TURN;
        for _ in 0..ERRANDS_PER_TURN {
            if let Some(walk) = self.core.errands.walk.take()
                && !self.core.go_on_walking(walk, &mut slots)
            {
                return true;
            }
            let Ok(errand) = self.core.errands.inbox.try_recv() else { return false };
            self.core.begin_errand(errand);
        }
        true
    }
}

impl<S> Core<S> {
    fn begin_errand(&mut self, errand: Errand) {
        self.counters.errands.add(1);
        if self.now.mono_ns >= errand.deadline_ns {
            return;
        }
        match errand.wish {
            Wish::Rooms { from, .. } => self.errands.walk = Some(Walk { errand, slot: from, rooms: Vec::new(), slow: Vec::new() }),
            Wish::Top { .. } => self.errands.walk = Some(Walk { errand, slot: 0, rooms: Vec::new(), slow: Vec::new() }),
            Wish::Room(room) => (errand.done)(Outcome::Room(self.chat.room_named(room.as_str()))),
            Wish::Sessions(user) => {
                let views = self.chat.sessions_of(user.as_str());
                let readers = views.into_iter().filter_map(|view| self.reader(view)).collect();
                (errand.done)(Outcome::Sessions(readers));
            }
            Wish::Kick { session, public_id } => {
                let open = self.connections.get(session).is_some_and(|c| c.phase == Phase::Open);
                let there = open && self.chat.public_id(session) == Some(public_id);
                if there {
                    self.end_and_settle(session, Ending { ended: Ended::Said(Reason::Kicked), message: None, retry_after_ms: None });
                }
                (errand.done)(Outcome::Kicked(there));
            }
            Wish::Publish(_) => self.begin_publish(errand),
        }
    }

    fn begin_publish(&mut self, errand: Errand) {
        if self.errands.open.len() >= PUBLISHES_OPEN {
            return (errand.done)(Outcome::Busy);
        }
        let Wish::Publish(publish) = &errand.wish else { unreachable!("asked by the caller") };
        let publish = publish.clone();
        self.errands.tickets = self.errands.tickets.wrapping_add(1);
        let ticket = self.errands.tickets;
        self.errands.open.insert(ticket, errand);
        self.chat.handle_publish(self.now, ticket, &publish, &mut self.effects);
        self.settle();
    }

    /// The rules have answered a message from outside.
    pub(super) fn told(&mut self, ticket: u32, frame: Bytes) {
        // A second answer would be a bug of the rules, but nobody waits for it.
        let errand = self.errands.open.remove(&ticket);
        debug_assert!(errand.is_some(), "every ticket is answered once");
        if let Some(errand) = errand {
            (errand.done)(Outcome::Said(frame));
        }
    }

    /// Whether the walk has come to its end; if not, it goes on in the next turn.
    fn go_on_walking(&mut self, mut walk: Walk, slots: &mut u32) -> bool {
        if self.now.mono_ns >= walk.errand.deadline_ns {
            return true;
        }
        let end = match walk.errand.wish {
            Wish::Rooms { most, .. } => self.walk_rooms(&mut walk, most, slots),
            Wish::Top { most } => self.walk_sessions(&mut walk, most, slots),
            _ => unreachable!("nothing else is a walk"),
        };
        match end {
            Some(outcome) => (walk.errand.done)(outcome),
            None => {
                self.errands.walk = Some(walk);
                return false;
            }
        }
        true
    }

    fn walk_rooms(&mut self, walk: &mut Walk, most: usize, slots: &mut u32) -> Option<Outcome> {
        while walk.slot < self.chat.room_slots() && walk.rooms.len() < most {
            if *slots == 0 {
                return None;
            }
            *slots -= 1;
            walk.rooms.extend(self.chat.room_at(walk.slot));
            walk.slot += 1;
        }
        let next = (walk.slot < self.chat.room_slots()).then_some(walk.slot);
        Some(Outcome::Rooms { rooms: std::mem::take(&mut walk.rooms), next })
    }

    fn walk_sessions(&mut self, walk: &mut Walk, most: usize, slots: &mut u32) -> Option<Outcome> {
        while walk.slot < self.connections.slots() {
            if *slots == 0 {
                return None;
            }
            *slots -= 1;
            let slot = walk.slot;
            walk.slot += 1;
            let Some(key) = self.connections.key_at(slot) else { continue };
            let connection = self.connections.get(key).expect("key_at names what is there");
            if connection.phase == Phase::Open && connection.queued_bytes > 0 {
                keep_most(&mut walk.slow, (connection.queued_bytes, key), most);
            }
        }
        let slow = walk.slow.iter().filter_map(|(_, key)| self.slow(*key)).collect();
        let (rooms, senders) = (self.chat.loudest_rooms(self.now, most), self.chat.loudest_senders(self.now, most));
        Some(Outcome::Top(Top { slow, rooms, senders }))
    }

    /// `None`: it has gone since it was seen.
    fn slow(&self, key: Key) -> Option<Slow> {
        let connection = self.connections.get(key)?;
        Some(Slow {
            public_id: self.chat.public_id(key)?,
            user: self.chat.user_of(key)?.to_owned(),
            queued_bytes: connection.queued_bytes,
            queued_frames: connection.queue.len(),
            stuck_ms: if connection.queued_bytes > 0 { self.now_ms().saturating_sub(connection.progress_ms) } else { 0 },
        })
    }

    fn reader(&self, view: SessionView) -> Option<Reader> {
        let connection = self.connections.get(view.session)?;
        let now_ms = self.now_ms();
        Some(Reader {
            public_id: self.chat.public_id(view.session)?,
            view,
            state: connection.state(),
            queued_bytes: connection.queued_bytes,
            queued_frames: connection.queue.len(),
            stuck_ms: if connection.queued_bytes > 0 { now_ms.saturating_sub(connection.progress_ms) } else { 0 },
            quiet_ms: now_ms.saturating_sub(connection.read_ms),
        })
    }
}

/// Keeps the largest so many, the largest first.
fn keep_most(list: &mut Vec<(u32, Key)>, item: (u32, Key), most: usize) {
    let at = list.partition_point(|(bytes, _)| *bytes >= item.0);
    if at < most {
        list.insert(at, item);
        list.truncate(most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_are_kept_in_order() {
        let mut list = Vec::new();
        for bytes in [5, 1, 9, 7, 3, 9] {
            keep_most(&mut list, (bytes, Key { slot: bytes, generation: 0 }), 3);
        }
        assert_eq!(list.iter().map(|(bytes, _)| *bytes).collect::<Vec<_>>(), [9, 9, 7]);
    }
}
