//! What a ring is made with, why it can't be made, and the making.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use super::Errno;
use super::bell::{self, Bells};
use super::buffers::{BUFFERS_MAX, BufferRing};
use super::park;
use super::probe::{self, Features};
use super::real::Ring;
use super::syscall;
use crate::ids::ShardId;

/// Listeners of one ring: [`super::ListenerId`] is a byte.
const LISTENERS_MAX: usize = 256;

/// What a shard's ring is made with.
#[derive(Debug)]
pub struct RingSetup {
    pub shard: ShardId,
    pub features: Features,
    /// Operations queued between two enters; the kernel rounds up to a power of two. 64 bytes each, and 8 completions of 16 bytes.
    pub entries: u32,
    /// Receive buffers, a power of two up to 32,768, of [`crate::limits::RECEIVE_BUFFER_BYTES`] each. All of them are used in turn, so more than the
    /// cache holds costs more than it saves; fewer end multishot receives (ENOBUFS) when a burst comes.
    pub buffers: u16,
    /// Named by their place here: [`super::ListenerId`].
    pub listeners: Vec<OwnedFd>,
    pub bells: Arc<Bells>,
}

impl RingSetup {
    pub const ENTRIES: u32 = 4096;
    pub const BUFFERS: u16 = 1024;

    /// The defaults, without listeners.
    pub fn new(shard: ShardId, features: Features, bells: Arc<Bells>) -> Self {
        Self { shard, features, entries: Self::ENTRIES, buffers: Self::BUFFERS, listeners: Vec::new(), bells }
    }
}

/// Why a ring could not be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RingError {
    /// Not a power of two, or over 32,768.
    Buffers(u16),
    /// Fewer than 8.
    Entries(u32),
    Listeners(usize),
    /// The shard has no bell, or had a ring before.
    Shard(ShardId),
    Kernel {
        step: &'static str,
        errno: Errno,
    },
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Buffers(count) => write!(f, "{count} receive buffers: choose a power of two up to {BUFFERS_MAX}"),
            Self::Entries(count) => write!(f, "{count} ring entries: choose at least {}", Ring::ENTRIES_MIN),
            Self::Listeners(count) => write!(f, "{count} listeners: at most {LISTENERS_MAX} fit one ring"),
            Self::Shard(shard) => write!(f, "shard {} has no doorbell, or had a ring before", shard.0),
            Self::Kernel { step, errno } => {
                let fix = match errno.0 {
                    libc::ENOMEM => ": raise the limit of locked memory (ulimit -l, LimitMEMLOCK=) or ask for fewer entries and buffers",
                    libc::EMFILE | libc::ENFILE => ": raise the limit of open files (ulimit -n, LimitNOFILE=)",
                    _ => "",
                };
                write!(f, "{step}: {}{fix}", io::Error::from(*errno))
            }
        }
    }
}

impl std::error::Error for RingError {}

impl Ring {
    /// SQ entries kept for the ring's own operations: the bell's poll, the timer and its move, the last cancel.
    pub(super) const ENTRIES_RESERVED: usize = 4;
    pub const ENTRIES_MIN: u32 = 8;
    /// Kernel threads of a ring at most. An operation that is woken again and again without getting on is moved to one and blocks there: so does the send
    /// to a client that has closed its side and does not read. Without a bound, that many clients would hold that many threads.
    pub const WORKERS_MAX: u32 = 8;

    /// Makes the ring and lets the shard's bell ring it. To be called on the thread that will use it: the kernel takes entries from that thread alone.
    pub fn new(setup: RingSetup) -> Result<Self, RingError> {
        check(&setup)?;
        let kernel = |step| move |error: io::Error| RingError::Kernel { step, errno: Errno::of(&error) };
        let buffers = BufferRing::new(setup.buffers).map_err(kernel("memory for receive buffers"))?;
        let mut uring = probe::build(setup.features, setup.entries).map_err(kernel("io_uring_setup"))?;
        park::register(&mut uring, setup.bells.park_eventfd(setup.shard)).map_err(kernel("registering the eventfd for parking"))?;
        buffers.register(&uring.submitter()).map_err(kernel("registering the receive buffers"))?;
        // The registration only saves a look-up: without it (a thread has 16) the descriptor does.
        let fd = uring.as_raw_fd();
        // A kernel before 5.15 has no such bound, and is not supported.
        uring.submitter().register_iowq_max_workers(&mut [Self::WORKERS_MAX; 2]).map_err(kernel("bounding the kernel's workers"))?;
        let handle = syscall::register(fd).unwrap_or(syscall::Handle::Descriptor(fd));
        // From here on the ring's Drop undoes everything, also when the bell refuses.
        let mut ring = Self::assemble(setup, super::real::Parts { uring, handle, buffers });
        let known = bell::duplicate(&ring.uring.0).map_err(kernel("duplicating the ring's descriptor"))?;
        ring.published = ring.bells.publish(ring.shard, known);
        if ring.published { Ok(ring) } else { Err(RingError::Shard(ring.shard)) }
    }
}

fn check(setup: &RingSetup) -> Result<(), RingError> {
    if !setup.buffers.is_power_of_two() || setup.buffers > BUFFERS_MAX {
        return Err(RingError::Buffers(setup.buffers));
    }
    if setup.entries < Ring::ENTRIES_MIN {
        return Err(RingError::Entries(setup.entries));
    }
    if setup.listeners.len() > LISTENERS_MAX {
        return Err(RingError::Listeners(setup.listeners.len()));
    }
    if setup.shard.index() >= setup.bells.shards() {
        return Err(RingError::Shard(setup.shard));
    }
    Ok(())
}
