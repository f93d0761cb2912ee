//! The load generator: `ringroom load`.
//!
//! Open loop: messages are due by a schedule that the server can't slow down, and latency counts from when a message was due, so a stalled
//! server is seen and not waited for. Every delivery is checked: each member of a room must get each message once, in one order. It reads the
//! server with its own decoder and believes nothing that it can check. It says when its own figures are not to be trusted.
//!
//! A run: plan ([`plan`]) -> limits of the server ([`connect`]) -> workers log in ([`worker`]) -> warm-up, window, grace -> books side by side
//! ([`verdict`]) -> table and files ([`report`]). [`run`] is the command; [`execute`] is the same with the output and the signals as values.

pub mod body;
pub mod check;
pub mod connect;
pub mod dialect;
pub mod ledger;
pub mod link;
pub mod names;
pub mod observe;
pub mod plan;
pub mod record;
pub mod report;
mod run;
pub mod schedule;
pub mod senders;
pub mod verdict;
pub mod worker;

use std::io::{self, IsTerminal, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;

use crossbeam_channel::Receiver;

use crate::sys::affinity::{self, Cpu};
use crate::sys::signals::{self, Signal};

use body::Sizes;
use dialect::Target;
use plan::{Arrivals, Mode, Plan, PlanError, Wish};
use report::live::Style;

/// `ringroom load`: drive a server and measure it.
///
/// Exit codes: 0 every message arrived once and in order; 1 messages lost, doubled or out of order; 2 the run is invalid (the generator
/// itself was too slow); 64 a plan that can't be carried out; 69 no server there; 74 results could not be written.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What to drive
    #[arg(long, value_enum, default_value_t)]
    pub target: Target,
    /// Where it is [default: the target's usual port on this host]
    #[arg(long, value_name = "ADDR")]
    pub connect: Option<String>,
    /// Connections, each a user of its own
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub connections: u32,
    /// Rooms; their members are spread over the connections
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub rooms: u32,
    /// Members of a room [default: connections / rooms, at least 1]
    #[arg(long, value_name = "N")]
    pub room_size: Option<u32>,
    /// Messages per second, of all senders together
    #[arg(long, value_name = "R", default_value_t = 1_000.0)]
    pub rate: f64,
    /// Bytes of a message's body: 128, 64-1024 (evenly), 128:90,4096:10 (sizes and weights)
    #[arg(long, value_name = "BYTES", default_value = "128")]
    pub size: Sizes,
    /// Seconds of load before measuring
    #[arg(long, value_name = "S", default_value = "2", value_parser = seconds)]
    pub warmup: u64,
    /// Seconds measured
    #[arg(long, value_name = "S", default_value = "10", value_parser = seconds)]
    pub duration: u64,
    /// Seconds after the window for what is on its way; over as soon as everything has come
    #[arg(long, value_name = "S", default_value = "5", value_parser = seconds)]
    pub grace: u64,
    /// Generator threads
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub threads: u16,
    /// Gaps between messages
    #[arg(long, value_enum, default_value_t = Arrivals::Poisson)]
    pub arrivals: Arrivals,
    /// The same seed gives the same schedule
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// CPUs to pin the generator threads to, in turn (0-3,6)
    #[arg(long, value_name = "LIST")]
    pub cpus: Option<String>,
    /// Write to one other user each instead of to rooms
    #[arg(long, conflicts_with_all = ["rooms", "room_size", "idle"])]
    pub direct: bool,
    /// Only log in, join and hold the connections for the duration
    #[arg(long)]
    pub idle: bool,
    /// Sleep until a message is due instead of spinning the last 60 us
    #[arg(long)]
    pub no_spin: bool,
    /// Process of the server [default: who listens on the address, if that is on this host]
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
    /// Print the result as one JSON object, as the last line
    #[arg(long)]
    pub json: bool,
    /// Directory for result.json, the .hgrm tables and run.hlog
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Why there is no result, or what it says; the number is the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Ok = 0,
    Faulty = 1,
    Invalid = 2,
    Usage = 64,
    Unreachable = 69,
    /// The results could not be written.
    Output = 74,
    /// This host has no io_uring for us.
    Kernel = 78,
}

