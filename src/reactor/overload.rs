//! Overload, told by the age of work: how long what is ready has to wait until a turn comes to it.
//!
//! Work that is ready when a turn begins has waited at most as long as the turn before it took. When even the shortest of those times over a whole
//! window is above the target, the shard can't keep up: first new connections are turned away, and if that is not enough, `send`s are refused.
//! One quick turn ends it, since then a queue has been emptied.

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
    fn a_shard_that_sleeps_between_long_turns_is_not_overloaded() {
        let (mut age, mut now_ms) = (AgeOfWork::new(0), 0);
        for _ in 0..100 {
            assert_eq!(after(&mut age, &mut now_ms, 1, 20), Sheds::Nothing);
            age.idle();
        }
    }
}
