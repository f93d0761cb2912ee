//! A timer wheel linked through arrays that run parallel to a slab: one entry a slot, no allocation per timer.
//!
//! It owns the links and the hand, and knows nothing of what a slot stands for: slots go in with a time, and come out of
//! [`Wheel::advance`] once that time has passed. It never reads a clock, never hands a slot out before its time, and never does more than
//! `budget` steps in one call, however many timers share a tick or however far the clock has jumped.
//!
//! One level of 1,024 buckets: a time further away than a round stands in the bucket of its tick and is linked anew each time the hand comes
//! by, one step each. So take a wheel whose round (1,024 ticks) covers the usual timer: 102 s at a tick of 100 ms, 1 s at a tick of 1 ms.
//!
//! Memory: 16 bytes a slot up to the highest slot ever scheduled, in pages, and 4 KiB of buckets.

use crate::ids::Key;
use crate::memory::pages::Pages;

/// Buckets of the wheel, a power of two.
const BUCKETS: u32 = 1_024;
const BUCKET_MASK: u64 = BUCKETS as u64 - 1;
/// The list that the hand is working on: a bucket's entries are moved here whole when its tick comes, and leave one by one. Every entry that
/// is due stands here.
const VISITED: u32 = BUCKETS;
const LISTS: usize = BUCKETS as usize + 1;
/// In `prev`: the rest is the number of the list that this entry is the first of.
const FIRST_OF: u32 = 1 << 31;
/// Ends a list; in `prev`: not in the wheel.
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Link {
    prev: u32,
    next: u32,
    /// The tick at which the entry's time has come.
    due: u64,
}

const UNLINKED: Link = Link { prev: NONE, next: NONE, due: 0 };

/// Entries are slots of a slab; each slot stands in the wheel at most once.
#[derive(Debug)]
pub struct Wheel {
    tick_ns: u64,
    /// The time of tick zero.
    start_ns: u64,
    /// The tick whose bucket was visited last. Buckets hold what is due later (after a jump of more than a round also what is due earlier:
    /// then the hand still has all of them before it).
    hand: u64,
    /// The time of the tick behind the hand: until then there is nothing to do but [`VISITED`].
    hand_end_ns: u64,
    len: usize,
    links: Pages<Link>,
    /// First entry of each list.
    first: Box<[u32]>,
    /// Buckets that are not empty, a bit each.
    filled: [u64; BUCKETS as usize / 64],
}

impl Wheel {
    /// A wheel whose hand moves every `tick_ns`, starting at `now_ns`; times further than one round wait for another round.
    pub fn new(tick_ns: u64, now_ns: u64) -> Self {
        assert!(tick_ns > 0, "a wheel needs a tick");
        Wheel {
            tick_ns,
            start_ns: now_ns,
            hand: 0,
            hand_end_ns: now_ns.saturating_add(tick_ns),
            len: 0,
            links: Pages::new(1 << Key::SLOT_BITS),
            first: vec![NONE; LISTS].into_boxed_slice(),
            filled: [0; BUCKETS as usize / 64],
        }
    }

    /// Schedules `slot` for `at_ns` (rounded up to a tick, never early), replacing what it had. A time that has passed is handed out by the
    /// next [`Wheel::advance`].
    pub fn schedule(&mut self, slot: u32, at_ns: u64) {
        let due = self.tick_of(at_ns);
        self.reach(slot);
        let link = *self.links.at(slot);
        if link.prev != NONE {
            if link.due == due {
                return;
            }
            self.unlink(slot);
        }
        self.link(slot, due);
    }

    /// Schedules unless the slot already stands at the same or an earlier time.
    pub fn schedule_no_later(&mut self, slot: u32, at_ns: u64) {
        match self.links.get(slot) {
            Some(link) if link.prev != NONE && link.due <= self.tick_of(at_ns) => {}
            _ => self.schedule(slot, at_ns),
        }
    }

    pub fn cancel(&mut self, slot: u32) {
        if self.links.get(slot).is_some_and(|link| link.prev != NONE) {
            self.unlink(slot);
        }
    }

    /// Moves the hand to `now_ns` and appends at most `budget` expired slots to `expired`; `true` when more are waiting, or may be: call
    /// again. Slots of one tick come in no particular order. A clock that goes back is taken to stand still.
    pub fn advance(&mut self, now_ns: u64, budget: usize, expired: &mut Vec<u32>) -> bool {
        if now_ns < self.hand_end_ns && self.first[VISITED as usize] == NONE {
            return false;
        }
        let target = (now_ns.saturating_sub(self.start_ns) / self.tick_ns).max(self.hand);
        let mut left = budget;
        loop {
            while self.first[VISITED as usize] != NONE {
                if left == 0 {
                    return true;
                }
                left -= 1;
                let slot = self.first[VISITED as usize];
                let due = self.links.at(slot).due;
                self.unlink(slot);
                if due <= self.hand {
                    expired.push(slot);
                } else {
                    self.link(slot, due);
                }
            }
            if !self.turn_to(target) {
                return false;
            }
        }
    }

