//! The fake kernel's state: operations in flight, events in virtual time, the completion queues.
//!
//! Contract checks stand where an operation is submitted and where a completion is reaped, because only between the two may the kernel touch what was
//! lent to it.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};

use super::connection::{Connection, ConnectionId};
use super::faults::{Fault, Rates, Stage, Table};
use super::random::Random;
use crate::ids::Key;
use crate::memory::frames::Loan;
use crate::ring::{Errno, ListenerId};

pub(super) type OperationId = u64;

/// What a simulation chooses once per run.
#[derive(Clone, Debug)]
pub struct KernelSettings {
    pub seed: u64,
    pub shards: usize,
    pub listeners: u8,
    /// Receive buffers of each shard, and the bytes of one.
    pub buffers: u16,
    pub buffer_bytes: usize,
    /// Submissions that fit between two enters.
    pub submissions: usize,
    pub rates: Rates,
    /// What a send's bytes say about its connection: [`Stage::OpenIdle`] when they hold the welcome, [`Stage::Closing`] when they hold the last object.
    pub classify: fn(&[u8]) -> Option<Stage>,
}

#[derive(Debug)]
pub(super) enum Kind {
    Accept { listener: ListenerId },
    ReceiveOnce,
    ReceiveMultishot,
    Send(Lent),
}

/// A loan in the kernel's hands, with a copy from the moment it was lent.
#[derive(Debug)]
pub(super) struct Lent {
    pub(super) loan: Option<Loan>,
    pub(super) copy: Vec<u8>,
    pub(super) done: usize,
}

#[derive(Debug)]
pub(super) struct Operation {
    pub(super) shard: usize,
    pub(super) kind: Kind,
    pub(super) key: Option<Key>,
    pub(super) connection: Option<ConnectionId>,
    /// The kernel is done; the last completion may still wait to be reaped.
    pub(super) ended: bool,
    /// Completions of one operation are seen in order.
    visible_ns: u64,
    attempt_planned: bool,
}

/// A completion on its way.
#[derive(Debug)]
pub(super) enum Entry {
    Accepted { listener: ListenerId, result: Result<ConnectionId, Errno> },
    Received { key: Key, result: Result<Option<(u16, Vec<u8>)>, Errno> },
    Sent { key: Key, result: Result<u32, Errno> },
    Doorbell,
}

#[derive(Debug)]
pub(super) struct Posted {
    pub(super) entry: Entry,
    pub(super) operation: Option<OperationId>,
    pub(super) more: bool,
}

#[derive(Debug)]
pub(super) enum Event {
    Attempt(OperationId),
    Cancel(OperationId),
    Post(usize, Posted),
}

#[derive(Debug)]
struct Scheduled {
    at_ns: u64,
    sequence: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    /// Earliest first in a max-heap.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at_ns, other.sequence).cmp(&(self.at_ns, self.sequence))
    }
}

#[derive(Debug)]
pub(super) enum Submission {
    Start(OperationId),
    Cancel(OperationId),
    Ring(usize),
}

/// The operations of one slot number, whatever its generation.
#[derive(Debug, Default)]
pub(super) struct SlotUse {
    pub(super) receive: Option<(Key, OperationId)>,
    pub(super) send: Option<(Key, OperationId)>,
}

#[derive(Debug, Default)]
pub(super) struct ShardState {
    pub(super) submissions: Vec<Submission>,
    pub(super) submissions_max: usize,
    /// Seen by the kernel, not yet by the reactor: an enter moves them.
    pub(super) arrived: VecDeque<Posted>,
    pub(super) queue: VecDeque<Posted>,
    /// Some: asleep in an enter until then.
    pub(super) waits_until_ns: Option<u64>,
    pub(super) free_buffers: Vec<u16>,
    pub(super) backlog: Vec<VecDeque<ConnectionId>>,
    /// Listeners that are no more.
    pub(super) closed: Vec<bool>,
    pub(super) accepts: Vec<Option<OperationId>>,
    pub(super) slots: BTreeMap<u32, SlotUse>,
    pub(super) bells_under_way: u64,
}

#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) settings: KernelSettings,
    pub(super) now_ns: u64,
    pub(super) unix_ms: u64,
    pub(super) random: Random,
    pub(super) connections: Vec<Connection>,
    pub(super) shards: Vec<ShardState>,
    pub(super) operations: BTreeMap<OperationId, Operation>,
    next_operation: OperationId,
    events: BinaryHeap<Scheduled>,
    sequence: u64,
    /// Connections whose client has something new to look at.
    pub(super) readable: Vec<ConnectionId>,
    /// Connections whose receive was told to end since the harness last asked.
    pub(super) cancelled: Vec<ConnectionId>,
    /// Whose operations a shard's key has named.
    pub(super) keys: HashMap<(usize, Key), ConnectionId>,
    pub(super) table: Table,
    pub(super) trace: u64,
    pub(super) completions: u64,
    /// The run has failed and is being taken apart: nothing is checked any more.
    pub(super) abandoned: bool,
}

