//! The frame store answers as a map from ids to counted payloads does; what is lent stays where it is and as it is.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod memory_random;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use bytes::Bytes;
use memory_random::{Random, for_each_seed};
use ringroom::limits::SEND_BYTES_MAX;
use ringroom::memory::frames::{FrameId, FrameStore, Loan, Usage};

struct Held {
    bytes: Vec<u8>,
    /// Counts that are not lent.
    free: u32,
    lent: u32,
    is_gather: bool,
}

struct Both {
    store: FrameStore,
    model: HashMap<FrameId, Held>,
    ids: Vec<FrameId>,
    loans: Vec<Loan>,
    frames_max: usize,
    gathers_max: usize,
}

impl Both {
    fn new(frames_max: u32, gathers_max: u32) -> Self {
        Both {
            store: FrameStore::new(frames_max, gathers_max),
            model: HashMap::new(),
            ids: Vec::new(),
            loans: Vec::new(),
            frames_max: frames_max as usize,
            gathers_max: gathers_max as usize,
        }
    }

    fn any(&self, random: &mut Random) -> Option<FrameId> {
        (!self.ids.is_empty()).then(|| self.ids[random.index(self.ids.len())])
    }

    fn gathers(&self) -> usize {
        self.model.values().filter(|held| held.is_gather).count()
    }

    fn add(&mut self, frame: FrameId, held: Held) {
        assert!(self.model.insert(frame, held).is_none(), "{frame:?} names two frames");
        self.ids.push(frame);
    }

    fn insert(&mut self, random: &mut Random) {
        let bytes: Vec<u8> = (0..random.below(300)).map(|_| random.next().to_le_bytes()[0]).collect();
        // Payloads of each kind that Bytes has: an allocation of its own, a part of a shared one, static ones.
        let payload = match random.below(3) {
            0 => Bytes::from(bytes.clone()),
            1 => Bytes::from([&[9; 5], &bytes[..], &[9; 5]].concat()).slice(5..5 + bytes.len()),
            _ => Bytes::copy_from_slice(&bytes),
        };
        match self.store.insert(payload) {
            Ok(frame) => self.add(frame, Held { bytes, free: 1, lent: 0, is_gather: false }),
            Err(payload) => assert!(payload == bytes && self.model.len() == self.frames_max),
        }
    }

    fn gather(&mut self, random: &mut Random) {
        let frames: Vec<FrameId> = (0..1 + random.below(40)).filter_map(|_| self.any(random)).collect();
        let bytes: Vec<u8> = frames.iter().flat_map(|frame| self.model[frame].bytes.clone()).collect();
        match self.store.gather(&frames) {
            Some(frame) => self.add(frame, Held { bytes, free: 1, lent: 0, is_gather: true }),
            None => assert!(bytes.len() > SEND_BYTES_MAX || self.model.len() == self.frames_max || self.gathers() == self.gathers_max),
        }
    }

    fn release(&mut self, frame: FrameId, random: &mut Random) {
        let held = self.model.get_mut(&frame).unwrap();
        if held.free == 0 {
            return;
        }
        let count = 1 + random.below_u32(held.free);
        if count == 1 {
            self.store.release(frame);
        } else {
            self.store.release_many(frame, count);
        }
        held.free -= count;
        if held.free + held.lent == 0 {
            self.model.remove(&frame);
            self.ids.retain(|id| *id != frame);
        }
    }

    fn lend(&mut self, frame: FrameId, random: &mut Random) {
        let held = self.model.get_mut(&frame).unwrap();
        if held.free > 0 {
            let start = random.below_u32(u32::try_from(held.bytes.len()).unwrap() + 1);
            let loan = self.store.lend(frame, start);
            assert_eq!((loan.frame(), (loan.len() + start) as usize), (frame, held.bytes.len()));
            held.free -= 1;
            held.lent += 1;
            self.loans.push(loan);
        }
    }

    fn give_back(&mut self, random: &mut Random) {
        if !self.loans.is_empty() {
            let loan = self.loans.swap_remove(random.index(self.loans.len()));
            let held = self.model.get_mut(&loan.frame()).unwrap();
            assert!(held.bytes.ends_with(lent_bytes(&loan)), "lent bytes have changed");
            self.store.give_back(loan);
            held.free += 1;
            held.lent -= 1;
        }
    }

