//! Failed logins by client address: a token bucket each, in a table of fixed size.
//!
//! An IPv4 address counts as itself, an IPv6 address as its /64, which is what one host can choose from. The table forgets the addresses that failed
//! least lately; forgetting is to the address's favour. While no address is out of tokens nobody has to ask for one ([`Failures::is_calm`]), so that a
//! login costs no getpeername(2). Pure: the time comes in.

use std::net::IpAddr;

use ahash::RandomState;

use super::cache::Cache;
use crate::config::Auth;

/// Addresses in the table.
const ADDRESSES_MAX: usize = 65_536;
/// After an address was out of tokens, addresses are asked for until nobody was for this long.
const CALM_MS: u64 = 120_000;
/// Thousandths of a token.
const TOKEN: u64 = 1_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailureRules {
    pub per_min: u32,
    pub burst: u32,
}

impl FailureRules {
    pub fn of(auth: &Auth) -> Self {
        Self { per_min: auth.failures_per_min, burst: auth.failures_burst }
    }
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    level: u64,
    at_ms: u64,
}

#[derive(Debug)]
pub struct Failures {
    rules: FailureRules,
    buckets: Cache<Bucket>,
    /// When an address was last seen without tokens, milliseconds of the monotonic clock.
    empty_ms: Option<u64>,
}

impl Failures {
    pub fn new(rules: FailureRules, hash_seeds: [u64; 4]) -> Self {
        let [a, b, c, d] = hash_seeds;
        Self { rules, buckets: Cache::new(ADDRESSES_MAX, RandomState::with_seeds(a, b, c, d)), empty_ms: None }
    }

    /// No address is known to be out of tokens: [`Failures::look`] would allow all.
    pub fn is_calm(&self, now_ms: u64) -> bool {
        self.empty_ms.is_none_or(|at_ms| now_ms.saturating_sub(at_ms) >= CALM_MS)
    }

    /// May this address try to log in? The error is the milliseconds until it may.
    pub fn look(&mut self, now_ms: u64, address: IpAddr) -> Result<(), u64> {
        let rules = self.rules;
        let Some(bucket) = self.buckets.get_mut(prefix(address)) else { return Ok(()) };
        bucket.fill(now_ms, rules);
        if bucket.level >= TOKEN {
            return Ok(());
        }
        self.empty_ms = Some(now_ms);
        Err((TOKEN - bucket.level) * 60 / u64::from(rules.per_min).max(1) + 1)
    }

    /// A login of this address has failed.
    pub fn failed(&mut self, now_ms: u64, address: IpAddr) {
        let rules = self.rules;
        let key = prefix(address);
        if self.buckets.get_mut(key).is_none() {
            self.buckets.put(key, Bucket { level: u64::from(rules.burst) * TOKEN, at_ms: now_ms });
        }
        let Some(bucket) = self.buckets.get_mut(key) else { return };
        bucket.fill(now_ms, rules);
        bucket.level = bucket.level.saturating_sub(TOKEN);
        if bucket.level < TOKEN {
            self.empty_ms = Some(now_ms);
        }
    }
}

impl Bucket {
    fn fill(&mut self, now_ms: u64, rules: FailureRules) {
        // A token a minute is a thousandth of one every 60 ms.
        let passed_ms = now_ms.saturating_sub(self.at_ms);
        let filled = passed_ms.saturating_mul(u64::from(rules.per_min)) / 60;
        if filled > 0 {
            self.level = self.level.saturating_add(filled).min(u64::from(rules.burst) * TOKEN);
            self.at_ms = now_ms;
        }
    }
}

fn prefix(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(four) => u128::from(four.to_bits()),
        // Never a number below 2^64, so it meets no IPv4 address but for ::/64, which nobody connects from.
        IpAddr::V6(six) => six.to_bits() >> 64 << 64,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn failures() -> Failures {
        Failures::new(FailureRules { per_min: 30, burst: 3 }, [1, 2, 3, 4])
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_may_fail_its_burst_and_then_waits_for_its_rate() {
        let mut failures = failures();
        let (bad, other) = (address("192.0.2.1"), address("192.0.2.2"));
        for _ in 0..3 {
            assert_eq!(failures.look(1_000, bad), Ok(()));
            failures.failed(1_000, bad);
        }
        assert_eq!(failures.look(1_000, other), Ok(()));
        let wait_ms = failures.look(1_000, bad).unwrap_err();
        assert!((2_000..2_010).contains(&wait_ms), "a token comes every two seconds: {wait_ms}");
        assert_eq!(failures.look(1_000 + wait_ms, bad), Ok(()));
        failures.failed(1_000 + wait_ms, bad);
        assert!(failures.look(1_000 + wait_ms, bad).is_err());
    }

    #[test]
    fn nobody_is_asked_for_an_address_while_all_is_calm() {
        let mut failures = failures();
        assert!(failures.is_calm(0));
        for _ in 0..3 {
            failures.failed(10, address("192.0.2.1"));
        }
        assert!(!failures.is_calm(10));
        assert!(failures.is_calm(10 + CALM_MS));
    }

    #[test]
    fn hosts_of_one_64_are_one_and_an_ipv4_address_is_the_same_in_ipv6_clothes() {
        let same = |a: &str, b: &str| prefix(address(a)) == prefix(address(b));
        assert!(same("2001:db8::1", "2001:db8::ffff:1"));
        assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(same("192.0.2.1", "::ffff:192.0.2.1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
    }
}
