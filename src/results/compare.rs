//! Sides against the first of them: figures per run, shifts with their intervals, verdicts. What `compare.json` holds, field by field.
//!
//! `version` rises when a field changes its meaning or goes. Latencies are nanoseconds, shares are parts of the first side's median (0.05 is 5 %
//! more), `null` is "not measured" or "too few samples", never zero. Each side but the first is compared with the first; Holm's correction is
//! within one table: the four quantiles of a histogram, or the figures of whole runs.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::stats::verdict::{self, BEYOND_MIN, Finding, Good, P_MAX, Question, RUNS_MIN, SHARE_MIN};
use crate::stats::{permutation, shift};

use super::Problem;
use super::environment::{self, Difference};
use super::run::Run;
use super::side::{Side, check_distinct, check_same_scenario};

pub const FORMAT: &str = "ringroom-compare";
pub const VERSION: u32 = 1;
/// The quantiles that are judged, by name.
pub const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];
/// Histograms that are judged, in the order of their tables. The rest are the generator's own or hold too little.
const JUDGED: [&str; 7] = ["room.delivery", "dm.delivery", "room.last", "room.spread", "sent", "reconnect", "history"];
/// Points of the shift plot: steps of the percentile axis, per factor of ten.
const POINTS_PER_NINE: u32 = 8;
const NINES_MAX: u32 = 5;

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// At least two; the first is what the others are compared with.
    pub sides: &'a [Side],
    /// More runs of the first side's configuration.
    pub again: Option<&'a Side>,
    pub seed: u64,
}

/// The whole answer.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// Always [`FORMAT`] and [`VERSION`].
    pub format: &'static str,
    pub version: u32,
    pub method: Method,
    pub sides: Vec<SideShown>,
    /// Each side but the first with the first.
    pub pairs: Vec<Pair>,
    /// What differs between the sides' surroundings, and within a side.
    pub environment: Vec<Difference>,
    /// What a reader has to know before the figures.
    pub notes: Vec<String>,
}

/// How the figures came about; enough to compute them again.
#[derive(Clone, Debug, Serialize)]
pub struct Method {
    pub unit: &'static str,
    pub shift: &'static str,
    pub interval: &'static str,
    pub resamples: usize,
    pub test: &'static str,
    pub ways_counted_max: u64,
    pub correction: &'static str,
    /// `split` of the first side, or the name of the directory of more runs.
    pub noise: String,
    pub seed: u64,
    pub share_min: f64,
    pub p_max: f64,
    pub runs_min: usize,
    pub beyond_min: f64,
}

#[derive(Clone, Debug, Serialize)]
pub struct SideShown {
    pub name: String,
    pub path: String,
    pub target: String,
    pub runs_valid: usize,
    pub runs: Vec<RunShown>,
}

#[derive(Clone, Debug, Serialize)]
pub struct RunShown {
    pub name: String,
    /// Its figures are compared.
    pub valid: bool,
    /// Why not.
    pub flaw: Option<String>,
    pub started_unix_ms: Option<u64>,
    /// By histogram and figure (`p50`... `max`, nanoseconds).
    pub latency: BTreeMap<String, BTreeMap<&'static str, Option<f64>>>,
    pub rate_per_s: Option<f64>,
    pub cpu_us_per_delivery: Option<f64>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Pair {
    /// Names of the sides.
    pub a: String,
    pub b: String,
    pub histograms: Vec<HistogramPair>,
    /// Figures of whole runs.
    pub whole: Vec<Row>,
}

#[derive(Clone, Debug, Serialize)]
pub struct HistogramPair {
    pub name: String,
    pub rows: Vec<Row>,
    /// The shift at every quantile that all runs have.
    pub shifts: Vec<ShiftPoint>,
}

/// One line of a table.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// `p99`, `max`, `rate`, `cpu`.
    pub figure: &'static str,
    /// `ns`, `per s`, `us per delivery`.
    pub unit: &'static str,
    pub good: Good,
    /// A value per valid run.
    pub runs_a: Vec<f64>,
    pub runs_b: Vec<f64>,
    #[serde(flatten)]
    pub finding: Finding,
}

