//! The structures of a shard, each against what it stands in for: a boxed task a connection, a counted payload a recipient, a deque a
//! session, a tree of deadlines.

mod support;

use std::cell::Cell;
use std::collections::{BTreeSet, VecDeque};
use std::future::Future;
use std::hint::black_box;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use ringroom::ids::Key;
use ringroom::memory::frames::{FrameId, FrameStore};
use ringroom::memory::queue::{Queue, QueuePool};
use ringroom::memory::slab::Slab;
use ringroom::memory::wheel::Wheel;

use support::{Clock, Group, Mode, Random, mix};

const MS: u64 = 1_000_000;

/// Sessions of a shard in these benches.
fn sessions() -> u32 {
    Mode::get().pick(2_000, 15_000)
}

/// What a connection keeps: of the size of the real one.
struct Connection {
    events: u64,
    bytes: u64,
    rest: [u64; 22],
}

impl Connection {
    fn new(seed: u64) -> Self {
        Connection { events: 0, bytes: seed, rest: [seed; 22] }
    }

    /// One event: reads and writes at both ends of the state.
    #[inline]
    fn handle(&mut self, event: u64) -> u64 {
        self.events += 1;
        self.bytes += event;
        self.rest[21] ^= self.bytes;
        self.rest[21]
    }
}

/// The same connection as a task on the heap: an event is a poll through its vtable.
struct Task {
    connection: Connection,
    event: Rc<Cell<u64>>,
    answer: Rc<Cell<u64>>,
}

impl Future for Task {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        let event = self.event.get();
        let answer = self.connection.handle(event);
        self.answer.set(answer);
        Poll::Pending
    }
}

type BoxedTask = Pin<Box<dyn Future<Output = ()>>>;

/// Connections as tasks, with the mailbox that they share.
struct Tasks {
    tasks: Vec<BoxedTask>,
    event: Rc<Cell<u64>>,
    answer: Rc<Cell<u64>>,
}

impl Tasks {
    fn new(count: u32) -> Self {
        let mut all = Tasks { tasks: Vec::new(), event: Rc::default(), answer: Rc::default() };
        for i in 0..count {
            let task = all.task(u64::from(i));
            all.tasks.push(task);
        }
        all
    }

    fn task(&self, seed: u64) -> BoxedTask {
        Box::pin(Task { connection: Connection::new(seed), event: Rc::clone(&self.event), answer: Rc::clone(&self.answer) })
    }
}

fn filled_slab(count: u32) -> (Slab<Connection>, Vec<Key>) {
    let mut slab = Slab::new(1 << 20);
    let keys = (0..count).map(|i| slab.insert(Connection::new(u64::from(i))).ok().expect("the slab has room")).collect();
    (slab, keys)
}

/// `count` slots in random order, the same each time.
fn random_slots(count: u32) -> Vec<u32> {
    let mut random = Random(7);
    (0..count).map(|_| random.below(sessions())).collect()
}

fn slab_event() {
    let events = Mode::get().pick(50_000, 2_000_000);
    let slots = random_slots(events);
    let parameters = format!("sessions={} state_bytes={} events={events} order=random", sessions(), size_of::<Connection>());
    Group::new("slab.event", parameters)
        .same_result()
        .case("slab", u64::from(events), |clock| {
            let (mut slab, keys) = filled_slab(sessions());
            clock.time(|| {
                let mut hash = 0u64;
                for &slot in &slots {
                    let connection = slab.get_mut(keys[slot as usize]).expect("the key is good");
                    hash = hash.wrapping_add(connection.handle(u64::from(slot)));
                }
                hash
            })
        })
        .case("boxed task", u64::from(events), |clock| {
            let mut all = Tasks::new(sessions());
            let mut context = Context::from_waker(Waker::noop());
            clock.time(|| {
                let mut hash = 0u64;
                for &slot in &slots {
                    all.event.set(u64::from(slot));
                    let _ = all.tasks[slot as usize].as_mut().poll(&mut context);
                    hash = hash.wrapping_add(all.answer.get());
                }
                hash
            })
        })
        .run();
}

/// Connections come and go: each step one random connection ends and another begins.
fn slab_churn() {
    let steps = Mode::get().pick(20_000, 1_000_000);
    let slots = random_slots(steps);
    Group::new("slab.churn", format!("sessions={} state_bytes={} steps={steps}", sessions(), size_of::<Connection>()))
        .same_result()
        .case("slab", u64::from(steps), |clock| {
            let (mut slab, mut keys) = filled_slab(sessions());
            clock.time(|| {
                let mut hash = 0;
                for &slot in &slots {
                    let gone = slab.remove(keys[slot as usize]).expect("the key is good");
                    hash = mix(hash, gone.rest[20]);
                    keys[slot as usize] = slab.insert(Connection::new(hash)).ok().expect("a slot was freed");
                }
                hash
            })
        })
        .case("boxed task", u64::from(steps), |clock| {
            let mut all = Tasks::new(sessions());
            let mut seeds: Vec<u64> = (0..u64::from(sessions())).collect();
            clock.time(|| {
                let mut hash = 0;
                for &slot in &slots {
                    hash = mix(hash, seeds[slot as usize]);
                    seeds[slot as usize] = hash;
                    all.tasks[slot as usize] = all.task(hash);
                }
                hash
            })
        })
        .run();
}

