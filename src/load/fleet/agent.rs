//! An agent: waits for a driver, carries out its part of the plan, sends what it measured. One driver at a time, for as long as nobody stops it.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};

use crate::load::crew::{Crew, Hire};
use crate::load::plan::Plan;
use crate::load::record::{Histograms, Interval, Joiner, Phase};
use crate::load::report::live::Merger;
use crate::load::run::{Ground, survey};
use crate::load::scenario::Shape;
use crate::load::verdict::Books;
use crate::load::worker::{Outcome, Pacing, Report};
use crate::load::{Args, Exit, Failure, Job, Outside, build};

use super::wire::{self, News, Order, VERSION};

/// A driver says what it wants within this time, and then what comes next: the others may still be logging in.
const ORDER_PATIENCE: Duration = Duration::from_secs(10);
const BEGIN_PATIENCE: Duration = Duration::from_secs(300);
const WRITE_PATIENCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);

/// `--agent ADDR`.
pub(in crate::load) fn serve(args: &Args, address: &str, outside: &mut Outside<'_>) -> Result<Exit, Failure> {
    let wrong = |error: io::Error| Failure::new(Exit::Usage, format!("--agent {address}: {error}"));
    let listener = TcpListener::bind(address).map_err(wrong)?;
    listener.set_nonblocking(true).map_err(wrong)?;
    writeln!(outside.out, "agent ready on {}", listener.local_addr().map_err(wrong)?)?;
    outside.out.flush()?;
    loop {
        if outside.signals.try_recv().is_ok() {
            return Ok(Exit::Ok);
        }
        match listener.accept() {
            Ok((stream, from)) => {
                writeln!(outside.out, "driver {from}")?;
                let end = one_run(args, &stream, outside);
                let words = end.map_or_else(|failure| failure.text, |()| "done".to_owned());
                writeln!(outside.out, "driver {from}: {words}")?;
                outside.out.flush()?;
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => thread::sleep(LOOK),
            Err(error) => return Err(wrong(error)),
        }
    }
}

fn one_run(args: &Args, stream: &TcpStream, outside: &mut Outside<'_>) -> Result<(), Failure> {
    let lost = |error: io::Error| Failure::new(Exit::Unreachable, format!("the driver is lost: {error}"));
    stream.set_nonblocking(false).map_err(lost)?;
    stream.set_nodelay(true).map_err(lost)?;
    stream.set_write_timeout(Some(WRITE_PATIENCE)).map_err(lost)?;
    let (order, _) = wire::receive(stream, ORDER_PATIENCE).map_err(lost)?;
    let done = carry_out(args, (order, stream), outside);
    if let Err(failure) = &done {
        // The driver may be what was lost.
        let news = News::Failed { exit: failure.exit as u8, text: failure.text.clone() };
        let _ = wire::send(stream, &news, &Histograms::new());
    }
    // Our words go out first; with the reading side shut the thread that listens for orders ends too.
    let _ = stream.shutdown(Shutdown::Read);
    done
}

fn carry_out(args: &Args, (order, stream): (Order, &TcpStream), outside: &mut Outside<'_>) -> Result<(), Failure> {
    let job = job(args, order)?;
    let Ground { names, features, watch } = survey(&job)?;
    let pacing = if job.no_spin { Pacing::Sleep } else { Pacing::Spin };
    let crew = Crew::start(&job.plan, Hire { names, pacing, features, cpus: job.cpus.clone() })?;
    let orders = listen(stream)?;
    let mut part = Part {
        merger: Merger::new(usize::from(job.plan.workers())),
        joiner: Joiner::new(job.plan.threads_of_rooms().to_vec()),
        plan: Arc::clone(&job.plan),
        logins: Histograms::new(),
        logged_in: 0,
        outcomes: Vec::new(),
        limits: watch.limits,
        crew,
        stream,
    };
    let done = part.run(&orders, outside);
    part.crew.join();
    done
}

/// The driver's scenario with this agent's own CPUs and pacing.
fn job(args: &Args, order: Order) -> Result<Job, Failure> {
    let usage = |text: String| Failure::new(Exit::Usage, text);
    let Order::Prepare { version, scenario, connect, part, parts } = order else {
        return Err(usage("the driver speaks out of turn".into()));
    };
    if version != VERSION {
        return Err(usage(format!("the driver speaks version {version}, this agent {VERSION}")));
    }
    let shape: Shape = toml::from_str(&scenario).map_err(|error| usage(error.message().to_owned()))?;
    let own = Args { connect: Some(connect), shape: shape.part(part, parts).map_err(usage)?, out: None, scenario: None, ..args.clone() };
    build(&own)
}

/// Orders as they come; the channel closes when the driver is gone.
fn listen(stream: &TcpStream) -> Result<Receiver<Order>, Failure> {
    let stream = stream.try_clone().map_err(|error| Failure::new(Exit::Kernel, error))?;
    let (sender, orders) = bounded(4);
    let body = move || {
        while let Ok((order, _)) = wire::receive(&stream, BEGIN_PATIENCE + Duration::from_secs(1_000_000)) {
            if sender.send(order).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("load-orders".into()).spawn(body).map_err(|error| Failure::new(Exit::Kernel, error))?;
    Ok(orders)
}

/// A run on behalf of a driver.
struct Part<'a> {
    plan: Arc<Plan>,
    crew: Crew,
    merger: Merger,
    joiner: Joiner,
    logins: Histograms,
    logged_in: usize,
    outcomes: Vec<Outcome>,
    limits: crate::load::plan::ServerLimits,
    stream: &'a TcpStream,
}

impl Part<'_> {
    fn run(&mut self, orders: &Receiver<Order>, outside: &mut Outside<'_>) -> Result<(), Failure> {
        let workers = usize::from(self.plan.workers());
        let mut ready_at = None;
        while self.outcomes.len() < workers {
            if outside.signals.try_recv().is_ok() {
                return Err(Failure::new(Exit::Invalid, "the agent was stopped"));
            }
            match orders.try_recv() {
                Ok(Order::Begin { in_ns }) => {
                    self.crew.begin(in_ns);
                    ready_at = None;
                }
                Ok(Order::End) => self.crew.cut_short(),
                Ok(Order::Prepare { .. }) | Err(crossbeam_channel::TryRecvError::Empty) => {}
                Err(crossbeam_channel::TryRecvError::Disconnected) => return Err(Failure::new(Exit::Unreachable, "the driver is gone")),
            }
            if ready_at.is_some_and(|ready: Instant| ready.elapsed() > BEGIN_PATIENCE) {
                return Err(Failure::new(Exit::Unreachable, "the driver did not begin"));
            }
            match self.crew.reports.recv_timeout(LOOK) {
                Ok((lane, report)) => {
                    if self.on_report(lane, report)? {
                        ready_at = Some(Instant::now());
                    }
                }
                Err(RecvTimeoutError::Timeout) if self.crew.ended() <= self.outcomes.len() => {}
                Err(_) if !self.crew.reports.is_empty() => {}
                Err(_) => return Err(Failure::new(Exit::Kernel, "a generator thread has ended without a result")),
            }
            while let Some(interval) = self.merger.next_complete() {
                self.tell_second(&interval)?;
                self.crew.give_back(0, interval);
            }
        }
        self.outcomes.sort_by_key(|outcome| outcome.lane);
        let mut books = Books::of(&self.plan, &self.outcomes);
        books.unwatched += self.joiner.given_up;
        self.tell(&News::Done(Box::new(books)), &Histograms::new())
    }

    /// True when all have logged in.
    fn on_report(&mut self, lane: u16, report: Report) -> Result<bool, Failure> {
        match report {
            Report::LoggedIn(interval) => {
                self.logins.add(&interval.histograms);
                self.logged_in += 1;
                let all = self.logged_in == usize::from(self.plan.workers());
                if all {
                    let news = News::Ready { version: VERSION, connections: self.plan.wish().connections, limits: self.limits };
                    self.tell(&news, &self.logins)?;
                }
                return Ok(all);
            }
            Report::Interval(mut interval) => {
                self.joiner.join(&mut interval);
                if let Some(emptied) = self.merger.add(usize::from(lane), interval) {
                    self.crew.give_back(lane, emptied);
                }
            }
            Report::Done(outcome) => self.outcomes.push(*outcome),
            Report::Books(_) => {}
            Report::Failed(text) => return Err(Failure::new(Exit::Unreachable, text)),
        }
        Ok(false)
    }

    fn tell_second(&self, interval: &Interval) -> Result<(), Failure> {
        let Interval { phase, start_ns, end_ns, counts, open, .. } = *interval;
        let missing = if phase == Phase::Grace { 0 } else { self.crew.shared.missing() };
        self.tell(&News::Second { phase, start_ns, end_ns, counts, open, missing }, &interval.histograms)
    }

    fn tell(&self, news: &News, histograms: &Histograms) -> Result<(), Failure> {
        wire::send(self.stream, news, histograms).map_err(|error| Failure::new(Exit::Unreachable, format!("the driver is lost: {error}")))
    }
}