/// A point of the shift plot; the interval is of this point alone, not of the whole line.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ShiftPoint {
    pub quantile: f64,
    pub shift: f64,
    pub low: Option<f64>,
    pub high: Option<f64>,
    pub share: Option<f64>,
}

/// Compares; refuses what was not the same scenario.
pub fn compare(request: Request<'_>) -> Result<Comparison, Problem> {
    let [first, others @ ..] = request.sides else { return Err(Problem::Usage("nothing to compare".into())) };
    if others.is_empty() {
        return Err(Problem::Usage("one side alone: name at least two directories".into()));
    }
    check_distinct(request.sides.iter().chain(request.again).flat_map(|side| &side.runs))?;
    check_same_scenario(request.sides.iter().chain(request.again).flat_map(|side| &side.runs))?;
    let pairs = others.iter().map(|other| pair(first, other, request)).collect();
    Ok(Comparison {
        format: FORMAT,
        version: VERSION,
        method: method(request),
        sides: request.sides.iter().map(SideShown::new).collect(),
        pairs,
        environment: environment::differences(request.sides),
        notes: notes(request),
    })
}

fn method(request: Request<'_>) -> Method {
    Method {
        unit: "run",
        shift: "Hodges-Lehmann",
        interval: "95 %, percentile bootstrap over runs",
        resamples: shift::RESAMPLES,
        test: "two-sided permutation test on ranks, all ways counted up to ways_counted_max",
        ways_counted_max: permutation::WAYS_MAX,
        correction: "Holm, within a table",
        noise: request.again.map_or_else(|| "split".to_owned(), |side| side.name.clone()),
        seed: request.seed,
        share_min: SHARE_MIN,
        p_max: P_MAX,
        runs_min: RUNS_MIN,
        beyond_min: BEYOND_MIN,
    }
}

fn notes(request: Request<'_>) -> Vec<String> {
    let mut notes = Vec::new();
    for side in request.sides.iter().chain(request.again) {
        let valid = side.valid().count();
        if valid < side.runs.len() {
            notes.push(format!(
                "{}: {} of {} runs are left out, see why in the list of runs",
                side.name,
                side.runs.len() - valid,
                side.runs.len()
            ));
        }
        if valid < RUNS_MIN {
            notes.push(format!("{}: {valid} valid runs; a verdict needs {RUNS_MIN}, and 8 are advised", side.name));
        }
    }
    let counts: Vec<usize> = request.sides.iter().map(|side| side.valid().count()).collect();
    for (side, count) in request.sides.iter().zip(&counts).skip(1) {
        let least = permutation::smallest_p(counts[0], *count) * 4.0;
        if counts[0].min(*count) >= RUNS_MIN && least >= P_MAX {
            let what = format!(
                "{} against {count} runs give at best p {least:.3} over four quantiles: nothing can be shown, take more runs",
                counts[0]
            );
            notes.push(format!("{}: {what}", side.name));
        }
    }
    let starts = |side: &Side| -> Option<(u64, u64)> {
        let times: Vec<u64> = side.valid().filter_map(|run| run.count("started_unix_ms")).collect();
        times.iter().min().copied().zip(times.iter().max().copied())
    };
    let first = starts(&request.sides[0]);
    for side in &request.sides[1..] {
        if let (Some((a_first, a_last)), Some((b_first, b_last))) = (first, starts(side))
            && (a_last < b_first || b_last < a_first)
        {
            let what = "all runs of one side were before all of the other: what drifts over time looks like a difference. Interleave them";
            notes.push(format!("{} and {}: {what}", request.sides[0].name, side.name));
        }
    }
    notes
}

