//! Sends: one in flight per session, at most 64 KiB, whatever has come meanwhile is the next one.
//!
//! What one send carries is said in `memory/gathers.rs`. Only sends are budgeted per turn, in two classes, so that a room of 10,000 does not hold
//! up everybody else.

use std::collections::VecDeque;

use super::Reactor;
use super::connection::Phase;
use super::core::Core;
use crate::chat::Class;
use crate::config::Deadline;
use crate::ids::Key;
use crate::memory::frames::{FrameId, Loan};
use crate::memory::gathers::Gathers;
use crate::ring::{Errno, Io};

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
        self.gathers.forget(&mut self.core.frames);
        left
    }

    fn submit_class(&mut self, class: Class, budget: usize) -> bool {
        let mut sends = 0;
        while sends < budget {
            let now_ns = self.core.now.mono_ns;
            let (list, age): (&mut VecDeque<Key>, _) = match class {
                Class::Interactive => (&mut self.core.interactive, &mut self.core.lists.interactive),
                Class::Bulk => (&mut self.core.bulk, &mut self.core.lists.bulk),
            };
            let Some(key) = list.pop_front() else { return false };
            age.leave(now_ns);
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
        // One that goes on has made no progress by that.
        if !connection.sending {
            connection.sending = true;
            connection.progress_ms = now_ms;
        }
        let no_progress_ms = Deadline::Progress.ms(&self.core.settings);
        let loan = match self.io.send(key, &connection.socket, loan) {
            Ok(()) => {
                self.core.counters.sends.add(1);
                let look_ms = connection.look_ms(now_ms, no_progress_ms);
                self.core.check_no_later(key, look_ms);
                self.probe_submitted(key);
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
                let class = if connection.bulk { Class::Bulk } else { Class::Interactive };
                self.core.frames.release(frame);
                self.core.reader_reads(key);
                if more && phase != Phase::Joining {
                    self.core.mark_dirty(key, class);
                } else if phase != Phase::Open {
                    self.core.closing.push(key);
                }
            }
            Err(Errno(libc::EINTR | libc::EAGAIN)) if connection.phase != Phase::Joining => {
                let loan = self.core.frames.lend(frame, connection.send_start);
                self.retry.push_back((key, loan));
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
}

impl<S> Core<S> {
    fn next_loan(&mut self, key: Key, gathers: &mut Gathers) -> Loan {
        let connection = self.connections.get_mut(key).expect("found by the caller");
        connection.send_start = 0;
        let next = gathers.next(&mut connection.queue, &mut self.queues, &mut self.frames);
        if next.frames > 1 {
            self.counters.gathered.add(u64::from(next.frames));
            self.counters.gather_shared.add(u64::from(next.shared));
        }
        next.loan
    }
}
