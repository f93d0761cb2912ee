//! `ringroom tune compare`: what profiles, or single settings, do to latency, measured.
//!
//! Sides in interleaved blocks of random order, the first side alone beforehand for the noise of the machine, a fresh server for every run, everything put
//! back after every run. The raw histograms of all runs stay in the output directory, and the verdicts can be computed again from them alone
//! (`--recompute`). A comparison that was interrupted goes on where it stopped (`--resume`); what there is at that time is written.

pub mod bench;
pub mod outcome;
mod page;
pub mod sides;

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use serde::{Deserialize, Serialize};

use crate::sys::affinity::{self, Cpu};
use crate::sys::signals::{self, Signal};

use crate::results::run::DRIFT;

use super::catalogue::Catalogue;
use super::profile::{self, Profile};
use super::value::list;
use super::{Exit, Where, duration, show};
use bench::{Bench, Ended};
use sides::{AGAIN, Mode, Sides, Turn, Unobservable};

pub use outcome::recompute;

/// Runs of a side.
const RUNS_MAX: usize = 100;
/// Failures one after the other that end a comparison: it will not get better.
const FAILURES_MAX: usize = 3;
const PLAN: &str = "plan.json";
const VERSION: u32 = 1;

/// Measure what profiles or single settings do to latency
///
/// Everything behind -- goes to `ringroom load`, for example: -- --connections 100 --rate 1000 --duration 15
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Profiles to compare; the first one is what the others are compared with
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    profiles: Vec<String>,
    /// pair: profiles as they are; ablation: each setting of the second alone; leave-one-out: the second with one setting less each time
    #[arg(long, value_enum, default_value_t = Mode::Pair)]
    mode: Mode,
    /// What is driven (a scenario of ringroom load)
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
    /// Runs of each side; below 4 nothing can be shown
    #[arg(long, value_name = "N", default_value_t = 8)]
    runs: usize,
    /// Where the runs and the answer go
    #[arg(long, value_name = "DIR", default_value = "out/tune-compare")]
    out: PathBuf,
    /// Config of the server, before the profile's values
    #[arg(long, value_name = "FILE")]
    server_config: Option<PathBuf>,
    /// CPUs of the server's shards [default: all but the last]
    #[arg(long, value_name = "LIST")]
    shard_cpus: Option<String>,
    /// CPUs of the generator [default: the last]
    #[arg(long, value_name = "LIST")]
    client_cpus: Option<String>,
    /// Run the generator on this host, by ssh (needs --listen with an address that it reaches, and ringroom in its path)
    #[arg(long, value_name = "HOST", requires = "listen")]
    load_host: Option<String>,
    /// Address of the server [default: a free port of 127.0.0.1]
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// The same seed gives the same order of runs and the same schedules of messages
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Pause after a profile is set
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = duration)]
    settle: u64,
    /// Longest time for one run of the generator
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration)]
    patience: u64,
    /// Go on with what stands in the output directory
    #[arg(long)]
    resume: bool,
    /// Go on without this terminal; the output goes to compare.log in the output directory
    #[arg(long)]
    detach: bool,
    /// Only compute the answer again from the runs of a directory
    #[arg(long, value_name = "DIR")]
    recompute: Option<PathBuf>,
    /// Print the commands of each side instead of running them
    #[arg(long)]
    print: bool,
    /// Allow settings of risk 3
    #[arg(long)]
    i_understand: bool,
    #[command(flatten)]
    place: Where,
    /// Flags of ringroom load
    #[arg(last = true)]
    load: Vec<String>,
}

/// What a comparison is, so that its directory can be gone on with, and read, later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub version: u32,
    pub mode: Mode,
    pub profiles: Vec<String>,
    pub runs: usize,
    pub seed: u64,
    pub sides: Vec<PlannedSide>,
    pub unobservable: Vec<Unobservable>,
    pub scenario: Option<String>,
    pub load: Vec<String>,
    pub server_config: String,
    pub shard_cpus: String,
    pub client_cpus: String,
    pub load_host: Option<String>,
    /// How to repeat it.
    pub command: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedSide {
    pub name: String,
    pub setting: Option<String>,
    /// Ids and wanted values.
    pub values: Vec<(String, String)>,
}