impl SideShown {
    fn new(side: &Side) -> Self {
        let mut targets: Vec<&str> = side.runs.iter().map(Run::target).collect();
        targets.sort_unstable();
        targets.dedup();
        Self {
            name: side.name.clone(),
            path: side.path.display().to_string(),
            target: targets.join(", "),
            runs_valid: side.valid().count(),
            runs: side.runs.iter().map(RunShown::new).collect(),
        }
    }
}

impl RunShown {
    fn new(run: &Run) -> Self {
        let figures = |histogram: &Histogram<u64>| {
            let quantiles = QUANTILES.iter().map(|(name, quantile)| (*name, value_at(histogram, *quantile)));
            quantiles.chain([("max", Some(as_f64(histogram.max())))]).collect()
        };
        let flaw = run.flaw();
        Self {
            name: run.name.clone(),
            valid: flaw.is_none(),
            flaw,
            started_unix_ms: run.count("started_unix_ms"),
            latency: run.histograms.iter().map(|(name, histogram)| (name.clone(), figures(histogram))).collect(),
            rate_per_s: run.number("delivered_per_s"),
            cpu_us_per_delivery: run.number("server.cpu_us_per_delivery"),
        }
    }
}

/// The value at a quantile, if at least [`BEYOND_MIN`] samples lie beyond it.
pub fn value_at(histogram: &Histogram<u64>, quantile: f64) -> Option<f64> {
    let beyond = as_f64(histogram.len()) * (1.0 - quantile);
    // 1 - 0.999 is a hair above 0.001: 100,000 samples are enough for p99.9.
    (beyond + 1e-6 >= BEYOND_MIN).then(|| as_f64(histogram.value_at_quantile(quantile)))
}

#[allow(clippy::cast_precision_loss, reason = "latencies and counts stay below 2^53")]
pub(super) fn as_f64(count: u64) -> f64 {
    count as f64
}

/// One figure of a side's valid runs.
struct Figures {
    values: Vec<f64>,
    /// Every valid run has it.
    present: bool,
}

fn figures(side: &Side, of: &dyn Fn(&Run) -> Option<f64>) -> Figures {
    let all: Vec<Option<f64>> = side.valid().map(of).collect();
    Figures { present: all.iter().all(Option::is_some), values: all.into_iter().flatten().collect() }
}

/// A run's figure, if it has it.
type OfRun<'a> = Box<dyn Fn(&Run) -> Option<f64> + 'a>;

/// A row before it is judged.
struct Asked<'a> {
    figure: &'static str,
    unit: &'static str,
    good: Good,
    of: OfRun<'a>,
    /// The histogram whose step bounds what can be told apart.
    histogram: Option<&'a str>,
}

fn pair(first: &Side, other: &Side, request: Request<'_>) -> Pair {
    let names =
        JUDGED.into_iter().filter(|name| [first, other].iter().all(|side| side.valid().any(|run| run.histograms.contains_key(*name))));
    let names: Vec<&str> = names.collect();
    let main = names.first().copied().unwrap_or("delivery");
    let histograms = names.into_iter().map(|name| histogram_pair(first, other, name, request));
    Pair {
        a: first.name.clone(),
        b: other.name.clone(),
        histograms: histograms.collect(),
        whole: judge(first, other, &whole(main), request),
    }
}

/// Figures of whole runs: the longest delivery, what got through, what it cost.
fn whole(main: &str) -> Vec<Asked<'_>> {
    let max = move |run: &Run| run.histograms.get(main).map(|histogram| as_f64(histogram.max()));
    vec![
        Asked { figure: "max", unit: "ns", good: Good::Lower, of: Box::new(max), histogram: Some(main) },
        Asked { figure: "rate", unit: "per s", good: Good::Higher, of: Box::new(|run| run.number("delivered_per_s")), histogram: None },
        Asked {
            figure: "cpu",
            unit: "us per delivery",
            good: Good::Lower,
            of: Box::new(|run| run.number("server.cpu_us_per_delivery")),
            histogram: None,
        },
    ]
}

