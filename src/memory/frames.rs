//! The frame store of a shard: payload bytes with a non-atomic count, named by 4-byte ids.
//!
//! It owns every payload that waits for a send: encoded messages (shared with other shards through [`Bytes`]) and gather buffers, pooled
//! buffers that hold several frames one behind the other. A frame enters by [`FrameStore::insert`] or [`FrameStore::gather`] with one count,
//! and its payload goes when the last count is released. One recipient costs one non-atomic addition and one subtraction, whatever the
//! number of shards. The fan-out of a message to n sessions: `insert`, the id onto n queues, `retain(id, n)`, `release(id)`.
//!
//! Bytes are lent to the kernel by [`FrameStore::lend`]. A lent payload is never freed, moved or written to: neither a [`Bytes`] nor a
//! gather buffer moves its heap bytes when the entry around it does, and a store that is dropped with loans outstanding leaks their
//! payloads, because the kernel may still read them.
//!
//! An id is good while its holder has a count of it; what it names then is nobody's business but the store's. Ids carry some bits of a
//! generation, so that using one too long is an abort and not another user's message: the counts are our own state, and every slip is an assert.

use std::ptr::NonNull;

use bytes::Bytes;

use crate::limits::SEND_BYTES_MAX;
use crate::memory::pages::Pages;

/// Bits of a slot in an id; the others count the uses of the slot.
const SLOT_BITS: u32 = 22;
const SLOT_MASK: u32 = (1 << SLOT_BITS) - 1;
/// Ends the free list.
const NONE: u32 = u32::MAX;
/// What a gather buffer is filled with when it comes back, in builds with debug assertions.
#[cfg(debug_assertions)]
const POISON: u8 = 0xDB;

/// A frame of this shard's store. Opaque: not an index, not the same twice in a row for one place of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FrameId(pub u32);

impl FrameId {
    /// Its place in the store, which is another frame's once this one is released.
    pub fn slot(self) -> u32 {
        self.0 & SLOT_MASK
    }

    /// The id of the next frame in the same slot.
    fn successor(self) -> FrameId {
        FrameId(self.0.wrapping_add(1 << SLOT_BITS))
    }
}

/// Bytes lent to the kernel: the store keeps them where they are until [`FrameStore::give_back`].
///
/// Neither `Clone` nor constructible elsewhere: one value is one count in the store. Dropping it without giving it back leaks the frame,
/// never frees it.
#[derive(Debug)]
#[must_use]
pub struct Loan {
    frame: FrameId,
    /// Not null, so that a place for a loan is no larger than a loan.
    start: NonNull<u8>,
    len: u32,
}

impl Loan {
    pub fn frame(&self) -> FrameId {
        self.frame
    }

    /// The first of [`Loan::len`] readable bytes.
    pub fn as_ptr(&self) -> *const u8 {
        self.start.as_ptr()
    }

