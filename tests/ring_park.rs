//! Parking inside glommio: the executor sleeps in its own reactor and is woken by our ring's eventfd.
#![allow(clippy::unwrap_used, reason = "tests")]

mod ring_support;

use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use glommio::{LocalExecutorBuilder, Placement};
use ring_support::*;
use ringroom::ids::ShardId;
use ringroom::ring::park::ParkFile;
use ringroom::ring::{Bells, Completion, Features, Io, Ring, Wait};
use ringroom::sys::clock;

const ROUNDS: u32 = 100;

/// Runs a driver inside an executor set up as a shard's is.
fn in_executor<F: Future<Output = ()> + 'static>(driver: impl FnOnce() -> F + Send + 'static) {
    bounded(move || {
        let builder =
            LocalExecutorBuilder::new(Placement::Unbound).io_memory(0).ring_depth(64).preempt_timer(Duration::from_secs(24 * 60 * 60));
        builder.make().unwrap().run(async move { driver().await });
    });
}

/// A driver's means to park. `asleep` tells other threads in which round it is about to sleep, or sleeps.
struct Driver {
    ring: Ring,
    file: ParkFile,
    asleep: Arc<AtomicU32>,
    sleeps: u32,
}

impl Driver {
    fn new(ring: Ring, asleep: Arc<AtomicU32>) -> Self {
        Self { file: ParkFile::new(&ring).unwrap(), ring, asleep, sleeps: 0 }
    }

    /// One park, unless there is something to reap.
    async fn park(&mut self, round: u32, until_ns: u64) {
        if self.ring.prepare_park(until_ns).unwrap() {
            self.sleeps += 1;
            self.asleep.store(round, Ordering::Release);
            self.file.wait().await.unwrap();
        }
        self.ring.end_park();
        self.ring.enter(Wait::No).unwrap();
    }

    /// Parks until a completion comes that is no doorbell; there is no other way out but the deadline.
    async fn next(&mut self, round: u32) -> Completion<OwnedFd> {
        let deadline = after(PATIENCE);
        loop {
            while let Some(completion) = self.ring.reap() {
                if !matches!(completion, Completion::Doorbell) {
                    return completion;
                }
            }
            assert!(clock::monotonic_ns() < deadline, "the executor slept through a completion");
            self.park(round, deadline).await;
        }
    }
}

/// Waits, in another thread, until the driver sleeps in this round.
fn wait_until_asleep(asleep: &AtomicU32, round: u32) {
    let deadline = after(PATIENCE);
    while asleep.load(Ordering::Acquire) != round {
        assert!(clock::monotonic_ns() < deadline, "the driver does not park");
        thread::yield_now();
    }
}

#[test]
fn data_wakes_a_parked_executor() {
    let (socket, mut peer) = connection();
    let asleep = Arc::new(AtomicU32::new(0));
    let asleep_too = asleep.clone();
    let writer = thread::spawn(move || {
        for round in 1..=ROUNDS {
            wait_until_asleep(&asleep_too, round);
            write(&mut peer, b"wake");
        }
        peer
    });
    in_executor(move || async move {
        let mut driver = Driver::new(ring_with(|_| {}), asleep);
        driver.ring.receive_multishot(key(1, 1), &socket).unwrap();
        for round in 1..=ROUNDS {
            let mut got = 0;
            while got < 4 {
                let received = received(driver.next(round).await);
                got += take(&mut driver.ring, received).len();
            }
        }
    });
    let _peer: TcpStream = writer.join().unwrap();
}

#[test]
fn bells_of_both_kinds_wake_a_parked_executor() {
    bells_wake_a_parked_executor(features());
}

#[test]
fn eventfd_bells_wake_a_parked_executor() {
    bells_wake_a_parked_executor(Features::LEAST);
}

