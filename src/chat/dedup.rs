//! Which keys a room's users have used: a pure function of the log's order, with windows in the log's own time.
//!
//! Per user the newest keys, a bounded number, each for a bounded time. A key is kept as a keyed 128-bit hash of user and key.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;

use super::room::WordHasher;
use crate::ids::Position;
use crate::limits::{DEDUP_KEYS_PER_USER_MAX, DEDUP_WINDOW_MS};

/// A user and a key of its, as one hash; the upper half is the user's alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyHash {
    pub user: u64,
    pub key: u64,
}

#[derive(Debug, Default)]
pub(super) struct Dedup {
    users: HashMap<u64, VecDeque<(u64, Position)>, BuildHasherDefault<WordHasher>>,
    /// Users in the order of their keys' positions; an entry is looked at when its window has passed.
    order: VecDeque<(u64, u64)>,
}

impl Dedup {
    /// Where the key was used first, if it is still remembered.
    pub(super) fn find(&self, hash: KeyHash, now_ms: u64) -> Option<Position> {
        let keys = self.users.get(&hash.user)?;
        let known = keys.iter().rev().find(|(key, _)| *key == hash.key)?;
        (now_ms.saturating_sub(known.1.ms) < DEDUP_WINDOW_MS).then_some(known.1)
    }

    /// Remembers a key; the caller has made sure that it is new.
    pub(super) fn insert(&mut self, hash: KeyHash, position: Position) {
        let keys = self.users.entry(hash.user).or_default();
        if keys.len() >= DEDUP_KEYS_PER_USER_MAX {
            keys.pop_front();
        }
        keys.push_back((hash.key, position));
        self.order.push_back((position.ms, hash.user));
        self.forget(position.ms);
    }

    /// Forgets what is older than the window.
    pub(super) fn forget(&mut self, now_ms: u64) {
        while let Some((ms, user)) = self.order.front().copied() {
            if now_ms.saturating_sub(ms) < DEDUP_WINDOW_MS {
                return;
            }
            self.order.pop_front();
            let Some(keys) = self.users.get_mut(&user) else { continue };
            while keys.front().is_some_and(|(_, at)| now_ms.saturating_sub(at.ms) >= DEDUP_WINDOW_MS) {
                keys.pop_front();
            }
            if keys.is_empty() {
                self.users.remove(&user);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// What the keys cost, about.
    pub(super) fn cost(&self) -> usize {
        self.order.len() * (size_of::<(u64, u64)>() + size_of::<(u64, Position)>()) + self.users.len() * 64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(user: u64, key: u64) -> KeyHash {
        KeyHash { user, key }
    }

    fn at(ms: u64) -> Position {
        Position { ms, n: 0 }
    }

    #[test]
    fn the_last_128_keys_of_a_user_are_remembered_for_five_minutes() {
        let mut dedup = Dedup::default();
        for key in 0..200 {
            dedup.insert(hash(1, key), at(1_000 + key));
            dedup.insert(hash(2, key / 100), at(1_000 + key));
        }
        assert_eq!(dedup.find(hash(1, 71), 2_000), None, "129 keys ago");
        assert_eq!(dedup.find(hash(1, 72), 2_000), Some(at(1_072)));
        assert_eq!(dedup.find(hash(3, 72), 2_000), None, "another user's key is another key");
        assert_eq!(dedup.find(hash(1, 199), 1_199 + DEDUP_WINDOW_MS - 1), Some(at(1_199)));
        assert_eq!(dedup.find(hash(1, 199), 1_199 + DEDUP_WINDOW_MS), None);
        dedup.forget(1_199 + DEDUP_WINDOW_MS);
        assert!(dedup.users.is_empty());
        assert_eq!(dedup.cost(), 0);
    }
}
