//! The kernel: the seam [`Io`] and its two implementations, the real ring and the seeded fake.
//!
//! An implementation owns every byte and descriptor the kernel may touch until the completion is reaped. It knows nothing of frames, sessions or
//! rooms: keys come in with an operation and go out with its completion.

use std::net::IpAddr;

use crate::ids::{Key, Now, ShardId};
use crate::memory::frames::Loan;

mod bell;
mod buffers;
mod close;
pub mod fake;
mod loans;
mod op;
pub mod park;
mod probe;
mod real;
mod setup;
mod syscall;

pub use bell::Bells;
pub use probe::{Features, ProbeError, probe};
pub use real::{Ring, RingStats};
pub use setup::{RingError, RingSetup};

/// A positive errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

/// A listener handed to the implementation when it was made: its place in that list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerId(pub u8);

/// A receive buffer of the shard's buffer ring, owned by the caller from [`Completion::Received`] to [`Io::recycle`].
#[derive(Debug)]
#[must_use]
pub struct Buffer {
    pub id: u16,
    pub len: u32,
}

/// How long [`Io::enter`] may wait for a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    No,
    /// Until at least one completion is there, or CLOCK_MONOTONIC reaches this many nanoseconds.
    Until(u64),
}

/// Which side of a socket to shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Write,
    /// And what has not gone out is thrown away when the socket closes.
    Both,
}

/// What became of an operation. `more` false means: the kernel holds nothing of it any longer.
#[derive(Debug)]
pub enum Completion<S> {
    Accepted {
        listener: ListenerId,
        result: Result<S, Errno>,
        more: bool,
    },
    /// `Ok(None)` is the end of the stream. ENOBUFS and ECANCELED arrive as errors.
    Received {
        key: Key,
        result: Result<Option<Buffer>, Errno>,
        more: bool,
    },
    /// The loan comes back, with how many of its bytes went out.
    Sent {
        key: Key,
        loan: Loan,
        result: Result<u32, Errno>,
    },
    /// Somebody rang: look at the mesh, the supervisor, the log.
    Doorbell,
}

/// The submission queue has no room: [`Io::enter`], then try again. What was to be submitted is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// The kernel as the reactor sees it. Submissions only queue; [`Io::enter`] hands them over.
///
/// Contract: at most one receive and one send per key in flight; a key's socket outlives its operations; a cancel names a key whose receive is
/// in flight (its end is that receive's own last completion; data may still come before it).
pub trait Io {
    /// An open socket; dropping it closes it.
    type Socket: std::fmt::Debug;

    fn now(&mut self) -> Now;

    fn accept(&mut self, listener: ListenerId) -> Result<(), Full>;
    /// Ends the multishot accept; its last completion comes with `more` false.
    fn cancel_accept(&mut self, listener: ListenerId) -> Result<(), Full>;
    /// A connection that waits at a listener whose accept has ended; `None` when there is none, or it can't be taken. Never waits.
    fn accept_waiting(&mut self, listener: ListenerId) -> Option<Self::Socket>;
    /// Closes a listener whose accept has ended, for good.
    fn close_listener(&mut self, listener: ListenerId);
    /// One receive of at most one buffer.
    fn receive_once(&mut self, key: Key, socket: &Self::Socket) -> Result<(), Full>;
    /// Receives until `more` is false.
    fn receive_multishot(&mut self, key: Key, socket: &Self::Socket) -> Result<(), Full>;
    fn cancel_receive(&mut self, key: Key) -> Result<(), Full>;
    /// Sends the whole loan (MSG_WAITALL); a short count is possible all the same. `Err` gives the loan back.
    fn send(&mut self, key: Key, socket: &Self::Socket, loan: Loan) -> Result<(), Loan>;
    fn cancel_send(&mut self, key: Key) -> Result<(), Full>;
    /// Wakes another shard's wait, or its next one.
    fn ring(&mut self, shard: ShardId) -> Result<(), Full>;

    /// One system call: submits what is queued and, with [`Wait::Until`], waits. Interrupted is not an error. `Err` means the ring is unusable.
    fn enter(&mut self, wait: Wait) -> Result<(), Errno>;
    /// Submissions are queued that no enter has taken yet.
    fn pending(&self) -> bool;
    /// Completions are waiting: to be looked at once more before sleeping.
    fn ready(&mut self) -> bool;
    /// The next completion, in the order the kernel gave them.
    fn reap(&mut self) -> Option<Completion<Self::Socket>>;

    fn bytes(&self, buffer: &Buffer) -> &[u8];
    fn recycle(&mut self, buffer: Buffer);
    /// Buffers the kernel has left to fill, as far as this side knows.
    fn buffers_left(&self) -> u32;

    /// What has been done so far, where that is counted.
    fn stats(&self) -> RingStats {
        RingStats::default()
    }

    /// Who is at the other end, where that can be told.
    fn address_of(_socket: &Self::Socket) -> Option<IpAddr> {
        None
    }

    /// Bytes that the other end has taken since the connection was made, the lower half.
    fn acked(&mut self, socket: &Self::Socket) -> u32;

    /// Plain shutdown(2); errors are of no interest (the peer may be gone).
    fn shutdown(&mut self, socket: &Self::Socket, side: Side);
}
