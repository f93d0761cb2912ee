//! The generator must see what a bad server does: each fault is planted in a small server of this file's own, on real sockets.
//!
//! The server speaks just enough of protocol.md, written from that page with the standard library and serde_json alone.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use clap::Parser;
use ringroom::load::report::live::Style;
use ringroom::load::{Args, Exit, Outside, execute};
use ringroom::sys::affinity::{Cpu, available, pin_current_thread};
use ringroom::sys::signals::Signal;
use serde_json::{Value, json};

/// What the server does wrong, once, at the given delivery (or message, for the stall and the refusal).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    Lose(u64),
    Double(u64),
    /// The delivery comes behind the next one to the same member.
    Swap(u64),
    /// One byte of the body is changed.
    Garble(u64),
    /// The member's connection is closed instead.
    Close(u64),
    /// Nothing is read or written for half a second.
    Stall(u64),
    /// The message is refused, not delivered.
    Refuse(u64),
    /// The message is delivered, its `sent` is not.
    Silence(u64),
    /// Every message takes a hundredth of a second.
    Slow,
    /// The server ends, for good.
    End(u64),
}

const STALL: Duration = Duration::from_millis(500);

struct State {
    fault: Fault,
    limits: Value,
    messages: u64,
    deliveries: u64,
    rooms: HashMap<String, Vec<Member>>,
    next_member: u64,
    ended: bool,
}

struct Member {
    id: u64,
    stream: TcpStream,
    held: Option<Vec<u8>>,
}

struct Server {
    address: SocketAddr,
    /// Where connections came from.
    sources: Arc<Mutex<Vec<SocketAddr>>>,
}

impl Server {
    fn start(fault: Fault) -> Self {
        Self::with_limits(fault, json!({"body_bytes": 61_440, "requests_per_s": 100_000}))
    }

    fn with_limits(fault: Fault, limits: Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = State { fault, limits, messages: 0, deliveries: 0, rooms: HashMap::new(), next_member: 0, ended: false };
        let state = Arc::new(Mutex::new(state));
        let sources = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&sources);
        // Ends with the test process; each session ends with its connection.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, state) = (stream.unwrap(), Arc::clone(&state));
                if state.lock().unwrap().ended {
                    return;
                }
                seen.lock().unwrap().push(stream.peer_addr().unwrap());
                thread::spawn(move || session(stream, &state));
            }
        });
        Self { address, sources }
    }
}

fn frame(text: &[u8]) -> Vec<u8> {
    [&u32::try_from(text.len()).unwrap().to_be_bytes()[..], text].concat()
}

fn reply(mut stream: &TcpStream, object: &Value) {
    let _ = stream.write_all(&frame(object.to_string().as_bytes()));
}

/// Reads objects until the client is gone.
fn session(mut stream: TcpStream, state: &Mutex<State>) {
    stream.set_nodelay(true).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut user = String::new();
    loop {
        let mut header = [0; 4];
        if stream.read_exact(&mut header).is_err() {
            return;
        }
        let mut bytes = vec![0; u32::from_be_bytes(header) as usize];
        if stream.read_exact(&mut bytes).is_err() {
            return;
        }
        let text = String::from_utf8(bytes).unwrap();
        let object: Value = serde_json::from_str(&text).unwrap();
        let mut state = state.lock().unwrap();
        match object["type"].as_str().unwrap() {
            "hello" => {
                user = object["user"].as_str().unwrap().to_owned();
                reply(&stream, &json!({"type":"welcome","version":1,"user":user,"limits":state.limits}));
                join(&mut state, &stream, &format!("@{user}"));
            }
            "join" => {
                let room = object["room"].as_str().unwrap();
                reply(&stream, &json!({"type":"joined","id":object["id"],"room":room,"at":"1.0-0","members":1,"replay":0}));
                join(&mut state, &stream, room);
            }
            "send" => {
                let body = text.split_once(r#""body":"#).unwrap().1;
                let body = &body[..body.len() - 1];
                on_send(&mut state, &stream, Sent { user: &user, object: &object, body });
            }
            "bye" => return,
            _ => {}
        }
    }
}

fn join(state: &mut State, stream: &TcpStream, room: &str) {
    let member = Member { id: state.next_member, stream: stream.try_clone().unwrap(), held: None };
    state.next_member += 1;
    state.rooms.entry(room.to_owned()).or_default().push(member);
}

struct Sent<'a> {
    user: &'a str,
    object: &'a Value,
    body: &'a str,
}

