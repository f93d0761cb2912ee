//! Puts the shards together and watches over them: one pinned executor per shard, a supervisor that hears of everything, an end in order.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select};
use futures_lite::FutureExt;
use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement, PoolPlacement};

use super::reload::Source;
use super::{Plan, StartError, exit, plane};
use crate::auth::{FailureRules, Failures, KeyError, KeySet, Pool};
use crate::chat::{Homes, Identity, Rules};
use crate::cluster::log::MemoryLog;
use crate::config::{AuthMode, Deadline, Settings};
use crate::control::{Desk, Facts, Plane, Shards};
use crate::ids::{Epoch, ShardId};
use crate::mesh::directory::Directory;
use crate::mesh::{Envelope, mesh};
use crate::reactor::counters::{Counters, Shared};
use crate::reactor::drive::{Seat, drive};
use crate::reactor::errand::ERRANDS_WAITING;
use crate::reactor::{Control, Parts, Report, TokenLogin};
use crate::ring::{Bells, Io, Ring, RingSetup};
use crate::sys::signals::Signal;

/// Reports and orders in a channel: a few per shard in a process's life.
const NEWS_WAITING: usize = 1024;
/// How long shards may take to come up, and to end once told to.
const START_MAX: Duration = Duration::from_secs(10);
const STOP_MAX: Duration = Duration::from_secs(5);
/// glommio asks a task to yield this often: in effect never. glommio 0.9.0 takes a timer that ends before it has run anything for "nothing to run", and
/// sleeps for good with a task that is ready (glommio/glommio, pull request 53): a shard whose thread lost its CPU for that long, at the wrong moment,
/// accepted, read and sent nothing any more. The driver is alone on its executor, so nobody misses the yields, and each of them was two system
/// calls and a timer; a task that is to have glommio's other work done under load awaits a timer of glommio instead.
const PREEMPT: Duration = Duration::from_secs(24 * 60 * 60);
/// glommio's own rings are small: no file or socket of ours is on them.
const GLOMMIO_RING_DEPTH: usize = 64;

/// A shard's task ended without being told to, and why.
struct Failure {
    shard: ShardId,
    why: String,
}

/// A running server.
pub(super) struct Server {
    bells: Arc<Bells>,
    controls: Vec<Sender<Control>>,
    reports: Receiver<Report>,
    failures: Receiver<Failure>,
    threads: Vec<ExecutorJoinHandle<()>>,
    counters: Vec<Arc<Counters>>,
    /// Checks tokens, where logins have them.
    pub(super) pool: Option<Arc<Pool>>,
    shared: Arc<Shared>,
    /// The control plane, where there is one.
    pub(super) plane: Option<(Plane, Arc<Desk>)>,
    pub(super) settings: Arc<Settings>,
}

impl Server {
    /// Starts a thread per shard and waits until all of them are up.
    pub(super) fn start(settings: &Settings, plan: &mut Plan, supervisor: Sender<Signal>) -> Result<Self, StartError> {
        let internal = |what: &str, why: &dyn std::fmt::Display| StartError::new(exit::INTERNAL, format!("{what}: {why}"));
        let settings = Arc::new(settings.clone());
        let shards = plan.shards;
        let bells = Bells::new(usize::from(shards)).map_err(|why| internal("doorbells", &why))?;
        let (report, reports) = bounded(NEWS_WAITING);
        let (fail, failures) = bounded(NEWS_WAITING);
        let seeds = Seeds::new().map_err(|why| internal("the system's random numbers", &why))?;
        let depth = settings.queues.mesh_depth_for(usize::from(shards), size_of::<Envelope<<Ring as Io>::Socket>>());
        let pool = pool(&settings, &bells)?.map(Arc::new);
        let failed_logins = Arc::new(Mutex::new(Failures::new(FailureRules::of(&settings.auth), seeds.hash)));
        let login = |shard| pool.as_ref().map(|pool| TokenLogin { verifier: pool.handle(shard), failures: failed_logins.clone() });
        let (directory, shared) = (Arc::new(Directory::default()), Arc::new(Shared::default()));
        let mut server = Self {
            bells: bells.clone(),
            controls: Vec::new(),
            reports,
            failures,
            threads: Vec::new(),
            counters: Vec::new(),
            pool: pool.clone(),
            shared: shared.clone(),
            plane: None,
            settings: settings.clone(),
        };
        let listeners = std::mem::take(&mut plan.listeners);
        let mut doors = Vec::new();
        for (index, (port, listeners)) in mesh(shards, depth).into_iter().zip(listeners).enumerate() {
            let shard = ShardId(u16::try_from(index).expect("as many as shards"));
            let (order, control) = bounded(NEWS_WAITING);
            let (door, errands) = bounded(ERRANDS_WAITING);
            doors.push(door);
            let counters = Arc::new(Counters::default());
            server.controls.push(order);
            server.counters.push(counters.clone());
            let parts = Parts {
                rules: rules(&settings, plan, shard, &seeds),
                listeners: u8::try_from(listeners.len()).map_err(|_| internal("too many addresses", &listeners.len()))?,
                settings: settings.clone(),
                connections_max: plan.connections_max,
                port,
                log: Box::new(MemoryLog::default()),
                login: login(shard),
                directory: directory.clone(),
                counters,
                shared: shared.clone(),
                control,
                errands,
                report: report.clone(),
            };
            let mut ring = RingSetup::new(shard, plan.features, bells.clone());
            ring.entries = settings.ring.entries;
            ring.buffers = settings.ring.buffers;
            ring.listeners = listeners;
            let thread = spawn(Seat { parts, ring }, plan.cpus[index], (fail.clone(), shared.clone()));
            server.threads.push(thread.map_err(|why| internal("an executor", &why))?);
        }
        server.wait_until_up()?;
        let homes = Homes::new(seeds.hash, shards);
        let shards = Shards { doors, bells, counters: server.counters.clone(), shared, directory, homes };
        let facts = facts(settings, plan, seeds.epoch);
        let desk = Arc::new(Desk::new(shards, facts, pool, supervisor, plan.admin.token.take()));
        server.plane = plane::start(&desk, std::mem::take(&mut plan.admin.listeners))?.map(|plane| (plane, desk));
        Ok(server)
    }

