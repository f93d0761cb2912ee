//! Exactly once and in order: the account of every message at every one of its receivers.
//!
//! One [`Account`] per membership (a receiver in a room) and lane (the thread that sent). It holds which sequences have come as a window of
//! bits, so senders that the server reads in another order than they wrote cost nothing, while each of these is seen: a message twice, a
//! message of a sender before that sender's earlier one, a message that never comes. A rolling hash over all arrivals of a membership lets
//! the end of the run compare the order between the members of a room (protocol.md 3.7). Nothing here reads a clock or a socket.

use std::collections::VecDeque;

use hashbrown::HashSet;

/// Sequences a receiver may miss before the oldest are given up: bounds a membership's memory to 8 KiB.
const WINDOW_WORDS_MAX: usize = 1_024;
/// Of those given up, how many are kept by name, so that an excused one can still be told from a lost one; the rest count as lost.
const GIVEN_UP_MAX: usize = 16_384;
/// Overtaken messages remembered at once; beyond it they are counted as lost only.
const OVERTAKEN_MAX: usize = 1 << 20;

/// What an arrival was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    First,
    Doubled,
}

/// Sequences of one lane that have arrived at one membership.
#[derive(Debug, Default)]
pub struct Account {
    /// All sequences below have come or were given up; a multiple of 64.
    base: u32,
    words: VecDeque<u64>,
    given_up: Vec<u32>,
    given_up_unnamed: u64,
}

impl Account {
    pub fn arrive(&mut self, sequence: u32) -> Arrival {
        let Some(offset) = sequence.checked_sub(self.base) else { return Arrival::Doubled };
        let (word, bit) = (to_index(offset / 64), 1u64 << (offset % 64));
        while self.words.len() <= word {
            if self.words.len() == WINDOW_WORDS_MAX {
                self.give_up_oldest();
                return self.arrive(sequence);
            }
            self.words.push_back(0);
        }
        if self.words[word] & bit != 0 {
            return Arrival::Doubled;
        }
        self.words[word] |= bit;
        while self.words.front() == Some(&u64::MAX) {
            self.words.pop_front();
            self.base += 64;
        }
        Arrival::First
    }

    pub fn has(&self, sequence: u32) -> bool {
        let Some(offset) = sequence.checked_sub(self.base) else { return true };
        self.words.get(to_index(offset / 64)).is_some_and(|word| word & (1 << (offset % 64)) != 0)
    }

    fn give_up_oldest(&mut self) {
        let word = self.words.pop_front().unwrap_or(u64::MAX);
        for bit in (0..64).filter(|bit| word & (1 << bit) == 0) {
            if self.given_up.len() < GIVEN_UP_MAX {
                self.given_up.push(self.base + bit);
            } else {
                self.given_up_unnamed += 1;
            }
        }
        self.base += 64;
    }

    /// Sequences below `sent` that never came, not counting those that `excused` answers for.
    pub fn lost(&self, sent: u32, excused: impl Fn(u32) -> bool) -> u64 {
        let named = self.given_up.iter().filter(|s| !excused(**s)).count();
        let missing = (self.base..sent).filter(|s| !self.has(*s) && !excused(*s)).count();
        self.given_up_unnamed + super::plan::as_u64(named + missing)
    }

    /// A sequence that nobody sent has arrived.
    pub fn beyond(&self, sent: u32) -> bool {
        let last = self.words.iter().rposition(|word| *word != 0);
        let end = last.map_or(0, |word| to_sequence(word * 64) + 64 - self.words[word].leading_zeros());
        self.base + end > sent
    }
}

fn to_index(words: u32) -> usize {
    usize::try_from(words).expect("a u32 fits a usize here")
}

fn to_sequence(count: usize) -> u32 {
    u32::try_from(count).expect("at most the window's bits")
}

/// Wrong arrivals so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    pub doubled: u64,
    pub out_of_order: u64,
}

/// The receivers of one thread.
#[derive(Debug, Default)]
pub struct Checker {
    lanes: usize,
    /// Membership x lane.
    accounts: Vec<Account>,
    /// Per membership: hash over the arrivals in their order.
    orders: Vec<u64>,
    /// Messages whose sender's later message came first: (account, sequence). Either they still come (out of order) or they are lost.
    overtaken: HashSet<(usize, u32)>,
    pub faults: Faults,
}

/// Which message, as far as order goes.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub membership: usize,
    pub lane: u16,
    pub sequence: u32,
    /// The same sender's one before plus one, or 0.
    pub previous: u32,
}

impl Checker {
    pub fn new(memberships: usize, lanes: usize) -> Self {
        Self {
            lanes,
            accounts: std::iter::repeat_with(Account::default).take(memberships * lanes).collect(),
            orders: vec![0; memberships],
            overtaken: HashSet::new(),
            faults: Faults::default(),
        }
    }

