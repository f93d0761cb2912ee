//! The real ring: [`Io`] on io_uring, for one shard and its one thread.
//!
//! Owns the io_uring instance, the receive buffers, the loans in flight and the listeners. Operations go in as entries of the submission queue, which
//! [`Io::enter`] hands over with one system call; what comes out is translated here and nowhere else. The keys are the caller's and not looked at;
//! completions of the ring's own operations (doorbell poll, timer, failed cancels) end here.
//!
//! Deferred task work: the kernel touches receive buffers and makes completions only inside our own enter, so between two enters they stand still. Not
//! so a send: one that the kernel has moved to a thread of its own ([`Ring::WORKERS_MAX`] of them) reads its bytes and ends at any time.
//! Never waits outside [`Io::enter`], never allocates per operation after warm-up (a loan page per 1,024 slots, once).
#![allow(unsafe_code, reason = "submission entries name memory and descriptors without a lifetime")]

use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, squeue};

use super::bell::Bells;
use super::buffers::BufferRing;
use super::loans::Loans;
use super::op::{self, Answer, Tag};
use super::park::Timer;
use super::probe::Features;
use super::setup::RingSetup;
use super::syscall::{self, Enter, Handle};
use super::{Buffer, Completion, Errno, Full, Io, ListenerId, Side, Wait};
use crate::ids::{Key, Now, ShardId};
use crate::memory::frames::Loan;
use crate::sys::{clock, sockets};

/// What a ring has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingStats {
    /// System calls io_uring_enter(2).
    pub enters: u64,
    /// Completions reaped, the ring's own included.
    pub completions: u64,
    /// Receives that ended because no buffer was left.
    pub enobufs: u64,
    /// Enters after which the kernel held completions for which the queue had no room.
    pub overflows: u64,
    /// Submissions refused as [`Full`].
    pub full: u64,
    /// Enters that the kernel put off (EAGAIN, EBUSY).
    pub put_off: u64,
    /// Messages to other rings that failed and were made up for by eventfd.
    pub rings_failed: u64,
}

/// A shard's io_uring. Stays on the thread that made it.
#[derive(Debug)]
pub struct Ring {
    pub(super) uring: Uring,
    pub(super) handle: Handle,
    pub(super) buffers: BufferRing,
    pub(super) loans: Loans,
    /// `None` once closed.
    pub(super) listeners: Vec<Option<OwnedFd>>,
    pub(super) bells: Arc<Bells>,
    pub(super) shard: ShardId,
    pub(super) features: Features,
    pub(super) timer: Timer,
    /// Our bell knows this ring.
    pub(super) published: bool,
    /// The multishot poll on our eventfd is in flight.
    pub(super) bell_armed: bool,
    /// Operations whose last completion has not been reaped.
    pub(super) in_flight: u64,
    pub(super) stats: RingStats,
}

/// [`IoUring`] with a face for debugging.
pub(super) struct Uring(pub(super) IoUring);

impl std::ops::Deref for Uring {
    type Target = IoUring;
    fn deref(&self) -> &IoUring {
        &self.0
    }
}

impl std::ops::DerefMut for Uring {
    fn deref_mut(&mut self) -> &mut IoUring {
        &mut self.0
    }
}

impl std::fmt::Debug for Uring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Uring").field(&self.as_raw_fd()).finish()
    }
}

/// What the set-up has made for the ring.
pub(super) struct Parts {
    pub(super) uring: IoUring,
    pub(super) handle: Handle,
    pub(super) buffers: BufferRing,
}

/// Whose a submission is: ours may use the entries kept back for it.
#[derive(Clone, Copy)]
pub(super) enum For {
    Caller,
    Ourselves,
}

impl Ring {
    pub(super) fn assemble(setup: RingSetup, parts: Parts) -> Self {
        Self {
            uring: Uring(parts.uring),
            handle: parts.handle,
            buffers: parts.buffers,
            loans: Loans::default(),
            listeners: setup.listeners.into_iter().map(Some).collect(),
            bells: setup.bells,
            shard: setup.shard,
            features: setup.features,
            timer: Timer::default(),
            published: false,
            bell_armed: false,
            in_flight: 0,
            stats: RingStats::default(),
        }
    }

    pub fn stats(&self) -> RingStats {
        self.stats
    }