    fn wait_until_up(&self) -> Result<(), StartError> {
        let deadline = Instant::now() + START_MAX;
        for _ in 0..self.controls.len() {
            select! {
                recv(self.reports) -> _ => {}
                recv(self.failures) -> news => return Err(failed(news.ok())),
                default(deadline.saturating_duration_since(Instant::now())) => {
                    return Err(StartError::new(exit::INTERNAL, "a shard did not come up in time"));
                }
            }
        }
        Ok(())
    }

    /// Until a signal: then drains, or stops. Also ends when a shard does.
    pub(super) fn watch(mut self, signals: &Receiver<Signal>, source: Source<'_>) -> Result<(), StartError> {
        let asked = loop {
            select! {
                recv(signals) -> signal => if signal == Ok(Signal::Reload) { self.reload(source) } else { break signal },
                recv(self.failures) -> news => return Err(failed(news.ok())),
            }
        };
        if asked != Ok(Signal::Drain) {
            return self.cut_short("stopped at once, as asked by a second signal");
        }
        log::info!("draining: no new connections, {} s at most for the ones that are here", self.drain().as_secs());
        self.shared.draining.store(true, Ordering::Relaxed);
        self.tell(&Control::Drain);
        let deadline = Instant::now() + self.drain();
        let mut left = self.controls.len();
        while left > 0 {
            select! {
                recv(self.reports) -> report => left -= usize::from(matches!(report, Ok(Report::Drained(_)))),
                recv(self.failures) -> news => return Err(failed(news.ok())),
                recv(signals) -> signal => if signal == Ok(Signal::Stop) { return self.cut_short("stopped at once, as asked by a second signal") },
                default(deadline.saturating_duration_since(Instant::now())) => {
                    return self.cut_short("the drain time ran out before every client was told (limits.drain_ms)");
                }
            }
        }
        self.stop()?;
        Ok(())
    }

    fn drain(&self) -> Duration {
        Duration::from_millis(Deadline::Drain.ms(&self.settings))
    }

    fn cut_short(self, why: &str) -> Result<(), StartError> {
        self.stop()?;
        Err(StartError::new(exit::CUT_SHORT, why))
    }

    pub(super) fn tell(&self, control: &Control) {
        for (index, order) in self.controls.iter().enumerate() {
            // A full channel belongs to a shard that no longer listens; the deadlines above see to it.
            let _ = order.try_send(control.clone());
            self.bells.wake(ShardId(u16::try_from(index).expect("as many as shards")));
        }
    }

    /// Ends the threads, in time, and logs what was counted.
    fn stop(self) -> Result<(), StartError> {
        self.tell(&Control::Stop);
        let deadline = Instant::now() + STOP_MAX;
        let (done, ended) = bounded(1);
        let threads = self.threads;
        std::thread::spawn(move || {
            for thread in threads {
                let _ = thread.join();
            }
            let _ = done.send(());
        });
        let in_time = ended.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok();
        log_counters(&self.counters);
        if let Some(pool) = &self.pool {
            log::info!("tokens: {:?}", pool.counts());
        }
        if in_time { Ok(()) } else { Err(StartError::new(exit::INTERNAL, "a shard did not stop in time")) }
    }
}

