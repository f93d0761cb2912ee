//! The server under simulation: production reactors, mesh, rules; only the kernel, the clocks and the log are not the real ones.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crossbeam_channel::{Receiver, Sender, unbounded};
use ringroom::auth::{FailureRules, Failures};
use ringroom::chat::{Identity, Roll, Rules};
use ringroom::cluster::log::{Log, MemoryLog};
use ringroom::ids::{Epoch, Key, ShardId};
use ringroom::mesh::directory::Directory;
use ringroom::mesh::{self, Envelope};
use ringroom::reactor::counters::{Counters, Shared};
use ringroom::reactor::{Control, Inspection, Next, Parts, Reactor, Report, TokenLogin};
use ringroom::ring::fake::{FakeIo, FakeKernel, FakeSocket, Random};

use super::fake_log::{FakeLog, Faults};
use super::plan::Plan;
use super::recorded_log::{Ledger, RecordedLog};
use super::tokens::{FakeVerifier, SharedVerifierFaults};
use super::wire::EPOCH;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stepped {
    Awake,
    Asleep,
    Finished,
}

/// What the oracle asks of all shards together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Facts {
    /// Connections in slabs, in whatever phase.
    pub(crate) sockets: usize,
    /// Logged in.
    pub(crate) sessions: usize,
    pub(crate) users: usize,
    pub(crate) rooms: usize,
    /// Whatever waits: requests, appends, queued frames, envelopes.
    pub(crate) waiting: u64,
    pub(crate) frames: u64,
}

struct Shard {
    reactor: Option<Reactor<FakeIo>>,
    control: Sender<Control>,
    seen: Inspection,
    /// The most bytes that were in flight or leaving at one time.
    leaving_bytes_max: u64,
}

/// One frame more than the budget is what ends somebody.
const FRAME_BYTES: u64 = 64 * 1024 + 4;

pub(crate) struct Server {
    shards: Vec<Shard>,
    reports: Receiver<Report>,
    drained: Cell<usize>,
    hard_mark_bytes: usize,
    shard_bytes_max: u64,
    pub(crate) log_faults: Faults,
    pub(crate) verifier_faults: SharedVerifierFaults,
    pub(crate) ledger: Ledger,
}

fn connections(seen: &Inspection) -> usize {
    seen.connections.values().sum()
}

fn waiting(seen: &Inspection) -> u64 {
    let lists = seen.chat.appends + seen.chat.deferred + seen.chat.absences + seen.blocked + seen.outboxes + seen.unread_bytes;
    lists as u64 + seen.chat.unanswered + seen.queued_bytes + seen.crowded as u64
}

fn rules(plan: &Plan, shard: ShardId) -> Rules {
    let node = plan.settings.server.node.clone();
    let identity = Identity { shard, shards: plan.shards, epoch: Epoch(EPOCH), node, hash_seeds: [1, 2, 3, 4] };
    Rules {
        requests_per_peer_max: plan.requests_per_peer_max,
        deliveries_per_peer_max: plan.deliveries_per_peer_max,
        deferred_max: plan.deferred_max,
        appends_max: plan.appends_max,
        ..Rules::new(identity, &plan.settings)
    }
}