/// The command; gives exit code and last words.
pub(super) fn run(args: &Args) -> Result<(Exit, String), (Exit, String)> {
    if let Some(directory) = &args.recompute {
        return recompute(directory).map(|text| (Exit::Done, text)).map_err(|why| (Exit::Failed, why));
    }
    let job = prepare(args).map_err(|why| (Exit::Usage, why))?;
    if args.print {
        return Ok((Exit::Done, job.commands()));
    }
    if args.detach {
        return detach(args).map_err(|why| (Exit::Failed, why));
    }
    job.begin(args.resume).map_err(|why| (Exit::Usage, why))?;
    let (news, signals) = crossbeam_channel::bounded(4);
    signals::install(news).map_err(|why| (Exit::Failed, format!("signals: {why}")))?;
    let stopped = job.measure(&signals).map_err(|why| (Exit::Failed, why))?;
    let text = recompute(&args.out).map_err(|why| (Exit::Failed, why))?;
    let end = if stopped { "\nStopped early; --resume goes on.\n" } else { "" };
    Ok((if stopped { Exit::Pending } else { Exit::Done }, format!("{text}{end}")))
}

/// All that a comparison needs, checked.
struct Job {
    plan: Plan,
    sides: Sides,
    order: Vec<Turn>,
    bench: Bench,
    out: PathBuf,
}

fn prepare(args: &Args) -> Result<Job, String> {
    if args.runs == 0 || args.runs > RUNS_MAX {
        return Err(format!("--runs {}: from 1 to {RUNS_MAX}", args.runs));
    }
    let machine = args.place.machine();
    let cpus = machine.cpus()?;
    let catalogue = Catalogue::built_in();
    let profiles = args.profiles.iter().map(|name| profile::load(name, &catalogue, &cpus)).collect::<Result<Vec<Profile>, _>>()?;
    if let Some(profile) = profiles.iter().find(|profile| profile.risk() >= super::catalogue::RISK_MAX && !args.i_understand) {
        return Err(format!("{} gives up safety or security ({}): --i-understand allows it", profile.name, profile.cost));
    }
    let sides = Sides::new(&machine, args.mode, &profiles, args.load_host.is_none())?;
    let scenario = match &args.scenario {
        None => None,
        Some(path) => Some(fs::read_to_string(path).map_err(|why| format!("can't read {}: {why}", path.display()))?),
    };
    let mut load = Vec::new();
    if let Some(path) = &args.scenario {
        load.extend(["--scenario".to_owned(), path.display().to_string()]);
    }
    load.extend(args.load.iter().cloned());
    let config_text = match &args.server_config {
        None => String::new(),
        Some(path) => fs::read_to_string(path).map_err(|why| format!("can't read {}: {why}", path.display()))?,
    };
    let config: toml::Table = config_text.parse().map_err(|why: toml::de::Error| format!("the server's config: {}", why.message()))?;
    let (shards, client) = cpu_lists(args, &cpus)?;
    let planned = |side: &sides::Side| PlannedSide {
        name: side.name.clone(),
        setting: side.setting.clone(),
        values: side.profile.values.iter().map(|(setting, wanted)| (setting.id.clone(), wanted.text.clone())).collect(),
    };
    let plan = Plan {
        version: VERSION,
        mode: args.mode,
        profiles: args.profiles.clone(),
        runs: args.runs,
        seed: args.seed,
        sides: sides.sides.iter().map(planned).collect(),
        unobservable: sides.unobservable.clone(),
        scenario,
        load: load.clone(),
        server_config: config_text,
        shard_cpus: shards.clone(),
        client_cpus: client.clone(),
        load_host: args.load_host.clone(),
        command: std::env::args()
            .map(|arg| if arg.contains(' ') { format!("'{arg}'") } else { arg })
            .skip(1)
            .fold("ringroom".to_owned(), |all, arg| all + " " + &arg),
    };
    let bench = Bench {
        machine,
        state: args.place.state(),
        program: std::env::current_exe().map_err(|why| format!("can't find this program: {why}"))?,
        config,
        shard_cpus: shards,
        client_cpus: client,
        load,
        load_host: args.load_host.clone(),
        listen: args.listen,
        patience: Duration::from_millis(args.patience),
        settle: Duration::from_millis(args.settle),
    };
    let order = sides::schedule(sides.sides.len(), args.runs, args.seed);
    Ok(Job { plan, sides, order, bench, out: args.out.clone() })
}

