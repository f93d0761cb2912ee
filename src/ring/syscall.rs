//! The two system calls of io_uring that the `io-uring` crate has no lasting face for: enter by registered index, and that registration.
//!
//! The crate remembers a registered ring in a borrow (`Submitter`), which can't live beside the ring it borrows from.
#![allow(unsafe_code, reason = "raw system calls")]

use std::io;
use std::os::fd::RawFd;

use io_uring::EnterFlags;
use io_uring::types::SubmitArgs;

use super::Errno;

impl Errno {
    /// The errno of an error that came from a system call; EIO for one that did not.
    pub fn of(error: &io::Error) -> Self {
        Self(error.raw_os_error().unwrap_or(libc::EIO))
    }

    pub(super) fn last() -> Self {
        Self::of(&io::Error::last_os_error())
    }
}

impl From<Errno> for io::Error {
    fn from(errno: Errno) -> Self {
        Self::from_raw_os_error(errno.0)
    }
}

const IORING_REGISTER_RING_FDS: libc::c_uint = 20;
const IORING_UNREGISTER_RING_FDS: libc::c_uint = 21;

/// `struct io_uring_rsrc_update`.
#[repr(C)]
struct Update {
    offset: u32,
    reserved: u32,
    data: u64,
}

/// How the kernel is told which ring is meant.
#[derive(Clone, Copy, Debug)]
pub(super) enum Handle {
    Descriptor(RawFd),
    /// Registered with this thread: no look-up of the descriptor per call.
    Index(RawFd),
}

/// What one enter is to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Enter<'a> {
    pub(super) submit: u32,
    pub(super) wait_for: u32,
    pub(super) flags: EnterFlags,
    pub(super) args: SubmitArgs<'a, 'a>,
}

/// Registers the ring with the calling thread (at most 16 per thread).
pub(super) fn register(ring: RawFd) -> Result<Handle, Errno> {
    let mut update = Update { offset: u32::MAX, reserved: 0, data: u64::from(ring.unsigned_abs()) };
    // SAFETY: `update` is a live local of the layout the kernel expects for one entry; it writes the index into `offset`.
    let answer = unsafe { libc::syscall(libc::SYS_io_uring_register, ring, IORING_REGISTER_RING_FDS, &raw mut update, 1) };
    check(answer)?;
    RawFd::try_from(update.offset).map(Handle::Index).map_err(|_| Errno(libc::EINVAL))
}

/// Takes the registration back; without it the thread would hold the ring after its descriptor is closed.
pub(super) fn unregister(ring: RawFd, index: RawFd) -> Result<(), Errno> {
    let update = Update { offset: index.unsigned_abs(), reserved: 0, data: 0 };
    // SAFETY: `update` is a live local of the layout the kernel expects for one entry, which it only reads.
    let answer = unsafe { libc::syscall(libc::SYS_io_uring_register, ring, IORING_UNREGISTER_RING_FDS, &raw const update, 1) };
    check(answer).map(drop)
}

/// io_uring_enter(2). The entries it submits were checked when they were pushed.
pub(super) fn enter(handle: Handle, enter: &Enter<'_>) -> Result<(), Errno> {
    let (ring, flags) = match handle {
        Handle::Descriptor(ring) => (ring, enter.flags),
        Handle::Index(index) => (index, enter.flags | EnterFlags::REGISTERED_RING),
    };
    let flags = flags | EnterFlags::EXT_ARG;
    let args = &raw const enter.args;
    // SAFETY: `args` is alive for the call and, being a transparent io_uring_getevents_arg, what EXT_ARG announces; the time it points to is borrowed
    // for 'a, which outlives the call. Memory named by submitted entries: see `Ring::push`.
    let answer = unsafe {
        libc::syscall(libc::SYS_io_uring_enter, ring, enter.submit, enter.wait_for, flags.bits(), args, size_of::<SubmitArgs<'_, '_>>())
    };
    check(answer).map(drop)
}

fn check(answer: libc::c_long) -> Result<libc::c_long, Errno> {
    if answer < 0 { Err(Errno::last()) } else { Ok(answer) }
}
