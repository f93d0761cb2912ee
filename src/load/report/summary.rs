//! The result of a run as data: what `result.json` holds and `--json` prints. Field by field in `FORMAT.md`.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::load::environment::Environment;
use crate::load::observe::Memory;
use crate::load::plan::{Plan, ServerLimits};
use crate::load::record::{Counts, Interval, Name, Phase};
use crate::load::slo::SloShown;
use crate::load::verdict::{Faults, Remarks, ThreadCost, Verdict};

use super::quantile;

pub const FORMAT: &str = "ringroom-load";
pub const VERSION: u32 = 2;

#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    pub format: &'static str,
    pub version: u32,
    pub verdict: Verdict,
    pub exit: u8,
    pub reasons: Vec<String>,
    pub warnings: Vec<String>,
    pub command: Vec<String>,
    pub target: &'static str,
    #[serde(rename = "loop")]
    pub kind: &'static str,
    pub run: String,
    pub started_unix_ms: u64,
    pub scenario: ScenarioShown,
    pub plan: PlanShown,
    pub window_ns: u64,
    pub cut_short: bool,
    pub counts: Counts,
    pub sent_per_s: u64,
    pub delivered_per_s: u64,
    pub sent_in_all: u64,
    pub deliveries_expected_in_all: u64,
    pub deliveries_in_all: u64,
    pub faults: Faults,
    pub excused: u64,
    pub unsent: u64,
    pub unwatched: u64,
    pub remarks: Remarks,
    pub latency: BTreeMap<&'static str, Percentiles>,
    pub slo: Vec<SloShown>,
    pub find_max: Option<serde_json::Value>,
    pub generator: GeneratorShown,
    pub server: Option<Server>,
    pub environment: Environment,
    pub agents: Vec<AgentShown>,
    pub seconds: Vec<Second>,
}

/// Where the plan came from.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ScenarioShown {
    pub name: Option<String>,
    pub file: Option<String>,
    pub about: Option<String>,
}

/// The plan as it was carried out.
#[derive(Clone, Debug, Serialize)]
pub struct PlanShown {
    pub address: String,
    pub mode: &'static str,
    pub connections: u32,
    pub rooms: u32,
    pub room_size: u32,
    pub room_sizes: RoomSizesShown,
    pub memberships: u64,
    pub rate: f64,
    pub direct_share: f64,
    pub body_bytes: usize,
    pub body_sizes: String,
    pub threads: u16,
    pub arrivals: String,
    pub seed: u64,
    pub warmup_ns: u64,
    pub duration_ns: u64,
    pub sample_every: u32,
    pub phases: Vec<PhaseShown>,
    pub sources: usize,
    pub churners: u32,
    pub churn_per_s: f64,
    pub slow_readers: u32,
    pub stopped_readers: u32,
    pub probes: u32,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct RoomSizesShown {
    pub min: u32,
    pub median: u32,
    pub mean: f64,
    pub max: u32,
}

#[derive(Clone, Debug, Serialize)]
pub struct PhaseShown {
    pub name: String,
    pub start_ns: u64,
    pub end_ns: u64,
    pub rate_from: f64,
    pub rate_to: f64,
}

impl PlanShown {
    pub fn new(plan: &Plan) -> Self {
        let wish = plan.wish();
        let sizes = room_sizes(plan);
        Self {
            address: wish.address.to_string(),
            mode: match () {
                () if wish.idle => "idle",
                () if wish.direct_share >= 1.0 => "direct",
                () if wish.direct_share > 0.0 => "mixed",
                () => "rooms",
            },
            connections: wish.connections,
            rooms: wish.rooms,
            room_size: sizes.max,
            room_sizes: sizes,
            memberships: plan.memberships(),
            rate: plan.rate_most(),
            direct_share: wish.direct_share,
            body_bytes: wish.sizes.mean(),
            body_sizes: wish.sizes.to_string(),
            threads: wish.threads,
            arrivals: wish.arrivals.to_string(),
            seed: wish.seed,
            warmup_ns: wish.warmup_ns,
            duration_ns: plan.duration_ns(),
            sample_every: wish.sample_every,
            phases: phases(plan),
            sources: wish.sources.len(),
            churners: wish.troubles.churners,
            churn_per_s: wish.troubles.churn_per_s,
            slow_readers: wish.troubles.slow,
            stopped_readers: wish.troubles.stopped,
            probes: wish.probes,
        }
    }
}

fn room_sizes(plan: &Plan) -> RoomSizesShown {
    let mut sizes: Vec<u32> = (0..plan.named_rooms()).map(|room| plan.room_size(room)).collect();
    sizes.sort_unstable();
    let (Some(min), Some(max)) = (sizes.first(), sizes.last()) else { return RoomSizesShown::default() };
    let mean = crate::load::plan::as_f64(plan.memberships()) / f64::from(plan.named_rooms());
    RoomSizesShown { min: *min, median: sizes[sizes.len() / 2], mean, max: *max }
}

fn phases(plan: &Plan) -> Vec<PhaseShown> {
    let mut start_ns = plan.wish().warmup_ns;
    let show = |stage: &crate::load::plan::Stage| {
        let end_ns = start_ns + stage.stretch.length_ns;
        let shown = PhaseShown { name: stage.name.clone(), start_ns, end_ns, rate_from: stage.stretch.from, rate_to: stage.stretch.to };
        start_ns = end_ns;
        shown
    };
    plan.wish().stages.iter().map(show).collect()
}

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Percentiles {
    pub count: u64,
    pub min_ns: u64,
    pub mean_ns: f64,
    pub p50_ns: Option<u64>,
    pub p90_ns: Option<u64>,
    pub p99_ns: Option<u64>,
    pub p99_9_ns: Option<u64>,
    pub p99_99_ns: Option<u64>,
    pub max_ns: u64,
}

impl Percentiles {
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let at = |q| quantile(histogram, q);
        Self {
            count: histogram.len(),
            min_ns: if histogram.is_empty() { 0 } else { histogram.min() },
            mean_ns: histogram.mean(),
            p50_ns: at(0.5),
            p90_ns: at(0.9),
            p99_ns: at(0.99),
            p99_9_ns: at(0.999),
            p99_99_ns: at(0.9999),
            max_ns: histogram.max(),
        }
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct GeneratorShown {
    /// Of the busiest thread, spinning not counted: part of a CPU.
    pub busy_share: f64,
    pub threads: Vec<ThreadShown>,
    pub clock: ClockShown,
}

#[derive(Clone, Debug, Serialize)]
pub struct ThreadShown {
    #[serde(flatten)]
    pub cost: ThreadCost,
    pub cpu: Option<u16>,
    pub delivery: Option<Percentiles>,
}

/// The jitter floor of this machine: the steps between reads of the clock back to back.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ClockShown {
    pub source: String,
    pub step_p50_ns: u64,
    pub step_p99_ns: u64,
    pub step_max_ns: u64,
}

/// The server's process, seen from outside.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Server {
    pub pid: u32,
    /// Within the window, with the deliveries that arrived in the same time.
    pub cpu_ns: Option<u64>,
    pub deliveries: u64,
    pub cpu_us_per_delivery: Option<f64>,
    /// Before the first connection and at the end of the window.
    pub memory_before: Option<Memory>,
    pub memory: Option<Memory>,
    pub limits: ServerLimits,
}

