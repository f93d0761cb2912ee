//! Doorbells: how another shard, or a thread without a ring, ends a shard's wait.
//!
//! One [`Bells`] per process, shared: an eventfd per shard, always there, and the shard's ring once it has been made. A shard rings another by a message
//! from ring to ring, riding its own next enter (where the kernel does that fast), else, like everybody else, by a write to the eventfd. Ringing says
//! "look", never what at; it is never lost (the eventfd's count stays) and may come too often.
//!
//! A shard that sleeps in glommio (`park.rs`) has a second eventfd, which its ring signals; whoever writes the first one to a parked shard writes the second
//! too. The way round, bell eventfd -> poll in the ring -> signal of the second, can't be relied on: a signal from within an eventfd's write is handed
//! to RCU, milliseconds late, and the kernel (6.18, io_uring/eventfd.c) does that once in a ring's life and then never again.
//!
//! The ring is held as a duplicate, so its number can't come to mean another file while a message to it is queued. A ring that has ended leaves its mark,
//! and is rung by eventfd from then on, so that nothing piles up in a queue that nobody reads.
#![allow(unsafe_code, reason = "eventfd(2), and borrowing the ring's descriptor, which the io-uring crate gives as a number")]

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, OnceLock};

use crate::ids::ShardId;

/// The doorbells of all shards of this process.
#[derive(Debug)]
pub struct Bells {
    shards: Box<[Bell]>,
}

#[derive(Debug)]
struct Bell {
    /// Polled by the shard's ring.
    eventfd: File,
    /// Read by glommio while the shard is parked.
    park: File,
    /// The shard sleeps in glommio, or is about to, and nobody has woken it since.
    parked: AtomicBool,
    ring: OnceLock<OwnedFd>,
    /// True while `ring` is there and reaped.
    ring_lives: AtomicBool,
}

impl Bells {
    /// Bells for shards `0 .. shards`: two descriptors each, three once its ring is made.
    pub fn new(shards: usize) -> io::Result<Arc<Self>> {
        let bell = |_| -> io::Result<Bell> {
            Ok(Bell {
                // Never read; non-blocking, so that no writer can hang on its count, far as that limit is.
                eventfd: eventfd(libc::EFD_NONBLOCK)?.into(),
                // Blocking, because io_uring answers EAGAIN to a read of a non-blocking one instead of waiting.
                park: eventfd(0)?.into(),
                parked: AtomicBool::new(false),
                ring: OnceLock::new(),
                ring_lives: AtomicBool::new(false),
            })
        };
        let shards = (0..shards).map(bell).collect::<io::Result<Box<[Bell]>>>()?;
        Ok(Arc::new(Self { shards }))
    }

    /// Wakes the shard's wait, or its next one. From any thread; one system call, two if the shard is parked. A shard that does not exist is a bug of
    /// the caller.
    pub fn wake(&self, shard: ShardId) {
        let bell = &self.shards[shard.index()];
        add_one(&bell.eventfd);
        // With the fence in `park`: either this side sees `parked`, or the shard's look at its ring, which follows, sees the eventfd's poll.
        fence(Ordering::SeqCst);
        if bell.parked.load(Ordering::Relaxed) && bell.parked.swap(false, Ordering::Relaxed) {
            add_one(&bell.park);
        }
    }

    /// Shards with a bell.
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    pub(super) fn eventfd(&self, shard: ShardId) -> RawFd {
        self.shards[shard.index()].eventfd.as_raw_fd()
    }

    pub(super) fn park_eventfd(&self, shard: ShardId) -> BorrowedFd<'_> {
        self.shards[shard.index()].park.as_fd()
    }

    /// Takes a signal back, if there is one, without waiting for one.
    pub(super) fn drain_park(&self, shard: ShardId) {
        let mut count = 0_u64;
        let place = libc::iovec { iov_base: (&raw mut count).cast(), iov_len: size_of::<u64>() };
        // SAFETY: one live iovec, of eight live bytes that nobody else sees. EAGAIN is the usual answer, and any other error means no more than a wake
        // for nothing.
        let _ = unsafe { libc::preadv2(self.park_eventfd(shard).as_raw_fd(), &raw const place, 1, -1, libc::RWF_NOWAIT) };
    }

    /// From now on [`Bells::wake`] signals the park's eventfd too. What came before is to be looked for afterwards.
    pub(super) fn park(&self, shard: ShardId) {
        self.shards[shard.index()].parked.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    pub(super) fn unpark(&self, shard: ShardId) {
        self.shards[shard.index()].parked.store(false, Ordering::Relaxed);
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

fn add_one(mut eventfd: &File) {
    let written = eventfd.write(&1_u64.to_ne_bytes());
    debug_assert!(matches!(written, Ok(8)), "an eventfd takes every count below 2^64 - 1: {written:?}");
}

/// A new eventfd, closed on exec.
fn eventfd(flags: i32) -> io::Result<OwnedFd> {
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
