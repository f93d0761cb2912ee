//! One turn of a shard, with a budget on each step: completions, envelopes, timers, answers of the log, sends, outboxes and bells, one enter.

use std::collections::VecDeque;

use super::accept::Accept;
use super::connection::{Phase, Receive};
use super::core::{Core, Drain};
use super::effects::Ending;
use super::overload::{AgeOfWork, Sheds};
use super::{Control, Next, Parts, Reactor, Report};
use crate::config::Deadline;
use crate::ids::ShardId;
use crate::memory::gathers::Gathers;
use crate::mesh::Envelope;
use crate::protocol::error::Reason;
use crate::ring::{Errno, Io, Wait};

/// Completions taken in one turn.
const REAP_MAX: usize = 1024;
/// Envelopes taken from each other shard in one turn.
const ENVELOPES_MAX: usize = 256;
/// Connections looked at in one turn because a deadline may have passed.
const DEADLINES_MAX: usize = 1024;
/// The rules' own deadlines are looked at this often.
const TICK_NS: u64 = 50_000_000;
/// They are looked at this often while a slow reader holds back senders.
const STALL_TICK_NS: u64 = 1_000_000;
/// The longest sleep.
const SLEEP_NS_MAX: u64 = 1_000_000_000;
/// A full queue to another shard is tried again after this.
const OUTBOX_RETRY_NS: u64 = 500_000;
/// Gather buffers that an idle shard keeps.
const GATHERS_KEPT: usize = 16;
/// `retry_after_ms` of a 503 that names no other time is spread over this.
const RETRY_MS: u64 = 500;
const RETRY_SPREAD_MS: u64 = 5_000;

impl<I: Io> Reactor<I> {
    pub fn new(parts: Parts<I::Socket>, mut io: I) -> Self {
        let now = io.now();
        let accepts = (0..parts.listeners).map(Accept::new).collect();
        Self {
            core: Core::new(parts, now, I::address_of),
            io,
            accepts,
            retry: VecDeque::new(),
            gathers: Gathers::default(),
            rung: Vec::new(),
            taken: Vec::new(),
            starved: VecDeque::new(),
            expired: Vec::new(),
            answers: Vec::new(),
            busy_ns: now.mono_ns,
            age: AgeOfWork::new(now.mono_ns),
            told_drained: false,
        }
    }

    /// One round. Never waits; makes at most one system call, and none if it answers `Sleep`: that call is the sleep's.
    pub fn turn(&mut self) -> Next {
        self.core.port.wake();
        self.core.now = self.io.now();
        self.core.counters.turns.add(1);
        self.core.counters.loop_lag.record_us(self.age.turn(self.core.now.mono_ns) / 1_000);
        let late = self.core.is_late();
        self.core.shed_what_is_due(self.age.sheds(), late);
        let mut more = self.reap(REAP_MAX);
        more |= self.take_envelopes();
        self.core.take_verdicts();
        more |= self.run_errands();
        more |= self.look_at_deadlines(DEADLINES_MAX);
        self.tick();
        self.take_answers();
        self.core.retry_blocked();
        self.take_answers();
        self.drain_step();
        self.advance_closing();
        self.submit_accepts();
        self.tell_drained();
        self.submit_receives();
        self.submit_cuts();
        more |= self.submit_sends();
        self.core.outbox_high.note(self.core.port.waiting() as u64);
        more |= self.flush_outboxes();
        self.note_turn();
        if self.core.drain == Drain::Stopping && self.core.connections.is_empty() && self.accepts.iter().all(Accept::is_off) {
            return Next::Finished;
        }
        if more || self.has_work() || self.spins() {
            return match self.io.enter(Wait::No) {
                Ok(()) => Next::Again,
                Err(errno) => panic!("io_uring_enter failed with errno {}: the ring is unusable", errno.0),
            };
        }
        self.age.idle();
        Next::Sleep { until_ns: self.next_ns() }
    }

    /// Waits for the kernel, a bell or `until_ns`, unless something has come in meanwhile.
    pub fn sleep(&mut self, until_ns: u64) -> Result<(), Errno> {
        if !self.core.port.sleep() || self.io.ready() {
            return Ok(());
        }
        self.io.enter(Wait::Until(until_ns))
    }

    /// The kernel's side, for what a driver has to do with it besides turning.
    pub fn io_mut(&mut self) -> &mut I {
        &mut self.io
    }

