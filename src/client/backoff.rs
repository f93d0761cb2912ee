//! When to try again: exponential, with full jitter, never before the server said.
//!
//! Owns the count of attempts and the dice. After a restart thousands of clients come back at once; a delay drawn from the whole of `0 ..= ceiling`
//! spreads them best (AWS Architecture Blog, "Exponential Backoff And Jitter"). Time comes in and goes out as values; it never waits.

use std::time::Duration;

/// The longest `retry_after_ms` that is obeyed: a server can't park a client for good.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// Bounds of the delay between two attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The ceiling of the first delay; each failure doubles it.
    pub base: Duration,
    /// The ceiling of all.
    pub cap: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { base: Duration::from_millis(250), cap: Duration::from_secs(20) }
    }
}

#[derive(Debug)]
pub(super) struct Pace {
    rules: Backoff,
    attempts: u32,
    dice: Dice,
}

impl Pace {
    pub(super) fn new(rules: Backoff, dice: Dice) -> Self {
        Self { rules, attempts: 0, dice }
    }

    /// The delay before the next attempt: at least what the server asked for, then up to the ceiling.
    pub(super) fn next(&mut self, retry_after: Option<Duration>) -> Duration {
        let ceiling = self.ceiling();
        self.attempts = self.attempts.saturating_add(1);
        let asked = retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
        asked + self.dice.up_to(ceiling)
    }

    /// A delay for one request, which does not count as a failed attempt.
    pub(super) fn once(&mut self, retry_after: Option<Duration>) -> Duration {
        retry_after.unwrap_or(self.rules.base).min(RETRY_AFTER_MAX) + self.dice.up_to(self.rules.base)
    }

    pub(super) fn reset(&mut self) {
        self.attempts = 0;
    }

    fn ceiling(&self) -> Duration {
        let factor = 1_u32.checked_shl(self.attempts).unwrap_or(u32::MAX);
        self.rules.base.saturating_mul(factor).min(self.rules.cap)
    }
}

/// Numbers without pattern (splitmix64); not for secrets.
#[derive(Clone, Debug)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        let micros = u64::try_from(most.as_micros()).unwrap_or(u64::MAX - 1);
        Duration::from_micros(self.roll() % micros.saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(seed: u64) -> Pace {
        Pace::new(Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(2) }, Dice(seed))
    }

    #[test]
    fn delays_stay_under_a_ceiling_that_doubles_to_the_cap_and_use_all_of_it() {
        let mut largest = [Duration::ZERO; 40];
        let mut smallest = [Duration::MAX; 40];
        for seed in 0..500 {
            let mut pace = pace(seed);
            for attempt in 0..40 {
                let delay = pace.next(None);
                largest[attempt] = largest[attempt].max(delay);
                smallest[attempt] = smallest[attempt].min(delay);
            }
        }
        for attempt in 0..40_u32 {
            let ceiling = Duration::from_millis(100 << attempt.min(5)).min(Duration::from_secs(2));
            let i = attempt as usize;
            assert!(largest[i] <= ceiling && largest[i] > ceiling * 9 / 10, "{attempt}: {:?} of {ceiling:?}", largest[i]);
            assert!(smallest[i] < ceiling / 10, "{attempt}: {:?} of {ceiling:?}", smallest[i]);
        }
    }

    #[test]
    fn the_server_is_obeyed_within_reason() {
        let mut pace = pace(1);
        for _ in 0..100 {
            let delay = pace.next(Some(Duration::from_secs(7)));
            assert!(delay >= Duration::from_secs(7) && delay <= Duration::from_secs(9));
        }
        assert!(pace.next(Some(Duration::from_secs(1_000_000))) <= RETRY_AFTER_MAX + Duration::from_secs(2));
        assert!(pace.once(Some(Duration::from_secs(1))) >= Duration::from_secs(1));
    }

    #[test]
    fn success_starts_it_over() {
        let mut pace = pace(3);
        for _ in 0..10 {
            pace.next(None);
        }
        pace.reset();
        assert!(pace.next(None) <= Duration::from_millis(100));
    }
}
