//! The frame store of a shard: payload bytes with a non-atomic count, named by 4-byte ids.

use bytes::Bytes;

/// A frame of this shard's store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FrameId(pub u32);

/// Bytes lent to the kernel: the store keeps them where they are until [`FrameStore::give_back`].
///
/// Neither `Clone` nor constructible elsewhere: one value is one count in the store. Dropping it without giving it back leaks the frame,
/// never frees it.
#[derive(Debug)]
#[must_use]
pub struct Loan {
    frame: FrameId,
    start: *const u8,
    len: u32,
}

impl Loan {
    pub fn frame(&self) -> FrameId {
        self.frame
    }
    pub fn as_ptr(&self) -> *const u8 {
        self.start
    }
    pub fn len(&self) -> u32 {
        self.len
    }
}

#[derive(Debug)]
pub struct FrameStore {}

impl FrameStore {
    /// A store of at most `frames_max` frames and `gathers_max` gather buffers of [`crate::limits::SEND_BYTES_MAX`] bytes.
    pub fn new(frames_max: u32, gathers_max: u32) -> Self {
        let _ = (frames_max, gathers_max);
        unimplemented!()
    }
    /// Takes a payload (header included) with a count of one, the caller's own, to be released by it; full gives it back.
    pub fn insert(&mut self, bytes: Bytes) -> Result<FrameId, Bytes> {
        let _ = bytes;
        unimplemented!()
    }
    /// Adds `count` to the frame's count.
    pub fn retain(&mut self, frame: FrameId, count: u32) {
        let _ = (frame, count);
        unimplemented!()
    }
    /// Takes one from the frame's count; the payload goes when none is left.
    pub fn release(&mut self, frame: FrameId) {
        let _ = frame;
        unimplemented!()
    }
    pub fn bytes(&self, frame: FrameId) -> &[u8] {
        let _ = frame;
        unimplemented!()
    }
    /// Moves one of the caller's counts into a loan of `bytes[start..]`.
    pub fn lend(&mut self, frame: FrameId, start: u32) -> Loan {
        let _ = (frame, start);
        unimplemented!()
    }
    /// Ends a loan: its count is the caller's again (release it, or lend again from a later start).
    pub fn give_back(&mut self, loan: Loan) -> FrameId {
        let _ = loan;
        unimplemented!()
    }
    /// Copies the frames one behind the other into a pooled buffer, which becomes a frame with a count of one (the caller's).
    /// `None` when the pool is used up or the sum is over [`crate::limits::SEND_BYTES_MAX`].
    pub fn gather(&mut self, frames: &[FrameId]) -> Option<FrameId> {
        let _ = frames;
        unimplemented!()
    }
    /// Frames held now, gather buffers held now, payload bytes held now.
    pub fn usage(&self) -> Usage {
        unimplemented!()
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub frames: u32,
    pub gathers: u32,
    pub bytes: u64,
}
