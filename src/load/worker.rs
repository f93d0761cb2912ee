//! A generator thread: its connections on one ring, from login to the last delivery.
//!
//! One loop: messages that are due are handed to their connections, one enter hands all of it to the kernel and waits, everything that has
//! come is taken with one time stamp. The schedule rules: a late message is sent late, never dropped, and its latency counts from when it
//! was due. Waiting ends a little early and the rest is spun, since a sleep overshoots by tens of microseconds.
//!
//! Talks to the rest by [`Shared`] (atomics) and the report channel only; never prints, never decides what a figure means.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender};
use hashbrown::{HashMap, HashSet};

use crate::ids::Key;
use crate::memory::frames::FrameStore;
use crate::ring::{Completion, Errno, Io, Wait};
use crate::sys::clock::{monotonic_ns, thread_cpu_ns};

use super::body::{Bodies, Stamp};
use super::check::Checker;
use super::connect;
use super::dialect::{Dialect, Login, Wanted};
use super::ledger::{Incidents, Ledger, Membership, Page, Request};
use super::link::Link;
use super::names::Names;
use super::plan::{Mode, Plan, as_u64};
use super::record::{Interval, Phase};
use super::schedule::Schedule;
use super::senders::Senders;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
/// Sleep ends this long before a message is due.
const SPIN_NS: u64 = 60_000;
/// No wait is longer: stop flags and the end are looked at this often.
const WAIT_MAX_NS: u64 = 10 * MS;
/// Logins under way at once in one thread: below what a listener's queue holds.
const LOGINS_MAX: usize = 512;
/// Login gives up when this long nothing has come.
const LOGIN_STALL_NS: u64 = 15 * SECOND;
/// Connects between two looks at what has come.
const CONNECTS_PER_TURN: usize = 16;
/// Messages handed over between two looks at what has come, when behind.
const SENDS_PER_TURN: usize = 128;
/// Frames waiting or in flight in one thread.
const FRAMES_MAX: u32 = 1 << 18;
const GATHERS_MAX: u32 = 1_024;

/// How waiting for the next message ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pacing {
    Spin,
    Sleep,
}

/// What one thread shows the others while it runs.
#[derive(Debug)]
#[repr(align(128))]
pub struct Gauge {
    /// Deliveries that its messages must make, at all threads together; `u64::MAX` until it has sent its last.
    pub expected: AtomicU64,
    pub received: AtomicU64,
    pub unanswered: AtomicU64,
    pub logged_in: AtomicU64,
}

/// The clock and the flags of a run.
#[derive(Debug)]
pub struct Shared {
    /// Start of the run, monotonic ns; 0: not yet.
    pub start_ns: AtomicU64,
    /// End of sending, ns since the start; moved forward by an early end.
    pub end_ns: AtomicU64,
    /// Give up at once.
    pub abort: AtomicBool,
    pub gauges: Vec<Gauge>,
}

impl Shared {
    pub fn new(plan: &Plan) -> Self {
        let gauge = || Gauge {
            expected: AtomicU64::new(u64::MAX),
            received: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
            logged_in: AtomicU64::new(0),
        };
        Self {
            start_ns: AtomicU64::new(0),
            end_ns: AtomicU64::new(plan.wish().warmup_ns.saturating_add(plan.wish().duration_ns)),
            abort: AtomicBool::new(false),
            gauges: std::iter::repeat_with(gauge).take(plan.lanes()).collect(),
        }
    }

    pub fn received(&self) -> u64 {
        self.gauges.iter().map(|g| g.received.load(Ordering::Relaxed)).sum()
    }

    pub fn logged_in(&self) -> u64 {
        self.gauges.iter().map(|g| g.logged_in.load(Ordering::Relaxed)).sum()
    }

    /// Everybody has sent the last message, and all answers and deliveries have come.
    fn is_complete(&self) -> bool {
        let (mut expected, mut received) = (0u64, 0u64);
        for gauge in &self.gauges {
            let own = gauge.expected.load(Ordering::Acquire);
            if own == u64::MAX || gauge.unanswered.load(Ordering::Relaxed) > 0 {
                return false;
            }
            expected += own;
            received += gauge.received.load(Ordering::Relaxed);
        }
        expected == received
    }
}

/// From a worker to the reporter.
#[derive(Debug)]
pub enum Report {
    LoggedIn(Box<Interval>),
    Interval(Box<Interval>),
    Done(Box<Outcome>),
    Failed(String),
}

