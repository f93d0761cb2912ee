//! The end of a ring: everything cancelled and reaped before the memory the kernel knows goes.
//!
//! Closing an io_uring does not wait for its operations; they may end later, on a kernel thread. So the order is: cancel all, reap until nothing is in
//! flight (cancelling again what has not ended), unregister the buffers, take back the registration that would keep the ring alive, close, free. When the kernel does not answer within a
//! second, the receive buffers are leaked rather than freed under its hands. Loans still out are dropped, which leaks their frames
//! and never frees them.

use std::os::fd::AsRawFd;

use super::buffers::BufferRing;
use super::op;
use super::real::{For, Ring};
use super::syscall::{self, Handle};
use super::{Errno, Io};
use crate::sys::clock;

const PATIENCE_NS: u64 = 1_000_000_000;
/// A cancel finds nothing of an operation that is just being handed to a worker, or back: what has not ended after this is cancelled again.
const CANCEL_AGAIN_NS: u64 = 10_000_000;

impl Ring {
    /// Ends everything in flight; completions are reaped and dropped, sockets among them closed. `Err` when the kernel did not let go in time.
    fn end_all(&mut self) -> Result<(), StillInFlight> {
        let deadline = clock::monotonic_ns() + PATIENCE_NS;
        // What is queued may start operations: it goes in first, so that the cancel finds them.
        let mut outcome = self.call(None);
        loop {
            while let Some(completion) = self.reap() {
                drop(completion);
            }
            let left_ns = deadline.saturating_sub(clock::monotonic_ns());
            if self.in_flight == 0 {
                return Ok(());
            }
            if outcome.is_err() || left_ns == 0 {
                return Err(StillInFlight);
            }
            // Full, it goes in with the next round.
            let _ = self.push(&op::cancel_all(), For::Ourselves);
            outcome = self.call(Some(left_ns.min(CANCEL_AGAIN_NS)));
        }
    }
}

struct StillInFlight;

impl Drop for Ring {
    fn drop(&mut self) {
        if self.published {
            self.bells.retire(self.shard);
            self.end_park();
        }
        let ended = self.end_all();
        let forgotten = self.uring.submitter().unregister_buf_ring(op::BUFFER_GROUP);
        if ended.is_err() || forgotten.is_err() {
            log::error!(
                "shard {}: the kernel still holds {} operations and {} sends; their memory is left to it",
                self.shard.0,
                self.in_flight,
                self.loans.held()
            );
            if let Ok(none) = BufferRing::new(1) {
                std::mem::forget(std::mem::replace(&mut self.buffers, none));
            }
        }
        if let Handle::Index(index) = self.handle
            && let Err(Errno(errno)) = syscall::unregister(self.uring.as_raw_fd(), index)
        {
            log::warn!("shard {}: the ring stays registered with its thread (errno {errno})", self.shard.0);
        }
    }
}
