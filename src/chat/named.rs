//! Values with a name: a slab for the values, a table of slots beside it, keyed by a secret hash.

use hashbrown::HashTable;
use smallvec::SmallVec;

use crate::ids::Key;
use crate::memory::slab::Slab;

/// A value that can be looked up by name. The hash is stored, so that the table grows without hashing again.
pub(super) trait Named {
    fn name(&self) -> &[u8];
    fn hash(&self) -> u64;
}

/// A text that is mostly short: up to 16 bytes stand where it is, more have memory of their own, which is 32 bytes at least.
#[derive(Debug)]
pub(super) struct ShortText(SmallVec<[u8; 16]>);

impl ShortText {
    pub(super) fn of(text: &str) -> Self {
        Self(SmallVec::from_slice(text.as_bytes()))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("made from a text and never changed")
    }
}

#[derive(Debug)]
pub(super) struct NamedSlab<T> {
    slab: Slab<T>,
    table: HashTable<u32>,
}

impl<T: Named> NamedSlab<T> {
    pub(super) fn new(values_max: u32) -> Self {
        Self { slab: Slab::new(values_max), table: HashTable::new() }
    }

    pub(super) fn find(&self, hash: u64, name: &str) -> Option<Key> {
        let slab = &self.slab;
        let value = |slot: u32| slab.key_at(slot).and_then(|key| slab.get(key).map(|v| (key, v)));
        let slot = self.table.find(hash, |slot| value(*slot).is_some_and(|(_, v)| v.name() == name.as_bytes()))?;
        slab.key_at(*slot)
    }

    /// Full gives the value back. The caller has made sure that the name is new.
    pub(super) fn insert(&mut self, value: T) -> Result<Key, T> {
        let hash = value.hash();
        let key = self.slab.insert(value)?;
        let slab = &self.slab;
        self.table.insert_unique(hash, key.slot, |slot| hash_of(slab, *slot));
        Ok(key)
    }

    pub(super) fn get(&self, key: Key) -> Option<&T> {
        self.slab.get(key)
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.slab.get_mut(key)
    }

    pub(super) fn key_at(&self, slot: u32) -> Option<Key> {
        self.slab.key_at(slot)
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<T> {
        let hash = self.slab.get(key)?.hash();
        let entry = self.table.find_entry(hash, |slot| *slot == key.slot);
        entry.expect("a value in the slab stands in the table").remove();
        let slab = &self.slab;
        if self.table.capacity() > 1024 && self.table.len() < self.table.capacity() / 4 {
            let want = self.table.len() * 2;
            self.table.shrink_to(want, |slot| hash_of(slab, *slot));
        }
        self.slab.remove(key)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        (0..self.slab.slots()).filter_map(|slot| self.slab.get(self.slab.key_at(slot)?))
    }

    /// Slots so far; each may hold a value.
    pub(super) fn slots(&self) -> u32 {
        self.slab.slots()
    }

    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }
}

fn hash_of<T: Named>(slab: &Slab<T>, slot: u32) -> u64 {
    let value = slab.key_at(slot).and_then(|key| slab.get(key));
    value.expect("the table holds slots of living values").hash()
}
