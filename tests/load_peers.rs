//! The generator drives real servers of other projects and finds that each message arrives once and in order.
//!
//! A server that is not installed is skipped with a line that says so; `scripts/compare-peers --install` installs what it may. Each test has a server
//! of its own on a free port of the loopback.
#![allow(clippy::unwrap_used, reason = "a test")]
#![allow(clippy::print_stderr, reason = "says what it skips")]

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use ringroom::load::report::live::Style;
use ringroom::load::{Args, Exit, Outside, execute};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);

/// A server of another project.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    Nats,
    Redis,
    Mosquitto,
}

impl Peer {
    fn target(self) -> &'static str {
        match self {
            Self::Nats => "nats",
            Self::Redis => "redis",
            Self::Mosquitto => "mqtt",
        }
    }

    fn program(self) -> &'static str {
        match self {
            Self::Nats => "nats-server",
            Self::Redis => "redis-server",
            Self::Mosquitto => "mosquitto",
        }
    }

    /// On the path, where Debian puts servers, or where `scripts/compare-peers` installs them.
    fn find(self) -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers/bin");
        let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), installed]);
        folders.map(|folder| folder.join(self.program())).find(|file| file.is_file())
    }

    fn command(self, program: &Path, port: u16, folder: &Path) -> Command {
        let mut command = Command::new(program);
        let port = port.to_string();
        match self {
            Self::Nats => command.args(["-a", "127.0.0.1", "-p", &port]),
            Self::Redis => command.args(["--bind", "127.0.0.1", "--port", &port, "--save", "", "--dir"]).arg(folder),
            Self::Mosquitto => command.args(["-p", &port]),
        };
        command
    }
}

struct Server {
    peer: Peer,
    child: Child,
    address: String,
    _folder: tempfile::TempDir,
}

impl Server {
    /// `None`, with a line, when it is not installed.
    fn start(peer: Peer) -> Option<Self> {
        let Some(program) = peer.find() else {
            eprintln!("skipped: {} is not installed (scripts/compare-peers --install)", peer.program());
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        // The port is free until somebody takes it in between: then another.
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut command = peer.command(&program, port, folder.path());
            let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            let address = format!("127.0.0.1:{port}");
            let listening = is_listening(&mut child, &address);
            // Another program may have got the port first and be the one that answers: ours ends at once then.
            thread::sleep(Duration::from_millis(200));
            if listening && child.try_wait().unwrap().is_none() {
                return Some(Self { peer, child, address, _folder: folder });
            }
        }
        panic!("{} does not start", peer.program());
    }