/// What a worker needs from outside.
#[derive(Debug)]
pub struct Setup {
    pub lane: u16,
    pub plan: Arc<Plan>,
    pub names: Names,
    pub pacing: Pacing,
    pub shared: Arc<Shared>,
    pub reports: Sender<(u16, Report)>,
    /// Emptied intervals to use again.
    pub spare: Receiver<Box<Interval>>,
}

/// A receiver in a room, at the end.
#[derive(Clone, Copy, Debug)]
pub struct Seat {
    pub room: u32,
    pub connection: u32,
    pub closed: bool,
}

/// Everything a worker knows when it is done.
#[derive(Debug)]
pub struct Outcome {
    pub lane: u16,
    /// By membership of this thread.
    pub seats: Vec<Seat>,
    pub checker: Checker,
    /// Messages this thread sent, by room.
    pub sent: HashMap<u32, u32>,
    /// Of those, the ones that nobody promised: (room, sequence).
    pub excused: HashSet<(u32, u32)>,
    /// Requests without an answer on connections that were open at the end.
    pub unanswered: u64,
    pub closed: BTreeMap<String, u64>,
    pub incidents: Incidents,
    /// Messages that could not be handed over: no connection left, or no memory for them.
    pub unsent: u64,
    /// CPU time of this thread within the measured window, spinning not counted.
    pub busy_ns: u64,
}

pub struct Worker<I: Io<Socket = OwnedFd>> {
    setup: Setup,
    io: I,
    frames: FrameStore,
    links: Vec<Link>,
    ledger: Ledger,
    dialect: Dialect,
    /// Bytes being put together.
    scratch: Vec<u8>,
    senders: Senders,
    /// Links whose send or receive found the ring full, or whose receive has to be armed again.
    again: Vec<usize>,
    seats: Vec<Seat>,
    logged_in: u64,
    expected: u64,
    unsent: u64,
    spun_ns: u64,
}

impl<I: Io<Socket = OwnedFd>> std::fmt::Debug for Worker<I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("lane", &self.setup.lane).field("links", &self.links.len()).finish_non_exhaustive()
    }
}

impl<I: Io<Socket = OwnedFd>> Worker<I> {
    pub fn new(setup: Setup, io: I) -> Self {
        let plan = &setup.plan;
        let (mut links, mut seats) = (Vec::new(), Vec::new());
        let (mut places, mut receivers): (HashMap<u32, usize>, Vec<u32>) = Default::default();
        for connection in plan.connections_of(setup.lane) {
            let mut page = Page::new(connection);
            for room in plan.rooms_read_by(connection) {
                let local_room = *places.entry(room).or_insert(receivers.len());
                if local_room == receivers.len() {
                    receivers.push(0);
                }
                receivers[local_room] += 1;
                page.memberships.push(Membership { room, index: seats.len(), local_room });
                seats.push(Seat { room, connection, closed: false });
            }
            let slot = u32::try_from(links.len()).expect("connections are numbered by u32");
            links.push(Link::new(connection, Key { slot, generation: 0 }, page));
        }
        let (target, bodies) = (plan.wish().target, Bodies::new(setup.names.run(), plan.wish().sizes.clone()));
        Self {
            ledger: Ledger::new(target.abilities(), plan.lanes(), receivers),
            dialect: Dialect::new(target, setup.names.clone(), bodies),
            scratch: Vec::new(),
            senders: Senders::new(plan, setup.lane),
            frames: FrameStore::new(FRAMES_MAX, GATHERS_MAX),
            again: Vec::new(),
            logged_in: 0,
            expected: 0,
            unsent: 0,
            spun_ns: 0,
            links,
            seats,
            io,
            setup,
        }
    }

    /// The whole life of the thread; every report but the last goes out on the way.
    pub fn run(mut self) -> Report {
        match self.phases() {
            Ok(busy_ns) => Report::Done(Box::new(self.outcome(busy_ns))),
            Err(text) => Report::Failed(text),
        }
    }

    fn phases(&mut self) -> Result<u64, String> {
        self.log_in()?;
        let login = std::mem::take(&mut self.ledger.interval);
        self.report(Report::LoggedIn(login));
        while self.setup.shared.start_ns.load(Ordering::Acquire) == 0 {
            self.serve(Wait::Until(monotonic_ns() + MS))?;
            self.check_abort()?;
        }
        let busy_ns = self.load()?;
        self.grace()?;
        Ok(busy_ns)
    }

    fn check_abort(&self) -> Result<(), String> {
        if self.setup.shared.abort.load(Ordering::Relaxed) { Err("stopped".into()) } else { Ok(()) }
    }

