//! What a worker shares with the others and with the reporter while it runs, and what it leaves at the end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender};
use hashbrown::{HashMap, HashSet};

use crate::load::check::Checker;
use crate::load::connect::Connector;
use crate::load::ledger::Incidents;
use crate::load::names::Names;
use crate::load::plan::Plan;
use crate::load::record::Interval;
use crate::load::verdict::Books;

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
    /// The same so far.
    pub owed: AtomicU64,
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
            owed: AtomicU64::new(0),
            received: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
            logged_in: AtomicU64::new(0),
        };
        Self {
            start_ns: AtomicU64::new(0),
            end_ns: AtomicU64::new(plan.wish().warmup_ns.saturating_add(plan.duration_ns())),
            abort: AtomicBool::new(false),
            gauges: std::iter::repeat_with(gauge).take(usize::from(plan.workers())).collect(),
        }
    }

    fn sum(&self, of: impl Fn(&Gauge) -> &AtomicU64) -> u64 {
        self.gauges.iter().map(|gauge| of(gauge).load(Ordering::Relaxed)).sum()
    }

    pub fn received(&self) -> u64 {
        self.sum(|gauge| &gauge.received)
    }

    pub fn logged_in(&self) -> u64 {
        self.sum(|gauge| &gauge.logged_in)
    }

    /// Deliveries that messages sent so far still have to make.
    pub fn missing(&self) -> u64 {
        self.sum(|gauge| &gauge.owed).saturating_sub(self.received())
    }

    /// Everybody has sent the last message, and all answers and deliveries have come.
    pub fn is_complete(&self) -> bool {
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
    /// The same from an agent, whose threads' books are side by side already.
    Books(Box<Books>),
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
    /// For connections that come back; none where none do.
    pub connector: Option<Connector>,
}

/// A receiver in a room, at the end.
#[derive(Clone, Copy, Debug)]
pub struct Seat {
    pub room: u32,
    pub connection: u32,
    /// Every message had to come here.
    pub owed: bool,
    /// But the connection ended, or the server said that it may miss some.
    pub closed: bool,
}

/// Everything a worker knows when it is done.
#[derive(Debug, Default)]
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
    pub received: u64,
    pub closed: BTreeMap<String, u64>,
    /// Ends of slow and stopped readers: what they are there for.
    pub closed_readers: BTreeMap<String, u64>,
    pub connect_failures: BTreeMap<String, u64>,
    pub reconnects: u64,
    pub incidents: Incidents,
    /// Messages that could not be handed over: no connection left, or no memory for them.
    pub unsent: u64,
    /// Messages that were given up before all their receivers had them.
    pub unwatched: u64,
    pub spent: Spent,
}

/// What the measured window cost a thread.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    /// CPU time, spinning not counted; and the spinning.
    pub busy_ns: u64,
    pub spun_ns: u64,
    /// How long the window was: longer than planned where the thread was behind.
    pub window_ns: u64,
}
