//! A run from the outside: workers started, the clock set, their reports merged, the books closed.
//!
//! The calling thread is the reporter. It samples the server's CPU at the borders of the window, prints a line per second, and turns a signal
//! into an early end of the window, so that what ran is still a result.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::ids::ShardId;
use crate::ring::{self, Bells, Features, Ring, RingSetup};
use crate::sys::affinity::{self, Cpu};
use crate::sys::clock::monotonic_ns;
use crate::sys::rlimit::{self, Resource};
use crate::sys::signals::Signal;

use super::body::Bodies;
use super::connect;
use super::dialect::Dialect;
use super::names::{Names, RunId};
use super::observe::{Memory, Process};
use super::plan::{Mode, Plan, as_f64};
use super::record::{Counts, Histograms, Interval, Phase};
use super::report::files::Files;
use super::report::live::{self, Merger};
use super::report::summary::{FORMAT, GeneratorShown, Percentiles, PlanShown, Second, Server, Summary, VERSION};
use super::report::{per_second, table};
use super::verdict::{self, Faults, Generator, Verdict};
use super::worker::{Outcome, Pacing, Report, Setup, Shared, Worker};
use super::{Exit, Failure, Job, Outside};

/// Receive buffers of a generator thread: 4 MiB, about what a second-level cache and a burst both bear.
const BUFFERS: u16 = 2_048;
/// Between the last login and the first message.
const SETTLE_NS: u64 = 100_000_000;
/// How often the reporter looks at its clocks.
const TICK: Duration = Duration::from_millis(20);
/// Reports of a worker that may wait for the reporter: a minute of seconds. Beyond it the worker waits.
const REPORTS: usize = 64;
/// Emptied intervals kept for each worker.
const SPARE: usize = 4;

pub(super) fn run(job: Job, outside: &mut Outside<'_>) -> Result<Exit, Failure> {
    let plan = Arc::new(job.plan);
    // A failure to raise it shows in the limit that is left.
    let files = rlimit::raise(Resource::Files).or_else(|_| rlimit::read(Resource::Files));
    plan.check_descriptors(files.map_or(u64::MAX, |limit| limit.soft))?;
    let features = ring::probe().map_err(|error| Failure::new(Exit::Kernel, error))?;
    let mut random = [0; 4];
    getrandom::fill(&mut random).map_err(|error| Failure::new(Exit::Kernel, error))?;
    let run = RunId::new(u32::from_ne_bytes(random));
    let names = Names::new(run, plan.named_rooms());
    let mut dialect = Dialect::new(plan.wish().target, names.clone(), Bodies::new(run, plan.wish().sizes.clone()));
    let limits = connect::probe(plan.wish().address, &mut dialect).map_err(|error| Failure::new(Exit::Unreachable, error))?;
    plan.check_server(&limits)?;
    let files = job.args.out.as_deref().map(Files::create).transpose()?;
    let process = match job.args.server_pid {
        Some(pid) => Some(Process { pid }).filter(|p| p.exists()),
        None => Process::listening_on(plan.wish().address),
    };
    if job.args.server_pid.is_some() && process.is_none() {
        return Err(Failure::new(Exit::Usage, format!("--server-pid {}: no such process", job.args.server_pid.unwrap_or(0))));
    }
    let pacing = if job.args.no_spin { Pacing::Sleep } else { Pacing::Spin };
    let crew = Crew::start(&plan, Hire { names, pacing, features, cpus: job.cpus })?;
    let reporter = Reporter::new(plan, crew, process, files);
    reporter.run(outside, if job.args.json { Ending::Json } else { Ending::Table })
}

/// What every worker gets.
struct Hire {
    names: Names,
    pacing: Pacing,
    features: Features,
    cpus: Vec<Cpu>,
}

/// The workers.
struct Crew {
    threads: Vec<thread::JoinHandle<()>>,
    shared: Arc<Shared>,
    reports: Receiver<(u16, Report)>,
    spares: Vec<Sender<Box<Interval>>>,
}

