//! A shard between a `hello` and the verdict on its token: a reactor on the real ring, with a verifier that answers when the test says so.
#![allow(clippy::unwrap_used, reason = "tests")]

mod ring_support;
mod rules_support;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::num::NonZeroU64;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::bounded;
use ringroom::auth::{Answer, Denied, FailureRules, Failures, Full, Pass, Ticket, Verifier};
use ringroom::chat::Grant;
use ringroom::cluster::log::MemoryLog;
use ringroom::config::Settings;
use ringroom::ids::{Now, UserName};
use ringroom::mesh::directory::Directory;
use ringroom::reactor::counters::{Counters, Shared};
use ringroom::reactor::{Next, Parts, Reactor, TokenLogin};
use ringroom::ring::Ring;
use ringroom::sys::sockets::{self, Listen};
use ringroom::sys::{affinity, clock};
use serde_json::{Value, json};

/// What was asked, what is to be answered.
#[derive(Debug, Default)]
struct Script {
    asked: Vec<(Ticket, String)>,
    answers: Vec<Answer>,
    full: bool,
}

#[derive(Debug)]
struct Scripted(Arc<Mutex<Script>>);

impl Verifier for Scripted {
    fn ask(&mut self, _now: Now, ticket: Ticket, token: &str) -> Result<(), Full> {
        let mut script = self.0.lock().unwrap();
        if script.full {
            return Err(Full);
        }
        script.asked.push((ticket, token.to_owned()));
        Ok(())
    }

    fn answers(&mut self, _now: Now, out: &mut Vec<Answer>) {
        out.append(&mut self.0.lock().unwrap().answers);
    }

    fn next_ns(&self) -> Option<u64> {
        None
    }
}

struct Shard {
    reactor: Reactor<Ring>,
    script: Arc<Mutex<Script>>,
    failures: Arc<Mutex<Failures>>,
    counters: Arc<Counters>,
    address: SocketAddr,
    // The ends that a supervisor would hold.
    _control: crossbeam_channel::Sender<ringroom::reactor::Control>,
}

impl Shard {
    fn new(change: impl FnOnce(&mut Settings)) -> Self {
        let listener = sockets::listener(Listen { address: "127.0.0.1:0".parse().unwrap(), notsent_lowat_bytes: 65_536 }).unwrap();
        let address = sockets::local_address(listener.as_fd()).unwrap();
        let mut settings = Settings::default();
        settings.queues.gather_buffers = 16;
        change(&mut settings);
        let script = Arc::new(Mutex::new(Script::default()));
        let failures = Arc::new(Mutex::new(Failures::new(FailureRules { per_min: 60, burst: 5 }, [1, 2, 3, 4])));
        let (control, orders) = bounded(4);
        let counters = Arc::new(Counters::default());
        let parts = Parts {
            rules: rules_support::rules(0, 1),
            settings: Arc::new(settings),
            listeners: 1,
            connections_max: 1_000,
            port: ringroom::mesh::mesh(1, 64).remove(0),
            log: Box::new(MemoryLog::default()),
            login: Some(TokenLogin { verifier: Box::new(Scripted(script.clone())), failures: failures.clone() }),
            directory: Arc::new(Directory::default()),
            counters: counters.clone(),
            shared: Arc::new(Shared::default()),
            control: orders,
            errands: bounded(1).1,
            report: bounded(4).0,
        };
        let ring = ring_support::ring_with(|setup| setup.listeners.push(listener));
        Self { reactor: Reactor::new(parts, ring), script, failures, counters, address, _control: control }
    }

    /// Turns the shard until `found` finds what it looks for.
    fn until<T>(&mut self, mut found: impl FnMut(&mut Self) -> Option<T>) -> T {
        let deadline = ring_support::after(ring_support::PATIENCE);
        loop {
            let next = self.reactor.turn();
            if let Some(found) = found(self) {
                return found;
            }
            assert!(clock::monotonic_ns() < deadline, "it never came");
            if let Next::Sleep { until_ns } = next {
                // The test's own events ring no bell.
                self.reactor.sleep(until_ns.min(ring_support::after(Duration::from_millis(2)))).unwrap();
            }
        }
    }

    fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_nonblocking(true).unwrap();
        Client { stream, bytes: Vec::new() }
    }

    /// The next question.
    fn question(&mut self) -> (Ticket, String) {
        self.until(|shard| shard.script.lock().unwrap().asked.pop())
    }

    fn answer(&mut self, ticket: Ticket, verdict: Result<Pass, Denied>) {
        self.script.lock().unwrap().answers.push(Answer { ticket, verdict });
    }

    fn hear(&mut self, client: &mut Client) -> Value {
        self.until(|_| client.read())
    }

    /// A session of alice whose token ends after this time.
    fn session(&mut self, left: Duration) -> Client {
        let mut client = self.connect();
        client.say(&hello("first"));
        let (ticket, token) = self.question();
        assert_eq!(token, "first");
        self.answer(ticket, Ok(pass("alice", left)));
        assert_eq!(self.hear(&mut client)["type"], "welcome");
        client
    }

    /// The session is there and answers; nothing came before.
    fn answers_next(&mut self, client: &mut Client) {
        client.say(&json!({"type": "ping", "id": 77}));
        let pong = self.hear(client);
        assert_eq!((&pong["type"], &pong["id"]), (&"pong".into(), &77.into()));
    }

    fn is_empty(&mut self) {
        self.until(|shard| shard.reactor.inspect().connections.is_empty().then_some(()));
        assert_eq!(self.reactor.inspect().unread_bytes, 0);
    }
}

