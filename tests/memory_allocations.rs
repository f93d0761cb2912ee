//! After warm-up the structures of a shard allocate nothing, whatever the traffic does within what it has done before.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(unsafe_code, reason = "an allocator that counts is an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::VecDeque;

use bytes::Bytes;
use ringroom::ids::Key;
use ringroom::memory::frames::FrameStore;
use ringroom::memory::queue::{Queue, QueuePool};
use ringroom::memory::slab::Slab;
use ringroom::memory::spsc;
use ringroom::memory::wheel::Wheel;

/// The system's allocator, which counts per thread (the test's own thread is the only one of interest).
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call is handed to the system's allocator as it came, and its answer is handed back; counting touches no memory of either.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps `alloc`'s contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System.alloc` with this layout, for `alloc` above is the only source.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SESSIONS: u32 = 1_500;

struct Shard {
    slab: Slab<[u64; 20]>,
    keys: Vec<Key>,
    frames: FrameStore,
    pool: QueuePool,
    queues: Vec<Queue>,
    list: Vec<ringroom::memory::frames::FrameId>,
    wheel: Wheel,
    expired: Vec<u32>,
    outbox: VecDeque<Bytes>,
    mesh: (spsc::Producer<Bytes>, spsc::Consumer<Bytes>),
    payload: Bytes,
    now_ns: u64,
}

impl Shard {
    fn new() -> Self {
        Shard {
            slab: Slab::new(SESSIONS),
            keys: Vec::new(),
            frames: FrameStore::new(10_000, 4),
            pool: QueuePool::new(10_000),
            queues: (0..SESSIONS).map(|_| Queue::default()).collect(),
            list: Vec::new(),
            wheel: Wheel::new(1_000_000, 0),
            expired: Vec::new(),
            outbox: VecDeque::new(),
            mesh: spsc::channel(64),
            payload: Bytes::from(vec![1; 200]),
            now_ns: 0,
        }
    }

    /// Sessions come, messages arrive over the mesh and fan out, deadlines are set and run out, sessions go.
    fn round(&mut self) {
        for i in 0..SESSIONS {
            let key = self.slab.insert([u64::from(i); 20]).unwrap();
            self.wheel.schedule(key.slot, self.now_ns + u64::from(i) * 2_000_000);
            self.keys.push(key);
        }
        for _ in 0..20 {
            self.outbox.push_back(self.payload.clone());
        }
        self.mesh.0.push_from(&mut self.outbox);
        for payload in self.mesh.1.drain(64) {
            let frame = self.frames.insert(payload).unwrap();
            for queue in &mut self.queues {
                self.pool.push(queue, frame).unwrap();
            }
            self.frames.retain(frame, SESSIONS);
            self.frames.release(frame);
        }
        for queue in &mut self.queues {
            self.list.clear();
            self.pool.peek_while(queue, &mut self.list, |_| true);
            let gather = self.frames.gather(&self.list).unwrap();
            self.pool.drop_front(queue, u32::MAX);
            self.list.iter().for_each(|frame| self.frames.release(*frame));
            let loan = self.frames.lend(gather, 0);
            let gather = self.frames.give_back(loan);
            self.frames.release(gather);
        }
        self.now_ns += 4_000_000_000;
        while self.wheel.advance(self.now_ns, 100, &mut self.expired) {}
        assert_eq!(self.expired.drain(..).count(), SESSIONS as usize);
        self.keys.drain(..).for_each(|key| assert!(self.slab.remove(key).is_some()));
        assert_eq!((self.frames.usage().frames, self.pool.used()), (0, 0));
    }
}

#[test]
fn a_warm_shard_allocates_nothing() {
    let mut shard = Shard::new();
    shard.round();
    let before = ALLOCATIONS.with(Cell::get);
    assert!(before > 0, "the counter does not count");
    for _ in 0..5 {
        shard.round();
    }
    assert_eq!(ALLOCATIONS.with(Cell::get), before);
}
