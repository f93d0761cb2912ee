//! Queues of a pool behave as one deque each, and the pool holds exactly the chunks that they need.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod memory_random;

use std::collections::VecDeque;

use memory_random::{Random, for_each_seed};
use ringroom::memory::frames::FrameId;
use ringroom::memory::queue::{Queue, QueuePool};

const IDS_A_CHUNK: u32 = 15;

#[derive(Default)]
struct Both {
    queue: Queue,
    model: VecDeque<FrameId>,
    /// Ids that were taken out of the first chunk since the queue was last empty.
    taken: u32,
}

impl Both {
    fn chunks(&self) -> u32 {
        if self.model.is_empty() { 0 } else { (self.taken + self.queue.len()).div_ceil(IDS_A_CHUNK) }
    }

    fn needs_a_chunk(&self) -> bool {
        self.model.is_empty() || (self.taken + self.queue.len()).is_multiple_of(IDS_A_CHUNK)
    }

    fn took(&mut self, count: u32) {
        self.taken = if self.model.is_empty() { 0 } else { (self.taken + count) % IDS_A_CHUNK };
    }
}

fn push(pool: &mut QueuePool, both: &mut Both, (frame, chunks_max): (FrameId, u32)) {
    let fits = !both.needs_a_chunk() || pool.used() < chunks_max;
    assert_eq!(pool.push(&mut both.queue, frame), if fits { Ok(()) } else { Err(frame) });
    if fits {
        both.model.push_back(frame);
    }
}

fn take(pool: &mut QueuePool, both: &mut Both, random: &mut Random) {
    match random.below(20) {
        0 => {
            let mut cleared = Vec::new();
            pool.clear(&mut both.queue, |frame| cleared.push(frame));
            assert_eq!(cleared, both.model.drain(..).collect::<Vec<_>>());
            both.took(0);
        }
        1..8 => {
            let count = random.below_u32(40);
            pool.drop_front(&mut both.queue, count);
            let count = both.model.len().min(count as usize);
            both.model.drain(..count);
            both.took(u32::try_from(count).unwrap());
        }
        _ => {
            let frame = both.model.pop_front();
            assert_eq!(pool.pop(&mut both.queue), frame);
            both.took(u32::from(frame.is_some()));
        }
    }
}

fn peek(pool: &QueuePool, both: &Both, random: &mut Random) {
    let limit = random.next() & 0xFFFF_FFFF;
    let mut out = Vec::new();
    pool.peek_while(&both.queue, &mut out, |frame| u64::from(frame.0) < limit);
    let expected: Vec<FrameId> = both.model.iter().copied().take_while(|frame| u64::from(frame.0) < limit).collect();
    assert_eq!(out, expected);
}

#[test]
fn queues_are_deques_and_the_pool_holds_the_chunks_they_need() {
    for_each_seed(20, |random| {
        let chunks_max = 1 + random.below_u32(1_500);
        let mut pool = QueuePool::new(chunks_max);
        let mut all: Vec<Both> = (0..1 + random.below(120)).map(|_| Both::default()).collect();
        for _ in 0..6 {
            let pushes = 20 + random.below(70);
            for _ in 0..4_000 {
                let place = random.index(all.len());
                let frame = FrameId(random.next().to_le_bytes()[..4].try_into().map(u32::from_le_bytes).unwrap());
                match random.below(100) {
                    roll if roll < pushes => push(&mut pool, &mut all[place], (frame, chunks_max)),
                    roll if roll < 95 => take(&mut pool, &mut all[place], random),
                    _ => peek(&pool, &all[place], random),
                }
                assert_eq!(all[place].queue.len() as usize, all[place].model.len());
            }
            assert_eq!(pool.used(), all.iter().map(Both::chunks).sum::<u32>());
        }
        for both in &mut all {
            pool.clear(&mut both.queue, |_| {});
        }
        assert_eq!(pool.used(), 0);
    });
}