fn bells_wake_a_parked_executor(features: Features) {
    let bells = Bells::new(2).unwrap();
    let asleep = Arc::new(AtomicU32::new(0));
    let rung = Arc::new(AtomicU32::new(0));
    let (asleep_too, rung_too, bells_too) = (asleep.clone(), rung.clone(), bells.clone());
    let ringer = thread::spawn(move || {
        let mut ring = ring_of(1, features, &bells_too);
        for round in 1..=ROUNDS {
            wait_until_asleep(&asleep_too, round);
            rung_too.store(round, Ordering::Release);
            if round % 2 == 0 {
                ring.ring(ShardId(0)).unwrap();
                ring.enter(Wait::No).unwrap();
            } else {
                bells_too.wake(ShardId(0));
            }
        }
    });
    in_executor(move || async move {
        let mut driver = Driver::new(ring_of(0, features, &bells), asleep);
        for round in 1..=ROUNDS {
            let deadline = after(PATIENCE);
            while rung.load(Ordering::Acquire) < round {
                assert!(clock::monotonic_ns() < deadline, "the executor slept through a bell");
                driver.park(round, deadline).await;
                while driver.ring.reap().is_some() {}
            }
        }
    });
    ringer.join().unwrap();
}

#[test]
fn the_deadline_wakes_a_parked_executor_also_when_it_moves() {
    in_executor(|| async {
        let mut driver = Driver::new(ring_with(|_| {}), Arc::default());
        // Far first: the timer in flight has to be moved forward, then back, then nearer again.
        let far = after(PATIENCE * 2);
        assert!(driver.ring.prepare_park(far).unwrap());
        driver.ring.end_park();
        for ms in [20, 1, 10, 0, 5] {
            let until = after(Duration::from_millis(ms));
            while clock::monotonic_ns() < until {
                driver.park(1, until).await;
                while driver.ring.reap().is_some() {}
            }
            assert!(clock::monotonic_ns() < far, "only the far deadline woke it");
        }
        assert!((3..30).contains(&driver.sleeps), "{} sleeps", driver.sleeps);
    });
}

#[test]
fn other_tasks_of_the_executor_run_while_the_driver_is_parked() {
    in_executor(|| async {
        let mut driver = Driver::new(ring_with(|_| {}), Arc::default());
        let until = after(Duration::from_millis(200));
        let other = glommio::spawn_local(async {
            glommio::timer::sleep(Duration::from_millis(5)).await;
            clock::monotonic_ns()
        });
        let other = other.detach();
        while clock::monotonic_ns() < until {
            driver.park(1, until).await;
            while driver.ring.reap().is_some() {}
        }
        assert!(other.await.unwrap() < until, "the other task had to wait for the driver");
    });
}

/// What completes while the driver is awake does not signal, or each park would end at once.
#[test]
fn an_awake_ring_makes_no_signal() {
    let mut ring = ring_with(|_| {});
    let (socket, mut peer) = connection();
    ring.receive_multishot(key(1, 1), &socket).unwrap();
    prepare(&mut ring);
    ring.end_park();
    for _ in 0..20 {
        write(&mut peer, b"x");
        let received = next_received(&mut ring);
        take(&mut ring, received);
        assert!(!readable(ring.park_fd()));
    }
    prepare(&mut ring);
    assert!(!readable(ring.park_fd()));
    write(&mut peer, b"x");
    wait_readable(ring.park_fd());
    ring.end_park();
}

#[test]
fn what_is_waiting_forbids_the_park() {
    let mut ring = ring_with(|_| {});
    let (socket, mut peer) = connection();
    ring.receive_multishot(key(1, 1), &socket).unwrap();
    submit(&mut ring);
    write(&mut peer, b"x");
    while !ring.ready() {
        thread::yield_now();
    }
    assert!(!ring.prepare_park(after(PATIENCE)).unwrap());
    let received = next_received(&mut ring);
    take(&mut ring, received);
    prepare(&mut ring);
    ring.end_park();
}

/// Prepares a park with nothing left to reap. A wake-up of a socket's poll that brings no data (an acknowledgement) may put it off.
fn prepare(ring: &mut Ring) {
    let deadline = after(PATIENCE);
    while !ring.prepare_park(deadline).unwrap() {
        ring.enter(Wait::No).unwrap();
        assert!(ring.reap().is_none());
        assert!(clock::monotonic_ns() < deadline, "never ready to park");
    }
}

fn poll(fd: i32, timeout_ms: i32) -> bool {
    let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one live entry, as announced.
    let count = unsafe { libc::poll(&raw mut entry, 1, timeout_ms) };
    count == 1
}

fn readable(fd: i32) -> bool {
    poll(fd, 0)
}

fn wait_readable(fd: i32) {
    assert!(poll(fd, i32::try_from(PATIENCE.as_millis()).unwrap()), "no signal came");
}
