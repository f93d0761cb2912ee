//! Between shards: one bounded first-in first-out queue per ordered pair, an outbox in front of each, one doorbell per shard.
//!
//! A [`Port`] is a shard's end of all of them. What is posted waits in the outbox until [`Port::flush`], once per turn, which publishes what fits
//! with one store per queue and says which shards sleep and must be rung. Nothing is dropped here: outboxes are bounded by what the rules let in
//! (requests by their unanswered count, deliveries by the outbox's own length), and a full queue only makes the outbox wait.

pub mod directory;
mod doorbell;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use crate::chat;
use crate::ids::ShardId;
use crate::memory::spsc::{self, Consumer, Producer};
use crate::mutation::{Mutation, planted};
use doorbell::Doorbell;

/// What one shard sends another: words of the rules, or a socket that moves to its user's shard.
#[derive(Debug)]
pub enum Envelope<S> {
    Chat(chat::Envelope),
    Move(Box<Move<S>>),
}

/// A socket on its way to its user's home shard, with nothing in flight. Dropping it closes the connection.
#[derive(Debug)]
pub struct Move<S> {
    pub socket: S,
    pub login: chat::Login,
    /// Whom it is connected to, where a proxy has said so.
    pub client: Option<IpAddr>,
    /// Of its handshake, milliseconds of the monotonic clock: whoever arrives later is turned away.
    pub deadline_ms: u64,
    /// What the client sent behind `hello`: at most one receive buffer.
    pub unread: Vec<u8>,
}

/// One shard's end of the mesh.
#[derive(Debug)]
pub struct Port<T> {
    shard: ShardId,
    lanes: Vec<Option<Lane<T>>>,
    /// Envelopes in all outboxes.
    waiting: usize,
    bells: Arc<[Doorbell]>,
    /// Sources that had something when last looked at.
    sources: Vec<u64>,
    asleep: bool,
}

#[derive(Debug)]
struct Lane<T> {
    producer: Producer<T>,
    consumer: Consumer<T>,
    outbox: VecDeque<T>,
}

/// Ports for `shards` shards, with queues of `depth` envelopes.
pub fn mesh<T>(shards: u16, depth: usize) -> Vec<Port<T>> {
    let count = usize::from(shards);
    let words = count.div_ceil(64);
    let bells: Arc<[Doorbell]> = (0..count).map(|_| Doorbell::new(words)).collect();
    let mut producers: Vec<Vec<Option<Producer<T>>>> = (0..count).map(|_| (0..count).map(|_| None).collect()).collect();
    let mut consumers: Vec<Vec<Option<Consumer<T>>>> = (0..count).map(|_| (0..count).map(|_| None).collect()).collect();
    for (from, to) in (0..count * count).map(|pair| (pair / count, pair % count)).filter(|(from, to)| from != to) {
        let (producer, consumer) = spsc::channel(depth);
        producers[from][to] = Some(producer);
        consumers[to][from] = Some(consumer);
    }
    let ends = producers.into_iter().zip(consumers).map(|(producers, consumers)| producers.into_iter().zip(consumers));
    let ports = ends.enumerate().map(|(index, ends)| Port {
        shard: ShardId(u16::try_from(index).expect("fewer shards than 2^16")),
        lanes: ends.map(lane).collect(),
        waiting: 0,
        bells: bells.clone(),
        sources: vec![0; words],
        asleep: false,
    });
    ports.collect()
}

fn lane<T>(ends: (Option<Producer<T>>, Option<Consumer<T>>)) -> Option<Lane<T>> {
    Some(Lane { producer: ends.0?, consumer: ends.1?, outbox: VecDeque::new() })
}

impl<T> Port<T> {
    pub fn shards(&self) -> u16 {
        u16::try_from(self.lanes.len()).expect("fewer shards than 2^16")
    }

    /// Queues behind everything posted to the same shard before. Never to the own shard.
    pub fn post(&mut self, to: ShardId, envelope: T) {
        let lane = self.lanes[to.index()].as_mut().expect("a shard posts to others only");
        lane.outbox.push_back(envelope);
        self.waiting += 1;
    }

