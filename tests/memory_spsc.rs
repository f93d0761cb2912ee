//! What one thread puts into the queue, another takes out: all of it, once, in order.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod memory_random;

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use memory_random::for_each_seed;
use ringroom::memory::spsc;

/// On the heap, so that an item lost or taken twice is a leak or a double free.
type Item = Arc<u64>;

const ITEMS: u64 = 5_000;
/// Far above what the test takes: a lost item must not hang it.
const DEADLINE: Duration = Duration::from_secs(60);

#[test]
fn all_items_cross_once_and_in_order() {
    for_each_seed(10, |random| {
        let capacity = 1 + random.index(200);
        let (mut producer, mut consumer) = spsc::channel::<Item>(capacity);
        let (batch_max, drain_max) = (1 + random.below(300), 1 + random.index(300));
        let mut batches = Vec::new();
        while batches.iter().sum::<u64>() < ITEMS {
            batches.push(1 + random.below(batch_max));
        }
        let count: u64 = batches.iter().sum();
        let start = Instant::now();
        let sender = thread::spawn(move || {
            let (mut next, mut outbox) = (0, VecDeque::new());
            for batch in batches {
                outbox.extend((next..next + batch).map(Arc::new));
                next += batch;
                while !outbox.is_empty() {
                    assert!(start.elapsed() < DEADLINE, "the queue takes no more");
                    let (free, before) = (producer.free(), outbox.len());
                    let moved = producer.push_from(&mut outbox);
                    assert!(moved >= free.min(before) && moved <= capacity && outbox.len() == before - moved);
                    if moved == 0 {
                        thread::yield_now();
                    }
                }
            }
        });
        let mut seen = 0;
        let mut see = |item: Item| {
            assert_eq!(*item, seen);
            assert_eq!(Arc::strong_count(&item), 1);
            seen += 1;
            seen
        };
        let mut last = 0;
        while last < count {
            assert!(start.elapsed() < DEADLINE, "items are missing");
            if random.below(2) == 0 {
                consumer.drain(drain_max).for_each(|item| last = see(item));
            } else if let Some(item) = consumer.pop() {
                last = see(item);
            } else {
                thread::yield_now();
            }
        }
        sender.join().unwrap();
        assert!(consumer.is_empty() && consumer.pop().is_none());
    });
}

#[test]
fn what_is_left_in_the_queue_is_dropped_with_it() {
    let item = Arc::new(7);
    let (mut producer, mut consumer) = spsc::channel::<Item>(8);
    let mut items: VecDeque<Item> = (0..6).map(|_| Arc::clone(&item)).collect();
    assert_eq!(producer.push_from(&mut items), 6);
    // A drain that is not finished leaves the rest.
    assert_eq!(consumer.drain(4).take(2).count(), 2);
    assert_eq!(Arc::strong_count(&item), 5);
    drop(producer);
    assert_eq!(consumer.pop().as_deref(), Some(&7));
    drop(consumer);
    assert_eq!(Arc::strong_count(&item), 1);
}
