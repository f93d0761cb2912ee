//! Doorbells between real rings: a ring that sleeps is woken, one that does not sleep yet finds the mark, one that has ended harms nobody.
#![allow(clippy::unwrap_used, reason = "tests")]

mod ring_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use ring_support::*;
use ringroom::ids::ShardId;
use ringroom::ring::{Bells, Completion, Features, Io, Ring, RingError, RingSetup, Wait};

const ROUNDS: u32 = 500;

/// Waits for a doorbell.
fn wait_for_bell(ring: &mut Ring) {
    let deadline = after(PATIENCE);
    loop {
        while let Some(completion) = ring.reap() {
            if matches!(completion, Completion::Doorbell) {
                return;
            }
        }
        assert!(ring.now().mono_ns < deadline, "nobody rang");
        ring.enter(Wait::Until(deadline)).unwrap();
    }
}

/// One shard's half of a game: it acts when `turn` is its own, then rings the other. Between turns it sleeps in its ring.
fn play(me: u16, features: Features, bells: &Arc<Bells>, turn: &AtomicU32) {
    let mut ring = ring_of(me, features, bells);
    let other = ShardId(1 - me);
    for round in 0..ROUNDS {
        let mine = round * 2 + u32::from(me);
        while turn.load(Ordering::Acquire) != mine {
            wait_for_bell(&mut ring);
        }
        turn.store(mine + 1, Ordering::Release);
        ring.ring(other).unwrap();
        ring.enter(Wait::No).unwrap();
    }
    assert_eq!(ring.stats().rings_failed, 0);
}

fn ping_pong(features: Features) {
    let bells = Bells::new(2).unwrap();
    let turn = Arc::new(AtomicU32::new(0));
    let players: Vec<_> = [0, 1]
        .into_iter()
        .map(|me| {
            let (bells, turn) = (bells.clone(), turn.clone());
            thread::spawn(move || play(me, features, &bells, &turn))
        })
        .collect();
    players.into_iter().for_each(|player| player.join().unwrap());
    assert_eq!(turn.load(Ordering::Acquire), ROUNDS * 2);
}

#[test]
fn two_sleeping_shards_wake_each_other() {
    bounded(|| ping_pong(features()));
}

#[test]
fn two_sleeping_shards_wake_each_other_by_eventfd() {
    bounded(|| ping_pong(Features::LEAST));
}

#[test]
fn a_thread_without_a_ring_wakes_a_sleeping_shard() {
    bounded(|| {
        let bells = Bells::new(1).unwrap();
        let turn = Arc::new(AtomicU32::new(0));
        let (ringer_bells, ringer_turn) = (bells.clone(), turn.clone());
        let ringer = thread::spawn(move || {
            let deadline = after(PATIENCE);
            for round in 0..ROUNDS {
                while ringer_turn.load(Ordering::Acquire) != round * 2 {
                    assert!(ringroom::sys::clock::monotonic_ns() < deadline);
                    thread::yield_now();
                }
                ringer_turn.store(round * 2 + 1, Ordering::Release);
                ringer_bells.wake(ShardId(0));
            }
        });
        let mut ring = ring_of(0, features(), &bells);
        for round in 0..ROUNDS {
            while turn.load(Ordering::Acquire) != round * 2 + 1 {
                wait_for_bell(&mut ring);
            }
            turn.store(round * 2 + 2, Ordering::Release);
        }
        ringer.join().unwrap();
    });
}

#[test]
fn a_bell_rung_before_the_ring_is_made_is_heard() {
    let bells = Bells::new(1).unwrap();
    bells.wake(ShardId(0));
    let mut ring = ring_of(0, features(), &bells);
    wait_for_bell(&mut ring);
}

#[test]
fn a_bell_rung_before_the_wait_ends_it() {
    let bells = Bells::new(1).unwrap();
    let mut ring = ring_of(0, features(), &bells);
    for _ in 0..10 {
        bells.wake(ShardId(0));
        wait_for_bell(&mut ring);
    }
}

#[test]
fn a_shard_can_ring_itself() {
    let bells = Bells::new(1).unwrap();
    let mut ring = ring_of(0, features(), &bells);
    ring.ring(ShardId(0)).unwrap();
    wait_for_bell(&mut ring);
}

