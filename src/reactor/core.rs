//! A shard without its kernel: connections, rules, frames, queues, timers, and the lists of what the reactor is to submit.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use ahash::RandomState;
use crossbeam_channel::{Receiver, Sender};

use super::connection::{Connection, Phase, Unread, Waits};
use super::counters::{Counters, Ended, Shared};
use super::crowd::Crowd;
use super::errand::Errands;
use super::overload::{Lists, Sheds};
use super::publish::{HighWater, Probe};
use super::verdict::{Asked, TokenLogin};
use super::{Control, Parts, Report};
use crate::auth::Answer;
use crate::chat::{self, Effects};
use crate::cluster::log::Log;
use crate::config::{Deadline, Settings};
use crate::ids::{Key, Now, ShardId};
use crate::limits::LINGER_BYTES_MAX;
use crate::memory::frames::FrameStore;
use crate::memory::queue::QueuePool;
use crate::memory::slab::Slab;
use crate::memory::wheel::Wheel;
use crate::mesh::directory::Directory;
use crate::mesh::{Envelope, Port};

/// Connections above the limit that are kept for the time of a `bye`.
const SHED_PLACES: usize = 1024;
/// The hand of the deadline wheel moves this often.
const DEADLINE_TICK_NS: u64 = 100_000_000;
/// The hand of the stall wheel moves this often.
const STALL_TICK_NS: u64 = 1_000_000;

/// How far the shard is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drain {
    No,
    /// No new bytes are read; what was read is being answered, until this time at the latest.
    Answering {
        until_ms: u64,
    },
    /// Everybody was told `bye`.
    Ending,
    /// Told to stop: every connection is to be closed at once.
    Stopping,
}

#[derive(Debug)]
pub(super) struct Core<S> {
    pub(super) now: Now,
    pub(super) shard: ShardId,
    pub(super) settings: Arc<Settings>,
    pub(super) connections_max: usize,
    pub(super) chat: chat::Shard,
    pub(super) connections: Slab<Connection<S>>,
    pub(super) frames: FrameStore,
    pub(super) queues: QueuePool,
    /// Looks at a connection when one of its deadlines may have passed.
    pub(super) deadlines: Wheel,
    /// Looks at a blocked connection when its request has waited too long.
    pub(super) stalls: Wheel,
    pub(super) port: Port<Envelope<S>>,
    pub(super) log: Box<dyn Log>,
    pub(super) login: Option<TokenLogin>,
    /// Connections whose token is being checked.
    pub(super) asked: hashbrown::HashMap<Key, Asked, RandomState>,
    pub(super) asks: u64,
    pub(super) verdicts: Vec<Answer>,
    /// Whom a socket is connected to, where the kernel's side knows.
    pub(super) address_of: fn(&S) -> Option<IpAddr>,
    /// Whom a proxy speaks for on a connection.
    pub(super) clients: hashbrown::HashMap<Key, IpAddr, RandomState>,
    pub(super) directory: Arc<Directory>,
    pub(super) counters: Arc<Counters>,
    pub(super) shared: Arc<Shared>,
    pub(super) control: Receiver<Control>,
    pub(super) errands: Errands,
    pub(super) probe: Option<Probe>,
    pub(super) queue_high: HighWater,
    pub(super) outbox_high: HighWater,
    pub(super) report: Sender<Report>,
    pub(super) effects: Effects,
    /// Sessions that have ended and whose end the rules do not know yet.
    pub(super) ended: Vec<Key>,
    /// Sessions whose queue has grown over the soft mark (true), or gone down again, and the rules do not know yet.
    pub(super) marks: Vec<(Key, bool)>,
    pub(super) crowd: Crowd,
    /// Sends to make, by class. An entry whose connection is no longer `dirty` is stale.
    pub(super) interactive: VecDeque<Key>,
    pub(super) bulk: VecDeque<Key>,
    /// Receives to arm or cancel.
    pub(super) rearm: VecDeque<Key>,
    /// Sends to cancel: the connection is joining.
    pub(super) cut: Vec<Key>,
    /// Connections whose queue has gone out or whose last operation has ended: to shut down or to release.
    pub(super) closing: Vec<Key>,
    /// Connections with a request that is to be offered again.
    pub(super) blocked: VecDeque<Key>,
    pub(super) unread_bytes: usize,
    /// Connections before their login, and what they have unread: see `strangers`.
    pub(super) strangers: usize,
    pub(super) stranger_bytes: usize,
    /// Buffers for what is unread, recycled with their boxes.
    #[allow(clippy::vec_box, reason = "connections hold them boxed")]
    pub(super) spare: Vec<Box<Unread>>,
    pub(super) sheds: Sheds,
    /// `send`s are refused because what was sent waits too long.
    pub(super) late: bool,
    pub(super) lists: Lists,
    pub(super) drain: Drain,
    /// When the rules last looked at their own deadlines.
    pub(super) ticked_ns: u64,
    pub(super) warned_transport: bool,
    pub(super) warned_proxy: bool,
}

