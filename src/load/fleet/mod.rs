//! Several generators as one: a driver and its agents, on this host or on others.
//!
//! Every agent carries out its own part of the plan: its part of the connections, the rooms and the rate, with users and rooms of its own, so that each
//! time is taken by one clock and no room spans two. They log in at their own pace, begin together (each so long after it was told), and send every
//! second as it is; the driver adds counts, never averages percentiles. An agent that is lost ends the run: half a load is another measurement.

mod agent;
mod wire;

use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::sys::clock::monotonic_ns;

use super::plan::ServerLimits;
use super::record::{Histograms, Interval, Phase};
use super::report::summary::{AgentShown, Percentiles};
use super::verdict::{self, Books, Generator};
use super::worker::Report;
use super::{Exit, Failure, Job};

pub(super) use agent::serve;

use wire::{News, Order, VERSION};

const AGENTS_MAX: usize = 256;
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
const WRITE_PATIENCE: Duration = Duration::from_secs(10);
/// From the order to the last login of an agent.
const LOGIN_PATIENCE: Duration = Duration::from_secs(300);
/// Between two seconds of an agent, beyond its grace period.
const SECOND_PATIENCE: Duration = Duration::from_secs(15);
const REPORTS: usize = 64;

/// What is known of an agent.
#[derive(Debug)]
struct Agent {
    address: String,
    stream: TcpStream,
    connections: Arc<AtomicU64>,
    missing: Arc<AtomicU64>,
}

/// The agents of a run, seen from the driver.
#[derive(Debug)]
pub(super) struct Fleet {
    agents: Vec<Agent>,
    pub(super) reports: Receiver<(u16, Report)>,
    threads: Vec<thread::JoinHandle<()>>,
    start_ns: u64,
    end_ns: u64,
}

impl Fleet {
    /// Connects to all of them and tells each its part.
    pub(super) fn start(job: &Job) -> Result<Self, Failure> {
        let addresses = &job.agents;
        if addresses.len() > AGENTS_MAX {
            return Err(Failure::new(Exit::Usage, format!("--agents: at most {AGENTS_MAX}")));
        }
        let (sender, reports) = bounded(addresses.len() * REPORTS);
        let end_ns = job.plan.wish().warmup_ns.saturating_add(job.plan.duration_ns());
        let mut fleet = Self { agents: Vec::new(), reports, threads: Vec::new(), start_ns: 0, end_ns };
        let parts = u32::try_from(addresses.len()).expect("bounded above");
        for (part, address) in (0..parts).zip(addresses) {
            let stream = connect(address).map_err(|error| Failure::new(Exit::Unreachable, format!("agent {address}: {error}")))?;
            let connect = job.plan.wish().address.to_string();
            let order = Order::Prepare { version: VERSION, scenario: job.scenario_text.clone(), connect, part, parts };
            tell(&stream, &order).map_err(|error| Failure::new(Exit::Unreachable, format!("agent {address}: {error}")))?;
            fleet.agents.push(Agent { address: address.clone(), stream, connections: Arc::default(), missing: Arc::default() });
        }
        let grace = Duration::from_nanos(job.plan.wish().grace_ns);
        for (lane, agent) in (0..).zip(&fleet.agents) {
            let ear = Ear {
                lane,
                address: agent.address.clone(),
                stream: agent.stream.try_clone().map_err(|error| Failure::new(Exit::Kernel, error))?,
                connections: Arc::clone(&agent.connections),
                missing: Arc::clone(&agent.missing),
                reports: sender.clone(),
                patience: SECOND_PATIENCE + grace,
            };
            let named = thread::Builder::new().name(format!("load-agent-{lane}"));
            fleet.threads.push(named.spawn(move || ear.listen()).map_err(|error| Failure::new(Exit::Kernel, error))?);
        }
        Ok(fleet)
    }

    pub(super) fn lanes(&self) -> usize {
        self.agents.len()
    }

    pub(super) fn begin(&mut self, in_ns: u64) -> Result<(), Failure> {
        self.start_ns = monotonic_ns() + in_ns;
        for agent in &self.agents {
            // Counted from one moment: what was told later begins no later.
            let left = self.start_ns.saturating_sub(monotonic_ns());
            let told = tell(&agent.stream, &Order::Begin { in_ns: left });
            told.map_err(|error| Failure::new(Exit::Unreachable, format!("agent {}: {error}", agent.address)))?;
        }
        Ok(())
    }

