//! Connections that make trouble: they come and go, read slowly or not at all, or ask for the past.
//!
//! Nothing here waits: a connection that comes back is made by the [`crate::load::connect::Connector`]'s thread. Owns who is away and until when. A connection that goes ends its socket
//! abruptly, as a phone does; it comes back from the last position it had, and what the server then says is held against it.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;

use crate::limits::RECEIVE_BUFFER_BYTES;
use crate::load::link::Link;
use crate::load::page::HISTORY_ID_FIRST;
use crate::load::plan::{Arrivals, Plan, Role, as_f64, as_u64};
use crate::load::schedule::{Random, Schedule, Stretch};
use crate::ring::{Io, Wait};
use crate::sys::clock::monotonic_ns;

use super::{MS, SECOND, Worker, login};

/// Before a connection that failed is tried again.
const RETRY_NS: u64 = SECOND;
/// How soon made connections are looked for, and free ones.
const LOOK_NS: u64 = MS;
/// Connections looked at for one that is free to ask for the past.
const READERS_LOOKED_AT: usize = 64;

/// Whether connections still go away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    Allowed,
    Over,
}

#[derive(Debug)]
pub(super) struct Troubles {
    churners: Vec<usize>,
    next_churner: usize,
    churn: Option<Schedule>,
    /// Since the start of the run, rising.
    storms: VecDeque<u64>,
    away_ns: u64,
    /// Who comes back when, in the order in which they went.
    returning: VecDeque<(u64, usize)>,
    /// Asked of the connector and not yet made.
    connecting: usize,
    /// When made ones are looked for.
    look_ns: u64,
    readers: VecDeque<(u64, usize)>,
    read_every_ns: u64,
    paused: Vec<usize>,
    history: Option<Schedule>,
    /// Not before this are connections looked at again, where none was free.
    history_look_ns: u64,
    history_limit: u32,
    history_asked: u64,
    steady: Vec<usize>,
    random: Random,
    pub(super) failures: BTreeMap<String, u64>,
    pub(super) reconnects: u64,
}

impl Troubles {
    pub(super) fn new(plan: &Plan, links: &[Link], seed: u64) -> Self {
        let troubles = &plan.wish().troubles;
        let with =
            |role: Role| -> Vec<usize> { links.iter().enumerate().filter(|(_, link)| link.page.role == role).map(|(at, _)| at).collect() };
        let (churners, steady) = (with(Role::Churner), with(Role::Steady));
        let warm_up = Stretch { length_ns: plan.wish().warmup_ns, from: 0.0, to: 0.0 };
        let course = |rate| [warm_up, Stretch { length_ns: plan.duration_ns(), from: rate, to: rate }];
        let schedule = |rate: f64, part: usize, of: u32, salt| {
            let share = as_f64(as_u64(part)) / f64::from(of.max(1));
            (rate * share > 0.0).then(|| Schedule::new(Arrivals::Poisson, &course(rate), share, seed ^ salt))
        };
        let slow_bytes_per_s = u64::from(troubles.slow_bytes_per_s.max(1));
        let storms = troubles.storms_ns.iter().map(|storm| plan.wish().warmup_ns + storm).collect();
        Self {
            churn: schedule(troubles.churn_per_s, churners.len(), troubles.churners, 2),
            storms: if churners.is_empty() { VecDeque::new() } else { storms },
            history: schedule(troubles.history_per_s, steady.len(), plan.steady(), 3),
            history_look_ns: 0,
            history_limit: troubles.history_limit,
            away_ns: troubles.away_ns,
            read_every_ns: as_u64(RECEIVE_BUFFER_BYTES) * SECOND / slow_bytes_per_s,
            paused: [with(Role::Slow), with(Role::Stopped)].concat(),
            churners,
            steady,
            random: Random::new(seed ^ 4),
            next_churner: 0,
            returning: VecDeque::new(),
            connecting: 0,
            look_ns: 0,
            readers: VecDeque::new(),
            history_asked: 0,
            failures: BTreeMap::new(),
            reconnects: 0,
        }
    }

