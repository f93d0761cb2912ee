//! What a room retains: its newest messages, byte for byte as they went out, in two rings that grow to a bound and are then reused.
//!
//! Messages are copied in, so that a retained message keeps nothing else alive and appending allocates nothing once the rings are warm. It knows
//! nothing of rooms, budgets or time: who owns it decides what goes.

use std::collections::VecDeque;

use bytes::{BufMut, BytesMut};

use crate::ids::Position;

/// A room's retained messages, oldest first.
#[derive(Debug, Default)]
pub(super) struct History {
    bytes: VecDeque<u8>,
    entries: VecDeque<Retained>,
}

#[derive(Clone, Copy, Debug)]
struct Retained {
    position: Position,
    len: u32,
}

/// Bytes a message costs beside its own.
const ENTRY_BYTES: usize = size_of::<Retained>();

impl History {
    /// Appends a message's frame; its position is above all others.
    pub(super) fn push(&mut self, position: Position, frame: &[u8]) {
        let len = u32::try_from(frame.len()).expect("a frame is at most 64 KiB");
        self.bytes.extend(frame);
        self.entries.push_back(Retained { position, len });
    }

    /// Forgets the oldest message and says where it stood.
    pub(super) fn pop(&mut self) -> Option<Position> {
        let oldest = self.entries.pop_front()?;
        self.bytes.drain(..oldest.len as usize);
        Some(oldest.position)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// What the messages cost.
    pub(super) fn cost(&self) -> usize {
        self.bytes.len() + self.entries.len() * ENTRY_BYTES
    }

    pub(super) fn oldest(&self) -> Option<Position> {
        self.entries.front().map(|entry| entry.position)
    }

    /// The index of the first message behind `position`.
    pub(super) fn after(&self, position: Position) -> usize {
        self.entries.partition_point(|entry| entry.position <= position)
    }

    /// The index of the first message at or behind `position`.
    pub(super) fn from(&self, position: Position) -> usize {
        self.entries.partition_point(|entry| entry.position < position)
    }

    /// Frame bytes of message `index`.
    pub(super) fn len_of(&self, index: usize) -> usize {
        self.entries[index].len as usize
    }

    /// Where message `index` starts in the ring.
    pub(super) fn offset(&self, index: usize) -> usize {
        self.entries.iter().take(index).map(|entry| entry.len as usize).sum()
    }

    /// Copies `len` bytes from `offset` on.
    pub(super) fn copy(&self, offset: usize, len: usize, out: &mut BytesMut) {
        let (front, back) = self.bytes.as_slices();
        let first = front.get(offset.min(front.len())..(offset + len).min(front.len())).unwrap_or_default();
        out.put_slice(first);
        let start = offset.max(front.len()) - front.len();
        let rest = len - first.len();
        out.put_slice(&back[start..start + rest]);
    }

    /// Gives memory back when the rings are mostly empty.
    pub(super) fn shrink(&mut self) {
        if self.bytes.capacity() > 4096 && self.bytes.len() < self.bytes.capacity() / 4 {
            self.bytes.shrink_to(self.bytes.len() * 2);
            self.entries.shrink_to(self.entries.len() * 2);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn at(ms: u64) -> Position {
        Position { ms, n: 0 }
    }

    #[test]
    fn it_gives_back_what_was_put_in_after_any_number_of_rounds() {
        let mut history = History::default();
        let mut model: VecDeque<(Position, Vec<u8>)> = VecDeque::new();
        for round in 0..5_000_u64 {
            let frame: Vec<u8> = (0..1 + round * 7 % 97).map(|n| u8::try_from((n + round) % 251).unwrap()).collect();
            history.push(at(round), &frame);
            model.push_back((at(round), frame));
            if model.len() > 40 {
                assert_eq!(history.pop(), model.pop_front().map(|(position, _)| position));
            }
            let index = usize::try_from(round).unwrap() % model.len();
            let mut out = BytesMut::new();
            history.copy(history.offset(index), history.len_of(index), &mut out);
            assert_eq!(out, model[index].1);
            assert_eq!(history.after(model[index].0), index + 1);
            assert_eq!(history.from(model[index].0), index);
        }
        assert_eq!((history.len(), history.oldest()), (40, Some(model[0].0)));
    }
}
