//! Every state that waits has a deadline, and each is seen to pass: a walk through the table of `config::Deadline`.
//!
//! Production reactors on the fake kernel and in virtual time, so that the times are exact and the test takes none. Each scenario brings a shard into
//! the state, lets time go by, and tells what came of it, in the words of the table, and after how long. The two rows that are about whole processes
//! are walked in `serve_drain` and `serve_takeover`.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fmt::Write;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex};

use crossbeam_channel::{Receiver, Sender, bounded};
use ringroom::auth::{Answer, FailureRules, Failures, Full, Pass, Ticket, Verifier};
use ringroom::chat::{Appended, Entry, Grant, Identity, Rules, Token};
use ringroom::cluster::log::{Log, MemoryLog};
use ringroom::config::{Deadline, Network, Settings};
use ringroom::ids::{Epoch, Now, ShardId, UserName};
use ringroom::mesh::directory::Directory;
use ringroom::mesh::mesh;
use ringroom::reactor::counters::{Counters, Shared};
use ringroom::reactor::{Control, Next, Parts, Reactor, Report, TokenLogin};
use ringroom::ring::ListenerId;
use ringroom::ring::fake::{ConnectionId, FakeIo, FakeKernel, Fault, KernelSettings, Rates};
use serde_json::{Value, json};

const MS: u64 = 1_000_000;
/// The wheel's step and the fake kernel's own delays.
const LATE_MS: u64 = 1_200;
/// No scenario takes longer, in virtual time.
const PATIENCE_MS: u64 = 120_000;

/// All different, so that a state that takes another one's time is found.
fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.limits.handshake_ms = 3_000;
    settings.limits.frame_ms = 7_000;
    settings.limits.heartbeat_ms = 20_000;
    settings.limits.join_ms = 14_000;
    settings.limits.log_ms = 10_000;
    settings.limits.absence_ms = 4_500;
    settings.auth.verify_ms = 1_500;
    settings.queues.no_progress_ms = 17_000;
    settings.history.age_ms = 30_000;
    settings
}

/// A log that gives no answer.
#[derive(Debug)]
struct MuteLog;

impl Log for MuteLog {
    fn append(&mut self, _now: Now, _token: Token, _entry: &Entry) {}
    fn answers(&mut self, _now: Now, _out: &mut Vec<Appended>) {}
    fn next_ns(&self) -> Option<u64> {
        None
    }
}

/// Lets `good` in, for an hour; of other tokens it says nothing.
#[derive(Debug, Default)]
struct HalfMute(Vec<Answer>);

impl Verifier for HalfMute {
    fn ask(&mut self, now: Now, ticket: Ticket, token: &str) -> Result<(), Full> {
        if token == "good" {
            let grant = Grant { expires_at: NonZeroU64::new(now.unix_ms + 3_600_000), ..Grant::default() };
            self.0.push(Answer { ticket, verdict: Ok(Pass { user: UserName::parse("ann").unwrap(), begin_ms: 0, grant }) });
        }
        Ok(())
    }
    fn answers(&mut self, _now: Now, out: &mut Vec<Answer>) {
        out.append(&mut self.0);
    }
    fn next_ns(&self) -> Option<u64> {
        (!self.0.is_empty()).then_some(0)
    }
}

/// What a scenario asks for beside the defaults.
#[derive(Clone, Copy, Default)]
struct With {
    shards: u16,
    tokens: bool,
    mute_log: bool,
    narrow_mesh: bool,
    proxies: bool,
}

struct House {
    kernel: FakeKernel,
    shards: Vec<Reactor<FakeIo>>,
    counters: Vec<Arc<Counters>>,
    orders: Vec<Sender<Control>>,
    _reports: Receiver<Report>,
    /// Shards that are not run.
    frozen: Vec<bool>,
    settings: Settings,
}

impl Drop for House {
    fn drop(&mut self) {
        // A scenario ends where its deadline has passed, with connections still open.
        self.kernel.abandon();
    }
}

struct Client {
    id: ConnectionId,
    bytes: Vec<u8>,
}

fn frame(object: &Value) -> Vec<u8> {
    let json = object.to_string();
    [&u32::try_from(json.len()).unwrap().to_be_bytes()[..], json.as_bytes()].concat()
}

/// An object in the words of the table.
fn told(object: &Value) -> String {
    let mut words = object["type"].as_str().unwrap_or_default().to_owned();
    if let (Some(code), Some(reason)) = (object["code"].as_u64(), object["reason"].as_str()) {
        write!(words, " {code} {reason}").unwrap();
    }
    if let Some(event) = object["event"].as_str() {
        write!(words, " {event}").unwrap();
    }
    words
}