/// Which CPUs each end gets. With one CPU both get it.
fn cpu_lists(args: &Args, cpus: &[Cpu]) -> Result<(String, String), String> {
    let checked = |flag: &str, text: &String| {
        affinity::parse_list(text).map_err(|why| format!("{flag} {text}: {why}")).and_then(|named| {
            match named.iter().find(|cpu| !cpus.contains(cpu)) {
                Some(absent) => Err(format!("{flag} {text}: CPU {absent} is not on this machine ({})", list(cpus))),
                None => Ok(text.clone()),
            }
        })
    };
    let most = cpus.len().saturating_sub(1).max(1);
    let shards = args.shard_cpus.as_ref().map_or_else(|| Ok(list(&cpus[..most.min(cpus.len())])), |text| checked("--shard-cpus", text))?;
    let client = match (&args.client_cpus, &args.load_host) {
        (Some(text), None) => checked("--client-cpus", text)?,
        // Another host's CPUs can't be looked at from here.
        (Some(text), Some(_)) => text.clone(),
        (None, Some(_)) => String::new(),
        (None, None) => list(&cpus[cpus.len().saturating_sub(1)..]),
    };
    Ok((shards, client))
}

impl Job {
    fn directory(&self, turn: Turn) -> PathBuf {
        let side = turn.side.map_or(AGAIN, |side| self.sides.sides[side].name.as_str());
        self.out.join("sides").join(side).join(format!("{:02}", turn.number))
    }

    fn profile(&self, turn: Turn) -> &Profile {
        &self.sides.sides[turn.side.unwrap_or(0)].profile
    }

    /// The commands of each side, for whoever runs them on two hosts by hand.
    fn commands(&self) -> String {
        let mut text = String::new();
        for side in &self.sides.sides {
            let config = self.bench.server_config(&side.profile).unwrap_or_else(|why| format!("{why:?}"));
            let address = self.bench.listen.map_or_else(|| "ADDRESS:7777".to_owned(), |address| address.to_string());
            let pinned = if self.bench.shard_cpus.is_empty() { String::new() } else { format!(" --cpus {}", self.bench.shard_cpus) };
            text.push_str(&format!(
                "# {}\n# on the server's host, with this config:\n{}ringroom tune apply {}\nringroom serve --listen {address} --config FILE{pinned}\n# on the generator's host:\nringroom {} --out DIR\n# afterwards, on the server's host:\nringroom tune revert\n\n",
                side.name,
                config.lines().map(|line| format!("#   {line}\n")).collect::<String>(),
                side.profile.name,
                self.bench.load_flags(&address, self.plan.seed).join(" "),
            ));
        }
        text
    }

    /// Makes the directory, or finds what is to be gone on with.
    fn begin(&self, resume: bool) -> Result<(), String> {
        let path = self.out.join(PLAN);
        let failed = |why: io::Error| format!("{}: {why}", path.display());
        if !path.exists() {
            fs::create_dir_all(&self.out).map_err(failed)?;
            let text = serde_json::to_string_pretty(&self.plan).expect("texts and numbers are JSON");
            return fs::write(&path, text + "\n").map_err(failed);
        }
        if !resume {
            return Err(format!("{} holds a comparison: --resume goes on with it, or choose another --out", self.out.display()));
        }
        let known: Plan =
            serde_json::from_str(&fs::read_to_string(&path).map_err(failed)?).map_err(|why| format!("{}: {why}", path.display()))?;
        // How it was called may differ (--resume itself does); what is measured may not.
        if (Plan { command: String::new(), ..known }) == (Plan { command: String::new(), ..self.plan.clone() }) {
            Ok(())
        } else {
            Err(format!("{} holds another comparison than this: the same flags go on with it, or choose another --out", self.out.display()))
        }
    }

    /// The run is there, and the machine was the same all through it.
    fn is_done(&self, turn: Turn) -> bool {
        let out = self.directory(turn);
        out.join("result.json").exists() && !out.join(DRIFT).exists()
    }