    /// When something is to be done next.
    pub(super) fn due_ns(&self) -> u64 {
        let due = |schedule: &Option<Schedule>| schedule.as_ref().map_or(u64::MAX, Schedule::due_ns);
        let first = |queue: &VecDeque<(u64, usize)>| queue.front().map_or(u64::MAX, |(due, _)| *due);
        let storm = self.storms.front().copied().unwrap_or(u64::MAX);
        let made = if self.connecting > 0 { self.look_ns } else { u64::MAX };
        let history = due(&self.history).max(self.history_look_ns);
        [due(&self.churn), history, first(&self.returning), first(&self.readers), storm, made].into_iter().min().unwrap_or(u64::MAX)
    }

    /// A connection's socket has been closed, by whomever.
    pub(super) fn on_gone(&mut self, index: usize, link: &mut Link, now: u64) {
        if link.page.role != Role::Churner || !(link.leaving || link.page.login_left > 0) {
            return;
        }
        // A login that was turned away is tried again; an end behind the login stands.
        let wait = match link.closed.take() {
            Some(reason) => {
                *self.failures.entry(reason).or_default() += 1;
                RETRY_NS
            }
            None => self.away_ns,
        };
        link.leaving = false;
        self.come_back(now + wait, index);
    }

    fn come_back(&mut self, due: u64, index: usize) {
        let place = self.returning.partition_point(|(other, _)| *other <= due);
        self.returning.insert(place, (due, index));
    }
}

impl<I: Io<Socket = OwnedFd>> Worker<I> {
    /// Does what is due.
    pub(super) fn trouble(&mut self, now: u64, leaving: Leaving) {
        if self.troubles.due_ns() > now {
            return;
        }
        if leaving == Leaving::Allowed {
            self.leave_due(now);
            self.ask_for_history(now);
        }
        self.read_slowly(now);
        self.come_back_due(now);
        self.take_made();
        self.troubles.look_ns = now + LOOK_NS;
    }

    fn leave_due(&mut self, now: u64) {
        let troubles = &mut self.troubles;
        let mut count = 0;
        while let Some(churn) = troubles.churn.as_mut().filter(|churn| churn.due_ns() <= now) {
            churn.advance();
            count += 1;
        }
        if troubles.storms.front().is_some_and(|storm| *storm <= now) {
            troubles.storms.pop_front();
            count = troubles.churners.len();
        }
        for _ in 0..count.min(troubles.churners.len()) {
            let index = self.troubles.churners[self.troubles.next_churner];
            self.troubles.next_churner = (self.troubles.next_churner + 1) % self.troubles.churners.len();
            if self.links[index].is_in() {
                self.links[index].leave(&mut self.io);
                self.release(index);
            }
        }
    }

    fn come_back_due(&mut self, now: u64) {
        while let Some((_, index)) = self.troubles.returning.front().copied().filter(|(due, _)| *due <= now) {
            let link = &self.links[index];
            let wanted = self.setup.connector.as_ref().is_some_and(|connector| connector.want(index, link.connection));
            if !wanted {
                return;
            }
            self.troubles.returning.pop_front();
            self.troubles.connecting += 1;
        }
    }

    fn take_made(&mut self) {
        while let Some(made) = self.setup.connector.as_ref().and_then(crate::load::connect::Connector::made) {
            self.troubles.connecting -= 1;
            let now_ns = monotonic_ns();
            let socket = match made.result {
                Ok(socket) => socket,
                Err(kind) => {
                    *self.troubles.failures.entry(kind.to_owned()).or_default() += 1;
                    let now = self.since_start();
                    self.troubles.come_back(now + RETRY_NS, made.link);
                    continue;
                }
            };
            let link = &mut self.links[made.link];
            link.reopen(socket);
            link.page.back_ns = now_ns;
            link.started_ns = now_ns - made.took_ns;
            self.scratch.clear();
            login::greet(&self.dialect, link, &mut self.scratch);
            link.push(&self.scratch).expect("a link without bytes takes a login");
            self.flush(made.link);
            self.arm(made.link);
        }
    }

