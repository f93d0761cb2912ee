//! The tuning lab: `ringroom tune` shows, sets and puts back settings of kernel, host and server, and measures what they do.
//!
//! Owns the command line and its exit codes. A value is never changed without its former value on the disk ([`journal`]); boot parameters and firmware are
//! described and never touched. [`catalogue`] says what there is, [`profile`] what is wanted, [`machine`] what is there, [`plan`] the difference,
//! [`apply`] goes there and back, [`keeper`] holds devices open, [`noise`] measures the bare machine, [`compare`] measures what profiles and settings do
//! to a server under load.

pub mod apply;
pub mod catalogue;
pub mod compare;
pub mod journal;
pub mod keeper;
pub mod machine;
pub mod noise;
pub mod plan;
pub mod profile;
pub mod roles;
mod show;
pub mod value;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use crate::sys::affinity::{self, Cpu};
use crate::sys::clock;

use apply::{Event, Failure, Work};
use catalogue::{Catalogue, RISK_MAX};
use journal::{State, StateError};
use machine::Machine;
use plan::Plan;
use profile::Profile;

/// Show, set and put back settings of kernel, host and server, and measure what they do
///
/// Exit codes: 0 done, or nothing to do; 1 something failed (everything that was set is back); 2 changes are pending, or values have drifted; 3 put back
/// except for values that somebody else has changed; 64 bad command line or profile; 75 another one is at work, or another profile is in force; 77 not
/// allowed (root is needed).
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Command {
    /// All settings of the catalogue, and which are on this machine
    List(Where),
    /// One setting: what it does, how it is read, set and put back, and its value here
    Show {
        id: String,
        #[command(flatten)]
        place: Where,
    },
    /// The built-in profiles
    Profiles,
    /// What a profile would change; changes nothing
    Plan {
        #[command(flatten)]
        profile: Which,
        #[command(flatten)]
        place: Where,
    },
    /// Set a profile's values, the former ones written down first
    Apply {
        #[command(flatten)]
        profile: Which,
        /// Put everything back by itself after this time, like 30m, 90s or 2h
        #[arg(long = "for", value_name = "TIME", value_parser = duration)]
        for_ms: Option<u64>,
        #[command(flatten)]
        place: Where,
    },
    /// Put the former values back, also after a crash
    Revert(Where),
    /// What is in force, since when, and what has drifted
    Status(Where),
    /// Whether a profile's values are in force: exit 0 yes, 2 no
    Verify {
        #[command(flatten)]
        profile: Which,
        #[command(flatten)]
        place: Where,
    },
    Compare(Box<compare::Args>),
    /// How long each CPU is taken away from a thread that never sleeps
    Noise {
        /// CPUs to measure, one after the other [default: all this process may use]
        #[arg(long, value_name = "LIST")]
        cpus: Option<String>,
        /// Time per CPU, like 5s
        #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
        duration: u64,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Where,
    },
    /// Hold devices open (started by apply)
    #[command(hide = true)]
    Keep(keeper::Args),
}

/// The machine and where its state is kept.
#[derive(Clone, Debug, clap::Args)]
pub struct Where {
    /// Root of the machine's files; another one than / is a machine to try things on
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
    /// Where the journal is kept [default: var/lib/ringroom/tune below the root]
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Network interface to tune [default: the first one with a device]
    #[arg(long, value_name = "NAME")]
    pub nic: Option<String>,
}

impl Where {
    fn machine(&self) -> Machine {
        Machine::new(&self.root, self.nic.clone())
    }

    fn state(&self) -> PathBuf {
        self.state.clone().unwrap_or_else(|| self.root.join("var/lib/ringroom/tune"))
    }
}

/// A profile by name or path.
#[derive(Clone, Debug, clap::Args)]
struct Which {
    /// A built-in profile (ringroom tune profiles), or the path of a file that ends in .toml
    #[arg(value_name = "PROFILE")]
    name: String,
    /// Allow settings of risk 3, which give up safety or security
    #[arg(long)]
    i_understand: bool,
}

impl Which {
    fn load(&self, machine: &Machine) -> Result<Profile, Stop> {
        let cpus = machine.cpus().map_err(|why| Stop(Exit::Failed, why))?;
        let profile = profile::load(&self.name, &Catalogue::built_in(), &cpus).map_err(|why| Stop(Exit::Usage, why))?;
        Ok(profile)
    }
}

/// How the command ends; the number is the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Done = 0,
    Failed = 1,
    Pending = 2,
    Foreign = 3,
    Usage = 64,
    Busy = 75,
    Forbidden = 77,
}

/// Why it stopped: exit code and line.
#[derive(Debug)]
struct Stop(Exit, String);

impl From<StateError> for Stop {
    fn from(error: StateError) -> Self {
        let exit = match &error {
            StateError::Locked(_) => Exit::Busy,
            StateError::Io(_, why) if why.kind() == io::ErrorKind::PermissionDenied => Exit::Forbidden,
            StateError::Io(..) | StateError::Damaged(..) => Exit::Failed,
        };
        Self(exit, error.to_string())
    }
}