impl Crew {
    fn start(plan: &Arc<Plan>, hire: Hire) -> Result<Self, Failure> {
        let bells = Bells::new(plan.lanes()).map_err(|error| Failure::new(Exit::Kernel, error))?;
        let shared = Arc::new(Shared::new(plan));
        let (sender, reports) = bounded(plan.lanes() * REPORTS);
        let (mut threads, mut spares) = (Vec::new(), Vec::new());
        for lane in 0..plan.wish().threads {
            let (spare, spare_of_worker) = bounded(SPARE);
            spares.push(spare);
            let setup = Setup {
                lane,
                plan: Arc::clone(plan),
                names: hire.names.clone(),
                pacing: hire.pacing,
                shared: Arc::clone(&shared),
                reports: sender.clone(),
                spare: spare_of_worker,
            };
            let mut ring = RingSetup::new(ShardId(lane), hire.features, Arc::clone(&bells));
            ring.buffers = BUFFERS;
            let cpu = (!hire.cpus.is_empty()).then(|| hire.cpus[usize::from(lane) % hire.cpus.len()]);
            let reports = sender.clone();
            let body = move || {
                let last = work(setup, ring, cpu);
                // Without a reporter there is nobody left to tell.
                let _ = reports.send((lane, last));
            };
            let named = thread::Builder::new().name(format!("load-{lane}"));
            threads.push(named.spawn(body).map_err(|error| Failure::new(Exit::Kernel, error))?);
        }
        Ok(Self { threads, shared, reports, spares })
    }