    fn report(&self, report: Report) {
        // Without a reporter there is nobody left to tell.
        let _ = self.setup.reports.send((self.setup.lane, report));
    }

    fn log_in(&mut self) -> Result<(), String> {
        let all = self.links.len();
        let (mut opened, mut last, mut last_ns) = (0, 0, monotonic_ns());
        while self.logged_in < as_u64(all) {
            let room = LOGINS_MAX.saturating_sub(opened - usize::try_from(self.logged_in).expect("at most all"));
            let batch = room.min(CONNECTS_PER_TURN).min(all - opened);
            for index in opened..opened + batch {
                self.open(index)?;
            }
            opened += batch;
            let wait = if batch > 0 { Wait::No } else { Wait::Until(monotonic_ns() + WAIT_MAX_NS) };
            self.serve(wait)?;
            self.check_abort()?;
            if let Some(link) = self.links.iter().find(|link| link.closed.is_some()) {
                return Err(format!("login of user {} failed: {}", link.connection, link.closed.as_deref().unwrap_or_default()));
            }
            let now = monotonic_ns();
            if self.logged_in > last || batch > 0 {
                (last, last_ns) = (self.logged_in, now);
            } else if now > last_ns + LOGIN_STALL_NS {
                return Err(format!("{} of {all} logins answered, then none for {} s", self.logged_in, LOGIN_STALL_NS / SECOND));
            }
        }
        Ok(())
    }

    fn open(&mut self, index: usize) -> Result<(), String> {
        let (address, names) = (self.setup.plan.wish().address, &self.setup.names);
        let link = &mut self.links[index];
        let named = link.page.memberships.iter().filter(|m| !names.is_inbox(m.room));
        let rooms: Vec<Wanted<'_>> = named.map(|m| Wanted { room: m.room, since: None }).collect();
        let inbox = rooms.len() < link.page.memberships.len();
        self.scratch.clear();
        link.page.login_left = self.dialect.login(&Login { connection: link.connection, rooms: &rooms, inbox }, &mut self.scratch);
        link.started_ns = monotonic_ns();
        let socket = connect::open(address, link.connection, &self.scratch);
        link.socket = Some(socket.map_err(|e| format!("connection {} to {address}: {e}", link.connection))?);
        self.arm(index);
        Ok(())
    }

    fn arm(&mut self, index: usize) {
        let link = &mut self.links[index];
        let Some(socket) = link.socket.as_ref().filter(|_| link.closed.is_none() && !link.receiving) else { return };
        match self.io.receive_multishot(link.key, socket) {
            Ok(()) => link.receiving = true,
            Err(_) => self.again.push(index),
        }
    }

    /// One system call, and everything that has come with it; how many completions that were.
    fn serve(&mut self, wait: Wait) -> Result<usize, String> {
        for index in std::mem::take(&mut self.again) {
            self.arm(index);
            self.flush(index);
        }
        self.io.enter(wait).map_err(|errno| format!("io_uring: {}", std::io::Error::from_raw_os_error(errno.0)))?;
        let now_ns = monotonic_ns();
        let mut count = 0;
        while let Some(completion) = self.io.reap() {
            count += 1;
            match completion {
                Completion::Received { key, result, more } => self.on_received(key, (result, more), now_ns),
                Completion::Sent { key, loan, result } => {
                    let index = at(key);
                    let full = self.links[index].on_sent(&mut self.io, &mut self.frames, (loan, result));
                    self.links[index].release(&mut self.frames);
                    if full {
                        self.again.push(index);
                    }
                }
                Completion::Accepted { .. } | Completion::Doorbell => {}
            }
        }
        let gauge = &self.setup.shared.gauges[usize::from(self.setup.lane)];
        gauge.received.store(self.ledger.received, Ordering::Relaxed);
        gauge.unanswered.store(self.ledger.unanswered, Ordering::Relaxed);
        gauge.logged_in.store(self.logged_in, Ordering::Relaxed);
        Ok(count)
    }

