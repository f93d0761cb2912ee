//! The log: it gives every entry its place in its room's order. The rules do not know which one it is.

use crate::chat::{Appended, Entry, Token};
use crate::ids::{Now, Position};

/// Append now, hear the position later. Entries of one room are answered in the order they were appended.
///
/// An answer may come late, more than once, or never: the rules keep a deadline for each append.
pub trait Log: std::fmt::Debug + Send {
    fn append(&mut self, now: Now, token: Token, entry: &Entry);
    /// Moves the answers that are there to `out`.
    fn answers(&mut self, now: Now, out: &mut Vec<Appended>);
    /// When the next answer is to be fetched, CLOCK_MONOTONIC nanoseconds; `None` when none is due or a bell will ring for it.
    fn next_ns(&self) -> Option<u64>;
}

/// The embedded log: order without memory. Positions rise over all rooms of the shard, also when the clock goes back.
#[derive(Debug, Default)]
pub struct MemoryLog {
    last: Position,
    answers: Vec<Appended>,
}

impl Log for MemoryLog {
    fn append(&mut self, now: Now, token: Token, _entry: &Entry) {
        self.last =
            if now.unix_ms > self.last.ms { Position { ms: now.unix_ms, n: 0 } } else { Position { ms: self.last.ms, n: self.last.n + 1 } };
        self.answers.push(Appended { token, position: self.last });
    }

    fn answers(&mut self, _now: Now, out: &mut Vec<Appended>) {
        out.append(&mut self.answers);
    }

    fn next_ns(&self) -> Option<u64> {
        (!self.answers.is_empty()).then_some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::Parcel;
    use crate::ids::Key;

    #[test]
    fn positions_rise_when_the_clock_stands_still_or_goes_back() {
        let mut log = MemoryLog::default();
        let entry = Entry { parcel: Parcel::new(bytes::Bytes::from_static(b"ru"), "r", "u") };
        let mut out = Vec::new();
        for unix_ms in [5, 5, 9, 3, 10] {
            let now = Now { mono_ns: 0, unix_ms };
            log.append(now, Token(Key { slot: 0, generation: 1 }), &entry);
            log.answers(now, &mut out);
        }
        let positions: Vec<_> = out.iter().map(|a| (a.position.ms, a.position.n)).collect();
        assert_eq!(positions, [(5, 0), (5, 1), (9, 0), (9, 1), (10, 0)]);
    }
}