#[test]
fn a_shard_whose_ring_has_ended_is_rung_without_harm() {
    let bells = Bells::new(2).unwrap();
    let mut ring = ring_of(0, features(), &bells);
    let other = ring_of(1, features(), &bells);
    // One message is queued while the other ring lives, and taken when it does not.
    ring.ring(ShardId(1)).unwrap();
    drop(other);
    ring.enter(Wait::No).unwrap();
    for _ in 0..100 {
        ring.ring(ShardId(1)).unwrap();
        assert!(!ring.pending(), "messages would pile up in a queue that nobody reads");
        ring.enter(Wait::No).unwrap();
        assert!(ring.reap().is_none());
    }
}

/// The other shard does not reap: its queue overflows, and still the ringing is not lost.
#[test]
fn ringing_a_shard_that_does_not_reap_is_not_lost() {
    let bells = Bells::new(2).unwrap();
    let mut ring = ring_of(0, features(), &bells);
    let mut other = ring_of(1, features(), &bells);
    for _ in 0..2_000 {
        ring.ring(ShardId(1)).unwrap();
        ring.enter(Wait::No).unwrap();
        while ring.reap().is_some() {}
    }
    wait_for_bell(&mut other);
}

#[test]
fn a_shard_has_one_ring_in_its_life() {
    let bells = Bells::new(2).unwrap();
    let mut first = ring_of(0, features(), &bells);
    let again = Ring::new(RingSetup::new(ShardId(0), features(), bells.clone()));
    assert!(matches!(again, Err(RingError::Shard(ShardId(0)))));
    let stranger = Ring::new(RingSetup::new(ShardId(2), features(), bells.clone()));
    assert!(matches!(stranger, Err(RingError::Shard(ShardId(2)))));
    // The refused ones took nothing away from the first.
    let mut second = ring_of(1, features(), &bells);
    second.ring(ShardId(0)).unwrap();
    assert_eq!(second.pending(), features().message_ring);
    second.enter(Wait::No).unwrap();
    wait_for_bell(&mut first);
}

/// The caller may fill the queue: the ring's own poll on its bell goes in all the same.
#[test]
fn a_full_queue_leaves_room_for_the_doorbell() {
    let bells = Bells::new(1).unwrap();
    let mut setup = RingSetup::new(ShardId(0), features(), bells.clone());
    setup.entries = 8;
    let mut ring = Ring::new(setup).unwrap();
    let (socket, _peer) = connection();
    let mut slot = 0;
    while ring.receive_once(key(slot, 1), &socket).is_ok() {
        slot += 1;
    }
    bells.wake(ShardId(0));
    let enters = ring.stats().enters;
    wait_for_bell(&mut ring);
    assert_eq!(ring.stats().enters, enters + 1);
}

/// A full completion queue ends the kernel's poll on the eventfd; the ring has to notice and make it anew.
#[test]
fn a_bell_is_heard_again_after_the_completion_queue_was_full() {
    let bells = Bells::new(1).unwrap();
    let mut setup = RingSetup::new(ShardId(0), features(), bells.clone());
    setup.entries = 8;
    let mut ring = Ring::new(setup).unwrap();
    let mut ends: Vec<_> = (0..100).map(|_| connection()).collect();
    for (slot, (socket, _)) in (0..).zip(&ends) {
        while ring.receive_once(key(slot, 1), socket).is_err() {
            ring.enter(Wait::No).unwrap();
        }
    }
    submit(&mut ring);
    ends.iter_mut().for_each(|(_, peer)| write(peer, b"x"));
    while ring.stats().overflows == 0 {
        ring.enter(soon()).unwrap();
    }
    bells.wake(ShardId(0));
    ring.enter(Wait::No).unwrap();
    let mut received = 0;
    let deadline = after(PATIENCE);
    while received < ends.len() {
        assert!(ring.now().mono_ns < deadline, "completions are missing");
        ring.enter(Wait::No).unwrap();
        while let Some(completion) = ring.reap() {
            received += usize::from(matches!(completion, Completion::Received { .. }));
        }
    }
    for _ in 0..3 {
        bells.wake(ShardId(0));
        wait_for_bell(&mut ring);
    }
}
