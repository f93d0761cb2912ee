//! Doorbells: how another shard, or a thread without a ring, ends a shard's wait.
//!
//! One [`Bells`] per process, shared: an eventfd per shard, always there, and the shard's ring once it has been made. A shard rings another by a message
//! from ring to ring, riding its own next enter (where the kernel does that fast), else, like everybody else, by a write to the eventfd. Ringing says
//! "look", never what at; it is never lost (the eventfd's count stays) and may come too often.
//!
//! The ring is held as a duplicate, so its number can't come to mean another file while a message to it is queued. A ring that has ended leaves its mark,
//! and is rung by eventfd from then on, so that nothing piles up in a queue that nobody reads.
#![allow(unsafe_code, reason = "eventfd(2), and borrowing the ring's descriptor, which the io-uring crate gives as a number")]

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use crate::ids::ShardId;

/// The doorbells of all shards of this process.
#[derive(Debug)]
pub struct Bells {
    shards: Box<[Bell]>,
}

#[derive(Debug)]
struct Bell {
    eventfd: File,
    ring: OnceLock<OwnedFd>,
    /// True while `ring` is there and reaped.
    ring_lives: AtomicBool,
}

impl Bells {
    /// Bells for shards `0 .. shards`: one descriptor each, two once its ring is made.
    pub fn new(shards: usize) -> io::Result<Arc<Self>> {
        let bell = |_| -> io::Result<Bell> {
            // Never read, and so never near the count at which a write would block; non-blocking all the same, since a shard writes it.
            Ok(Bell { eventfd: eventfd(libc::EFD_NONBLOCK)?.into(), ring: OnceLock::new(), ring_lives: AtomicBool::new(false) })
        };
        let shards = (0..shards).map(bell).collect::<io::Result<Box<[Bell]>>>()?;
        Ok(Arc::new(Self { shards }))
    }

    /// Wakes the shard's wait, or its next one. From any thread; one system call. A shard that does not exist is a bug of the caller.
    pub fn wake(&self, shard: ShardId) {
        let written = (&self.shards[shard.index()].eventfd).write(&1_u64.to_ne_bytes());
        debug_assert!(matches!(written, Ok(8)), "an eventfd takes every count below 2^64 - 1: {written:?}");
    }

    /// Shards with a bell.
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    pub(super) fn eventfd(&self, shard: ShardId) -> RawFd {
        self.shards[shard.index()].eventfd.as_raw_fd()
    }

    /// The shard's ring, while it is reaped. The number stays that ring's as long as `self`.
    pub(super) fn ring(&self, shard: ShardId) -> Option<RawFd> {
        let bell = &self.shards[shard.index()];
        bell.ring_lives.load(Ordering::Acquire).then(|| bell.ring.get().map(OwnedFd::as_raw_fd))?
    }

    /// Makes the shard's ring known. False when it had one before: a shard has one ring in its life.
    pub(super) fn publish(&self, shard: ShardId, ring: OwnedFd) -> bool {
        let bell = &self.shards[shard.index()];
        let first = bell.ring.set(ring).is_ok();
        if first {
            bell.ring_lives.store(true, Ordering::Release);
        }
        first
    }

    /// From now on only the eventfd is rung.
    pub(super) fn retire(&self, shard: ShardId) {
        self.shards[shard.index()].ring_lives.store(false, Ordering::Release);
    }
}

/// A new eventfd, closed on exec.
pub(super) fn eventfd(flags: i32) -> io::Result<OwnedFd> {
    // SAFETY: makes a descriptor, touches no memory.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made by the call above and known to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A second descriptor of the ring, to be held by [`Bells`].
pub(super) fn duplicate(ring: &impl AsRawFd) -> io::Result<OwnedFd> {
    // SAFETY: `ring` owns the descriptor and is borrowed for the whole call.
    let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(ring.as_raw_fd()) };
    borrowed.try_clone_to_owned()
}
