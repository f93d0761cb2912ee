//! Whole runs of the generator against the real server: what it claims of a run holds, and what it can't do ends with one line.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use clap::Parser;
use crossbeam_channel::Receiver;
use ringroom::load::plan::Plan;
use ringroom::load::report::live::Style;
use ringroom::load::scenario::Scenario;
use ringroom::load::{Args, Exit, Outside, execute};
use ringroom::sys::signals::Signal;
use support::{Server, Value, wait_until};

#[derive(Parser)]
#[command(args_override_self = true)]
struct Line {
    #[command(flatten)]
    args: Args,
}

fn args(words: &str) -> Args {
    Line::try_parse_from(words.split_whitespace()).unwrap().args
}

fn run(words: &str) -> (Exit, String) {
    let mut out = Vec::new();
    let exit = execute(&args(words), &mut Outside { out: &mut out, style: Style::Plain, signals: crossbeam_channel::never() });
    (exit, String::from_utf8(out).unwrap())
}

/// 24 connections for a second and a half; flags in `extra` replace these.
fn load(server: &Server, extra: &str) -> (Exit, Value) {
    let words = format!(
        "load --connect {} --connections 24 --rooms 4 --rate 400 --warmup 0.3 --duration 1.2 --grace 20 --probes 0 --json {extra}",
        server.address()
    );
    let (exit, text) = run(&words);
    let last = text.lines().last().unwrap();
    (exit, serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {text}")))
}

/// Everything arrived once and in order; a generator without a CPU may still call its figures invalid.
#[track_caller]
fn assert_sound((exit, result): &(Exit, Value)) {
    assert!(matches!(exit, Exit::Ok | Exit::Invalid), "{exit:?}: {result:#}");
    let faults = result["faults"].as_object().unwrap();
    assert!(faults.values().all(|count| *count == 0), "{result:#}");
    assert!(result["sent_in_all"].as_u64().unwrap() > 0, "{result:#}");
}

fn count(result: &Value, name: &str) -> u64 {
    result["latency"][name]["count"].as_u64().unwrap_or(0)
}

#[test]
fn connections_that_come_back_miss_nothing_and_get_nothing_twice() {
    let server = Server::start(2, "");
    let ran = load(&server, "--churners 8 --churn 20 --storm 0.6s --away 0.1 --duration 2");
    assert_sound(&ran);
    let remarks = &ran.1["remarks"];
    assert!(remarks["reconnects"].as_u64().unwrap() >= 8, "{remarks}");
    assert!(remarks["recovered"].as_u64().unwrap() >= 8, "{remarks}");
    assert_eq!(remarks["not_recovered"], 0, "{remarks}");
    assert_eq!(
        ran.1["deliveries_in_all"].as_u64().unwrap() + remarks["missed_by_closed"].as_u64().unwrap(),
        ran.1["deliveries_expected_in_all"]
    );
    assert_eq!(count(&ran.1, "reconnect"), remarks["reconnects"].as_u64().unwrap());
}

#[test]
fn rooms_of_all_sizes_direct_messages_probes_and_two_threads_add_up() {
    let server = Server::start(2, "");
    let ran = load(
        &server,
        "--rooms 6 --room-size zipf:20:1 --direct-share 0.3 --size 64-900 --threads 2 --probes 2 --sample 3 --arrivals burst:5 --warmup 2.2",
    );
    assert_sound(&ran);
    let result = &ran.1;
    let sent = result["counts"]["sent"].as_u64().unwrap();
    let direct = count(result, "dm.delivery");
    assert!(direct > 0 && count(result, "probe") > 0, "{result:#}");
    // Every message to a room has one last receiver, whichever thread it is on.
    let to_rooms = count(result, "room.last");
    assert!(to_rooms > sent / 3 && to_rooms < sent, "{to_rooms} of {sent}");
    assert_eq!(result["deliveries_in_all"], result["deliveries_expected_in_all"]);
    // Threads look at their clocks at different times; their seconds are the same all the same.
    let starts: Vec<u64> = result["seconds"].as_array().unwrap().iter().map(|second| second["start_ns"].as_u64().unwrap()).collect();
    assert!(starts.len() >= 5 && starts.windows(2).all(|pair| pair[0] < pair[1]), "{starts:?}");
    let timed = count(result, "room.delivery");
    assert!(timed * 2 < result["counts"]["delivered"].as_u64().unwrap(), "one receiver in three is timed: {result:#}");
    assert_eq!((&result["plan"]["mode"], &result["plan"]["sample_every"]), (&Value::from("mixed"), &Value::from(3)));
}

#[test]
fn slow_and_stopped_readers_are_no_fault() {
    let server = Server::start(1, "");
    let ran = load(&server, "--slow 3 --slow-pace 1000 --stopped 3");
    assert_sound(&ran);
    assert_eq!(ran.1["deliveries_in_all"], ran.1["deliveries_expected_in_all"]);
}

#[test]
fn requests_for_the_past_are_timed_apart() {
    let server = Server::start(1, "");
    let ran = load(&server, "--history 60 --history-limit 5");
    assert_sound(&ran);
    assert!(count(&ran.1, "history") > 10, "{:#}", ran.1);
}

#[test]
fn phases_ramp_and_spike_as_the_scenario_says() {
    let server = Server::start(1, "");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("burst.toml");
    let phases = "# Up, and far up.\nconnections = 30\nrooms = 3\nwarmup = 0\n[[phase]]\nfor = \"1s\"\nfrom = 0\nto = 200\n[[phase]]\nname = \"spike\"\nfor = 1\nrate = 900\n";
    std::fs::write(&file, phases).unwrap();
    let words = format!("load --connect {} --scenario {} --arrivals constant --probes 0 --json", server.address(), file.display());
    let (exit, text) = run(&words);
    let result: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_sound(&(exit, result.clone()));
    assert_eq!((&result["scenario"]["name"], &result["scenario"]["about"]), (&Value::from("burst"), &Value::from("Up, and far up.")));
    assert_eq!(result["plan"]["phases"][1]["name"], "spike");
    let offered: Vec<u64> = result["seconds"].as_array().unwrap().iter().map(|second| second["offered"].as_u64().unwrap()).collect();
    assert_eq!(offered.iter().sum::<u64>(), result["counts"]["offered"].as_u64().unwrap());
    assert!((990..=1_001).contains(&offered.iter().sum::<u64>()), "{offered:?}");
}

#[test]
fn an_objective_sets_the_exit_code() {
    let server = Server::start(1, "");
    let (exit, result) = load(&server, "--slo delivery.p50<50s --slo delivery.max<1ns --slo sent.p99.99<1s");
    assert!(matches!(exit, Exit::Faulty | Exit::Invalid), "{result:#}");
    let met: Vec<Option<bool>> = result["slo"].as_array().unwrap().iter().map(|slo| slo["met"].as_bool()).collect();
    assert_eq!(met, [Some(true), Some(false), None], "{result:#}");
    assert!(matches!(result["verdict"].as_str(), Some("missed" | "invalid")), "{result:#}");
}

#[test]
fn a_closed_loop_is_labelled_and_keeps_its_messages_under_way() {
    let server = Server::start(1, "");
    let words =
        format!("load --connect {} --connections 10 --closed 20 --warmup 0 --duration 0.5 --grace 20 --probes 0 --json", server.address());
    let (_, text) = run(&words);
    let result: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(result["loop"], "closed", "{result:#}");
    assert!(text.contains("closed loop: maximum throughput"), "{text}");
    assert!(result["faults"].as_object().unwrap().values().all(|count| *count == 0), "{result:#}");
    assert!(result["sent_in_all"].as_u64().unwrap() > 20, "the answers let more follow: {result:#}");
}

#[test]
fn the_search_says_when_no_rate_holds() {
    let server = Server::start(1, "");
    let words = format!(
        "load --connect {} --connections 4 --rate 4 --warmup 0 --duration 0.2 --probes 0 --find-max --slo delivery.max<1ns",
        server.address()
    );
    let (exit, text) = run(&words);
    assert_eq!(exit, Exit::Faulty, "{text}");
    assert!(text.contains("4 msg/s  not held") && text.lines().last().unwrap().contains("no rate held"), "{text}");
}

/// Output of an agent that can be looked at while it runs.
#[derive(Clone, Default)]
struct Shown(Arc<Mutex<Vec<u8>>>);

impl Write for Shown {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Shown {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// An agent on a free port: its address, and what ends it.
fn agent() -> (String, crossbeam_channel::Sender<Signal>, thread::JoinHandle<Exit>) {
    let (stop, signals) = crossbeam_channel::bounded(1);
    let shown = Shown::default();
    let mut out = shown.clone();
    let handle = thread::spawn(move || {
        let signals: Receiver<Signal> = signals;
        execute(&args("load --agent 127.0.0.1:0"), &mut Outside { out: &mut out, style: Style::Plain, signals })
    });
    wait_until("the agent's line", || shown.text().contains("agent ready on"));
    let address = shown.text().lines().next().unwrap().rsplit(' ').next().unwrap().to_owned();
    (address, stop, handle)
}

#[test]
fn two_agents_are_one_generator() {
    let server = Server::start(2, "");
    let agents = [agent(), agent()];
    let list = format!("{},{}", agents[0].0, agents[1].0);
    let directory = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        // An agent serves one driver after the other.
        let ran = load(&server, &format!("--agents {list} --connections 25 --out {}", directory.path().display()));
        assert_sound(&ran);
        let result = &ran.1;
        assert_eq!(result["deliveries_in_all"], result["deliveries_expected_in_all"], "{result:#}");
        let parts = result["agents"].as_array().unwrap();
        let connections: u64 = parts.iter().map(|part| part["connections"].as_u64().unwrap()).sum();
        assert_eq!((parts.len(), connections), (2, 25));
        let sum: u64 = parts.iter().map(|part| part["delivery"]["count"].as_u64().unwrap()).sum();
        assert_eq!(count(result, "delivery"), sum, "counts are added");
        assert!(parts.iter().all(|part| part["sent_in_all"].as_u64().unwrap() > 0));
        assert_eq!(count(result, "connect"), 25);
        assert!(directory.path().join("run.hlog").metadata().unwrap().len() > 100);
    }
    for (_, stop, handle) in agents {
        stop.send(Signal::Drain).unwrap();
        assert_eq!(handle.join().unwrap(), Exit::Ok);
    }
}

#[test]
fn an_agent_that_is_none_or_is_lost_ends_the_run_with_one_line() {
    let server = Server::start(1, "");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = nobody.local_addr().unwrap();
    let other = thread::spawn(move || {
        let (mut stream, _): (TcpStream, _) = nobody.accept().unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        // Until the driver has had enough of it.
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    for word in ["a message over its bound", "refused"] {
        let (exit, text) = run(&format!("load --connect {} --rooms 1 --connections 4 --probes 0 --agents {gone}", server.address()));
        assert!(
            exit == Exit::Unreachable && text.contains("agent 127.0.0.1") && text.contains(word) && text.lines().count() == 1,
            "{text}"
        );
    }
    other.join().unwrap();
}

#[test]
fn what_cannot_be_done_ends_with_one_line_before_load_starts() {
    let server = Server::start(1, "[limits]\nrequests_per_s = 50\nrequests_burst = 100\nrooms_per_session = 2\n");
    let directory = tempfile::tempdir().unwrap();
    let bad = directory.path().join("bad.toml");
    std::fs::write(&bad, "connections = 5\nroms = 3\n").unwrap();
    for (extra, words) in [
        ("--scenario /no/such/file.toml".to_owned(), "No such file"),
        (format!("--scenario {}", bad.display()), "line 2: unknown field `roms`"),
        ("--rate 0".to_owned(), "--rate 0"),
        ("--room-size 25".to_owned(), "--room-size 25"),
        ("--rate 2000".to_owned(), "50 requests/s"),
        ("--rooms 3 --room-size 24".to_owned(), "the server allows 2"),
        ("--slo delivery<1s".to_owned(), "no quantile"),
        ("--slo latency.p99<1s".to_owned(), "no such name"),
        ("--source here".to_owned(), "--source here"),
        ("--source ::1".to_owned(), "other family"),
        ("--churners 3".to_owned(), "churn needs both"),
        ("--churners 20 --churn 1 --slow 5".to_owned(), "more than --connections"),
        ("--stopped 24".to_owned(), "nobody is left to send"),
        ("--probes 1 --direct-share 1".to_owned(), "there are none in this plan"),
        ("--cpus 5-3".to_owned(), "backwards"),
        ("--agents 127.0.0.1:1,127.0.0.1:2,127.0.0.1:3 --rooms 2".to_owned(), "agent 127.0.0.1:1"),
        ("--connections 900000 --rate 1".to_owned(), "can open"),
    ] {
        let words_before = format!("load --connect {} --connections 24 --rooms 2 --room-size 12 --rate 100 {extra}", server.address());
        let (exit, text) = run(&words_before);
        assert!(matches!(exit, Exit::Usage | Exit::Unreachable), "{extra}: {exit:?} {text}");
        assert!(text.lines().count() == 1 && text.contains(words), "{extra}: {text}");
    }
}

#[test]
fn a_target_that_closes_is_told_from_one_that_is_not_there() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let closing = thread::spawn(move || drop(listener.accept()));
    let (exit, text) = run(&format!("load --connect {address} --connections 1"));
    closing.join().unwrap();
    assert!(exit == Exit::Unreachable && text.lines().count() == 1, "{text}");
    assert!(text.contains("closed the connection") || text.contains("reset"), "{text}");
    let (exit, text) = run(&format!("load --connect {address} --connections 1"));
    assert!(exit == Exit::Unreachable && text.contains("unreachable") && text.lines().count() == 1, "{text}");
}

fn scenarios() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/scenarios");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn every_ready_made_scenario_says_what_it_shows_and_keeps_to_the_servers_default_limits() {
    let files = scenarios();
    assert!(files.len() >= 12, "{files:?}");
    for file in files {
        let scenario = Scenario::read(&file).unwrap();
        assert!(scenario.about.is_some_and(|about| about.contains("hows ") || about.contains("how")), "{file:?}");
        let plan =
            Plan::new(scenario.shape.wish("127.0.0.1:1".parse().unwrap(), 2).unwrap()).unwrap_or_else(|error| panic!("{file:?}: {error}"));
        assert!(plan.rate_per_user() <= 50.0, "{file:?}: {} per user", plan.rate_per_user());
        assert!(plan.rooms_per_user_max() <= 100, "{file:?}: {} rooms", plan.rooms_per_user_max());
    }
}

/// A Python that has the package `hdrhistogram`: the one that `scripts/test` makes, or the system's.
fn python() -> Option<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python/bin/python");
    [own, "python3".into()].into_iter().find(|python| {
        let answer = Command::new(python).args(["-c", "import hdrh.log"]).output();
        answer.is_ok_and(|answer| answer.status.success())
    })
}

#[test]
fn an_independent_reader_finds_the_same_in_every_file() {
    let Some(python) = python() else {
        eprintln!("skipped: no Python with the package hdrhistogram (scripts/test installs it into target/python where it can)");
        return;
    };
    let server = Server::start(1, "");
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().display();
    let ran = load(&server, &format!("--probes 1 --direct-share 0.2 --history 20 --churners 2 --churn 2 --away 0.1 --out {out}"));
    assert_sound(&ran);
    let check = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hlog/check.py");
    let answer = Command::new(python).arg(&check).arg(directory.path()).output().unwrap();
    let said = String::from_utf8_lossy(&answer.stdout).into_owned() + &String::from_utf8_lossy(&answer.stderr);
    assert!(answer.status.success(), "{said}");
    // A reader that finds nothing wrong in a spoilt file reads nothing.
    let csv = directory.path().join("seconds.csv");
    let text = std::fs::read_to_string(&csv).unwrap();
    let rows: Vec<&str> = text.lines().collect();
    std::fs::write(&csv, rows[..rows.len() - 2].join("\n")).unwrap();
    assert!(!Command::new(python_of(&said)).arg(&check).arg(directory.path()).output().unwrap().status.success());
}

fn python_of(said: &str) -> String {
    said.lines().find_map(|line| line.strip_prefix("python ")).unwrap().to_owned()
}
