//! Slow readers: for a short, bounded time a reader that falls behind holds back the senders of its rooms; after that it is on its own.
//!
//! The reader's shard tells the homes of its rooms; a stalled room defers its `send`s, as a full queue does, and its home tells the senders' shards
//! to stop reading from them. Rooms with another policy than `stall` hear nothing of it. A reader has a budget per window, and so has a room, whoever its readers are.

use super::effect::{Effects, Envelope};
use super::shard::Shard;
use crate::config::SlowReader;
use crate::ids::{Key, Now, SessionId, SessionRef};

/// What one reader may cost the senders of its rooms in one window, milliseconds.
const READER_BUDGET_MS: u64 = 50;
/// What all readers of one room may cost it in one window, milliseconds.
const ROOM_BUDGET_MS: u64 = 500;
const WINDOW_MS: u64 = 10_000;

const _: () = assert!(READER_BUDGET_MS <= ROOM_BUDGET_MS && ROOM_BUDGET_MS * 10 <= WINDOW_MS);

/// A budget of milliseconds per window.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StallBudget {
    /// The lower half of the monotonic clock is enough for a window, and half the memory per session.
    window_ms: u32,
    used_ms: u16,
    /// A reader's: the homes of its rooms were told and not yet told that it is over.
    told: bool,
}

impl StallBudget {
    /// What is left at `now_ms`, of `budget_ms` per window.
    fn left(&mut self, now_ms: u64, budget_ms: u64) -> u64 {
        let now_ms = low(now_ms);
        if u64::from(now_ms.wrapping_sub(self.window_ms)) >= WINDOW_MS {
            *self = Self { window_ms: now_ms, used_ms: 0, told: self.told };
        }
        budget_ms.saturating_sub(u64::from(self.used_ms))
    }

    fn refund(&mut self, ms: u64) {
        self.used_ms = self.used_ms.saturating_sub(u16::try_from(ms).unwrap_or(u16::MAX));
    }

    fn charge(&mut self, ms: u64) {
        self.used_ms = self.used_ms.saturating_add(u16::try_from(ms).unwrap_or(u16::MAX));
    }
}

/// The lower half of a clock; differences of less than seven weeks stay true.
pub(super) fn low(ms: u64) -> u32 {
    u32::try_from(ms & u64::from(u32::MAX)).expect("cut to 32 bits")
}

/// A home's stalls: until when, for whom, and what they have cost.
#[derive(Debug, Default)]
pub(super) struct Stalls {
    readers: Vec<(SessionRef, u64)>,
    budget: StallBudget,
}

impl Stalls {
    /// Until when the room is stalled; in the past when it is not.
    fn until_ms(&self) -> u64 {
        self.readers.iter().map(|(_, until_ms)| *until_ms).max().unwrap_or(0)
    }
}

impl Shard {
    /// A session's queue has grown over the soft mark.
    pub fn handle_slow(&mut self, now: Now, session: SessionId, out: &mut Effects) {
        let now_ms = now.mono_ms();
        if !self.has_stalling_room(session) {
            return;
        }
        let Some(state) = self.session_mut(session) else { return };
        let left = state.stalls.left(now_ms, READER_BUDGET_MS);
        if left == 0 {
            self.counts.stalls_refused += 1;
            return;
        }
        state.stalls.charge(left);
        state.stalls.told = true;
        self.counts.stalls += 1;
        self.tell_homes(session, left, out);
        self.settle(now, out);
    }

    /// It has gone down to half of it.
    pub fn handle_fast(&mut self, now: Now, session: SessionId, out: &mut Effects) {
        if self.session_mut(session).is_some_and(|state| std::mem::take(&mut state.stalls.told)) {
            self.tell_homes(session, 0, out);
            self.settle(now, out);
        }
    }

    /// Some room of the session, its inbox among them, holds back its senders for a slow reader.
    fn has_stalling_room(&self, session: SessionId) -> bool {
        let stalls = |place| self.places.get(place).is_some_and(|place| place.slow_reader == SlowReader::Stall);
        let rooms = self.session(session).map(|state| &state.rooms);
        rooms.is_some_and(|rooms| self.inboxes_stall() || rooms.iter().any(|entry| entry.is_member() && stalls(entry.place)))
    }

    fn inboxes_stall(&self) -> bool {
        self.rules.slow_reader_of("@") == SlowReader::Stall
    }

    /// `ms` 0: the stall is over.
    fn tell_homes(&mut self, session: SessionId, ms: u64, out: &mut Effects) {
        let state = self.session(session).expect("checked by the caller");
        let user = state.user;
        let rooms: Vec<Key> = state.rooms.iter().filter(|entry| entry.is_member()).map(|entry| entry.place).collect();
        let reader = self.origin(session, None).from;
        let inbox = format!("@{}", self.users.name(user));
        let places = rooms.iter().filter_map(|place| self.places.get(*place));
        let stalled = places.filter(|place| place.slow_reader == SlowReader::Stall);
        let mut names: Vec<Box<str>> = stalled.map(|place| place.name.clone()).collect();
        if self.inboxes_stall() {
            names.push(inbox.into());
        }
        for name in names {
            let home = self.home(self.hash(&name));
            let parcel = self.parcel(&name, "", "");
            self.post(home, Envelope::Stall { parcel, reader, ms }, out);
        }
    }

    pub(super) fn home_stall(&mut self, now: Now, room: &str, stall: (SessionRef, u64), out: &mut Effects) {
        let now_ms = now.mono_ms();
        let (reader, ms) = stall;
        let Some(home) = self.homes.find(self.hash(room), room) else { return };
        let state = self.homes.get_mut(home).expect("just found");
        let stalls = state.stalls.get_or_insert_default();
        let before_ms = stalls.until_ms().max(now_ms);
        let left = stalls.budget.left(now_ms, ROOM_BUDGET_MS);
        stalls.readers.retain(|(other, until_ms)| *other != reader && *until_ms > now_ms);
        if ms > 0 && left > 0 {
            stalls.readers.push((reader, now_ms + ms.min(left)));
        }
        let until_ms = stalls.until_ms();
        // What is granted is charged at once; what is not used is given back.
        stalls.budget.charge(until_ms.saturating_sub(before_ms));
        stalls.budget.refund(before_ms - until_ms.clamp(now_ms, before_ms));
        if until_ms <= now_ms {
            self.retry_deferred(now, out);
        }
        self.stalled_until_ms = self.stalled_until_ms.max(until_ms);
    }

    /// The room's senders are held back for a reader.
    pub(super) fn is_stalled(&self, home: Key, now: Now) -> bool {
        let stalls = self.homes.get(home).and_then(|state| state.stalls.as_ref());
        stalls.is_some_and(|stalls| stalls.until_ms() > now.mono_ms())
    }

    /// Some room is stalled and has something to send: look again within a millisecond.
    pub fn is_stalling(&self, now: Now) -> bool {
        self.deferred > 0 && self.stalled_until_ms + 1 >= now.mono_ms()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_spent_once_per_window() {
        let mut budget = StallBudget::default();
        assert_eq!(budget.left(20_000, 50), 50);
        budget.charge(50);
        assert_eq!(budget.left(29_999, 50), 0);
        assert_eq!(budget.left(30_000, 50), 50);
    }
}
