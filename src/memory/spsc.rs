//! A bounded single-producer single-consumer queue whose ends cannot be cloned.
//!
//! One lane of the mesh: a shard that sends moves its outbox in by [`Producer::push_from`], once a turn, and the shard that receives takes a
//! bounded number out by [`Consumer::drain`]. Neither end ever waits or allocates: what does not fit stays with the sender, in order. An end
//! that is dropped is not noticed by the other one (a shard that ends takes the process with it); what is left in the queue goes with the last end.
//!
//! It rings no bell. An end that wants to sleep announces it, passes a sequentially consistent fence, and asks [`Consumer::is_empty`] once more.
//!
//! The ring buffer is `rtrb`'s. glommio's `spsc_queue`, measured beside it with items of 72 bytes (`RINGROOM_BENCH=long cargo bench --bench
//! spsc`), has no batches: each item is published by itself. In batches of 64, as a shard under load sends them, it takes 1.9 times as long
//! across two cores (31 against 16 ns an item) and 1.7 times within one. Items one at a time in an endless stream are its strong side (0.7 times,
//! 48 against 66 ns: flag and item share a line), but a lane that busy has batches. Its ends can also be cloned, which makes a second producer easy.

use std::collections::VecDeque;

#[derive(Debug)]
pub struct Producer<T>(rtrb::Producer<T>);

#[derive(Debug)]
pub struct Consumer<T>(rtrb::Consumer<T>);

/// A queue of `capacity` places, all of its memory allocated now.
pub fn channel<T>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    let (producer, consumer) = rtrb::RingBuffer::new(capacity);
    (Producer(producer), Consumer(consumer))
}

impl<T> Producer<T> {
    /// Moves from the front of `items` as many as fit, publishes them with one store, and says how many.
    pub fn push_from(&mut self, items: &mut VecDeque<T>) -> usize {
        // The other end's line is only read when what was free at the last look does not suffice.
        let free = if self.0.cached_slots() >= items.len() { items.len() } else { self.0.slots() };
        let count = free.min(items.len());
        if count == 0 {
            return 0;
        }
        let chunk = self.0.write_chunk_uninit(count).expect("that many places are free, and only this end takes them");
        chunk.fill_from_iter(items.drain(..count))
    }

    /// Whether `count` items fit. Cheaper than [`Producer::free`]: the other end's line is only read when the last look does not say yes.
    pub fn has_room(&self, count: usize) -> bool {
        self.0.cached_slots() >= count || self.0.slots() >= count
    }

    /// Free places, at least.
    pub fn free(&self) -> usize {
        self.0.slots()
    }
}

impl<T> Consumer<T> {
    pub fn pop(&mut self) -> Option<T> {
        self.0.pop().ok()
    }

    /// The items that are there, at most `count` of them. Their places are freed with one store when the iterator is dropped; what it was not
    /// asked for stays in the queue.
    #[inline]
    pub fn drain(&mut self, count: usize) -> impl ExactSizeIterator<Item = T> {
        let there = if self.0.cached_slots() >= count { count } else { self.0.slots().min(count) };
        self.0.read_chunk(there).expect("that many items are there, and only this end takes them").into_iter()
    }

    /// Nothing is there to be taken, as far as this thread can see.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_stays_in_order_with_the_sender() {
        let (mut producer, mut consumer) = channel(4);
        let mut items: VecDeque<u32> = (0..6).collect();
        assert_eq!(producer.push_from(&mut items), 4);
        assert_eq!((producer.free(), producer.push_from(&mut items)), (0, 0));
        assert_eq!(items, [4, 5]);
        assert!(!producer.has_room(1));
        assert_eq!(consumer.pop(), Some(0));
        assert!(producer.has_room(1) && !producer.has_room(2));
        assert_eq!(producer.push_from(&mut items), 1);
        assert_eq!(std::iter::from_fn(|| consumer.pop()).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert!(consumer.is_empty());
        assert_eq!(producer.free(), 4);
    }
}
