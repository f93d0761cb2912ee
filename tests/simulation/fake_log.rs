//! The log under faults: answers late, twice, or never; but each room's order is one order.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use ringroom::chat::{Appended, Entry, Token};
use ringroom::cluster::log::Log;
use ringroom::ids::{Now, Position};
use ringroom::ring::fake::Random;

use super::plan::LogFaults;

/// Shared by the harness, which ends the faults.
pub(crate) type Faults = Arc<Mutex<LogFaults>>;

#[derive(Debug)]
pub(crate) struct FakeLog {
    random: Random,
    faults: Faults,
    last: Position,
    /// Answers in the order of their times.
    answers: BTreeMap<(u64, u64), Appended>,
    sequence: u64,
    /// Per room: when its newest answer is due, so that the next one does not overtake it.
    rooms: BTreeMap<String, u64>,
    given: VecDeque<Appended>,
}

impl FakeLog {
    pub(crate) fn new(random: Random, faults: Faults) -> Self {
        Self {
            random,
            faults,
            last: Position::default(),
            answers: BTreeMap::new(),
            sequence: 0,
            rooms: BTreeMap::new(),
            given: VecDeque::new(),
        }
    }

    fn plan(&mut self, at_ns: u64, answer: Appended) {
        self.sequence += 1;
        self.answers.insert((at_ns, self.sequence), answer);
    }
}

impl Log for FakeLog {
    fn append(&mut self, now: Now, token: Token, entry: &Entry) {
        let faults = self.faults.lock().unwrap().clone();
        if self.random.chance(faults.lost) {
            return;
        }
        self.last =
            if now.unix_ms > self.last.ms { Position { ms: now.unix_ms, n: 0 } } else { Position { ms: self.last.ms, n: self.last.n + 1 } };
        let mut at_ns = now.mono_ns;
        if self.random.chance(faults.delayed) {
            at_ns += match self.random.below(20) {
                0 => self.random.below(8_000_000_000),
                1..5 => self.random.below(200_000_000),
                _ => self.random.below(2_000_000),
            };
        }
        let newest = self.rooms.entry(entry.parcel.room().to_owned()).or_insert(0);
        at_ns = at_ns.max(*newest);
        *newest = at_ns;
        let answer = Appended { token, position: self.last };
        self.plan(at_ns, answer);
    }

    fn answers(&mut self, now: Now, out: &mut Vec<Appended>) {
        let repeated = self.faults.lock().unwrap().repeated;
        while let Some(first) = self.answers.first_entry() {
            if first.key().0 > now.mono_ns {
                break;
            }
            let answer = first.remove();
            out.push(answer);
            self.given.push_back(answer);
            if self.given.len() > 20 {
                self.given.pop_front();
            }
            if self.random.chance(repeated) {
                let again = self.given[self.random.index(self.given.len())];
                // At once, soon, or when whoever asked has long been refused.
                let later_ns = match self.random.below(4) {
                    0 => 0,
                    1 => 7_000_000_000,
                    _ => self.random.below(1_000_000_000),
                };
                let at_ns = now.mono_ns + later_ns;
                self.plan(at_ns, again);
            }
        }
    }

    fn next_ns(&self) -> Option<u64> {
        self.answers.first_key_value().map(|(key, _)| key.0)
    }
}
