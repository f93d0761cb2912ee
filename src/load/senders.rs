//! Whose turn it is: the rooms a thread sends to, their senders in rotation, and the sequence of the next message.
//!
//! With Poisson arrivals the room is drawn by the seed, weighted by its senders on this thread; with constant ones rooms take turns. Within
//! a room the senders take turns, so that no user sends faster than the others and the server's limit per user is met by arithmetic.

use hashbrown::HashMap;

use super::plan::{Arrivals, Plan, as_f64, as_u64};
use super::schedule::Random;

#[derive(Debug)]
struct Writer {
    /// Place of the connection in its thread.
    link: usize,
    /// Sequence of its last message in the room plus one, or 0.
    previous: u32,
}

#[derive(Debug)]
struct Room {
    number: u32,
    writers: Vec<Writer>,
    turn: usize,
    sequence: u32,
}

/// The next message, as far as this file knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    pub link: usize,
    pub room: u32,
    pub sequence: u32,
    pub previous: u32,
}

#[derive(Debug)]
pub struct Senders {
    rooms: Vec<Room>,
    /// Place in `rooms` of each (room, sender) pair.
    pairs: Vec<u32>,
    arrivals: Arrivals,
    turn: usize,
}

impl Senders {
    pub fn new(plan: &Plan, lane: u16) -> Self {
        let (mut rooms, mut places, mut pairs): (Vec<Room>, HashMap<u32, u32>, Vec<u32>) = Default::default();
        for (link, connection) in plan.connections_of(lane).enumerate() {
            for number in plan.rooms_written_by(connection) {
                let place = *places.entry(number).or_insert_with(|| {
                    rooms.push(Room { number, writers: Vec::new(), turn: 0, sequence: 0 });
                    u32::try_from(rooms.len() - 1).expect("rooms are numbered by u32")
                });
                rooms[at(place)].writers.push(Writer { link, previous: 0 });
                pairs.push(place);
            }
        }
        Self { rooms, pairs, arrivals: plan.wish().arrivals, turn: 0 }
    }

    /// This thread's part of the rate.
    pub fn rate(&self, plan: &Plan) -> f64 {
        plan.wish().rate * as_f64(as_u64(self.pairs.len())) / as_f64(plan.memberships())
    }

    /// The next message; `None` when no sender of the chosen room is `usable` any more. Gives no number then.
    pub fn next(&mut self, random: &mut Random, usable: impl Fn(usize) -> bool) -> Option<Turn> {
        let pair = match self.arrivals {
            Arrivals::Constant => self.turn,
            Arrivals::Poisson => at(random.below(u32::try_from(self.pairs.len()).ok()?)),
        };
        self.turn = (self.turn + 1) % self.pairs.len().max(1);
        let room = &mut self.rooms[at(*self.pairs.get(pair)?)];
        let writers = room.writers.len();
        let chosen = (0..writers).map(|n| (room.turn + n) % writers).find(|n| usable(room.writers[*n].link))?;
        room.turn = (chosen + 1) % writers;
        let writer = &mut room.writers[chosen];
        let turn = Turn { link: writer.link, room: room.number, sequence: room.sequence, previous: writer.previous };
        room.sequence += 1;
        writer.previous = room.sequence;
        Some(turn)
    }

    /// How many messages each room got.
    pub fn sent(&self) -> HashMap<u32, u32> {
        self.rooms.iter().map(|room| (room.number, room.sequence)).collect()
    }
}

fn at(place: u32) -> usize {
    usize::try_from(place).expect("a u32 fits a usize here")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::plan::{Mode, Wish};
    use super::*;

    fn plan(arrivals: Arrivals) -> Plan {
        Plan::new(Wish {
            target: super::super::dialect::Target::Ringroom,
            address: "127.0.0.1:1".parse().unwrap(),
            mode: Mode::Rooms,
            connections: 12,
            rooms: 3,
            room_size: 4,
            rate: 100.0,
            sizes: super::super::body::Sizes::Fixed(128),
            threads: 2,
            arrivals,
            seed: 1,
            warmup_ns: 0,
            duration_ns: 1,
            grace_ns: 1,
        })
        .unwrap()
    }

    #[test]
    fn senders_take_turns_and_know_their_previous_message() {
        let plan = plan(Arrivals::Constant);
        let mut senders = Senders::new(&plan, 1);
        let mut random = Random::new(1);
        let mut last: HashMap<(usize, u32), u32> = HashMap::new();
        let mut per_link = HashMap::<usize, u32>::new();
        let mut next: HashMap<u32, u32> = HashMap::new();
        for _ in 0..600 {
            let turn = senders.next(&mut random, |_| true).unwrap();
            let expected = next.entry(turn.room).or_default();
            assert_eq!(turn.sequence, *expected);
            *expected += 1;
            assert_eq!(last.insert((turn.link, turn.room), turn.sequence + 1).unwrap_or(0), turn.previous);
            *per_link.entry(turn.link).or_default() += 1;
        }
        assert!(per_link.values().all(|n| *n == 100), "{per_link:?}");
        assert_eq!(senders.sent().values().sum::<u32>(), 600);
        assert!((senders.rate(&plan) - 50.0).abs() < 1e-9);
    }

    #[test]
    fn drawn_rooms_spread_evenly_and_follow_the_seed() {
        let run = |seed| {
            let mut senders = Senders::new(&plan(Arrivals::Poisson), 0);
            let mut random = Random::new(seed);
            for _ in 0..30_000 {
                senders.next(&mut random, |_| true).unwrap();
            }
            let mut sent: Vec<_> = senders.sent().into_iter().collect();
            sent.sort_unstable();
            sent
        };
        assert!(run(3).iter().all(|(_, n)| (9_600..10_400).contains(n)), "{:?}", run(3));
        assert_eq!(run(3), run(3));
        assert_ne!(run(3), run(4));
    }

    #[test]
    fn closed_connections_are_passed_over() {
        let mut senders = Senders::new(&plan(Arrivals::Constant), 0);
        let mut random = Random::new(1);
        for _ in 0..50 {
            assert_ne!(senders.next(&mut random, |link| link != 2).unwrap().link, 2);
        }
        assert_eq!(senders.next(&mut random, |_| false), None);
    }
}
