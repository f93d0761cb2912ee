//! A timer wheel linked through arrays that run parallel to a slab: one entry a slot, no allocation per timer.

/// Entries are slots of a slab; each slot stands in the wheel at most once.
#[derive(Debug)]
pub struct Wheel {}

impl Wheel {
    /// A wheel whose hand moves every `tick_ns`, starting at `now_ns`; times further than one round wait for another round.
    pub fn new(tick_ns: u64, now_ns: u64) -> Self {
        let _ = (tick_ns, now_ns);
        unimplemented!()
    }
    /// Schedules `slot` for `at_ns` (rounded up to a tick, never early), replacing what it had.
    pub fn schedule(&mut self, slot: u32, at_ns: u64) {
        let _ = (slot, at_ns);
        unimplemented!()
    }
    /// Schedules unless the slot already stands at the same or an earlier time.
    pub fn schedule_no_later(&mut self, slot: u32, at_ns: u64) {
        let _ = (slot, at_ns);
        unimplemented!()
    }
    pub fn cancel(&mut self, slot: u32) {
        let _ = slot;
        unimplemented!()
    }
    /// Moves the hand to `now_ns` and appends at most `budget` expired slots to `expired`; `true` when more are waiting.
    pub fn advance(&mut self, now_ns: u64, budget: usize, expired: &mut Vec<u32>) -> bool {
        let _ = (now_ns, budget, expired);
        unimplemented!()
    }
    /// The time of the next tick that has an entry (never later than the true one; may be earlier), or `None` when empty.
    pub fn next_ns(&self) -> Option<u64> {
        unimplemented!()
    }
    pub fn len(&self) -> usize {
        unimplemented!()
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