impl<S> Core<S> {
    pub(super) fn new(parts: Parts<S>, now: Now, address_of: fn(&S) -> Option<IpAddr>) -> Self {
        let settings = parts.settings;
        let queues = &settings.queues;
        let [a, b, c, d] = parts.rules.hash_seeds;
        let crowd = Crowd::new(parts.rules.hash_seeds, queues.shard_bytes_max);
        let slots = settings.limits.connections_per_shard_max.saturating_add(SHED_PLACES).min(1 << Key::SLOT_BITS);
        Self {
            now,
            shard: parts.rules.shard,
            connections_max: parts.connections_max,
            chat: chat::Shard::new(parts.rules),
            connections: Slab::new(u32::try_from(slots).expect("at most 2^24")),
            frames: FrameStore::new(count(queues.frames_max), count(queues.gather_buffers)),
            queues: QueuePool::new(count(queues.out_chunks_max)),
            deadlines: Wheel::new(DEADLINE_TICK_NS, now.mono_ns),
            stalls: Wheel::new(STALL_TICK_NS, now.mono_ns),
            settings,
            port: parts.port,
            log: parts.log,
            login: parts.login,
            asked: hashbrown::HashMap::with_hasher(RandomState::with_seeds(a, b, c, d)),
            asks: 0,
            verdicts: Vec::new(),
            address_of,
            clients: hashbrown::HashMap::with_hasher(RandomState::with_seeds(a, b, c, d)),
            directory: parts.directory,
            counters: parts.counters,
            shared: parts.shared,
            control: parts.control,
            errands: Errands::new(parts.errands, [a, b, c, d]),
            probe: None,
            queue_high: HighWater::default(),
            outbox_high: HighWater::default(),
            report: parts.report,
            effects: Effects::default(),
            ended: Vec::new(),
            marks: Vec::new(),
            crowd,
            interactive: VecDeque::new(),
            bulk: VecDeque::new(),
            rearm: VecDeque::new(),
            cut: Vec::new(),
            closing: Vec::new(),
            blocked: VecDeque::new(),
            unread_bytes: 0,
            strangers: 0,
            stranger_bytes: 0,
            spare: Vec::new(),
            sheds: Sheds::Nothing,
            late: false,
            lists: Lists::default(),
            drain: Drain::No,
            ticked_ns: now.mono_ns,
            warned_transport: false,
            warned_proxy: false,
        }
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.now.mono_ms()
    }

    /// When a state that begins now has lasted too long, milliseconds of the monotonic clock.
    pub(super) fn due_ms(&self, state: Deadline) -> u64 {
        self.now_ms() + state.ms(&self.settings)
    }

    /// Looks at the connection again at `at_ms` at the latest.
    pub(super) fn check_no_later(&mut self, key: Key, at_ms: u64) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if at_ms < connection.check_ms {
            connection.check_ms = at_ms;
            self.deadlines.schedule(key.slot, at_ms * 1_000_000);
        }
    }

    /// The connection's receive may no longer be what it should be.
    pub(super) fn want_rearm(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if !connection.rearm {
            connection.rearm = true;
            self.rearm.push_back(key);
        }
    }

    /// Bytes are wanted from this connection.
    pub(super) fn wants_bytes(&self, connection: &Connection<S>) -> bool {
        match connection.phase {
            Phase::Handshake => self.drain == Drain::No && connection.waits == Waits::No && !connection.eof,
            Phase::Open => self.drain == Drain::No && connection.holds == 0 && connection.waits == Waits::No && !connection.eof,
            Phase::Closing | Phase::Lingering => !connection.eof && (connection.discarded as usize) < LINGER_BYTES_MAX,
            Phase::Joining => false,
        }
    }

    /// Carries out what the rules have said, and what follows from it, in order.
    pub(super) fn settle(&mut self) {
        loop {
            let mut effects = std::mem::take(&mut self.effects);
            for effect in effects.list.drain(..) {
                self.carry_out(effect, &effects.targets);
            }
            for (stage, us) in effects.samples.drain(..) {
                self.note_stage(stage, us);
            }
            effects.clear();
            self.effects = effects;
            if let Some(key) = self.ended.pop() {
                self.chat.handle_closed(self.now, key, &mut self.effects);
                continue;
            }
            match self.marks.pop() {
                Some((key, true)) => self.chat.handle_slow(self.now, key, &mut self.effects),
                Some((key, false)) => self.chat.handle_fast(self.now, key, &mut self.effects),
                None => break,
            }
        }
    }

    /// Counts an end that has no connection in the slab.
    pub(super) fn count_end(&self, ended: Ended) {
        self.counters.end(ended);
    }
}

fn count(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