    fn on_received(&mut self, key: Key, received: (Result<Option<crate::ring::Buffer>, Errno>, bool), now_ns: u64) {
        let (result, more) = received;
        let index = at(key);
        let link = &mut self.links[index];
        link.receiving = more;
        match result {
            Ok(Some(buffer)) => {
                let waiting_for_login = link.page.login_left > 0;
                let Link { page, tail, .. } = link;
                let ledger = &mut self.ledger;
                let cut = self.dialect.decode(tail, self.io.bytes(&buffer), &mut |event| ledger.on_event(page, event, now_ns));
                self.io.recycle(buffer);
                if let Err(broken) = cut {
                    link.close(broken.0);
                }
                if waiting_for_login && link.page.login_left == 0 {
                    self.logged_in += 1;
                    self.ledger.interval.histograms.connect.saturating_record(now_ns - link.started_ns);
                }
            }
            Ok(None) => link.close("closed by the server".into()),
            Err(Errno(libc::ENOBUFS | libc::ECANCELED | libc::EINTR)) => {}
            Err(errno) => link.close(format!("receive failed: {}", std::io::Error::from_raw_os_error(errno.0))),
        }
        let link = &mut self.links[index];
        if std::mem::take(&mut link.page.pong_due) {
            self.scratch.clear();
            self.dialect.keep_alive(&mut self.scratch);
            if link.push(&mut self.frames, &self.scratch).is_ok() {
                self.flush(index);
            }
        }
        if !more {
            self.arm(index);
            self.links[index].release(&mut self.frames);
        }
    }

    fn flush(&mut self, index: usize) {
        if self.links[index].flush(&mut self.io, &mut self.frames) {
            self.again.push(index);
        }
    }