    pub fn io(&self) -> &I {
        &self.io
    }

    /// When there was last something to do, CLOCK_MONOTONIC nanoseconds.
    pub fn busy_ns(&self) -> u64 {
        self.busy_ns
    }

    /// Gives back what only a busy shard needs; `true` when there was any.
    pub fn trim(&mut self) -> bool {
        self.core.frames.trim(GATHERS_KEPT)
    }

    /// Says that the shard sleeps by other means than [`Reactor::sleep`]; `false` when it must not.
    pub fn prepare_park(&mut self) -> bool {
        self.core.port.sleep() && !self.io.ready()
    }

    pub(super) fn core(&self) -> &Core<I::Socket> {
        &self.core
    }

    fn take_envelopes(&mut self) -> bool {
        if !self.core.port.look() {
            return false;
        }
        // The port is lent out while the rules post into it, so what came in is put aside first.
        let mut taken = std::mem::take(&mut self.taken);
        let more = self.core.port.receive(ENVELOPES_MAX, |from, envelope| taken.push((from, envelope)));
        self.busy_ns = self.core.now.mono_ns;
        self.core.counters.envelopes_in.add(taken.len() as u64);
        for (from, envelope) in taken.drain(..) {
            self.core.envelope_in(from, envelope);
        }
        self.taken = taken;
        more
    }

    fn tick(&mut self) {
        let now_ns = self.core.now.mono_ns;
        if now_ns < self.core.tick_due_ns() {
            return;
        }
        self.core.ticked_ns = now_ns;
        self.core.chat.handle_tick(self.core.now, &mut self.core.effects);
        self.core.settle();
        self.core.watch_budget();
        self.core.settle();
        self.publish();
    }

    /// The log's answers, as long as they bring new ones: the embedded log answers at once.
    pub(super) fn take_answers(&mut self) {
        loop {
            self.core.log.answers(self.core.now, &mut self.answers);
            if self.answers.is_empty() {
                return;
            }
            for answer in self.answers.drain(..) {
                self.core.chat.handle_appended(self.core.now, answer, &mut self.core.effects);
                self.core.settle();
            }
        }
    }

    /// Publishes what was posted and rings who sleeps; `true` when the rules want another turn because there is room again.
    fn flush_outboxes(&mut self) -> bool {
        let core = &mut self.core;
        let chat = &mut core.chat;
        let mut room = false;
        let sent = |to: ShardId, left: usize| {
            room = true;
            chat.handle_outbox(to, left);
        };
        core.port.flush(sent, &mut self.rung);
        while let Some(shard) = self.rung.pop() {
            if self.io.ring(shard).is_err() {
                self.rung.push(shard);
                break;
            }
        }
        if room && self.core.chat.wants_room() {
            self.core.chat.handle_tick(self.core.now, &mut self.core.effects);
            self.core.settle();
            return true;
        }
        false
    }

    /// Lists that the submission queue had no room for, or that filled up while they were worked on.
    fn has_work(&mut self) -> bool {
        let core = &self.core;
        !(core.rearm.is_empty()
            && core.cut.is_empty()
            && core.closing.is_empty()
            && core.interactive.is_empty()
            && core.bulk.is_empty()
            && self.retry.is_empty()
            && self.rung.is_empty())
            || self.accepts.iter().any(Accept::is_emptying)
            || self.io.ready()
            || core.log.next_ns() == Some(0)
    }

    fn spins(&mut self) -> bool {
        let spin_ns = self.core.settings.server.spin_us * 1_000;
        if self.io.pending() {
            self.busy_ns = self.core.now.mono_ns;
        }
        spin_ns > 0 && self.core.now.mono_ns.saturating_sub(self.busy_ns) < spin_ns
    }

    fn next_ns(&self) -> u64 {
        let core = &self.core;
        let now_ns = core.now.mono_ns;
        let mut until_ns = now_ns + SLEEP_NS_MAX;
        let mut earlier = |at_ns: Option<u64>| until_ns = until_ns.min(at_ns.unwrap_or(u64::MAX));
        earlier(core.deadlines.next_ns());
        earlier(core.stalls.next_ns());
        earlier(core.log.next_ns());
        earlier(core.login.as_ref().and_then(|login| login.verifier.next_ns()));
        earlier((core.chat.wants_tick() || !core.blocked.is_empty()).then_some(core.tick_due_ns()));
        earlier(self.accepts.iter().filter_map(Accept::due_ms).min().map(|ms| ms * 1_000_000));
        earlier((core.port.waiting() > 0).then_some(now_ns + OUTBOX_RETRY_NS));
        earlier(matches!(core.drain, Drain::Answering { .. }).then_some(now_ns + TICK_NS));
        until_ns
    }