struct Client {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Client {
    fn say(&mut self, object: &Value) {
        let json = object.to_string();
        self.stream.write_all(&u32::try_from(json.len()).unwrap().to_be_bytes()).unwrap();
        self.stream.write_all(json.as_bytes()).unwrap();
    }

    /// One object, if it is there; the end of the stream reads as null.
    fn read(&mut self) -> Option<Value> {
        let mut piece = [0; 4_096];
        let mut ended = false;
        match self.stream.read(&mut piece) {
            Ok(0) => ended = true,
            Ok(count) => self.bytes.extend_from_slice(&piece[..count]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        let whole = self.bytes.first_chunk::<4>().map(|header| 4 + u32::from_be_bytes(*header) as usize);
        match whole {
            Some(len) if self.bytes.len() >= len => {
                let frame: Vec<u8> = self.bytes.drain(..len).collect();
                Some(serde_json::from_slice(&frame[4..]).unwrap())
            }
            _ => ended.then_some(Value::Null),
        }
    }
}

fn hello(token: &str) -> Value {
    json!({"type": "hello", "version": 1, "token": token})
}

fn pass(user: &str, left: Duration) -> Pass {
    let end_ms = clock::unix_ms() + u64::try_from(left.as_millis()).unwrap();
    let grant = Grant { expires_at: NonZeroU64::new(end_ms), ..Grant::default() };
    Pass { user: UserName::parse(user).unwrap(), begin_ms: 0, grant }
}

const HOUR: Duration = Duration::from_secs(3_600);

fn reason(object: &Value) -> (&str, &str) {
    (object["type"].as_str().unwrap_or("end"), object["reason"].as_str().unwrap_or(""))
}

#[test]
fn nothing_behind_hello_is_judged_before_the_verdict() {
    let mut shard = Shard::new(|_| {});
    let mut client = shard.connect();
    client.say(&hello("t"));
    client.say(&json!({"type": "join", "id": 1, "room": "lobby"}));
    client.say(&json!({"type": "nonsense", "id": 2}));
    let (ticket, _) = shard.question();
    assert_eq!(shard.reactor.inspect().chat.places, 0);
    let kept = shard.reactor.inspect().unread_bytes;
    client.stream.write_all(&[b' '; 32 * 1024]).unwrap();
    let mut turns = 0;
    shard.until(|_| {
        turns += 1;
        (turns > 50).then_some(())
    });
    assert_eq!(shard.reactor.inspect().unread_bytes, kept, "nothing more is read");
    assert_eq!(client.read(), None);
    shard.answer(ticket, Ok(pass("alice", HOUR)));
    assert_eq!(shard.hear(&mut client)["user"], "alice");
    let answers = [shard.hear(&mut client), shard.hear(&mut client)];
    assert!(answers.iter().any(|o| o["type"] == "joined") && answers.iter().any(|o| o["reason"] == "unknown_type"), "{answers:?}");
}

#[test]
fn a_login_without_verdict_in_time_is_told_503_and_a_late_one_lets_nobody_in() {
    for (handshake_ms, verify_ms) in [(60_000, 700), (700, 60_000)] {
        let mut shard = Shard::new(|settings| (settings.limits.handshake_ms, settings.auth.verify_ms) = (handshake_ms, verify_ms));
        let mut first = shard.connect();
        first.say(&hello("first"));
        let (stale, _) = shard.question();
        let bye = shard.hear(&mut first);
        assert_eq!(reason(&bye), ("bye", "overloaded"));
        assert!(bye["retry_after_ms"].as_u64() >= Some(1_000), "{bye}");
        assert_eq!(shard.hear(&mut first), Value::Null);
        drop(first);
        shard.is_empty();
        // The slot's next owner.
        let mut second = shard.connect();
        second.say(&hello("second"));
        let (fresh, _) = shard.question();
        assert_eq!(stale.connection.slot, fresh.connection.slot);
        shard.answer(stale, Ok(pass("alice", HOUR)));
        shard.until(|shard| (shard.counters.verdicts_stale.get() == 1).then_some(()));
        shard.answer(Ticket { ask: stale.ask, ..fresh }, Ok(pass("alice", HOUR)));
        shard.until(|shard| (shard.counters.verdicts_stale.get() == 2).then_some(()));
        shard.answer(fresh, Ok(pass("bob", HOUR)));
        assert_eq!(shard.hear(&mut second)["user"], "bob");
        shard.answer(fresh, Ok(pass("alice", HOUR)));
        shard.until(|shard| (shard.counters.verdicts_stale.get() == 3).then_some(()));
        shard.answers_next(&mut second);
    }
}

#[test]
fn a_verifier_that_is_full_or_says_late_turns_a_login_away() {
    let mut shard = Shard::new(|_| {});
    shard.script.lock().unwrap().full = true;
    let mut client = shard.connect();
    client.say(&hello("t"));
    assert_eq!(reason(&shard.hear(&mut client)), ("bye", "overloaded"));
    shard.script.lock().unwrap().full = false;
    let mut late = shard.connect();
    late.say(&hello("t"));
    let (ticket, _) = shard.question();
    shard.answer(ticket, Err(Denied::Late));
    assert_eq!(reason(&shard.hear(&mut late)), ("bye", "overloaded"));
    assert_eq!(shard.counters.verdicts_missed.get(), 2);
    drop((client, late));
    shard.is_empty();
}

#[test]
fn a_renewal_that_nobody_has_time_for_leaves_the_session_in_until_its_old_end() {
    let mut shard = Shard::new(|settings| settings.auth.verify_ms = 100);
    let mut client = shard.session(Duration::from_millis(2_500));
    shard.script.lock().unwrap().full = true;
    client.say(&hello("second"));
    assert_eq!(reason(&shard.hear(&mut client)), ("error", "overloaded"));
    shard.answers_next(&mut client);
    shard.script.lock().unwrap().full = false;
    client.say(&hello("third"));
    client.say(&json!({"type": "ping", "id": 5}));
    let (ticket, _) = shard.question();
    assert_eq!(reason(&shard.hear(&mut client)), ("error", "overloaded"));
    assert_eq!(shard.hear(&mut client)["id"], 5, "what stood behind it goes on");
    shard.answer(ticket, Ok(pass("alice", HOUR)));
    shard.until(|shard| (shard.counters.verdicts_stale.get() == 1).then_some(()));
    assert_eq!(reason(&shard.hear(&mut client)), ("bye", "token_expired"));
    drop(client);
    shard.is_empty();
}

#[test]
fn what_stands_behind_a_renewal_waits_and_the_old_end_no_longer_counts() {
    let mut shard = Shard::new(|_| {});
    let mut client = shard.session(Duration::from_millis(1_500));
    let mut other = shard.session(Duration::from_millis(1_500));
    client.say(&hello("second"));
    client.say(&json!({"type": "ping", "id": 5}));
    let (ticket, _) = shard.question();
    assert_eq!(client.read(), None);
    shard.answer(ticket, Ok(pass("alice", HOUR)));
    assert_eq!(shard.hear(&mut client)["type"], "welcome");
    assert_eq!(shard.hear(&mut client)["id"], 5);
    assert_eq!(reason(&shard.hear(&mut other)), ("bye", "token_expired"));
    shard.answers_next(&mut client);
}

#[test]
fn a_session_that_ends_while_its_renewal_is_checked_frees_everything() {
    let mut shard = Shard::new(|_| {});
    let mut expiring = shard.session(Duration::from_millis(1_000));
    expiring.say(&hello("second"));
    let (first, _) = shard.question();
    assert_eq!(reason(&shard.hear(&mut expiring)), ("bye", "token_expired"));
    let mut closing = shard.session(HOUR);
    closing.say(&hello("second"));
    let (second, _) = shard.question();
    closing.stream.shutdown(Shutdown::Write).unwrap();
    drop(expiring);
    shard.answer(first, Ok(pass("alice", HOUR)));
    shard.until(|shard| (shard.counters.verdicts_stale.get() == 1).then_some(()));
    shard.answer(second, Ok(pass("alice", HOUR)));
    assert_eq!(shard.hear(&mut closing)["type"], "welcome", "it closed its side only");
    assert_eq!(shard.hear(&mut closing), Value::Null);
    drop(closing);
    shard.is_empty();
    assert_eq!(shard.reactor.inspect().chat.sessions, 0);
}

#[test]
fn a_failed_login_is_charged_to_its_address_and_the_verifier_is_spared() {
    let mut shard = Shard::new(|_| {});
    for round in 0..6 {
        let mut client = shard.connect();
        client.say(&hello("bad"));
        if round < 5 {
            let (ticket, _) = shard.question();
            shard.answer(ticket, Err(if round == 0 { Denied::Expired } else { Denied::Bad }));
            assert_eq!(reason(&shard.hear(&mut client)), ("bye", if round == 0 { "token_expired" } else { "bad_token" }));
        } else {
            let bye = shard.hear(&mut client);
            assert_eq!((reason(&bye), bye["retry_after_ms"].as_u64() <= Some(1_001)), (("bye", "rate_limited"), true));
        }
    }
    assert!(shard.script.lock().unwrap().asked.is_empty());
    let now_ms = clock::monotonic_ns() / 1_000_000;
    let mut failures = shard.failures.lock().unwrap();
    assert!(failures.look(now_ms, IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2))).is_ok(), "another address is not meant");
}

#[test]
fn a_thread_can_lower_its_priority() {
    std::thread::spawn(|| affinity::be_nice(10).unwrap()).join().unwrap();
}
