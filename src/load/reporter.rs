//! The reporter: sets the clock, merges what the workers report, prints a line per second, closes the books.
//!
//! It runs on the calling thread. It samples the server's CPU at the borders of the window, and turns a signal into an early end of the window, so that
//! what ran is still a result.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::sys::clock::monotonic_ns;
use crate::sys::signals::Signal;

use super::environment::Before;
use super::names::RunId;
use super::observe::{Memory, Process};
use super::party::Party;
use super::plan::{Plan, ServerLimits, as_f64};
use super::record::{Counts, Histograms, Interval, Joiner, Phase};
use super::report::files::Files;
use super::report::live::{self, Around, Merger};
use super::report::per_second;
use super::report::summary::{ClockShown, FORMAT, GeneratorShown, Percentiles, PlanShown, Second, Server, Summary, ThreadShown, VERSION};
use super::slo::SloShown;
use super::verdict::{self, Books, Generator, Verdict};
use super::worker::{Outcome, Report};
use super::{Exit, Failure, Job, Outside};

/// Between the last login and the first message.
const SETTLE_NS: u64 = 100_000_000;
/// How often the reporter looks at its clocks.
const TICK: Duration = Duration::from_millis(20);

/// The server and the machine, as they were before the run.
#[derive(Debug)]
pub(super) struct Watch {
    pub process: Option<Process>,
    pub limits: ServerLimits,
    pub clock: ClockShown,
    pub before: Before,
    pub started_unix_ms: u64,
}

/// A look at the server at a border of the window.
#[derive(Clone, Copy, Default)]
struct Sample {
    cpu_ns: Option<u64>,
    deliveries: Option<u64>,
}

pub(super) struct Reporter<'a> {
    job: &'a Job,
    run: RunId,
    plan: Arc<Plan>,
    party: Party,
    watch: Watch,
    files: Option<Files>,
    merger: Merger,
    joiner: Joiner,
    totals: Histograms,
    /// What each lane measured in the window.
    by_lane: Vec<Histograms>,
    counts: Counts,
    delivered_in_grace: u64,
    seconds: Vec<Second>,
    outcomes: Vec<Outcome>,
    /// Books of agents.
    parts: Vec<(u16, Books)>,
    logged_in: usize,
    memory_before: Option<Memory>,
    memory: Option<Memory>,
    window: [Option<Sample>; 2],
    cut_short: bool,
    /// When the last second of the window was over, on the slowest thread.
    measured_until_ns: u64,
    /// Of the search that this run ends.
    pub(super) find_max: Option<serde_json::Value>,
}

impl<'a> Reporter<'a> {
    pub(super) fn new(job: &'a Job, (run, watch): (RunId, Watch), party: Party, files: Option<Files>) -> Self {
        let plan = Arc::clone(&job.plan);
        let lanes = party.lanes();
        Self {
            merger: Merger::new(lanes),
            joiner: Joiner::new(plan.threads_of_rooms().to_vec()),
            memory_before: watch.process.and_then(Process::memory),
            totals: Histograms::new(),
            by_lane: std::iter::repeat_with(Histograms::new).take(lanes).collect(),
            counts: Counts::default(),
            delivered_in_grace: 0,
            seconds: Vec::new(),
            outcomes: Vec::new(),
            parts: Vec::new(),
            logged_in: 0,
            memory: None,
            window: [None; 2],
            cut_short: false,
            measured_until_ns: 0,
            find_max: None,
            job,
            run,
            plan,
            party,
            watch,
            files,
        }
    }

    /// Until every worker is done; the result is in the files and in hand.
    pub(super) fn run(mut self, outside: &mut Outside<'_>) -> Result<(Summary, Histograms), Failure> {
        let done = self.report(outside);
        self.party.join();
        live::finish(outside.out, outside.style)?;
        done?;
        self.end()
    }

    fn report(&mut self, outside: &mut Outside<'_>) -> Result<(), Failure> {
        let lanes = self.party.lanes();
        let mut shown_ns = monotonic_ns();
        while self.outcomes.len() + self.parts.len() < lanes {
            if let Ok(signal) = outside.signals.try_recv() {
                self.on_signal(signal)?;
            }
            self.sample();
            match self.party.reports().recv_timeout(TICK) {
                Ok((lane, report)) => self.on_report(lane, report)?,
                Err(crossbeam_channel::RecvTimeoutError::Timeout) => self.check_threads()?,
                Err(crossbeam_channel::RecvTimeoutError::Disconnected) => {
                    return Err(Failure::new(Exit::Kernel, "a generator thread has ended without a result"));
                }
            }
            while let Some(interval) = self.merger.next_complete() {
                self.on_second(interval, outside)?;
            }
            if self.logged_in < lanes && monotonic_ns() > shown_ns + 1_000_000_000 {
                shown_ns = monotonic_ns();
                let text = match self.party.logged_in() {
                    Some(count) => format!("  login {count} of {}", self.plan.wish().connections),
                    None => format!("  {} of {lanes} agents ready", self.logged_in),
                };
                live::show(outside.out, outside.style, &text)?;
            }
        }
        Ok(())
    }