    /// Operations the kernel may still complete, the ring's own (bell, timer) included.
    pub fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Completions are waiting to be reaped, or an enter without waiting would bring some.
    pub fn has_completions(&self) -> bool {
        // SAFETY: no other view of the completion queue lives: all are temporaries within one statement, and `Ring` is not Sync (its loans hold pointers).
        let none = unsafe { self.uring.completion_shared() }.is_empty();
        !none || self.kernel_asks()
    }

    /// Deferred work or overflowed completions wait for an enter.
    fn kernel_asks(&self) -> bool {
        // SAFETY: no other view of the submission queue lives: all are temporaries within one statement, and `Ring` is not Sync.
        let queue = unsafe { self.uring.submission_shared() };
        queue.taskrun() || queue.cq_overflow()
    }

    fn queued(&self) -> usize {
        // SAFETY: as in `kernel_asks`.
        unsafe { self.uring.submission_shared() }.len()
    }

    pub(super) fn push(&mut self, entry: &squeue::Entry, whose: For) -> Result<(), Full> {
        let mut queue = self.uring.submission();
        let room = queue.capacity() - queue.len();
        let kept = match whose {
            For::Caller => Self::ENTRIES_RESERVED,
            For::Ourselves => 0,
        };
        if room <= kept {
            self.stats.full += 1;
            return Err(Full);
        }
        // SAFETY: what the entry names outlives the operation: receive buffers are the group's, kept until it is unregistered (Ring::drop); a send's bytes
        // are a loan, kept in `loans` until its completion and in place by the frame store until given back; the timer's time is boxed in `timer`;
        // descriptors are looked up when the entry is taken and then held by the kernel.
        unsafe { queue.push(entry) }.expect("room was checked");
        Ok(())
    }

    /// [`Ring::push`] for an operation that completes.
    pub(super) fn start(&mut self, entry: &squeue::Entry, whose: For) -> Result<(), Full> {
        self.push(entry, whose)?;
        self.in_flight += 1;
        Ok(())
    }

    fn listener(&self, listener: ListenerId) -> i32 {
        self.listeners[usize::from(listener.0)].as_ref().expect("a closed listener accepts no more").as_raw_fd()
    }

    /// Keeps a poll on our eventfd: it ends when the kernel feels pressed, and then has to be made anew.
    fn arm_bell(&mut self) {
        if !self.bell_armed {
            let entry = op::bell_poll(self.bells.eventfd(self.shard));
            self.bell_armed = self.start(&entry, For::Ourselves).is_ok();
        }
    }

    /// The system call. `timeout_ns` is how long to wait for a completion; none is not to wait.
    pub(super) fn call(&mut self, timeout_ns: Option<u64>) -> Result<(), Errno> {
        let submit = u32::try_from(self.queued()).expect("a queue has at most 32,768 entries");
        let time = timeout_ns.map(timespec).unwrap_or_default();
        let mut enter = Enter { submit, wait_for: 0, flags: EnterFlags::GETEVENTS, args: SubmitArgs::new() };
        if timeout_ns.is_some() {
            enter.wait_for = 1;
            enter.args = SubmitArgs::new().timespec(&time);
        }
        if self.features.no_iowait {
            enter.flags |= EnterFlags::NO_IOWAIT;
        }
        self.stats.enters += 1;
        let outcome = syscall::enter(self.handle, &enter);
        if self.uring.submission().cq_overflow() {
            self.stats.overflows += 1;
        }
        match outcome {
            Err(Errno(libc::EINTR | libc::ETIME)) => Ok(()),
            // Memory is short, or completions have to be reaped first: what was not taken stays queued for the next enter.
            Err(Errno(libc::EAGAIN | libc::EBUSY)) => {
                self.stats.put_off += 1;
                Ok(())
            }
            other => other,
        }
    }

    /// One completion entry; `None` for the ring's own.
    fn translate(&mut self, answer: Answer) -> Option<Completion<OwnedFd>> {
        let tag = Tag::of(answer.tag).expect("every entry's word is made in op.rs");
        let counted = matches!(tag, Tag::Accept | Tag::Receive | Tag::Send | Tag::BellPoll | Tag::Timer);
        if counted && !answer.more {
            self.in_flight -= 1;
        }
        match tag {
            Tag::Accept => Some(accepted(answer)),
            Tag::Receive => Some(self.received(answer)),
            Tag::Send => Some(self.sent(answer)),
            Tag::BellPoll => {
                self.bell_armed = answer.more;
                (answer.result > 0).then_some(Completion::Doorbell)
            }
            Tag::BellRung => Some(Completion::Doorbell),
            Tag::BellRing => {
                let shard = ShardId(u16::try_from(answer.key.slot).expect("made from a shard's number"));
                self.stats.rings_failed += 1;
                self.bells.wake(shard);
                None
            }
            Tag::Timer => {
                self.timer.ended();
                None
            }
            Tag::Quiet => None,
        }
    }