const RECIPIENTS: u32 = 100;
const FRAME_BYTES: usize = 230;

/// One message to 100 recipients: what holds its payload until the last send is over.
fn frames_fan_out() {
    let messages = Mode::get().pick(1_000, 50_000);
    let deliveries = u64::from(messages * RECIPIENTS);
    let payload = Bytes::from(vec![7; FRAME_BYTES]);
    Group::new("frames.fan_out", format!("messages={messages} recipients={RECIPIENTS} frame_bytes={FRAME_BYTES}, per delivery"))
        .same_result()
        .case("frame store", deliveries, |clock| {
            let mut store = FrameStore::new(1 << 16, 0);
            let mut held = Vec::with_capacity(RECIPIENTS as usize);
            clock.time(|| {
                let mut hash = 0;
                for _ in 0..messages {
                    let frame = store.insert(payload.clone()).expect("the store has room");
                    held.extend((0..RECIPIENTS).map(|_| frame));
                    store.retain(frame, RECIPIENTS);
                    store.release(frame);
                    for frame in held.drain(..) {
                        hash += u64::from(store.bytes(frame)[0]);
                        store.release(frame);
                    }
                }
                hash
            })
        })
        .case("frame store, lent and given back", deliveries, |clock| {
            let mut store = FrameStore::new(1 << 16, 0);
            let mut held = Vec::with_capacity(RECIPIENTS as usize);
            clock.time(|| {
                let mut hash = 0;
                for _ in 0..messages {
                    let frame = store.insert(payload.clone()).expect("the store has room");
                    store.retain(frame, RECIPIENTS);
                    held.extend((0..RECIPIENTS).map(|_| store.lend(frame, 0)));
                    store.release(frame);
                    for loan in held.drain(..) {
                        hash += u64::from(store.bytes(loan.frame())[0]);
                        let frame = store.give_back(loan);
                        store.release(frame);
                    }
                }
                hash
            })
        })
        .case("Bytes, cloned for each recipient", deliveries, |clock| {
            let mut held = Vec::with_capacity(RECIPIENTS as usize);
            clock.time(|| {
                let mut hash = 0;
                for _ in 0..messages {
                    let frame = black_box(payload.clone());
                    held.extend((0..RECIPIENTS).map(|_| frame.clone()));
                    drop(frame);
                    for frame in held.drain(..) {
                        hash += u64::from(black_box(&frame)[0]);
                    }
                }
                hash
            })
        })
        .run();
}

/// Sixteen small frames into one buffer, once for all members of a room.
fn frames_gather() {
    const FRAMES: usize = 16;
    let gathers = Mode::get().pick(2_000, 200_000);
    let payloads: Vec<Bytes> = (0..FRAMES).map(|i| Bytes::from(vec![u8::try_from(i).unwrap_or(0); FRAME_BYTES])).collect();
    Group::new("frames.gather", format!("gathers={gathers} frames={FRAMES} frame_bytes={FRAME_BYTES}, per gather"))
        .same_result()
        .case("gather", gathers, |clock| {
            let mut store = FrameStore::new(1 << 16, 8);
            let frames: Vec<FrameId> = payloads.iter().map(|payload| store.insert(payload.clone()).expect("the store has room")).collect();
            clock.time(|| {
                let mut hash = 0;
                for _ in 0..gathers {
                    let gather = store.gather(&frames).expect("the pool has a buffer");
                    hash += u64::from(store.bytes(gather)[FRAME_BYTES * 15]);
                    store.release(gather);
                }
                hash
            })
        })
        .case("a new Vec each", gathers, |clock| {
            clock.time(|| {
                let mut hash = 0;
                for _ in 0..gathers {
                    let mut gather = Vec::with_capacity(FRAMES * FRAME_BYTES);
                    for payload in &payloads {
                        gather.extend_from_slice(payload);
                    }
                    hash += u64::from(black_box(&gather)[FRAME_BYTES * 15]);
                }
                hash
            })
        })
        .run();
}

