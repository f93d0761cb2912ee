//! One run: profile set, server started, load, server ended, profile put back.
//!
//! Owns the processes it starts and the values it sets: whichever way a run ends, both are gone afterwards. A run fails with one line; what it left in its
//! directory (`server.log`, `load.log`) says more. Every wait has a deadline.

use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use nix::sys::signal::{Signal as Kill, kill};
use nix::unistd::Pid;

use crate::sys::scheduler::{self, Policy, Schedule};
use crate::sys::signals::Signal;

use super::super::catalogue::Kind;
use super::super::journal::State;
use super::super::machine::Machine;
use super::super::plan::Plan;
use super::super::profile::Profile;
use super::super::{put_back, set_all};

/// For the server to be ready, and to end after SIGTERM (its own drain time is below).
const READY: Duration = Duration::from_secs(20);
const END: Duration = Duration::from_secs(45);
/// How often a process is looked at. Nothing of the run is timed by it.
const LOOK: Duration = Duration::from_millis(50);

/// What all runs have in common.
#[derive(Clone, Debug)]
pub struct Bench {
    pub machine: Machine,
    /// State directory of the journal.
    pub state: PathBuf,
    /// The program, for both ends.
    pub program: PathBuf,
    /// Config of the server, without the profile's values.
    pub config: toml::Table,
    /// CPUs of the shards and of the generator, as lists; empty: not pinned.
    pub shard_cpus: String,
    pub client_cpus: String,
    /// Flags of `ringroom load` that say what is driven.
    pub load: Vec<String>,
    /// A host to run the generator on, by ssh.
    pub load_host: Option<String>,
    /// Address the server listens on; none: a free port of loopback.
    pub listen: Option<SocketAddr>,
    /// Longest time for one run of the generator.
    pub patience: Duration,
    /// Pause after the profile is set.
    pub settle: Duration,
}

/// Why a run has no result.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// Ctrl-C or SIGTERM: no more runs.
    Stopped,
    Failed(String),
}

impl From<io::Error> for Ended {
    fn from(why: io::Error) -> Self {
        Self::Failed(why.to_string())
    }
}

impl Bench {
    /// One run into `out`. The generator's own verdict stands in its result.
    pub fn run(&self, profile: &Profile, seed: u64, out: &Path, signals: &Receiver<Signal>) -> Result<(), Ended> {
        fs::create_dir_all(out)?;
        let plan = Plan::new(&self.machine, profile);
        // The lock is held for the whole run: nobody else changes settings meanwhile.
        let state = State::lock(&self.state).map_err(|why| Ended::Failed(why.to_string()))?;
        let set = plan.changes().next().is_some();
        if set {
            set_all(&self.machine, &state, &self.state, &plan, None).map_err(|(_, why)| Ended::Failed(why))?;
        }
        let ran = self.driven(profile, seed, out, signals);
        if set {
            let (exit, text) = put_back(&self.machine, &state).map_err(|why| Ended::Failed(why.to_string()))?;
            if exit != super::super::Exit::Done {
                return Err(Ended::Failed(format!("the profile could not be put back whole:\n{text}")));
            }
        }
        ran
    }

    fn driven(&self, profile: &Profile, seed: u64, out: &Path, signals: &Receiver<Signal>) -> Result<(), Ended> {
        wait(self.settle, signals)?;
        let address = match self.listen {
            Some(address) => address,
            None => free_port()?,
        };
        let config = out.join("server.toml");
        fs::write(&config, self.server_config(profile)?)?;
        let mut server = Owned::start(self.server(address, &config), &out.join("server.log"))?;
        server.ready(&out.join("server.log"), signals)?;
        schedule(profile, server.child.id())?;
        let loaded = self.generate(address, server.child.id(), seed, out, signals);
        let ended = server.end();
        loaded?;
        ended
    }

