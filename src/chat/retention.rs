//! What the shard's rooms retain together: a budget, a list of rooms by when they were last written, a mark through which rooms were forgotten.
//!
//! A room alone is bounded by messages, bytes and age. When all rooms of the shard cost more than the budget, the one written longest ago goes
//! whole, and the mark rises to its newest position: a room that comes back later can't claim to know what was before the mark.
//!
//! Keys of `send` have a budget of their own and are not forgotten with the messages: they were promised for their window. When the budget is used
//! up, a `send` with a key is refused. Rooms with keys stand in a ring; each new key looks at some of them, so that what is over goes without a timer.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::dedup::{Dedup, KeyHash};
use super::effect::{Page, PageRange, Replay, Since};
use super::history::History;
use super::room::Home;
use super::shard::Shard;
use crate::ids::{Key, Now, Position};
use crate::limits::{FRAME_BYTES_MAX, REPLAY_BYTES_MAX, REPLAY_MESSAGES_DEFAULT, REPLAY_MESSAGES_MAX, SEND_BYTES_MAX, TCP_HEADER_BYTES};
use crate::mutation::{Mutation, planted};

/// What a room with history costs beside its messages: home, table, boxes.
const ROOM_COST: usize = 512;
/// Rooms with keys that are looked at for each new key: more than one, so that the ring is walked faster than it grows.
const KEYED_ROOMS_PER_KEY: usize = 2;
/// The same when the budget is used up.
const KEYED_ROOMS_WHEN_FULL: usize = 64;
/// Homes that are looked at in one tick for messages that are too old.
const HOMES_PER_TICK: u32 = 256;
/// Bytes of a `history` answer beside its messages.
const PAGE_BYTES_BESIDES: usize = 256;

/// Bounds of what is retained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetentionRules {
    /// Messages of one room.
    pub messages_max: usize,
    /// Bytes of one room.
    pub bytes_max: usize,
    /// Age of a message, by the log's time against the wall clock.
    pub age_ms: u64,
    /// Bytes of all rooms of a shard.
    pub shard_bytes_max: usize,
    /// Bytes of all keys that a shard's rooms remember.
    pub dedup_bytes_max: usize,
}

/// The shard's side of it.
#[derive(Debug, Default)]
pub(super) struct Retention {
    pub(super) cost: usize,
    /// Rooms with history or keys.
    pub(super) rooms: usize,
    /// Rooms with history, by when they were last written.
    oldest: Option<Key>,
    newest: Option<Key>,
    /// Rooms were forgotten whole up to here.
    pub(super) through: Position,
    pub(super) evicted_rooms: u64,
    /// Slot of the home that is looked at next for messages that are too old.
    hand: u32,
    /// Rooms that remember keys, each once, and what those keys cost.
    keyed: VecDeque<Key>,
    pub(super) keys_cost: usize,
}

/// Messages that follow a `joined` or a `welcome`.
#[derive(Debug, Default)]
pub(super) struct Replayed {
    pub(super) count: u32,
    pub(super) recovered: Option<bool>,
    /// Whole frames, in pieces that one send can take.
    pub(super) pieces: Vec<Bytes>,
}

impl Shard {
    /// Keeps a message that has its position. `frame` is the frame as it goes out.
    pub(super) fn retain(&mut self, home: Key, position: Position, frame: &[u8]) {
        let rules = self.rules.retention;
        let state = self.homes.get_mut(home).expect("found by the caller");
        let before = cost_of(state);
        self.retention.rooms += usize::from(state.history.is_none() && state.dedup.is_none());
        let history = state.history.get_or_insert_default();
        history.push(position, frame);
        let too_old = position.ms.saturating_sub(rules.age_ms);
        while history.len() > 1 && is_over(history, &rules, too_old) {
            state.complete_after = history.pop().expect("longer than one");
        }
        history.shrink();
        let after = cost_of(state);
        self.retention.cost = self.retention.cost + after - before;
        self.move_to_newest(home);
        while self.retention.cost > rules.shard_bytes_max && self.retention.oldest != Some(home) {
            self.forget_oldest();
        }
        self.trim_alone(home);
    }