/// A broken contract is the reactor's bug: the run ends here.
pub(super) fn breach(text: &str) -> ! {
    panic!("io contract: {text}")
}

impl Kernel {
    pub(super) fn new(settings: KernelSettings) -> Self {
        let mut random = Random::new(settings.seed);
        let listeners = usize::from(settings.listeners);
        let shard = || ShardState {
            submissions_max: settings.submissions,
            free_buffers: (0..settings.buffers).rev().collect(),
            backlog: vec![VecDeque::new(); listeners],
            closed: vec![false; listeners],
            accepts: vec![None; listeners],
            ..ShardState::default()
        };
        Self {
            shards: (0..settings.shards).map(|_| shard()).collect(),
            now_ns: 1_000_000_000 + random.below(1_000_000_000),
            unix_ms: 1_700_000_000_000 + random.below(1_000_000_000),
            random,
            connections: Vec::new(),
            operations: BTreeMap::new(),
            next_operation: 1,
            events: BinaryHeap::new(),
            sequence: 0,
            readable: Vec::new(),
            cancelled: Vec::new(),
            keys: HashMap::new(),
            table: Table::default(),
            trace: 0,
            completions: 0,
            abandoned: false,
            settings,
        }
    }

    // ---- faults -----------------------------------------------------------------------------------------------------------------------------------

    pub(super) fn roll(&mut self, fault: Fault) -> bool {
        let rate = self.settings.rates.get(fault);
        self.random.chance(rate)
    }

    /// As [`Kernel::roll`], but far more often in the short stages, which would otherwise hardly ever be met.
    pub(super) fn roll_at(&mut self, fault: Fault, connection: ConnectionId) -> bool {
        let rate = self.settings.rates.get(fault);
        let state = &self.connections[connection.index()];
        let often = state.cancelling || matches!(state.stage(), Stage::Cancelling | Stage::Closing);
        self.random.chance(if often { rate.saturating_mul(20).min(800_000) } else { rate })
    }

    pub(super) fn note(&mut self, fault: Fault, connection: Option<ConnectionId>) {
        let stage = connection.map_or(Stage::Outside, |c| self.connections[c.index()].stage());
        self.table.note(fault, stage);
    }

    fn delay_ns(&mut self, connection: Option<ConnectionId>) -> u64 {
        if self.roll(Fault::Delayed) {
            self.note(Fault::Delayed, connection);
            if let Some(connection) = connection {
                self.connections[connection.index()].delayed = true;
            }
            return self.random.between(1_000_000_000, 4_000_000_000);
        }
        match self.random.below(100) {
            0..80 => self.random.below(30_000),
            80..97 => self.random.below(1_000_000),
            _ => self.random.below(30_000_000),
        }
    }

    // ---- time -------------------------------------------------------------------------------------------------------------------------------------

    pub(super) fn plan(&mut self, at_ns: u64, event: Event) {
        self.sequence += 1;
        self.events.push(Scheduled { at_ns, sequence: self.sequence, event });
    }

    pub(super) fn next_event_ns(&self) -> Option<u64> {
        self.events.peek().map(|e| e.at_ns)
    }

    pub(super) fn advance_to(&mut self, target_ns: u64) {
        while self.events.peek().is_some_and(|e| e.at_ns <= target_ns) {
            let scheduled = self.events.pop().expect("peeked");
            self.set_time(scheduled.at_ns);
            match scheduled.event {
                Event::Attempt(operation) => {
                    if let Some(operation) = self.operations.get_mut(&operation) {
                        operation.attempt_planned = false;
                    }
                    self.attempt(operation);
                }
                Event::Cancel(operation) => self.cancel(operation),
                Event::Post(shard, posted) => self.shards[shard].arrived.push_back(posted),
            }
        }
        self.set_time(target_ns);
    }

    fn set_time(&mut self, now_ns: u64) {
        let now_ns = now_ns.max(self.now_ns);
        self.unix_ms += now_ns / 1_000_000 - self.now_ns / 1_000_000;
        self.now_ns = now_ns;
    }

    // ---- operations -------------------------------------------------------------------------------------------------------------------------------

    /// Registers an operation at the moment of its submission: from here to the reaping of its last completion it is in flight.
    pub(super) fn begin(&mut self, operation: Operation) -> OperationId {
        let id = self.next_operation;
        self.next_operation += 1;
        let shard = operation.shard;
        self.claim(id, &operation);
        self.operations.insert(id, operation);
        self.shards[shard].submissions.push(Submission::Start(id));
        id
    }

    fn claim(&mut self, id: OperationId, operation: &Operation) {
        let (Some(key), Some(connection)) = (operation.key, operation.connection) else { return };
        let sends = matches!(operation.kind, Kind::Send(_));
        let used = self.shards[operation.shard].slots.entry(key.slot).or_default();
        for held in [used.receive, used.send].into_iter().flatten() {
            if held.0 != key {
                breach(&format!("slot {} is used as {key:?} while {:?} has an operation in flight", key.slot, held.0));
            }
        }
        let place = if sends { &mut used.send } else { &mut used.receive };
        if place.replace((key, id)).is_some() {
            breach(&format!("two {} in flight on {key:?}", if sends { "sends" } else { "receives" }));
        }
        let state = &mut self.connections[connection.index()];
        let place = if sends { &mut state.send } else { &mut state.receive };
        if place.replace(id).is_some() {
            breach(&format!("two {} in flight on {connection:?}", if sends { "sends" } else { "receives" }));
        }
        if state.receive.is_some() && state.send.is_some() && state.key != Some(key) {
            breach(&format!("{connection:?} has operations of two keys, {:?} and {key:?}", state.key));
        }
        if state.key.replace(key) != Some(key) {
            self.keys.insert((operation.shard, key), connection);
        }
    }

