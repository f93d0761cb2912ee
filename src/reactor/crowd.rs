//! What a session that does not read costs itself: ephemeral messages, the oldest of rooms that drop them, at last its connection.
//!
//! Everything here is about queues that have grown, and off the way of a message to those that read: the fan-out comes here above half the soft mark
//! only. Frames in flight are never touched, answers never dropped. [`Core::takes`] judges one more frame for a crowded session, [`Core::thin_out`] goes
//! through its queue once per half a soft mark of growth, and [`Core::relieve`] looks at all sessions when the shard's messages have outgrown their budget,
//! once per eighth of that budget,
//! and once per tick while they are above it.

use super::connection::Phase;
use super::core::Core;
use super::effects::{Ending, Item};
use crate::chat::Worth;
use crate::ids::{Key, Position};
use crate::memory::frames::FrameId;
use crate::mutation::{Mutation, planted};
use crate::protocol::encode::message_room;
use crate::protocol::error::Reason;

/// Frames that may wait for one session while places for them are short.
pub(super) const UNDER_PRESSURE_FRAMES_MAX: u32 = 64;

/// What the store's tag of a frame means; from [`EPHEMERAL`] on up to [`OLDEST`] a frame may be dropped.
const KEPT: u8 = 0;
const JOINED: u8 = 1;
const GAP: u8 = 2;
const EPHEMERAL: u8 = 3;
const OLDEST: u8 = 4;

/// Where a frame comes from, beside the store and for tagged frames alone: what a gap has to say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    place: Key,
    previous: Position,
}

/// The budget of the shard's messages, and what is known of crowded sessions.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    /// Sources by the frame's slot; a slot's newest tagged frame wrote its own.
    sources: crate::memory::parallel::Parallel<Source>,
    /// Bytes waiting above which a session's queue is gone through again: those that were gone through, until they have caught up.
    marks: hashbrown::HashMap<Key, usize, ahash::RandomState>,
    /// A queue while it is gone through, kept for its memory.
    list: Vec<FrameId>,
    /// Places whose last gap stands in the part of the queue that was gone through.
    told: Vec<Key>,
    /// Bytes held by the store above which the largest queues are ended.
    relief_at: u64,
}

impl Crowd {
    pub(super) fn new(seeds: [u64; 4], bytes_max: usize) -> Self {
        let [a, b, c, d] = seeds;
        let marks = hashbrown::HashMap::with_hasher(ahash::RandomState::with_seeds(a, b, c, d));
        Self { marks, relief_at: bytes_max as u64, ..Self::default() }
    }

    /// The session has caught up, or ended.
    pub(super) fn forget(&mut self, key: Key) {
        if !self.marks.is_empty() {
            self.marks.remove(&key);
        }
    }

    /// Sessions whose queue was gone through.
    pub(super) fn len(&self) -> usize {
        self.marks.len()
    }
}

impl Item {
    /// The frame may be dropped once it is queued.
    pub(super) fn is_droppable(&self) -> bool {
        self.tag >= EPHEMERAL
    }
}

impl<S> Core<S> {
    /// Marks a frame with what may become of it.
    pub(super) fn tag(&mut self, frame: FrameId, worth: Worth) -> u8 {
        let tag = match worth {
            Worth::Kept => return KEPT,
            Worth::Ephemeral => EPHEMERAL,
            Worth::Oldest { place, previous } => {
                self.crowd.sources.put(frame.slot(), Source { place, previous });
                OLDEST
            }
            Worth::Joined { place } => {
                self.crowd.sources.put(frame.slot(), Source { place, previous: Position::default() });
                JOINED
            }
        };
        self.frames.set_tag(frame, tag);
        tag
    }