/// Messages to rooms of 100 out of all sessions; every fourth message the room's members are flushed.
fn queue_fan_out() {
    let messages = Mode::get().pick(1_000, 50_000);
    let deliveries = u64::from(messages * RECIPIENTS);
    let rooms = sessions() / RECIPIENTS;
    let order: Vec<u32> = random_slots(messages).iter().map(|slot| slot % rooms).collect();
    Group::new("queue.fan_out", format!("sessions={} rooms={rooms} messages={messages}, per delivery", sessions()))
        .same_result()
        .case("queues in chunks", deliveries, |clock| {
            let mut pool = QueuePool::new(1 << 20);
            let mut queues: Vec<Queue> = (0..sessions()).map(|_| Queue::default()).collect();
            let mut list = Vec::new();
            clock.time(|| {
                let mut hash = 0u64;
                for (message, &room) in (0u32..).zip(&order) {
                    for queue in members(&mut queues, room) {
                        pool.push(queue, FrameId(message)).expect("the pool has room");
                    }
                    if message % 4 == 3 {
                        for queue in members(&mut queues, room) {
                            list.clear();
                            pool.peek_while(queue, &mut list, |_| true);
                            hash = list.iter().fold(hash, |hash, frame| hash.wrapping_add(u64::from(frame.0)));
                            pool.drop_front(queue, u32::MAX);
                        }
                    }
                }
                hash
            })
        })
        .case("VecDeque a session", deliveries, |clock| {
            let mut queues: Vec<VecDeque<FrameId>> = (0..sessions()).map(|_| VecDeque::new()).collect();
            let mut list = Vec::new();
            clock.time(|| {
                let mut hash = 0u64;
                for (message, &room) in (0u32..).zip(&order) {
                    for queue in members(&mut queues, room) {
                        queue.push_back(FrameId(message));
                    }
                    if message % 4 == 3 {
                        for queue in members(&mut queues, room) {
                            list.clear();
                            list.extend(queue.iter().copied());
                            hash = list.iter().fold(hash, |hash, frame| hash.wrapping_add(u64::from(frame.0)));
                            queue.clear();
                        }
                    }
                }
                hash
            })
        })
        .run();
}

fn members<T>(queues: &mut [T], room: u32) -> impl Iterator<Item = &mut T> {
    queues[(room * RECIPIENTS) as usize..].iter_mut().take(RECIPIENTS as usize)
}

/// Deadlines that are put off again and again: 20 ms to 25 s ahead, the clock moves 50 us a step.
fn wheel_reschedule() {
    let steps = Mode::get().pick(20_000, 1_000_000);
    let slots = random_slots(steps);
    let ahead = |slot: u32| (20 + u64::from(slot % 1_000) * 25) * MS;
    let now_at = |step: u64| step * MS / 20;
    Group::new("wheel.reschedule", format!("sessions={} steps={steps} tick_ms=100 ahead_ms=20..25000, per step", sessions()))
        .case("wheel", u64::from(steps), |clock| {
            let mut wheel = Wheel::new(100 * MS, 0);
            let mut expired = Vec::new();
            clock.time(|| {
                let mut hash = 0;
                for (step, &slot) in (0u64..).zip(&slots) {
                    wheel.schedule(slot, now_at(step) + ahead(slot));
                    wheel.advance(now_at(step), 256, &mut expired);
                    hash = expired.drain(..).fold(hash, |hash, slot| mix(hash, u64::from(slot)));
                    hash = hash.wrapping_add(wheel.next_ns().unwrap_or(0));
                }
                hash
            })
        })
        .case("BTreeSet of (time, slot)", u64::from(steps), |clock| {
            let mut set = BTreeSet::new();
            let mut due = vec![0; sessions() as usize];
            clock.time(|| {
                let mut hash = 0;
                for (step, &slot) in (0u64..).zip(&slots) {
                    set.remove(&(due[slot as usize], slot));
                    due[slot as usize] = now_at(step) + ahead(slot);
                    set.insert((due[slot as usize], slot));
                    while let Some(&(at, slot)) = set.first().filter(|(at, _)| *at <= now_at(step)) {
                        set.pop_first();
                        hash = mix(hash, u64::from(slot) + at);
                    }
                    hash = hash.wrapping_add(set.first().map_or(0, |(at, _)| *at));
                }
                hash
            })
        })
        .run();
}

/// What a turn pays when no timer is due.
fn wheel_turn() {
    let turns = Mode::get().pick(50_000, 2_000_000);
    let run = |tick_ns: u64, clock: &mut Clock| {
        let mut wheel = Wheel::new(tick_ns, 0);
        for slot in 0..sessions() {
            wheel.schedule(slot, tick_ns * 1_000 + u64::from(slot % 20) * tick_ns);
        }
        let mut expired = Vec::new();
        clock.time(|| {
            let mut hash = 0u64;
            for turn in 0..turns {
                wheel.advance(black_box(turn % 1_000 * tick_ns / 2), 256, &mut expired);
                hash = hash.wrapping_add(wheel.next_ns().unwrap_or(0));
            }
            hash + expired.len() as u64
        })
    };
    Group::new("wheel.turn", format!("sessions={} turns={turns} nothing due: advance and next_ns", sessions()))
        .case("tick 1 ms", turns, |clock| run(MS, clock))
        .case("tick 100 ms", turns, |clock| run(100 * MS, clock))
        .run();
}

fn main() {
    slab_event();
    slab_churn();
    frames_fan_out();
    frames_gather();
    queue_fan_out();
    wheel_reschedule();
    wheel_turn();
}