    /// The last room that is left has the whole budget, and no more.
    fn trim_alone(&mut self, home: Key) {
        let state = self.homes.get_mut(home).expect("found by the caller");
        let history = state.history.as_mut().expect("just written");
        while self.retention.cost > self.rules.retention.shard_bytes_max && history.len() > 1 {
            let before = history.cost();
            state.complete_after = history.pop().expect("longer than one");
            self.retention.cost -= before - history.cost();
        }
    }

    pub(super) fn remember_key(&mut self, home: Key, key: KeyHash, position: Position) {
        let state = self.homes.get_mut(home).expect("found by the caller");
        if state.dedup.is_none() {
            self.retention.rooms += usize::from(state.history.is_none());
            self.retention.keyed.push_back(home);
        }
        let dedup: &mut Dedup = state.dedup.get_or_insert_default();
        let before = dedup.cost();
        dedup.insert(key, position);
        self.retention.keys_cost = self.retention.keys_cost + dedup.cost() - before;
        self.forget_keys(position.ms, KEYED_ROOMS_PER_KEY);
    }

    /// No further key can be remembered now.
    pub(super) fn is_full_of_keys(&mut self, now_ms: u64) -> bool {
        let most = self.rules.retention.dedup_bytes_max;
        if self.retention.keys_cost >= most {
            self.forget_keys(now_ms, KEYED_ROOMS_WHEN_FULL);
        }
        self.retention.keys_cost >= most
    }

    /// Forgets the keys of some rooms whose time is over, in turn.
    fn forget_keys(&mut self, now_ms: u64, rooms: usize) {
        for _ in 0..rooms.min(self.retention.keyed.len()) {
            let Some(home) = self.retention.keyed.pop_front() else { return };
            let state = self.homes.get_mut(home).expect("a room stays while it remembers keys");
            let dedup = state.dedup.as_mut().expect("listed");
            let before = dedup.cost();
            dedup.forget(now_ms);
            self.retention.keys_cost = self.retention.keys_cost + dedup.cost() - before;
            if dedup.is_empty() {
                self.drop_keys(home);
            } else {
                self.retention.keyed.push_back(home);
            }
        }
    }

    /// Forgets the keys of a room that is not listed any longer.
    fn drop_keys(&mut self, home: Key) {
        let state = self.homes.get_mut(home).expect("a room stays while it remembers keys");
        self.retention.keys_cost -= state.dedup.take().map_or(0, |dedup| dedup.cost());
        self.retention.rooms -= usize::from(state.history.is_none());
        if state.is_idle() {
            self.homes.remove(home);
        }
    }

    /// Rooms that only retain something make room for one that is used: history goes first, keys only if that was not enough.
    pub(super) fn make_room_for_a_home(&mut self) {
        let most = self.rules.homes_max as usize;
        while self.homes.len() >= most && self.retention.oldest.is_some() {
            self.forget_oldest();
        }
        while self.homes.len() >= most
            && let Some(home) = self.retention.keyed.pop_front()
        {
            self.drop_keys(home);
        }
    }

    /// Forgets what is too old: rooms whose newest message is, and, some rooms at a time, the messages of all others.
    pub(super) fn expire_history(&mut self, now: Now) {
        let too_old = self.too_old(now);
        while let Some(oldest) = self.retention.oldest
            && self.homes.get(oldest).expect("listed").at.ms < too_old
        {
            self.forget_history(oldest);
        }
        if self.retention.oldest.is_none() {
            return;
        }
        for _ in 0..HOMES_PER_TICK.min(self.homes.slots()) {
            let home = self.homes.key_at(self.retention.hand);
            self.retention.hand = (self.retention.hand + 1) % self.homes.slots();
            self.forget_aged(now, home);
        }
    }