    /// Whether a session with much queued takes one more frame. It may lose some of what is queued by that, or end.
    pub(super) fn takes(&mut self, key: Key, item: Item) -> bool {
        let queues = &self.settings.queues;
        let (soft, hard) = (queues.soft_mark_bytes, queues.hard_mark_bytes);
        let with = |core: &Self| core.connections.get(key).map_or(0, |c| c.queued_bytes as usize) + item.len as usize;
        let before = with(self);
        if before > soft / 2 && item.tag == EPHEMERAL {
            self.counters.dropped_ephemeral.add(1);
            return false;
        }
        if before > soft && self.connections.get(key).is_some_and(|c| c.droppable) {
            let mark = self.crowd.marks.get(&key).copied().unwrap_or(soft);
            if (before > mark || before > hard) && !self.thin_out(key, item.len) {
                return false;
            }
            // Who would be gone through for every message has nothing left to lose.
            if before > hard && with(self) > hard - soft / 2 {
                self.end(key, Ending::said(Reason::SlowConsumer, None));
                return false;
            }
        }
        if with(self) > hard {
            self.end(key, Ending::said(Reason::SlowConsumer, None));
            return false;
        }
        let waiting = self.connections.get(key).map_or(0, |c| c.queue.len());
        if waiting >= UNDER_PRESSURE_FRAMES_MAX && self.is_pressed() {
            self.end(key, Ending::said(Reason::SlowConsumer, Some("this server is short of places for messages")));
            return false;
        }
        true
    }

    /// The places for frames or for queues are nearly used up. A full store would end whoever comes next; so before it is full those go who have
    /// much of it, a few readers that do not read and ask for small answers.
    fn is_pressed(&self) -> bool {
        let nearly = |used: u32, most: usize| used as usize >= most / 4 * 3;
        let queues = &self.settings.queues;
        nearly(self.frames.usage().frames, queues.frames_max) || nearly(self.queues.used(), queues.out_chunks_max)
    }

    /// Drops from a session's queue what may be dropped, before `len` bytes more are queued: ephemeral messages, then, down to half the soft mark, the
    /// oldest of the rooms that drop theirs. `false` when it had to end, because there was no place for a gap.
    fn thin_out(&mut self, key: Key, len: u32) -> bool {
        let soft = self.settings.queues.soft_mark_bytes;
        let mut list = std::mem::take(&mut self.crowd.list);
        let connection = self.connections.get_mut(key).expect("found by the caller");
        self.queues.clear(&mut connection.queue, |frame| list.push(frame));
        let (frames, mut dropped) = (&mut self.frames, 0);
        list.retain(|frame| {
            let goes = frames.tag(*frame) == EPHEMERAL;
            if goes {
                connection.queued_bytes -= frames.len_of(*frame);
                frames.release(*frame);
                dropped += 1;
            }
            !goes
        });
        self.counters.dropped_ephemeral.add(dropped);
        let enough = (connection.queued_bytes + len) as usize <= soft;
        let told = self.drop_oldest(key, &list, if enough { usize::MAX } else { soft / 2 });
        list.clear();
        self.crowd.list = list;
        if !told {
            self.end(key, Ending::said(Reason::SlowConsumer, Some("this server is short of places for messages")));
            return false;
        }
        let queued = self.connections.get(key).map_or(0, |c| c.queued_bytes as usize);
        self.crowd.marks.insert(key, queued.max(soft / 2) + soft / 2);
        true
    }