    /// The config with the profile's values in it.
    pub fn server_config(&self, profile: &Profile) -> Result<String, Ended> {
        let mut config = self.config.clone();
        for (setting, wanted) in profile.values.iter().filter(|(setting, _)| matches!(setting.kind, Kind::Server | Kind::Socket)) {
            let (section, key) =
                setting.target.split_once('.').ok_or_else(|| Ended::Failed(format!("{}: target without section", setting.id)))?;
            let value = wanted.text.parse().map_or_else(|_| toml::Value::String(wanted.text.clone()), toml::Value::Integer);
            let section = config.entry(section).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            let table =
                section.as_table_mut().ok_or_else(|| Ended::Failed(format!("the server's config: {} is no section", setting.target)))?;
            table.insert(key.to_owned(), value);
        }
        toml::to_string(&config).map_err(|why| Ended::Failed(why.to_string()))
    }

    fn server(&self, address: SocketAddr, config: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("serve").arg("--listen").arg(address.to_string()).arg("--config").arg(config);
        let pinned = |table: &toml::Table| table.get("server").and_then(|server| server.get("cpus")).is_some();
        let own = fs::read_to_string(config).ok().and_then(|text| text.parse().ok()).is_some_and(|table| pinned(&table));
        if !self.shard_cpus.is_empty() && !own {
            command.arg("--cpus").arg(&self.shard_cpus);
        }
        command
    }

    /// The generator's flags for a server at `address`.
    pub fn load_flags(&self, address: &str, seed: u64) -> Vec<String> {
        let mut flags = vec!["load".to_owned(), "--connect".to_owned(), address.to_owned(), "--seed".to_owned(), seed.to_string()];
        if !self.client_cpus.is_empty() {
            flags.extend(["--cpus".to_owned(), self.client_cpus.clone()]);
        }
        flags.extend(self.load.iter().cloned());
        flags
    }

    fn generate(&self, address: SocketAddr, server: u32, seed: u64, out: &Path, signals: &Receiver<Signal>) -> Result<(), Ended> {
        let log = out.join("load.log");
        let flags = self.load_flags(&address.to_string(), seed);
        let status = match &self.load_host {
            None => {
                let mut command = Command::new(&self.program);
                command.args(&flags).arg("--server-pid").arg(server.to_string()).arg("--out").arg(out);
                Owned::start(command, &log)?.finish(self.patience, signals)?
            }
            Some(host) => self.generate_there(host, &flags, out, &log, signals)?,
        };
        // 1: messages were lost or an objective missed; 2: the run is not to be trusted. Both are results, and stand in result.json.
        match status.code() {
            Some(0..=2) if out.join("result.json").exists() => Ok(()),
            code => Err(Ended::Failed(format!("the generator ended with {code:?}: {}", last_line(&log)))),
        }
    }

    /// Runs the generator on another host and fetches its files.
    fn generate_there(
        &self,
        host: &str,
        flags: &[String],
        out: &Path,
        log: &Path,
        signals: &Receiver<Signal>,
    ) -> Result<ExitStatus, Ended> {
        let quoted: Vec<String> = flags.iter().map(|flag| quote(flag)).collect();
        let script = format!(
            "d=$(mktemp -d) && trap 'rm -rf \"$d\"' EXIT && {{ ringroom {} --out \"$d\" >&2; code=$?; tar -C \"$d\" -c . ; exit $code; }}",
            quoted.join(" ")
        );
        let archive = out.join("files.tar");
        let mut command = Command::new("ssh");
        command.args(["-o", "BatchMode=yes", "-o", "ConnectTimeout=10", host, &script]);
        command.stdout(File::create(&archive)?).stderr(File::create(log)?);
        let status = Owned::spawn(command)?.finish(self.patience, signals)?;
        let unpacked = Command::new("tar").arg("-C").arg(out).arg("-xf").arg(&archive).status()?;
        fs::remove_file(&archive)?;
        if unpacked.success() { Ok(status) } else { Err(Ended::Failed(format!("no files came from {host}: {}", last_line(log)))) }
    }
}

/// For a shell on the other side.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn free_port() -> io::Result<SocketAddr> {
    TcpListener::bind(("127.0.0.1", 0))?.local_addr()
}

fn last_line(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing").trim().to_owned()
}

/// Waits, unless somebody wants an end.
fn wait(time: Duration, signals: &Receiver<Signal>) -> Result<(), Ended> {
    let end = Instant::now() + time;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        match signals.recv_timeout(left) {
            Ok(Signal::Drain | Signal::Stop) => return Err(Ended::Stopped),
            Ok(Signal::Reload) => {}
            Err(_) => return Ok(()),
        }
    }
}

