//! What a session sends next: one frame's own bytes, or several gathered into one buffer.
//!
//! Members of one room mostly have the same list queued, so a list is gathered once per flush and lent to all of them. [`Gathers`] remembers the
//! lists of the flush that goes on; it owns a count of each gathered frame until [`Gathers::forget`], and no other. Frames named by a list stay in the
//! store at least until the flush ends, since nothing is received or inserted meanwhile; so an id in a list can't have come to mean another
//! frame. It submits nothing: what it hands out is a loan.

use crate::limits::SEND_BYTES_MAX;
use crate::memory::frames::{FrameId, FrameStore, Loan};
use crate::memory::queue::{Queue, QueuePool};

/// Distinct lists remembered per flush: rooms that are busy at the same time.
const LISTS_MAX: usize = 8;

/// The lists gathered in this flush.
#[derive(Debug, Default)]
pub struct Gathers {
    /// Places, kept for their memory; the first `used` hold a frame.
    lists: Vec<Gather>,
    used: usize,
    wanted: Vec<FrameId>,
    /// Where the next gather goes when all places are taken.
    victim: usize,
}

#[derive(Debug)]
struct Gather {
    list: Vec<FrameId>,
    frame: FrameId,
}

/// The next send of a session.
#[derive(Debug)]
pub struct Next {
    pub loan: Loan,
    /// Frames of the queue that it carries.
    pub frames: u32,
    /// Another session had the same list gathered in this flush.
    pub shared: bool,
}

impl Gathers {
    /// What the queue's session sends next, at most [`SEND_BYTES_MAX`] unless one frame alone is more: its counts move from the queue, which must
    /// not be empty, into the loan.
    pub fn next(&mut self, queue: &mut Queue, queues: &mut QueuePool, frames: &mut FrameStore) -> Next {
        let mut bytes = 0;
        self.wanted.clear();
        queues.peek_while(queue, &mut self.wanted, |frame| {
            bytes += frames.len_of(frame) as usize;
            bytes <= SEND_BYTES_MAX
        });
        if self.wanted.len() > 1
            && let Some((gathered, shared)) = self.find_or_gather(frames)
        {
            frames.retain(gathered, 1);
            let count = u32::try_from(self.wanted.len()).expect("a list fits 64 KiB");
            queues.drop_front(queue, count);
            for frame in &self.wanted {
                frames.release(*frame);
            }
            return Next { loan: frames.lend(gathered, 0), frames: count, shared };
        }
        let frame = queues.pop(queue).expect("the caller has looked");
        Next { loan: frames.lend(frame, 0), frames: 1, shared: false }
    }

    /// The flush has ended.
    pub fn forget(&mut self, frames: &mut FrameStore) {
        for gather in &self.lists[..self.used] {
            frames.release(gather.frame);
        }
        self.used = 0;
    }

    /// The frame that holds the wanted list's bytes, and whether another session had it made. `None` when the pool is used up.
    fn find_or_gather(&mut self, frames: &mut FrameStore) -> Option<(FrameId, bool)> {
        let known = self.lists[..self.used].iter().rev().find(|gather| gather.list == self.wanted);
        if let Some(gather) = known {
            return Some((gather.frame, true));
        }
        let frame = frames.gather(&self.wanted)?;
        let place = if self.used < LISTS_MAX {
            self.used += 1;
            self.used - 1
        } else {
            self.victim = (self.victim + 1) % LISTS_MAX;
            frames.release(self.lists[self.victim].frame);
            self.victim
        };
        if place == self.lists.len() {
            self.lists.push(Gather { list: Vec::new(), frame });
        }
        let gather = &mut self.lists[place];
        gather.frame = frame;
        gather.list.clone_from(&self.wanted);
        Some((frame, false))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use bytes::Bytes;

    /// A store with `texts` as frames, each queued on two sessions.
    fn two_sessions(texts: &[&'static str]) -> (FrameStore, QueuePool, [Queue; 2]) {
        let (mut frames, mut queues) = (FrameStore::new(64, 4), QueuePool::new(64));
        let mut sessions = [Queue::default(), Queue::default()];
        for text in texts {
            let frame = frames.insert(Bytes::from_static(text.as_bytes())).unwrap();
            frames.retain(frame, 1);
            for session in &mut sessions {
                queues.push(session, frame).unwrap();
            }
        }
        (frames, queues, sessions)
    }

    fn end(loan: Loan, frames: &mut FrameStore) {
        let frame = frames.give_back(loan);
        frames.release(frame);
    }

    #[test]
    fn sessions_with_the_same_list_send_one_buffer() {
        let (mut frames, mut queues, mut sessions) = two_sessions(&["one", "two"]);
        let mut gathers = Gathers::default();
        let [first, second] = sessions.each_mut().map(|queue| gathers.next(queue, &mut queues, &mut frames));
        assert_eq!((first.frames, first.shared, second.frames, second.shared), (2, false, 2, true));
        assert_eq!(first.loan.as_ptr(), second.loan.as_ptr());
        assert_eq!(frames.bytes(first.loan.frame()), b"onetwo");
        gathers.forget(&mut frames);
        end(first.loan, &mut frames);
        end(second.loan, &mut frames);
        assert_eq!((frames.usage().frames, queues.used()), (0, 0));
    }

    #[test]
    fn a_single_frame_is_sent_from_where_it_is() {
        let (mut frames, mut queues, mut sessions) = two_sessions(&["one"]);
        let mut gathers = Gathers::default();
        let next = gathers.next(&mut sessions[0], &mut queues, &mut frames);
        assert_eq!((next.frames, frames.usage().gathers, frames.bytes(next.loan.frame())), (1, 0, &b"one"[..]));
        end(next.loan, &mut frames);
    }

    #[test]
    fn more_lists_than_places_forget_the_oldest_and_leak_nothing() {
        let (mut frames, mut queues) = (FrameStore::new(64, 32), QueuePool::new(64));
        let mut gathers = Gathers::default();
        let mut loans = Vec::new();
        for _ in 0..2 * LISTS_MAX {
            let mut queue = Queue::default();
            for _ in 0..2 {
                let frame = frames.insert(Bytes::from_static(b"x")).unwrap();
                queues.push(&mut queue, frame).unwrap();
            }
            loans.push(gathers.next(&mut queue, &mut queues, &mut frames).loan);
        }
        gathers.forget(&mut frames);
        loans.into_iter().for_each(|loan| end(loan, &mut frames));
        assert_eq!((frames.usage().frames, frames.usage().gathers, queues.used()), (0, 0, 0));
    }
}