impl House {
    fn new(with: With) -> Self {
        let mut settings = settings();
        if with.proxies {
            settings.server.proxies = vec![Network::parse("0.0.0.0/0").unwrap()];
        }
        let shards = with.shards.max(1);
        let kernel = FakeKernel::new(KernelSettings {
            seed: 7,
            shards: usize::from(shards),
            listeners: 1,
            buffers: 64,
            buffer_bytes: 2_048,
            submissions: 256,
            rates: Rates::quiet(),
            classify: |_| None,
        });
        let shared = (Arc::new(settings.clone()), Arc::new(Directory::default()), Arc::new(Shared::default()));
        let (report, reports) = bounded(64);
        let mut house = Self {
            kernel,
            shards: Vec::new(),
            counters: Vec::new(),
            orders: Vec::new(),
            _reports: reports,
            frozen: vec![false; usize::from(shards)],
            settings,
        };
        for (index, port) in mesh(shards, if with.narrow_mesh { 4 } else { 64 }).into_iter().enumerate() {
            let shard = ShardId(u16::try_from(index).unwrap());
            let identity = Identity { shard, shards, epoch: Epoch(1), node: "n".into(), hash_seeds: [1, 2, 3, 4] };
            let mut rules = Rules::new(identity, &house.settings);
            if with.narrow_mesh {
                (rules.requests_per_peer_max, rules.deliveries_per_peer_max) = (1, 1);
            }
            let failures = Arc::new(Mutex::new(Failures::new(FailureRules { per_min: 60, burst: 60 }, [1, 2, 3, 4])));
            let (order, control) = bounded(8);
            let counters = Arc::new(Counters::default());
            let parts = Parts {
                rules,
                settings: shared.0.clone(),
                listeners: 1,
                connections_max: 1_000,
                port,
                log: if with.mute_log { Box::new(MuteLog) } else { Box::new(MemoryLog::default()) },
                login: with.tokens.then(|| TokenLogin { verifier: Box::<HalfMute>::default(), failures }),
                directory: shared.1.clone(),
                counters: counters.clone(),
                shared: shared.2.clone(),
                control,
                errands: bounded(1).1,
                report: report.clone(),
            };
            house.shards.push(Reactor::new(parts, house.kernel.io(shard)));
            house.counters.push(counters);
            house.orders.push(order);
        }
        house
    }

    fn now_ms(&self) -> u64 {
        self.kernel.now_ns() / MS
    }

    /// Runs the shards and moves the time until `found` finds what it looks for.
    #[track_caller]
    fn until<T>(&mut self, mut found: impl FnMut(&mut Self) -> Option<T>) -> T {
        let end_ms = self.now_ms() + PATIENCE_MS;
        loop {
            let mut ran = false;
            for index in 0..self.shards.len() {
                let shard = ShardId(u16::try_from(index).unwrap());
                if self.frozen[index] || !self.kernel.is_awake(shard) {
                    continue;
                }
                ran = true;
                if let Next::Sleep { until_ns } = self.shards[index].turn() {
                    self.shards[index].sleep(until_ns).unwrap();
                }
            }
            if let Some(found) = found(self) {
                return found;
            }
            assert!(self.now_ms() < end_ms, "it never came: {:?}", self.shards.iter().map(Reactor::inspect).collect::<Vec<_>>());
            // A turn that leaves work takes some time too.
            let step_ns = self.kernel.now_ns() + if ran { MS / 50 } else { MS };
            let next_ns = self.kernel.next_event_ns().unwrap_or(u64::MAX).max(self.kernel.now_ns() + 1);
            self.kernel.advance_to(step_ns.min(next_ns));
        }
    }

    fn connect(&mut self, window: usize) -> Client {
        Client { id: self.kernel.connect(ShardId(0), ListenerId(0), window), bytes: Vec::new() }
    }

    fn say(&self, client: &Client, object: &Value) {
        self.kernel.client_write(client.id, &frame(object));
    }

    fn read(&mut self, client: &mut Client) -> Option<Value> {
        self.kernel.client_read(client.id, usize::MAX, &mut client.bytes);
        let length = client.bytes.first_chunk::<4>().map(|header| 4 + u32::from_be_bytes(*header) as usize)?;
        (client.bytes.len() >= length).then(|| {
            let frame: Vec<u8> = client.bytes.drain(..length).collect();
            serde_json::from_slice(&frame[4..]).unwrap()
        })
    }

    #[track_caller]
    fn hear(&mut self, client: &mut Client) -> Value {
        self.until(|house| house.read(client))
    }

