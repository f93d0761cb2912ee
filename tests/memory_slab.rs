//! A slab answers as a map from keys to values does, while its values never move.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod memory_random;

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;

use memory_random::{Random, for_each_seed};
use ringroom::ids::Key;
use ringroom::memory::slab::Slab;

/// A value that counts how many of its kind are alive.
#[derive(Debug)]
struct Value {
    number: u64,
    alive: Rc<Cell<i64>>,
}

impl Value {
    fn new(number: u64, alive: &Rc<Cell<i64>>) -> Self {
        alive.set(alive.get() + 1);
        Value { number, alive: Rc::clone(alive) }
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        self.alive.set(self.alive.get() - 1);
    }
}

struct Both {
    slab: Slab<Value>,
    /// What the slab should hold, and where it stood when it was put in.
    model: HashMap<Key, (u64, *const Value)>,
    live: Vec<Key>,
    dead: Vec<Key>,
    slots_max: u32,
    alive: Rc<Cell<i64>>,
}

impl Both {
    fn insert(&mut self, number: u64) {
        match self.slab.insert(Value::new(number, &self.alive)) {
            Ok(key) => {
                assert!(self.live.len() < self.slots_max as usize && key.slot < self.slots_max);
                let place = std::ptr::from_ref(self.slab.get(key).unwrap());
                assert!(self.model.insert(key, (number, place)).is_none(), "{key:?} was handed out twice");
                assert!(!self.live.iter().any(|other| other.slot == key.slot), "two values in slot {}", key.slot);
                self.live.push(key);
            }
            Err(value) => {
                assert_eq!((value.number, self.live.len()), (number, self.slots_max as usize));
            }
        }
    }

    fn remove(&mut self, random: &mut Random) {
        if !self.live.is_empty() {
            let key = self.live.swap_remove(random.index(self.live.len()));
            let (number, _) = self.model.remove(&key).unwrap();
            assert_eq!(self.slab.remove(key).unwrap().number, number);
            self.dead.push(key);
        }
    }

    fn look(&mut self, random: &mut Random) {
        if !self.live.is_empty() {
            let key = self.live[random.index(self.live.len())];
            let (number, place) = self.model.get_mut(&key).unwrap();
            assert_eq!(self.slab.key_at(key.slot), Some(key));
            let value = self.slab.get_mut(key).unwrap();
            assert!(value.number == *number && std::ptr::from_ref(value) == *place);
            value.number += 1;
            *number += 1;
        }
        if !self.dead.is_empty() {
            let key = self.dead[random.index(self.dead.len())];
            assert!(self.slab.get(key).is_none() && self.slab.get_mut(key).is_none() && self.slab.remove(key).is_none());
        }
    }

    fn check(&self) {
        assert_eq!(self.slab.len(), self.model.len());
        let walked: HashMap<Key, u64> =
            (0..self.slab.slots()).filter_map(|slot| self.slab.key_at(slot)).map(|key| (key, self.slab.get(key).unwrap().number)).collect();
        assert!(walked.len() == self.model.len() && walked.iter().all(|(key, number)| self.model[key].0 == *number));
        assert_eq!(self.alive.get(), i64::try_from(self.model.len()).unwrap());
    }
}

#[test]
fn a_slab_is_a_map_whose_values_never_move() {
    for_each_seed(12, |random| {
        let slots_max = 1 + random.below_u32(3_000);
        let alive = Rc::new(Cell::new(0));
        let mut both = Both {
            slab: Slab::new(slots_max),
            model: HashMap::new(),
            live: Vec::new(),
            dead: Vec::new(),
            slots_max,
            alive: Rc::clone(&alive),
        };
        for _ in 0..8 {
            // Each phase leans towards growing or shrinking, so that the slab runs full and empty.
            let inserts = 20 + random.below(60);
            for number in 0..1_500 {
                match random.below(100) {
                    roll if roll < inserts => both.insert(number),
                    roll if roll < 90 => both.remove(random),
                    _ => both.look(random),
                }
            }
            both.check();
        }
        drop(both);
        assert_eq!(alive.get(), 0, "a value was leaked or dropped twice");
    });
}
