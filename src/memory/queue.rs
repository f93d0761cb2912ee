//! Out-queues: first-in first-out lists of 4-byte frame ids, in chunks of one cache line from a pool of the shard.
//!
//! [`QueuePool`] owns the chunks of all queues; a [`Queue`] is three words that say where its own begin and end. An empty queue holds no
//! chunk, so an idle session costs its 12 bytes. A frame id enters by `push` with one count of the frame store, and whoever takes it out
//! (`pop`, `drop_front`, `clear`) owes that count: the queues never touch the store.
//!
//! A queue belongs to the pool that it was first pushed with, and must be emptied before it is dropped: the pool has no list of queues, so
//! the chunks of a forgotten queue stay used. Chunks are recycled last in first out and never given back to the allocator.

use crate::memory::frames::FrameId;
use crate::memory::pages::Pages;

/// The word of a chunk that holds the number of the next one, behind 15 frame ids.
const LINK: u32 = 15;
/// Ends the list of free chunks.
const NONE: u32 = u32::MAX;
/// A place is a chunk's number and a word of it, 28 and 4 bits.
const WORD_BITS: u32 = 4;
const WORD_MASK: u32 = (1 << WORD_BITS) - 1;

/// One session's list: 12 bytes while it is empty, chunks from the pool while it is not.
#[derive(Debug, Default)]
pub struct Queue {
    /// Place of the oldest id, never a link. Means nothing while the queue is empty.
    head: u32,
    /// Place behind the youngest id: a link when the last chunk is full. Means nothing while the queue is empty.
    tail: u32,
    len: u32,
}

/// One cache line: ids 0 ..= 14, then the next chunk of the same queue (or of the free list).
#[derive(Debug)]
#[repr(align(64))]
struct Chunk([u32; 16]);

/// The chunks of all queues of a shard.
#[derive(Debug)]
pub struct QueuePool {
    chunks: Pages<Chunk>,
    free: u32,
    used: u32,
}

