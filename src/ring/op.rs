//! The operations we submit, as submission entries, and the tags by which their completions are told apart.
//!
//! Every entry is built here and nowhere else. An entry holds descriptors and addresses but no lifetime: whoever pushes it keeps both alive.
//! `user_data` is tag 8 | slot 24 | generation 32.

use std::os::fd::RawFd;

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{CancelBuilder, Fd, TimeoutFlags, Timespec};
use io_uring::{cqueue, opcode};

use super::ListenerId;
use crate::ids::{Key, ShardId};
use crate::limits::RECEIVE_BUFFER_BYTES;
use crate::memory::frames::Loan;

/// The one buffer group of a ring.
pub(super) const BUFFER_GROUP: u16 = 0;

/// What a completion belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Tag {
    /// Multishot accept; the slot is the listener.
    Accept = 1,
    /// Either receive; the key is the caller's.
    Receive,
    /// The key is the caller's, its slot finds the loan.
    Send,
    /// The poll on our own eventfd.
    BellPoll,
    /// Posted into our queue by another ring.
    BellRung,
    /// Our ringing of another ring went wrong; the slot is the shard. Success makes no completion.
    BellRing,
    /// A cancel, or a move of the timer, that went wrong. Success makes no completion.
    Quiet,
    /// The timer that ends a park.
    Timer,
}

impl Tag {
    /// In the order of their bytes, from 1.
    const ALL: [Self; 8] =
        [Self::Accept, Self::Receive, Self::Send, Self::BellPoll, Self::BellRung, Self::BellRing, Self::Quiet, Self::Timer];

    /// `None` for a byte this file never made.
    pub(super) fn of(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte).wrapping_sub(1)).copied()
    }

    fn bare(self) -> u64 {
        self.with_slot(0)
    }

    fn with_slot(self, slot: u32) -> u64 {
        Key { slot, generation: 0 }.pack(self as u8)
    }
}

pub(super) fn accept(listener: ListenerId, fd: RawFd) -> Entry {
    opcode::AcceptMulti::new(Fd(fd)).flags(libc::SOCK_CLOEXEC).build().user_data(accept_word(listener))
}

pub(super) fn cancel_accept(listener: ListenerId) -> Entry {
    cancel(accept_word(listener))
}

/// One receive of at most one buffer of the group.
pub(super) fn receive_once(key: Key, fd: RawFd) -> Entry {
    let length = u32::try_from(RECEIVE_BUFFER_BYTES).expect("a buffer is far below 4 GiB");
    opcode::Recv::new(Fd(fd), std::ptr::null_mut(), length)
        .buf_group(BUFFER_GROUP)
        .build()
        .flags(Flags::BUFFER_SELECT)
        .user_data(key.pack(Tag::Receive as u8))
}

pub(super) fn receive_multishot(key: Key, fd: RawFd) -> Entry {
    opcode::RecvMulti::new(Fd(fd), BUFFER_GROUP).build().user_data(key.pack(Tag::Receive as u8))
}

pub(super) fn cancel_receive(key: Key) -> Entry {
    cancel(key.pack(Tag::Receive as u8))
}

/// The entry points into the loan; it has to be kept until the completion.
pub(super) fn send(key: Key, fd: RawFd, loan: &Loan) -> Entry {
    opcode::Send::new(Fd(fd), loan.as_ptr(), loan.len())
        .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
        .build()
        .user_data(key.pack(Tag::Send as u8))
}

pub(super) fn cancel_send(key: Key) -> Entry {
    cancel(key.pack(Tag::Send as u8))
}

/// Everything in flight on the ring.
pub(super) fn cancel_all() -> Entry {
    opcode::AsyncCancel2::new(CancelBuilder::any().all()).build().user_data(Tag::Quiet.bare())
}

pub(super) fn bell_poll(eventfd: RawFd) -> Entry {
    let readable = u32::from(libc::POLLIN.unsigned_abs());
    opcode::PollAdd::new(Fd(eventfd), readable).multi(true).build().user_data(Tag::BellPoll.bare())
}

pub(super) fn bell_ring(shard: ShardId, ring: RawFd) -> Entry {
    opcode::MsgRingData::new(Fd(ring), 0, Tag::BellRung.bare(), None)
        .build()
        .flags(Flags::SKIP_SUCCESS)
        .user_data(Tag::BellRing.with_slot(u32::from(shard.0)))
}

/// A timer at an absolute time of CLOCK_MONOTONIC. The kernel copies `at` when it takes the entry.
pub(super) fn timer(at: *const Timespec) -> Entry {
    opcode::Timeout::new(at).flags(TimeoutFlags::ABS).build().user_data(Tag::Timer.bare())
}

pub(super) fn timer_move(at: *const Timespec) -> Entry {
    opcode::TimeoutUpdate::new(Tag::Timer.bare(), at)
        .flags(TimeoutFlags::ABS)
        .build()
        .flags(Flags::SKIP_SUCCESS)
        .user_data(Tag::Quiet.bare())
}

fn accept_word(listener: ListenerId) -> u64 {
    Tag::Accept.with_slot(u32::from(listener.0))
}

fn cancel(word: u64) -> Entry {
    opcode::AsyncCancel2::new(CancelBuilder::user_data(word)).build().flags(Flags::SKIP_SUCCESS).user_data(Tag::Quiet.bare())
}

/// A completion entry, taken apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub(super) tag: u8,
    pub(super) key: Key,
    /// A count or descriptor, or a negative errno.
    pub(super) result: i32,
    pub(super) more: bool,
    /// The buffer the kernel took for it, whatever the result.
    pub(super) buffer: Option<u16>,
}

impl Answer {
    pub(super) fn of(entry: &cqueue::Entry) -> Self {
        let (tag, key) = Key::unpack(entry.user_data());
        Self { tag, key, result: entry.result(), more: cqueue::more(entry.flags()), buffer: cqueue::buffer_select(entry.flags()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_survive_the_way_through_the_kernel() {
        for byte in 0..=u8::MAX {
            match Tag::of(byte) {
                Some(tag) => assert_eq!(tag as u8, byte),
                None => assert!(byte == 0 || byte > Tag::Timer as u8),
            }
        }
    }

    #[test]
    fn a_cancel_names_the_operation_and_not_itself() {
        let key = Key { slot: 5, generation: 9 };
        let receive = receive_multishot(key, 3).get_user_data();
        assert_ne!(receive, send_word(key));
        assert_eq!(Key::unpack(receive), (Tag::Receive as u8, key));
        assert_eq!(Key::unpack(cancel_receive(key).get_user_data()).0, Tag::Quiet as u8);
    }

    fn send_word(key: Key) -> u64 {
        key.pack(Tag::Send as u8)
    }
}
