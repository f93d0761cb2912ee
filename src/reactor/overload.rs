//! Overload, told by the age of work: how long what is ready has to wait until a turn comes to it.
//!
//! Work that is ready when a turn begins has waited at most as long as the turn before it took. When even the shortest of those times over a whole
//! window is above the target, the shard can't keep up: first new connections are turned away, and if that is not enough, `send`s are refused.
//! One quick turn ends it, since then a queue has been emptied.
//!
//! Turns may be quick and the shard behind all the same, because a turn makes so many sends: the rest waits in lists. So the wait in the lists counts as
//! well ([`Lists`]).

use super::core::Core;

/// Work may wait this long.
const TARGET_NS: u64 = 5_000_000;
/// Every turn of a window this long has to be late before anything is turned away.
const WINDOW_NS: u64 = 100_000_000;
/// So many windows later `send`s are refused as well.
const WINDOWS_UNTIL_SENDS: u32 = 4;

/// What the shard turns away now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sheds {
    Nothing,
    Connections,
    ConnectionsAndSends,
}

/// A session may wait so long for its send; longer, and for a whole [`LISTS_WINDOW_NS`], and `send`s are refused. Well above a room of 10,000 being sent
/// to once, well below what people notice.
const LISTS_TARGET_NS: u64 = 25_000_000;
const LISTS_WINDOW_NS: u64 = 50_000_000;

/// How long the lists of sends make a session wait: one place in each is followed from its entry to its end.
#[derive(Debug, Default)]
pub(super) struct ListAge {
    entered: u64,
    left: u64,
    /// Which entry, and since when.
    followed: Option<(u64, u64)>,
    /// What the one before had waited.
    waited_ns: u64,
}

impl ListAge {
    pub(super) fn enter(&mut self, now_ns: u64) {
        self.entered += 1;
        if self.followed.is_none() {
            self.followed = Some((self.entered, now_ns));
        }
    }

    pub(super) fn leave(&mut self, now_ns: u64) {
        self.left += 1;
        if let Some((_, since_ns)) = self.followed.filter(|(entry, _)| *entry == self.left) {
            self.waited_ns = now_ns.saturating_sub(since_ns);
            self.followed = None;
        }
    }

    /// What a session waits now, as far as is known; an empty list makes nobody wait.
    fn now_ns(&mut self, now_ns: u64) -> u64 {
        if self.entered == self.left {
            self.waited_ns = 0;
        }
        let so_far = self.followed.map_or(0, |(_, since_ns)| now_ns.saturating_sub(since_ns));
        self.waited_ns.max(so_far)
    }
}

/// Whether the lists have been too slow for long.
#[derive(Debug, Default)]
pub(super) struct Lists {
    pub(super) interactive: ListAge,
    pub(super) bulk: ListAge,
    /// When the wait was first seen above the target, and since then always: one pause of the whole process is no slow list.
    slow_since_ns: Option<u64>,
}

impl Lists {
    fn are_slow(&mut self, now_ns: u64) -> bool {
        let waits_ns = self.interactive.now_ns(now_ns).max(self.bulk.now_ns(now_ns));
        if waits_ns <= LISTS_TARGET_NS {
            self.slow_since_ns = None;
            return false;
        }
        now_ns.saturating_sub(*self.slow_since_ns.get_or_insert(now_ns)) >= LISTS_WINDOW_NS
    }
}

impl<S> Core<S> {
    /// A turn begins: whether sessions wait too long for their turn in a list. `send`s are refused then; new connections are let in, they are not what it
    /// is late with.
    pub(super) fn is_late(&mut self) -> bool {
        self.lists.are_slow(self.now.mono_ns)
    }
}

#[derive(Debug)]
pub(super) struct AgeOfWork {
    /// When the turn before began, if it left work for this one.
    busy_since_ns: Option<u64>,
    window_ns: u64,
    /// The shortest wait of the window so far.
    shortest_ns: u64,
    windows: u32,
}

