//! The way from shard to shard: a message there and back between two threads, each on a CPU of its own, with real rings; awake and asleep.
//!
//! "Awake": both sides look at the mesh without a pause. "Asleep": each waits in its ring and the other one rings, as two idle shards do.
//! Against it glommio's own channel between two executors (`shared_channel`), which its channel mesh is made of.
//! A stream of messages shows what one costs when there are many.
#![allow(clippy::print_stdout, reason = "a bench prints its figures")]

mod support;

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use glommio::channels::shared_channel;
use glommio::{LocalExecutorBuilder, Placement};
use ringroom::ids::ShardId;
use ringroom::mesh::{Port, mesh};
use ringroom::ring::{Bells, Completion, Io, Ring, RingSetup, Wait, probe};
use ringroom::sys::affinity::{Cpu, available, pin_current_thread};
use ringroom::sys::clock::monotonic_ns;
use support::{Clock, Group, Mode, mix};

/// A wait that lasts this long is a lost wake-up.
const WAIT_NS: u64 = 10_000_000_000;
const DEPTH: usize = 1_024;
/// What an envelope of the server takes.
type Envelope = [u64; 15];

fn envelope(number: u64) -> Envelope {
    let mut envelope = [0; 15];
    envelope[0] = number;
    envelope
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Idle {
    Spin,
    Sleep,
}

/// One shard's end: its port, and its ring for sleeping and ringing.
struct End {
    port: Port<Envelope>,
    ring: Ring,
    rung: Vec<ShardId>,
    idle: Idle,
}

impl End {
    fn new(port: Port<Envelope>, shard: u16, bells: Arc<Bells>, idle: Idle) -> Self {
        let features = probe().expect("this bench needs io_uring");
        let ring = Ring::new(RingSetup::new(ShardId(shard), features, bells)).expect("a ring");
        Self { port, ring, rung: Vec::new(), idle }
    }

    fn send(&mut self, to: ShardId, number: u64) {
        self.port.post(to, envelope(number));
        self.flush();
    }

    fn flush(&mut self) {
        self.port.flush(|_, _| (), &mut self.rung);
        for shard in self.rung.drain(..) {
            self.ring.ring(shard).expect("an empty submission queue has room");
        }
    }

    /// Waits as a shard does until something has come, and adds it up.
    fn receive(&mut self) -> (u64, u64) {
        loop {
            let (mut count, mut sum) = (0, 0);
            if self.port.look() {
                self.port.receive(256, |_, envelope| {
                    count += 1;
                    sum = mix(sum, envelope[0]);
                });
            }
            if count > 0 {
                return (count, sum);
            }
            match self.idle {
                Idle::Spin => {
                    std::hint::spin_loop();
                    if self.ring.pending() {
                        self.ring.enter(Wait::No).expect("the ring works");
                    }
                }
                Idle::Sleep => self.sleep(),
            }
        }
    }

    fn sleep(&mut self) {
        if self.port.sleep() {
            self.ring.enter(Wait::Until(monotonic_ns() + WAIT_NS)).expect("the ring works");
            let mut rung = false;
            while let Some(completion) = self.ring.reap() {
                rung |= matches!(completion, Completion::Doorbell);
            }
            assert!(rung || self.port.look(), "a wake-up was lost");
        }
        self.port.wake();
    }
}

/// Two CPUs, or the same one twice; looked up before any thread is pinned.
fn two_cpus() -> [Cpu; 2] {
    static CPUS: OnceLock<[Cpu; 2]> = OnceLock::new();
    *CPUS.get_or_init(|| {
        let cpus = available().expect("the CPUs of this process");
        [cpus[0], cpus[cpus.len() - 1]]
    })
}

/// `trips` messages there and back through the mesh.
fn round_trips(clock: &mut Clock, trips: u32, idle: Idle) -> u64 {
    let bells = Bells::new(2).expect("eventfds");
    let mut ports = mesh::<Envelope>(2, DEPTH);
    let (far, near) = (ports.pop().expect("two"), ports.pop().expect("two"));
    let [here, there] = two_cpus();
    let (far_bells, (up, is_up)) = (Arc::clone(&bells), crossbeam_channel::bounded(1));
    let echo = std::thread::spawn(move || {
        pin_current_thread(there).expect("a CPU of this process");
        let mut end = End::new(far, 1, far_bells, idle);
        up.send(()).expect("the bench waits");
        for _ in 0..trips {
            let (_, sum) = end.receive();
            end.send(ShardId(0), sum);
        }
        // What rings the other side rides an enter.
        end.ring.enter(Wait::No).expect("the ring works");
    });
    pin_current_thread(here).expect("a CPU of this process");
    let mut end = End::new(near, 0, bells, idle);
    is_up.recv().expect("the echo starts");
    let hash = clock.time(|| {
        let mut hash = 0;
        for trip in 0..u64::from(trips) {
            end.send(ShardId(1), trip);
            hash = mix(hash, end.receive().1);
        }
        hash
    });
    echo.join().expect("the echo does not panic");
    hash
}

/// `messages` one way, in bursts as a busy shard's turns make them.
fn stream(clock: &mut Clock, messages: u32) -> u64 {
    let bells = Bells::new(2).expect("eventfds");
    let mut ports = mesh::<Envelope>(2, DEPTH);
    let (far, near) = (ports.pop().expect("two"), ports.pop().expect("two"));
    let [here, there] = two_cpus();
    let far_bells = Arc::clone(&bells);
    let reader = std::thread::spawn(move || {
        pin_current_thread(there).expect("a CPU of this process");
        let mut end = End::new(far, 1, far_bells, Idle::Spin);
        let mut seen = 0;
        while seen < u64::from(messages) {
            seen += end.receive().0;
        }
        seen
    });
    pin_current_thread(here).expect("a CPU of this process");
    let mut end = End::new(near, 0, bells, Idle::Spin);
    clock.time(|| {
        for first in (0..messages).step_by(64) {
            for number in first..messages.min(first + 64) {
                end.port.post(ShardId(1), envelope(u64::from(number)));
            }
            end.flush();
            while end.port.waiting() > DEPTH {
                end.flush();
            }
        }
        while end.port.waiting() > 0 {
            end.flush();
        }
        reader.join().expect("the reader does not panic")
    })
}

/// What both sides of glommio's channel do.
#[derive(Clone, Copy)]
enum Trip {
    There,
    AndBack,
}

fn glommio_channel(clock: &mut Clock, messages: u32, trip: Trip) -> u64 {
    let (to_far, from_near) = shared_channel::new_bounded::<Envelope>(DEPTH);
    let (to_near, from_far) = shared_channel::new_bounded::<Envelope>(DEPTH);
    let [here, there] = two_cpus();
    let far = executor(there)
        .spawn(move || async move {
            let (from_near, to_near) = (from_near.connect().await, to_near.connect().await);
            let mut seen = 0u64;
            while seen < u64::from(messages) {
                let envelope = from_near.recv().await.expect("the other side is there");
                seen += 1;
                if let Trip::AndBack = trip {
                    to_near.send(envelope).await.expect("the other side is there");
                }
            }
            seen
        })
        .expect("an executor");
    let near = executor(here)
        .spawn(move || async move {
            let (to_far, from_far) = (to_far.connect().await, from_far.connect().await);
            let start = Instant::now();
            for number in 0..u64::from(messages) {
                to_far.send(envelope(number)).await.expect("the other side is there");
                if let Trip::AndBack = trip {
                    from_far.recv().await.expect("the other side is there");
                }
            }
            start.elapsed()
        })
        .expect("an executor");
    let spent = near.join().expect("the executor ends");
    clock.add(spent);
    far.join().expect("the executor ends")
}

fn executor(cpu: Cpu) -> LocalExecutorBuilder {
    LocalExecutorBuilder::new(Placement::Fixed(cpu.index())).io_memory(0).ring_depth(64)
}

fn main() {
    let trips = Mode::get().pick(300, 20_000);
    let size = size_of::<Envelope>();
    Group::new("mesh.round_trip", format!("envelope_bytes={size} trips={trips}, ns there and back"))
        .case("mesh, awake", u64::from(trips), |clock| round_trips(clock, trips, Idle::Spin))
        .case("mesh, asleep", u64::from(trips), |clock| round_trips(clock, trips, Idle::Sleep))
        .case("glommio channel", u64::from(trips), |clock| glommio_channel(clock, trips, Trip::AndBack))
        .run();
    let messages = Mode::get().pick(20_000, 2_000_000);
    Group::new("mesh.stream", format!("envelope_bytes={size} messages={messages} burst=64, ns per message"))
        .case("mesh", u64::from(messages), |clock| stream(clock, messages))
        .case("glommio channel", u64::from(messages), |clock| glommio_channel(clock, messages, Trip::There))
        .run();
}
