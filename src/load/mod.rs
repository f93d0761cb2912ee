//! The load generator: `ringroom load`.
//!
//! Open loop: messages are due by a schedule that the server can't slow down, and latency counts from when a message was due, so a stalled
//! server is seen and not waited for. Every delivery is checked: each member of a room must get each message once, in one order. It reads the
//! server with its own decoder and believes nothing that it can check. It says when its own figures are not to be trusted.
//!
//! A run: flags and scenario file ([`scenario`]) -> plan ([`plan`]) -> limits of the server ([`connect`]) -> workers log in ([`worker`]) -> warm-up,
//! window, grace -> books side by side ([`verdict`]) -> table and files ([`report`]). What a target speaks is in [`dialect`]. [`run`] is the command;
//! [`execute`] is the same with the output and the signals as values.

pub mod body;
pub mod check;
pub mod connect;
pub mod crew;
pub mod dialect;
pub mod environment;
mod find_max;
mod fleet;
pub mod ledger;
pub mod link;
pub mod names;
pub mod observe;
pub mod page;
mod party;
pub mod plan;
pub mod record;
pub mod refusal;
pub mod report;
mod reporter;
pub mod rooms;
mod run;
pub mod scenario;
pub mod schedule;
pub mod senders;
pub mod slo;
pub mod verdict;
pub mod worker;

