//! The workers of this process: started, given a clock, ended.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::ids::ShardId;
use crate::ring::{Bells, Features, Ring, RingSetup};
use crate::sys::affinity::{self, Cpu};
use crate::sys::clock::monotonic_ns;

use super::connect::Connector;
use super::names::Names;
use super::plan::Plan;
use super::record::Interval;
use super::worker::{Pacing, Report, Setup, Shared, Worker};
use super::{Exit, Failure};

/// Receive buffers of a generator thread: 4 MiB, about what a second-level cache and a burst both bear.
const BUFFERS: u16 = 2_048;
/// Reports of a worker that may wait for the reporter: a minute of seconds. Beyond it the worker waits.
const REPORTS: usize = 64;
/// Emptied intervals kept for each worker.
const SPARE: usize = 4;

/// What every worker gets.
#[derive(Debug)]
pub struct Hire {
    pub names: Names,
    pub pacing: Pacing,
    pub features: Features,
    pub cpus: Vec<Cpu>,
}

/// The workers.
#[derive(Debug)]
pub struct Crew {
    threads: Vec<thread::JoinHandle<()>>,
    pub shared: Arc<Shared>,
    pub reports: Receiver<(u16, Report)>,
    spares: Vec<Sender<Box<Interval>>>,
    cpus: Vec<Option<Cpu>>,
}

impl Crew {
    pub fn start(plan: &Arc<Plan>, hire: Hire) -> Result<Self, Failure> {
        let workers = plan.workers();
        let bells = Bells::new(usize::from(workers)).map_err(|error| Failure::new(Exit::Kernel, error))?;
        let shared = Arc::new(Shared::new(plan));
        let (sender, reports) = bounded(usize::from(workers) * REPORTS);
        let mut crew = Self { threads: Vec::new(), shared, reports, spares: Vec::new(), cpus: Vec::new() };
        for lane in 0..workers {
            let (spare, spare_of_worker) = bounded(SPARE);
            crew.spares.push(spare);
            let comes_back = plan.wish().troubles.churners > 0;
            let connector = comes_back.then(|| Connector::start(Arc::clone(plan))).transpose();
            let setup = Setup {
                lane,
                plan: Arc::clone(plan),
                names: hire.names.clone(),
                pacing: if lane == plan.wish().threads { Pacing::Sleep } else { hire.pacing },
                shared: Arc::clone(&crew.shared),
                reports: sender.clone(),
                spare: spare_of_worker,
                connector: connector.map_err(|error| Failure::new(Exit::Kernel, error))?,
            };
            let mut ring = RingSetup::new(ShardId(lane), hire.features, Arc::clone(&bells));
            ring.buffers = BUFFERS;
            let cpu = (!hire.cpus.is_empty()).then(|| hire.cpus[usize::from(lane) % hire.cpus.len()]);
            crew.cpus.push(cpu);
            let reports = sender.clone();
            let body = move || {
                let last = work(setup, ring, cpu);
                // Without a reporter there is nobody left to tell.
                let _ = reports.send((lane, last));
            };
            let named = thread::Builder::new().name(format!("load-{lane}"));
            crew.threads.push(named.spawn(body).map_err(|error| Failure::new(Exit::Kernel, error))?);
        }
        Ok(crew)
    }

    pub fn cpu(&self, lane: u16) -> Option<u16> {
        self.cpus.get(usize::from(lane)).copied().flatten().map(|cpu| cpu.0)
    }

    /// Sets the clock; the first message may be due this long from now.
    pub fn begin(&self, in_ns: u64) {
        self.shared.start_ns.store(monotonic_ns() + in_ns, Ordering::Release);
    }

    /// Time since the start; none before it is set.
    pub fn since_start_ns(&self) -> Option<u64> {
        let start_ns = self.shared.start_ns.load(Ordering::Relaxed);
        (start_ns > 0).then(|| monotonic_ns().saturating_sub(start_ns))
    }

    /// End of sending, since the start.
    pub fn end_ns(&self) -> u64 {
        self.shared.end_ns.load(Ordering::Relaxed)
    }

    /// Ends the window now.
    pub fn cut_short(&self) {
        if let Some(now) = self.since_start_ns() {
            self.shared.end_ns.fetch_min(now, Ordering::Relaxed);
        }
    }

    /// Gives an emptied interval back to whom it came from.
    pub fn give_back(&self, lane: u16, interval: Box<Interval>) {
        // Full: the worker has enough of them.
        let _ = self.spares[usize::from(lane)].try_send(interval);
    }

    /// Threads that have ended.
    pub fn ended(&self) -> usize {
        self.threads.iter().filter(|thread| thread.is_finished()).count()
    }

    pub fn join(&mut self) {
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
