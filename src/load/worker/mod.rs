//! A generator thread: its connections on one ring, from login to the last delivery.
//!
//! One loop: messages that are due are handed to their connections, one enter hands all of it to the kernel and waits, everything that has
//! come is taken with one time stamp. The schedule rules: a late message is sent late, never dropped, and its latency counts from when it
//! was due. Waiting ends a little early and the rest is spun, since a sleep overshoots by tens of microseconds.
//!
//! Talks to the rest by [`Shared`] (atomics) and the report channel only; never prints, never decides what a figure means. Here stand the loop and its
//! parts' order; logging in is in `login`, sending in `traffic`, connections that come, go or don't read in `troubles`.

mod login;
mod shared;
mod traffic;
mod troubles;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hashbrown::HashMap;

use crate::ids::Key;
use crate::memory::frames::FrameStore;
use crate::ring::{Completion, Errno, Io, Wait};
use crate::sys::clock::{monotonic_ns, thread_cpu_ns};

use super::body::Bodies;
use super::dialect::Dialect;
use super::ledger::{Ledger, Opening};
use super::link::Link;
use super::page::{Membership, Page};
use super::plan::{Plan, Role, as_u64};
use super::record::{Name, Phase};
use super::schedule::Schedule;
use super::senders::Senders;

pub use shared::{Gauge, Outcome, Pacing, Report, Seat, Setup, Shared, Spent};

