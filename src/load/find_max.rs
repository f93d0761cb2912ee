//! `--find-max`: the highest rate that meets the objectives.
//!
//! Doubles the rate until a run does not hold, then halves the interval between the highest that did and the lowest that did not. Every step is a run of
//! its own with new connections. What is reported is one more run at the rate that was found, so that its figures are those of a run like any other.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::plan::{RATE_MAX, as_f64};
use super::report::summary::Summary;
use super::report::{count, live, time};
use super::verdict::Verdict;
use super::{Exit, Failure, Job, Outside, run};

/// Runs of a search.
const STEPS_MAX: usize = 20;
/// The search ends when the rates that held and that did not are this close.
const CLOSE: f64 = 1.05;
/// Parts of the offered rate that have to be sent, and of the deliveries that have to come within the window: else a backlog grows.
const SENT_LEAST: f64 = 0.98;
const IN_WINDOW_LEAST: f64 = 0.95;

/// One rate that was tried.
#[derive(Clone, Debug, Serialize)]
struct Step {
    rate: f64,
    held: bool,
    achieved_per_s: u64,
    p99_ns: Option<u64>,
    why: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
struct Found {
    objective: Vec<String>,
    best_rate: Option<f64>,
    steps: Vec<Step>,
}

/// Where the search is: the highest rate that held, the lowest that did not.
#[derive(Clone, Copy, Debug, Default)]
struct Bounds {
    held: Option<f64>,
    failed: Option<f64>,
}

impl Bounds {
    fn note(&mut self, rate: f64, held: bool) {
        if held {
            self.held = Some(self.held.map_or(rate, |best| best.max(rate)));
        } else {
            self.failed = Some(self.failed.map_or(rate, |worst| worst.min(rate)));
        }
    }