fn histogram_pair(first: &Side, other: &Side, name: &str, request: Request<'_>) -> HistogramPair {
    let asked = |(figure, quantile): (&'static str, f64)| Asked {
        figure,
        unit: "ns",
        good: Good::Lower,
        of: Box::new(move |run: &Run| value_at(run.histograms.get(name)?, quantile)),
        histogram: Some(name),
    };
    let asked: Vec<Asked<'_>> = QUANTILES.into_iter().map(asked).collect();
    HistogramPair { name: name.to_owned(), rows: judge(first, other, &asked, request), shifts: shifts(first, other, name, request.seed) }
}

fn judge(first: &Side, other: &Side, asked: &[Asked<'_>], request: Request<'_>) -> Vec<Row> {
    let sides = |asked: &Asked<'_>| {
        let none = Figures { values: Vec::new(), present: true };
        let again = request.again.map_or(none, |again| figures(again, &*asked.of));
        [figures(first, &*asked.of), figures(other, &*asked.of), again]
    };
    let all: Vec<[Figures; 3]> = asked.iter().map(sides).collect();
    let question = |(asked, [a, b, again]): (&Asked<'_>, &'_ [Figures; 3])| -> (f64, bool) {
        let step = asked.histogram.map_or(0.0, |name| step([first, other], name, a.values.iter().chain(&b.values).copied()));
        (step, a.present && b.present && again.present)
    };
    let steps: Vec<(f64, bool)> = asked.iter().zip(&all).map(question).collect();
    let questions: Vec<Question<'_>> = asked
        .iter()
        .zip(&all)
        .zip(&steps)
        .map(|((asked, [a, b, again]), (step, present))| Question {
            a: &a.values,
            b: &b.values,
            again: &again.values,
            good: asked.good,
            step: *step,
            present: *present,
        })
        .collect();
    let findings = verdict::judge(&questions, request.seed);
    let row = |((asked, [a, b, _]), finding): ((&Asked<'_>, &[Figures; 3]), Finding)| Row {
        figure: asked.figure,
        unit: asked.unit,
        good: asked.good,
        runs_a: a.values.clone(),
        runs_b: b.values.clone(),
        finding,
    };
    asked.iter().zip(&all).zip(findings).map(row).collect()
}

/// The coarsest step of the histograms at these values, as a part of them: what lies closer together is one value to a histogram.
fn step(sides: [&Side; 2], name: &str, values: impl Iterator<Item = f64>) -> f64 {
    let Some(histogram) = sides.iter().flat_map(|side| side.valid()).find_map(|run| run.histograms.get(name)) else { return 0.0 };
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "latencies are whole and positive")]
    let step_at = |value: f64| as_f64(histogram.equivalent_range(value as u64)) / value.max(1.0);
    values.map(step_at).fold(0.0, f64::max)
}

/// Evenly spaced on the percentile axis: 0, 25 %... 50 %... 90 %... 99.999 %.
pub fn axis() -> impl Iterator<Item = f64> {
    (0..=NINES_MAX * POINTS_PER_NINE).map(|point| 1.0 - 10f64.powf(-f64::from(point) / f64::from(POINTS_PER_NINE)))
}

fn shifts(first: &Side, other: &Side, name: &str, seed: u64) -> Vec<ShiftPoint> {
    let point = |quantile: f64| {
        let of = move |run: &Run| value_at(run.histograms.get(name)?, quantile);
        let (a, b) = (figures(first, &of), figures(other, &of));
        if !(a.present && b.present) {
            return None;
        }
        let shift = shift::hodges_lehmann(&a.values, &b.values)?;
        let (low, high) = shift::interval(&a.values, &b.values, seed).unzip();
        Some(ShiftPoint { quantile, shift, low, high, share: shift::share(shift, &a.values) })
    };
    axis().map_while(point).collect()
}