impl AgeOfWork {
    pub(super) fn new(now_ns: u64) -> Self {
        Self { busy_since_ns: None, window_ns: now_ns, shortest_ns: u64::MAX, windows: 0 }
    }

    /// A turn begins. Says how long what is ready may have waited, nanoseconds.
    pub(super) fn turn(&mut self, now_ns: u64) -> u64 {
        let waited_ns = self.busy_since_ns.map_or(0, |since_ns| now_ns.saturating_sub(since_ns));
        self.busy_since_ns = Some(now_ns);
        self.shortest_ns = self.shortest_ns.min(waited_ns);
        if self.shortest_ns <= TARGET_NS {
            self.windows = 0;
        }
        if now_ns.saturating_sub(self.window_ns) >= WINDOW_NS {
            self.windows = if self.shortest_ns > TARGET_NS { self.windows.saturating_add(1) } else { 0 };
            self.window_ns = now_ns;
            self.shortest_ns = u64::MAX;
        }
        waited_ns
    }

    /// The shard has nothing left to do: nothing waits.
    pub(super) fn idle(&mut self) {
        self.busy_since_ns = None;
    }

    pub(super) fn sheds(&self) -> Sheds {
        match self.windows {
            0 => Sheds::Nothing,
            1..WINDOWS_UNTIL_SENDS => Sheds::Connections,
            _ => Sheds::ConnectionsAndSends,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn after(age: &mut AgeOfWork, now_ms: &mut u64, turns: u64, each_ms: u64) -> Sheds {
        for _ in 0..turns {
            *now_ms += each_ms;
            age.turn(*now_ms * MS);
        }
        age.sheds()
    }

    #[test]
    fn turns_that_are_late_for_a_whole_window_shed_connections_then_sends() {
        let (mut age, mut now_ms) = (AgeOfWork::new(0), 0);
        assert_eq!(after(&mut age, &mut now_ms, 1_000, 4), Sheds::Nothing, "busy but in time");
        assert_eq!(after(&mut age, &mut now_ms, 8, 10), Sheds::Nothing, "not yet a window");
        assert_eq!(after(&mut age, &mut now_ms, 20, 10), Sheds::Connections);
        assert_eq!(after(&mut age, &mut now_ms, 40, 10), Sheds::ConnectionsAndSends);
        assert_eq!(after(&mut age, &mut now_ms, 1, 4), Sheds::Nothing, "one quick turn has emptied the queue");
    }

    #[test]
    fn sessions_that_wait_too_long_in_a_list_shed_sends_until_the_list_is_quick() {
        let mut lists = Lists::default();
        let mut now_ns = 0;
        for _ in 0..20 {
            lists.bulk.enter(now_ns);
            now_ns += 24 * MS;
            lists.bulk.leave(now_ns);
            assert!(!lists.are_slow(now_ns), "slow but bearable");
        }
        lists.bulk.enter(now_ns);
        lists.bulk.enter(now_ns);
        assert!(!lists.are_slow(now_ns + 500 * MS), "one look after a pause of everything");
        assert!(!lists.are_slow(now_ns + 549 * MS), "not yet for long");
        assert!(lists.are_slow(now_ns + 551 * MS));
        lists.bulk.leave(now_ns + 560 * MS);
        assert!(lists.are_slow(now_ns + 560 * MS), "one that has waited long tells of those behind it");
        lists.bulk.leave(now_ns + 561 * MS);
        assert!(!lists.are_slow(now_ns + 561 * MS), "nobody waits");
    }

    #[test]
    fn a_shard_that_sleeps_between_long_turns_is_not_overloaded() {
        let (mut age, mut now_ms) = (AgeOfWork::new(0), 0);
        for _ in 0..100 {
            assert_eq!(after(&mut age, &mut now_ms, 1, 20), Sheds::Nothing);
            age.idle();
        }
    }
}
