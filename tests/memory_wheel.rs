//! A wheel hands out what a map of deadlines would: never early, nothing lost, and its next time never lets anyone oversleep.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod memory_random;

use std::collections::BTreeMap;

use memory_random::{Random, for_each_seed};
use ringroom::memory::wheel::Wheel;

const MS: u64 = 1_000_000;
const ROUND: u64 = 1_024;

/// The wheel, and for each slot the time of the tick at which it has to come out.
struct Both {
    wheel: Wheel,
    model: BTreeMap<u32, u64>,
    tick_ns: u64,
    start_ns: u64,
    now_ns: u64,
}

impl Both {
    fn new(tick_ns: u64, start_ns: u64) -> Self {
        Both { wheel: Wheel::new(tick_ns, start_ns), model: BTreeMap::new(), tick_ns, start_ns, now_ns: start_ns }
    }

    fn tick_time(&self, at_ns: u64) -> u64 {
        self.start_ns + at_ns.saturating_sub(self.start_ns).div_ceil(self.tick_ns) * self.tick_ns
    }

    /// From a round ago to five rounds ahead, mostly near.
    fn random_time(&self, random: &mut Random) -> u64 {
        let spread = self.tick_ns * [4, 100, ROUND, 5 * ROUND][random.index(4)];
        let at = self.now_ns + random.below(spread);
        if random.below(8) == 0 { at.saturating_sub(self.tick_ns * ROUND) } else { at }
    }

    fn change(&mut self, random: &mut Random, slots: u32) {
        let (slot, at_ns) = (random.below_u32(slots), self.random_time(random));
        let due = self.tick_time(at_ns);
        match random.below(10) {
            0..2 => {
                self.wheel.cancel(slot);
                self.model.remove(&slot);
            }
            2..5 => {
                self.wheel.schedule_no_later(slot, at_ns);
                self.model.entry(slot).and_modify(|old| *old = due.min(*old)).or_insert(due);
            }
            _ => {
                self.wheel.schedule(slot, at_ns);
                self.model.insert(slot, due);
            }
        }
        assert_eq!(self.wheel.len(), self.model.len());
    }

    /// Advances once; says whether more is waiting.
    fn advance(&mut self, budget: usize) -> bool {
        let mut expired = vec![u32::MAX];
        let more = self.wheel.advance(self.now_ns, budget, &mut expired);
        assert_eq!(expired[0], u32::MAX, "what stood in the list before is gone");
        assert!(expired.len() - 1 <= budget);
        for slot in &expired[1..] {
            let due = self.model.remove(slot).expect("a slot came out that was not scheduled");
            assert!(due <= self.now_ns, "slot {slot} came out {} ns early", due - self.now_ns);
        }
        if !more {
            let late = self.model.iter().find(|(_, due)| **due <= self.now_ns);
            assert_eq!(late, None, "a due slot was kept at {}", self.now_ns);
            // Or whoever sleeps until then would not sleep at all.
            assert!(self.wheel.next_ns().is_none_or(|next| next > self.now_ns));
        }
        self.check_next();
        more
    }

    fn check_next(&self) {
        let earliest = self.model.values().min();
        match (self.wheel.next_ns(), earliest) {
            (None, None) => {}
            (Some(next), Some(&due)) => assert!(next <= due.max(self.now_ns), "next_ns {next} oversleeps {due}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_wheel_hands_out_what_a_map_of_deadlines_would() {
    for_each_seed(40, |random| {
        let tick_ns = [MS, 100 * MS, 7][random.index(3)];
        let mut both = Both::new(tick_ns, random.below(1 << 50));
        let slots = 1 + random.below_u32(2_000);
        for _ in 0..400 {
            for _ in 0..random.below(40) {
                both.change(random, slots);
            }
            both.check_next();
            // Mostly small steps, sometimes none, sometimes several rounds at once.
            let ticks = [0, 1, 3, 50, ROUND, 20 * ROUND][random.index(6)];
            both.now_ns += random.below(ticks * tick_ns + 1);
            let budget = [1, 7, 100, usize::MAX][random.index(4)];
            while both.advance(budget) {
                if random.below(4) == 0 {
                    both.change(random, slots);
                }
                if random.below(50) == 0 {
                    break;
                }
            }
        }
    });
}

#[test]
fn who_sleeps_until_the_next_time_is_never_late() {
    for_each_seed(20, |random| {
        let mut both = Both::new(MS, random.below(1 << 40));
        for _ in 0..300 {
            both.change(random, 200);
        }
        both.advance(usize::MAX);
        while let Some(next) = both.wheel.next_ns() {
            let earliest = *both.model.values().min().unwrap();
            both.now_ns = next;
            let before = both.model.len();
            assert!(!both.advance(usize::MAX));
            assert_eq!(both.model.len() < before, next == earliest, "slots come out at their own tick");
        }
        assert!(both.model.is_empty());
    });
}
