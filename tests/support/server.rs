//! `ringroom serve` as a child process, and what it says when it ends.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::client::hang_up_all;
use super::{PATIENCE, wait_until};

/// A running server; killed when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    log: Option<JoinHandle<String>>,
    so_far: Arc<Mutex<Vec<u8>>>,
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) admin: Option<SocketAddr>,
    config: tempfile::NamedTempFile,
}

/// How a server ended, and what it had counted, all shards together.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) log: String,
    pub(crate) ends: BTreeMap<String, u64>,
    pub(crate) counters: BTreeMap<String, u64>,
}

impl Ended {
    /// Connections that ended for this reason.
    pub(crate) fn ends(&self, reason: &str) -> u64 {
        self.ends.get(reason).copied().unwrap_or(0)
    }

    pub(crate) fn counter(&self, name: &str) -> u64 {
        self.counters.get(name).copied().unwrap_or(0)
    }

    /// Exit 0, and every accepted connection has ended under exactly one reason.
    #[track_caller]
    pub(crate) fn assert_clean(&self) {
        assert_eq!(self.code, Some(0), "{}", self.log);
        assert_eq!(self.counter("accepted"), self.ends.values().sum::<u64>(), "{:?} {:?}", self.counters, self.ends);
        assert_eq!(self.counter("decode_panics"), 0);
        assert!(!self.log.contains("panicked"), "{}", self.log);
    }
}

/// The configuration with limits per user that no test meets, unless it names them itself.
fn with_rate(config: &str) -> String {
    if config.contains("requests_per_s") {
        return config.to_owned();
    }
    let rate = "[limits]\nrequests_per_s = 1_000_000\nrequests_burst = 1_000_000\n";
    if config.contains("[limits]\n") { config.replacen("[limits]\n", rate, 1) } else { format!("{config}\n{rate}") }
}

impl Server {
    /// On a free port of 127.0.0.1, with so many shards and this configuration.
    #[track_caller]
    pub(crate) fn start(shards: usize, config: &str) -> Self {
        Self::start_with(&["--shards", &shards.to_string(), "--listen", "127.0.0.1:0"], config, "true")
    }

    /// As `start`, with a limit of open files.
    #[track_caller]
    pub(crate) fn start_limited(shards: usize, config: &str, open_files: u32) -> Self {
        let limits = format!("ulimit -n {open_files}");
        Self::start_with(&["--shards", &shards.to_string(), "--listen", "127.0.0.1:0"], config, &limits)
    }

    /// `limits` is run by a shell, which then becomes the server.
    #[track_caller]
    pub(crate) fn start_with(args: &[&str], config: &str, limits: &str) -> Self {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(with_rate(config).as_bytes()).unwrap();
        let script = format!("{limits} && exec \"$0\" serve \"$@\"");
        let mut command = Command::new("sh");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_ringroom"), "--config"]).arg(file.path()).args(args);
        command.env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (ready, mut log) = (first_line(child.stdout.take().unwrap()), child.stderr.take().unwrap());
        let so_far = Arc::new(Mutex::new(Vec::new()));
        let shared = so_far.clone();
        let log = std::thread::spawn(move || {
            let mut piece = [0; 4_096];
            while let Ok(count @ 1..) = log.read(&mut piece) {
                shared.lock().unwrap().extend_from_slice(&piece[..count]);
            }
            String::from_utf8_lossy(&shared.lock().unwrap()).into_owned()
        });
        let mut server = Self { child, log: Some(log), so_far, addresses: Vec::new(), admin: None, config: file };
        match ready.recv_timeout(PATIENCE) {
            Ok(line) => {
                server.addresses = addresses(&line);
                server.admin = line.rsplit_once("; admin on http://").map(|(_, address)| address.parse().unwrap());
            }
            Err(error) => {
                let _ = server.child.kill();
                panic!("no ready line ({error}): {}", server.log.take().unwrap().join().unwrap());
            }
        }
        server
    }

    /// Where the control plane listens.
    #[track_caller]
    pub(crate) fn admin(&self) -> SocketAddr {
        self.admin.expect("started with --admin")
    }

    pub(crate) fn config_path(&self) -> &std::path::Path {
        self.config.path()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        // The shell's own: not every machine has a program of that name.
        let status = Command::new("sh").args(["-c", &format!("kill {name} {}", self.pid())]).status().unwrap();
        assert!(status.success());
    }

    /// Drains and ends, after all connections of this thread's test.
    #[track_caller]
    pub(crate) fn stop(self) -> Ended {
        hang_up_all();
        self.signal("-TERM");
        self.ended()
    }

    /// Its end, which something else has brought about.
    #[track_caller]
    pub(crate) fn ended(mut self) -> Ended {
        let mut status = None;
        wait_until("the server's end", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        let log = self.log.take().unwrap().join().unwrap();
        let mut ended = Ended { code: status.unwrap().code(), log, ends: BTreeMap::new(), counters: BTreeMap::new() };
        for line in ended.log.lines() {
            let Some((_, counted)) = line.split_once("] shard ").and_then(|(_, rest)| rest.split_once(": ")) else { continue };
            let Some((counters, ends)) = counted.split_once("; ended:") else { continue };
            add_up(&mut ended.counters, counters);
            add_up(&mut ended.ends, ends);
        }
        ended
    }

    /// What it has logged by now.
    pub(crate) fn log_so_far(&self) -> String {
        String::from_utf8_lossy(&self.so_far.lock().unwrap()).into_owned()
    }

    /// Is the process still there?
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Open descriptors of the process.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// Processor time used so far, in ticks of 10 ms.
    pub(crate) fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // After `ended` there is nothing left to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn add_up(sums: &mut BTreeMap<String, u64>, text: &str) {
    for (name, count) in text.split_whitespace().filter_map(|part| part.split_once('=')) {
        *sums.entry(name.to_owned()).or_default() += count.parse::<u64>().unwrap();
    }
}

fn first_line(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = sync_channel(1);
    std::thread::spawn(move || {
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        if let Some(line) = lines.next() {
            let _ = sender.send(line);
        }
        // Read to its end, so that the server never writes to a closed pipe.
        lines.for_each(drop);
    });
    receiver
}

/// The addresses that a ready line names.
fn addresses(ready: &str) -> Vec<SocketAddr> {
    let list = ready.strip_prefix("ringroom ready on ").and_then(|rest| rest.split_once(": ")).unwrap().0;
    list.split(", ").map(|address| address.parse().unwrap()).collect()
}