    pub fn arrive(&mut self, place: Place) -> Arrival {
        let index = place.membership * self.lanes + usize::from(place.lane);
        let account = &mut self.accounts[index];
        if account.arrive(place.sequence) == Arrival::Doubled {
            self.faults.doubled += 1;
            return Arrival::Doubled;
        }
        let word = (u64::from(place.lane) << 32) | u64::from(place.sequence);
        let order = &mut self.orders[place.membership];
        *order = (order.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        if let Some(previous) = place.previous.checked_sub(1)
            && !account.has(previous)
            && self.overtaken.len() < OVERTAKEN_MAX
        {
            self.overtaken.insert((index, previous));
        }
        if !self.overtaken.is_empty() && self.overtaken.remove(&(index, place.sequence)) {
            self.faults.out_of_order += 1;
        }
        Arrival::First
    }

    /// Threads that send.
    pub fn lanes(&self) -> usize {
        self.lanes
    }

    pub fn account(&self, membership: usize, lane: usize) -> &Account {
        &self.accounts[membership * self.lanes + lane]
    }

    pub fn order(&self, membership: usize) -> u64 {
        self.orders[membership]
    }
}

/// How many members of a room saw another order than most: `orders` are the hashes of members that missed nothing.
pub fn differing_orders(orders: &mut [u64]) -> u64 {
    orders.sort_unstable();
    let most = orders.chunk_by(|a, b| a == b).map(<[u64]>::len).max().unwrap_or(0);
    super::plan::as_u64(orders.len() - most)
}

#[cfg(test)]
mod tests {
    use super::super::schedule::Random;
    use super::*;

    fn place(sequence: u32, previous: u32) -> Place {
        Place { membership: 0, lane: 0, sequence, previous }
    }

    fn none(_: u32) -> bool {
        false
    }

    #[test]
    fn any_order_of_different_senders_is_complete() {
        let mut random = Random::new(2);
        let mut sequences: Vec<u32> = (0..5_000).collect();
        for at in 0..sequences.len() {
            let other = (at + random.below(300) as usize).min(sequences.len() - 1);
            sequences.swap(at, other);
        }
        let mut account = Account::default();
        assert!(sequences.iter().all(|s| account.arrive(*s) == Arrival::First));
        assert_eq!(account.lost(5_000, none), 0);
        assert_eq!(account.lost(5_003, none), 3);
        assert!(!account.beyond(5_000));
        assert!(account.beyond(4_999));
    }

    #[test]
    fn lost_and_doubled_ones_are_counted() {
        let mut account = Account::default();
        for sequence in (0..1_000).filter(|s| s % 100 != 7) {
            assert_eq!(account.arrive(sequence), Arrival::First);
        }
        assert_eq!(account.lost(1_000, none), 10);
        assert_eq!(account.lost(1_000, |s| s == 7), 9, "an excused one is not lost");
        assert_eq!(account.arrive(5), Arrival::Doubled);
        assert_eq!(account.arrive(999), Arrival::Doubled);
        assert_eq!(account.arrive(7), Arrival::First);
    }

    #[test]
    fn memory_is_bounded_when_one_never_comes() {
        let mut account = Account::default();
        for sequence in 1..1_000_000 {
            assert_eq!(account.arrive(sequence), Arrival::First);
        }
        assert!(account.words.len() <= WINDOW_WORDS_MAX);
        assert_eq!(account.lost(1_000_000, none), 1);
        assert_eq!(account.lost(1_000_000, |s| s == 0), 0, "excused, though given up long ago");
    }

    #[test]
    fn a_far_jump_is_survived() {
        let mut account = Account::default();
        assert_eq!(account.arrive(90_000), Arrival::First);
        assert_eq!(account.lost(90_001, none), 90_000);
        assert!(account.beyond(90_000));
    }

    #[test]
    fn a_senders_swapped_pair_is_out_of_order() {
        let mut checker = Checker::new(1, 1);
        checker.arrive(place(0, 0));
        checker.arrive(place(2, 2)); // the sender's message 1 has not come
        checker.arrive(place(1, 1));
        assert_eq!(checker.faults, Faults { doubled: 0, out_of_order: 1 });
    }

    #[test]
    fn a_lost_one_is_not_called_out_of_order() {
        let mut checker = Checker::new(1, 1);
        checker.arrive(place(0, 0));
        checker.arrive(place(2, 2));
        assert_eq!(checker.faults, Faults::default());
        assert_eq!(checker.account(0, 0).lost(3, none), 1);
    }

    #[test]
    fn different_senders_may_overtake_but_all_members_must_agree() {
        let mut checker = Checker::new(3, 2);
        for (membership, order) in [(0, [0, 1, 2]), (1, [0, 1, 2]), (2, [1, 0, 2])] {
            for sequence in order {
                checker.arrive(Place { membership, lane: 1, sequence, previous: 0 });
            }
        }
        assert_eq!(checker.faults, Faults::default());
        let mut orders = [checker.order(0), checker.order(1), checker.order(2)];
        assert_eq!(differing_orders(&mut orders), 1);
        assert_eq!(differing_orders(&mut []), 0);
        assert_eq!(differing_orders(&mut [4, 4, 4]), 0);
    }
}
