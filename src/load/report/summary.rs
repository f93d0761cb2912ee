//! The result of a run as data: what `result.json` holds and `--json` prints.
//!
//! Documented here, field by field; `version` rises when one changes its meaning or goes. Times are integer nanoseconds unless the name says
//! otherwise. Absent (`null`) is "not observed", never zero.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::load::observe::Memory;
use crate::load::plan::{Arrivals, Mode, Plan};
use crate::load::record::{Counts, Interval};
use crate::load::verdict::{Faults, Remarks, Verdict};

pub const FORMAT: &str = "ringroom-load";
pub const VERSION: u32 = 1;

#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Always [`FORMAT`] and [`VERSION`].
    pub format: &'static str,
    pub version: u32,
    pub verdict: Verdict,
    /// Why the verdict is not `ok`; one sentence each.
    pub reasons: Vec<String>,
    pub warnings: Vec<String>,
    pub plan: PlanShown,
    /// Sending in the window, which may have been cut short.
    pub window_ns: u64,
    /// The run was ended by a signal.
    pub cut_short: bool,
    /// Of messages that were due in the window; `delivered` is what arrived in the window and the grace period, late warm-up messages included.
    pub counts: Counts,
    /// Over the window, per second.
    pub sent_per_s: u64,
    pub delivered_per_s: u64,
    /// Over the whole run, warm-up included: messages sent, deliveries that had to follow, deliveries that did.
    pub sent_in_all: u64,
    pub deliveries_expected_in_all: u64,
    pub deliveries_in_all: u64,
    pub faults: Faults,
    /// Sends that got an `error`, or no answer before their connection was closed: not promised, so not lost.
    pub excused: u64,
    /// Messages the generator could not hand to a connection.
    pub unsent: u64,
    pub remarks: Remarks,
    /// By name: `delivery`, `last` (last receiver of a message on its reading thread), `sent` (answer to the sender), `sent.waiting` (what
    /// clients that wait for each answer would have reported, stalls hidden), `lateness` (the generator's own), `connect` (connect to last `joined`).
    pub latency: BTreeMap<&'static str, Percentiles>,
    pub generator: GeneratorShown,
    pub server: Option<Server>,
    /// One entry per second: warm-up and window.
    pub seconds: Vec<Second>,
}

/// The plan as it was carried out.
#[derive(Clone, Debug, Serialize)]
pub struct PlanShown {
    pub address: String,
    pub mode: &'static str,
    pub connections: u32,
    pub rooms: u32,
    pub room_size: u32,
    pub rate: f64,
    pub body_bytes: usize,
    pub threads: u16,
    pub arrivals: &'static str,
    pub seed: u64,
    pub warmup_ns: u64,
    pub duration_ns: u64,
}

impl PlanShown {
    pub fn new(plan: &Plan) -> Self {
        let wish = plan.wish();
        Self {
            address: wish.address.to_string(),
            mode: match wish.mode {
                Mode::Rooms => "rooms",
                Mode::Direct => "direct",
                Mode::Idle => "idle",
            },
            connections: wish.connections,
            rooms: plan.rooms(),
            room_size: plan.receivers_per_room(),
            rate: wish.rate,
            body_bytes: wish.sizes.mean(),
            threads: wish.threads,
            arrivals: match wish.arrivals {
                Arrivals::Poisson => "poisson",
                Arrivals::Constant => "constant",
            },
            seed: wish.seed,
            warmup_ns: wish.warmup_ns,
            duration_ns: wish.duration_ns,
        }
    }
}

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Percentiles {
    pub count: u64,
    pub min_ns: u64,
    pub mean_ns: f64,
    pub p50_ns: u64,
    pub p90_ns: u64,
    pub p99_ns: u64,
    pub p99_9_ns: u64,
    pub max_ns: u64,
}

impl Percentiles {
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile);
        Self {
            count: histogram.len(),
            min_ns: histogram.min(),
            mean_ns: histogram.mean(),
            p50_ns: at(0.5),
            p90_ns: at(0.9),
            p99_ns: at(0.99),
            p99_9_ns: at(0.999),
            max_ns: histogram.max(),
        }
    }
}

#[derive(Clone, Copy, Debug, Serialize)]
pub struct GeneratorShown {
    /// Of the busiest thread, spinning not counted: part of a CPU.
    pub busy_share: f64,
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
}

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Second {
    pub start_ns: u64,
    pub end_ns: u64,
    pub measured: bool,
    #[serde(flatten)]
    pub counts: Counts,
    pub p50_ns: u64,
    pub p99_ns: u64,
    pub max_ns: u64,
    pub lateness_p99_ns: u64,
}

impl Second {
    pub fn of(interval: &Interval) -> Self {
        let delivery = &interval.histograms.delivery;
        Self {
            start_ns: interval.start_ns,
            end_ns: interval.end_ns,
            measured: interval.phase == crate::load::record::Phase::Measured,
            counts: interval.counts,
            p50_ns: delivery.value_at_quantile(0.5),
            p99_ns: delivery.value_at_quantile(0.99),
            max_ns: delivery.max(),
            lateness_p99_ns: interval.histograms.lateness.value_at_quantile(0.99),
        }
    }
}