    /// The time of the next tick that has an entry, or `None` when empty. Never later than the earliest entry's tick, unless that tick has
    /// passed: then not later than the last [`Wheel::advance`]. May be earlier, where an entry is more than a round away.
    pub fn next_ns(&self) -> Option<u64> {
        if self.first[VISITED as usize] != NONE {
            return Some(self.time_of(self.hand));
        }
        self.next_filled().map(|tick| self.time_of(tick))
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Moves the hand to the next bucket up to `target` that is not empty, and its entries to [`VISITED`], which must be empty; without such
    /// a bucket the hand stands at `target`, and the answer is `false`.
    fn turn_to(&mut self, target: u64) -> bool {
        // After more than a round nothing is missed by skipping: every bucket is still visited once, at its last tick before the target.
        self.hand = self.hand.max(target.saturating_sub(u64::from(BUCKETS)));
        let next = self.next_filled().filter(|&tick| tick <= target);
        self.hand = next.unwrap_or(target);
        self.hand_end_ns = self.time_of(self.hand.saturating_add(1));
        if next.is_none() {
            return false;
        }
        let bucket = bucket_of(self.hand);
        let first = std::mem::replace(&mut self.first[bucket as usize], NONE);
        self.mark_empty(bucket);
        self.first[VISITED as usize] = first;
        self.links.at_mut(first).prev = FIRST_OF | VISITED;
        true
    }

    /// The tick behind the hand, at most a round away, whose bucket is not empty.
    fn next_filled(&self) -> Option<u64> {
        let start = bucket_of(self.hand.wrapping_add(1));
        let words = self.filled.len();
        for step in 0..=words {
            let word = (start as usize / 64 + step) % words;
            let mut bits = self.filled[word];
            // The first word is looked at twice: from the start on, and at the end of the round, when only what is before the start is left.
            if step == 0 {
                bits &= u64::MAX << (start % 64);
            }
            if bits != 0 {
                let bucket = word as u64 * 64 + u64::from(bits.trailing_zeros());
                let ahead = bucket.wrapping_sub(u64::from(start)) & BUCKET_MASK;
                return Some(self.hand.saturating_add(1 + ahead));
            }
        }
        None
    }

    fn tick_of(&self, at_ns: u64) -> u64 {
        at_ns.saturating_sub(self.start_ns).div_ceil(self.tick_ns)
    }

    fn time_of(&self, tick: u64) -> u64 {
        self.start_ns.saturating_add(tick.saturating_mul(self.tick_ns))
    }

    /// Makes the links up to `slot`'s.
    fn reach(&mut self, slot: u32) {
        while self.links.len() <= slot {
            self.links.push(UNLINKED);
        }
    }

    fn link(&mut self, slot: u32, due: u64) {
        let list = if due <= self.hand {
            VISITED
        } else {
            let bucket = bucket_of(due);
            self.filled[bucket as usize / 64] |= 1 << (bucket % 64);
            bucket
        };
        let next = std::mem::replace(&mut self.first[list as usize], slot);
        if next != NONE {
            self.links.at_mut(next).prev = slot;
        }
        *self.links.at_mut(slot) = Link { prev: FIRST_OF | list, next, due };
        self.len += 1;
    }

    fn unlink(&mut self, slot: u32) {
        let Link { prev, next, .. } = std::mem::replace(self.links.at_mut(slot), UNLINKED);
        if next != NONE {
            self.links.at_mut(next).prev = prev;
        }
        if prev & FIRST_OF == 0 {
            self.links.at_mut(prev).next = next;
        } else {
            let list = prev & !FIRST_OF;
            self.first[list as usize] = next;
            if next == NONE && list != VISITED {
                self.mark_empty(list);
            }
        }
        self.len -= 1;
    }

    fn mark_empty(&mut self, bucket: u32) {
        self.filled[bucket as usize / 64] &= !(1 << (bucket % 64));
    }
}

#[allow(clippy::cast_possible_truncation, reason = "masked to a bucket")]
fn bucket_of(tick: u64) -> u32 {
    (tick & BUCKET_MASK) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn expired_at(wheel: &mut Wheel, now_ns: u64) -> Vec<u32> {
        let mut expired = Vec::new();
        assert!(!wheel.advance(now_ns, usize::MAX, &mut expired));
        expired.sort_unstable();
        expired
    }

    #[test]
    fn a_link_is_at_most_sixteen_bytes() {
        assert_eq!(size_of::<Link>(), 16);
    }

    #[test]
    fn a_time_is_rounded_up_to_a_tick_and_never_early() {
        let mut wheel = Wheel::new(100 * MS, 7);
        wheel.schedule(0, 7 + 100 * MS);
        wheel.schedule(1, 8 + 100 * MS);
        assert_eq!(wheel.next_ns(), Some(7 + 100 * MS));
        assert!(expired_at(&mut wheel, 6 + 100 * MS).is_empty());
        assert_eq!(expired_at(&mut wheel, 7 + 100 * MS), [0]);
        assert_eq!(wheel.next_ns(), Some(7 + 200 * MS));
        assert!(expired_at(&mut wheel, 6 + 200 * MS).is_empty());
        assert_eq!(expired_at(&mut wheel, 7 + 200 * MS), [1]);
        assert!(wheel.is_empty() && wheel.next_ns().is_none());
    }

    #[test]
    fn a_time_that_has_passed_comes_with_the_next_advance() {
        let mut wheel = Wheel::new(MS, 0);
        assert!(expired_at(&mut wheel, 50 * MS).is_empty());
        wheel.schedule(3, 0);
        wheel.schedule(4, 50 * MS);
        assert!(wheel.next_ns().is_some_and(|at| at <= 50 * MS));
        assert_eq!(expired_at(&mut wheel, 50 * MS), [3, 4]);
    }

    #[test]
    fn no_later_keeps_the_earlier_time() {
        let mut wheel = Wheel::new(MS, 0);
        wheel.schedule_no_later(0, 20 * MS);
        wheel.schedule_no_later(0, 30 * MS);
        assert_eq!(wheel.next_ns(), Some(20 * MS));
        wheel.schedule_no_later(0, 10 * MS);
        assert_eq!(wheel.next_ns(), Some(10 * MS));
        assert_eq!(wheel.len(), 1);
    }

    #[test]
    fn no_call_takes_more_steps_than_its_budget_and_nothing_is_lost() {
        let mut wheel = Wheel::new(MS, 0);
        for slot in 0..1_000 {
            wheel.schedule(slot, 5 * MS);
        }
        let mut expired = Vec::new();
        for round in 1..=9 {
            assert!(wheel.advance(10 * MS, 100, &mut expired));
            assert_eq!(expired.len(), round * 100);
        }
        // What is still waiting can be cancelled or put off.
        let waiting: Vec<u32> = (0..1_000).filter(|slot| !expired.contains(slot)).collect();
        wheel.cancel(waiting[0]);
        wheel.schedule(waiting[1], 20 * MS);
        assert!(!wheel.advance(10 * MS, 100, &mut expired));
        assert_eq!((expired.len(), wheel.len()), (998, 1));
        assert_eq!(expired_at(&mut wheel, 20 * MS), [waiting[1]]);
    }

    #[test]
    fn entries_rounds_away_are_passed_over_within_the_budget() {
        let mut wheel = Wheel::new(MS, 0);
        for slot in 0..500 {
            wheel.schedule(slot, (5 + 3 * 1_024) * MS);
        }
        wheel.schedule(500, 5 * MS);
        let (mut expired, mut calls) = (Vec::new(), 1);
        while wheel.advance(6 * MS, 10, &mut expired) {
            calls += 1;
        }
        assert_eq!((expired, calls, wheel.len()), (vec![500], 51, 500));
        assert_eq!(expired_at(&mut wheel, (4 + 3 * 1_024) * MS).len(), 0);
        assert_eq!(expired_at(&mut wheel, (5 + 3 * 1_024) * MS).len(), 500);
    }

    #[test]
    fn a_jump_of_many_rounds_costs_a_step_an_entry() {
        let mut wheel = Wheel::new(MS, 0);
        for slot in 0..3_000u32 {
            wheel.schedule(slot, u64::from(slot) * 1_000 * MS);
        }
        let mut expired = Vec::new();
        assert!(!wheel.advance(u64::MAX, 3_000, &mut expired));
        assert_eq!((expired.len(), wheel.next_ns()), (3_000, None));
    }

    #[test]
    fn a_clock_that_goes_back_stands_still() {
        let mut wheel = Wheel::new(MS, 1_000 * MS);
        assert!(expired_at(&mut wheel, 1_500 * MS).is_empty());
        wheel.schedule(0, 1_501 * MS);
        assert!(expired_at(&mut wheel, 0).is_empty());
        assert_eq!(expired_at(&mut wheel, 1_501 * MS), [0]);
    }
}