    /// All runs that are not there yet; true when somebody stopped it.
    fn measure(&self, signals: &Receiver<Signal>) -> Result<bool, String> {
        let open: Vec<(usize, Turn)> = self.order.iter().copied().enumerate().filter(|(_, turn)| !self.is_done(*turn)).collect();
        let before = self.surroundings();
        let (start, mut failures) = (Instant::now(), 0);
        for (done, (place, turn)) in open.iter().enumerate() {
            let out = self.directory(*turn);
            // The same list of seeds on every side: the same messages are due.
            let seed = self.plan.seed.wrapping_add(turn.number as u64);
            if out.join(DRIFT).exists() {
                fs::remove_dir_all(&out).map_err(|why| format!("{}: {why}", out.display()))?;
            }
            self.tell(*place, *turn, done, open.len(), start);
            match self.bench.run(self.profile(*turn), seed, &out, signals) {
                Ok(()) => failures = 0,
                Err(Ended::Stopped) => {
                    // Half a run is no run.
                    let _ = fs::remove_dir_all(&out);
                    return Ok(true);
                }
                Err(Ended::Failed(why)) => {
                    failures += 1;
                    say(&format!("    failed: {why}"));
                    if failures >= FAILURES_MAX {
                        return Err(format!("{FAILURES_MAX} runs failed one after the other; the last one: {why}"));
                    }
                }
            }
            let drift = drifted(&before, &self.surroundings());
            if !drift.is_empty() {
                fs::write(out.join(DRIFT), drift.join("\n") + "\n").map_err(|why| why.to_string())?;
                return Err(format!("settings are not as they were before the first run: {}", drift.join("; ")));
            }
        }
        Ok(false)
    }

    /// Every setting of the machine, as text.
    fn surroundings(&self) -> String {
        show::list(&self.bench.machine, &Catalogue::built_in())
    }

    fn tell(&self, place: usize, turn: Turn, done: usize, open: usize, start: Instant) {
        let side = turn.side.map_or_else(|| format!("{} {AGAIN}", self.sides.sides[0].name), |side| self.sides.sides[side].name.clone());
        let left = match u32::try_from(done) {
            Ok(done @ 1..) => {
                let each = start.elapsed() / done;
                let rest = each * u32::try_from(open).unwrap_or(u32::MAX).saturating_sub(done);
                format!(", about {} min left", rest.as_secs().div_ceil(60))
            }
            _ => String::new(),
        };
        say(&format!("run {} of {}: {side} #{}{left}", place + 1, self.order.len(), turn.number + 1));
    }
}

/// A line to whoever watches; a closed pipe has nobody.
fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
    let _ = io::stdout().flush();
}

/// Lines that differ.
fn drifted(before: &str, after: &str) -> Vec<String> {
    before
        .lines()
        .zip(after.lines())
        .filter(|(before, after)| before != after)
        .map(|(before, after)| format!("{} -> {}", before.trim(), after.trim()))
        .collect()
}

/// Starts the same command again without the terminal.
fn detach(args: &Args) -> Result<(Exit, String), String> {
    use std::os::unix::process::CommandExt;
    fs::create_dir_all(&args.out).map_err(|why| format!("{}: {why}", args.out.display()))?;
    let log = args.out.join("compare.log");
    let failed = |why: io::Error| format!("{}: {why}", log.display());
    let out = fs::OpenOptions::new().create(true).append(true).open(&log).map_err(failed)?;
    let program = std::env::current_exe().map_err(failed)?;
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1).filter(|arg| arg != "--detach"));
    command.stdin(Stdio::null()).stdout(out.try_clone().map_err(failed)?).stderr(out).process_group(0);
    let child = command.spawn().map_err(failed)?;
    let follow = if io::stdout().is_terminal() { format!("; follow it with: tail -f {}", log.display()) } else { String::new() };
    Ok((Exit::Done, format!("running as process {}{follow}; kill -TERM {} stops it in order\n", child.id(), child.id())))
}

/// The machine of a plan's command, for tests.
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_drifted_is_named() {
        assert_eq!(drifted("a 1\nb 2\n", "a 1\nb 3\n"), ["b 2 -> b 3"]);
        assert!(drifted("a 1\n", "a 1\n").is_empty());
    }
}