/// Gives every thread of the server what the profile wants of the scheduler.
fn schedule(profile: &Profile, server: u32) -> Result<(), Ended> {
    let mut wanted = Schedule::default();
    let mut any = false;
    for (setting, value) in profile.values.iter().filter(|(setting, _)| setting.kind == Kind::Scheduler) {
        any = true;
        let number = || value.text.parse::<i64>().map_err(|_| Ended::Failed(format!("{}: {} is no number", setting.id, value.text)));
        match (setting.target.as_str(), value.text.as_str()) {
            ("policy", "fifo") => wanted.policy = Policy::Fifo,
            ("policy", "batch") => wanted.policy = Policy::Batch,
            ("policy", _) => wanted.policy = Policy::Other,
            ("nice", _) => wanted.nice = i32::try_from(number()?).unwrap_or(0),
            ("slice_us", _) => wanted.slice_ns = u64::try_from(number()?).unwrap_or(0) * 1_000,
            (other, _) => return Err(Ended::Failed(format!("{}: no such property of a thread: {other}", setting.id))),
        }
    }
    if !any {
        return Ok(());
    }
    for thread in fs::read_dir(format!("/proc/{server}/task"))? {
        let Some(id) = thread?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        scheduler::set(id, wanted).map_err(|why| Ended::Failed(format!("scheduling the server's threads: {why}")))?;
    }
    Ok(())
}

/// A process that ends with its owner.
struct Owned {
    child: Child,
}

impl Owned {
    fn start(mut command: Command, log: &Path) -> Result<Self, Ended> {
        let out = File::create(log)?;
        command.stdout(out.try_clone()?).stderr(out);
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> Result<Self, Ended> {
        use std::os::unix::process::CommandExt;
        // A group of its own: Ctrl-C at the terminal comes to us alone, and we end it in order.
        let child = command.stdin(Stdio::null()).process_group(0).spawn();
        child.map(|child| Self { child }).map_err(|why| Ended::Failed(format!("can't start {}: {why}", command.get_program().display())))
    }

    fn ready(&mut self, log: &Path, signals: &Receiver<Signal>) -> Result<(), Ended> {
        let end = Instant::now() + READY;
        while !fs::read_to_string(log)?.contains("ringroom ready on ") {
            if let Some(status) = self.child.try_wait()? {
                return Err(Ended::Failed(format!("the server ended before it was ready ({status}): {}", last_line(log))));
            }
            if Instant::now() >= end {
                return Err(Ended::Failed(format!("the server was not ready within {} s", READY.as_secs())));
            }
            wait(LOOK, signals)?;
        }
        Ok(())
    }

    /// Waits for its end by itself. Where somebody wants an end first, it is told to write what it has.
    fn finish(mut self, patience: Duration, signals: &Receiver<Signal>) -> Result<ExitStatus, Ended> {
        let end = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= end {
                return Err(Ended::Failed(format!("the generator did not end within {} s", patience.as_secs())));
            }
            if wait(LOOK, signals).is_err() {
                self.end()?;
                return Err(Ended::Stopped);
            }
        }
    }

    /// SIGTERM, and SIGKILL at the deadline.
    fn end(&mut self) -> Result<(), Ended> {
        let Ok(pid) = i32::try_from(self.child.id()) else { return Ok(()) };
        let _ = kill(Pid::from_raw(pid), Kill::SIGTERM);
        let end = Instant::now() + END;
        while self.child.try_wait()?.is_none() {
            if Instant::now() >= end {
                self.child.kill()?;
                self.child.wait()?;
                return Err(Ended::Failed(format!("the process did not end within {} s after SIGTERM: killed", END.as_secs())));
            }
            std::thread::park_timeout(LOOK);
        }
        Ok(())
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn flags_survive_the_other_hosts_shell() {
        let flags = ["a b", "it's", "$(x)", ""];
        let line = flags.map(quote).join(" ");
        let echoed = Command::new("sh").arg("-c").arg(format!("printf '%s\\n' {line}")).output().unwrap();
        assert_eq!(String::from_utf8(echoed.stdout).unwrap(), "a b\nit's\n$(x)\n\n");
    }
}