/// One of several generators.
#[derive(Clone, Debug, Serialize)]
pub struct AgentShown {
    pub address: String,
    pub connections: u32,
    pub sent_in_all: u64,
    pub deliveries_in_all: u64,
    pub verdict: Verdict,
    pub delivery: Percentiles,
    pub lateness: Percentiles,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Second {
    pub start_ns: u64,
    pub end_ns: u64,
    pub phase: Phase,
    #[serde(flatten)]
    pub counts: Counts,
    pub p50_ns: Option<u64>,
    pub p90_ns: Option<u64>,
    pub p99_ns: Option<u64>,
    pub p99_9_ns: Option<u64>,
    pub max_ns: Option<u64>,
    pub lateness_p99_ns: Option<u64>,
    pub lateness_max_ns: Option<u64>,
    pub probe_p50_ns: Option<u64>,
    pub probe_p99_ns: Option<u64>,
    pub open: u64,
}

impl Second {
    pub fn of(interval: &Interval) -> Self {
        let delivery = interval.histograms.delivery();
        let (lateness, probe) = (interval.histograms.of(Name::Lateness), interval.histograms.of(Name::Probe));
        let at = |histogram: &Histogram<u64>, q| super::quantile(histogram, q);
        let max = |histogram: &Histogram<u64>| (!histogram.is_empty()).then(|| histogram.value_at_quantile(1.0));
        Self {
            start_ns: interval.start_ns,
            end_ns: interval.end_ns,
            phase: interval.phase,
            counts: interval.counts,
            p50_ns: at(&delivery, 0.5),
            p90_ns: at(&delivery, 0.9),
            p99_ns: at(&delivery, 0.99),
            p99_9_ns: at(&delivery, 0.999),
            max_ns: max(&delivery),
            lateness_p99_ns: at(lateness, 0.99),
            lateness_max_ns: max(lateness),
            probe_p50_ns: at(probe, 0.5),
            probe_p99_ns: at(probe, 0.99),
            open: interval.open,
        }
    }

    /// The names of [`Second::row`]'s columns.
    pub const COLUMNS: &'static str = "start_ns,end_ns,phase,offered,sent,answered,delivered,refused,late,p50_ns,p90_ns,p99_ns,p99_9_ns,max_ns,\
        lateness_p99_ns,lateness_max_ns,probe_p50_ns,probe_p99_ns,open,doubled,out_of_order";

    pub fn row(&self) -> String {
        let c = &self.counts;
        let phase = match self.phase {
            Phase::Warmup => "warmup",
            Phase::Measured => "measured",
            Phase::Grace => "grace",
        };
        let counts = [c.offered, c.sent, c.answered, c.delivered, c.refused, c.late].map(|count| count.to_string());
        let times = [
            self.p50_ns,
            self.p90_ns,
            self.p99_ns,
            self.p99_9_ns,
            self.max_ns,
            self.lateness_p99_ns,
            self.lateness_max_ns,
            self.probe_p50_ns,
            self.probe_p99_ns,
        ];
        let times = times.map(|time| time.map_or_else(String::new, |ns| ns.to_string()));
        let ends = [self.open, c.doubled, c.out_of_order].map(|count| count.to_string());
        let when = [self.start_ns.to_string(), self.end_ns.to_string(), phase.to_owned()];
        [when.as_slice(), &counts, &times, &ends].concat().join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_a_value_for_every_column() {
        let mut interval = Interval::new();
        let columns = Second::COLUMNS.split(',').count();
        assert_eq!(Second::of(&interval).row().split(',').count(), columns);
        interval.histograms.record(Name::RoomDelivery, 1_000);
        let row = Second::of(&interval).row();
        assert!(row.split(',').count() == columns && row.contains(",0,,,,,1000,,,,,"), "{row}");
    }
}
