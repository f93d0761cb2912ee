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
/// Words with holes behind the window that are kept, so that a late message can still be told from a doubled one and an excused one from a lost one:
/// a million sequences, 256 KiB. Of those beyond it only the number is known.
const BEHIND_MAX: usize = 16_384;
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
    /// All sequences below have come or stand in `behind`; a multiple of 64.
    base: u32,
    words: VecDeque<u64>,
    /// First sequence and missing ones of the words that left the window with holes, rising.
    behind: Vec<(u32, u64)>,
    /// Missing ones from `unnamed_from` to `base`, where `behind` was full.
    unnamed: u64,
    unnamed_from: Option<u32>,
}

impl Account {
    pub fn arrive(&mut self, sequence: u32) -> Arrival {
        let Some(offset) = sequence.checked_sub(self.base) else { return self.arrive_behind(sequence) };
        // Not by recursion: a number that nobody sent may be a million words away.
        let last = to_index(offset / 64);
        let leaving = (last + 1).saturating_sub(WINDOW_WORDS_MAX);
        for _ in 0..leaving {
            self.give_up_oldest();
        }
        let (word, bit) = (last - leaving, 1u64 << (offset % 64));
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
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
        let Some(offset) = sequence.checked_sub(self.base) else {
            // Of the unnamed ones nobody knows; they are taken for arrived, so order is not held against them.
            return self.place_behind(sequence).is_none_or(|at| self.behind[at].1 & (1 << (sequence % 64)) == 0);
        };
        self.words.get(to_index(offset / 64)).is_some_and(|word| word & (1 << (offset % 64)) != 0)
    }

    /// A message that comes when the window has gone past it: late, unless it has come before.
    fn arrive_behind(&mut self, sequence: u32) -> Arrival {
        if let Some(at) = self.place_behind(sequence) {
            let (missing, bit) = (&mut self.behind[at].1, 1u64 << (sequence % 64));
            let first = *missing & bit != 0;
            *missing &= !bit;
            return if first { Arrival::First } else { Arrival::Doubled };
        }
        if self.unnamed > 0 && self.unnamed_from.is_some_and(|from| sequence >= from) {
            // One of those that are only counted. Were it a doubled one, a lost one would hide it: the sum of faults stays.
            self.unnamed -= 1;
            return Arrival::First;
        }
        Arrival::Doubled
    }

    fn place_behind(&self, sequence: u32) -> Option<usize> {
        self.behind.binary_search_by_key(&(sequence / 64 * 64), |(first, _)| *first).ok()
    }

    fn give_up_oldest(&mut self) {
        // Behind the newest word nothing has come yet.
        let missing = !self.words.pop_front().unwrap_or(0);
        if missing != 0 && self.behind.len() < BEHIND_MAX {
            self.behind.push((self.base, missing));
        } else if missing != 0 {
            self.unnamed += u64::from(missing.count_ones());
            self.unnamed_from.get_or_insert(self.base);
        }
        self.base += 64;
    }

    /// Sequences below `sent` that never came, not counting those that `excused` answers for.
    pub fn lost(&self, sent: u32, excused: impl Fn(u32) -> bool) -> u64 {
        let holes = |(first, missing): &(u32, u64)| {
            let (first, missing) = (*first, *missing);
            (0..64).filter(move |bit| missing & (1 << bit) != 0).map(move |bit| first + bit)
        };
        let named = self.behind.iter().flat_map(holes).filter(|s| *s < sent && !excused(*s)).count();
        let missing = (self.base..sent).filter(|s| !self.has(*s) && !excused(*s)).count();
        self.unnamed + super::plan::as_u64(named + missing)
    }

    /// A sequence that nobody sent has arrived.
    pub fn beyond(&self, sent: u32) -> bool {
        let last = self.words.iter().rposition(|word| *word != 0);
        let end = last.map_or(0, |word| to_sequence(word * 64) + 64 - self.words[word].leading_zeros());
        self.base.saturating_add(end) > sent
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
    fn one_that_comes_behind_the_window_is_late_and_neither_lost_nor_doubled() {
        let mut account = Account::default();
        // A sender whose messages the server reads last: each tenth one, far behind 200,000 of the others.
        for sequence in (0..200_000).filter(|s| s % 10 != 3) {
            assert_eq!(account.arrive(sequence), Arrival::First);
        }
        assert!(account.words.len() <= WINDOW_WORDS_MAX && !account.has(13) && account.has(14));
        assert_eq!(account.lost(200_000, none), 20_000);
        assert_eq!(account.lost(200_000, |s| s % 10 == 3), 0, "refused, however many");
        for sequence in (0..200_000).filter(|s| s % 10 == 3) {
            assert_eq!(account.arrive(sequence), Arrival::First, "{sequence}");
        }
        assert_eq!(account.lost(200_000, none), 0);
        for sequence in [13, 14, 199_993] {
            assert_eq!(account.arrive(sequence), Arrival::Doubled, "{sequence}");
        }
    }

    #[test]
    fn a_number_that_nobody_sent_ends_nothing() {
        let mut account = Account::default();
        assert_eq!(account.arrive(99_999_999), Arrival::First);
        assert!(account.beyond(10) && account.behind.len() <= BEHIND_MAX);
        assert_eq!(account.arrive(5), Arrival::First);
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
