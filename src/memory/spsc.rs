//! A bounded single-producer single-consumer queue whose ends cannot be cloned.

use std::collections::VecDeque;

#[derive(Debug)]
pub struct Producer<T>(rtrb::Producer<T>);

#[derive(Debug)]
pub struct Consumer<T>(rtrb::Consumer<T>);

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

    /// Free places, at least.
    pub fn free(&self) -> usize {
        self.0.slots()
    }
}

impl<T> Consumer<T> {
    pub fn pop(&mut self) -> Option<T> {
        self.0.pop().ok()
    }

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
        assert_eq!(consumer.pop(), Some(0));
        assert_eq!(producer.push_from(&mut items), 1);
        assert_eq!(std::iter::from_fn(|| consumer.pop()).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert!(consumer.is_empty());
        assert_eq!(producer.free(), 4);
    }
}
