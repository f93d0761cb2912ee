//! A user's rate: a token bucket, filled by time, one token a request.

use super::stall::low;
use crate::config::RateMode;
use crate::mutation::{Mutation, planted};

/// How fast a user's sessions together may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateRules {
    pub requests_per_s: u32,
    /// Tokens of a full bucket, at most [`RateRules::BURST_MAX`].
    pub burst: u32,
    /// Recipients of a `send` that cost one more token; 0: a `send` costs one.
    pub recipients_per_token: u32,
    pub mode: RateMode,
}

impl RateRules {
    pub const BURST_MAX: u32 = 4_000_000;

    /// Tokens of a `send`: never more than a full bucket has.
    pub(super) fn cost(&self, recipients: u32) -> u32 {
        let more = recipients.checked_div(self.recipients_per_token).unwrap_or(0);
        more.saturating_add(1).min(self.burst)
    }
}

/// Level in thousandths of a token: between nothing and a full bucket, whatever the clock does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bucket {
    level: u32,
    /// When it had that level, the lower half of the monotonic clock's milliseconds: who comes back after seven weeks may find as much less in it as one
    /// who comes back at once, and no less.
    at_ms: u32,
}

const TOKEN: u32 = 1_000;

const _: () = assert!(RateRules::BURST_MAX as u64 * TOKEN as u64 <= u32::MAX as u64);

impl Bucket {
    /// A bucket that nobody has taken from.
    pub(super) const FULL: Bucket = Bucket { level: u32::MAX, at_ms: 0 };

    /// `Ok` when so many tokens are there, at most a full bucket (take them with [`Bucket::take`]); else when they will be, milliseconds of the
    /// monotonic clock.
    pub(super) fn look(&mut self, now_ms: u64, tokens: u32, rules: &RateRules) -> Result<(), u64> {
        let brim = if planted(Mutation::OverfillBucket) { u64::from(u32::MAX) } else { u64::from(rules.burst) * u64::from(TOKEN) };
        let passed_ms = low(now_ms).wrapping_sub(self.at_ms);
        let filled = u64::from(passed_ms) * u64::from(rules.requests_per_s);
        let level = u64::from(self.level).saturating_add(filled).min(brim);
        self.level = u32::try_from(level).expect("a full bucket fits");
        self.at_ms = low(now_ms);
        let wanted = tokens * TOKEN;
        if self.level >= wanted {
            return Ok(());
        }
        let missing = u64::from(wanted - self.level);
        Err(now_ms + missing.div_ceil(u64::from(rules.requests_per_s)))
    }

    /// Holds more than a full bucket, though somebody has looked.
    pub(super) fn is_over(&self, rules: &RateRules) -> bool {
        *self != Self::FULL && u64::from(self.level) > u64::from(rules.burst) * u64::from(TOKEN)
    }

    /// When it is full, milliseconds of the monotonic clock; `None` when it is by now.
    pub(super) fn full_at(&mut self, now_ms: u64, rules: &RateRules) -> Option<u64> {
        self.look(now_ms, rules.burst, rules).err()
    }

    /// The user has another rate from now on: what is above its burst goes.
    pub(super) fn hold_to(&mut self, rules: &RateRules) {
        if *self != Self::FULL && !planted(Mutation::OverfillBucket) {
            self.level = self.level.min(rules.burst * TOKEN);
        }
    }

    /// Takes the tokens that were seen.
    pub(super) fn take(&mut self, tokens: u32) {
        self.level = self.level.checked_sub(tokens * TOKEN).expect("the tokens were seen");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: RateRules = RateRules { requests_per_s: 50, burst: 100, recipients_per_token: 10, mode: RateMode::Wait };

    #[test]
    fn a_burst_then_the_rate_and_never_more() {
        let mut bucket = Bucket::FULL;
        let mut taken = 0_u64;
        for now_ms in 1_000..11_000 {
            while bucket.look(now_ms, 1, &RULES).is_ok() {
                bucket.take(1);
                taken += 1;
            }
            assert!(u64::from(bucket.level) <= 100 * u64::from(TOKEN));
        }
        assert_eq!(taken, 100 + 50 * 10 - 1, "the last token of the tenth second is not there yet");
    }

    #[test]
    fn it_says_when_the_next_token_comes() {
        let mut bucket = Bucket::FULL;
        for _ in 0..100 {
            assert_eq!(bucket.look(5_000, 1, &RULES), Ok(()));
            bucket.take(1);
        }
        assert_eq!(bucket.look(5_000, 1, &RULES), Err(5_020));
        assert_eq!(bucket.look(5_019, 1, &RULES), Err(5_020));
        assert_eq!(bucket.look(5_020, 1, &RULES), Ok(()));
        assert_eq!(bucket.look(1, 1, &RULES), Ok(()), "a clock that goes back takes nothing away");
    }

    #[test]
    fn a_send_costs_by_its_recipients_and_never_more_than_a_full_bucket() {
        assert_eq!([0, 9, 10, 25, 990, 5_000, u32::MAX].map(|recipients| RULES.cost(recipients)), [1, 1, 2, 3, 100, 100, 100]);
        let free = RateRules { recipients_per_token: 0, ..RULES };
        assert_eq!(free.cost(u32::MAX), 1);
        let mut bucket = Bucket::FULL;
        assert_eq!(bucket.look(5_000, 100, &RULES), Ok(()));
        bucket.take(100);
        assert_eq!(bucket.look(5_000, 3, &RULES), Err(5_060));
        assert_eq!(bucket.look(5_060, 3, &RULES), Ok(()));
    }
}