    /// Warm-up and window. The answer is the CPU time of the window, spinning not counted.
    fn load(&mut self) -> Result<u64, String> {
        let shared = Arc::clone(&self.setup.shared);
        let wish = self.setup.plan.wish().clone();
        self.ledger.start_ns = shared.start_ns.load(Ordering::Acquire);
        self.ledger.window_start_ns = wish.warmup_ns;
        let rate = self.senders.rate(&self.setup.plan);
        let lane_seed = wish.seed.wrapping_add(u64::from(self.setup.lane).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut schedule = (wish.mode != Mode::Idle && rate > 0.0).then(|| Schedule::new(wish.arrivals, rate, lane_seed));
        let first = if wish.warmup_ns == 0 { Phase::Measured } else { Phase::Warmup };
        self.ledger.interval.restart(first, 0);
        let (mut cpu_ns, mut last_idle_ns) = (thread_cpu_ns(), None);
        loop {
            let end_ns = shared.end_ns.load(Ordering::Relaxed);
            let now = self.since_start();
            if let Some(began) = last_idle_ns.take() {
                self.spun_ns += now.saturating_sub(began);
            }
            let due = schedule.as_ref().map_or(u64::MAX, Schedule::due_ns);
            // What was due in the window is sent, however late: until then the window is not over. Its beginning, though, comes before its messages.
            let now = if due < end_ns { now.min(end_ns - 1) } else { now };
            let second = self.ledger.interval.start_ns;
            if self.turn_interval(now, end_ns) {
                (cpu_ns, self.spun_ns) = (thread_cpu_ns(), 0);
            }
            if second != self.ledger.interval.start_ns && !self.links.iter().any(Link::usable) {
                // Nobody is left to send or to read: the rest of the run would show nothing.
                shared.end_ns.fetch_min(now, Ordering::Relaxed);
            }
            if now >= end_ns {
                return Ok((thread_cpu_ns() - cpu_ns).saturating_sub(self.spun_ns));
            }
            let issued = schedule.as_mut().map_or(0, |s| self.issue_due(s, now));
            let due = schedule.as_ref().map_or(u64::MAX, Schedule::due_ns);
            let wait = self.wait_for(due.min(end_ns), now);
            let idle = wait == Wait::No && issued == 0;
            let count = self.serve(wait)?;
            last_idle_ns = (idle && count == 0).then_some(now);
            self.check_abort()?;
        }
    }

    fn since_start(&self) -> u64 {
        monotonic_ns().saturating_sub(self.ledger.start_ns)
    }

    fn wait_for(&self, next: u64, now: u64) -> Wait {
        let left = next.saturating_sub(now).min(WAIT_MAX_NS);
        let early = match self.setup.pacing {
            Pacing::Spin => SPIN_NS,
            Pacing::Sleep => 0,
        };
        if left <= early || !self.again.is_empty() {
            return Wait::No;
        }
        Wait::Until(self.ledger.start_ns + now + left - early)
    }

    /// Hands over what is due by `until`, up to a turn's bound; how many.
    fn issue_due(&mut self, schedule: &mut Schedule, until: u64) -> usize {
        let mut issued = 0;
        while schedule.due_ns() <= until && issued < SENDS_PER_TURN {
            let intended_ns = schedule.due_ns();
            schedule.advance();
            self.issue(schedule, intended_ns);
            issued += 1;
        }
        issued
    }

    fn issue(&mut self, schedule: &mut Schedule, intended_ns: u64) {
        // A warm-up message that is late does not count into the window.
        let counted = self.ledger.is_measured(intended_ns);
        self.ledger.interval.counts.offered += u64::from(counted);
        let links = &self.links;
        let Some(turn) = self.senders.next(schedule.random(), |link| links[link].usable()) else {
            self.unsent += 1;
            return;
        };
        let link = &mut self.links[turn.link];
        let handed_ns = monotonic_ns();
        let request = Request { room: turn.room, sequence: turn.sequence, intended_ns, handed_ns, alone: false, answered: false };
        let id = self.ledger.enter(&mut link.page, request);
        let stamp = Stamp {
            room: turn.room,
            lane: self.setup.lane,
            sender: link.connection,
            sequence: turn.sequence,
            previous: turn.previous,
            intended_ns,
        };
        self.scratch.clear();
        self.dialect.publish(id, &stamp, &mut self.scratch);
        if link.push(&mut self.frames, &self.scratch).is_err() {
            self.ledger.withdraw(&mut link.page, id, (turn.room, turn.sequence));
            self.unsent += 1;
            return;
        }
        self.flush(turn.link);
        self.expected += u64::from(self.setup.plan.receivers_per_room());
        if counted {
            let interval = &mut self.ledger.interval;
            interval.counts.sent += 1;
            let late_ns = handed_ns.saturating_sub(self.ledger.start_ns + intended_ns);
            interval.histograms.lateness.saturating_record(late_ns);
        }
    }

    /// Reports the interval when its second or its phase is over; true when the window has just begun.
    fn turn_interval(&mut self, now: u64, end_ns: u64) -> bool {
        let window_start_ns = self.ledger.window_start_ns;
        let interval = &self.ledger.interval;
        let phase_end = if interval.phase == Phase::Warmup { window_start_ns } else { end_ns };
        if now < (interval.start_ns + SECOND).min(phase_end) && now < end_ns {
            return false;
        }
        let warm = interval.phase == Phase::Warmup;
        let phase = match () {
            () if now >= end_ns => Phase::Grace,
            () if warm && now < window_start_ns => Phase::Warmup,
            () => Phase::Measured,
        };
        let start_ns = if phase == Phase::Measured { whole_seconds(window_start_ns, now) } else { now };
        self.hand_over_interval(phase, start_ns);
        warm && phase == Phase::Measured
    }

    fn hand_over_interval(&mut self, next: Phase, start_ns: u64) {
        let mut fresh = self.setup.spare.try_recv().unwrap_or_default();
        fresh.restart(next, start_ns);
        let mut done = std::mem::replace(&mut self.ledger.interval, fresh);
        done.end_ns = start_ns;
        self.report(Report::Interval(done));
    }

    fn grace(&mut self) -> Result<(), String> {
        let shared = Arc::clone(&self.setup.shared);
        let deadline = monotonic_ns() + self.setup.plan.wish().grace_ns;
        shared.gauges[usize::from(self.setup.lane)].expected.store(self.expected, Ordering::Release);
        while monotonic_ns() < deadline && !shared.is_complete() && !shared.abort.load(Ordering::Relaxed) {
            self.serve(Wait::Until(monotonic_ns() + MS))?;
        }
        let now = self.since_start();
        self.hand_over_interval(Phase::Grace, now);
        Ok(())
    }

    fn outcome(mut self, busy_ns: u64) -> Outcome {
        let mut closed: BTreeMap<String, u64> = BTreeMap::new();
        let mut excused = std::mem::take(&mut self.ledger.excused);
        let mut unanswered = 0;
        for link in &self.links {
            if let Some(reason) = &link.closed {
                *closed.entry(reason.clone()).or_default() += 1;
                excused.extend(link.page.unanswered().map(|r| (r.room, r.sequence)));
                link.page.memberships.iter().for_each(|m| self.seats[m.index].closed = true);
            } else {
                unanswered += as_u64(link.page.unanswered().count());
            }
        }
        Outcome {
            lane: self.setup.lane,
            seats: self.seats,
            checker: self.ledger.checker,
            sent: self.senders.sent(),
            excused,
            unanswered,
            closed,
            incidents: self.ledger.incidents,
            unsent: self.unsent,
            busy_ns,
        }
    }
}

/// The last whole second after `from` that is not after `now`.
fn whole_seconds(from: u64, now: u64) -> u64 {
    from + now.saturating_sub(from) / SECOND * SECOND
}

fn at(key: Key) -> usize {
    usize::try_from(key.slot).expect("a u32 fits a usize here")
}
