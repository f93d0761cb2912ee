//! The process-wide directory of sessions: the id a client reads as `session` -> where it lives.
//!
//! Written by the shard that owns the session, at login and at its end; read without locks by any thread (kick, lists, metrics). Never touched per
//! message.

use std::num::NonZeroU64;

use sharded_slab::{Config, Slab};

use crate::ids::{Key, SessionRef, ShardId};
use crate::limits::SHARDS_MAX;

/// Where a session lives, and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registered {
    pub at: SessionRef,
    /// The keyed hash of the user's name: enough to find a user's sessions; the name itself is the owner shard's to tell.
    /// Zero reads as 1.
    pub user_hash: u64,
}

/// As it is kept: 16 bytes, also as an `Option`, for each session of the process.
#[derive(Clone, Copy, Debug)]
struct Packed {
    /// A [`Key`] with the shard as its tag.
    at: u64,
    /// The hash, 1 in place of 0.
    user_hash: NonZeroU64,
}

const _: () = assert!(SHARDS_MAX <= 1 << 8 && size_of::<Option<Packed>>() == 16);

impl Packed {
    fn of(registered: Registered) -> Self {
        let SessionRef { shard, session } = registered.at;
        let shard = u8::try_from(shard.0).expect("at most SHARDS_MAX shards");
        Self { at: session.pack(shard), user_hash: NonZeroU64::new(registered.user_hash).unwrap_or(NonZeroU64::MIN) }
    }

    fn unpack(self) -> Registered {
        let (shard, session) = Key::unpack(self.at);
        Registered { at: SessionRef { shard: ShardId(u16::from(shard)), session }, user_hash: self.user_hash.get() }
    }
}

/// 1,024 threads, 8 million sessions a thread, 30 bits of generation: an id comes back after a billion logins in one slot.
#[derive(Debug)]
struct DirectoryConfig;

impl Config for DirectoryConfig {
    const MAX_THREADS: usize = 1024;
    const INITIAL_PAGE_SIZE: usize = 512;
    const MAX_PAGES: usize = 14;
}

/// Key bits of address and thread, so that 30 are left for the generation.
const PLACE_BITS: u32 = 9 + 14 + 11;
const _: () = assert!(u64::BITS - PLACE_BITS >= 30);

#[derive(Debug)]
pub struct Directory {
    sessions: Slab<Packed, DirectoryConfig>,
}

impl Default for Directory {
    fn default() -> Self {
        Self { sessions: Slab::new_with_config::<DirectoryConfig>() }
    }
}

impl Directory {
    /// `None` when the calling thread has as many sessions as it may.
    pub fn insert(&self, registered: Registered) -> Option<u64> {
        self.sessions.insert(Packed::of(registered)).map(|key| key as u64)
    }

    pub fn find(&self, id: u64) -> Option<Registered> {
        self.sessions.get(usize::try_from(id).ok()?).map(|entry| entry.unpack())
    }

    pub fn remove(&self, id: u64) -> bool {
        usize::try_from(id).is_ok_and(|key| self.sessions.remove(key))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn registered(slot: u32) -> Registered {
        let session = Key { slot, generation: 1 };
        Registered { at: SessionRef { shard: ShardId(0), session }, user_hash: 7 }
    }

    #[test]
    fn an_old_id_never_finds_the_next_session_of_its_slot() {
        let directory = Directory::default();
        let first = directory.insert(registered(1)).unwrap();
        assert_eq!(directory.find(first), Some(registered(1)));
        assert!(directory.remove(first));
        for slot in 2..10_000 {
            let id = directory.insert(registered(slot)).unwrap();
            assert_eq!(directory.find(first), None);
            assert!(directory.remove(id));
        }
        assert!(!directory.remove(first));
    }

    #[test]
    fn what_is_kept_small_comes_back_whole() {
        let directory = Directory::default();
        let session = Key { slot: (1 << 24) - 1, generation: u32::MAX };
        for (shard, user_hash) in [(0, u64::MAX), (255, 1)] {
            let registered = Registered { at: SessionRef { shard: ShardId(shard), session }, user_hash };
            assert_eq!(directory.find(directory.insert(registered).unwrap()), Some(registered));
        }
    }

    #[test]
    fn other_threads_read_what_the_owner_wrote() {
        let directory = Directory::default();
        let id = directory.insert(registered(5)).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| assert_eq!(directory.find(id), Some(registered(5))));
        });
    }
}
