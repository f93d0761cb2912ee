//! Sends: one in flight per session, at most 64 KiB, whatever has come meanwhile is the next one.
//!
//! A session with one frame queued sends the payload's own bytes. A session with several sends a gathered copy; members of one room mostly have
//! the same list queued, so a list is gathered once per flush and lent to all of them. Only sends are budgeted per turn, in two classes, so that
//! a room of 10,000 does not hold up everybody else.

use std::collections::VecDeque;

use super::Reactor;
use super::connection::Phase;
use super::core::Core;
use super::effects::Ending;
use crate::chat::Class;
use crate::ids::Key;
use crate::limits::SEND_BYTES_MAX;
use crate::memory::frames::{FrameId, Loan};
use crate::protocol::error::Reason;
use crate::ring::{Errno, Io};

/// Lists of frames gathered in this flush. Frames named by a list stay in the store at least until the flush ends, since nothing is
/// received or inserted meanwhile; so an id in a list can't have come to mean another frame.
#[derive(Debug, Default)]
pub(super) struct Gathers {
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

/// Distinct lists remembered per flush: rooms that are busy at the same time.
const GATHERS_MAX: usize = 8;

impl<I: Io> Reactor<I> {
    /// Submits sends within the budgets; `true` when dirty sessions are left.
    pub(super) fn submit_sends(&mut self) -> bool {
        while let Some((key, loan)) = self.retry.pop_front() {
            if !self.submit_send(key, loan) {
                return true;
            }
        }
        let queues = &self.core.settings.queues;
        let (interactive, bulk) = (queues.sends_per_turn_interactive, queues.sends_per_turn_bulk);
        let left = self.submit_class(Class::Interactive, interactive) | self.submit_class(Class::Bulk, bulk);
        self.forget_gathers();
        left
    }

    fn submit_class(&mut self, class: Class, budget: usize) -> bool {
        let mut sends = 0;
        while sends < budget {
            let list: &mut VecDeque<Key> = match class {
                Class::Interactive => &mut self.core.interactive,
                Class::Bulk => &mut self.core.bulk,
            };
            let Some(key) = list.pop_front() else { return false };
            let Some(connection) = self.core.connections.get_mut(key) else { continue };
            let bulk = class == Class::Bulk;
            if !connection.dirty || connection.bulk != bulk {
                continue;
            }
            connection.dirty = false;
            if connection.sending || connection.queue.is_empty() || connection.phase == Phase::Joining {
                continue;
            }
            sends += 1;
            let loan = self.core.next_loan(key, &mut self.gathers);
            if !self.submit_send(key, loan) {
                return true;
            }
        }
        true
    }

    /// `false` when the submission queue had no room even after an enter; the loan waits for the next flush.
    fn submit_send(&mut self, key: Key, loan: Loan) -> bool {
        let now_ms = self.core.now_ms();
        let Some(connection) = self.core.connections.get_mut(key) else { unreachable!("a connection stays while its loan is out") };
        if connection.phase == Phase::Joining {
            connection.sending = false;
            let frame = self.core.frames.give_back(loan);
            self.core.frames.release(frame);
            self.core.closing.push(key);
            return true;
        }
        connection.sending = true;
        connection.progress_ms = now_ms;
        let no_progress_ms = self.core.settings.queues.no_progress_ms;
        let loan = match self.io.send(key, &connection.socket, loan) {
            Ok(()) => {
                self.core.counters.sends.add(1);
                self.core.check_no_later(key, now_ms + no_progress_ms);
                return true;
            }
            Err(loan) => loan,
        };
        self.retry.push_front((key, loan));
        false
    }