    /// The next object of this kind.
    #[track_caller]
    fn find(&mut self, client: &mut Client, kind: &str) -> Value {
        loop {
            let object = self.hear(client);
            if object["type"] == kind {
                return object;
            }
        }
    }

    #[track_caller]
    fn login(&mut self, user: &str, window: usize) -> Client {
        let mut client = self.connect(window);
        self.say(&client, &json!({"type": "hello", "version": 1, "user": user, "token": "good"}));
        assert_eq!(self.hear(&mut client)["type"], "welcome");
        client
    }

    /// A user who lives on this shard.
    fn user_of(&mut self, shard: usize) -> String {
        for n in 0.. {
            let user = format!("u{n}");
            let before = self.shards[shard].inspect().chat.sessions;
            let client = self.login(&user, 65_536);
            let here = self.shards[shard].inspect().chat.sessions > before;
            self.kernel.client_close(client.id);
            self.until(|house| house.shards.iter().all(|shard| shard.inspect().connections.is_empty()).then_some(()));
            if here {
                return user;
            }
        }
        unreachable!()
    }

    /// Rooms whose home is this shard; nobody is left in them.
    fn rooms_of(&mut self, shard: usize, count: usize) -> Vec<String> {
        let mut client = self.login("searcher", 65_536);
        let mut rooms = Vec::new();
        for n in 0.. {
            let room = format!("r{n}");
            self.say(&client, &json!({"type": "join", "room": room}));
            self.find(&mut client, "joined");
            if self.shards[shard].inspect().chat.homes == 1 {
                rooms.push(room.clone());
            }
            self.say(&client, &json!({"type": "leave", "room": room}));
            self.find(&mut client, "left");
            if rooms.len() == count {
                break;
            }
        }
        self.kernel.client_close(client.id);
        self.until(|house| house.shards.iter().all(|shard| shard.inspect().connections.is_empty()).then_some(()));
        rooms
    }

    /// What comes next, in the words of the table, and how long it took.
    #[track_caller]
    fn time(&mut self, client: &mut Client) -> (String, u64) {
        let begin_ms = self.now_ms();
        let object = self.hear(client);
        (told(&object), self.now_ms() - begin_ms)
    }

    #[track_caller]
    fn time_until_closed(&mut self, client: &Client, begin_ms: u64) -> (String, u64) {
        let id = client.id;
        self.until(|house| house.kernel.server_closed(id).then_some(()));
        ("closed".into(), self.now_ms() - begin_ms)
    }

    /// A session whose window is full of answers that it does not read.
    #[track_caller]
    fn stuck(&mut self) -> Client {
        let client = self.login("ann", 600);
        for id in 0..100 {
            self.say(&client, &json!({"type": "ping", "id": id}));
        }
        self.until(|house| (house.shards[0].inspect().queued_bytes > 1_000).then_some(()));
        client
    }
}

fn proxy_header() -> (String, u64) {
    let mut house = House::new(With { proxies: true, ..With::default() });
    let mut client = house.connect(65_536);
    house.kernel.client_write(client.id, b"\r\n\r\n\0\r\nQUIT\n\x21\x11");
    house.time(&mut client)
}

fn handshake() -> (String, u64) {
    let mut house = House::new(With::default());
    let mut client = house.connect(65_536);
    house.kernel.client_write(client.id, &frame(&json!({"type": "hello"}))[..9]);
    house.time(&mut client)
}

fn verdict() -> (String, u64) {
    let mut house = House::new(With { tokens: true, ..With::default() });
    let mut client = house.connect(65_536);
    house.say(&client, &json!({"type": "hello", "version": 1, "token": "other"}));
    house.time(&mut client)
}

fn renewal() -> (String, u64) {
    let mut house = House::new(With { tokens: true, ..With::default() });
    let mut client = house.login("ann", 65_536);
    house.say(&client, &json!({"type": "hello", "version": 1, "token": "other"}));
    house.time(&mut client)
}

fn moving() -> (String, u64) {
    let mut house = House::new(With { shards: 2, ..With::default() });
    let user = house.user_of(1);
    house.frozen[1] = true;
    let mut client = house.connect(65_536);
    let begin_ms = house.now_ms();
    house.say(&client, &json!({"type": "hello", "version": 1, "user": user}));
    let end_ms = begin_ms + Deadline::Move.ms(&house.settings);
    house.until(|house| (house.now_ms() > end_ms).then_some(()));
    house.frozen[1] = false;
    let object = house.hear(&mut client);
    (told(&object), house.now_ms() - begin_ms)
}

