//! The queue between two shards: `rtrb` against glommio's `spsc_queue`, across two threads and within one.
//!
//! The thread that sends fills an outbox of a batch, as a shard does in a turn, and offers it until it is empty; the one that receives adds
//! up what it sees and checks the order. Both kinds are kept here so that the choice in `memory::spsc` can be looked at again.
//! The queues' ends spin, then yield: with fewer than two free cores the streams measure the scheduler.

mod support;

use std::collections::VecDeque;
use std::sync::Barrier;

use glommio::channels::spsc_queue;
use ringroom::memory::spsc;

use support::{Clock, Group, Mode, mix};

/// The size of an envelope between shards.
struct Item {
    sequence: u64,
    words: [u64; 8],
}

const _: () = assert!(size_of::<Item>() == 72);

impl Item {
    fn new(sequence: u64) -> Self {
        Item { sequence, words: [sequence; 8] }
    }
}

const CAPACITY: usize = 1_024;

/// How many items, and how many of them a turn of the sender.
#[derive(Clone, Copy)]
struct Shape {
    items: u64,
    batch: u64,
}

/// What the receiver saw.
#[derive(Default)]
struct Seen {
    count: u64,
    hash: u64,
}

impl Seen {
    #[inline]
    fn add(&mut self, item: &Item) {
        assert_eq!(item.sequence, self.count, "items change their order");
        self.hash = mix(self.hash, item.words[7]);
        self.count += 1;
    }
}

/// Spins a little, then lets others run.
#[derive(Default)]
struct Patience(u32);

impl Patience {
    fn wait(&mut self) {
        self.0 += 1;
        if self.0.is_multiple_of(128) {
            std::thread::yield_now();
        } else {
            std::hint::spin_loop();
        }
    }
}

/// One end sends from its outbox in a thread of its own, the other receives here. `send` moves what fits, `receive` adds what is there.
fn across_threads<S, R>(clock: &mut Clock, shape: Shape, (mut send, mut receive): (S, R)) -> u64
where
    S: FnMut(&mut VecDeque<Item>) + Send,
    R: FnMut(&mut Seen),
{
    let barrier = Barrier::new(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut outbox = VecDeque::new();
            let mut patience = Patience::default();
            barrier.wait();
            for start in (0..shape.items).step_by(usize::try_from(shape.batch).expect("a batch is small")) {
                outbox.extend((start..(start + shape.batch).min(shape.items)).map(Item::new));
                loop {
                    send(&mut outbox);
                    if outbox.is_empty() {
                        break;
                    }
                    patience.wait();
                }
            }
        });
        let mut seen = Seen::default();
        let mut patience = Patience::default();
        barrier.wait();
        clock.time(|| {
            while seen.count < shape.items {
                let before = seen.count;
                receive(&mut seen);
                if seen.count == before {
                    patience.wait();
                }
            }
        });
        seen.hash
    })
}

/// The same within one thread: what the instructions cost, without any cache line that travels.
fn one_thread<S, R>(clock: &mut Clock, shape: Shape, (mut send, mut receive): (S, R)) -> u64
where
    S: FnMut(&mut VecDeque<Item>),
    R: FnMut(&mut Seen),
{
    let mut seen = Seen::default();
    let mut outbox = VecDeque::new();
    clock.time(|| {
        while seen.count < shape.items {
            outbox.extend((seen.count..(seen.count + shape.batch).min(shape.items)).map(Item::new));
            send(&mut outbox);
            receive(&mut seen);
        }
    });
    seen.hash
}

/// `memory::spsc`: a batch is published with one store and received with one store.
fn kept() -> (impl FnMut(&mut VecDeque<Item>) + Send, impl FnMut(&mut Seen)) {
    let (mut producer, mut consumer) = spsc::channel::<Item>(CAPACITY);
    (
        move |outbox: &mut VecDeque<Item>| {
            producer.push_from(outbox);
        },
        move |seen: &mut Seen| {
            for item in consumer.drain(256) {
                seen.add(&item);
            }
        },
    )
}

/// `memory::spsc`, received one by one.
fn kept_pop() -> (impl FnMut(&mut VecDeque<Item>) + Send, impl FnMut(&mut Seen)) {
    let (mut producer, mut consumer) = spsc::channel::<Item>(CAPACITY);
    (
        move |outbox: &mut VecDeque<Item>| {
            producer.push_from(outbox);
        },
        move |seen: &mut Seen| {
            for item in std::iter::from_fn(|| consumer.pop()).take(256) {
                seen.add(&item);
            }
        },
    )
}

fn rtrb_per_item() -> (impl FnMut(&mut VecDeque<Item>) + Send, impl FnMut(&mut Seen)) {
    let (mut producer, mut consumer) = rtrb::RingBuffer::<Item>::new(CAPACITY);
    (
        move |outbox: &mut VecDeque<Item>| {
            while let Some(item) = outbox.pop_front() {
                if let Err(rtrb::PushError::Full(item)) = producer.push(item) {
                    outbox.push_front(item);
                    return;
                }
            }
        },
        move |seen: &mut Seen| {
            for item in std::iter::from_fn(|| consumer.pop().ok()).take(256) {
                seen.add(&item);
            }
        },
    )
}

/// It has no batches: each item is published, and each is freed, with a store of its own.
fn glommio_per_item() -> (impl FnMut(&mut VecDeque<Item>) + Send, impl FnMut(&mut Seen)) {
    let (producer, consumer) = spsc_queue::make::<Item>(CAPACITY);
    (
        move |outbox: &mut VecDeque<Item>| {
            while let Some(item) = outbox.pop_front() {
                if let Some(item) = producer.try_push(item) {
                    outbox.push_front(item);
                    return;
                }
            }
        },
        move |seen: &mut Seen| {
            for item in std::iter::from_fn(|| consumer.try_pop()).take(256) {
                seen.add(&item);
            }
        },
    )
}

fn main() {
    let items = Mode::get().pick(20_000, 2_000_000);
    for batch in [1, 64] {
        let shape = Shape { items, batch };
        let parameters = format!("items={items} item_bytes={} batch={batch} capacity={CAPACITY}", size_of::<Item>());
        Group::new("spsc.across_threads", parameters.clone())
            .same_result()
            .case("memory::spsc", items, |clock| across_threads(clock, shape, kept()))
            .case("memory::spsc, one pop an item", items, |clock| across_threads(clock, shape, kept_pop()))
            .case("rtrb, one push and pop an item", items, |clock| across_threads(clock, shape, rtrb_per_item()))
            .case("glommio spsc_queue", items, |clock| across_threads(clock, shape, glommio_per_item()))
            .run();
        Group::new("spsc.one_thread", parameters)
            .same_result()
            .case("memory::spsc", items, |clock| one_thread(clock, shape, kept()))
            .case("memory::spsc, one pop an item", items, |clock| one_thread(clock, shape, kept_pop()))
            .case("rtrb, one push and pop an item", items, |clock| one_thread(clock, shape, rtrb_per_item()))
            .case("glommio spsc_queue", items, |clock| one_thread(clock, shape, glommio_per_item()))
            .run();
    }
}
