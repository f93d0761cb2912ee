//! How sessions ended while they were doing something: a table that has to be full, and the aim that fills it.
//!
//! What a session is doing is what its shard says of it at the last look before its end; only of a replay its client knows more.

use std::collections::BTreeMap;

use ringroom::ids::Key;
use ringroom::reactor::Doing;

/// What a session may be doing when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(usize)]
pub(crate) enum Busy {
    Verifying,
    Renewing,
    Joining,
    Asking,
    Held,
    OutOfTokens,
    Blocked,
    NotReading,
    Replaying,
}

impl Busy {
    pub(crate) const ALL: [Busy; 9] = [
        Busy::Verifying,
        Busy::Renewing,
        Busy::Joining,
        Busy::Asking,
        Busy::Held,
        Busy::OutOfTokens,
        Busy::Blocked,
        Busy::NotReading,
        Busy::Replaying,
    ];

    /// In the order of `ALL`.
    fn of(doing: Doing, replaying: bool) -> [bool; Self::ALL.len()] {
        let Doing { verifying, renewing, joining, asking, held, out_of_tokens, blocked, not_reading } = doing;
        [verifying, renewing, joining, asking, held, out_of_tokens, blocked, not_reading, replaying]
    }

    pub(crate) fn all_of(doing: Doing, replaying: bool) -> impl Iterator<Item = Busy> {
        Self::ALL.into_iter().zip(Self::of(doing, replaying)).filter_map(|(busy, is)| is.then_some(busy))
    }
}

/// How a session ended, by the server's own reason.
const ENDS: [&str; 9] =
    ["bye", "peer_closed", "peer_lost", "replaced", "slow_consumer", "token_expired", "bad_token", "overloaded", "draining"];

const CELLS: usize = ENDS.len() * Busy::ALL.len();

/// Cells that may stay empty, by reason. Between two looks a session may do several things, so now and then one is met all the same.
const IMPOSSIBLE: &[(&str, &[Busy], &str)] = &[
    ("bye", &BEFORE_THE_NEXT_WORD, "a bye is judged behind what waits, and waits for every answer"),
    ("peer_closed", &BEFORE_THE_NEXT_WORD, "the end of the stream is judged behind what waits, and waits for every answer"),
    ("peer_lost", &[Busy::Verifying], "nothing is read from it and nothing sent to it"),
    ("replaced", &[Busy::Verifying], "it is no session yet"),
    ("slow_consumer", &[Busy::Verifying], "nothing is sent to it"),
    ("bad_token", &BUT_FOR_A_VERDICT, "it comes of a verdict: the session was verifying or renewing, whatever else it did"),
];

const BUT_FOR_A_VERDICT: [Busy; 7] =
    [Busy::Joining, Busy::Asking, Busy::Held, Busy::OutOfTokens, Busy::Blocked, Busy::NotReading, Busy::Replaying];

const BEFORE_THE_NEXT_WORD: [Busy; 8] =
    [Busy::Verifying, Busy::Renewing, Busy::Joining, Busy::Asking, Busy::Held, Busy::OutOfTokens, Busy::Blocked, Busy::NotReading];

/// How often each end met a session at each business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    pub(crate) cells: [u64; CELLS],
}

impl Default for Ends {
    fn default() -> Self {
        Self { cells: [0; CELLS] }
    }
}

impl Ends {
    pub(crate) fn note(&mut self, reason: &str, busy: Busy) {
        if let Some(row) = ENDS.iter().position(|end| *end == reason) {
            self.cells[row * Busy::ALL.len() + busy as usize] += 1;
        }
    }

    pub(crate) fn add(&mut self, cells: &[u64]) {
        for (cell, more) in self.cells.iter_mut().zip(cells) {
            *cell += more;
        }
    }

