//! Users known to a shard: its own, with their sessions, and others that are members of rooms whose home it is.
//!
//! A user stays as long as it is referred to: by a session or by a room's list of members.

use smallvec::SmallVec;

use super::bucket::{Bucket, RateRules};
use super::named::{Named, NamedSlab, ShortText};
use super::rights::TokenRate;
use crate::ids::{Key, Position, SessionId};

#[derive(Debug)]
pub(super) struct User {
    name: ShortText,
    hash: u64,
    /// Rooms of this shard that have the user as a member.
    pub(super) rooms: u32,
    /// Sessions of the user that have not ended, replaced ones that are still closing included.
    pub(super) living: u32,
    /// This shard's sessions of the user that are in use; empty for a user whose home is another shard.
    pub(super) sessions: SmallVec<[SessionId; 2]>,
    pub(super) bucket: Bucket,
    /// The rate of the user's newest token, where it has one.
    pub(super) rate: Option<TokenRate>,
    /// The newest position of the user's inbox; zero before the first message since the user was last known here.
    pub(super) inbox_at: Position,
}

impl Named for User {
    fn name(&self) -> &[u8] {
        self.name.as_bytes()
    }
    fn hash(&self) -> u64 {
        self.hash
    }
}

impl User {
    /// The rate that the user is held to.
    pub(super) fn rate(&self, rules: &RateRules) -> RateRules {
        match self.rate {
            Some(TokenRate { requests_per_s, burst }) => RateRules { requests_per_s, burst, ..*rules },
            None => *rules,
        }
    }
}

const _: () = assert!(size_of::<User>() <= 112, "one for each session, mostly");

#[derive(Debug)]
pub(super) struct Users {
    users: NamedSlab<User>,
}

impl Users {
    pub(super) fn new(users_max: u32) -> Self {
        Self { users: NamedSlab::new(users_max) }
    }

    pub(super) fn find(&self, hash: u64, name: &str) -> Option<Key> {
        self.users.find(hash, name)
    }

    /// The user's key, made when it is new; `None` when the shard knows as many users as it may.
    pub(super) fn find_or_add(&mut self, hash: u64, name: &str) -> Option<Key> {
        if let Some(key) = self.users.find(hash, name) {
            return Some(key);
        }
        let user = User {
            name: ShortText::of(name),
            hash,
            rooms: 0,
            living: 0,
            sessions: SmallVec::new(),
            bucket: Bucket::FULL,
            rate: None,
            inbox_at: Position::default(),
        };
        self.users.insert(user).ok()
    }

    pub(super) fn get(&self, key: Key) -> &User {
        self.users.get(key).expect("a user stays while a session or a room refers to it")
    }

    pub(super) fn get_mut(&mut self, key: Key) -> &mut User {
        self.users.get_mut(key).expect("a user stays while a session or a room refers to it")
    }

    pub(super) fn name(&self, key: Key) -> &str {
        self.get(key).name.as_str()
    }

    pub(super) fn name_at(&self, slot: u32) -> &str {
        self.name(self.key_at(slot))
    }

    /// The key of a user that a room refers to.
    pub(super) fn key_at(&self, slot: u32) -> Key {
        self.users.key_at(slot).expect("a room's member is a living user")
    }

    /// Forgets the user if nothing refers to it any longer.
    pub(super) fn release(&mut self, key: Key) {
        let user = self.get(key);
        if user.rooms == 0 && user.living == 0 {
            self.users.remove(key);
        }
    }

    pub(super) fn buckets_over(&self, rules: &RateRules) -> usize {
        self.users.values().filter(|user| user.bucket.is_over(&user.rate(rules))).count()
    }

    pub(super) fn len(&self) -> usize {
        self.users.len()
    }
}