    /// From the window's first moment on slow and stopped readers are what they are called.
    pub(super) fn pause_readers(&mut self) -> Result<(), String> {
        let now = self.since_start();
        for (number, index) in std::mem::take(&mut self.troubles.paused).into_iter().enumerate() {
            let link = &mut self.links[index];
            link.paused = true;
            if link.receiving {
                while self.io.cancel_receive(link.key).is_err() {
                    self.io.enter(Wait::No).map_err(|errno| format!("io_uring: {}", std::io::Error::from_raw_os_error(errno.0)))?;
                }
            }
            if link.page.role == Role::Slow {
                // Spread over the first step, not all at once.
                let offset = self.troubles.read_every_ns.min(SECOND) / 64 * (as_u64(number) % 64);
                self.troubles.readers.push_back((now + self.troubles.read_every_ns + offset, index));
            }
        }
        self.troubles.readers.make_contiguous().sort_unstable();
        Ok(())
    }

    fn read_slowly(&mut self, now: u64) {
        while let Some((due, index)) = self.troubles.readers.front().copied().filter(|(due, _)| *due <= now) {
            self.troubles.readers.pop_front();
            let link = &mut self.links[index];
            if link.closed.is_some() {
                continue;
            }
            if let Some(socket) = link.socket.as_ref().filter(|_| !link.receiving) {
                link.receiving = self.io.receive_once(link.key, socket).is_ok();
            }
            // The same step for all of them, so the list stays in order; never two at once after a pause of our own.
            self.troubles.readers.push_back(((due + self.troubles.read_every_ns).max(now), index));
        }
    }

    /// Each connection has one request under way at most; what finds none free stays due, and its time runs.
    pub(super) fn ask_for_history(&mut self, now: u64) {
        while let Some(due_ns) = self.troubles.history.as_ref().map(Schedule::due_ns).filter(|due| *due <= now) {
            let Some((index, room)) = self.free_reader() else {
                self.troubles.history_look_ns = now + LOOK_NS;
                return;
            };
            self.troubles.history.as_mut().expect("it is what was due").advance();
            self.scratch.clear();
            self.dialect.history(HISTORY_ID_FIRST + self.troubles.history_asked, room, self.troubles.history_limit, &mut self.scratch);
            self.troubles.history_asked += 1;
            let link = &mut self.links[index];
            if link.push(&self.scratch).is_ok() {
                link.page.history_due_ns = Some(self.ledger.start_ns + due_ns);
                self.flush(index);
            } else {
                self.unsent += 1;
            }
        }
    }

    /// A steady connection in a room, drawn at random, that waits for no history; the next ones where that one does.
    fn free_reader(&mut self) -> Option<(usize, u32)> {
        let troubles = &mut self.troubles;
        let count = troubles.steady.len();
        let first = troubles.random.below(u32::try_from(count).expect("connections are numbered by u32"));
        let first = usize::try_from(first).expect("a u32 fits a usize here");
        (0..count.min(READERS_LOOKED_AT)).find_map(|step| {
            let index = troubles.steady[(first + step) % count];
            let link = &self.links[index];
            let room = link.page.memberships.iter().find(|m| !m.inbox).map(|m| m.room)?;
            (link.is_in() && link.page.history_due_ns.is_none()).then_some((index, room))
        })
    }

    /// The window is over: what was due in it and found no connection is not asked any more, and is counted.
    pub(super) fn end_history(&mut self, end_ns: u64) {
        self.ask_for_history(end_ns - 1);
        while let Some(history) = self.troubles.history.as_mut().filter(|history| history.due_ns() < end_ns) {
            history.advance();
            self.unsent += 1;
        }
    }
}