/// The command: signals taken over, output to the terminal.
pub fn run(args: Args) -> ExitCode {
    let (news, signals) = crossbeam_channel::bounded(2);
    if let Err(error) = signals::install(news) {
        let _ = writeln!(io::stderr(), "ringroom load: signals: {error}");
        return ExitCode::from(Exit::Kernel as u8);
    }
    let stdout = io::stdout();
    let style = if stdout.is_terminal() { Style::Terminal } else { Style::Plain };
    let exit = execute(&args, &mut Outside { out: &mut stdout.lock(), style, signals });
    ExitCode::from(exit as u8)
}

/// Where a run prints, and who may end it early.
pub struct Outside<'a> {
    pub out: &'a mut dyn Write,
    pub style: Style,
    pub signals: Receiver<Signal>,
}

impl std::fmt::Debug for Outside<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outside").field("style", &self.style).finish_non_exhaustive()
    }
}

/// Carries out a plan. A failure is one line on the output.
pub fn execute(args: &Args, outside: &mut Outside<'_>) -> Exit {
    let done = prepare(args).and_then(|job| run::run(job, outside));
    match done {
        Ok(exit) => exit,
        Err(failure) => {
            // With the output gone there is nobody to tell.
            let _ = writeln!(outside.out, "ringroom load: {}", failure.text);
            failure.exit
        }
    }
}

/// Why a run did not come to a result.
#[derive(Clone, Debug)]
pub struct Failure {
    pub exit: Exit,
    pub text: String,
}

impl Failure {
    fn new(exit: Exit, text: impl ToString) -> Self {
        Self { exit, text: text.to_string() }
    }
}

impl From<PlanError> for Failure {
    fn from(error: PlanError) -> Self {
        Self::new(Exit::Usage, error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(Exit::Output, format!("writing results: {error}"))
    }
}

/// The arguments, checked.
#[derive(Debug)]
struct Job {
    plan: Plan,
    cpus: Vec<Cpu>,
    args: Args,
}

fn prepare(args: &Args) -> Result<Job, Failure> {
    let mode = match (args.idle, args.direct) {
        (true, _) => Mode::Idle,
        (_, true) => Mode::Direct,
        _ => Mode::Rooms,
    };
    let plan = Plan::new(Wish {
        target: args.target,
        address: resolve(args.connect.as_deref().unwrap_or_else(|| args.target.default_address()))?,
        mode,
        connections: args.connections,
        rooms: args.rooms,
        room_size: args.room_size.unwrap_or_else(|| (args.connections / args.rooms.max(1)).max(1)),
        rate: if mode == Mode::Idle { 0.0 } else { args.rate },
        sizes: args.size.clone(),
        threads: args.threads,
        arrivals: args.arrivals,
        seed: args.seed,
        warmup_ns: if mode == Mode::Idle { 0 } else { args.warmup },
        duration_ns: args.duration,
        grace_ns: args.grace,
    })?;
    let cpus = match &args.cpus {
        None => Vec::new(),
        Some(list) => affinity::parse_list(list).map_err(|error| Failure::new(Exit::Usage, format!("--cpus {list}: {error:?}")))?,
    };
    Ok(Job { plan, cpus, args: args.clone() })
}

fn resolve(address: &str) -> Result<SocketAddr, Failure> {
    let wrong = |why: String| Failure::new(Exit::Usage, format!("--connect {address}: {why} (an address and a port: 127.0.0.1:7777)"));
    let mut found = address.to_socket_addrs().map_err(|error| wrong(error.to_string()))?;
    found.next().ok_or_else(|| wrong("no such address".into()))
}

/// `10`, `0.5` or `10s` as nanoseconds.
fn seconds(text: &str) -> Result<u64, String> {
    const MOST: f64 = 1e6;
    let number: f64 = text.strip_suffix('s').unwrap_or(text).parse().map_err(|_| "a number of seconds, such as 10 or 0.5")?;
    if !(0.0..=MOST).contains(&number) {
        return Err(format!("from 0 to {MOST} seconds"));
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 0 and 10^15 by the check above")]
    let ns = (number * 1e9) as u64;
    Ok(ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_read_with_and_without_unit() {
        assert_eq!(seconds("10"), Ok(10_000_000_000));
        assert_eq!(seconds("0.5s"), Ok(500_000_000));
        assert!(seconds("-1").is_err() && seconds("x").is_err() && seconds("NaN").is_err() && seconds("1e9").is_err());
    }
}