    pub fn len(&self) -> u32 {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[derive(Debug)]
enum Payload {
    Vacant {
        next: u32,
    },
    Shared(Bytes),
    /// A `Vec` and not a boxed slice: its bytes may be pointed at while the `Vec` itself moves.
    Gathered(Vec<u8>),
}

impl Payload {
    #[inline]
    fn bytes(&self) -> &[u8] {
        match self {
            Payload::Shared(bytes) => bytes,
            Payload::Gathered(buffer) => buffer,
            Payload::Vacant { .. } => panic!("a frame that is not held was used"),
        }
    }
}

#[derive(Debug)]
struct Entry {
    /// The id that names this entry: while it is vacant, the one that the next frame gets.
    id: FrameId,
    /// The holders' counts and the loans together; zero exactly when the entry is vacant.
    count: u32,
    /// Those of `count` that are out as a [`Loan`].
    loans: u32,
    tag: u8,
    payload: Payload,
}

/// Buffers of [`SEND_BYTES_MAX`] bytes: made when first needed, then kept for the next gather.
#[derive(Debug)]
struct GatherPool {
    idle: Vec<Vec<u8>>,
    used: u32,
    used_max: u32,
}

impl GatherPool {
    fn take(&mut self) -> Option<Vec<u8>> {
        if self.used == self.used_max {
            return None;
        }
        self.used += 1;
        let mut buffer = self.idle.pop().unwrap_or_else(|| Vec::with_capacity(SEND_BYTES_MAX));
        buffer.clear();
        Some(buffer)
    }

    #[cfg_attr(not(debug_assertions), allow(unused_mut, reason = "only poisoning writes"))]
    fn put(&mut self, mut buffer: Vec<u8>) {
        #[cfg(debug_assertions)]
        buffer.fill(POISON);
        self.idle.push(buffer);
        self.used -= 1;
    }
}

const _: () = assert!(size_of::<Entry>() <= 56, "a place of the store");

#[derive(Debug)]
pub struct FrameStore {
    entries: Pages<Entry>,
    /// The entry freed last, the head of the list through the vacant ones.
    free: u32,
    frames: u32,
    bytes: u64,
    gathers: GatherPool,
}

impl FrameStore {
    /// A store of at most `frames_max` (<= 2^22) frames and `gathers_max` gather buffers of [`SEND_BYTES_MAX`] bytes.
    /// A gather is a frame too. Nothing is allocated yet.
    pub fn new(frames_max: u32, gathers_max: u32) -> Self {
        assert!(frames_max <= 1 << SLOT_BITS, "a frame's slot has 22 bits");
        FrameStore {
            entries: Pages::new(frames_max),
            free: NONE,
            frames: 0,
            bytes: 0,
            gathers: GatherPool { idle: Vec::new(), used: 0, used_max: gathers_max },
        }
    }

    /// Takes a payload (header included) with a count of one, the caller's own, to be released by it; full gives it back.
    #[inline]
    pub fn insert(&mut self, bytes: Bytes) -> Result<FrameId, Bytes> {
        if self.is_full() {
            return Err(bytes);
        }
        Ok(self.occupy(Payload::Shared(bytes)))
    }

    /// Adds `count` to the frame's count.
    #[inline]
    pub fn retain(&mut self, frame: FrameId, count: u32) {
        let entry = self.entry_mut(frame);
        entry.count = entry.count.checked_add(count).expect("a frame has fewer holders than 2^32");
    }

    /// Takes one from the frame's count; the payload goes when none is left.
    #[inline]
    pub fn release(&mut self, frame: FrameId) {
        self.release_many(frame, 1);
    }

    /// Takes `count` from the frame's count, as so many times [`FrameStore::release`].
    #[inline]
    pub fn release_many(&mut self, frame: FrameId, count: u32) {
        let entry = self.entry_mut(frame);
        assert!(entry.count - entry.loans >= count, "a frame was released that is lent or not held");
        entry.count -= count;
        if entry.count == 0 {
            self.vacate(frame);
        }
    }

    /// A mark of the holders' own, which says nothing to the store; zero until it is set.
    #[inline]
    pub fn tag(&self, frame: FrameId) -> u8 {
        self.entry(frame).tag
    }

    pub fn set_tag(&mut self, frame: FrameId, tag: u8) {
        self.entry_mut(frame).tag = tag;
    }

    #[inline]
    pub fn bytes(&self, frame: FrameId) -> &[u8] {
        self.entry(frame).payload.bytes()
    }

    /// Bytes of the payload.
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "checked when the payload entered")]
    pub fn len_of(&self, frame: FrameId) -> u32 {
        self.bytes(frame).len() as u32
    }

    /// Moves one of the caller's counts into a loan of `bytes[start..]`.
    #[inline]
    pub fn lend(&mut self, frame: FrameId, start: u32) -> Loan {
        let len_all = self.len_of(frame);
        assert!(start <= len_all, "a loan starts behind the end of its frame");
        let entry = self.entry_mut(frame);
        assert!(entry.count > entry.loans, "a frame was lent without a count");
        entry.loans += 1;
        Loan { frame, start: NonNull::from(&entry.payload.bytes()[start as usize..]).cast(), len: len_all - start }
    }

    /// Ends a loan: its count is the caller's again (release it, or lend again from a later start).
    #[inline]
    pub fn give_back(&mut self, loan: Loan) -> FrameId {
        let entry = self.entry_mut(loan.frame);
        assert!(entry.loans > 0, "a loan came back to a frame that lent none");
        debug_assert!(entry.payload.bytes().as_ptr_range().end == loan.as_ptr().wrapping_add(loan.len as usize), "a loan of other bytes");
        entry.loans -= 1;
        loan.frame
    }

    /// Copies the frames one behind the other into a pooled buffer, which becomes a frame with a count of one (the caller's).
    /// `None` when the pool is used up, the store is full, or the sum is over [`SEND_BYTES_MAX`]. The frames' own counts stay as they are.
    pub fn gather(&mut self, frames: &[FrameId]) -> Option<FrameId> {
        if self.is_full() {
            return None;
        }
        let mut buffer = self.gathers.take()?;
        for &frame in frames {
            let bytes = self.bytes(frame);
            if buffer.len() + bytes.len() > SEND_BYTES_MAX {
                self.gathers.put(buffer);
                return None;
            }
            buffer.extend_from_slice(bytes);
        }
        Some(self.occupy(Payload::Gathered(buffer)))
    }