/// The command.
pub fn run(args: &Args) -> ExitCode {
    match carry_out(&args.command) {
        Ok((exit, text)) => {
            // A closed pipe has nobody to tell.
            let _ = write!(io::stdout(), "{text}");
            ExitCode::from(exit as u8)
        }
        Err(Stop(exit, why)) => {
            let _ = writeln!(io::stderr(), "ringroom tune: {why}");
            ExitCode::from(exit as u8)
        }
    }
}

fn carry_out(command: &Command) -> Result<(Exit, String), Stop> {
    match command {
        Command::List(place) => Ok((Exit::Done, show::list(&place.machine(), &Catalogue::built_in()))),
        Command::Show { id, place } => {
            show::setting(&place.machine(), &Catalogue::built_in(), id).map(|text| (Exit::Done, text)).map_err(|why| Stop(Exit::Usage, why))
        }
        Command::Profiles => {
            let found = show::profiles(&Catalogue::built_in()).map_err(|why| Stop(Exit::Failed, why))?;
            Ok((Exit::Done, found))
        }
        Command::Plan { profile, place } => plan(profile, place),
        Command::Apply { profile, for_ms, place } => apply_profile(profile, *for_ms, place),
        Command::Revert(place) => revert(place),
        Command::Status(place) => status(place),
        Command::Verify { profile, place } => verify(profile, place),
        Command::Compare(args) => compare::run(args).map_err(|(exit, why)| Stop(exit, why)),
        Command::Noise { cpus, duration, json, place } => noise(cpus.as_deref(), *duration, *json, place),
        Command::Keep(args) => keeper::run(args).map(|()| (Exit::Done, String::new())).map_err(|why| {
            // Whoever started it reads the reason where it waits for the word.
            let _ = writeln!(io::stdout(), "{why}");
            Stop(Exit::Failed, why)
        }),
    }
}

fn plan(which: &Which, place: &Where) -> Result<(Exit, String), Stop> {
    let machine = place.machine();
    let profile = which.load(&machine)?;
    let plan = Plan::new(&machine, &profile);
    let mut text = format!("{}: {}\nCosts: {}\n\n{}", profile.name, profile.text, profile.cost, plan.table());
    if plan.risk >= RISK_MAX {
        text.push_str("\nIt gives up safety or security: apply needs --i-understand.\n");
    }
    let pending = plan.changes().next().is_some() || plan.forbidden().next().is_some();
    Ok((if pending { Exit::Pending } else { Exit::Done }, text))
}

fn apply_profile(which: &Which, for_ms: Option<u64>, place: &Where) -> Result<(Exit, String), Stop> {
    let machine = place.machine();
    let profile = which.load(&machine)?;
    if profile.risk() >= RISK_MAX && !which.i_understand {
        return Err(Stop(
            Exit::Usage,
            format!("{} gives up safety or security ({}): --i-understand allows it", profile.name, profile.cost),
        ));
    }
    let plan = Plan::new(&machine, &profile);
    if let Some(step) = plan.forbidden().next() {
        let why = format!("{} is not allowed here; nothing was changed. The plan:\n\n{}", step.setting.id, plan.table());
        return Err(Stop(Exit::Forbidden, why));
    }
    let folder = place.state();
    let state = State::lock(&folder)?;
    let set = set(&machine, &state, &plan, for_ms.map(|ms| clock::unix_ms() + ms))?;
    let mut text = plan.table();
    let _ = std::fmt::Write::write_fmt(
        &mut text,
        format_args!("\n{} is in force ({set} values set). `ringroom tune revert` puts everything back", profile.name),
    );
    text.push_str(match for_ms {
        Some(_) => "; it goes back by itself when its time is over.\n",
        None => ".\n",
    });
    Ok((Exit::Done, text))
}

