//! The rules in memory: some shards, perfect queues between them, an embedded log, sessions that keep what they are told.
#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use ringroom::chat::{Appended, Effect, Effects, Envelope, Flow, Grant, Identity, Login, Publish, Rules, Shard};
use ringroom::cluster::log::{Log, MemoryLog};
use ringroom::config::Settings;
use ringroom::ids::{Epoch, Key, Now, SessionId, ShardId, UserName, WirePosition};
use ringroom::protocol::error::Reason;
use ringroom::protocol::message::decode;
use serde_json::Value;

pub const EPOCH: Epoch = Epoch(0xabc);

pub fn rules(shard: u16, shards: u16) -> Rules {
    let identity = Identity { shard: ShardId(shard), shards, epoch: EPOCH, node: "n".into(), hash_seeds: [1, 2, 3, 4] };
    let mut settings = Settings::default();
    settings.limits.requests_per_s = 1_000_000;
    settings.limits.requests_burst = 1_000_000;
    settings.history.room_messages = 2_000;
    settings.history.age_ms = 600_000;
    settings.history.shard_bytes = 8 << 20;
    Rules::new(identity, &settings)
}

pub struct Cluster {
    pub shards: Vec<Shard>,
    logs: Vec<MemoryLog>,
    queues: HashMap<(u16, u16), VecDeque<Envelope>>,
    pub told: HashMap<(u16, Key), Vec<Value>>,
    pub raw: HashMap<(u16, Key), Vec<Bytes>>,
    pub ended: HashMap<(u16, Key), Reason>,
    pub holds: HashMap<(u16, Key), i32>,
    pub now: Now,
    next: u32,
}

pub type Who = (u16, SessionId);

impl Cluster {
    pub fn new(shards: u16, change: impl Fn(&mut Rules)) -> Self {
        let make = |shard| {
            let mut rules = rules(shard, shards);
            change(&mut rules);
            Shard::new(rules)
        };
        Self {
            shards: (0..shards).map(make).collect(),
            logs: (0..shards).map(|_| MemoryLog::default()).collect(),
            queues: HashMap::new(),
            told: HashMap::new(),
            raw: HashMap::new(),
            ended: HashMap::new(),
            holds: HashMap::new(),
            now: Now { mono_ns: 1_000_000_000, unix_ms: 1_700_000_000_000 },
            next: 0,
        }
    }

    pub fn pass(&mut self, ms: u64) {
        self.now.mono_ns += ms * 1_000_000;
        self.now.unix_ms += ms;
        for shard in 0..self.shards.len() {
            let mut out = Effects::default();
            self.shards[shard].handle_tick(self.now, &mut out);
            self.carry_out(shard, out);
        }
        self.run();
    }

    pub fn login(&mut self, user: &str, inbox: Option<&str>) -> Who {
        self.login_with(user, inbox, Grant::default())
    }

    /// The way of a session whose token says more than a name.
    pub fn login_with(&mut self, user: &str, inbox: Option<&str>, grant: Grant) -> Who {
        let home = self.shards[0].home_of_user(user).0;
        let id = Key { slot: self.next, generation: 1 };
        self.next += 1;
        let login = Login { user: UserName::parse(user).unwrap(), device: None, inbox: inbox.map(WirePosition::parse), grant };
        let mut out = Effects::default();
        self.shards[usize::from(home)].handle_login(self.now, id, login, u64::from(id.slot), &mut out);
        self.carry_out(home.into(), out);
        self.run();
        (home, id)
    }

    pub fn close(&mut self, who: Who) {
        let mut out = Effects::default();
        self.shards[usize::from(who.0)].handle_closed(self.now, who.1, &mut out);
        self.carry_out(who.0.into(), out);
        self.run();
    }

    /// The session's queue is over the soft mark.
    pub fn slow(&mut self, who: Who) {
        let mut out = Effects::default();
        self.shards[usize::from(who.0)].handle_slow(self.now, who.1, &mut out);
        self.carry_out(who.0.into(), out);
        self.run();
    }

    /// It is down again.
    pub fn fast(&mut self, who: Who) {
        let mut out = Effects::default();
        self.shards[usize::from(who.0)].handle_fast(self.now, who.1, &mut out);
        self.carry_out(who.0.into(), out);
        self.run();
    }

    /// How often the session is held back now.
    pub fn held(&self, who: Who) -> i32 {
        self.holds.get(&who).copied().unwrap_or(0)
    }

    /// Offers a request until it is taken; what it has to wait for passes meanwhile.
    pub fn ask(&mut self, who: Who, json: &str) {
        for _ in 0..1_000 {
            match self.offer(who, json) {
                Flow::Next | Flow::Verify => return self.run(),
                Flow::Blocked(_) => self.run(),
                Flow::Later { at_ms } => self.pass(at_ms - self.now.mono_ms()),
            }
        }
        panic!("{json} was never taken");
    }

