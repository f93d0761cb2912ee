//! A paged slab with generations: pages of 1,024 slots that never move.
//!
//! It owns the values (the state of the shard's connections) and hands out a [`Key`]: slot and generation. The generation rises each time a
//! slot is freed, so the key of a value that is gone answers `None`, never another connection's state. It never moves a value, never
//! allocates but for a whole page, and never gives a page back: after a peak of connections the memory stays with the slab.
//!
//! Values enter by [`Slab::insert`] into the slot freed last (its lines are still in the cache) and leave by [`Slab::remove`].
//! The slab is full when it holds `slots_max` values; a freed slot can be used again at once. After 2^32 uses of one slot its generations
//! start again: a key would have to be kept that long to match wrongly.
//!
//! Memory: 8 bytes a slot on top of `T`, for a `T` of 4 bytes or more and an alignment of at most 8.

use crate::ids::Key;
use crate::memory::pages::Pages;

/// Ends the free list: no slot has this number.
const NONE: u32 = u32::MAX;

/// The layout is fixed so that the kind and the generation share the first 8 bytes, whatever `T` is: a lookup reads one cache line.
#[derive(Debug)]
#[repr(u32)]
enum Slot<T> {
    /// `generation` is the one that the next value gets.
    Vacant {
        generation: u32,
        next: u32,
    },
    Occupied {
        generation: u32,
        value: T,
    },
}

#[derive(Debug)]
pub struct Slab<T> {
    slots: Pages<Slot<T>>,
    /// The slot freed last, the head of the list through the vacant slots.
    free: u32,
    len: u32,
}

impl<T> Slab<T> {
    /// A slab of at most `slots_max` (<= 2^24) values; nothing is allocated yet.
    pub fn new(slots_max: u32) -> Self {
        assert!(slots_max <= 1 << Key::SLOT_BITS, "a slot number has 24 bits");
        Slab { slots: Pages::new(slots_max), free: NONE, len: 0 }
    }

    /// Puts `value` into the most recently freed slot; full gives it back.
    pub fn insert(&mut self, value: T) -> Result<Key, T> {
        let key = if self.free == NONE {
            if self.slots.is_full() {
                return Err(value);
            }
            // Not zero, so that a key made of zeroes names nothing.
            let generation = 1;
            Key { slot: self.slots.push(Slot::Occupied { generation, value }), generation }
        } else {
            let slot = self.free;
            let place = self.slots.at_mut(slot);
            let Slot::Vacant { generation, next } = *place else { unreachable!("a slot of the free list holds a value") };
            *place = Slot::Occupied { generation, value };
            self.free = next;
            Key { slot, generation }
        };
        self.len += 1;
        Ok(key)
    }

    #[inline]
    pub fn get(&self, key: Key) -> Option<&T> {
        match self.slots.get(key.slot)? {
            Slot::Occupied { generation, value } if *generation == key.generation => Some(value),
            _ => None,
        }
    }

    #[inline]
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.slots.get_mut(key.slot)? {
            Slot::Occupied { generation, value } if *generation == key.generation => Some(value),
            _ => None,
        }
    }

    pub fn remove(&mut self, key: Key) -> Option<T> {
        self.get(key)?;
        let vacant = Slot::Vacant { generation: key.generation.wrapping_add(1), next: self.free };
        let Slot::Occupied { value, .. } = std::mem::replace(self.slots.at_mut(key.slot), vacant) else {
            unreachable!("the slot was looked up in the line above")
        };
        self.free = key.slot;
        self.len -= 1;
        Some(value)
    }

    /// The key of the value now in `slot`.
    pub fn key_at(&self, slot: u32) -> Option<Key> {
        match self.slots.get(slot)? {
            Slot::Occupied { generation, .. } => Some(Key { slot, generation: *generation }),
            Slot::Vacant { .. } => None,
        }
    }

    pub fn len(&self) -> usize {
        self.len as usize
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Slots ever handed out, `0 ..` this: the bound for a walk with `key_at`.
    pub fn slots(&self) -> u32 {
        self.slots.len()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_slot_costs_at_most_eight_bytes_more_than_its_value() {
        fn overhead<T>() -> usize {
            size_of::<Slot<T>>() - size_of::<T>()
        }
        assert_eq!(overhead::<[u64; 32]>(), 8);
        assert_eq!(overhead::<u32>(), 8);
        assert_eq!(overhead::<Option<Box<u8>>>(), 8);
        assert_eq!(overhead::<(u64, bool)>(), 8);
    }

    #[test]
    fn the_slot_freed_last_is_used_first_with_a_higher_generation() {
        let mut slab = Slab::new(8);
        let keys: Vec<Key> = (0..4).map(|i| slab.insert(i).unwrap()).collect();
        slab.remove(keys[2]);
        slab.remove(keys[0]);
        let again = slab.insert(10).unwrap();
        assert_eq!(again, Key { slot: 0, generation: keys[0].generation + 1 });
        assert_eq!(slab.insert(11).unwrap().slot, 2);
        assert_eq!(slab.insert(12).unwrap().slot, 4);
        assert_eq!(slab.get(keys[0]), None);
        assert_eq!(slab.remove(keys[0]), None);
        assert_eq!(slab.get(again), Some(&10));
    }

    #[test]
    fn full_gives_the_value_back_and_a_freed_slot_takes_it() {
        let mut slab = Slab::new(2);
        let first = slab.insert("a").unwrap();
        slab.insert("b").unwrap();
        assert_eq!(slab.insert("c"), Err("c"));
        assert_eq!(slab.remove(first), Some("a"));
        assert!(slab.insert("c").is_ok());
        assert_eq!(slab.insert("d"), Err("d"));
    }

    #[test]
    fn generations_start_again_after_the_last_one() {
        let mut slab = Slab::new(1);
        let mut key = slab.insert(1).unwrap();
        if let Slot::Occupied { generation, .. } = slab.slots.at_mut(0) {
            *generation = u32::MAX;
        }
        key.generation = u32::MAX;
        assert_eq!(slab.remove(key), Some(1));
        assert_eq!(slab.insert(2), Ok(Key { slot: 0, generation: 0 }));
        assert_eq!(slab.get(key), None);
    }

    #[test]
    fn a_key_that_was_never_handed_out_answers_none() {
        let mut slab = Slab::new(5_000);
        slab.insert(1).unwrap();
        for slot in [0, 1, 1_023, 1_024, 4_999, u32::MAX] {
            let key = Key { slot, generation: 0 };
            assert_eq!(slab.get(key), None);
            assert_eq!(slab.remove(key), None);
            assert!(slot == 0 || slab.key_at(slot).is_none());
        }
    }
}