    fn received(&mut self, answer: Answer) -> Completion<OwnedFd> {
        let count = outcome(answer.result);
        let buffer = answer.buffer.map(|id| self.buffers.take(id, count.unwrap_or(0)));
        let result = match (count, buffer) {
            (Ok(count), Some(buffer)) if count > 0 => Ok(Some(buffer)),
            (count, buffer) => {
                // The end of the stream and errors may come with a buffer too; nobody above would give it back.
                if let Some(unused) = buffer {
                    self.buffers.recycle(unused);
                }
                count.map(|count| assert_eq!(count, 0, "bytes arrived in no buffer")).map(|()| None)
            }
        };
        if matches!(result, Err(Errno(libc::ENOBUFS))) {
            self.stats.enobufs += 1;
        }
        Completion::Received { key: answer.key, result, more: answer.more }
    }

    fn sent(&mut self, answer: Answer) -> Completion<OwnedFd> {
        let loan =
            self.loans.take(answer.key.slot).expect("a send's loan is put away when it is submitted and taken by its one completion");
        Completion::Sent { key: answer.key, loan, result: outcome(answer.result) }
    }
}

impl Io for Ring {
    type Socket = OwnedFd;

    fn now(&mut self) -> Now {
        clock::now()
    }

    fn address_of(socket: &OwnedFd) -> Option<std::net::IpAddr> {
        sockets::peer_address(socket.as_fd()).ok().map(|address| address.ip())
    }

    fn accept(&mut self, listener: ListenerId) -> Result<(), Full> {
        self.start(&op::accept(listener, self.listener(listener)), For::Caller)
    }

    fn cancel_accept(&mut self, listener: ListenerId) -> Result<(), Full> {
        self.push(&op::cancel_accept(listener), For::Caller)
    }

    fn accept_waiting(&mut self, listener: ListenerId) -> Option<OwnedFd> {
        let listener = self.listeners[usize::from(listener.0)].as_ref()?;
        sockets::accept_waiting(listener.as_fd()).ok().flatten()
    }

    fn close_listener(&mut self, listener: ListenerId) {
        self.listeners[usize::from(listener.0)] = None;
    }

    fn receive_once(&mut self, key: Key, socket: &OwnedFd) -> Result<(), Full> {
        self.start(&op::receive_once(key, socket.as_raw_fd()), For::Caller)
    }

    fn receive_multishot(&mut self, key: Key, socket: &OwnedFd) -> Result<(), Full> {
        self.start(&op::receive_multishot(key, socket.as_raw_fd()), For::Caller)
    }

    fn cancel_receive(&mut self, key: Key) -> Result<(), Full> {
        self.push(&op::cancel_receive(key), For::Caller)
    }

    fn send(&mut self, key: Key, socket: &OwnedFd, loan: Loan) -> Result<(), Loan> {
        match self.start(&op::send(key, socket.as_raw_fd(), &loan), For::Caller) {
            Ok(()) => {
                self.loans.put(key.slot, loan);
                Ok(())
            }
            Err(Full) => Err(loan),
        }
    }

    fn cancel_send(&mut self, key: Key) -> Result<(), Full> {
        self.push(&op::cancel_send(key), For::Caller)
    }

    fn ring(&mut self, shard: ShardId) -> Result<(), Full> {
        let target = if self.features.message_ring && shard != self.shard { self.bells.ring(shard) } else { None };
        match target {
            Some(ring) => self.push(&op::bell_ring(shard, ring), For::Caller),
            None => {
                self.bells.wake(shard);
                Ok(())
            }
        }
    }

    fn enter(&mut self, wait: Wait) -> Result<(), Errno> {
        self.arm_bell();
        self.buffers.publish();
        let patience = match wait {
            Wait::No => None,
            Wait::Until(deadline) => deadline.checked_sub(clock::monotonic_ns()).filter(|left| *left > 0),
        };
        if patience.is_none() && self.queued() == 0 && !self.kernel_asks() {
            return Ok(());
        }
        self.call(patience)
    }