impl Server {
    pub(crate) fn new(plan: &Plan, kernel: &FakeKernel, random: &mut Random) -> Self {
        let settings = Arc::new(plan.settings.clone());
        let directory = Arc::new(Directory::default());
        let shared = Arc::new(Shared::default());
        let depth = settings.queues.mesh_depth_for(usize::from(plan.shards), 128);
        let ports = mesh::mesh::<Envelope<FakeSocket>>(plan.shards, depth);
        let log_faults = Arc::new(Mutex::new(plan.log.clone()));
        let verifier_faults: SharedVerifierFaults = Arc::new(Mutex::new(plan.verifier.clone().unwrap_or_default()));
        let failures = Arc::new(Mutex::new(Failures::new(FailureRules::of(&settings.auth), [5, 6, 7, 8])));
        let ledger = Ledger::default();
        let (report, reports) = unbounded();
        let mut shards = Vec::new();
        for (index, port) in ports.into_iter().enumerate() {
            let id = ShardId(u16::try_from(index).expect("few shards"));
            let (control, controlled) = unbounded();
            let log: Box<dyn Log> =
                if plan.real_log { Box::new(MemoryLog::default()) } else { Box::new(FakeLog::new(random.fork(), Arc::clone(&log_faults))) };
            let parts = Parts {
                rules: rules(plan, id),
                login: plan.verifier.as_ref().map(|_| TokenLogin {
                    verifier: Box::new(FakeVerifier::new(random.fork(), Arc::clone(&verifier_faults))),
                    failures: Arc::clone(&failures),
                }),
                settings: Arc::clone(&settings),
                listeners: 1,
                connections_max: 1_000_000,
                port,
                log: Box::new(RecordedLog::new(log, Arc::clone(&ledger))),
                directory: Arc::clone(&directory),
                counters: Arc::new(Counters::default()),
                shared: Arc::clone(&shared),
                control: controlled,
                errands: crossbeam_channel::bounded(1).1,
                report: report.clone(),
            };
            let reactor = Reactor::new(parts, kernel.io(id));
            let seen = reactor.inspect();
            shards.push(Shard { reactor: Some(reactor), control, seen, leaving_bytes_max: 0 });
        }
        Self {
            shards,
            reports,
            drained: Cell::new(0),
            hard_mark_bytes: settings.queues.hard_mark_bytes,
            shard_bytes_max: settings.queues.shard_bytes_max as u64,
            log_faults,
            verifier_faults,
            ledger,
        }
    }

    /// One turn of one shard, and its sleep when it wants to.
    pub(crate) fn step(&mut self, shard: ShardId) -> Result<Stepped, String> {
        let place = &mut self.shards[shard.index()];
        let Some(reactor) = &mut place.reactor else { return Ok(Stepped::Finished) };
        let next = reactor.turn();
        let stepped = match next {
            Next::Again => Stepped::Awake,
            Next::Sleep { until_ns } => {
                reactor.sleep(until_ns).map_err(|e| format!("sleep failed: {e:?}"))?;
                Stepped::Asleep
            }
            Next::Finished => Stepped::Finished,
        };
        place.seen = reactor.inspect();
        place.leaving_bytes_max = place.leaving_bytes_max.max(place.seen.leaving_bytes);
        if stepped == Stepped::Finished {
            place.reactor = None;
        }
        Ok(stepped)
    }

    /// What the shard had at its last step.
    pub(crate) fn seen(&self, shard: ShardId) -> &Inspection {
        &self.shards[shard.index()].seen
    }

    pub(crate) fn is_gone(&self, shard: ShardId, key: Key) -> bool {
        self.shards[shard.index()].reactor.as_ref().is_none_or(|reactor| reactor.state_of(key).is_none())
    }

    /// Who is in a room: the home's list, the sessions it counts, the members that all shards have.
    pub(crate) fn roll(&self, room: &str) -> (BTreeMap<String, u32>, u32, usize) {
        let mut all = (BTreeMap::new(), 0, 0);
        for reactor in self.shards.iter().filter_map(|shard| shard.reactor.as_ref()) {
            let Roll { users, sessions, members } = reactor.roll(room);
            all.0.extend(users);
            all.1 += sessions;
            all.2 += members;
        }
        all
    }

    pub(crate) fn is_running(&self, shard: ShardId) -> bool {
        self.shards[shard.index()].reactor.is_some()
    }

    pub(crate) fn has_inbound(&self, shard: ShardId) -> bool {
        self.shards[shard.index()].reactor.as_ref().is_some_and(Reactor::has_inbound)
    }