    pub fn offer(&mut self, who: Who, json: &str) -> Flow {
        let mut out = Effects::default();
        let flow = match decode(json.as_bytes()) {
            Ok(request) => self.shards[usize::from(who.0)].handle_request(self.now, who.1, &request, &mut out),
            Err(refusal) => panic!("{json}: {refusal:?}"),
        };
        self.carry_out(who.0.into(), out);
        flow
    }

    /// Publishes without a session, at the room's home; the answer is told to whoever is given back.
    pub fn publish(&mut self, publish: &Publish) -> Who {
        let home = self.shards[0].home_of_user(publish.room.as_str()).0;
        self.next += 1;
        let ticket = self.next;
        let mut out = Effects::default();
        self.shards[usize::from(home)].handle_publish(self.now, ticket, publish, &mut out);
        self.carry_out(home.into(), out);
        self.run();
        outside(home, ticket)
    }

    /// The verdict on a second `hello` has come.
    pub fn renew(&mut self, who: Who, user: &str, grant: Grant) -> bool {
        let mut out = Effects::default();
        let fresh = (UserName::parse(user).unwrap(), grant);
        let renewed = self.shards[usize::from(who.0)].handle_renewal(self.now, who.1, fresh, &mut out);
        self.carry_out(who.0.into(), out);
        self.run();
        renewed
    }

    /// What the session was told since the last call.
    pub fn take(&mut self, who: Who) -> Vec<Value> {
        self.told.remove(&who).unwrap_or_default()
    }

    /// Asks and takes.
    pub fn hear(&mut self, who: Who, json: &str) -> Vec<Value> {
        self.take(who);
        self.ask(who, json);
        self.take(who)
    }

    pub fn run(&mut self) {
        loop {
            let Some(pair) = self.queues.iter().find(|(_, queue)| !queue.is_empty()).map(|(pair, _)| *pair) else { return };
            let envelope = self.queues.get_mut(&pair).unwrap().pop_front().unwrap();
            let mut out = Effects::default();
            self.shards[usize::from(pair.1)].handle_envelope(self.now, ShardId(pair.0), envelope, &mut out);
            self.shards[usize::from(pair.0)].handle_outbox(ShardId(pair.1), 0);
            self.carry_out(pair.1.into(), out);
        }
    }

    fn carry_out(&mut self, shard: usize, mut out: Effects) {
        let from = u16::try_from(shard).unwrap();
        let mut closed = Vec::new();
        for effect in out.list.drain(..) {
            match effect {
                Effect::Queue { session, payload, .. } => self.tell((from, session), &payload),
                Effect::Fanout { payload, targets, .. } => {
                    for session in &out.targets[targets] {
                        self.tell((from, *session), &payload);
                    }
                }
                Effect::Tell { ticket, payload } => self.tell(outside(from, ticket), &payload),
                Effect::Post { to, envelope } => self.queues.entry((from, to.0)).or_default().push_back(envelope),
                Effect::Append { token, entry } => self.logs[shard].append(self.now, token, &entry),
                Effect::Close { session, reason, .. } => {
                    self.ended.insert((from, session), reason);
                    closed.push(session);
                }
                Effect::HangUp { session } => closed.push(session),
                Effect::Hold { session } => *self.holds.entry((from, session)).or_default() += 1,
                Effect::Release { session } => *self.holds.entry((from, session)).or_default() -= 1,
            }
        }
        let mut answers: Vec<Appended> = Vec::new();
        self.logs[shard].answers(self.now, &mut answers);
        for answer in answers {
            let mut out = Effects::default();
            self.shards[shard].handle_appended(self.now, answer, &mut out);
            self.carry_out(shard, out);
        }
        for session in closed {
            let mut out = Effects::default();
            self.shards[shard].handle_closed(self.now, session, &mut out);
            self.carry_out(shard, out);
        }
    }

    fn tell(&mut self, who: Who, payload: &Bytes) {
        let mut rest = &payload[..];
        while !rest.is_empty() {
            let len = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
            let json = &rest[4..4 + len];
            self.told.entry(who).or_default().push(serde_json::from_slice(json).unwrap());
            self.raw.entry(who).or_default().push(Bytes::copy_from_slice(json));
            rest = &rest[4 + len..];
        }
    }
}

/// Under which name what is told to a ticket is kept.
fn outside(shard: u16, ticket: u32) -> Who {
    (shard, Key { slot: u32::MAX, generation: ticket })
}

/// The bodies of the messages among what a session was told.
pub fn bodies(told: &[Value]) -> Vec<i64> {
    told.iter().filter(|o| o["type"] == "message").map(|o| o["body"].as_i64().unwrap()).collect()
}
