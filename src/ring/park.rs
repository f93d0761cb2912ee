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
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use glommio::io::BufferedFile;
use io_uring::IoUring;
use io_uring::types::Timespec;

use super::real::{For, Ring, timespec};
use super::{Errno, Full, Io, Wait, bell, op};

/// The ring's side of parking.
#[derive(Debug)]
pub(super) struct Park {
    eventfd: OwnedFd,
    /// The kernel copies it when it takes the entry, which may be an enter later: hence a place of its own.
    time: Box<Timespec>,
    /// When the timer in flight will end.
    timer_ns: Option<u64>,
}

impl Park {
    /// Registers a silenced eventfd with the ring.
    pub(super) fn new(uring: &IoUring) -> io::Result<Self> {
        let eventfd = bell::eventfd(0)?;
        uring.submitter().register_eventfd(eventfd.as_raw_fd())?;
        // SAFETY: no other view of the completion queue lives: the ring is new, and this one ends with the statement.
        unsafe { uring.completion_shared() }.disable_eventfd();
        Ok(Self { eventfd, time: Box::default(), timer_ns: None })
    }

    pub(super) fn timer_ended(&mut self) {
        self.timer_ns = None;
    }
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
        self.uring.completion().enable_eventfd();
        let entered = self.call(None);
        // The kernel signals when its list of deferred work gets its first item. The enter has emptied the list after the eventfd was enabled, so
        // whatever is not seen here will signal.
        if entered.is_err() || self.has_completions() || self.pending() {
            self.end_park();
        }
        entered.map(|()| !self.has_completions() && !self.pending())
    }

    /// The eventfd that becomes readable when the ring has something. The ring keeps it; who closes descriptors on drop needs a duplicate.
    pub fn park_fd(&self) -> RawFd {
        self.park.eventfd.as_raw_fd()
    }

    /// [`Ring::park_fd`], borrowed.
    pub fn park_eventfd(&self) -> BorrowedFd<'_> {
        self.park.eventfd.as_fd()
    }

    /// Awake again: completions make no signal.
    pub fn end_park(&mut self) {
        self.uring.completion().disable_eventfd();
    }

    fn set_timer(&mut self, until_ns: u64) -> Result<(), Full> {
        if self.park.timer_ns == Some(until_ns) {
            return Ok(());
        }
        *self.park.time = timespec(until_ns);
        let at = &raw const *self.park.time;
        match self.park.timer_ns {
            Some(_) => self.push(&op::timer_move(at), For::Ourselves)?,
            None => self.start(&op::timer(at), For::Ourselves)?,
        }
        self.park.timer_ns = Some(until_ns);
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
        let duplicate = ring.park_eventfd().try_clone_to_owned()?;
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