    /// Somebody rang.
    pub(super) fn obey(&mut self) {
        self.core.counters.rung.add(1);
        while let Ok(control) = self.core.control.try_recv() {
            match control {
                Control::Drain if self.core.drain == Drain::No => {
                    self.core.drain = Drain::Answering { until_ms: self.core.due_ms(Deadline::Answering) };
                    self.core.chat.handle_drain();
                    self.core.rearm_all();
                }
                Control::Drain => {}
                Control::Reload(settings) => {
                    self.core.chat.handle_limits(&settings);
                    self.core.settings = settings;
                }
                Control::Stop => {
                    self.core.drain = Drain::Stopping;
                    self.stop_all();
                }
            }
        }
    }

    fn drain_step(&mut self) {
        if let Drain::Answering { until_ms } = self.core.drain
            && (self.core.is_answered() || self.core.now_ms() >= until_ms)
        {
            self.core.drain = Drain::Ending;
            self.core.say_bye();
        }
    }

    /// In the turn that frees the last connection: nothing else may ever wake the shard again.
    fn tell_drained(&mut self) {
        let leaving = matches!(self.core.drain, Drain::Ending | Drain::Stopping);
        let closed = self.accepts.iter().all(Accept::is_off);
        if leaving && closed && !self.told_drained && self.core.connections.is_empty() {
            self.told_drained = self.core.report.try_send(Report::Drained(self.core.shard)).is_ok();
        }
    }
}

impl<S> Core<S> {
    /// When the rules look at their own deadlines next.
    fn tick_due_ns(&self) -> u64 {
        let stalling = self.chat.is_stalling(self.now);
        self.ticked_ns + if stalling { STALL_TICK_NS } else { TICK_NS }
    }

    fn envelope_in(&mut self, from: ShardId, envelope: Envelope<S>) {
        match envelope {
            Envelope::Chat(envelope) => {
                self.chat.handle_envelope(self.now, from, envelope, &mut self.effects);
                self.settle();
            }
            Envelope::Move(moved) => self.moved_in(*moved),
        }
    }

    /// Takes note of what is to be turned away from now on.
    fn shed_what_is_due(&mut self, sheds: Sheds, late: bool) {
        if (sheds, late) == (self.sheds, self.late) {
            return;
        }
        if self.sheds == Sheds::Nothing && !self.late {
            self.counters.overloads.add(1);
        }
        (self.sheds, self.late) = (sheds, late);
        self.chat.handle_load(late || sheds == Sheds::ConnectionsAndSends);
    }

    /// Nothing that was read is without its answer, and nothing more is being read.
    fn is_answered(&self) -> bool {
        let usage = self.chat.usage();
        let quiet = usage.unanswered == 0 && usage.appends == 0 && usage.deferred == 0 && self.blocked.is_empty();
        quiet && self.asked.is_empty() && self.rearm.is_empty() && !self.reads()
    }

    fn reads(&self) -> bool {
        let mut keys = (0..self.connections.slots()).filter_map(|slot| self.connections.key_at(slot));
        keys.any(|key| {
            let connection = self.connections.get(key).expect("key_at names what is there");
            matches!(connection.phase, Phase::Open | Phase::Handshake) && connection.receive != Receive::Idle
        })
    }

    fn rearm_all(&mut self) {
        for slot in 0..self.connections.slots() {
            if let Some(key) = self.connections.key_at(slot) {
                self.want_rearm(key);
            }
        }
    }

    /// `bye` to everybody, to come back at different times.
    fn say_bye(&mut self) {
        for slot in 0..self.connections.slots() {
            let Some(key) = self.connections.key_at(slot) else { continue };
            self.end_and_settle(key, Ending::said(Reason::Draining, None));
        }
    }

    /// When a client may come back that was sent away with 503: each at another time.
    pub(super) fn retry_ms(&self, slot: u32) -> u64 {
        let spread = (u64::from(slot) * 64 + u64::from(self.shard.0)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
        RETRY_MS + spread % RETRY_SPREAD_MS
    }
}
