//! Parking: the long sleep, inside glommio instead of our own ring, so that glommio's other tasks and wakes are served without polling.
//!
//! The ring signals an eventfd when it has something; glommio reads that eventfd and so wakes the driver. The descriptor of a deferring ring itself
//! never becomes readable, hence the eventfd. It is blocking (io_uring answers EAGAIN at once on a non-blocking one) and silenced while the driver is
//! awake, else every completion would pay a wake-up twice. Deadlines are a timer in our ring, moved, not cancelled: one that is left over
//! ends one later wait early and does no other harm.
//!
//! The driver, when nothing is to be done: `prepare_park(until)`; if true, [`ParkFile::wait`]; then, always, `end_park`. Wakes may be spurious.
#![allow(unsafe_code, reason = "glommio takes a foreign descriptor only as a number")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, RawFd};

use glommio::io::BufferedFile;
use io_uring::IoUring;
use io_uring::types::Timespec;

use super::real::{For, Ring, timespec};
use super::{Errno, Full, Io, Wait, op};

/// The timer that ends a park.
#[derive(Debug, Default)]
pub(super) struct Timer {
    /// The kernel copies it when it takes the entry, which may be an enter later: hence a place of its own.
    time: Box<Timespec>,
    /// When the timer in flight will end.
    at_ns: Option<u64>,
}

impl Timer {
    pub(super) fn ended(&mut self) {
        self.at_ns = None;
    }
}

/// Registers the shard's park eventfd with a new ring, silenced.
pub(super) fn register(uring: &mut IoUring, eventfd: BorrowedFd<'_>) -> io::Result<()> {
    uring.submitter().register_eventfd(eventfd.as_raw_fd())?;
    uring.completion().disable_eventfd();
    Ok(())
}

impl Ring {
    /// Gets ready for the long sleep, which `until_ns` (CLOCK_MONOTONIC) ends at the latest. True: nothing has come, read [`Ring::park_fd`], then call
    /// [`Ring::end_park`]. False: there is something to reap; the eventfd is silent.
    pub fn prepare_park(&mut self, until_ns: u64) -> Result<bool, Errno> {
        // What is queued may complete on the spot, and would then signal the eventfd for nothing.
        self.enter(Wait::No)?;
        if self.has_completions() || self.set_timer(until_ns) == Err(Full) {
            return Ok(false);
        }
        self.bells.park(self.shard);
        self.uring.completion().enable_eventfd();
        let entered = self.call(None);
        // The enter signals for completions of the past, made while the eventfd was silent: that signal is taken back. It is not the only trace of
        // anything: what came in before this point shows below, as a completion or as deferred work. What comes later finds the kernel's list of
        // deferred work empty, and its first item signals.
        self.bells.drain_park(self.shard);
        let quiet = entered.is_ok() && !self.has_completions() && !self.pending();
        if !quiet {
            self.end_park();
        }
        entered.map(|()| quiet)
    }

    /// The eventfd that becomes readable when the ring has something or a bell is rung. The bells keep it; who closes descriptors on drop needs a
    /// duplicate.
    pub fn park_fd(&self) -> RawFd {
        self.bells.park_eventfd(self.shard).as_raw_fd()
    }

    /// Awake again: completions make no signal.
    pub fn end_park(&mut self) {
        self.uring.completion().disable_eventfd();
        self.bells.unpark(self.shard);
    }

    fn set_timer(&mut self, until_ns: u64) -> Result<(), Full> {
        if self.timer.at_ns == Some(until_ns) {
            return Ok(());
        }
        *self.timer.time = timespec(until_ns);
        let at = &raw const *self.timer.time;
        match self.timer.at_ns {
            Some(_) => self.push(&op::timer_move(at), For::Ourselves)?,
            None => self.start(&op::timer(at), For::Ourselves)?,
        }
        self.timer.at_ns = Some(until_ns);
        Ok(())
    }
}

/// glommio's side of parking: the ring's eventfd as a file of the calling executor. Made once per driver, used for every park.
#[derive(Debug)]
pub struct ParkFile {
    file: BufferedFile,
}

impl ParkFile {
    /// To be called inside the executor that runs the driver.
    pub fn new(ring: &Ring) -> io::Result<Self> {
        let duplicate = ring.bells.park_eventfd(ring.shard).try_clone_to_owned()?;
        // SAFETY: the duplicate is ours alone, given away here; the file closes it.
        Ok(Self { file: unsafe { BufferedFile::from_raw_fd(duplicate.into_raw_fd()) } })
    }

    /// Sleeps until the ring signals. Allocates, so it is for idle shards only.
    pub async fn wait(&self) -> io::Result<()> {
        match self.file.read_at(0, size_of::<u64>()).await {
            Ok(_) => Ok(()),
            Err(error) => Err(io::Error::other(error.to_string())),
        }
    }
}