    /// A thread that panicked sends nothing more.
    fn check_threads(&self) -> Result<(), Failure> {
        if self.party.ended() > self.outcomes.len() && self.party.reports().is_empty() {
            return Err(Failure::new(Exit::Kernel, "a generator thread has ended without a result"));
        }
        Ok(())
    }

    fn on_signal(&mut self, signal: Signal) -> Result<(), Failure> {
        let Some(now) = self.party.since_start_ns().filter(|_| signal != Signal::Stop) else {
            return Err(Failure::new(Exit::Invalid, "stopped before there was a result"));
        };
        self.cut_short |= self.party.end_ns() > now;
        self.party.cut_short();
        Ok(())
    }

    /// Looks at the server when a border of the window has been crossed.
    fn sample(&mut self) {
        let Some(now) = self.party.since_start_ns() else { return };
        let borders = [self.plan.wish().warmup_ns, self.party.end_ns()];
        for (border, at_ns) in borders.into_iter().enumerate() {
            if now >= at_ns && self.window[border].is_none() {
                let cpu_ns = self.watch.process.and_then(Process::cpu_ns);
                self.window[border] = Some(Sample { cpu_ns, deliveries: self.party.received() });
                self.memory = self.watch.process.and_then(Process::memory);
            }
        }
    }