    /// The next rate to try; none when the search is over.
    fn next(self, first: f64) -> Option<f64> {
        match (self.held, self.failed) {
            (None, None) => Some(first),
            (Some(held), None) => Some(held * 2.0).filter(|rate| *rate <= RATE_MAX),
            (None, Some(failed)) => Some(failed / 2.0).filter(|rate| *rate >= 1.0),
            (Some(held), Some(failed)) => (failed / held > CLOSE).then(|| (held * failed).sqrt()),
        }
    }
}

pub(super) fn search(job: &Job, outside: &mut Outside<'_>) -> Result<Exit, Failure> {
    let (mut bounds, mut steps, mut gone) = (Bounds::default(), Vec::<Step>::new(), None);
    while let Some(rate) = bounds.next(job.plan.rate_most()).filter(|_| steps.len() < STEPS_MAX) {
        if !steps.is_empty() && !is_back(job, outside)? {
            gone = Some(rate);
            break;
        }
        let step = attempt(job, rate, !steps.is_empty(), outside)?;
        bounds.note(rate, step.held);
        let word = if step.held { "held" } else { "not held" };
        let p99 = step.p99_ns.map_or_else(|| "n/a".to_owned(), time);
        let why = if step.held { String::new() } else { format!(": {}", step.why.join("; ")) };
        writeln!(outside.out, "find-max  {:>10.0} msg/s  {word}, {} deliveries/s, p99 {p99}{why}", rate, count(step.achieved_per_s))?;
        outside.out.flush()?;
        let stopped = step.why.iter().any(|why| why == STOPPED);
        steps.push(step);
        if stopped {
            break;
        }
    }
    if gone.is_some() || (bounds.held.is_some() && !is_back(job, outside)?) {
        return Err(Failure::new(Exit::Faulty, ended(bounds, &steps)));
    }
    let objective = job.slos.iter().map(ToString::to_string).collect();
    let found = Found { objective, best_rate: bounds.held, steps };
    let Some(best) = bounds.held else {
        return Err(Failure::new(Exit::Faulty, "find-max: no rate held"));
    };
    let last = job.with_rate(best, job.out.clone())?;
    let (mut summary, histograms) = run::once(&last, outside, Some(serde_json::to_value(&found).map_err(std::io::Error::from)?))?;
    summary.warnings.push(format!("the highest rate that held of {} tried", found.steps.len()));
    run::finish(&last, outside, (&summary, &histograms))
}

const STOPPED: &str = "stopped";

/// How long a server that a step has ended may take to be there again, and how often it is looked for.
const BACK_PATIENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(100);

/// Whether the server can be reached, soon: one that a step has ended may be started again by whoever watches over it.
fn is_back(job: &Job, outside: &Outside<'_>) -> Result<bool, Failure> {
    let until = Instant::now() + BACK_PATIENCE;
    while TcpStream::connect_timeout(&job.plan.wish().address, BACK_PATIENCE).is_err() {
        if outside.signals.try_recv().is_ok() {
            return Err(Failure::new(Exit::Invalid, "stopped before there was a result"));
        }
        if Instant::now() > until {
            return Ok(false);
        }
        std::thread::sleep(LOOK);
    }
    Ok(true)
}

/// What is known when the server has not survived the search.
fn ended(bounds: Bounds, steps: &[Step]) -> String {
    let last = steps.last().map_or(0.0, |step| step.rate);
    let held = bounds.held.map_or_else(|| "no rate held".to_owned(), |rate| format!("{rate:.0} msg/s held"));
    format!("find-max: {held}; the server has not come back from {last:.0} msg/s")
}

/// `later`: the server has been there for a step before this.
fn attempt(job: &Job, rate: f64, later: bool, outside: &mut Outside<'_>) -> Result<Step, Failure> {
    let refused = |failure: Failure| Step { rate, held: false, achieved_per_s: 0, p99_ns: None, why: vec![failure.text] };
    let step = match job.with_rate(rate, None) {
        Ok(step) => step,
        Err(failure) => return Ok(refused(failure)),
    };
    live::show(outside.out, outside.style, &format!("find-max: {rate:.0} msg/s"))?;
    match run::once(&step, outside, None) {
        Ok((summary, _)) => Ok(judge(rate, &summary)),
        // A plan over the server's limits, or a server that the last step has ended, is an answer too; a kernel without io_uring is not.
        Err(failure) if failure.exit == Exit::Usage || (later && failure.exit == Exit::Unreachable) => Ok(refused(failure)),
        Err(failure) => Err(failure),
    }
}

fn judge(rate: f64, summary: &Summary) -> Step {
    let mut why = summary.reasons.clone();
    let sent = as_f64(summary.sent_per_s);
    if sent < SENT_LEAST * rate {
        why.push(format!("only {sent:.0} msg/s were sent"));
    }
    let window_s = as_f64(summary.window_ns) / 1e9;
    let (in_window, all) = (as_f64(summary.delivered_per_s) * window_s, as_f64(summary.counts.delivered));
    if in_window < IN_WINDOW_LEAST * all {
        why.push(format!("{:.0} % of the deliveries came after the window", (1.0 - in_window / all) * 100.0));
    }
    if summary.cut_short {
        why.push(STOPPED.into());
    }
    let p99_ns = summary.latency.get(super::record::DELIVERY).and_then(|delivery| delivery.p99_ns);
    let held = summary.verdict == Verdict::Ok && why.is_empty();
    Step { rate, held, achieved_per_s: summary.delivered_per_s, p99_ns, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rate that is found when everything up to `limit` holds.
    fn found(first: f64, limit: f64) -> (Option<f64>, usize) {
        let (mut bounds, mut steps) = (Bounds::default(), 0);
        while let Some(rate) = bounds.next(first).filter(|_| steps < STEPS_MAX) {
            bounds.note(rate, rate <= limit);
            steps += 1;
        }
        (bounds.held, steps)
    }

    #[test]
    fn the_search_ends_just_below_the_limit_from_either_side() {
        for first in [10.0, 1_000.0, 50_000.0] {
            let (best, steps) = found(first, 7_300.0);
            let best = best.unwrap_or(0.0);
            assert!((7_300.0 / CLOSE..=7_300.0).contains(&best), "{first}: {best} in {steps}");
        }
        assert_eq!(found(100.0, 0.5).0, None);
    }
}
