//! A real server, a proxy that cuts, and a reader of raw frames that believes nothing and removes nothing.
#![allow(dead_code, clippy::unwrap_used, reason = "shared by tests; each uses a part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ringroom::client::{Backoff, Options};
use serde_json::Value;

/// Long beyond doubt: only what hangs gets there.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn ringroom() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringroom"));
    command.env_remove("RUST_LOG");
    command
}

/// A server with limits that are in nobody's way; killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Server {
    pub(crate) fn start() -> Self {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"[limits]\nrequests_per_s = 100000\nrequests_burst = 100000\n").unwrap();
        let config = file.path().to_str().unwrap();
        let args = ["serve", "--shards", "2", "--listen", "127.0.0.1:0", "--config", config];
        let mut command = ringroom();
        let mut child = command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        let address = ready.strip_prefix("ringroom ready on ").and_then(|rest| rest.split_once(": ")).unwrap().0;
        Self { child, address: address.parse().unwrap() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Options that come back at once.
pub(crate) fn eager(user: &str) -> Options {
    Options { backoff: Backoff { base: Duration::from_millis(2), cap: Duration::from_millis(40) }, ..Options::user(user) }
}

/// Passes bytes on, and cuts each connection after a random number of them, drawn from the seed.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    accept: Option<JoinHandle<()>>,
}

struct Shared {
    upstream: Mutex<SocketAddr>,
    /// The most bytes a direction passes; 0: all.
    budget: AtomicU32,
    cuts: AtomicU32,
    stop: AtomicBool,
    dice: Mutex<u64>,
}

impl Shared {
    fn roll(&self, below: u32) -> u32 {
        let mut dice = self.dice.lock().unwrap();
        *dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(*dice >> 33).unwrap() % below
    }
}

impl Proxy {
    pub(crate) fn start(upstream: SocketAddr, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (upstream, dice) = (Mutex::new(upstream), Mutex::new(seed));
        let (budget, cuts, stop) = (AtomicU32::new(0), AtomicU32::new(0), AtomicBool::new(false));
        let shared = Arc::new(Shared { upstream, budget, cuts, stop, dice });
        let accept = thread::spawn({
            let shared = shared.clone();
            move || {
                for client in listener.incoming() {
                    if shared.stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let Ok(client) = client else { continue };
                    let upstream = *shared.upstream.lock().unwrap();
                    let Ok(server) = TcpStream::connect(upstream) else { continue };
                    for (from, to) in [(&client, &server), (&server, &client)] {
                        let (from, to, shared) = (from.try_clone().unwrap(), to.try_clone().unwrap(), shared.clone());
                        thread::spawn(move || pass(&from, &to, &shared));
                    }
                }
            }
        });
        Self { address, shared, accept: Some(accept) }
    }

    /// From the next connection on: cut after fewer than `bytes` bytes of a direction; 0: never.
    pub(crate) fn cut_within(&self, bytes: u32) {
        self.shared.budget.store(bytes, Ordering::SeqCst);
    }

    pub(crate) fn point_to(&self, upstream: SocketAddr) {
        *self.shared.upstream.lock().unwrap() = upstream;
    }

    pub(crate) fn cuts(&self) -> u32 {
        self.shared.cuts.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        let _ = self.accept.take().unwrap().join();
    }
}

fn pass(mut from: &TcpStream, mut to: &TcpStream, shared: &Shared) {
    let most = shared.budget.load(Ordering::SeqCst);
    let mut left = if most == 0 { usize::MAX } else { shared.roll(most) as usize };
    let mut buffer = [0; 4096];
    from.set_read_timeout(Some(PATIENCE * 2)).unwrap();
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let take = count.min(left);
        if to.write_all(&buffer[..take]).is_err() {
            break;
        }
        left -= take;
        if left == 0 {
            shared.cuts.fetch_add(1, Ordering::SeqCst);
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// Frames as they come.
pub(crate) struct Raw {
    socket: TcpStream,
}

impl Raw {
    /// Logs in and joins; live messages follow.
    pub(crate) fn join(server: SocketAddr, user: &str, room: &str) -> Self {
        let socket = TcpStream::connect(server).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut raw = Self { socket };
        raw.say(&format!(r#"{{"type":"hello","version":1,"user":"{user}"}}"#));
        assert_eq!(raw.next()["type"], "welcome");
        raw.say(&format!(r#"{{"type":"join","room":"{room}"}}"#));
        assert_eq!(raw.next()["type"], "joined");
        raw
    }

    fn say(&mut self, json: &str) {
        let mut bytes = u32::try_from(json.len()).unwrap().to_be_bytes().to_vec();
        bytes.extend_from_slice(json.as_bytes());
        self.socket.write_all(&bytes).unwrap();
    }

    pub(crate) fn next(&mut self) -> Value {
        let mut header = [0; 4];
        self.socket.read_exact(&mut header).unwrap();
        let mut json = vec![0; u32::from_be_bytes(header) as usize];
        self.socket.read_exact(&mut json).unwrap();
        serde_json::from_slice(&json).unwrap()
    }

    /// Bodies of messages until the one that is `last`.
    pub(crate) fn bodies_until(&mut self, last: u64) -> Vec<u64> {
        let mut bodies = Vec::new();
        while bodies.last() != Some(&last) {
            let object = self.next();
            match object["type"].as_str().unwrap() {
                "message" => bodies.push(object["body"].as_u64().unwrap()),
                "ping" => self.say(r#"{"type":"pong"}"#),
                other => panic!("{other}"),
            }
        }
        bodies
    }
}
