//! Where a name has its home: the same answer on every shard and on threads beside them.

use ahash::RandomState;

use crate::ids::ShardId;

/// The secret hash of names, and the shards it spreads them over.
#[derive(Clone, Debug)]
pub struct Homes {
    hasher: RandomState,
    shards: u16,
}

impl Homes {
    pub fn new(seeds: [u64; 4], shards: u16) -> Self {
        let [a, b, c, d] = seeds;
        Self { hasher: RandomState::with_seeds(a, b, c, d), shards }
    }

    /// The shard of a user's sessions and inbox, or of a room's order.
    pub fn of(&self, name: &str) -> ShardId {
        self.of_hash(self.hash(name))
    }

    /// The hash of an inbox is its owner's, so that a direct message takes one hop.
    pub(super) fn hash(&self, name: &str) -> u64 {
        self.hasher.hash_one(name.strip_prefix('@').unwrap_or(name))
    }

    pub(super) fn of_hash(&self, hash: u64) -> ShardId {
        let scaled = (u128::from(hash) * u128::from(self.shards)) >> 64;
        ShardId(u16::try_from(scaled).expect("less than the number of shards"))
    }

    /// A hash that is no name's.
    pub(super) fn hash_of(&self, value: impl std::hash::Hash) -> u64 {
        self.hasher.hash_one(value)
    }
}