    /// Publishes what fits. `sent(to, left)` is told, per shard that had something, how many still wait; `ring` which shards sleep.
    pub fn flush(&mut self, mut sent: impl FnMut(ShardId, usize), ring: &mut Vec<ShardId>) {
        if self.waiting == 0 {
            return;
        }
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            let Some(lane) = lane.as_mut().filter(|lane| !lane.outbox.is_empty()) else { continue };
            if planted(Mutation::SwapEnvelopes) && lane.outbox.len() > 1 {
                lane.outbox.swap(0, 1);
            }
            let pushed = lane.producer.push_from(&mut lane.outbox);
            self.waiting -= pushed;
            let to = ShardId(u16::try_from(index).expect("fewer shards than 2^16"));
            sent(to, lane.outbox.len());
            if pushed > 0 && self.bells[index].announce(self.shard) && !planted(Mutation::LoseWakeup) {
                ring.push(to);
            }
        }
    }

    /// Envelopes of this shard that still wait on this side.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Looks which shards have published since the last look; `true` when any has something.
    pub fn look(&mut self) -> bool {
        self.bells[self.shard.index()].collect(&mut self.sources);
        self.sources.iter().any(|word| *word != 0)
    }

    /// Takes the next envelope of each source in turn, at most `budget` from each; `true` when something is left.
    pub fn receive(&mut self, budget: usize, mut each: impl FnMut(ShardId, T)) -> bool {
        let mut left = false;
        for index in 0..self.lanes.len() {
            let (word, bit) = (index / 64, 1u64 << (index % 64));
            if self.sources[word] & bit == 0 {
                continue;
            }
            let lane = self.lanes[index].as_mut().expect("the own shard announces nothing");
            let from = ShardId(u16::try_from(index).expect("fewer shards than 2^16"));
            let mut taken = 0;
            while taken < budget {
                let Some(envelope) = lane.consumer.pop() else { break };
                each(from, envelope);
                taken += 1;
            }
            if taken < budget {
                self.sources[word] &= !bit;
            } else {
                left = true;
            }
        }
        left
    }

    /// Says that the shard is about to sleep; `false` when something has come in meanwhile and it must not.
    pub fn sleep(&mut self) -> bool {
        self.bells[self.shard.index()].sleep();
        self.asleep = true;
        if self.look() {
            self.wake();
            return false;
        }
        true
    }

    /// Says that the shard is awake: nobody needs to ring.
    pub fn wake(&mut self) {
        if self.asleep {
            self.asleep = false;
            self.bells[self.shard.index()].wake();
        }
    }

    /// A queue towards this shard holds something (for checks: it reads every queue).
    pub fn has_inbound(&self) -> bool {
        self.lanes.iter().flatten().any(|lane| !lane.consumer.is_empty())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn envelopes_arrive_in_order_and_a_full_queue_only_waits() {
        let mut ports = mesh::<u32>(3, 4);
        let (mut rung, mut got) = (Vec::new(), Vec::new());
        for n in 0..10 {
            ports[0].post(ShardId(2), n);
        }
        assert!(ports[2].sleep());
        while got.len() < 10 {
            ports[0].flush(|to, _| assert_eq!(to, ShardId(2)), &mut rung);
            assert!(ports[2].look());
            while ports[2].receive(3, |from, n| got.push((from, n))) {}
            ports[2].wake();
        }
        assert_eq!(got, (0..10).map(|n| (ShardId(0), n)).collect::<Vec<_>>());
        assert_eq!(rung, [ShardId(2)], "only the sleeping shard is rung, and once");
        assert_eq!(ports[0].waiting(), 0);
        assert!(!ports[2].look());
    }

    #[test]
    fn a_shard_that_has_something_does_not_go_to_sleep() {
        let mut ports = mesh::<u32>(2, 4);
        let mut rung = Vec::new();
        ports[0].post(ShardId(1), 7);
        ports[0].flush(|_, _| (), &mut rung);
        assert!(rung.is_empty(), "it is awake");
        assert!(!ports[1].sleep());
    }

    #[test]
    fn no_wake_up_is_lost_between_two_threads() {
        let mut ports = mesh::<u64>(2, 64);
        let (mut one, mut two) = (ports.pop().unwrap(), ports.pop().unwrap());
        let (bell, rang) = crossbeam_channel::bounded::<()>(1024);
        let total = 20_000u64;
        let reader = std::thread::spawn(move || {
            let mut next = 0;
            while next < total {
                if one.look() {
                    one.receive(16, |_, n| {
                        assert_eq!(n, next);
                        next += 1;
                    });
                } else if one.sleep() {
                    rang.recv_timeout(std::time::Duration::from_secs(20)).expect("a wake-up was lost");
                    one.wake();
                }
            }
        });
        let mut rung = Vec::new();
        for n in 0..total {
            two.post(ShardId(1), n);
            while two.waiting() > 0 {
                two.flush(|_, _| (), &mut rung);
                for _ in rung.drain(..) {
                    bell.send(()).unwrap();
                }
            }
        }
        reader.join().unwrap();
    }
}
