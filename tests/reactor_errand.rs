//! A shard and what the control plane wants of it: a reactor on the real ring, turned by the test.
#![allow(clippy::unwrap_used, reason = "tests")]

mod ring_support;
mod rules_support;

use std::sync::{Arc, Mutex};

use crossbeam_channel::{Sender, bounded};
use ringroom::chat::{Appended, Entry, Publish, Token};
use ringroom::cluster::log::{Log, MemoryLog};
use ringroom::config::Settings;
use ringroom::ids::{Now, RoomName, UserName};
use ringroom::mesh::directory::Directory;
use ringroom::reactor::counters::{Counters, Shared};
use ringroom::reactor::errand::{ERRANDS_WAITING, Errand, Outcome, Wish};
use ringroom::reactor::{Control, Parts, Reactor};
use ringroom::ring::Ring;
use ringroom::sys::clock;

/// A log that is away.
#[derive(Debug)]
struct Silent;

impl Log for Silent {
    fn append(&mut self, _now: Now, _token: Token, _entry: &Entry) {}
    fn answers(&mut self, _now: Now, _out: &mut Vec<Appended>) {}
    fn next_ns(&self) -> Option<u64> {
        None
    }
}

struct Shard {
    reactor: Reactor<Ring>,
    door: Sender<Errand>,
    answers: Arc<Mutex<Vec<Outcome>>>,
    _control: Sender<Control>,
}

impl Shard {
    fn new(log: Box<dyn Log>) -> Self {
        let (control, orders) = bounded(4);
        let (door, errands) = bounded(ERRANDS_WAITING);
        let parts = Parts {
            rules: rules_support::rules(0, 1),
            settings: Arc::new(Settings::default()),
            listeners: 0,
            connections_max: 16,
            port: ringroom::mesh::mesh(1, 64).remove(0),
            log,
            login: None,
            directory: Arc::new(Directory::default()),
            counters: Arc::new(Counters::default()),
            shared: Arc::new(Shared::default()),
            control: orders,
            errands,
            report: bounded(4).0,
        };
        let reactor = Reactor::new(parts, ring_support::ring_with(|_| ()));
        Self { reactor, door, answers: Arc::default(), _control: control }
    }

    fn wish_by(&self, wish: Wish, deadline_ns: u64) {
        let answers = self.answers.clone();
        let done = Box::new(move |outcome| answers.lock().unwrap().push(outcome));
        self.door.try_send(Errand { wish, deadline_ns, done }).unwrap();
    }

    fn wish(&self, wish: Wish) {
        self.wish_by(wish, u64::MAX);
    }

    fn turn(&mut self) -> Vec<Outcome> {
        let _ = self.reactor.turn();
        std::mem::take(&mut self.answers.lock().unwrap())
    }
}

fn publish(room: usize) -> Wish {
    let (room, from) = (RoomName::parse(&format!("room{room}")).unwrap(), UserName::parse("bot").unwrap());
    Wish::Publish(Publish { room, from, body: "1".into(), key: None, ephemeral: false })
}

#[test]
fn a_long_list_is_spread_over_turns_and_is_whole() {
    let mut shard = Shard::new(Box::new(MemoryLog::default()));
    let rooms = 5_000;
    for room in 0..rooms {
        shard.wish(publish(room));
        if room % 200 == 199 {
            let answers: usize = (0..10).map(|_| shard.turn().len()).sum();
            assert_eq!(answers, 200, "each is answered once");
        }
    }
    shard.wish(Wish::Rooms { from: 0, most: 10_000 });
    shard.wish(publish(0));
    let mut turns = 1;
    let mut answers = shard.turn();
    while answers.is_empty() {
        turns += 1;
        answers = shard.turn();
    }
    assert!(turns >= 3, "{rooms} slots in {turns} turns");
    let Outcome::Rooms { rooms: listed, next: None } = &answers[0] else { panic!("{:?}", answers[0]) };
    let mut names: Vec<&str> = listed.iter().map(|room| room.room.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), rooms);
    assert!(matches!(answers[1], Outcome::Said(_)), "what stood behind it");
}

#[test]
fn an_errand_that_is_late_is_dropped_unanswered() {
    let mut shard = Shard::new(Box::new(MemoryLog::default()));
    shard.wish_by(publish(1), clock::monotonic_ns() - 1);
    shard.wish(Wish::Room(RoomName::parse("room1").unwrap()));
    assert_eq!(shard.turn(), [Outcome::Room(None)], "nothing was published");
}

#[test]
fn messages_that_the_log_does_not_answer_are_bounded() {
    let mut shard = Shard::new(Box::new(Silent));
    let (mut sent, mut busy) = (0, 0);
    while busy == 0 {
        shard.wish(publish(sent % 7));
        sent += 1;
        busy = shard.turn().iter().filter(|outcome| **outcome == Outcome::Busy).count();
        assert!(sent < 10_000, "never full");
    }
    assert_eq!(sent, 1_024 + 1);
}