    /// The table as text, and the cells that should not be empty but are.
    pub(crate) fn render(&self) -> (String, Vec<String>) {
        let mut text = format!("{:<18}", "end");
        for busy in Busy::ALL {
            text.push_str(&format!("{:>12}", format!("{busy:?}")));
        }
        text.push('\n');
        let mut empty = Vec::new();
        for (row, end) in ENDS.iter().enumerate() {
            text.push_str(&format!("{end:<18}"));
            for busy in Busy::ALL {
                let count = self.cells[row * Busy::ALL.len() + busy as usize];
                let impossible = IMPOSSIBLE.iter().any(|(name, all, _)| name == end && all.contains(&busy));
                if count == 0 && !impossible {
                    empty.push(format!("{end} x {busy:?}"));
                }
                text.push_str(&format!("{:>12}", if count == 0 && impossible { "-".to_owned() } else { count.to_string() }));
            }
            text.push('\n');
        }
        (text, empty)
    }
}

/// One shard's connections at the last look.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    doing: BTreeMap<(u32, u32), Doing>,
    ended: BTreeMap<(u32, u32), &'static str>,
}

fn order(key: Key) -> (u32, u32) {
    (key.slot, key.generation)
}

/// A connection that has ended since the look before, and what it was doing then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    pub(crate) key: Key,
    pub(crate) reason: &'static str,
    pub(crate) doing: Doing,
}

impl Watched {
    /// Takes a new look; the result is who has ended since the one before. Who is gone without a trace was lost with nothing in flight.
    pub(crate) fn look(&mut self, doing: &[(Key, Doing)], ended: &[(Key, &'static str)], is_gone: impl Fn(Key) -> bool) -> Vec<Ended> {
        let before = std::mem::take(&mut self.doing);
        let known = std::mem::take(&mut self.ended);
        let mut fresh = Vec::new();
        for (key, reason) in ended {
            self.ended.insert(order(*key), reason);
            if !known.contains_key(&order(*key)) {
                let doing = before.get(&order(*key)).copied().unwrap_or_default();
                fresh.push(Ended { key: *key, reason, doing });
            }
        }
        self.doing = doing.iter().map(|(key, doing)| (order(*key), *doing)).collect();
        for ((slot, generation), doing) in before {
            let key = Key { slot, generation };
            let here = self.doing.contains_key(&(slot, generation)) || self.ended.contains_key(&(slot, generation));
            if !here && is_gone(key) {
                fresh.push(Ended { key, reason: if doing.verifying { "moved" } else { "peer_lost" }, doing });
            }
        }
        fresh
    }

    /// Those that are doing something.
    pub(crate) fn busy(&self) -> impl Iterator<Item = (Key, Doing)> {
        self.doing.iter().map(|((slot, generation), doing)| (Key { slot: *slot, generation: *generation }, *doing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_once_with_what_was_done_before_it() {
        let key = Key { slot: 3, generation: 9 };
        let asking = Doing { asking: true, ..Doing::default() };
        let mut watched = Watched::default();
        assert!(watched.look(&[(key, asking)], &[], |_| false).is_empty());
        let ended = watched.look(&[], &[(key, "bye")], |_| false);
        assert_eq!(ended.len(), 1);
        assert_eq!((ended[0].reason, ended[0].doing), ("bye", asking));
        assert!(watched.look(&[], &[(key, "bye")], |_| false).is_empty());
        let mut watched = Watched::default();
        assert!(watched.look(&[(key, asking)], &[], |_| false).is_empty());
        assert!(watched.look(&[], &[], |_| false).is_empty(), "it is doing nothing any longer");
        assert!(watched.look(&[(key, asking)], &[], |_| false).is_empty());
        assert_eq!(watched.look(&[], &[], |_| true)[0].reason, "peer_lost");
    }

    #[test]
    fn an_empty_cell_that_can_be_met_is_named() {
        let mut ends = Ends::default();
        let count = ends.render().1.len();
        ends.note("draining", Busy::Held);
        ends.note("no such end", Busy::Held);
        let (_, empty) = ends.render();
        assert_eq!(empty.len(), count - 1);
        assert!(!empty.contains(&"draining x Held".to_owned()) && empty.contains(&"draining x Asking".to_owned()));
        assert!(!empty.contains(&"bye x Held".to_owned()), "impossible");
    }
}
