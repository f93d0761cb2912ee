//! What users that have gone still owe: buckets that were not full when their user was forgotten, until they would be.
//!
//! Without it a user would be rid of its rate by coming back. A bucket that was full leaves nothing behind, and neither does one whose time has come.
//! There are at most as many as the owner says; above it the one that would be full first goes, which has the least to say. When the rate of the
//! configuration changes, those that are here keep their times.

use std::collections::{BTreeMap, BTreeSet};

use super::bucket::Bucket;
use super::rights::TokenRate;

/// What is kept of a user.
#[derive(Clone, Copy, Debug)]
pub(super) struct Debt {
    pub(super) bucket: Bucket,
    /// The rate of the user's newest token, where it had one.
    pub(super) rate: Option<TokenRate>,
    /// When the bucket would be full, milliseconds of the monotonic clock.
    pub(super) full_ms: u64,
}

/// By the keyed hash of the user's name, and by when they are over.
#[derive(Debug)]
pub(super) struct Debts {
    by_user: BTreeMap<u64, Debt>,
    by_time: BTreeSet<(u64, u64)>,
    most: usize,
}

impl Debts {
    pub(super) fn new(most: usize) -> Self {
        Self { by_user: BTreeMap::new(), by_time: BTreeSet::new(), most }
    }

    pub(super) fn len(&self) -> usize {
        self.by_user.len()
    }

    /// Keeps a debt of a user that has none here.
    pub(super) fn put(&mut self, user: u64, debt: Debt) {
        // Two names under one hash: the newer one counts.
        self.take(user);
        self.by_time.insert((debt.full_ms, user));
        self.by_user.insert(user, debt);
        if self.by_user.len() > self.most {
            self.pop();
        }
    }

    /// The user is back.
    pub(super) fn take(&mut self, user: u64) -> Option<Debt> {
        let debt = self.by_user.remove(&user)?;
        self.by_time.remove(&(debt.full_ms, user));
        Some(debt)
    }

    /// Forgets those whose buckets would be full by now.
    pub(super) fn expire(&mut self, now_ms: u64) {
        while self.by_time.first().is_some_and(|(full_ms, _)| *full_ms <= now_ms) {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some((_, user)) = self.by_time.pop_first() {
            self.by_user.remove(&user);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn debt(full_ms: u64) -> Debt {
        Debt { bucket: Bucket::FULL, rate: None, full_ms }
    }

    #[test]
    fn above_the_bound_the_one_that_is_over_first_goes() {
        let mut debts = Debts::new(3);
        for (user, full_ms) in [(1, 50), (2, 20), (3, 40), (4, 30), (5, 10)] {
            debts.put(user, debt(full_ms));
            assert!(debts.len() <= 3);
        }
        assert_eq!([1, 2, 3, 4, 5].map(|user| debts.take(user).is_some()), [true, false, true, true, false]);
        assert_eq!((debts.len(), debts.by_time.len()), (0, 0));
    }

    #[test]
    fn each_goes_when_its_time_has_come() {
        let mut debts = Debts::new(10);
        (0..10).for_each(|user| debts.put(user, debt(100 + user)));
        debts.put(9, debt(50));
        debts.expire(104);
        assert_eq!((debts.len(), debts.by_time.len()), (4, 4));
        assert!(debts.take(5).is_some() && debts.take(4).is_none() && debts.take(9).is_none());
    }
}
