//! A run from its first check to its exit code: what can be known to be impossible is said before load starts.

use crate::ring;
use crate::sys::clock::unix_ms;
use crate::sys::rlimit::{self, Resource};

use super::body::Bodies;
use super::connect;
use super::crew::{Crew, Hire};
use super::dialect::Dialect;
use super::environment::{self, Before};
use super::fleet::Fleet;
use super::names::{Names, RunId};
use super::observe::Process;
use super::party::Party;
use super::record::Histograms;
use super::report::files::Files;
use super::report::summary::{ClockShown, Summary};
use super::report::table;
use super::reporter::{Reporter, Watch};
use super::worker::Pacing;
use super::{Exit, Failure, Job, Outside};

/// Clocks whose reads cost no system call.
const SLOW_CLOCKS: [&str; 3] = ["hpet", "acpi_pm", "jiffies"];

pub(super) fn run(job: &Job, outside: &mut Outside<'_>) -> Result<Exit, Failure> {
    let (summary, histograms) = once(job, outside, None)?;
    finish(job, outside, (&summary, &histograms))
}

/// Prints and gives the exit code.
pub(super) fn finish(job: &Job, outside: &mut Outside<'_>, (summary, histograms): (&Summary, &Histograms)) -> Result<Exit, Failure> {
    table::write(outside.out, summary, histograms)?;
    if job.json {
        let json = serde_json::to_string(summary).map_err(std::io::Error::from)?;
        writeln!(outside.out, "{json}")?;
    }
    outside.out.flush()?;
    Ok(Exit::of(summary.verdict))
}

/// What stands before the first connection of the crowd.
#[derive(Debug)]
pub(super) struct Ground {
    pub names: Names,
    pub features: ring::Features,
    pub watch: Watch,
}

/// Checks everything that can be checked without load.
pub(super) fn survey(job: &Job) -> Result<Ground, Failure> {
    let plan = &job.plan;
    // A failure to raise it shows in the limit that is left. Agents check their own.
    let files = rlimit::raise(Resource::Files).or_else(|_| rlimit::read(Resource::Files));
    if job.agents.is_empty() {
        plan.check_descriptors(files.map_or(u64::MAX, |limit| limit.soft))?;
    }
    let features = ring::probe().map_err(|error| Failure::new(Exit::Kernel, error))?;
    let clock = check_clock()?;
    let mut random = [0; 4];
    getrandom::fill(&mut random).map_err(|error| Failure::new(Exit::Kernel, error))?;
    let run = RunId::new(u32::from_ne_bytes(random));
    let names = Names::new(run, plan.named_rooms()).with_tokens(job.tokens.clone());
    let mut dialect = Dialect::new(plan.wish().target, names.clone(), Bodies::new(run, plan.wish().sizes.clone()));
    let limits = connect::probe(plan.wish().address, &mut dialect).map_err(|error| Failure::new(Exit::Unreachable, error))?;
    plan.check_server(&limits)?;
    let process = match job.server_pid {
        Some(pid) => Some(Process { pid }).filter(|p| p.exists()),
        None => Process::listening_on(plan.wish().address),
    };
    if let (Some(pid), None) = (job.server_pid, process) {
        return Err(Failure::new(Exit::Usage, format!("--server-pid {pid}: no such process")));
    }
    Ok(Ground { names, features, watch: Watch { process, limits, clock, before: Before::look(), started_unix_ms: unix_ms() } })
}

fn check_clock() -> Result<ClockShown, Failure> {
    let clock = environment::clock();
    if SLOW_CLOCKS.contains(&clock.source.as_str()) {
        return Err(Failure::new(Exit::Kernel, format!("clock source {}: reading it takes about a microsecond; use tsc", clock.source)));
    }
    Ok(clock)
}

/// One run. `find_max` is the search that it ends.
pub(super) fn once(job: &Job, outside: &mut Outside<'_>, find_max: Option<serde_json::Value>) -> Result<(Summary, Histograms), Failure> {
    let ground = survey(job)?;
    let files = job.out.as_deref().map(Files::create).transpose()?;
    let party = if job.agents.is_empty() {
        let pacing = if job.no_spin { Pacing::Sleep } else { Pacing::Spin };
        let hire = Hire { names: ground.names.clone(), pacing, features: ground.features, cpus: job.cpus.clone() };
        Party::Own(Crew::start(&job.plan, hire)?)
    } else {
        Party::Fleet(Fleet::start(job)?)
    };
    let mut reporter = Reporter::new(job, (ground.names.run(), ground.watch), party, files);
    reporter.find_max = find_max;
    reporter.run(outside)
}