    /// Forgets messages of one room that are too old: nobody is sent them any longer. A room that only retained them is gone after it.
    pub(super) fn forget_aged(&mut self, now: Now, home: Option<Key>) {
        let too_old = self.too_old(now);
        let Some((home, state)) = home.and_then(|home| Some((home, self.homes.get_mut(home)?))) else { return };
        let newest = state.at.ms;
        let Some(history) = state.history.as_mut().filter(|history| history.oldest().is_some_and(|oldest| oldest.ms < too_old)) else {
            return;
        };
        if newest < too_old {
            return self.forget_history(home);
        }
        let before = history.cost();
        while history.oldest().is_some_and(|oldest| oldest.ms < too_old) {
            state.complete_after = history.pop().expect("there is an oldest one");
        }
        history.shrink();
        self.retention.cost -= before - history.cost();
    }

    /// Messages before this moment of the log are forgotten.
    fn too_old(&self, now: Now) -> u64 {
        now.unix_ms.saturating_sub(self.rules.retention.age_ms)
    }

    fn forget_oldest(&mut self) {
        if let Some(home) = self.retention.oldest {
            self.forget_history(home);
        }
    }

    /// Forgets the history of a room that has one.
    fn forget_history(&mut self, home: Key) {
        self.unlink(home);
        let state = self.homes.get_mut(home).expect("listed");
        self.retention.cost -= cost_of(state);
        state.history = None;
        state.complete_after = state.at;
        self.retention.through = self.retention.through.max(state.at);
        self.retention.evicted_rooms += 1;
        self.retention.rooms -= usize::from(state.dedup.is_none());
        if state.is_idle() {
            self.homes.remove(home);
        }
    }

    fn move_to_newest(&mut self, home: Key) {
        if self.retention.newest == Some(home) {
            return;
        }
        let linked = self.homes.get(home).is_some_and(|state| state.newer.is_some());
        if linked {
            self.unlink(home);
        }
        let before = self.retention.newest.replace(home);
        match before {
            Some(before) => self.homes.get_mut(before).expect("listed").newer = Some(home),
            None => self.retention.oldest = Some(home),
        }
        let state = self.homes.get_mut(home).expect("found by the caller");
        state.older = before;
        state.newer = None;
    }

    fn unlink(&mut self, home: Key) {
        let state = self.homes.get_mut(home).expect("listed");
        let (older, newer) = (state.older.take(), state.newer.take());
        match older {
            Some(older) => self.homes.get_mut(older).expect("listed").newer = newer,
            None => self.retention.oldest = newer,
        }
        match newer {
            Some(newer) => self.homes.get_mut(newer).expect("listed").older = older,
            None => self.retention.newest = older,
        }
    }

    /// What a reader that says where it stands is sent before live messages.
    pub(super) fn replay(&self, home: Option<Key>, wanted: Replay) -> Replayed {
        let state = home.and_then(|home| self.homes.get(home));
        let history = state.and_then(|state| state.history.as_deref());
        let (since, newest) = match wanted {
            Replay::Nothing => return Replayed::default(),
            Replay::Newest(count) => (None, count as usize),
            Replay::Since(since, newest) => (Some(since), newest.map_or(REPLAY_MESSAGES_DEFAULT, |n| n as usize)),
        };
        let complete_after = state.map_or(self.retention.through, |state| state.complete_after);
        let at = state.map_or_else(Position::default, |state| state.at);
        if let Some(Since::At(position)) = since
            && (position >= complete_after || planted(Mutation::RecoverForgotten))
            && (position <= at || position == complete_after)
        {
            let start = history.map_or(0, |history| history.after(position));
            if let Some(replayed) = history.map_or_else(|| Some(Replayed::default()), |history| replay_all(history, start)) {
                return Replayed { recovered: Some(true), ..replayed };
            }
        }
        let replayed = history.map_or_else(Replayed::default, |history| replay_newest(history, newest));
        Replayed { recovered: since.map(|_| false), ..replayed }
    }

