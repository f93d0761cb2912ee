//! A paged slab with generations: pages of 1,024 slots that never move.

use crate::ids::Key;

#[derive(Debug)]
pub struct Slab<T> {
    _t: std::marker::PhantomData<T>,
}

impl<T> Slab<T> {
    /// A slab of at most `slots_max` (<= 2^24) values; nothing is allocated yet.
    pub fn new(slots_max: u32) -> Self {
        let _ = slots_max;
        unimplemented!()
    }
    /// Puts `value` into the most recently freed slot; full gives it back.
    pub fn insert(&mut self, value: T) -> Result<Key, T> {
        let _ = value;
        unimplemented!()
    }
    pub fn get(&self, key: Key) -> Option<&T> {
        let _ = key;
        unimplemented!()
    }
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let _ = key;
        unimplemented!()
    }
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let _ = key;
        unimplemented!()
    }
    /// The key of the value now in `slot`.
    pub fn key_at(&self, slot: u32) -> Option<Key> {
        let _ = slot;
        unimplemented!()
    }
    pub fn len(&self) -> usize {
        unimplemented!()
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Slots ever handed out, `0 ..` this: the bound for a walk with `key_at`.
    pub fn slots(&self) -> u32 {
        unimplemented!()
    }
}
