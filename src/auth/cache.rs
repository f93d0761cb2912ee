//! A bounded map by 128-bit keys that forgets what was not asked for lately (the clock algorithm).
//!
//! A constant amount of work per call, a constant amount of memory once full. Keys are hashes made with a secret, or addresses; the map's own hasher is
//! keyed too.

use ahash::RandomState;
use hashbrown::HashMap;

#[derive(Debug)]
pub(super) struct Cache<V> {
    places: HashMap<u128, usize, RandomState>,
    entries: Vec<Entry<V>>,
    entries_max: usize,
    hand: usize,
}

#[derive(Debug)]
struct Entry<V> {
    key: u128,
    /// Asked for since the hand came by.
    used: bool,
    value: V,
}

impl<V> Cache<V> {
    pub(super) fn new(entries_max: usize, hasher: RandomState) -> Self {
        Self { places: HashMap::with_hasher(hasher), entries: Vec::new(), entries_max, hand: 0 }
    }

    pub(super) fn get_mut(&mut self, key: u128) -> Option<&mut V> {
        let entry = &mut self.entries[*self.places.get(&key)?];
        entry.used = true;
        Some(&mut entry.value)
    }

    /// Puts a value in, in the place of the key's old one or of one that was not asked for lately.
    pub(super) fn put(&mut self, key: u128, value: V) {
        if self.entries_max == 0 {
            return;
        }
        let fresh = Entry { key, used: false, value };
        if let Some(place) = self.places.get(&key) {
            self.entries[*place] = fresh;
        } else if self.entries.len() < self.entries_max {
            self.places.insert(key, self.entries.len());
            self.entries.push(fresh);
        } else {
            let place = self.victim();
            self.places.remove(&self.entries[place].key);
            self.places.insert(key, place);
            self.entries[place] = fresh;
        }
    }

    pub(super) fn clear(&mut self) {
        self.places.clear();
        self.entries.clear();
        self.hand = 0;
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The hand passes everybody at most once before it finds somebody it has passed.
    fn victim(&mut self) -> usize {
        loop {
            self.hand = (self.hand + 1) % self.entries.len();
            let entry = &mut self.entries[self.hand];
            if !std::mem::take(&mut entry.used) {
                return self.hand;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(entries_max: usize) -> Cache<u64> {
        Cache::new(entries_max, RandomState::with_seeds(1, 2, 3, 4))
    }

    #[test]
    fn it_never_grows_beyond_its_bound_and_keeps_what_is_asked_for() {
        let mut cache = cache(100);
        for key in 0..10_000_u64 {
            cache.put(u128::from(key), key);
            if key % 10 == 0 {
                assert!(key == 0 || cache.get_mut(0).is_some(), "asked for all the time, and forgotten at {key}");
            }
            assert!(cache.len() <= 100 && cache.places.len() == cache.len());
        }
        assert_eq!(cache.get_mut(9_999), Some(&mut 9_999));
        assert_eq!(cache.get_mut(1), None);
    }

    #[test]
    fn a_key_has_one_value_and_a_cache_of_none_holds_none() {
        let mut one = cache(2);
        one.put(1, 1);
        one.put(1, 2);
        assert_eq!((one.get_mut(1).copied(), one.len()), (Some(2), 1));
        one.clear();
        assert_eq!((one.get_mut(1).copied(), one.len()), (None, 0));
        let mut none = cache(0);
        none.put(1, 1);
        assert_eq!(none.get_mut(1), None);
    }
}