    /// Copies bytes into a pooled buffer, which becomes a frame with a count of one (the caller's). `None` as for [`FrameStore::gather`].
    pub fn insert_copy(&mut self, bytes: &[u8]) -> Option<FrameId> {
        if self.is_full() || bytes.len() > SEND_BYTES_MAX {
            return None;
        }
        let mut buffer = self.gathers.take()?;
        buffer.extend_from_slice(bytes);
        Some(self.occupy(Payload::Gathered(buffer)))
    }

    /// Gives the memory of idle gather buffers back, all but `keep`: for a shard that has nothing to do. `true` when there was any.
    pub fn trim(&mut self, keep: usize) -> bool {
        let more = self.gathers.idle.len() > keep;
        self.gathers.idle.truncate(keep);
        more
    }

    /// Frames held now (gathers among them), gather buffers in use now, payload bytes held now.
    pub fn usage(&self) -> Usage {
        Usage { frames: self.frames, gathers: self.gathers.used, bytes: self.bytes }
    }

    /// Payload bytes held now.
    #[inline]
    pub fn bytes_held(&self) -> u64 {
        self.bytes
    }

    fn is_full(&self) -> bool {
        self.free == NONE && self.entries.is_full()
    }

    #[inline]
    fn entry(&self, frame: FrameId) -> &Entry {
        let entry = self.entries.at(frame.slot());
        assert!(entry.id == frame && entry.count > 0, "a frame was used that is not held");
        entry
    }

    #[inline]
    fn entry_mut(&mut self, frame: FrameId) -> &mut Entry {
        let entry = self.entries.at_mut(frame.slot());
        assert!(entry.id == frame && entry.count > 0, "a frame was used that is not held");
        entry
    }

    /// Puts a payload into an entry, with a count of one. The store must not be full.
    fn occupy(&mut self, payload: Payload) -> FrameId {
        let len = payload.bytes().len();
        assert!(u32::try_from(len).is_ok(), "a payload has fewer than 2^32 bytes");
        self.frames += 1;
        self.bytes += len as u64;
        if self.free == NONE {
            let id = FrameId(self.entries.len());
            self.entries.push(Entry { id, count: 1, loans: 0, tag: 0, payload });
            return id;
        }
        let entry = self.entries.at_mut(self.free);
        let Payload::Vacant { next } = entry.payload else { unreachable!("an entry of the free list holds a payload") };
        self.free = next;
        entry.count = 1;
        entry.tag = 0;
        entry.payload = payload;
        entry.id
    }

    /// Takes the payload out of an entry whose count has come to zero.
    fn vacate(&mut self, frame: FrameId) {
        let entry = self.entries.at_mut(frame.slot());
        entry.id = frame.successor();
        let payload = std::mem::replace(&mut entry.payload, Payload::Vacant { next: self.free });
        self.free = frame.slot();
        self.frames -= 1;
        self.bytes -= payload.bytes().len() as u64;
        if let Payload::Gathered(buffer) = payload {
            self.gathers.put(buffer);
        }
    }
}