    fn on_report(&mut self, lane: u16, report: Report) -> Result<(), Failure> {
        match report {
            Report::LoggedIn(interval) => {
                self.totals.add(&interval.histograms);
                self.logged_in += 1;
                if self.logged_in == self.party.lanes() {
                    self.begin()?;
                }
            }
            Report::Interval(mut interval) => {
                if interval.phase != Phase::Warmup {
                    self.by_lane[usize::from(lane)].add(&interval.histograms);
                }
                self.joiner.join(&mut interval);
                if let Some(emptied) = self.merger.add(usize::from(lane), interval) {
                    self.party.give_back(lane, emptied);
                }
            }
            Report::Done(outcome) => self.outcomes.push(*outcome),
            Report::Books(books) => self.parts.push((lane, *books)),
            Report::Failed(text) => return Err(Failure::new(Exit::Unreachable, text)),
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<(), Failure> {
        if let Some(files) = &mut self.files {
            files.begin(SystemTime::now() + Duration::from_nanos(SETTLE_NS))?;
            files.add_logins(&self.totals)?;
        }
        self.party.begin(SETTLE_NS)
    }

    fn on_second(&mut self, interval: Box<Interval>, outside: &mut Outside<'_>) -> Result<(), Failure> {
        if let Some(files) = &mut self.files {
            files.add(&interval)?;
        }
        self.seconds.push(Second::of(&interval));
        if interval.phase != Phase::Grace && !self.plan.wish().idle {
            let end_ns = self.party.end_ns();
            let around = Around { missing: self.party.missing(), left_ns: end_ns.saturating_sub(interval.end_ns) };
            live::show(outside.out, outside.style, &live::line(&interval, around))?;
        }
        if interval.phase == Phase::Grace {
            self.delivered_in_grace += interval.counts.delivered;
            self.counts.add(&Counts { delivered: 0, ..interval.counts });
        } else if interval.phase == Phase::Measured {
            self.counts.add(&interval.counts);
            self.measured_until_ns = self.measured_until_ns.max(interval.end_ns);
        }
        if interval.phase != Phase::Warmup {
            self.totals.add(&interval.histograms);
        }
        self.party.give_back(0, interval);
        Ok(())
    }

    fn end(mut self) -> Result<(Summary, Histograms), Failure> {
        self.outcomes.sort_by_key(|outcome| outcome.lane);
        self.parts.sort_by_key(|(lane, _)| *lane);
        let mut books = Books::of(&self.plan, &self.outcomes);
        self.parts.iter().for_each(|(_, part)| books.add(part));
        books.unwatched += self.joiner.given_up;
        let summary = self.summary(books);
        if let Some(files) = self.files.take() {
            files.finish(&summary, &self.totals, &self.job.scenario_text)?;
        }
        Ok((summary, self.totals))
    }

    /// The window as it was meant to be, or cut short; and as it was, which is longer where the generator was behind.
    fn windows(&self) -> (u64, u64) {
        let since_warmup = |ns: u64| ns.saturating_sub(self.plan.wish().warmup_ns);
        let planned_ns = since_warmup(self.party.end_ns());
        (planned_ns, planned_ns.max(since_warmup(self.measured_until_ns)))
    }

    fn summary(&mut self, books: Books) -> Summary {
        let wish = self.plan.wish();
        let (planned_ns, window_ns) = self.windows();
        let generator = Generator {
            busy_share: books.busy_share(),
            unsent: books.unsent,
            unwatched: books.unwatched,
            planned_ns,
            window_ns,
            loads: !wish.idle,
            closed: wish.closed.is_some(),
        };
        let doubts = verdict::doubts(&self.totals, generator);
        let slo: Vec<SloShown> = self.job.slos.iter().map(|slo| slo.check(&self.totals)).collect();
        let missed = slo.iter().filter_map(SloShown::missed).collect();
        let (verdict, reasons) = verdict::judge(&books.faults, doubts.invalid, missed);
        let mut counts = self.counts;
        let delivered_per_s = per_second(counts.delivered, window_ns);
        counts.delivered += self.delivered_in_grace;
        Summary {
            format: FORMAT,
            version: VERSION,
            verdict,
            exit: Exit::of(verdict) as u8,
            reasons,
            warnings: [doubts.warnings, self.job.notes.clone()].concat(),
            command: self.job.command.clone(),
            target: wish.target.name(),
            kind: if wish.closed.is_some() { "closed" } else { "open" },
            run: String::from_utf8_lossy(&self.run.digits()).into_owned(),
            started_unix_ms: self.watch.started_unix_ms,
            scenario: self.job.scenario.clone(),
            plan: PlanShown::new(&self.plan),
            window_ns,
            cut_short: self.cut_short,
            counts,
            sent_per_s: per_second(counts.sent, window_ns),
            delivered_per_s,
            sent_in_all: books.sent,
            deliveries_expected_in_all: books.expected,
            deliveries_in_all: books.received,
            faults: books.faults,
            excused: books.excused,
            unsent: books.unsent,
            unwatched: books.unwatched,
            latency: self.totals.named().into_iter().map(|(name, h)| (name, Percentiles::of(&h))).collect(),
            slo,
            find_max: self.find_max.take(),
            generator: self.generator(&books),
            remarks: books.remarks,
            server: self.watch.process.map(|process| self.server(process)),
            environment: self.watch.before.until_now(self.watch.process.map(|process| process.pid)),
            agents: match &self.party {
                Party::Own(_) => Vec::new(),
                Party::Fleet(fleet) => fleet.shown(&self.parts, &self.by_lane),
            },
            seconds: std::mem::take(&mut self.seconds),
        }
    }

    fn generator(&self, books: &Books) -> GeneratorShown {
        let thread = |cost: &verdict::ThreadCost| ThreadShown {
            cost: *cost,
            cpu: self.party.cpu(cost.lane),
            delivery: self.by_lane.get(usize::from(cost.lane)).map(|own| Percentiles::of(&own.delivery())),
        };
        GeneratorShown {
            busy_share: books.busy_share(),
            threads: books.threads.iter().map(thread).collect(),
            clock: self.watch.clock.clone(),
        }
    }

    fn server(&self, process: Process) -> Server {
        let [before, after] = self.window.map(Option::unwrap_or_default);
        let cpu_ns = after.cpu_ns.zip(before.cpu_ns).map(|(after, before)| after.saturating_sub(before));
        let counted = after.deliveries.zip(before.deliveries).map(|(after, before)| after.saturating_sub(before));
        // Agents count by the second, which is their window's too.
        let deliveries = counted.unwrap_or(self.counts.delivered);
        let per_delivery = |ns: u64| as_f64(ns) / 1e3 / as_f64(deliveries);
        Server {
            pid: process.pid,
            cpu_ns,
            deliveries,
            cpu_us_per_delivery: cpu_ns.filter(|_| deliveries > 0).map(per_delivery),
            memory_before: self.memory_before,
            memory: self.memory,
            limits: self.watch.limits,
        }
    }
}

impl Exit {
    pub(super) fn of(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Ok => Self::Ok,
            Verdict::Faulty | Verdict::Missed => Self::Faulty,
            Verdict::Invalid => Self::Invalid,
        }
    }
}