    pub(super) fn sent(&mut self, key: Key, loan: Loan, result: Result<u32, Errno>) {
        let lent = loan.len();
        let frame = self.core.frames.give_back(loan);
        let now_ms = self.core.now_ms();
        let Some(connection) = self.core.connections.get_mut(key) else {
            // Only a planted bug frees a slot with a send in flight.
            return self.core.frames.release(frame);
        };
        let probed = std::mem::take(&mut connection.probed);
        match result {
            Ok(0) => self.broken(key, frame),
            Ok(sent) => {
                self.core.counters.bytes_out.add(u64::from(sent));
                connection.queued_bytes -= sent;
                connection.progress_ms = now_ms;
                if sent < lent && connection.phase != Phase::Joining {
                    connection.send_start += sent;
                    let loan = self.core.frames.lend(frame, connection.send_start);
                    return self.retry.push_back((key, loan));
                }
                connection.queued_bytes -= lent - sent;
                connection.sending = false;
                let (more, phase) = (!connection.queue.is_empty(), connection.phase);
                self.core.frames.release(frame);
                if more && phase != Phase::Joining {
                    self.core.mark_dirty(key, Class::Interactive);
                } else if phase != Phase::Open {
                    self.core.closing.push(key);
                }
            }
            Err(Errno(libc::EINTR | libc::EAGAIN)) if connection.phase != Phase::Joining => {
                let loan = self.core.frames.lend(frame, connection.send_start);
                self.retry.push_back((key, loan));
            }
            Err(Errno(libc::ECANCELED)) if probed && connection.phase != Phase::Joining => {
                // Not a byte in all the time. The send goes on, because a `bye` stands behind a whole frame only.
                let loan = self.core.frames.lend(frame, connection.send_start);
                self.retry.push_back((key, loan));
                self.core.end_and_settle(key, Ending::said(Reason::SlowConsumer, None));
            }
            Err(_) => self.broken(key, frame),
        }
    }

    fn broken(&mut self, key: Key, frame: FrameId) {
        let start = self.core.connections.get(key).map_or(0, |c| c.send_start);
        let left = self.core.frames.len_of(frame) - start;
        self.core.frames.release(frame);
        let connection = self.core.connections.get_mut(key).expect("found by the caller");
        connection.sending = false;
        connection.queued_bytes -= left;
        self.lost(key);
        self.core.closing.push(key);
    }

    fn forget_gathers(&mut self) {
        for gather in &self.gathers.lists[..self.gathers.used] {
            self.core.frames.release(gather.frame);
        }
        self.gathers.used = 0;
    }
}

impl<S> Core<S> {
    /// What the session sends next: its counts move from the queue into the loan.
    fn next_loan(&mut self, key: Key, gathers: &mut Gathers) -> Loan {
        let connection = self.connections.get_mut(key).expect("found by the caller");
        connection.send_start = 0;
        let frames = &mut self.frames;
        let mut bytes = 0;
        gathers.wanted.clear();
        self.queues.peek_while(&connection.queue, &mut gathers.wanted, |frame| {
            bytes += frames.len_of(frame) as usize;
            bytes <= SEND_BYTES_MAX
        });
        if gathers.wanted.len() > 1
            && let Some((gathered, shared)) = gathers.find_or_gather(frames)
        {
            frames.retain(gathered, 1);
            let count = u32::try_from(gathers.wanted.len()).expect("a list fits 64 KiB");
            self.queues.drop_front(&mut connection.queue, count);
            for frame in &gathers.wanted {
                frames.release(*frame);
            }
            self.counters.gathered.add(u64::from(count));
            self.counters.gather_shared.add(u64::from(shared));
            return frames.lend(gathered, 0);
        }
        let frame = self.queues.pop(&mut connection.queue).expect("a dirty session has something queued");
        frames.lend(frame, 0)
    }
}

impl Gathers {
    /// The frame that holds the wanted list's bytes, and whether another session had it made. `None` when the pool is used up.
    fn find_or_gather(&mut self, frames: &mut crate::memory::frames::FrameStore) -> Option<(FrameId, bool)> {
        let known = self.lists[..self.used].iter().rev().find(|gather| gather.list == self.wanted);
        if let Some(gather) = known {
            return Some((gather.frame, true));
        }
        let frame = frames.gather(&self.wanted)?;
        let place = if self.used < GATHERS_MAX {
            self.used += 1;
            self.used - 1
        } else {
            self.victim = (self.victim + 1) % GATHERS_MAX;
            frames.release(self.lists[self.victim].frame);
            self.victim
        };
        if place == self.lists.len() {
            self.lists.push(Gather { list: Vec::new(), frame });
        }
        let gather = &mut self.lists[place];
        gather.frame = frame;
        std::mem::swap(&mut gather.list, &mut self.wanted);
        self.wanted.clear();
        self.wanted.extend_from_slice(&gather.list);
        Some((frame, false))
    }
}