    fn join(&mut self) {
        self.shared.abort.store(true, Ordering::Relaxed);
        // A worker that panicked has printed why; its missing outcome has been reported as a failure.
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

fn work(setup: Setup, ring: RingSetup, cpu: Option<Cpu>) -> Report {
    if let Some(cpu) = cpu
        && let Err(error) = affinity::pin_current_thread(cpu)
    {
        return Report::Failed(format!("--cpus: {error}"));
    }
    match Ring::new(ring) {
        Ok(ring) => Worker::new(setup, ring).run(),
        Err(error) => Report::Failed(format!("io_uring: {error}")),
    }
}

#[derive(Clone, Copy)]
enum Ending {
    Table,
    Json,
}

/// A look at the server at a border of the window.
#[derive(Clone, Copy, Default)]
struct Sample {
    cpu_ns: Option<u64>,
    deliveries: u64,
}

struct Reporter {
    plan: Arc<Plan>,
    crew: Crew,
    process: Option<Process>,
    files: Option<Files>,
    merger: Merger,
    totals: Histograms,
    counts: Counts,
    delivered_in_grace: u64,
    seconds: Vec<Second>,
    outcomes: Vec<Outcome>,
    logged_in: usize,
    memory_before: Option<Memory>,
    memory: Option<Memory>,
    window: [Option<Sample>; 2],
    cut_short: bool,
}

impl Reporter {
    fn new(plan: Arc<Plan>, crew: Crew, process: Option<Process>, files: Option<Files>) -> Self {
        Self {
            merger: Merger::new(plan.lanes()),
            memory_before: process.and_then(Process::memory),
            totals: Histograms::new(),
            counts: Counts::default(),
            delivered_in_grace: 0,
            seconds: Vec::new(),
            outcomes: Vec::new(),
            logged_in: 0,
            memory: None,
            window: [None; 2],
            cut_short: false,
            plan,
            crew,
            process,
            files,
        }
    }

    fn run(mut self, outside: &mut Outside<'_>, ending: Ending) -> Result<Exit, Failure> {
        let done = self.report(outside);
        self.crew.join();
        live::finish(outside.out, outside.style)?;
        done?;
        self.end(outside, ending)
    }

    /// Until every worker is done, or one has failed.
    fn report(&mut self, outside: &mut Outside<'_>) -> Result<(), Failure> {
        let mut shown_ns = monotonic_ns();
        while self.outcomes.len() < self.plan.lanes() {
            if let Ok(signal) = outside.signals.try_recv() {
                self.on_signal(signal)?;
            }
            self.sample();
            match self.crew.reports.recv_timeout(TICK) {
                Ok((lane, report)) => self.on_report(lane, report)?,
                Err(crossbeam_channel::RecvTimeoutError::Timeout) => self.check_threads()?,
                Err(crossbeam_channel::RecvTimeoutError::Disconnected) => {
                    return Err(Failure::new(Exit::Kernel, "a generator thread has ended without a result"));
                }
            }
            while let Some(interval) = self.merger.next_complete() {
                self.on_second(interval, outside)?;
            }
            if self.logged_in < self.plan.lanes() && monotonic_ns() > shown_ns + 1_000_000_000 {
                shown_ns = monotonic_ns();
                let text = format!("  login {} of {}", self.crew.shared.logged_in(), self.plan.wish().connections);
                live::show(outside.out, outside.style, &text)?;
            }
        }
        Ok(())
    }

    /// A thread that panicked sends nothing more.
    fn check_threads(&self) -> Result<(), Failure> {
        let ended = self.crew.threads.iter().filter(|thread| thread.is_finished()).count();
        if ended > self.outcomes.len() && self.crew.reports.is_empty() {
            return Err(Failure::new(Exit::Kernel, "a generator thread has ended without a result"));
        }
        Ok(())
    }

    fn on_signal(&mut self, signal: Signal) -> Result<(), Failure> {
        let shared = &self.crew.shared;
        let start_ns = shared.start_ns.load(Ordering::Relaxed);
        if start_ns == 0 || signal == Signal::Stop {
            return Err(Failure::new(Exit::Invalid, "stopped before there was a result"));
        }
        let now = monotonic_ns().saturating_sub(start_ns);
        self.cut_short |= shared.end_ns.fetch_min(now, Ordering::Relaxed) > now;
        Ok(())
    }

    /// Looks at the server when a border of the window has been crossed.
    fn sample(&mut self) {
        let shared = &self.crew.shared;
        let start_ns = shared.start_ns.load(Ordering::Relaxed);
        if start_ns == 0 {
            return;
        }
        let now = monotonic_ns().saturating_sub(start_ns);
        let borders = [self.plan.wish().warmup_ns, shared.end_ns.load(Ordering::Relaxed)];
        for (border, at_ns) in borders.into_iter().enumerate() {
            if now >= at_ns && self.window[border].is_none() {
                let cpu_ns = self.process.and_then(Process::cpu_ns);
                self.window[border] = Some(Sample { cpu_ns, deliveries: shared.received() });
                self.memory = self.process.and_then(Process::memory);
            }
        }
    }

    fn on_report(&mut self, lane: u16, report: Report) -> Result<(), Failure> {
        match report {
            Report::LoggedIn(interval) => {
                self.totals.add(&interval.histograms);
                self.logged_in += 1;
                if self.logged_in == self.plan.lanes() {
                    if let Some(files) = &mut self.files {
                        files.begin(SystemTime::now() + Duration::from_nanos(SETTLE_NS))?;
                    }
                    self.crew.shared.start_ns.store(monotonic_ns() + SETTLE_NS, Ordering::Release);
                }
            }
            Report::Interval(interval) => {
                if let Some(emptied) = self.merger.add(usize::from(lane), interval) {
                    // Full: the worker has enough of them.
                    let _ = self.crew.spares[usize::from(lane)].try_send(emptied);
                }
            }
            Report::Done(outcome) => self.outcomes.push(*outcome),
            Report::Failed(text) => return Err(Failure::new(Exit::Unreachable, text)),
        }
        Ok(())
    }

    fn on_second(&mut self, interval: Box<Interval>, outside: &mut Outside<'_>) -> Result<(), Failure> {
        if let Some(files) = &mut self.files {
            files.add(&interval)?;
        }
        if interval.phase != Phase::Grace {
            self.seconds.push(Second::of(&interval));
            if self.plan.wish().mode != Mode::Idle {
                live::show(outside.out, outside.style, &live::line(&interval))?;
            }
        }
        match interval.phase {
            Phase::Warmup => {}
            Phase::Measured => self.counts.add(&interval.counts),
            Phase::Grace => {
                self.delivered_in_grace += interval.counts.delivered;
                self.counts.answered += interval.counts.answered;
                self.counts.refused += interval.counts.refused;
            }
        }
        if interval.phase != Phase::Warmup {
            self.totals.add(&interval.histograms);
        }
        // Full: the worker has enough of them.
        let _ = self.crew.spares[0].try_send(interval);
        Ok(())
    }

    fn end(mut self, outside: &mut Outside<'_>, ending: Ending) -> Result<Exit, Failure> {
        self.outcomes.sort_by_key(|outcome| outcome.lane);
        let summary = self.summary();
        if let Some(files) = self.files.take() {
            files.finish(&summary, &self.totals)?;
        }
        table::write(outside.out, &summary, &self.totals)?;
        if let Ending::Json = ending {
            let json = serde_json::to_string(&summary).map_err(std::io::Error::from)?;
            writeln!(outside.out, "{json}")?;
        }
        outside.out.flush()?;
        Ok(match summary.verdict {
            Verdict::Ok => Exit::Ok,
            Verdict::Faulty => Exit::Faulty,
            Verdict::Invalid => Exit::Invalid,
        })
    }

    fn summary(&mut self) -> Summary {
        let wish = self.plan.wish();
        let end_ns = self.crew.shared.end_ns.load(Ordering::Relaxed);
        let window_ns = end_ns.saturating_sub(wish.warmup_ns);
        let (faults, remarks) = verdict::count(&self.plan, &self.outcomes);
        let unsent = verdict::unsent(&self.outcomes);
        let generator = Generator { busy_share: verdict::busy_share(&self.outcomes, window_ns), unsent, loads: wish.mode != Mode::Idle };
        let doubts = verdict::doubts(&self.totals, generator);
        let (verdict, reasons) = judge(&faults, doubts.invalid);
        let sent_in_all = self.outcomes.iter().flat_map(|o| o.sent.values()).map(|n| u64::from(*n)).sum();
        let mut counts = self.counts;
        let delivered_per_s = per_second(counts.delivered, window_ns);
        counts.delivered += self.delivered_in_grace;
        Summary {
            format: FORMAT,
            version: VERSION,
            verdict,
            reasons,
            warnings: doubts.warnings,
            plan: PlanShown::new(&self.plan),
            window_ns,
            cut_short: self.cut_short,
            counts,
            sent_per_s: per_second(counts.sent, window_ns),
            delivered_per_s,
            sent_in_all,
            deliveries_expected_in_all: sent_in_all * u64::from(self.plan.receivers_per_room()),
            deliveries_in_all: self.crew.shared.received(),
            faults,
            excused: verdict::excused(&self.outcomes),
            unsent,
            remarks,
            latency: self.totals.named().into_iter().map(|(name, h)| (name, Percentiles::of(h))).collect(),
            generator: GeneratorShown { busy_share: generator.busy_share },
            server: self.process.map(|process| self.server(process)),
            seconds: std::mem::take(&mut self.seconds),
        }
    }

    fn server(&self, process: Process) -> Server {
        let [before, after] = self.window.map(Option::unwrap_or_default);
        let cpu_ns = after.cpu_ns.zip(before.cpu_ns).map(|(after, before)| after.saturating_sub(before));
        let deliveries = after.deliveries.saturating_sub(before.deliveries);
        let per_delivery = |ns: u64| as_f64(ns) / 1e3 / as_f64(deliveries);
        Server {
            pid: process.pid,
            cpu_ns,
            deliveries,
            cpu_us_per_delivery: cpu_ns.filter(|_| deliveries > 0).map(per_delivery),
            memory_before: self.memory_before,
            memory: self.memory,
        }
    }
}

fn judge(faults: &Faults, invalid: Vec<String>) -> (Verdict, Vec<String>) {
    let mut reasons = Vec::new();
    let kinds = [
        (faults.lost, "deliveries lost"),
        (faults.doubled, "deliveries doubled"),
        (faults.out_of_order, "deliveries out of order"),
        (faults.order_differs, "members that saw another order than the others"),
        (faults.garbled, "objects garbled"),
        (faults.unanswered, "sends without an answer"),
        (faults.closed, "connections closed"),
    ];
    reasons.extend(kinds.into_iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{what}: {n}")));
    let verdict = match () {
        () if faults.any() => Verdict::Faulty,
        () if !invalid.is_empty() => Verdict::Invalid,
        () => Verdict::Ok,
    };
    reasons.extend(invalid);
    (verdict, reasons)
}