/// The threads that check tokens, where logins have them.
fn pool(settings: &Settings, bells: &Arc<Bells>) -> Result<Option<Pool>, StartError> {
    if settings.auth.mode == AuthMode::Open {
        return Ok(None);
    }
    let keys = KeySet::load(&settings.auth).map_err(|error| {
        let exit = if matches!(error, KeyError::Unreadable(_)) { exit::NO_INPUT } else { exit::USAGE };
        StartError::new(exit, error.to_string())
    })?;
    let pool = Pool::start(&settings.auth, keys, bells.clone());
    pool.map(Some).map_err(|why| StartError::new(exit::INTERNAL, format!("the threads that check tokens: {why}")))
}

fn failed(news: Option<Failure>) -> StartError {
    match news {
        Some(Failure { shard, why }) => StartError::new(exit::INTERNAL, format!("shard {} failed: {why}", shard.0)),
        _ => StartError::new(exit::INTERNAL, "all shards are gone"),
    }
}

/// One executor on its own thread, with the shard's driver as its only task. However the task ends, the supervisor hears of it.
fn spawn(
    seat: Seat,
    cpu: Option<usize>,
    news: (Sender<Failure>, Arc<Shared>),
) -> Result<ExecutorJoinHandle<()>, glommio::GlommioError<()>> {
    let (shard, (fail, shared)) = (seat.parts.rules.shard, news);
    let placement = cpu.map_or(Placement::Unbound, Placement::Fixed);
    LocalExecutorBuilder::new(placement)
        .name(&format!("shard-{}", shard.0))
        .io_memory(0)
        .ring_depth(GLOMMIO_RING_DEPTH)
        .preempt_timer(PREEMPT)
        .blocking_thread_pool_placement(PoolPlacement::Unbound(1))
        .spawn(move || async move {
            if let Err(why) = supervised(drive(seat)).await {
                shared.tasks_failed.fetch_add(1, Ordering::Relaxed);
                // The process ends with this news; if nobody takes it, it is ending already.
                let _ = fail.try_send(Failure { shard, why });
            }
        })
}

/// An immortal task's end, with the panic's words where it panicked.
async fn supervised(task: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    match AssertUnwindSafe(task).catch_unwind().await {
        Ok(ended) => ended,
        Err(panic) => {
            let words = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
            Err(format!("panicked: {}", words.unwrap_or("without words")))
        }
    }
}

fn log_counters(all: &[Arc<Counters>]) {
    for (shard, counters) in all.iter().enumerate() {
        let values: Vec<String> = counters.values().into_iter().filter(|(_, v)| *v > 0).map(|(name, v)| format!("{name}={v}")).collect();
        let ends: Vec<String> = counters.ends().into_iter().map(|(name, v)| format!("{name}={v}")).collect();
        log::info!("shard {shard}: {}; ended: {}", values.join(" "), ends.join(" "));
    }
}

/// What is random per start.
struct Seeds {
    epoch: u32,
    hash: [u64; 4],
}

impl Seeds {
    fn new() -> Result<Self, getrandom::Error> {
        let epoch = getrandom::u32()?;
        let hash = [getrandom::u64()?, getrandom::u64()?, getrandom::u64()?, getrandom::u64()?];
        Ok(Self { epoch, hash })
    }
}

fn facts(settings: Arc<Settings>, plan: &Plan, epoch: u32) -> Facts {
    Facts {
        settings,
        node: plan.node.clone(),
        epoch,
        addresses: plan.addresses.clone(),
        features: plan.features.to_string(),
        connections_max: plan.connections_max,
    }
}

fn rules(settings: &Settings, plan: &Plan, shard: ShardId, seeds: &Seeds) -> Rules {
    let identity = Identity { shard, shards: plan.shards, epoch: Epoch(seeds.epoch), node: plan.node.clone(), hash_seeds: seeds.hash };
    Rules::new(identity, settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_panics_says_what_it_panicked_with() {
        let told = futures_lite::future::block_on(supervised(async { panic!("slot {} is gone", 7) }));
        assert_eq!(told, Err("panicked: slot 7 is gone".to_owned()));
        let ended = futures_lite::future::block_on(supervised(async { Ok(()) }));
        assert_eq!(ended, Ok(()));
    }
}