fn on_send(state: &mut State, stream: &TcpStream, sent: Sent<'_>) {
    let number = state.messages;
    state.messages += 1;
    let (room, id) = (sent.object["room"].as_str().unwrap(), &sent.object["id"]);
    if state.fault == Fault::Stall(number) {
        thread::sleep(STALL);
    }
    if state.fault == Fault::Slow {
        thread::sleep(STALL / 50);
    }
    if state.fault == Fault::End(number) {
        state.ended = true;
        for member in state.rooms.values().flatten() {
            let _ = member.stream.shutdown(Shutdown::Both);
        }
        return;
    }
    if state.fault == Fault::Refuse(number) {
        reply(stream, &json!({"type":"error","id":id,"code":503,"reason":"overloaded","message":"later"}));
        return;
    }
    if state.fault != Fault::Silence(number) {
        reply(stream, &json!({"type":"sent","id":id,"room":room,"at":format!("1.{number}-0")}));
    }
    let head = format!(r#"{{"type":"message","room":"{room}","at":"1.{number}-0","from":"{}","ts":1,"body":"#, sent.user);
    let message = frame(format!("{head}{}}}", sent.body).as_bytes());
    let fault = state.fault;
    let mut closed = None;
    for member in state.rooms.get_mut(room).into_iter().flatten() {
        let delivery = state.deliveries;
        state.deliveries += 1;
        deliver(member, &message, (fault, delivery));
        if fault == Fault::Close(delivery) {
            closed = Some(member.id);
        }
    }
    if let Some(members) = state.rooms.get_mut(room) {
        members.retain(|member| Some(member.id) != closed);
    }
}

fn deliver(member: &mut Member, message: &[u8], (fault, delivery): (Fault, u64)) {
    let mut bytes = message.to_vec();
    if fault == Fault::Swap(delivery) {
        member.held = Some(bytes);
        return;
    }
    if fault == Fault::Lose(delivery) {
        return;
    }
    if fault == Fault::Close(delivery) {
        let _ = member.stream.write_all(&frame(br#"{"type":"bye","code":429,"reason":"slow_consumer"}"#));
        let _ = member.stream.shutdown(Shutdown::Both);
        return;
    }
    if fault == Fault::Garble(delivery) {
        let at = bytes.len() - 5;
        bytes[at] = b'y';
    }
    if fault == Fault::Double(delivery) {
        bytes.extend_from_slice(message);
    }
    bytes.extend(member.held.take().unwrap_or_default());
    let _ = member.stream.write_all(&bytes);
}

#[derive(Parser)]
#[command(args_override_self = true)]
struct Line {
    #[command(flatten)]
    args: Args,
}

const SHORT: &str = "--warmup 0 --duration 0.5 --grace 1 --json";

fn args(words: &str) -> Args {
    Line::try_parse_from(words.split_whitespace()).unwrap().args
}

/// Two rooms of four; flags in `extra` replace these.
fn load(address: &str, extra: &str) -> (Exit, String) {
    let words = format!("load --connect {address} --connections 8 --rooms 2 --room-size 4 --rate 400 {SHORT} {extra}");
    run(&args(&words), crossbeam_channel::never())
}

fn run(args: &Args, signals: crossbeam_channel::Receiver<Signal>) -> (Exit, String) {
    let mut out = Vec::new();
    let exit = execute(args, &mut Outside { out: &mut out, style: Style::Plain, signals });
    (exit, String::from_utf8(out).unwrap())
}

fn result(text: &str) -> Value {
    serde_json::from_str(text.lines().last().unwrap()).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The faults that are not zero. A generator that had no CPU may call the run invalid; one that is faulty is never called sound, nor the other way round.
fn faults(fault: Fault, extra: &str) -> Vec<(String, u64)> {
    let server = Server::start(fault);
    let (exit, text) = load(&server.address.to_string(), extra);
    let result = result(&text);
    let all = result["faults"].as_object().unwrap();
    let wrong: Vec<(String, u64)> = all.iter().map(|(name, n)| (name.clone(), n.as_u64().unwrap())).filter(|(_, n)| *n > 0).collect();
    assert!(is_called(exit, if wrong.is_empty() { Exit::Ok } else { Exit::Faulty }), "{exit:?}: {text}");
    wrong
}

/// The exit is the wanted one, or the generator had no CPU.
fn is_called(exit: Exit, wanted: Exit) -> bool {
    exit == wanted || exit == Exit::Invalid
}

fn is(name: &str, count: u64) -> (String, u64) {
    (name.to_owned(), count)
}

#[test]
fn a_sound_server_has_no_faults() {
    for extra in ["", "--arrivals constant", "--threads 3", "--no-spin", "--room-size 8", "--size 64", "--size 4000"] {
        assert_eq!(faults(Fault::None, extra), [], "{extra}");
    }
}

#[test]
fn every_delivery_of_every_message_is_counted() {
    let server = Server::start(Fault::None);
    let (_, text) = load(&server.address.to_string(), "--warmup 0.3");
    let result = result(&text);
    let (sent, delivered) = (result["sent_in_all"].as_u64().unwrap(), result["deliveries_in_all"].as_u64().unwrap());
    assert!(sent > 100, "{sent}");
    assert_eq!(delivered, sent * 4);
    let window = result["counts"]["sent"].as_u64().unwrap();
    assert!(window < sent, "the warm-up is not in the window");
    // Deliveries of the window's messages are measured, and the answers to its senders.
    assert_eq!(result["latency"]["delivery"]["count"], window * 4);
    assert_eq!(result["latency"]["sent"]["count"], window);
    assert_eq!(result["latency"]["room.last"]["count"], window);
    assert_eq!(result["latency"]["connect"]["count"], 8);
}

#[test]
fn direct_messages_are_checked_too() {
    let direct = |fault| {
        let server = Server::start(fault);
        let words = format!("load --connect {} --connections 6 --rate 300 --direct {SHORT}", server.address);
        run(&args(&words), crossbeam_channel::never())
    };
    let (exit, text) = direct(Fault::None);
    assert!(matches!(exit, Exit::Ok | Exit::Invalid), "{text}");
    let (exit, text) = direct(Fault::Lose(20));
    assert!(is_called(exit, Exit::Faulty) && result(&text)["faults"]["lost"] == 1, "{text}");
}

#[test]
fn a_lost_delivery_is_caught() {
    assert_eq!(faults(Fault::Lose(101), ""), vec![is("lost", 1)]);
    assert_eq!(faults(Fault::Lose(101), "--threads 2"), vec![is("lost", 1)]);
}

#[test]
fn a_delivery_lost_in_the_warm_up_is_caught() {
    assert_eq!(faults(Fault::Lose(3), "--warmup 0.3"), vec![is("lost", 1)]);
}

#[test]
fn a_doubled_delivery_is_caught() {
    assert_eq!(faults(Fault::Double(101), ""), vec![is("doubled", 1)]);
}

#[test]
fn a_senders_messages_in_the_wrong_order_are_caught() {
    let one = "--connections 1 --rooms 1 --room-size 1";
    assert_eq!(faults(Fault::Swap(50), one), vec![is("out_of_order", 1)]);
}

#[test]
fn a_member_that_sees_another_order_than_the_others_is_caught() {
    assert_eq!(faults(Fault::Swap(101), ""), vec![is("order_differs", 1)]);
}

#[test]
fn a_changed_body_is_caught() {
    assert_eq!(faults(Fault::Garble(101), ""), vec![is("garbled", 1), is("lost", 1)]);
}

#[test]
fn a_closed_connection_is_caught_and_its_reason_shown() {
    let server = Server::start(Fault::Close(101));
    let (exit, text) = load(&server.address.to_string(), "");
    let result = result(&text);
    assert!(is_called(exit, Exit::Faulty) && result["faults"]["closed"] == 1, "{text}");
    assert_eq!(result["remarks"]["closed"]["429 slow_consumer"], 1, "{text}");
    assert_eq!(result["faults"]["lost"], 0, "told with the close, and counted apart: {text}");
    assert!(result["remarks"]["missed_by_closed"].as_u64().unwrap() > 0, "{text}");
}

#[test]
fn a_missing_answer_is_caught() {
    assert_eq!(faults(Fault::Silence(20), ""), vec![is("unanswered", 1)]);
}

/// Threads that take nine tenths of the first CPU until this is dropped.
struct Thieves(Arc<AtomicBool>);

impl Thieves {
    fn start(cpu: Cpu) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        for _ in 0..9 {
            let over = Arc::clone(&over);
            thread::spawn(move || {
                pin_current_thread(cpu).unwrap();
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Self(over)
    }
}

impl Drop for Thieves {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_starved_generator_calls_its_run_invalid_and_still_tells_the_faults() {
    let cpu = available().unwrap()[0];
    let thieves = Thieves::start(cpu);
    let server = Server::start(Fault::Lose(101));
    let (exit, text) = load(&server.address.to_string(), &format!("--rate 2000 --cpus {} --grace 20", cpu.index()));
    drop(thieves);
    assert_eq!(exit, Exit::Invalid, "{text}");
    let result = result(&text);
    assert_eq!((&result["verdict"], &result["exit"], &result["faults"]["lost"]), (&json!("invalid"), &json!(2), &json!(1)), "{text}");
    let reasons: Vec<&str> = result["reasons"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(reasons.contains(&"deliveries lost: 1") && reasons.iter().any(|reason| reason.contains("the generator was late")), "{text}");
    // Rates are of the time that it took.
    let (window_ns, sent) = (result["window_ns"].as_f64().unwrap(), result["counts"]["sent"].as_f64().unwrap());
    assert!(window_ns >= 500_000_000.0, "{text}");
    assert!((result["sent_per_s"].as_f64().unwrap() - sent / window_ns * 1e9).abs() <= 1.0, "{text}");
}

#[test]
fn a_light_plan_is_called_ok() {
    // Deliveries take 10 ms, so a generator is on time that is late by less than a millisecond.
    let server = Server::start(Fault::Slow);
    let mut last = String::new();
    for _ in 0..20 {
        let (exit, text) = load(&server.address.to_string(), "--rate 20 --arrivals constant --connections 4 --rooms 1");
        assert!(is_called(exit, Exit::Ok), "{text}");
        if exit == Exit::Ok {
            assert_eq!(result(&text)["verdict"], "ok");
            return;
        }
        last = text;
    }
    panic!("always invalid: {last}");
}

#[test]
fn a_server_that_the_search_has_ended_is_its_answer() {
    let server = Server::start(Fault::End(30));
    let words = format!("load --connect {} --connections 4 --rate 50 --warmup 0 --duration 0.3 --grace 1 --find-max", server.address);
    let (exit, text) = run(&args(&words), crossbeam_channel::never());
    assert_eq!(exit, Exit::Faulty, "{text}");
    assert!(text.contains("not held") && text.lines().last().unwrap().contains("the server has not come back"), "{text}");
}

#[test]
fn requests_for_the_past_that_never_left_are_counted() {
    // This server answers none, so each of the eight connections has one under way soon.
    let server = Server::start(Fault::None);
    let (exit, text) = load(&server.address.to_string(), "--history 100 --history-limit 5 --threads 1");
    let unsent = result(&text)["unsent"].as_u64().unwrap();
    assert!(unsent > 10, "some fifty were due: {text}");
    assert_eq!(exit, Exit::Invalid, "{text}");
}

#[test]
fn a_refused_message_is_shown_and_not_called_lost() {
    let server = Server::start(Fault::Refuse(20));
    let (exit, text) = load(&server.address.to_string(), "");
    let result = result(&text);
    assert!(matches!(exit, Exit::Ok | Exit::Invalid), "{text}");
    assert_eq!((result["excused"].as_u64(), result["counts"]["refused"].as_u64()), (Some(1), Some(1)), "{text}");
    assert_eq!(result["remarks"]["refusals"]["503 overloaded: later"], 1);
}

/// Samples above `us` in a percentile table.
fn over(directory: &Path, name: &str, us: f64) -> u64 {
    let text = std::fs::read_to_string(directory.join(format!("{name}.hgrm"))).unwrap();
    let rows = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let mut columns = line.split_whitespace();
        let value: f64 = columns.next()?.parse().ok()?;
        let total: u64 = columns.nth(1)?.parse().ok()?;
        Some((value, total))
    });
    let rows: Vec<(f64, u64)> = rows.collect();
    let all = rows.iter().map(|row| row.1).max().unwrap();
    all - rows.iter().filter(|row| row.0 <= us).map(|row| row.1).max().unwrap_or(0)
}

/// The value at a quantile in a percentile table, us.
fn at(directory: &Path, name: &str, quantile: f64) -> f64 {
    let text = std::fs::read_to_string(directory.join(format!("{name}.hgrm"))).unwrap();
    let rows = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let mut columns = line.split_whitespace();
        Some((columns.next()?.parse::<f64>().ok()?, columns.next()?.parse::<f64>().ok()?))
    });
    rows.into_iter().find(|(_, at)| *at >= quantile).unwrap().0
}

#[test]
fn the_corrected_p99_sees_a_stall_and_the_uncorrected_does_not() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(Fault::Stall(300));
    let one = "--connections 1 --rooms 1 --room-size 1 --rate 1000 --arrivals constant --duration 1.5";
    let (_, text) = load(&server.address.to_string(), &format!("{one} --out {}", directory.path().display()));
    let half_of_it_us = 250_000.0;
    for name in ["sent", "delivery", "room.last"] {
        assert!(at(directory.path(), name, 0.99) > half_of_it_us, "{name}: {text}");
    }
    assert!(at(directory.path(), "uncorrected", 0.99) < half_of_it_us, "{text}");
}

#[test]
fn connections_come_from_the_source_addresses_in_turn() {
    let server = Server::start(Fault::None);
    let (exit, text) = load(&server.address.to_string(), "--source 127.0.0.2-127.0.0.4,127.0.0.9");
    assert!(matches!(exit, Exit::Ok | Exit::Invalid), "{text}");
    let mut seen: Vec<u8> =
        server.sources.lock().unwrap().iter().map(|source| source.ip().to_string().rsplit('.').next().unwrap().parse().unwrap()).collect();
    seen.sort_unstable();
    // The look at the server's limits comes from wherever the kernel likes.
    assert_eq!(seen, [1, 2, 2, 3, 3, 4, 4, 9, 9]);
}

#[test]
fn a_stall_is_seen_from_the_intended_times_and_hidden_from_a_client_that_waits() {
    let one = "--connections 1 --rooms 1 --room-size 1 --rate 200 --arrivals constant --duration 1.5";
    // A stall that begins between two messages finds no client waiting: then another run.
    let run = || {
        let directory = tempfile::tempdir().unwrap();
        let server = Server::start(Fault::Stall(100));
        let (_, text) = load(&server.address.to_string(), &format!("{one} --out {}", directory.path().display()));
        // In half a second 100 messages were due; those of its first 250 ms waited for more than 250 ms.
        let (seen, hidden) = (over(directory.path(), "sent", 250_000.0), over(directory.path(), "uncorrected", 250_000.0));
        assert!(seen >= 40 && hidden * 5 < seen, "{hidden} of {seen}: {text}");
        (directory, hidden)
    };
    let (directory, hidden) =
        (0..5).map(|_| run()).find(|(_, hidden)| *hidden >= 1).expect("a client that waits for the stall in one of five runs");
    assert!(hidden >= 1);
    assert!(over(directory.path(), "delivery", 250_000.0) >= 40);
    for name in ["result.json", "run.hlog", "lateness.hgrm", "connect.hgrm"] {
        assert!(directory.path().join(name).metadata().unwrap().len() > 100, "{name}");
    }
}

/// Interrupts the run as soon as it shows a measured second.
struct Interrupter {
    text: Vec<u8>,
    news: crossbeam_channel::Sender<Signal>,
}

impl Write for Interrupter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.text.extend_from_slice(bytes);
        if String::from_utf8_lossy(&self.text).contains("measure") {
            // Full: it has been told.
            let _ = self.news.try_send(Signal::Drain);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_signal_ends_the_run_early_with_what_there_is() {
    let server = Server::start(Fault::None);
    let words = format!("load --connect {} --connections 4 --rate 200 --warmup 0 --duration 600 --json", server.address);
    let (news, signals) = crossbeam_channel::bounded(1);
    let mut out = Interrupter { text: Vec::new(), news };
    let exit = execute(&args(&words), &mut Outside { out: &mut out, style: Style::Plain, signals });
    let text = String::from_utf8(out.text).unwrap();
    assert!(matches!(exit, Exit::Ok | Exit::Invalid), "{text}");
    let result = result(&text);
    assert_eq!(result["cut_short"], true);
    assert!(result["latency"]["delivery"]["count"].as_u64().unwrap() > 0, "{text}");
}

#[test]
fn idle_connections_are_held_and_nothing_is_sent() {
    let server = Server::start(Fault::None);
    let words = format!("load --connect {} --connections 20 --rooms 5 {SHORT} --idle", server.address);
    let (exit, text) = run(&args(&words), crossbeam_channel::never());
    assert_eq!(exit, Exit::Ok, "{text}");
    let result = result(&text);
    assert_eq!((result["sent_in_all"].as_u64(), result["latency"]["connect"]["count"].as_u64()), (Some(0), Some(20)));
    assert_eq!(result["server"]["pid"], std::process::id(), "the server is found by its port");
}

#[test]
fn plans_that_cannot_be_carried_out_end_with_one_line() {
    let limits = json!({"body_bytes": 100, "rooms": 1, "requests_per_s": 50});
    let server = Server::with_limits(Fault::None, limits);
    let address = server.address.to_string();
    for (extra, words) in [
        ("--rate 0", "--rate 0"),
        ("--room-size 9", "--room-size 9"),
        ("--size 63", "at least 64"),
        ("--size 61441", "at most 61440"),
        ("--size 101", "at most 100"),
        ("--size 100 --rate 401", "50 requests/s"),
        ("--size 100 --rooms 3", "the server allows 1"),
        ("--connections 900000 --size 100", "can open"),
        ("--server-pid 999999999", "no such process"),
    ] {
        let extra = if extra.contains("--size") { extra.to_owned() } else { format!("{extra} --size 100") };
        let (exit, text) = load(&address, &extra);
        assert_eq!(exit, Exit::Usage, "{extra}: {text}");
        assert!(text.lines().count() == 1 && text.contains(words), "{extra}: {text}");
    }
}

#[test]
fn nobody_there_and_somebody_else_there_are_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let other = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = [0; 1000];
        let _ = stream.read(&mut bytes);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let (exit, text) = load(&address, "");
    assert!(exit == Exit::Unreachable && text.contains("not its protocol: a frame of length") && text.lines().count() == 1, "{text}");
    other.join().unwrap();
    let (exit, text) = load(&address, "");
    assert!(exit == Exit::Unreachable && text.contains("unreachable") && text.lines().count() == 1, "{text}");
}