fn half_a_frame() -> (String, u64) {
    let mut house = House::new(With::default());
    let mut client = house.login("ann", 65_536);
    house.kernel.client_write(client.id, &[0, 0, 1]);
    house.time(&mut client)
}

fn silence(kind: &str) -> (String, u64) {
    let mut house = House::new(With::default());
    let mut client = house.login("ann", 65_536);
    let begin_ms = house.now_ms();
    let object = house.find(&mut client, kind);
    (told(&object), house.now_ms() - begin_ms)
}

fn no_progress() -> (String, u64) {
    let mut house = House::new(With::default());
    let mut client = house.stuck();
    let begin_ms = house.now_ms();
    house.until(|house| house.counters[0].ends().iter().any(|(name, _)| *name == "slow_consumer").then_some(()));
    let took_ms = house.now_ms() - begin_ms;
    let object = house.find(&mut client, "bye");
    (told(&object), took_ms)
}

/// A request to shard 1, which does not run, behind another one, which fills the way.
fn blocked(request: impl FnOnce(&[String]) -> Value) -> (String, u64) {
    let mut house = House::new(With { shards: 2, narrow_mesh: true, ..With::default() });
    let (user, rooms) = (house.user_of(0), house.rooms_of(1, 2));
    let mut client = house.login(&user, 65_536);
    house.frozen[1] = true;
    house.say(&client, &json!({"type": "join", "id": 1, "room": rooms[0]}));
    house.say(&client, &request(&rooms));
    house.time(&mut client)
}

fn held() -> (String, u64) {
    let mut house = House::new(With { shards: 2, narrow_mesh: true, ..With::default() });
    let (sender, reader, room) = (house.user_of(0), house.user_of(1), house.rooms_of(0, 1).remove(0));
    let mut clients = [house.login(&sender, 65_536), house.login(&reader, 65_536)];
    for client in &mut clients {
        house.say(client, &json!({"type": "join", "room": room, "echo": false}));
        house.find(client, "joined");
    }
    house.frozen[1] = true;
    for n in 0..20 {
        house.say(&clients[0], &json!({"type": "send", "id": n, "room": room, "body": n}));
    }
    let begin_ms = house.now_ms();
    let object = house.find(&mut clients[0], "error");
    (told(&object), house.now_ms() - begin_ms)
}

fn mute_log(house: &mut House) -> Client {
    let mut client = house.login("ann", 65_536);
    house.say(&client, &json!({"type": "join", "room": "lobby"}));
    house.find(&mut client, "joined");
    house.say(&client, &json!({"type": "send", "room": "lobby", "body": 1}));
    client
}

fn log() -> (String, u64) {
    let mut house = House::new(With { mute_log: true, ..With::default() });
    let mut client = mute_log(&mut house);
    house.time(&mut client)
}

fn absence() -> (String, u64) {
    let mut house = House::new(With::default());
    let (mut ann, bob) = (house.login("ann", 65_536), house.login("bob", 65_536));
    for client in [&ann, &bob] {
        house.say(client, &json!({"type": "join", "room": "lobby", "presence": true}));
    }
    house.find(&mut ann, "member");
    house.kernel.client_reset(bob.id);
    house.time(&mut ann)
}

fn answering() -> (String, u64) {
    let mut house = House::new(With { mute_log: true, ..With::default() });
    let mut client = mute_log(&mut house);
    house.until(|house| (house.shards[0].inspect().chat.appends == 1).then_some(()));
    house.orders[0].send(Control::Drain).unwrap();
    house.kernel.ring(ShardId(0));
    house.time(&mut client)
}

fn flush() -> (String, u64) {
    let mut house = House::new(With::default());
    let client = house.stuck();
    house.kernel.client_write(client.id, &[0; 4]);
    house.until(|house| house.counters[0].ends().iter().any(|(name, _)| *name == "bad_frame").then_some(()));
    let begin_ms = house.now_ms();
    house.time_until_closed(&client, begin_ms)
}

fn linger() -> (String, u64) {
    let mut house = House::new(With::default());
    let mut client = house.login("ann", 65_536);
    house.say(&client, &json!({"type": "bye"}));
    assert_eq!(house.hear(&mut client)["code"], 0);
    let begin_ms = house.now_ms();
    house.time_until_closed(&client, begin_ms)
}