    fn load(&self, words: &str) -> (Exit, String) {
        load(&format!("--target {} --connect {} {words}", self.peer.target(), self.address))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_listening(child: &mut Child, address: &str) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() && Instant::now() < deadline {
        if TcpStream::connect(address).is_ok() {
            return true;
        }
        thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    let _ = child.wait();
    false
}

#[derive(Parser)]
#[command(args_override_self = true)]
struct Line {
    #[command(flatten)]
    args: Args,
}

/// Flags in `words` replace these.
fn load(words: &str) -> (Exit, String) {
    let words = format!("load --warmup 0 --duration 0.5 --grace 5 --json {words}");
    let args = Line::try_parse_from(words.split_whitespace()).unwrap().args;
    let mut out = Vec::new();
    let exit = execute(&args, &mut Outside { out: &mut out, style: Style::Plain, signals: crossbeam_channel::never() });
    (exit, String::from_utf8(out).unwrap())
}

fn result(text: &str) -> Value {
    serde_json::from_str(text.lines().last().unwrap()).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A generator that had no CPU may call its own figures invalid; a fault must not show.
fn assert_sound(exit: Exit, text: &str) -> Value {
    assert!(matches!(exit, Exit::Ok | Exit::Invalid), "{text}");
    let result = result(text);
    assert!(result["faults"].as_object().unwrap().values().all(|count| count == 0), "{text}");
    assert!(result["remarks"]["refusals"].as_object().is_none_or(serde_json::Map::is_empty), "{text}");
    result
}

fn carries_every_message_once(peer: Peer) {
    let Some(server) = Server::start(peer) else { return };
    for flags in ["", "--size 64-2000 --threads 3", "--room-size 12 --size 61440 --rate 30"] {
        let (exit, text) = server.load(&format!("--connections 12 --rooms 3 --rate 500 {flags}"));
        let result = assert_sound(exit, &text);
        let members = if flags.contains("room-size") { 12 } else { 4 };
        let (sent, delivered) = (result["sent_in_all"].as_u64().unwrap(), result["deliveries_in_all"].as_u64().unwrap());
        assert!(sent > 5, "{text}");
        assert_eq!(delivered, sent * members, "{text}");
        assert_eq!(result["latency"]["sent"]["count"], result["counts"]["sent"], "each has its answer, or its sender's own copy");
        assert_eq!(result["latency"]["connect"]["count"], 12);
    }
}

fn carries_direct_messages(peer: Peer) {
    let Some(server) = Server::start(peer) else { return };
    let (exit, text) = server.load("--connections 6 --rate 300 --direct");
    let result = assert_sound(exit, &text);
    assert_eq!(result["deliveries_in_all"], result["sent_in_all"], "{text}");
    let (exit, text) = server.load("--connections 50 --rooms 5 --idle");
    assert_sound(exit, &text);
}

/// Every connection is cut in the middle of the run: that is a result, and a fault.
fn an_end_of_the_server_is_seen(peer: Peer) {
    let Some(mut server) = Server::start(peer) else { return };
    let words = format!("--target {} --connect {} --connections 4 --duration 30 --rate 200", peer.target(), server.address);
    let run = thread::spawn(move || load(&words));
    let deadline = Instant::now() + PATIENCE;
    while connections_to(&server.address) < 4 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
    server.child.kill().unwrap();
    let (exit, text) = run.join().unwrap();
    // Ended during the logins, it is a server that was lost; in the run, one that failed, and before the first message no run at all.
    assert!(matches!(exit, Exit::Faulty | Exit::Invalid | Exit::Unreachable), "{exit:?}: {text}");
    if exit != Exit::Unreachable {
        assert!(result(&text)["faults"]["closed"].as_u64().unwrap() > 0, "{text}");
    }
}

/// Connections of this host to an address, from the side that opened them.
fn connections_to(address: &str) -> usize {
    const ESTABLISHED: &str = "01";
    let port: u16 = address.rsplit(':').next().unwrap().parse().unwrap();
    let remote = format!(":{port:04X}");
    let text = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let fields = text.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    fields.filter(|fields| fields.len() > 3 && fields[2].ends_with(&remote) && fields[3] == ESTABLISHED).count()
}

#[test]
fn nats_carries_every_message_once_and_in_order() {
    carries_every_message_once(Peer::Nats);
}

#[test]
fn redis_carries_every_message_once_and_in_order() {
    carries_every_message_once(Peer::Redis);
}

#[test]
fn mosquitto_carries_every_message_once_and_in_order() {
    carries_every_message_once(Peer::Mosquitto);
}

#[test]
fn direct_messages_and_idle_connections_work_with_every_peer() {
    [Peer::Nats, Peer::Redis, Peer::Mosquitto].into_iter().for_each(carries_direct_messages);
}

#[test]
fn the_end_of_a_peer_is_seen() {
    [Peer::Nats, Peer::Redis, Peer::Mosquitto].into_iter().for_each(an_end_of_the_server_is_seen);
}

#[test]
fn a_server_of_another_protocol_is_refused_in_one_line() {
    let Some(server) = Server::start(Peer::Redis) else { return };
    for target in ["nats", "mqtt"] {
        let (exit, text) = load(&format!("--target {target} --connect {}", server.address));
        assert_eq!(exit, Exit::Unreachable, "{target}: {text}");
        assert_eq!(text.lines().count(), 1, "{target}: {text}");
    }
}