    /// One page of a room's history: the inside of the `messages` array, and whether there are more in the direction asked.
    pub(super) fn page(&self, home: Option<Key>, page: Page) -> (String, bool) {
        let state = home.and_then(|home| self.homes.get(home));
        let Some((state, history)) = state.and_then(|state| Some((state, state.history.as_deref()?))) else {
            return (String::new(), false);
        };
        let (start, end, forward) = match page.range {
            PageRange::Newest => (0, history.len(), false),
            PageRange::Before(position) => (0, history.from(position), false),
            PageRange::After(position) => (history.after(position), history.len(), true),
            PageRange::Nothing => (0, 0, false),
        };
        let skip = TCP_HEADER_BYTES + r#"{"type":"message","room":"","#.len() + state.name.len();
        let room = FRAME_BYTES_MAX - PAGE_BYTES_BESIDES;
        let fits = |index: usize| history.len_of(index) - skip + 2;
        let limit = (page.limit as usize).min(end - start);
        let (mut bytes, mut count) = (0, 0);
        while count < limit {
            let index = if forward { start + count } else { end - 1 - count };
            bytes += fits(index);
            if bytes > room {
                break;
            }
            count += 1;
        }
        let first = if forward { start } else { end - count };
        let mut out = BytesMut::with_capacity(bytes);
        let mut offset = history.offset(first);
        for index in first..first + count {
            out.extend_from_slice(if index == first { b"{" } else { b",{" });
            history.copy(offset + skip, history.len_of(index) - skip, &mut out);
            offset += history.len_of(index);
        }
        let text = String::from_utf8(out.to_vec()).expect("frames hold JSON, cut at the same byte each");
        (text, count < end - start && !planted(Mutation::PageWithoutMore))
    }
}

fn cost_of(state: &Home) -> usize {
    state.history.as_ref().map_or(0, |history| history.cost() + ROOM_COST)
}

fn is_over(history: &History, rules: &RetentionRules, too_old: u64) -> bool {
    let aged = history.oldest().is_some_and(|oldest| oldest.ms < too_old);
    history.len() > rules.messages_max || history.cost() > rules.bytes_max || aged
}

/// Everything from `start` on, if that is not too much for one replay.
fn replay_all(history: &History, start: usize) -> Option<Replayed> {
    let short = start < history.len() && planted(Mutation::ReplayShort);
    let start = start + usize::from(short);
    let count = history.len() - start;
    if count > REPLAY_MESSAGES_MAX {
        return None;
    }
    let bytes: usize = (start..history.len()).map(|index| history.len_of(index)).sum();
    (bytes <= REPLAY_BYTES_MAX).then(|| pieces(history, start))
}

/// At most the newest `newest` messages, as many as one replay takes.
fn replay_newest(history: &History, newest: usize) -> Replayed {
    let most = newest.min(REPLAY_MESSAGES_MAX).min(history.len());
    let (mut start, mut bytes) = (history.len(), 0);
    while history.len() - start < most {
        bytes += history.len_of(start - 1);
        if bytes > REPLAY_BYTES_MAX {
            break;
        }
        start -= 1;
    }
    pieces(history, start)
}

fn pieces(history: &History, start: usize) -> Replayed {
    let mut pieces = Vec::new();
    let (mut offset, mut len) = (history.offset(start), 0);
    let mut cut = |offset: &mut usize, len: &mut usize| {
        if *len > 0 {
            let mut piece = BytesMut::with_capacity(*len);
            history.copy(*offset, *len, &mut piece);
            pieces.push(piece.freeze());
            *offset += *len;
            *len = 0;
        }
    };
    for index in start..history.len() {
        if len + history.len_of(index) > SEND_BYTES_MAX {
            cut(&mut offset, &mut len);
        }
        len += history.len_of(index);
    }
    cut(&mut offset, &mut len);
    let count = u32::try_from(history.len() - start).expect("at most a thousand");
    Replayed { count, recovered: None, pieces }
}