use troubles::Troubles;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
/// Sleep ends this long before a message is due.
const SPIN_NS: u64 = 60_000;
/// No wait is longer: stop flags and the end are looked at this often.
const WAIT_MAX_NS: u64 = 10 * MS;
/// Receives read between two looks at the schedule.
const READS_PER_LOOK: usize = 8;
/// Sends in flight in one thread.
const FRAMES_MAX: u32 = 4_096;

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
    schedule: Option<Schedule>,
    /// Messages under way at once, where no schedule says when.
    closed_window: u64,
    random: super::schedule::Random,
    troubles: Troubles,
    /// Links whose send or receive found the ring full, or whose receive has to be armed again.
    again: Vec<usize>,
    seats: Vec<Seat>,
    logged_in: u64,
    owed: u64,
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
        let plan = Arc::clone(&setup.plan);
        let wish = plan.wish();
        let (links, seats, opening) = crowd(&plan, setup.lane);
        let bodies = Bodies::new(setup.names.run(), wish.sizes.clone());
        let senders = Senders::new(&plan, setup.lane);
        let seed = wish.seed.wrapping_add(u64::from(setup.lane).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let sends = !wish.idle && senders.share() > 0.0;
        let schedule = (sends && wish.closed.is_none()).then(|| Schedule::new(wish.arrivals, &plan.course(), senders.share(), seed));
        Self {
            troubles: Troubles::new(&plan, &links, seed),
            ledger: Ledger::new(opening),
            dialect: Dialect::new(wish.target, setup.names.clone(), bodies),
            scratch: Vec::new(),
            closed_window: wish.closed.filter(|_| sends).map_or(0, |window| traffic::part(window, senders.share())),
            random: super::schedule::Random::new(seed ^ 1),
            senders,
            schedule,
            frames: FrameStore::new(FRAMES_MAX, FRAMES_MAX),
            again: Vec::new(),
            logged_in: 0,
            owed: 0,
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
            Ok(spent) => Report::Done(Box::new(self.outcome(spent))),
            Err(text) => Report::Failed(text),
        }
    }

    fn phases(&mut self) -> Result<Spent, String> {
        self.log_in()?;
        let login = std::mem::take(&mut self.ledger.interval);
        self.report(Report::LoggedIn(login));
        while self.setup.shared.start_ns.load(Ordering::Acquire) == 0 {
            self.serve(Wait::Until(monotonic_ns() + MS))?;
            self.check_abort()?;
        }
        let spent = self.load()?;
        self.grace()?;
        Ok(spent)
    }

    fn check_abort(&self) -> Result<(), String> {
        if self.setup.shared.abort.load(Ordering::Relaxed) { Err("stopped".into()) } else { Ok(()) }
    }

    fn report(&self, report: Report) {
        // Without a reporter there is nobody left to tell.
        let _ = self.setup.reports.send((self.setup.lane, report));
    }

    fn arm(&mut self, index: usize) {
        let link = &mut self.links[index];
        let ready = link.closed.is_none() && !link.receiving && !link.paused && !link.leaving;
        let Some(socket) = link.socket.as_ref().filter(|_| ready) else { return };
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
                    if self.links[index].on_sent(&mut self.io, &mut self.frames, (loan, result)) {
                        self.again.push(index);
                    }
                    self.release(index);
                }
                Completion::Accepted { .. } | Completion::Doorbell => {}
            }
            if count % READS_PER_LOOK == 0 {
                // What came in the meantime is in no completion before the next enter, so the time stamp stays true.
                self.issue_between();
            }
        }
        self.show();
        Ok(count)
    }

    fn show(&self) {
        let gauge = &self.setup.shared.gauges[usize::from(self.setup.lane)];
        gauge.received.store(self.ledger.received, Ordering::Relaxed);
        gauge.unanswered.store(self.ledger.unanswered, Ordering::Relaxed);
        gauge.logged_in.store(self.logged_in, Ordering::Relaxed);
        gauge.owed.store(self.owed, Ordering::Relaxed);
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
                    self.on_logged_in(index, now_ns);
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
            if link.push(&self.scratch).is_ok() {
                self.flush(index);
            }
        }
        if !more {
            self.arm(index);
            self.release(index);
        }
    }

    fn on_logged_in(&mut self, index: usize, now_ns: u64) {
        let link = &self.links[index];
        let came_back = link.page.back_ns > 0;
        let name = if came_back { Name::Reconnect } else { Name::Connect };
        self.ledger.interval.histograms.record(name, now_ns.saturating_sub(link.started_ns));
        self.logged_in += u64::from(!came_back);
        self.troubles.reconnects += u64::from(came_back);
    }

    fn flush(&mut self, index: usize) {
        if self.links[index].flush(&mut self.io, &mut self.frames) {
            self.again.push(index);
        }
    }

    fn release(&mut self, index: usize) {
        let link = &mut self.links[index];
        if link.release(&mut self.frames) {
            let now = monotonic_ns().saturating_sub(self.ledger.start_ns);
            self.troubles.on_gone(index, link, now);
        }
    }

    /// Warm-up and window.
    fn load(&mut self) -> Result<Spent, String> {
        let shared = Arc::clone(&self.setup.shared);
        let plan = Arc::clone(&self.setup.plan);
        self.ledger.start_ns = shared.start_ns.load(Ordering::Acquire);
        self.ledger.window_start_ns = plan.wish().warmup_ns;
        let first = if plan.wish().warmup_ns == 0 { Phase::Measured } else { Phase::Warmup };
        self.ledger.interval.restart(first, 0);
        if first == Phase::Measured {
            self.pause_readers()?;
        }
        let (mut cpu_ns, mut began_ns, mut last_idle_ns) = (thread_cpu_ns(), 0, None);
        loop {
            let end_ns = shared.end_ns.load(Ordering::Relaxed);
            let now = self.since_start();
            if let Some(began) = last_idle_ns.take() {
                self.spun_ns += now.saturating_sub(began);
            }
            // What was due in the window is sent, however late: until then the window is not over. Its beginning, though, comes before its messages.
            let now = if self.due_ns() < end_ns { now.min(end_ns - 1) } else { now };
            let second = self.ledger.interval.start_ns;
            if self.turn_interval(now, end_ns) {
                self.pause_readers()?;
                (cpu_ns, self.spun_ns, began_ns) = (thread_cpu_ns(), 0, now);
            }
            if second != self.ledger.interval.start_ns && !self.is_anybody_left() {
                // Nobody is left to send or to read: the rest of the run would show nothing.
                shared.end_ns.fetch_min(now, Ordering::Relaxed);
            }
            if now >= end_ns {
                self.end_history(end_ns);
                let (busy_ns, window_ns) = ((thread_cpu_ns() - cpu_ns).saturating_sub(self.spun_ns), now.saturating_sub(began_ns));
                return Ok(Spent { busy_ns, spun_ns: self.spun_ns, window_ns });
            }
            let issued = self.issue_due(now) + self.issue_window(now);
            self.trouble(now, troubles::Leaving::Allowed);
            let wait = self.wait_for(self.due_ns().min(end_ns).min(self.troubles.due_ns()), now);
            let idle = wait == Wait::No && issued == 0;
            let count = self.serve(wait)?;
            last_idle_ns = (idle && count == 0).then_some(now);
            self.check_abort()?;
        }
    }

    fn is_anybody_left(&self) -> bool {
        self.links.iter().any(|link| link.usable() || link.leaving || link.page.role == Role::Churner)
    }

    fn since_start(&self) -> u64 {
        monotonic_ns().saturating_sub(self.ledger.start_ns)
    }

    fn due_ns(&self) -> u64 {
        self.schedule.as_ref().map_or(u64::MAX, Schedule::due_ns)
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
        // The same borders on every thread, however late one looks, so that their seconds can be put together.
        let start_ns = match phase {
            Phase::Warmup => whole_seconds(0, now),
            Phase::Measured => whole_seconds(window_start_ns, now),
            Phase::Grace => now,
        };
        self.hand_over_interval(phase, start_ns);
        warm && phase == Phase::Measured
    }

    fn hand_over_interval(&mut self, next: Phase, start_ns: u64) {
        let mut fresh = self.setup.spare.try_recv().unwrap_or_default();
        fresh.restart(next, start_ns);
        let mut done = std::mem::replace(&mut self.ledger.interval, fresh);
        done.end_ns = start_ns;
        done.open = as_u64(self.links.iter().filter(|link| link.is_in()).count());
        self.report(Report::Interval(done));
    }

    fn grace(&mut self) -> Result<(), String> {
        let shared = Arc::clone(&self.setup.shared);
        let deadline = monotonic_ns() + self.setup.plan.wish().grace_ns;
        shared.gauges[usize::from(self.setup.lane)].expected.store(self.owed, Ordering::Release);
        while monotonic_ns() < deadline && !shared.is_complete() && !shared.abort.load(Ordering::Relaxed) {
            self.trouble(self.since_start(), troubles::Leaving::Over);
            self.serve(Wait::Until(monotonic_ns() + MS))?;
        }
        let now = self.since_start();
        self.hand_over_interval(Phase::Grace, now);
        Ok(())
    }

    fn outcome(mut self, spent: Spent) -> Outcome {
        let mut outcome = Outcome {
            lane: self.setup.lane,
            spent,
            unwatched: self.ledger.unwatched(),
            unsent: self.unsent,
            sent: self.senders.sent(),
            excused: std::mem::take(&mut self.ledger.excused),
            connect_failures: std::mem::take(&mut self.troubles.failures),
            reconnects: self.troubles.reconnects,
            received: self.ledger.received,
            ..Outcome::default()
        };
        for link in &self.links {
            let owed = link.page.role.is_owed();
            if let Some(reason) = &link.closed {
                let closed = if owed { &mut outcome.closed } else { &mut outcome.closed_readers };
                *closed.entry(reason.clone()).or_default() += 1;
                outcome.excused.extend(link.page.unanswered().map(|r| (r.room, r.sequence)));
                link.page.memberships.iter().for_each(|m| self.seats[m.index].closed = true);
            } else {
                // A connection that was away at the end misses what came meanwhile.
                let away = link.socket.is_none() || link.leaving || link.page.login_left > 0;
                link.page.memberships.iter().for_each(|m| self.seats[m.index].closed |= away);
                outcome.unanswered += as_u64(link.page.unanswered().count());
            }
        }
        for seat in self.ledger.excused_seats {
            self.seats[seat].closed = true;
        }
        outcome.seats = self.seats;
        outcome.checker = self.ledger.checker;
        outcome.incidents = self.ledger.incidents;
        outcome
    }
}