    fn pending(&self) -> bool {
        self.queued() != 0
    }

    fn ready(&mut self) -> bool {
        self.has_completions()
    }

    fn reap(&mut self) -> Option<Completion<OwnedFd>> {
        loop {
            let entry = self.uring.completion().next()?;
            self.stats.completions += 1;
            if let Some(completion) = self.translate(Answer::of(&entry)) {
                return Some(completion);
            }
        }
    }

    fn bytes(&self, buffer: &Buffer) -> &[u8] {
        self.buffers.bytes(buffer)
    }

    fn recycle(&mut self, buffer: Buffer) {
        self.buffers.recycle(buffer);
    }

    fn buffers_left(&self) -> u32 {
        self.buffers.left()
    }

    fn stats(&self) -> RingStats {
        self.stats
    }

    fn acked(&mut self, socket: &OwnedFd) -> u32 {
        // Of a socket that can't tell, nothing is seen to go out: its send ends at the deadline or by itself.
        sockets::bytes_acked(socket.as_fd()).unwrap_or(0)
    }

    fn shutdown(&mut self, socket: &OwnedFd, side: Side) {
        // The peer may be gone; then there is nothing left to shut down.
        let _ = match side {
            Side::Write => sockets::shutdown(socket.as_fd(), Shutdown::Write),
            Side::Both => sockets::abort(socket.as_fd()),
        };
    }
}

fn accepted(answer: Answer) -> Completion<OwnedFd> {
    let listener = ListenerId(u8::try_from(answer.key.slot).expect("made from a listener's number"));
    let result = match outcome(answer.result) {
        Ok(_) => {
            // SAFETY: an accept's result that is no error is a new descriptor, told to nobody but in this completion, which is reaped once.
            Ok(unsafe { OwnedFd::from_raw_fd(answer.result) })
        }
        Err(errno) => Err(errno),
    };
    Completion::Accepted { listener, result, more: answer.more }
}

fn outcome(result: i32) -> Result<u32, Errno> {
    u32::try_from(result).map_err(|_| Errno(-result))
}

pub(super) fn timespec(ns: u64) -> Timespec {
    let nanos = u32::try_from(ns % 1_000_000_000).expect("a remainder below 10^9");
    Timespec::new().sec(ns / 1_000_000_000).nsec(nanos)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// The kernel gives few ways to make a message to a ring fail, so the failure is made up here.
    #[test]
    fn a_message_to_a_ring_that_fails_is_made_up_for_by_eventfd() {
        let bells = Bells::new(2).unwrap();
        let mut ring = Ring::new(RingSetup::new(ShardId(0), Features::LEAST, bells.clone())).unwrap();
        let mut other = Ring::new(RingSetup::new(ShardId(1), Features::LEAST, bells)).unwrap();
        let key = Key { slot: 1, generation: 0 };
        let failed = Answer { tag: Tag::BellRing as u8, key, result: -libc::EBADFD, more: false, buffer: None };
        assert!(ring.translate(failed).is_none());
        assert_eq!(ring.stats().rings_failed, 1);
        other.enter(Wait::Until(clock::monotonic_ns() + 10_000_000_000)).unwrap();
        assert!(matches!(other.reap(), Some(Completion::Doorbell)));
    }

    /// Whether this kernel attaches a buffer to an error or to the end of a stream is its own affair.
    #[test]
    fn a_buffer_that_comes_with_no_data_goes_back() {
        let bells = Bells::new(1).unwrap();
        let mut ring = Ring::new(RingSetup::new(ShardId(0), Features::LEAST, bells)).unwrap();
        let key = Key { slot: 1, generation: 1 };
        for (id, result) in [(0, 0), (1, -libc::ECONNRESET), (2, -libc::ENOBUFS)] {
            ring.in_flight += 1;
            let answer = Answer { tag: Tag::Receive as u8, key, result, more: false, buffer: Some(id) };
            assert!(matches!(ring.translate(answer), Some(Completion::Received { result: Ok(None) | Err(_), more: false, .. })));
        }
        assert_eq!((ring.buffers_left(), ring.stats().enobufs), (u32::from(RingSetup::BUFFERS), 1));
    }
}
