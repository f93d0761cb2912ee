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
    /// Place in `rooms` of each (room, sender) pair, and behind them of each sender's inbox partner.
    pairs: Vec<u32>,
    to_rooms: usize,
    /// Part of this thread's messages that go to inboxes.
    direct: f64,
    direct_owed: f64,
    /// This thread's part of the rate.
    share: f64,
    arrivals: Arrivals,
    turns: [usize; 2],
}

impl Senders {
    pub fn new(plan: &Plan, lane: u16) -> Self {
        let (mut rooms, mut places, mut pairs): (Vec<Room>, HashMap<u32, u32>, Vec<u32>) = Default::default();
        let mut enter = |number: u32, link: usize| {
            let place = *places.entry(number).or_insert_with(|| {
                rooms.push(Room { number, writers: Vec::new(), turn: 0, sequence: 0 });
                u32::try_from(rooms.len() - 1).expect("rooms are numbered by u32")
            });
            rooms[at(place)].writers.push(Writer { link, previous: 0 });
            pairs.push(place);
        };
        let connections = plan.connections_of(lane);
        let mut to_rooms = 0;
        for (link, connection) in connections.iter().enumerate() {
            for number in plan.rooms_written_by(*connection) {
                enter(number, link);
                to_rooms += 1;
            }
        }
        for (link, connection) in connections.iter().enumerate() {
            plan.partner(*connection).into_iter().for_each(|inbox| enter(inbox, link));
        }
        let (room, direct) = plan.shares();
        let (room, direct) = (room * as_f64(as_u64(to_rooms)), direct * as_f64(as_u64(pairs.len() - to_rooms)));
        let share = room + direct;
        let direct = if share > 0.0 { direct / share } else { 0.0 };
        Self { rooms, pairs, to_rooms, direct, direct_owed: 0.0, share, arrivals: plan.wish().arrivals, turns: [0; 2] }
    }

    /// This thread's part of the rate.
    pub fn share(&self) -> f64 {
        self.share
    }

    /// The next message; `None` when no sender of the chosen room is `usable` any more. Gives no number then.
    pub fn next(&mut self, random: &mut Random, usable: impl Fn(usize) -> bool) -> Option<Turn> {
        let direct = self.is_direct(random);
        let (first, count) = if direct { (self.to_rooms, self.pairs.len() - self.to_rooms) } else { (0, self.to_rooms) };
        let turn = &mut self.turns[usize::from(direct)];
        let pair = match self.arrivals {
            Arrivals::Constant => *turn,
            Arrivals::Poisson | Arrivals::Burst(_) => at(random.below(u32::try_from(count).ok()?)),
        };
        *turn = (*turn + 1) % count.max(1);
        let room = &mut self.rooms[at(*self.pairs.get(first + pair)?)];
        let writers = room.writers.len();
        let chosen = (0..writers).map(|n| (room.turn + n) % writers).find(|n| usable(room.writers[*n].link))?;
        room.turn = (chosen + 1) % writers;
        let writer = &mut room.writers[chosen];
        let turn = Turn { link: writer.link, room: room.number, sequence: room.sequence, previous: writer.previous };
        room.sequence += 1;
        writer.previous = room.sequence;
        Some(turn)
    }

    fn is_direct(&mut self, random: &mut Random) -> bool {
        if self.direct <= 0.0 || self.direct >= 1.0 {
            return self.direct > 0.0;
        }
        if self.arrivals == Arrivals::Constant {
            self.direct_owed += self.direct;
            let due = self.direct_owed >= 1.0;
            self.direct_owed -= f64::from(u8::from(due));
            return due;
        }
        random.unit() <= self.direct
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

    use super::super::plan::Wish;
    use super::super::plan::tests::wish;
    use super::*;

    fn plan(arrivals: Arrivals) -> Plan {
        Plan::new(Wish { connections: 12, arrivals, ..wish() }).unwrap()
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
        assert!((senders.share() - 0.5).abs() < 1e-9);
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
    fn the_part_of_direct_messages_is_kept_and_goes_to_the_partner() {
        for arrivals in [Arrivals::Constant, Arrivals::Poisson] {
            let plan = Plan::new(Wish { connections: 12, arrivals, direct_share: 0.25, ..wish() }).unwrap();
            let mut senders = Senders::new(&plan, 1);
            let mut random = Random::new(1);
            let turns: Vec<Turn> = (0..8_000).map(|_| senders.next(&mut random, |_| true).unwrap()).collect();
            let direct: Vec<&Turn> = turns.iter().filter(|turn| turn.room >= 3).collect();
            assert!((1_850..2_150).contains(&direct.len()), "{}", direct.len());
            let links = plan.connections_of(1);
            assert!(direct.iter().all(|turn| plan.partner(links[turn.link]) == Some(turn.room)));
            assert!((senders.share() - 0.5).abs() < 1e-9);
        }
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
