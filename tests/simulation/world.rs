//! One run: clients, kernel and server in one thread and in virtual time.

use std::collections::{BTreeMap, BTreeSet};

use ringroom::config::RateMode;
use ringroom::ids::{Key, ShardId};
use ringroom::ring::ListenerId;
use ringroom::ring::fake::{ConnectionId, FakeKernel, KernelSettings, Random, Rates, Stage as Stadium, Table};

use super::acts::Stage;
use super::ends::{Busy, Ended, Ends, Watched};
use super::memory::Memory;
use super::plan::{LogFaults, Plan, VerifierFaults};
use super::server::{Server, Stepped};
use super::session::{Context, Phase, Reading, Session};
use super::truth::Truth;

/// What a run that found nothing reports.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) trace: u64,
    pub(crate) completions: u64,
    pub(crate) steps: u64,
    pub(crate) messages: usize,
    pub(crate) sessions: usize,
    pub(crate) deliveries: u64,
    pub(crate) gaps: u64,
    pub(crate) table: Table,
    pub(crate) ends: Ends,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    Connect,
    Act(usize),
    Read(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Era {
    Load,
    /// No faults, no new requests; everything has to come to rest.
    Calm,
    Drain,
}

/// A run that goes on for longer than this never ends.
const STEPS_MAX: u64 = 6_000_000;
/// Clients that connect right before a drain under load.
const LATECOMERS: usize = 10;
/// Clients that may come back; who goes when there are as many is never seen again.
const MEMORIES_MAX: usize = 200;
const MS: u64 = 1_000_000;
const S: u64 = 1_000 * MS;

pub(crate) struct World {
    pub(super) plan: Plan,
    pub(super) kernel: FakeKernel,
    pub(super) server: Server,
    pub(super) random: Random,
    pub(super) sessions: Vec<Session>,
    /// Clients between two connections.
    pub(super) memories: Vec<Memory>,
    by_connection: BTreeMap<ConnectionId, usize>,
    pub(super) agenda: BTreeSet<(u64, Due)>,
    pub(super) truth: Truth,
    pub(super) step: u64,
    pub(super) era: Era,
    /// What every shard's connections are doing, and how they ended.
    pub(super) watched: Vec<Watched>,
    ends: Ends,
    frozen: Vec<u64>,
    deliveries: u64,
    trace: u64,
}

type Verdict = Result<(), String>;

fn classify(bytes: &[u8]) -> Option<Stadium> {
    let tail = &bytes[bytes.len().saturating_sub(300)..];
    let head = &bytes[..bytes.len().min(60)];
    let holds = |bytes: &[u8], text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
    if holds(tail, br#""type":"bye""#) {
        return Some(Stadium::Closing);
    }
    holds(head, br#""type":"welcome""#).then_some(Stadium::OpenIdle)
}

impl World {
    pub(crate) fn new(plan: Plan) -> Self {
        let mut random = Random::new(plan.seed);
        let kernel = FakeKernel::new(KernelSettings {
            seed: random.word(),
            shards: usize::from(plan.shards),
            listeners: 1,
            buffers: plan.buffers,
            buffer_bytes: plan.buffer_bytes,
            submissions: plan.submissions,
            rates: plan.rates.clone(),
            classify,
        });
        let server = Server::new(&plan, &kernel, &mut random);
        let now_ns = kernel.now_ns();
        let mut agenda = BTreeSet::new();
        for place in 0..plan.clients {
            agenda.insert((now_ns + MS * place as u64 / 4, Due::Connect));
        }
        let truth = Truth::new(plan.retained());
        let watched = (0..plan.shards).map(|_| Watched::default()).collect();
        let frozen = vec![0; usize::from(plan.shards)];
        Self {
            plan,
            kernel,
            server,
            random,
            sessions: Vec::new(),
            memories: Vec::new(),
            by_connection: BTreeMap::new(),
            agenda,
            truth,
            step: 0,
            era: Era::Load,
            watched,
            ends: Ends::default(),
            frozen,
            deliveries: 0,
            trace: 0,
        }
    }

    pub(crate) fn run(mut self) -> Result<Report, String> {
        if let Err(error) = self.run_eras() {
            self.kernel.abandon();
            return Err(format!("{error}; {}", self.server.describe()));
        }
        self.report()
    }

    fn run_eras(&mut self) -> Verdict {
        let target = self.plan.completions;
        self.run_until("load", 3_600 * S, |world| world.kernel.completions() >= target)?;
        if !self.plan.drains_under_load {
            self.calm()?;
            self.disperse()?;
        }
        self.drain()
    }

    fn report(self) -> Result<Report, String> {
        let report = Report {
            trace: self.trace ^ self.kernel.trace(),
            completions: self.kernel.completions(),
            steps: self.step,
            messages: self.truth.messages.len(),
            sessions: self.sessions.len(),
            deliveries: self.deliveries,
            gaps: self.truth.gaps,
            table: self.kernel.table(),
            ends: self.ends,
        };
        let World { kernel, server, .. } = self;
        drop(server);
        kernel.assert_nothing_left();
        Ok(report)
    }

    // ---- eras -------------------------------------------------------------------------------------------------------------------------------------

    fn calm(&mut self) -> Verdict {
        self.era = Era::Calm;
        self.kernel.set_rates(Rates::quiet());
        *self.server.log_faults.lock().unwrap() = LogFaults::default();
        *self.server.verifier_faults.lock().unwrap() = VerifierFaults::default();
        let now_ns = self.kernel.now_ns();
        for index in 0..self.sessions.len() {
            if !self.sessions[index].is_over() {
                self.settle(index, now_ns);
            }
        }
        self.run_until("calm", 150 * S, World::is_quiet)?;
        self.check_who_is_here()?;
        for session in self.sessions.iter().filter(|s| s.phase == Phase::Open) {
            for inside in session.inside.values() {
                self.truth.memberships[inside.membership].stayed = true;
                if inside.replay.is_some() {
                    return Err(format!("session {} waits for the rest of a replay", session.number));
                }
            }
        }
        self.judge()
    }

    fn judge(&mut self) -> Verdict {
        let ledger = std::mem::take(&mut *self.server.ledger.lock().unwrap());
        self.truth.learn(&ledger)?;
        self.truth.judge()
    }

    /// A client in the calm reads all it gets and finishes what it began, unless it has stopped for ever.
    fn settle(&mut self, index: usize, now_ns: u64) {
        let session = &mut self.sessions[index];
        if session.reading != Reading::Never {
            session.reading = Reading::All;
            self.agenda.insert((now_ns, Due::Read(index)));
        }
        let rest = std::mem::take(&mut session.unwritten);
        if !session.sins.silent && !rest.is_empty() {
            self.kernel.client_write(session.connection, &rest);
        }
    }

    fn is_quiet(&self) -> bool {
        let clients = self.sessions.iter().filter(|s| !s.is_over());
        let mut honest = clients.filter(|s| s.reading == Reading::All);
        let at_rest = honest.all(|s| s.phase == Phase::Open && s.asked.is_empty() && !s.sins.left && !s.stop_talking);
        let open = self.sessions.iter().filter(|s| s.phase == Phase::Open).count();
        // The end of who went just before the calm may still be on its way.
        at_rest
            && self.sessions.iter().all(|s| s.is_over() || s.reading == Reading::All)
            && self.server.is_quiet()
            && self.server.facts().sessions == open
    }

    fn check_who_is_here(&mut self) -> Verdict {
        let facts = self.server.facts();
        let open = self.sessions.iter().filter(|s| s.phase == Phase::Open).count();
        if facts.sessions != open || facts.sockets != open {
            return Err(format!("{open} clients are logged in, the server knows {facts:?}"));
        }
        let users: BTreeSet<&str> = self.sessions.iter().filter(|s| s.phase == Phase::Open).map(|s| s.user.as_str()).collect();
        if facts.users < users.len() || (self.plan.shards == 1 && facts.users != users.len()) {
            return Err(format!("{} users are logged in, the server knows {facts:?}", users.len()));
        }
        self.check_tokens()?;
        self.check_presence()
    }

    /// Nobody outlives his token.
    fn check_tokens(&self) -> Verdict {
        let now = self.kernel.now();
        for session in self.sessions.iter().filter(|s| s.phase == Phase::Open && !self.plan.wall_clock_steps) {
            if session.shown.last_end_ms().is_some_and(|end_ms| end_ms + 15_000 < now.unix_ms) {
                return Err(format!("session {} has outlived its token: {:?}, it is {now:?}", session.number, session.shown));
            }
        }
        Ok(())
    }

    /// What watchers were told agrees with who is in the room.
    fn check_presence(&self) -> Verdict {
        let mut present: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        let open = || self.sessions.iter().filter(|s| s.phase == Phase::Open);
        for session in open() {
            for room in session.inside.keys() {
                present.entry(room).or_default().insert(&session.user);
            }
        }
        for room in (0..self.plan.rooms).map(|room| format!("r{room}")) {
            self.check_roll(&room)?;
        }
        // A fresh token may have taken the right to hear of it.
        for session in open().filter(|session| !session.shown.mixed) {
            for (room, inside) in session.inside.iter().filter(|(_, inside)| inside.presence) {
                for (user, here) in &inside.users {
                    if present[room.as_str()].contains(user.as_str()) != *here {
                        return Err(format!("session {} was told of {user} in {room}: here = {here}, which is wrong", session.number));
                    }
                }
            }
        }
        Ok(())
    }

    /// The room's home and the shards of its members know exactly those who are in it: nobody who has gone, in whatever way.
    fn check_roll(&self, room: &str) -> Verdict {
        let mut truth: BTreeMap<String, u32> = BTreeMap::new();
        for session in self.sessions.iter().filter(|s| s.phase == Phase::Open && s.inside.contains_key(room)) {
            *truth.entry(session.user.clone()).or_default() += 1;
        }
        let count: u32 = truth.values().sum();
        let (users, sessions, members) = self.server.roll(room);
        if users != truth || sessions != count || members != count as usize {
            return Err(format!("in {room} are {truth:?}; its home knows {users:?}, {sessions} sessions; shards have {members} members"));
        }
        Ok(())
    }

    /// Everybody goes, in all manners; nothing of them may stay.
    fn disperse(&mut self) -> Verdict {
        for index in 0..self.sessions.len() {
            if self.sessions[index].is_over() {
                continue;
            }
            match self.random.below(4) {
                0 => self.close(index),
                1 => self.reset(index),
                2 => self.half_close(index),
                _ => {
                    let bytes = self.sessions[index].say_bye();
                    self.write(index, &bytes);
                }
            }
        }
        self.run_until("dispersal", 30 * S, |world| world.sessions.iter().all(Session::is_over) && world.server.is_empty())
    }

    fn drain(&mut self) -> Verdict {
        if self.plan.drains_under_load {
            // Some have just come.
            (0..LATECOMERS).for_each(|_| self.connect());
            (0..LATECOMERS).for_each(|_| self.connect_only());
            let step = self.step;
            self.run_until("arrival", S, |world| world.step > step + 100)?;
            self.renew_some(LATECOMERS);
        }
        self.era = Era::Drain;
        self.server.drain();
        self.ring_all();
        let time = self.plan.settings.limits.drain_ms * MS + 15 * S;
        self.run_until("drain", time, |world| world.server.has_drained())?;
        self.server.stop();
        self.ring_all();
        self.run_until("stop", 15 * S, |world| world.server.has_finished())?;
        // What the server wrote before it went is still read.
        for index in 0..self.sessions.len() {
            if !self.sessions[index].is_over() {
                self.sessions[index].reading = Reading::All;
                self.read(index)?;
            }
        }
        if self.plan.drains_under_load {
            self.judge()?;
        }
        Ok(())
    }

    fn ring_all(&self) {
        for shard in 0..self.plan.shards {
            self.kernel.ring(ShardId(shard));
        }
    }

    // ---- the loop ---------------------------------------------------------------------------------------------------------------------------------

    fn run_until(&mut self, name: &str, time_ns: u64, done: impl Fn(&World) -> bool) -> Verdict {
        let deadline_ns = self.kernel.now_ns() + time_ns;
        while !done(self) {
            self.step += 1;
            if self.step > STEPS_MAX || self.kernel.now_ns() > deadline_ns {
                return Err(format!("{name} does not end: step {}, {}", self.step, self.describe()));
            }
            self.clients()?;
            let runnable = self.runnable();
            if runnable.is_empty() {
                self.check_asleep()?;
                self.wait();
            } else {
                let shard = *self.random.pick(&runnable);
                self.turn(shard)?;
            }
        }
        Ok(())
    }

    fn describe(&self) -> String {
        let waiting: Vec<_> = self.sessions.iter().filter(|s| !s.is_over()).collect();
        let first = waiting.iter().find(|s| s.phase != Phase::Open || !s.asked.is_empty());
        format!("{:?}; {} clients are left, one of them: {first:?}", self.server.facts(), waiting.len())
    }

    fn runnable(&self) -> Vec<ShardId> {
        let now_ns = self.kernel.now_ns();
        let shards = (0..self.plan.shards).map(ShardId);
        shards.filter(|s| self.server.is_running(*s) && self.kernel.is_awake(*s) && self.frozen[s.index()] <= now_ns).collect()
    }

    fn turn(&mut self, shard: ShardId) -> Verdict {
        let stepped = self.server.step(shard)?;
        self.truth.evictions = self.server.evictions();
        self.truth.wall_ms = self.kernel.now().unix_ms;
        self.look_at(shard);
        for connection in self.kernel.take_cancelled() {
            self.speak_into_the_cancel(connection);
        }
        let cost_ns = self.random.between(1_000, 20_000);
        self.kernel.advance_to(self.kernel.now_ns() + cost_ns);
        if self.plan.frozen_shards && self.era == Era::Load && self.random.chance(40) {
            self.frozen[shard.index()] = self.kernel.now_ns() + self.random.below(2 * S);
        }
        if self.plan.wall_clock_steps && self.random.chance(300) {
            let hours = i64::try_from(self.random.below(7)).expect("below seven") - 3;
            self.kernel.step_wall_clock(hours * 3_600_000);
        }
        if stepped == Stepped::Asleep && self.random.chance(2_000) {
            self.kernel.interrupt(shard);
        }
        self.server.check(shard, &self.kernel)
    }

    /// A receive is being cancelled: the moment to say something.
    fn speak_into_the_cancel(&mut self, connection: ConnectionId) {
        let index = self.by_connection[&connection];
        let session = &self.sessions[index];
        match self.kernel.stage(connection) {
            // Who is being ended may say what he likes: nobody listens.
            Stadium::Closing if self.random.percent(20) => self.kernel.client_write(connection, &[0; 100]),
            Stadium::Handshake if session.hellos == 0 && !session.stop_talking && !session.is_over() => self.greet(index),
            _ => {}
        }
    }

    /// Takes note of who has ended, and of what everybody is doing.
    fn look_at(&mut self, shard: ShardId) {
        let seen = self.server.seen(shard);
        let ended = self.watched[shard.index()].look(&seen.doing, &seen.ended, |key| self.server.is_gone(shard, key));
        for Ended { key, reason, doing } in ended {
            let session = self.session_at(shard, key).map(|index| &self.sessions[index]);
            let replaying = session.is_some_and(|session| session.is_replaying() || session.is_owed_a_replay(doing));
            Busy::all_of(doing, replaying).for_each(|busy| self.ends.note(reason, busy));
        }
    }

    pub(super) fn session_at(&self, shard: ShardId, key: Key) -> Option<usize> {
        self.by_connection.get(&self.kernel.connection_of(shard, key)?).copied()
    }

    /// Nobody can run: let time pass to whatever comes first.
    fn wait(&mut self) {
        let now_ns = self.kernel.now_ns();
        let sleepers = (0..self.plan.shards).map(ShardId).filter(|s| self.server.is_running(*s));
        let wakes = sleepers.filter_map(|s| match self.frozen[s.index()] {
            until_ns if until_ns > now_ns => Some(until_ns),
            _ => self.kernel.waits_until_ns(s),
        });
        let due = self.agenda.first().map(|(at_ns, _)| *at_ns);
        let next = wakes.chain(due).chain(self.kernel.next_event_ns()).min().unwrap_or(now_ns + S);
        self.kernel.advance_to(next.clamp(now_ns + 1, now_ns + S));
    }

    fn check_asleep(&self) -> Verdict {
        // A bell may still be in the hands of a shard that stands still.
        if self.frozen.iter().any(|until_ns| *until_ns > self.kernel.now_ns()) {
            return Ok(());
        }
        for shard in (0..self.plan.shards).map(ShardId) {
            if self.server.is_running(shard)
                && !self.kernel.is_awake(shard)
                && self.server.has_inbound(shard)
                && self.kernel.bells_under_way(shard) == 0
            {
                return Err(format!("{shard:?} sleeps with work in its inbox and no doorbell on its way"));
            }
        }
        Ok(())
    }

    fn clients(&mut self) -> Verdict {
        for connection in self.kernel.take_readable() {
            let index = self.by_connection[&connection];
            self.read(index)?;
        }
        if self.era == Era::Load && self.random.chance(6_000) {
            self.aim();
        }
        let now_ns = self.kernel.now_ns();
        while let Some((at_ns, due)) = self.agenda.first().copied() {
            if at_ns > now_ns {
                break;
            }
            self.agenda.pop_first();
            match due {
                Due::Connect if self.era == Era::Load => self.connect(),
                Due::Connect => {}
                Due::Read(index) => self.read_due(index, now_ns)?,
                Due::Act(index) if self.era == Era::Load => self.act(index),
                Due::Act(_) => {}
            }
        }
        Ok(())
    }

    // ---- a client's hands -------------------------------------------------------------------------------------------------------------------------

    pub(super) fn add_session(&mut self, connection: ConnectionId, memory: Memory) -> usize {
        let index = self.sessions.len();
        self.sessions.push(Session::new(index, connection, memory));
        self.by_connection.insert(connection, index);
        index
    }

    pub(super) fn open_connection(&mut self) -> ConnectionId {
        let shard = ShardId(u16::try_from(self.random.below(u64::from(self.plan.shards))).expect("a shard"));
        let window = self.random.size(self.plan.window / 2, self.plan.window);
        self.kernel.connect(shard, ListenerId(0), window)
    }

    pub(super) fn write(&mut self, index: usize, bytes: &[u8]) {
        self.kernel.client_write(self.sessions[index].connection, bytes);
    }

    pub(super) fn stage_and_session(&mut self, index: usize) -> (Stage<'_>, &mut Session) {
        let now = self.kernel.now();
        let stage = Stage { plan: &self.plan, random: &mut self.random, truth: &mut self.truth, step: self.step, now };
        (stage, &mut self.sessions[index])
    }

    pub(super) fn close(&mut self, index: usize) {
        self.leave(index);
        self.kernel.client_close(self.sessions[index].connection);
    }

    pub(super) fn reset(&mut self, index: usize) {
        self.leave(index);
        self.kernel.client_reset(self.sessions[index].connection);
    }

    pub(super) fn half_close(&mut self, index: usize) {
        let session = &mut self.sessions[index];
        session.sins.left = true;
        session.stop_talking = true;
        self.kernel.client_half_close(session.connection);
    }

    /// The client is gone: nothing is read any more.
    fn leave(&mut self, index: usize) {
        let session = &mut self.sessions[index];
        session.sins.left = true;
        session.phase = Phase::Ended;
        session.forget_rooms();
        self.come_back(index);
    }

    fn come_back(&mut self, index: usize) {
        if self.memories.len() < MEMORIES_MAX {
            let memory = self.sessions[index].memory();
            self.memories.push(memory);
        }
        if self.era == Era::Load {
            let at_ns = self.kernel.now_ns() + self.random.below(self.plan.pause_ns);
            self.agenda.insert((at_ns, Due::Connect));
        }
    }

    fn read_due(&mut self, index: usize, now_ns: u64) -> Verdict {
        if let Reading::StoppedUntil(until_ns) = self.sessions[index].reading
            && until_ns <= now_ns
        {
            self.sessions[index].reading = Reading::All;
        }
        self.read(index)
    }

    fn read(&mut self, index: usize) -> Verdict {
        if self.sessions[index].is_over() {
            return Ok(());
        }
        let max = match self.sessions[index].reading {
            Reading::All => usize::MAX,
            Reading::Slow(bytes) => {
                let at_ns = self.kernel.now_ns() + self.random.between(MS, 20 * MS);
                if self.kernel.client_readable(self.sessions[index].connection) > bytes {
                    self.agenda.insert((at_ns, Due::Read(index)));
                }
                bytes
            }
            Reading::StoppedUntil(_) | Reading::Never => {
                return self.look_for_the_end(index);
            }
        };
        let session = &mut self.sessions[index];
        let connection = session.connection;
        let before = session.buffer().len();
        let end = self.kernel.client_read(connection, max, session.buffer());
        if session.buffer().len() == before && end.is_none() {
            return Ok(());
        }
        let now_ms = self.kernel.now_ns() / MS;
        let mut context = Context {
            truth: &mut self.truth,
            step: self.step,
            now_ms,
            log_ms: self.plan.settings.limits.log_ms,
            draining: self.era == Era::Drain,
            clock_steps: self.plan.wall_clock_steps,
            tokens: self.plan.verifier.is_some(),
            rejects: self.plan.settings.limits.rate_mode == RateMode::Reject,
            dropping: &self.plan.dropping,
            tight: self.plan.tight,
            frozen: self.plan.frozen_shards,
            narrow: self.plan.window < 60_000 || self.plan.frozen_shards || self.plan.pause_ns <= 2 * MS,
        };
        let kernel = self.kernel.clone();
        let name = |error: String| format!("session {index} ({connection:?}) at {now_ms} ms: {error}; {}", kernel.describe(connection));
        let pings = session.read(&mut context).map_err(name)?;
        self.trace = (self.trace ^ (index as u64)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(17) ^ session.asked.len() as u64;
        self.deliveries += 1;
        if let Some(end) = end {
            // A `bye` has its time to go out; a shard or a completion that stands still can use it up.
            let late = self.plan.frozen_shards || self.kernel.was_delayed(connection);
            session.finish(end, late || self.kernel.was_broken(connection), &mut context).map_err(name)?;
            self.kernel.client_close(connection);
            self.come_back(index);
        } else if session.phase == Phase::Farewell && self.random.percent(30) {
            self.close(index);
        } else if pings > 0 && !session.stop_talking && session.unwritten.is_empty() {
            self.write(index, &Session::pong());
        }
        Ok(())
    }

    /// Who does not read still learns, some time, that the server has given up on it.
    fn look_for_the_end(&mut self, index: usize) -> Verdict {
        let connection = self.sessions[index].connection;
        if self.kernel.server_closed(connection) {
            self.close(index);
        }
        Ok(())
    }
}
