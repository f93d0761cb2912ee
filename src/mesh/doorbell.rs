//! Who is asleep, and who has something for whom.
//!
//! The sleeper writes `SLEEPING`, fences, and looks again; the producer publishes, fences, and looks for `SLEEPING`. Whatever the order, one of the
//! two sees the other, so no wake-up is lost and a shard that is awake costs its producers no system call. Ringing itself is the kernel's
//! business (`ring`): here it is only decided.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering, fence};

use crate::ids::ShardId;

const AWAKE: u8 = 0;
const SLEEPING: u8 = 1;
/// Somebody has rung already, or is about to.
const NOTIFIED: u8 = 2;

/// Two cache lines apart from its neighbours: written by every shard.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Doorbell {
    state: AtomicU8,
    /// One bit per source that has published something since the last look.
    sources: Box<[AtomicU64]>,
}

impl Doorbell {
    pub(super) fn new(words: usize) -> Self {
        Self { state: AtomicU8::new(AWAKE), sources: (0..words).map(|_| AtomicU64::new(0)).collect() }
    }

    /// `from` has published; `true` when the shard sleeps and the caller is the one to ring.
    pub(super) fn announce(&self, from: ShardId) -> bool {
        let (word, bit) = (from.index() / 64, 1u64 << (from.index() % 64));
        self.sources[word].fetch_or(bit, Ordering::AcqRel);
        fence(Ordering::SeqCst);
        self.state.load(Ordering::Relaxed) == SLEEPING
            && self.state.compare_exchange(SLEEPING, NOTIFIED, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Adds what has been announced since the last look.
    pub(super) fn collect(&self, into: &mut [u64]) {
        for (word, source) in into.iter_mut().zip(&self.sources) {
            if source.load(Ordering::Relaxed) != 0 {
                *word |= source.swap(0, Ordering::AcqRel);
            }
        }
    }

    /// To be followed by another look.
    pub(super) fn sleep(&self) {
        self.state.store(SLEEPING, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    pub(super) fn wake(&self) {
        self.state.store(AWAKE, Ordering::Release);
    }
}