    /// Queues the list again without the oldest of its messages that may go, until at most `goal` bytes are queued. A gap stands where the first of a
    /// room's stood. `false` when one found no place in the store.
    fn drop_oldest(&mut self, key: Key, list: &[FrameId], goal: usize) -> bool {
        self.crowd.told.clear();
        let mut queued = self.connections.get(key).expect("found by the caller").queued_bytes;
        let (mut all_told, mut over, mut left) = (true, true, false);
        for &frame in list {
            over &= queued as usize > goal;
            let tag = self.frames.tag(frame);
            let source = if tag == KEPT { None } else { self.crowd.sources.get(frame.slot()).copied() };
            match (tag, source) {
                (OLDEST, Some(source)) if over => {
                    queued -= self.frames.len_of(frame);
                    if !self.crowd.told.contains(&source.place) && !planted(Mutation::LoseGap) {
                        let gap = self.gap_before(frame, source);
                        all_told &= gap.is_some();
                        if let Some(gap) = gap {
                            queued += self.frames.len_of(gap);
                            self.requeue(key, gap);
                        }
                    }
                    self.frames.release(frame);
                    self.counters.dropped_oldest.add(1);
                    continue;
                }
                (OLDEST, _) => left = true,
                (GAP, Some(source)) if !self.crowd.told.contains(&source.place) => self.crowd.told.push(source.place),
                (JOINED, Some(source)) if !planted(Mutation::OldGapSpeaks) => self.crowd.told.retain(|place| *place != source.place),
                _ => {}
            }
            self.requeue(key, frame);
        }
        let connection = self.connections.get_mut(key).expect("found by the caller");
        (connection.queued_bytes, connection.droppable) = (queued, left);
        all_told
    }

    /// Makes the gap that stands for a message and for those of its room behind it.
    fn gap_before(&mut self, message: FrameId, source: Source) -> Option<FrameId> {
        let room = message_room(self.frames.bytes(message)).expect("a message that may be dropped names its room");
        let payload = self.chat.gap(room, source.previous);
        let gap = self.frames.insert(payload).ok()?;
        self.frames.set_tag(gap, GAP);
        self.crowd.sources.put(gap.slot(), source);
        self.crowd.told.push(source.place);
        self.counters.gaps.add(1);
        Some(gap)
    }

    fn requeue(&mut self, key: Key, frame: FrameId) {
        let connection = self.connections.get_mut(key).expect("found by the caller");
        self.queues.push(&mut connection.queue, frame).expect("no more frames than stood in the queue, whose chunks are free");
    }

    /// The store has taken a frame: when all of them are over their budget, the sessions with the most bytes waiting end.
    #[inline]
    pub(super) fn hold_to_budget(&mut self) {
        if self.frames.bytes_held() > self.crowd.relief_at {
            self.relieve();
        }
    }

    fn relieve(&mut self) {
        let most = self.settings.queues.shard_bytes_max as u64;
        let goal = most - most / 8;
        let mut largest: Vec<(u32, Key)> = Vec::new();
        // What sessions that are ending have in flight goes soon: nobody else is ended for it, up to a quarter of the budget.
        let mut leaving = 0;
        for slot in 0..self.connections.slots() {
            let Some(key) = self.connections.key_at(slot) else { continue };
            let connection = self.connections.get(key).expect("key_at names what is there");
            if connection.phase != Phase::Open {
                leaving += u64::from(connection.queued_bytes);
            } else if connection.queued_bytes > 0 {
                largest.push((connection.queued_bytes, key));
            }
        }
        largest.sort_unstable_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        for (_, key) in largest {
            if self.frames.bytes_held() <= goal + leaving.min(most / 4) {
                break;
            }
            self.counters.evicted.add(1);
            self.end(key, Ending::said(Reason::SlowConsumer, Some("this server is short of memory for messages")));
            leaving += self.connections.get(key).map_or(0, |c| u64::from(c.queued_bytes));
        }
        // Looked at again when an eighth more has come, or with the next tick.
        self.crowd.relief_at = most.max(self.frames.bytes_held() + most / 8);
    }

    /// Looks again whether the messages are within their budget, when they were not.
    pub(super) fn watch_budget(&mut self) {
        let most = self.settings.queues.shard_bytes_max as u64;
        if self.crowd.relief_at > most {
            self.crowd.relief_at = most;
            self.hold_to_budget();
        }
    }

    /// Bytes of messages above which the largest queues are ended next.
    pub(super) fn relief_at(&self) -> u64 {
        self.crowd.relief_at
    }
}