    pub(super) fn since_start_ns(&self) -> Option<u64> {
        (self.start_ns > 0).then(|| monotonic_ns().saturating_sub(self.start_ns))
    }

    pub(super) fn end_ns(&self) -> u64 {
        self.end_ns
    }

    /// Ends the window now.
    pub(super) fn cut_short(&mut self) {
        self.end_ns = self.end_ns.min(self.since_start_ns().unwrap_or(0));
        for agent in &self.agents {
            // An agent that can't be told is lost, and its ear says so.
            let _ = tell(&agent.stream, &Order::End);
        }
    }

    pub(super) fn missing(&self) -> u64 {
        self.agents.iter().map(|agent| agent.missing.load(Ordering::Relaxed)).sum()
    }

    /// What each of them did, with a verdict of its own: one that was overloaded must not hide in the sum.
    pub(super) fn shown(&self, parts: &[(u16, Books)], histograms: &[Histograms]) -> Vec<AgentShown> {
        let show = |(lane, books): &(u16, Books)| {
            let (agent, own) = (&self.agents[usize::from(*lane)], &histograms[usize::from(*lane)]);
            let generator = Generator {
                busy_share: books.busy_share(),
                unsent: books.unsent,
                unwatched: books.unwatched,
                // How long it took is known of all together, and judged there.
                planned_ns: 0,
                window_ns: 0,
                loads: books.sent > 0,
                closed: false,
            };
            let (verdict, _) = verdict::judge(&books.faults, verdict::doubts(own, generator).invalid, Vec::new());
            AgentShown {
                address: agent.address.clone(),
                connections: u32::try_from(agent.connections.load(Ordering::Relaxed)).unwrap_or(u32::MAX),
                sent_in_all: books.sent,
                deliveries_in_all: books.received,
                verdict,
                delivery: Percentiles::of(&own.delivery()),
                lateness: Percentiles::of(own.of(super::record::Name::Lateness)),
            }
        };
        parts.iter().map(show).collect()
    }

    pub(super) fn join(&mut self) {
        for agent in &self.agents {
            // A stream that is gone already is as good as one that is shut down.
            let _ = agent.stream.shutdown(std::net::Shutdown::Both);
        }
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

fn connect(address: &str) -> std::io::Result<TcpStream> {
    let found = address.to_socket_addrs()?.next().ok_or_else(|| std::io::Error::other("no such address"))?;
    let stream = TcpStream::connect_timeout(&found, CONNECT_PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(WRITE_PATIENCE))?;
    Ok(stream)
}

fn tell(stream: &TcpStream, order: &Order) -> std::io::Result<()> {
    wire::send(stream, order, &Histograms::new())
}

/// Listens to one agent and passes on what it says as a worker would have said it.
struct Ear {
    lane: u16,
    address: String,
    stream: TcpStream,
    connections: Arc<AtomicU64>,
    missing: Arc<AtomicU64>,
    reports: Sender<(u16, Report)>,
    patience: Duration,
}

impl Ear {
    fn listen(self) {
        let mut patience = LOGIN_PATIENCE;
        loop {
            let report = match wire::receive::<News>(&self.stream, patience) {
                Ok((news, histograms)) => self.understand(news, histograms),
                Err(error) => Report::Failed(format!("agent {}: {error}", self.address)),
            };
            // Until all are ready nobody begins: the slowest may take its whole time.
            patience = if matches!(report, Report::LoggedIn(_)) { LOGIN_PATIENCE } else { self.patience };
            let last = matches!(report, Report::Books(_) | Report::Failed(_));
            if self.reports.send((self.lane, report)).is_err() || last {
                return;
            }
        }
    }

    fn understand(&self, news: News, histograms: Histograms) -> Report {
        match news {
            News::Ready { version, connections, limits } => {
                let _: ServerLimits = limits;
                self.connections.store(connections.into(), Ordering::Relaxed);
                if version != VERSION {
                    return Report::Failed(format!("agent {} speaks version {version}, this driver {VERSION}", self.address));
                }
                let mut interval = Interval::new();
                interval.histograms = histograms;
                Report::LoggedIn(Box::new(interval))
            }
            News::Second { phase, start_ns, end_ns, counts, open, missing } => {
                self.missing.store(if phase == Phase::Grace { 0 } else { missing }, Ordering::Relaxed);
                Report::Interval(wire::interval((phase, start_ns, end_ns), (counts, open), histograms))
            }
            News::Done(books) => Report::Books(books),
            News::Failed { text, .. } => Report::Failed(format!("agent {}: {text}", self.address)),
        }
    }
}