use std::io::{self, IsTerminal, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use crossbeam_channel::Receiver;

use crate::sys::affinity::{self, Cpu};
use crate::sys::signals::{self, Signal};

use names::Tokens;
use plan::Plan;
use refusal::PlanError;
use report::live::Style;
use report::summary::ScenarioShown;
use scenario::{Scenario, Shape, Span};
use slo::Slo;

/// `ringroom load`: drive a server and measure it.
///
/// Exit codes: 0 every message arrived once and in order, and every objective was met; 1 messages lost, doubled or out of order, or an objective missed;
/// 2 the run is invalid (the generator itself was too slow); 64 a plan that can't be carried out; 69 no server there; 74 results could not be written.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Where the target is [default: its usual port on this host]
    #[arg(long, value_name = "ADDR")]
    pub connect: Option<String>,
    /// TOML file with the same words as the flags below; flags win
    #[arg(long, value_name = "FILE")]
    pub scenario: Option<PathBuf>,
    #[command(flatten)]
    pub shape: Shape,
    /// CPUs to pin the generator threads to, in turn (0-3,6)
    #[arg(long, value_name = "LIST")]
    pub cpus: Option<String>,
    /// Log in with the tokens in this file, one a line and one for each connection in turn, instead of with names (ringroom, auth.mode "jwt")
    #[arg(long, value_name = "FILE", conflicts_with = "direct")]
    pub tokens: Option<PathBuf>,
    /// Sleep until a message is due instead of spinning the last 60 us
    #[arg(long)]
    pub no_spin: bool,
    /// Process of the server [default: who listens on the address, if that is on this host]
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
    /// Find the highest rate that meets the objectives, from --rate on; each step is a run
    #[arg(long, conflicts_with_all = ["closed", "idle"])]
    pub find_max: bool,
    /// Carry out what drivers say, until stopped; listens on this address and does what anybody who reaches it asks: keep it on a private network
    #[arg(long, value_name = "ADDR")]
    pub agent: Option<String>,
    /// Let these agents do it, each its part of the connections, rooms and rate (host:port,host:port)
    #[arg(long, value_name = "LIST", value_delimiter = ',', conflicts_with = "agent")]
    pub agents: Vec<String>,
    /// Print the result as one JSON object, as the last line
    #[arg(long)]
    pub json: bool,
    /// Directory for result.json, run.hlog, the .hgrm tables, seconds.csv and report.html
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
    let done = match &args.agent {
        Some(address) => fleet::serve(args, address, outside),
        None => build(args).and_then(|job| if args.find_max { find_max::search(&job, outside) } else { run::run(&job, outside) }),
    };
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
#[derive(Clone, Debug)]
struct Job {
    shape: Shape,
    plan: Arc<Plan>,
    agents: Vec<String>,
    cpus: Vec<Cpu>,
    tokens: Tokens,
    no_spin: bool,
    server_pid: Option<u32>,
    json: bool,
    out: Option<PathBuf>,
    slos: Vec<Slo>,
    scenario: ScenarioShown,
    /// The scenario as it is carried out, to be read again.
    scenario_text: String,
    command: Vec<String>,
    /// What the user should know about the plan.
    notes: Vec<String>,
}

fn build(args: &Args) -> Result<Job, Failure> {
    let usage = |text: String| Failure::new(Exit::Usage, text);
    let file = args.scenario.as_deref().map(Scenario::read).transpose().map_err(usage)?.unwrap_or_default();
    let shape = args.shape.clone().over(file.shape);
    let slos = shape.slo.iter().map(|text| text.parse()).collect::<Result<Vec<Slo>, String>>().map_err(usage)?;
    let cpus = match &args.cpus {
        None => Vec::new(),
        Some(list) => affinity::parse_list(list).map_err(|error| usage(format!("--cpus {list}: {error}")))?,
    };
    let address = resolve(args.connect.as_deref().unwrap_or_else(|| shape.target().default_address()))?;
    let (probes, notes) = probes_of(&shape, &cpus);
    let plan = Plan::new(shape.wish(address, probes).map_err(usage)?)?;
    let scenario_text = toml::to_string(&shape).map_err(|error| usage(error.to_string()))?;
    Ok(Job {
        shape,
        plan: Arc::new(plan),
        agents: args.agents.clone(),
        cpus,
        tokens: read_tokens(args)?,
        no_spin: args.no_spin,
        server_pid: args.server_pid,
        json: args.json,
        out: args.out.clone(),
        slos,
        scenario: ScenarioShown { name: file.name, file: file.file, about: file.about },
        scenario_text,
        command: std::env::args().collect(),
        notes,
    })
}

impl Job {
    /// The same at another rate.
    fn with_rate(&self, rate: f64, out: Option<PathBuf>) -> Result<Self, Failure> {
        let shape = Shape { rate: Some(rate), phase: Vec::new(), duration: Some(Span(self.plan.duration_ns())), ..self.shape.clone() };
        let wish = self.plan.wish();
        let plan =
            shape.wish(wish.address, wish.probes).map_err(|text| Failure::new(Exit::Usage, text)).and_then(|wish| Ok(Plan::new(wish)?))?;
        let scenario_text = toml::to_string(&shape).map_err(|error| Failure::new(Exit::Usage, error))?;
        Ok(Self { plan: Arc::new(plan), shape, out, scenario_text, ..self.clone() })
    }
}

/// Probes where the user named none: some, if a CPU is left for their thread. On a CPU that the bulk spins on they would only measure the wait for it.
fn probes_of(shape: &Shape, cpus: &[Cpu]) -> (u32, Vec<String>) {
    /// Below this the bulk is as light as the probes.
    const BULK_MIN: u32 = 50;
    const PROBES: u32 = 2;
    let threads = usize::from(shape.threads.unwrap_or(1));
    let available = if cpus.is_empty() { affinity::available().map_or(1, |cpus| cpus.len()) } else { cpus.len() };
    let wanted = shape.probes.is_none() && !shape.idle && !shape.direct && shape.connections.unwrap_or(100) >= BULK_MIN;
    match () {
        () if !wanted || shape.direct_share.is_some_and(|share| share >= 1.0) => (0, Vec::new()),
        () if available > threads => (PROBES, Vec::new()),
        () => (0, vec!["no CPU is left for probes, so nothing checks the bulk's figures (--probes N has them all the same)".into()]),
    }
}

/// A token stands in a JSON text without escapes: its letters need none.
fn read_tokens(args: &Args) -> Result<Tokens, Failure> {
    let Some(file) = &args.tokens else { return Ok(Tokens::default()) };
    let wrong = |why: &dyn std::fmt::Display| Failure::new(Exit::Usage, format!("--tokens {}: {why}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| wrong(&error))?;
    let tokens = Tokens::of_lines(&text);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'\n' | b'\r');
    if tokens.is_empty() || !text.bytes().all(plain) {
        return Err(wrong(&"must hold tokens, one a line"));
    }
    Ok(tokens)
}

fn resolve(address: &str) -> Result<SocketAddr, Failure> {
    let wrong = |why: String| Failure::new(Exit::Usage, format!("--connect {address}: {why} (an address and a port: 127.0.0.1:7777)"));
    let mut found = address.to_socket_addrs().map_err(|error| wrong(error.to_string()))?;
    found.next().ok_or_else(|| wrong("no such address".into()))
}