/// Sets what a plan changes, devices that are held included; gives how many values. Any failure puts everything back.
pub(crate) fn set_all(
    machine: &Machine,
    state: &State,
    folder: &std::path::Path,
    plan: &Plan,
    until_unix_ms: Option<u64>,
) -> Result<usize, (Exit, String)> {
    let work = Work { machine, state, now_unix_ms: clock::unix_ms() };
    let before = state.story().map_err(|why| (Exit::Failed, why.to_string()))?.and_then(|story| story.keeper);
    let (mut journal, held) = work.apply(plan, &mut |_: Event<'_>| true).map_err(failed)?;
    let failed_later = |why: String| {
        let reverted = work.revert(&mut |_| true);
        (Exit::Failed, format!("{why}; {}", show::reverted_in_words(&reverted)))
    };
    if let Some(unix_ms) = until_unix_ms {
        journal.until(unix_ms).map_err(|why| failed_later(why.to_string()))?;
    }
    let holding = before.is_some_and(keeper::alive);
    if (!held.is_empty() && !holding) || until_unix_ms.is_some() {
        if let Some(old) = before.filter(|_| holding) {
            keeper::stop(old).map_err(failed_later)?;
        }
        let start = keeper::Start { machine, state: folder, held: &held, until_unix_ms };
        let keeper = keeper::start(&start).map_err(failed_later)?;
        journal.keeper(keeper).map_err(|why| failed_later(why.to_string()))?;
    }
    journal.applied().map_err(|why| failed_later(why.to_string()))?;
    Ok(plan.changes().count())
}

fn set(machine: &Machine, state: &State, plan: &Plan, until_unix_ms: Option<u64>) -> Result<usize, Stop> {
    set_all(machine, state, state.folder(), plan, until_unix_ms).map_err(|(exit, why)| Stop(exit, why))
}

fn failed(failure: Failure) -> (Exit, String) {
    match failure {
        Failure::State(error) => {
            let Stop(exit, why) = error.into();
            (exit, why)
        }
        Failure::Other { profile } => (Exit::Busy, format!("{profile} is in force: `ringroom tune revert` first")),
        Failure::Value { change, why, reverted } => {
            (Exit::Failed, format!("{}: {} {why}; {}", change.id, change.place, show::reverted_in_words(&reverted)))
        }
        Failure::Stopped => (Exit::Failed, "stopped".to_owned()),
    }
}

fn revert(place: &Where) -> Result<(Exit, String), Stop> {
    let (machine, folder) = (place.machine(), place.state());
    let state = State::lock(&folder)?;
    let Some(_) = state.story()? else { return Ok((Exit::Done, "Nothing is in force.\n".to_owned())) };
    let (exit, text) = put_back(&machine, &state)?;
    Ok((exit, text))
}

/// Ends the keeper and puts the former values back.
pub(crate) fn put_back(machine: &Machine, state: &State) -> Result<(Exit, String), StateError> {
    let story = state.story()?.unwrap_or_default();
    let mut text = String::new();
    if let Some(keeper) = story.keeper
        && let Err(why) = keeper::stop(keeper)
    {
        text.push_str(&format!("{why}\n"));
    }
    let work = Work { machine, state, now_unix_ms: clock::unix_ms() };
    let done = work.revert(&mut |_| true)?;
    text.push_str(&show::reverted(&done));
    let exit = match (done.failed.is_empty(), done.foreign.is_empty()) {
        (false, _) => Exit::Failed,
        (true, false) => Exit::Foreign,
        (true, true) => Exit::Done,
    };
    Ok((exit, text))
}

fn status(place: &Where) -> Result<(Exit, String), Stop> {
    let machine = place.machine();
    let Some(story) = journal::story(&place.state())? else { return Ok((Exit::Done, "Nothing is in force.\n".to_owned())) };
    let (drifted, text) = show::status(&machine, &story, clock::unix_ms());
    Ok((if drifted { Exit::Pending } else { Exit::Done }, text))
}

fn verify(which: &Which, place: &Where) -> Result<(Exit, String), Stop> {
    let machine = place.machine();
    let plan = Plan::new(&machine, &which.load(&machine)?);
    let open: Vec<_> = plan.changes().chain(plan.forbidden()).collect();
    let lines: Vec<String> = open
        .iter()
        .map(|step| format!("{}: {} instead of {}\n", step.setting.id, step.present.as_deref().unwrap_or("-"), step.wanted.text))
        .collect();
    if lines.is_empty() {
        return Ok((Exit::Done, format!("{}: every value that this tool sets here is in force.\n", plan.profile)));
    }
    Ok((Exit::Pending, lines.concat()))
}

fn noise(cpus: Option<&str>, duration_ms: u64, json: bool, place: &Where) -> Result<(Exit, String), Stop> {
    let cpus: Vec<Cpu> = match cpus {
        Some(list) => affinity::parse_list(list).map_err(|why| Stop(Exit::Usage, format!("--cpus {list}: {why}")))?,
        None => affinity::available().map_err(|why| Stop(Exit::Failed, format!("which CPUs this process may use: {why}")))?,
    };
    let source = place.machine().path("sys/devices/system/clocksource/clocksource0/current_clocksource");
    let clocksource = std::fs::read_to_string(source).map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned());
    let mut tell = |seen: &noise::CpuNoise| {
        if !json {
            let _ = writeln!(io::stdout(), "{}", seen.line());
        }
    };
    let seen = noise::measure(&cpus, duration_ms * 1_000_000, clocksource, &mut tell).map_err(|why| Stop(Exit::Usage, why))?;
    if json {
        let text = serde_json::to_string(&seen).expect("numbers and texts are JSON");
        return Ok((Exit::Done, format!("{text}\n")));
    }
    Ok((Exit::Done, format!("\n{}", seen.table())))
}

/// `30m` as milliseconds.
fn duration(text: &str) -> Result<u64, String> {
    const MOST_MS: u64 = 7 * 24 * 3_600_000;
    let wrong = || "must be a number with ms, s, m or h behind it, like 30m, and at most 7 days".to_owned();
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let unit_ms = match &text[digits..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    number.checked_mul(unit_ms).filter(|ms| (1..=MOST_MS).contains(ms)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit_and_an_end() {
        assert_eq!(duration("30m"), Ok(1_800_000));
        assert_eq!(duration("250ms"), Ok(250));
        for bad in ["30", "m", "", "-1s", "1d", "0s", "99999999999h", "1 s"] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
    }
}