    pub(super) fn operation(shard: usize, kind: Kind) -> Operation {
        Operation { shard, kind, key: None, connection: None, ended: false, visible_ns: 0, attempt_planned: false }
    }

    /// Gives up an operation's claims: its last completion is being reaped.
    pub(super) fn finish(&mut self, id: OperationId) -> Operation {
        let operation = self.operations.remove(&id).expect("an operation ends once");
        if let Kind::Accept { listener } = operation.kind {
            self.shards[operation.shard].accepts[usize::from(listener.0)] = None;
        }
        if let (Some(key), Some(connection)) = (operation.key, operation.connection) {
            let used = self.shards[operation.shard].slots.get_mut(&key.slot).expect("claimed at the start");
            let state = &mut self.connections[connection.index()];
            if matches!(operation.kind, Kind::Send(_)) {
                used.send = None;
                state.send = None;
            } else {
                used.receive = None;
                state.receive = None;
                state.cancelling = false;
            }
        }
        operation
    }

    pub(super) fn plan_attempt(&mut self, id: OperationId) {
        let Some(operation) = self.operations.get_mut(&id) else { return };
        if operation.ended || operation.attempt_planned {
            return;
        }
        operation.attempt_planned = true;
        let at_ns = self.now_ns + self.random.below(20_000);
        self.plan(at_ns, Event::Attempt(id));
    }

    /// Something happened to a connection: its operations look again.
    pub(super) fn stir(&mut self, connection: ConnectionId) {
        let state = &self.connections[connection.index()];
        for id in [state.receive, state.send].into_iter().flatten() {
            self.plan_attempt(id);
        }
    }

    pub(super) fn client_looks(&mut self, connection: ConnectionId) {
        self.readable.push(connection);
    }

    pub(super) fn post(&mut self, id: OperationId, entry: Entry, more: bool) {
        let connection = self.operations[&id].connection;
        let delay_ns = self.delay_ns(connection);
        let operation = self.operations.get_mut(&id).expect("posted by a live operation");
        assert!(!operation.ended, "the fake posts nothing behind an end");
        operation.ended = !more;
        let at_ns = (self.now_ns + delay_ns).max(operation.visible_ns + 1);
        operation.visible_ns = at_ns;
        let shard = operation.shard;
        self.plan(at_ns, Event::Post(shard, Posted { entry, operation: Some(id), more }));
    }

    pub(super) fn bell(&mut self, shard: usize) {
        self.shards[shard].bells_under_way += 1;
        let mut delay_ns = self.random.below(20_000);
        if self.roll(Fault::BellDelayed) {
            self.note(Fault::BellDelayed, None);
            delay_ns = self.random.between(1_000_000, 500_000_000);
        }
        let at_ns = self.now_ns + delay_ns;
        self.plan(at_ns, Event::Post(shard, Posted { entry: Entry::Doorbell, operation: None, more: true }));
    }

    // ---- enter ------------------------------------------------------------------------------------------------------------------------------------

    pub(super) fn submit(&mut self, shard: usize) {
        for submission in std::mem::take(&mut self.shards[shard].submissions) {
            match submission {
                Submission::Start(id) => self.plan_attempt(id),
                Submission::Cancel(id) => {
                    // Before the shutdown that comes with it is felt, as often as not.
                    let sends = self.operations.get(&id).is_some_and(|operation| matches!(operation.kind, Kind::Send(_)));
                    let at_ns = self.now_ns + self.random.below(if sends { 20_000 } else { 100_000 });
                    self.plan(at_ns, Event::Cancel(id));
                }
                Submission::Ring(target) => self.bell(target),
            }
        }
        self.shards[shard].submissions_max = self.settings.submissions;
        if self.roll(Fault::QueueFull) {
            self.shards[shard].submissions_max = self.random.size(1, self.settings.submissions.min(8));
        }
    }

    /// Moves what arrived into the queue that the reactor reaps.
    pub(super) fn deliver(&mut self, shard: usize) {
        let state = &mut self.shards[shard];
        state.waits_until_ns = None;
        state.queue.append(&mut state.arrived);
    }

    pub(super) fn is_awake(&self, shard: usize) -> bool {
        let state = &self.shards[shard];
        state.waits_until_ns.is_none_or(|until_ns| self.now_ns >= until_ns || !state.arrived.is_empty())
    }

    pub(super) fn mix(&mut self, word: u64) {
        self.trace = (self.trace ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }

    pub(super) fn mix_bytes(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }
}