/// The connections of a thread, their places in rooms, and what the books are opened with.
fn crowd(plan: &Plan, lane: u16) -> (Vec<Link>, Vec<Seat>, Opening) {
    let (mut links, mut seats) = (Vec::new(), Vec::new());
    let mut places: HashMap<u32, usize> = HashMap::new();
    let mut opening = Opening {
        target: plan.wish().target,
        lanes: plan.lanes(),
        receivers: Vec::new(),
        shared: Vec::new(),
        probed: Vec::new(),
        memberships: 0,
        sample_every: plan.wish().sample_every,
    };
    for connection in plan.connections_of(lane) {
        let mut page = Page::new(connection, plan.role(connection));
        for room in plan.rooms_read_by(connection) {
            let inbox = room >= plan.named_rooms();
            let local_room = *places.entry(room).or_insert(opening.receivers.len());
            if local_room == opening.receivers.len() {
                opening.receivers.push(0);
                let threads = usize::try_from(room).ok().and_then(|room| plan.threads_of_rooms().get(room)).copied().unwrap_or(1);
                opening.shared.push(threads > 1);
                opening.probed.push(!inbox && plan.is_probed(room));
            }
            opening.receivers[local_room] += u32::from(page.role == Role::Steady);
            let owed = if inbox { plan.owed(room) > 0 } else { page.role.is_owed() };
            page.memberships.push(Membership { room, index: seats.len(), local_room, owed, inbox });
            seats.push(Seat { room, connection, owed, closed: false });
        }
        let slot = u32::try_from(links.len()).expect("connections are numbered by u32");
        links.push(Link::new(Key { slot, generation: 0 }, page));
    }
    opening.memberships = seats.len();
    (links, seats, opening)
}

/// The last whole second after `from` that is not after `now`.
fn whole_seconds(from: u64, now: u64) -> u64 {
    from + now.saturating_sub(from) / SECOND * SECOND
}

fn at(key: Key) -> usize {
    usize::try_from(key.slot).expect("a u32 fits a usize here")
}