impl Queue {
    pub fn len(&self) -> u32 {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl QueuePool {
    /// A pool of at most `chunks_max` (<= 2^28) chunks of 64 bytes; they are allocated 1,024 at a time, when they are needed.
    pub fn new(chunks_max: u32) -> Self {
        assert!(chunks_max <= 1 << (32 - WORD_BITS), "a chunk's number has 28 bits");
        QueuePool { chunks: Pages::new(chunks_max), free: NONE, used: 0 }
    }

    /// Appends; a pool that is used up gives the frame back.
    #[inline]
    pub fn push(&mut self, queue: &mut Queue, frame: FrameId) -> Result<(), FrameId> {
        if queue.len == 0 {
            let Some(chunk) = self.take_chunk() else { return Err(frame) };
            queue.head = chunk << WORD_BITS;
            queue.tail = queue.head;
        } else if queue.tail & WORD_MASK == LINK {
            let Some(chunk) = self.take_chunk() else { return Err(frame) };
            *self.word(queue.tail) = chunk;
            queue.tail = chunk << WORD_BITS;
        }
        *self.word(queue.tail) = frame.0;
        queue.tail += 1;
        queue.len += 1;
        Ok(())
    }

    #[inline]
    pub fn pop(&mut self, queue: &mut Queue) -> Option<FrameId> {
        if queue.len == 0 {
            return None;
        }
        let frame = FrameId(*self.word(queue.head));
        self.skip(queue, 1);
        Some(frame)
    }

    /// Appends the frames at the front to `out`, while `take(frame)` says yes; removes nothing.
    pub fn peek_while(&self, queue: &Queue, out: &mut Vec<FrameId>, mut take: impl FnMut(FrameId) -> bool) {
        let (mut place, mut left) = (queue.head, queue.len);
        while left > 0 {
            let chunk = self.chunks.at(place >> WORD_BITS);
            let start = place & WORD_MASK;
            let end = LINK.min(start + left);
            for &word in &chunk.0[start as usize..end as usize] {
                if !take(FrameId(word)) {
                    return;
                }
                out.push(FrameId(word));
            }
            left -= end - start;
            place = chunk.0[LINK as usize] << WORD_BITS;
        }
    }

    /// Removes the first `count` (at most all).
    pub fn drop_front(&mut self, queue: &mut Queue, count: u32) {
        let mut left = count.min(queue.len);
        while left > 0 {
            let step = left.min(LINK - (queue.head & WORD_MASK));
            self.skip(queue, step);
            left -= step;
        }
    }

    /// Empties the queue and hands each frame to `each`, oldest first.
    pub fn clear(&mut self, queue: &mut Queue, mut each: impl FnMut(FrameId)) {
        while let Some(frame) = self.pop(queue) {
            each(frame);
        }
    }

    /// Chunks in use.
    pub fn used(&self) -> u32 {
        self.used
    }

    /// Moves the head over `count` ids of its own chunk (1 ..= what is left of it), and frees the chunk when it has none left.
    #[inline]
    fn skip(&mut self, queue: &mut Queue, count: u32) {
        queue.head += count;
        queue.len -= count;
        let chunk = queue.head >> WORD_BITS;
        if queue.len == 0 {
            self.free_chunk(chunk);
        } else if queue.head & WORD_MASK == LINK {
            queue.head = *self.word(queue.head) << WORD_BITS;
            self.free_chunk(chunk);
        }
    }

    #[inline]
    fn word(&mut self, place: u32) -> &mut u32 {
        &mut self.chunks.at_mut(place >> WORD_BITS).0[(place & WORD_MASK) as usize]
    }

    fn take_chunk(&mut self) -> Option<u32> {
        let chunk = if self.free != NONE {
            let chunk = self.free;
            self.free = self.chunks.at(chunk).0[LINK as usize];
            chunk
        } else if self.chunks.is_full() {
            return None;
        } else {
            self.chunks.push(Chunk([0; 16]))
        };
        self.used += 1;
        Some(chunk)
    }

    fn free_chunk(&mut self, chunk: u32) {
        self.chunks.at_mut(chunk).0[LINK as usize] = self.free;
        self.free = chunk;
        self.used -= 1;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn filled(pool: &mut QueuePool, count: u32) -> Queue {
        let mut queue = Queue::default();
        for i in 0..count {
            pool.push(&mut queue, FrameId(i)).unwrap();
        }
        queue
    }

    #[test]
    fn a_queue_is_twelve_bytes_and_a_chunk_one_cache_line() {
        assert_eq!(size_of::<Queue>(), 12);
        assert_eq!((size_of::<Chunk>(), align_of::<Chunk>()), (64, 64));
    }

    #[test]
    fn an_empty_queue_holds_no_chunk() {
        let mut pool = QueuePool::new(8);
        for count in [1, 14, 15, 16, 30, 31, 120] {
            let mut queue = filled(&mut pool, count);
            assert_eq!(pool.used(), count.div_ceil(15));
            for i in 0..count {
                assert_eq!(pool.pop(&mut queue), Some(FrameId(i)));
            }
            assert_eq!((pool.pop(&mut queue), pool.used()), (None, 0));
        }
    }

    #[test]
    fn a_used_up_pool_gives_the_frame_back_and_harms_no_queue() {
        let mut pool = QueuePool::new(2);
        let mut full = filled(&mut pool, 30);
        let mut other = Queue::default();
        assert_eq!(pool.push(&mut full, FrameId(99)), Err(FrameId(99)));
        assert_eq!(pool.push(&mut other, FrameId(98)), Err(FrameId(98)));
        assert_eq!((full.len(), other.len()), (30, 0));
        pool.drop_front(&mut full, 15);
        assert_eq!(pool.push(&mut other, FrameId(98)), Ok(()));
        let mut rest = Vec::new();
        pool.clear(&mut full, |frame| rest.push(frame.0));
        assert_eq!(rest, (15..30).collect::<Vec<_>>());
        assert_eq!((pool.pop(&mut other), pool.used()), (Some(FrameId(98)), 0));
    }

    #[test]
    fn peeking_stops_at_the_first_no_and_removes_nothing() {
        let mut pool = QueuePool::new(8);
        let mut queue = filled(&mut pool, 40);
        pool.drop_front(&mut queue, 3);
        let mut out = vec![FrameId(7)];
        pool.peek_while(&queue, &mut out, |frame| frame.0 < 33);
        assert_eq!(out, std::iter::once(7).chain(3..33).map(FrameId).collect::<Vec<_>>());
        assert_eq!(queue.len(), 37);
        pool.drop_front(&mut queue, 1_000);
        assert_eq!((queue.len(), pool.used()), (0, 0));
    }
}
