//! The rules in memory, without ring or socket: what chat adds to a delivery, a login, a join.
//!
//! One shard; its effects are counted as a reactor would carry them out, the memory log answers at once.

mod support;

use bytes::Bytes;
use ringroom::chat::{Effect, Effects, Flow, Identity, Login, Rules, Shard};
use ringroom::cluster::log::{Log, MemoryLog};
use ringroom::config::Settings;
use ringroom::ids::{Epoch, Key, Now, ShardId};
use ringroom::protocol::message::{Request, decode};
use support::{Clock, Group, Mode, mix};

const NOW: Now = Now { mono_ns: 1_000_000_000, unix_ms: 1_700_000_000_000 };

fn rules() -> Rules {
    let identity = Identity { shard: ShardId(0), shards: 1, epoch: Epoch(1), node: "bench".to_owned(), hash_seeds: [1, 2, 3, 4] };
    let mut settings = Settings::default();
    settings.limits.requests_per_s = 1_000_000;
    settings.limits.requests_burst = 1_000_000;
    Rules::new(identity, &settings)
}

/// A shard with its log, and what it has said so far as a hash.
struct Bench {
    shard: Shard,
    log: MemoryLog,
    effects: Effects,
    answers: Vec<ringroom::chat::Appended>,
    now: Now,
    hash: u64,
}

impl Bench {
    fn new() -> Self {
        let (shard, log, effects) = (Shard::new(rules()), MemoryLog::default(), Effects::default());
        Self { shard, log, effects, answers: Vec::new(), now: NOW, hash: 0 }
    }

    fn session(slot: u32) -> Key {
        Key { slot, generation: 1 }
    }

    fn log_in(&mut self, slot: u32) {
        let json = format!(r#"{{"type":"hello","version":1,"user":"u{slot:08}"}}"#);
        let Ok(Request::Hello(hello)) = decode(json.as_bytes()) else { unreachable!("a good hello") };
        let login = Login::check(&hello).expect("a good hello");
        self.shard.handle_login(self.now, Self::session(slot), login, u64::from(slot), &mut self.effects);
        self.settle();
    }

    fn request(&mut self, slot: u32, request: &Request<'_>) {
        let flow = self.shard.handle_request(self.now, Self::session(slot), request, &mut self.effects);
        assert_eq!(flow, Flow::Next);
        self.settle();
    }

    /// Does what a reactor would do with the effects, short of bytes.
    fn settle(&mut self) {
        loop {
            self.carry_out();
            self.log.answers(self.now, &mut self.answers);
            let Some(answer) = self.answers.pop() else { return };
            self.shard.handle_appended(self.now, answer, &mut self.effects);
        }
    }

    fn carry_out(&mut self) {
        for effect in self.effects.list.drain(..) {
            match effect {
                Effect::Queue { session, payload, .. } => self.hash = mix(self.hash, u64::from(session.slot) + bytes_of(&payload)),
                Effect::Fanout { payload, targets, .. } => {
                    for session in &self.effects.targets[targets] {
                        self.hash = mix(self.hash, u64::from(session.slot));
                    }
                    self.hash = mix(self.hash, bytes_of(&payload));
                }
                Effect::Append { token, entry } => self.log.append(self.now, token, &entry),
                other => panic!("unexpected here: {other:?}"),
            }
        }
        self.effects.clear();
    }
}

fn bytes_of(payload: &Bytes) -> u64 {
    payload.len() as u64
}

fn room_of(members: u32) -> Bench {
    let mut bench = Bench::new();
    let join = decode(br#"{"type":"join","id":1,"room":"lobby"}"#).expect("a good join");
    for slot in 0..members {
        bench.log_in(slot);
        bench.request(slot, &join);
    }
    bench.hash = 0;
    bench
}

fn publish(clock: &mut Clock, members: u32, messages: u32) -> u64 {
    let mut bench = room_of(members);
    let json = format!(r#"{{"type":"send","id":7,"room":"lobby","body":{{"x":"{}"}}}}"#, "x".repeat(120));
    clock.time(|| {
        for message in 0..messages {
            let send = decode(json.as_bytes()).expect("a good send");
            bench.now.unix_ms += 1;
            bench.request(message % members, &send);
        }
        bench.hash
    })
}

fn fan_out() {
    let messages = Mode::get().pick(500, 20_000);
    let operations = |members: u32| u64::from(messages) * u64::from(members);
    Group::new("chat.fanout", format!("messages={messages} body_bytes=128 decode=yes, ns per delivery"))
        .case("room of 2", operations(2), |clock| publish(clock, 2, messages))
        .case("room of 100", operations(100), |clock| publish(clock, 100, messages))
        .case("room of 1,000", operations(1_000), |clock| publish(clock, 1_000, messages))
        .run();
}

fn come_and_go() {
    let sessions = Mode::get().pick(1_000, 15_000);
    let join = decode(br#"{"type":"join","id":1,"room":"lobby"}"#).expect("a good join");
    let leave = decode(br#"{"type":"leave","id":2,"room":"lobby"}"#).expect("a good leave");
    Group::new("chat.sessions", format!("sessions={sessions}, ns per session"))
        .case("login", u64::from(sessions), |clock| {
            let mut bench = Bench::new();
            clock.time(|| (0..sessions).for_each(|slot| bench.log_in(slot)));
            bench.hash
        })
        .case("join", u64::from(sessions), |clock| {
            let mut bench = Bench::new();
            (0..sessions).for_each(|slot| bench.log_in(slot));
            clock.time(|| (0..sessions).for_each(|slot| bench.request(slot, &join)));
            bench.hash
        })
        .case("leave, from the front", u64::from(sessions), |clock| {
            let mut bench = room_of(sessions);
            clock.time(|| (0..sessions).for_each(|slot| bench.request(slot, &leave)));
            bench.hash
        })
        .case("end without a word", u64::from(sessions), |clock| {
            let mut bench = room_of(sessions);
            clock.time(|| {
                for slot in 0..sessions {
                    bench.shard.handle_closed(NOW, Bench::session(slot), &mut bench.effects);
                    bench.settle();
                }
            });
            bench.shard.usage().sessions as u64
        })
        .run();
}

fn main() {
    fan_out();
    come_and_go();
}