    /// What holds after every step.
    pub(crate) fn check(&self, shard: ShardId, kernel: &FakeKernel) -> Result<(), String> {
        let seen = &self.shards[shard.index()].seen;
        if seen.queued_bytes_max > self.hard_mark_bytes {
            return Err(format!("{} bytes wait for one session, over the hard mark", seen.queued_bytes_max));
        }
        if seen.buckets_over > 0 {
            return Err(format!("{} users have more tokens than their burst", seen.buckets_over));
        }
        // Above the budget the largest queues end, at every frame that is taken; gathered ones are in flight.
        let gathered = FRAME_BYTES * (1 + u64::from(seen.frames.gathers));
        if seen.frames.bytes > seen.relief_at + gathered {
            return Err(format!("{} bytes of messages are held, over the budget, and nobody has ended: {seen:?}", seen.frames.bytes));
        }
        // What is in flight can't be taken back; a quarter more may be leaving, and an eighth more may come meanwhile.
        let most = self.shard_bytes_max + self.shard_bytes_max / 2 + self.shards[shard.index()].leaving_bytes_max + FRAME_BYTES;
        if seen.relief_at > most {
            return Err(format!("the budget has become {} bytes: {seen:?}", seen.relief_at));
        }
        let held: usize = self.shards.iter().map(|s| connections(&s.seen)).sum();
        let in_transit = self.in_transit()?;
        let open = kernel.open_sockets();
        if held + in_transit != open {
            return Err(format!("{held} connections have slots, {in_transit} are between shards, the kernel has {open} open"));
        }
        Ok(())
    }

    /// Sockets that one shard has sent and another one has not taken in yet.
    fn in_transit(&self) -> Result<usize, String> {
        let sum = |count: fn(&Inspection) -> u64| self.shards.iter().map(|s| count(&s.seen)).sum::<u64>();
        let (sent, taken) = (sum(|seen| seen.moved), sum(|seen| seen.moved_in));
        let between = sent.checked_sub(taken).ok_or_else(|| format!("{taken} sockets came from other shards, which sent {sent}"))?;
        Ok(usize::try_from(between).expect("a run has few sockets"))
    }

    /// Rooms that were forgotten whole so far.
    pub(crate) fn evictions(&self) -> u64 {
        self.shards.iter().map(|shard| shard.seen.chat.evicted_rooms).sum()
    }

    pub(crate) fn facts(&self) -> Facts {
        let mut facts = Facts::default();
        for Shard { reactor, seen, .. } in &self.shards {
            // Others may have posted to it since its own last step.
            facts.waiting += u64::from(reactor.as_ref().is_some_and(Reactor::has_inbound));
            facts.sockets += connections(seen);
            facts.sessions += seen.chat.sessions;
            facts.users += seen.chat.users;
            facts.rooms += seen.chat.places + seen.chat.homes - seen.chat.retained_rooms;
            facts.waiting += waiting(seen);
            facts.frames += u64::from(seen.frames.frames);
        }
        facts
    }

    /// Every shard's holdings, for a failing run.
    pub(crate) fn describe(&self) -> String {
        let shards = self.shards.iter().enumerate();
        let texts = shards
            .map(|(index, s)| format!("\n  shard {index}: {:?}", s.reactor.as_ref().map_or_else(|| s.seen.clone(), Reactor::inspect)));
        texts.collect()
    }

    pub(crate) fn is_quiet(&self) -> bool {
        let facts = self.facts();
        facts.waiting == 0 && facts.sockets == facts.sessions && facts.frames == 0
    }

    pub(crate) fn is_empty(&self) -> bool {
        let facts = self.facts();
        self.is_quiet() && facts.sockets == 0 && facts.users == 0 && facts.rooms == 0
    }

    pub(crate) fn drain(&mut self) {
        for shard in &self.shards {
            let _ = shard.control.send(Control::Drain);
        }
    }

    /// Every shard has said that it holds no connection any more.
    pub(crate) fn has_drained(&self) -> bool {
        let drained = self.reports.try_iter().filter(|r| matches!(r, Report::Drained(_))).count();
        self.drained.set(self.drained.get() + drained);
        self.drained.get() >= self.shards.len()
    }

    pub(crate) fn stop(&mut self) {
        for shard in &self.shards {
            let _ = shard.control.send(Control::Stop);
        }
    }

    pub(crate) fn has_finished(&self) -> bool {
        self.shards.iter().all(|s| s.reactor.is_none())
    }
}