impl Drop for FrameStore {
    /// The kernel may still read what is lent: those payloads are leaked.
    fn drop(&mut self) {
        for entry in self.entries.iter_mut().filter(|entry| entry.loans > 0) {
            std::mem::forget(std::mem::replace(&mut entry.payload, Payload::Vacant { next: NONE }));
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub frames: u32,
    pub gathers: u32,
    pub bytes: u64,
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn store_of(texts: &[&'static str]) -> (FrameStore, Vec<FrameId>) {
        let mut store = FrameStore::new(64, 4);
        let frames = texts.iter().map(|text| store.insert(Bytes::from_static(text.as_bytes())).unwrap()).collect();
        (store, frames)
    }

    #[test]
    fn an_entry_is_at_most_a_cache_line() {
        assert!(size_of::<Entry>() <= 64);
    }

    #[test]
    fn a_fan_out_ends_when_its_last_recipient_releases() {
        let (mut store, frames) = store_of(&["hello"]);
        store.retain(frames[0], 3);
        store.release(frames[0]);
        for left in (0..3u32).rev() {
            assert_eq!(store.bytes(frames[0]), b"hello");
            store.release(frames[0]);
            assert_eq!(store.usage().frames, left.min(1));
        }
        assert_eq!(store.usage(), Usage::default());
    }

    #[test]
    fn full_gives_the_payload_back_until_a_frame_goes() {
        let mut store = FrameStore::new(2, 0);
        let first = store.insert(Bytes::from_static(b"a")).unwrap();
        store.insert(Bytes::from_static(b"bc")).unwrap();
        assert_eq!(store.insert(Bytes::from_static(b"d")), Err(Bytes::from_static(b"d")));
        assert_eq!(store.usage(), Usage { frames: 2, gathers: 0, bytes: 3 });
        store.release(first);
        assert!(store.insert(Bytes::from_static(b"d")).is_ok());
    }

    #[test]
    fn a_gather_holds_its_frames_one_behind_the_other() {
        let (mut store, frames) = store_of(&["one", "", "three"]);
        let gather = store.gather(&frames).unwrap();
        assert_eq!((store.bytes(gather), store.len_of(gather)), (&b"onethree"[..], 8));
        assert_eq!(store.usage(), Usage { frames: 4, gathers: 1, bytes: 16 });
        let nested = store.gather(&[gather, frames[0]]).unwrap();
        assert_eq!(store.bytes(nested), b"onethreeone");
    }

    #[test]
    fn a_gather_is_refused_when_the_pool_or_the_store_is_used_up_or_the_sum_too_large() {
        let mut store = FrameStore::new(5, 2);
        let large = store.insert(Bytes::from(vec![1; SEND_BYTES_MAX])).unwrap();
        let small = store.insert(Bytes::from_static(b"x")).unwrap();
        assert_eq!(store.gather(&[large, small]), None);
        let first = store.gather(&[large]).unwrap();
        store.gather(&[small]).unwrap();
        assert_eq!(store.gather(&[small]), None);
        store.release(first);
        let again = store.gather(&[small, small]).unwrap();
        assert_eq!(store.bytes(again), b"xx");
        store.release(again);
        store.insert(Bytes::new()).unwrap();
        store.insert(Bytes::new()).unwrap();
        assert_eq!((store.gather(&[small]), store.usage().gathers), (None, 1));
    }

    #[test]
    fn gather_buffers_are_used_again_and_trimmed_on_demand() {
        let (mut store, frames) = store_of(&["abc"]);
        let first = store.gather(&frames).unwrap();
        let place = store.bytes(first).as_ptr();
        store.release(first);
        let second = store.gather(&frames).unwrap();
        assert_eq!(store.bytes(second).as_ptr(), place);
        store.release(second);
        assert!(!store.trim(1));
        assert!(store.trim(0));
        assert_eq!((store.gathers.idle.len(), store.usage().gathers), (0, 0));
    }

    #[test]
    #[cfg(debug_assertions)]
    fn a_returned_gather_buffer_is_poisoned() {
        let mut pool = GatherPool { idle: Vec::new(), used: 0, used_max: 1 };
        let mut buffer = pool.take().unwrap();
        buffer.extend_from_slice(b"secret");
        pool.put(buffer);
        assert_eq!(pool.idle[0], [POISON; 6]);
        assert!(pool.take().is_some_and(|buffer| buffer.is_empty()));
    }

    #[test]
    fn a_loan_is_a_count_that_comes_back() {
        let (mut store, frames) = store_of(&["0123456789"]);
        store.retain(frames[0], 1);
        let whole = store.lend(frames[0], 0);
        let rest = store.lend(frames[0], 4);
        assert_eq!((whole.len(), rest.len(), rest.frame()), (10, 6, frames[0]));
        assert_eq!(rest.as_ptr(), store.bytes(frames[0])[4..].as_ptr());
        assert_eq!(store.give_back(rest), frames[0]);
        store.release(frames[0]);
        assert_eq!(store.bytes(frames[0]), b"0123456789");
        let frame = store.give_back(whole);
        store.release(frame);
        assert_eq!(store.usage(), Usage::default());
    }

    #[test]
    #[should_panic(expected = "lent or not held")]
    fn a_lent_count_cannot_be_released() {
        let (mut store, frames) = store_of(&["a"]);
        let _loan = store.lend(frames[0], 0);
        store.release(frames[0]);
    }

    #[test]
    #[should_panic(expected = "lent without a count")]
    fn a_count_cannot_be_lent_twice() {
        let (mut store, frames) = store_of(&["a"]);
        let _loan = store.lend(frames[0], 0);
        let _again = store.lend(frames[0], 0);
    }

    #[test]
    #[should_panic(expected = "not held")]
    fn an_id_kept_too_long_does_not_name_the_next_frame() {
        let (mut store, frames) = store_of(&["alice's"]);
        store.release(frames[0]);
        let next = store.insert(Bytes::from_static(b"bob's")).unwrap();
        assert_eq!(next.slot(), frames[0].slot());
        store.bytes(frames[0]);
    }

    #[test]
    #[should_panic(expected = "not held")]
    fn a_released_frame_cannot_be_retained() {
        let (mut store, frames) = store_of(&["a"]);
        store.release(frames[0]);
        store.retain(frames[0], 1);
    }

    #[test]
    #[should_panic(expected = "fewer holders")]
    fn a_count_does_not_overflow() {
        let (mut store, frames) = store_of(&["a"]);
        store.retain(frames[0], u32::MAX);
    }
}
