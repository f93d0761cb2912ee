//! Users known to a shard: its own, with their sessions, and others that are members of rooms whose home it is.
//!
//! A user stays as long as it is referred to: by a session or by a room's list of members. What it owes to its rate stays longer ([`Debts`]).

use smallvec::SmallVec;

use super::bucket::{Bucket, RateRules};
use super::debts::{Debt, Debts};
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

/// Users that have gone with a bucket that is not full. About 100 bytes each; above it the one that is full first is forgotten.
const DEBTS_MAX: usize = 65_536;

const _: () = assert!(size_of::<User>() <= 112, "one for each session, mostly");

#[derive(Debug)]
pub(super) struct Users {
    users: NamedSlab<User>,
    debts: Debts,
}

impl Users {
    pub(super) fn new(users_max: u32) -> Self {
        Self { users: NamedSlab::new(users_max), debts: Debts::new(DEBTS_MAX) }
    }

    pub(super) fn find(&self, hash: u64, name: &str) -> Option<Key> {
        self.users.find(hash, name)
    }

    /// The user's key, made when it is new; `None` when the shard knows as many users as it may.
    pub(super) fn find_or_add(&mut self, hash: u64, name: &str) -> Option<Key> {
        if let Some(key) = self.users.find(hash, name) {
            return Some(key);
        }
        let debt = self.debts.take(hash);
        let user = User {
            name: ShortText::of(name),
            hash,
            rooms: 0,
            living: 0,
            sessions: SmallVec::new(),
            bucket: debt.map_or(Bucket::FULL, |debt| debt.bucket),
            rate: debt.and_then(|debt| debt.rate),
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

    /// Forgets the user if nothing refers to it any longer, but for what it owes.
    pub(super) fn release(&mut self, now_ms: u64, key: Key, rules: &RateRules) {
        let user = self.get_mut(key);
        if user.rooms > 0 || user.living > 0 {
            return;
        }
        let (hash, rate) = (user.hash, user.rate);
        let full_ms = user.bucket.full_at(now_ms, &user.rate(rules));
        let bucket = user.bucket;
        self.users.remove(key);
        if let Some(full_ms) = full_ms {
            self.debts.expire(now_ms);
            self.debts.put(hash, Debt { bucket, rate, full_ms });
        }
    }

    /// The newest token of the user says how fast it may ask.
    pub(super) fn set_rate(&mut self, key: Key, rate: Option<TokenRate>, rules: &RateRules) {
        let user = self.get_mut(key);
        user.rate = rate;
        let rate = user.rate(rules);
        user.bucket.hold_to(&rate);
    }

    /// Forgets what users that have gone owed until now.
    pub(super) fn expire_debts(&mut self, now_ms: u64) {
        self.debts.expire(now_ms);
    }

    pub(super) fn debts(&self) -> usize {
        self.debts.len()
    }

    pub(super) fn buckets_over(&self, rules: &RateRules) -> usize {
        self.users.values().filter(|user| user.bucket.is_over(&user.rate(rules))).count()
    }

    pub(super) fn len(&self) -> usize {
        self.users.len()
    }
}