    fn check(&self) {
        for (&frame, held) in &self.model {
            assert_eq!(self.store.bytes(frame), held.bytes);
            assert_eq!(self.store.len_of(frame) as usize, held.bytes.len());
        }
        for loan in &self.loans {
            assert!(self.model[&loan.frame()].bytes.ends_with(lent_bytes(loan)));
        }
        let usage = Usage {
            frames: u32::try_from(self.model.len()).unwrap(),
            gathers: u32::try_from(self.gathers()).unwrap(),
            bytes: self.model.values().map(|held| held.bytes.len() as u64).sum(),
        };
        assert_eq!(self.store.usage(), usage);
    }
}

/// What the kernel would read.
#[allow(unsafe_code, reason = "reads through the pointer that a loan hands to the kernel")]
fn lent_bytes(loan: &Loan) -> &[u8] {
    // SAFETY: the store keeps the payload of a loan in place and unwritten until it is given back (that is what this test is about), and
    // `loan` is borrowed, so it can't be given back while the slice lives.
    unsafe { std::slice::from_raw_parts(loan.as_ptr(), loan.len() as usize) }
}

#[test]
fn a_store_is_a_map_of_counted_payloads_and_lent_bytes_stay() {
    for_each_seed(12, |random| {
        let mut both = Both::new(1 + random.below_u32(2_500), random.below_u32(12));
        for _ in 0..6 {
            let inserts = 10 + random.below(50);
            for _ in 0..1_500 {
                let roll = random.below(100);
                match (roll, both.any(random)) {
                    (0..4, _) => both.gather(random),
                    (roll, _) if roll < inserts => both.insert(random),
                    (60..70, _) => both.give_back(random),
                    (70..80, Some(frame)) => both.lend(frame, random),
                    (80..84, Some(frame)) => {
                        let count = random.below_u32(100);
                        both.store.retain(frame, count);
                        both.model.get_mut(&frame).unwrap().free += count;
                    }
                    (84.., Some(frame)) => both.release(frame, random),
                    _ => {
                        both.store.trim(random.index(4));
                    }
                }
            }
            both.check();
        }
        while !both.loans.is_empty() {
            both.give_back(random);
        }
        while let Some(frame) = both.any(random) {
            both.release(frame, random);
        }
        assert_eq!(both.store.usage(), Usage::default());
    });
}

/// A payload that says when it is freed, with its bytes in itself: a pointer to them keeps all of it within a leak checker's reach.
struct Watched {
    bytes: [u8; 7],
    freed: &'static AtomicBool,
}

impl Watched {
    fn payload(freed: &'static AtomicBool) -> Bytes {
        Bytes::from_owner(Watched { bytes: *b"watched", freed })
    }
}

impl AsRef<[u8]> for Watched {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.freed.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_dropped_store_frees_all_but_what_is_lent() {
    static LENT_FREED: AtomicBool = AtomicBool::new(false);
    static OTHER_FREED: AtomicBool = AtomicBool::new(false);
    /// What is leaked on purpose.
    static LEAKED: [AtomicPtr<u8>; 2] = [AtomicPtr::new(std::ptr::null_mut()), AtomicPtr::new(std::ptr::null_mut())];

    let mut store = FrameStore::new(8, 1);
    let lent = store.insert(Watched::payload(&LENT_FREED)).unwrap();
    let gather = store.gather(&[lent]).unwrap();
    store.insert(Watched::payload(&OTHER_FREED)).unwrap();
    let loans = [store.lend(lent, 2), store.lend(gather, 0)];
    for (place, loan) in LEAKED.iter().zip(&loans) {
        place.store(loan.as_ptr().cast_mut(), Ordering::SeqCst);
    }
    drop(store);
    assert!(OTHER_FREED.load(Ordering::SeqCst));
    assert!(!LENT_FREED.load(Ordering::SeqCst));
    // Freed memory would be caught here by the address sanitizer.
    assert_eq!(loans.each_ref().map(lent_bytes), [&b"tched"[..], b"watched"]);
}