/// The completions of what is cut come seconds late.
fn cut() -> (String, u64) {
    let mut house = House::new(With::default());
    let client = house.stuck();
    house.kernel.client_write(client.id, &[0; 4]);
    house.until(|house| house.counters[0].ends().iter().any(|(name, _)| *name == "bad_frame").then_some(()));
    let mut rates = Rates::quiet();
    rates.set(Fault::Delayed, 1_000_000);
    house.kernel.set_rates(rates);
    let cuts = |house: &House| house.kernel.table().cells[Fault::CancelTooLate as usize].iter().sum::<u64>();
    let none = cuts(&house);
    house.until(|house| (cuts(house) > none).then_some(()));
    let begin_ms = house.now_ms();
    // A receive and a send are cut, some turns apart.
    house.until(|house| (house.now_ms() > begin_ms + 100).then_some(()));
    let first = cuts(&house);
    house.until(|house| (cuts(house) > first).then_some(()));
    let took_ms = house.now_ms() - begin_ms;
    house.kernel.set_rates(Rates::quiet());
    house.until(|house| house.kernel.server_closed(client.id).then_some(()));
    ("cut again".into(), took_ms)
}

/// Out of descriptors for some time: the longest pause is over when the next try comes.
fn accept() -> (String, u64) {
    let mut house = House::new(With::default());
    let mut rates = Rates::quiet();
    rates.set(Fault::AcceptFailed, 1_000_000);
    house.kernel.set_rates(rates);
    let mut client = house.connect(65_536);
    let tries = |house: &House| house.counters[0].accept_errors.get();
    // 20, 40, .. ms: after so many the pause grows no longer.
    house.until(|house| (tries(house) == 8).then_some(()));
    house.kernel.set_rates(Rates::quiet());
    let begin_ms = house.now_ms();
    house.say(&client, &json!({"type": "hello", "version": 1, "user": "ann"}));
    assert_eq!(house.hear(&mut client)["type"], "welcome");
    ("tried again".into(), house.now_ms() - begin_ms)
}

fn walk(state: Deadline) -> Option<(String, u64)> {
    Some(match state {
        Deadline::ProxyHeader => proxy_header(),
        Deadline::Handshake => handshake(),
        Deadline::Verdict => verdict(),
        Deadline::Renewal => renewal(),
        Deadline::Move => moving(),
        Deadline::Frame => half_a_frame(),
        Deadline::Ping => silence("ping"),
        Deadline::Idle => silence("bye"),
        Deadline::Progress => no_progress(),
        Deadline::Blocked => blocked(|rooms| json!({"type": "send", "id": 2, "room": rooms[0], "body": 1})),
        Deadline::Join => blocked(|rooms| json!({"type": "join", "id": 2, "room": rooms[1]})),
        Deadline::Held => held(),
        Deadline::Log => log(),
        Deadline::Absence => absence(),
        Deadline::Answering => answering(),
        Deadline::Flush => flush(),
        Deadline::Linger => linger(),
        Deadline::Cut => cut(),
        Deadline::Accept => accept(),
        // Whole processes: serve_drain and serve_takeover.
        Deadline::Drain | Deadline::Release => return None,
    })
}

#[test]
fn every_deadline_of_the_table_passes_in_its_time_and_says_what_the_table_says() {
    let settings = settings();
    for state in Deadline::ALL {
        let Some((then, took_ms)) = walk(state) else { continue };
        let (row, ms) = (state.row(), state.ms(&settings));
        assert_eq!(then, row.then, "{state:?}: {}", row.state);
        // A reader that has stopped counts from the look at its send that found the last byte gone, of which there are ten.
        let late_ms = LATE_MS + if state == Deadline::Progress { ms / 10 } else { 0 };
        assert!((ms..=ms + late_ms).contains(&took_ms), "{state:?} took {took_ms} ms of {ms}: {}", row.state);
    }
}

#[test]
fn an_idle_shard_forgets_what_is_too_old_and_hardly_wakes_for_it() {
    let mut house = House::new(With::default());
    let mut ann = house.login("ann", 65_536);
    house.say(&ann, &json!({"type": "send", "id": 1, "room": "@ann", "body": 1}));
    house.find(&mut ann, "sent");
    let begin_ms = house.now_ms();
    house.kernel.client_reset(ann.id);
    house.until(|house| house.kernel.server_closed(ann.id).then_some(()));
    assert_eq!(house.shards[0].inspect().chat.retained_rooms, 1);
    let turns = house.counters[0].turns.get();
    house.until(|house| (house.shards[0].inspect().chat.retained_rooms == 0).then_some(()));
    let (took_ms, age_ms) = (house.now_ms() - begin_ms, house.settings.history.age_ms);
    assert!((age_ms..=age_ms + LATE_MS).contains(&took_ms), "{took_ms}");
    let turns = house.counters[0].turns.get() - turns;
    assert!(turns <= 2 * age_ms / 1_000, "a turn a second or so, not one a tick: {turns}");
}
