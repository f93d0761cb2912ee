//! Out-queues: first-in first-out lists of 4-byte frame ids, in chunks of one cache line from a pool of the shard.

use crate::memory::frames::FrameId;

/// One session's list: 12 bytes while it is empty, chunks from the pool while it is not.
#[derive(Debug, Default)]
pub struct Queue {
    _x: u32,
}

/// The chunks of all queues of a shard.
#[derive(Debug)]
pub struct QueuePool {}

impl Queue {
    pub fn len(&self) -> u32 {
        unimplemented!()
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl QueuePool {
    pub fn new(chunks_max: u32) -> Self {
        let _ = chunks_max;
        unimplemented!()
    }
    /// Appends; a pool that is used up gives the frame back.
    pub fn push(&mut self, queue: &mut Queue, frame: FrameId) -> Result<(), FrameId> {
        let _ = (queue, frame);
        unimplemented!()
    }
    pub fn pop(&mut self, queue: &mut Queue) -> Option<FrameId> {
        let _ = queue;
        unimplemented!()
    }
    /// Appends the frames at the front to `out`, while `take(frame)` says yes; removes nothing.
    pub fn peek_while(&self, queue: &Queue, out: &mut Vec<FrameId>, take: impl FnMut(FrameId) -> bool) {
        let _ = (queue, out, take);
        unimplemented!()
    }
    /// Removes the first `count` (at most all).
    pub fn drop_front(&mut self, queue: &mut Queue, count: u32) {
        let _ = (queue, count);
        unimplemented!()
    }
    /// Chunks in use.
    pub fn used(&self) -> u32 {
        unimplemented!()
    }
}
