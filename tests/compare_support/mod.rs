//! Planted runs: directories as `ringroom load --out` writes them, with latencies of the test's choice.
//!
//! Whole numbers throughout, so that the same plant gives the same files on every machine.
#![allow(dead_code, clippy::unwrap_used, reason = "tests; each uses a part of it")]

use std::fs;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use ringroom::stats::random::Random;
use serde_json::{Value, json};

const SECONDS: u64 = 4;

/// What a run shall look like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plant {
    pub(crate) seed: u64,
    /// Samples per second and histogram.
    pub(crate) samples: u32,
    /// Median of the deliveries.
    pub(crate) median_us: u64,
    /// One delivery in 200 lies in the tail, which begins here.
    pub(crate) tail_us: u64,
    /// Runs differ by up to this many thousandths.
    pub(crate) wobble: u64,
    pub(crate) started_ms: u64,
}

impl Default for Plant {
    fn default() -> Self {
        Self { seed: 1, samples: 26_000, median_us: 300, tail_us: 900, wobble: 15, started_ms: 1_795_568_523_000 }
    }
}

impl Plant {
    /// Writes the run; `edit` has the last word on its result.
    pub(crate) fn write_with(&self, directory: &Path, edit: &dyn Fn(&mut Value)) {
        fs::create_dir_all(directory).unwrap();
        let mut random = Random::new(self.seed);
        let wobble = 1_000 + u64::try_from(random.below(usize::try_from(2 * self.wobble + 1).unwrap())).unwrap() - self.wobble;
        let mut log = Vec::new();
        let mut serializer = V2DeflateSerializer::new();
        let start = UNIX_EPOCH + Duration::from_millis(self.started_ms);
        let mut builder = IntervalLogWriterBuilder::new();
        builder.add_comment("planted").with_start_time(start).with_base_time(start);
        let mut writer = builder.begin_log_with(&mut log, &mut serializer).unwrap();
        let mut sums: Vec<(&str, Histogram<u64>)> =
            ["warmup", "room.delivery", "room.last", "sent", "lateness"].map(|name| (name, empty())).into();
        for second in 0..=SECONDS {
            for (name, sum) in &mut sums {
                if (second == 0) == (*name == "warmup") {
                    let histogram = self.second(&mut random, wobble, name);
                    sum.add(&histogram).unwrap();
                    writer.write_histogram(&histogram, Duration::from_secs(second), Duration::from_secs(1), Tag::new(name)).unwrap();
                }
            }
        }
        fs::write(directory.join("run.hlog"), log).unwrap();
        let mut result = self.result(&sums);
        edit(&mut result);
        fs::write(directory.join("result.json"), serde_json::to_vec(&result).unwrap()).unwrap();
    }

    pub(crate) fn write(&self, directory: &Path) {
        self.write_with(directory, &|_| ());
    }

    /// `count` runs `1`, `2`... with seeds of their own, a minute apart.
    pub(crate) fn side(&self, directory: &Path, count: u64) {
        for number in 0..count {
            let run = Self { seed: self.seed * 1_000 + number, started_ms: self.started_ms + number * 60_000, ..*self };
            run.write(&directory.join((number + 1).to_string()));
        }
    }

    fn second(&self, random: &mut Random, wobble: u64, name: &str) -> Histogram<u64> {
        let mut histogram = empty();
        let factor = match name {
            "room.last" => 3,
            "lateness" => 0,
            _ => 2,
        };
        for _ in 0..self.samples {
            let draw = |random: &mut Random, below: usize| u64::try_from(random.below(below)).unwrap();
            // A skewed hump around the median, and a tail that falls off by halves.
            let hump = 700 + draw(random, 300) + draw(random, 301);
            let mut ns = self.median_us * hump * wobble / 1_000 * factor / 2;
            if draw(random, 200) == 0 {
                ns = self.tail_us * (1_000 + draw(random, 400)) * wobble / 1_000;
                while draw(random, 2) == 0 && ns < 30_000_000_000 {
                    ns += ns / 4;
                }
            }
            histogram.saturating_record(if name == "lateness" { 2_000 + draw(random, 9_000) } else { ns });
        }
        histogram
    }

    fn result(&self, sums: &[(&str, Histogram<u64>)]) -> Value {
        let latency: serde_json::Map<String, Value> = sums.iter().map(|(name, sum)| ((*name).to_owned(), figures(sum))).collect();
        let seconds: Vec<Value> = (0..=SECONDS).map(|second| self.second_shown(second)).collect();
        let sent = u64::from(self.samples) * SECONDS / 100;
        json!({
            "format": "ringroom-load", "version": 2, "verdict": "ok", "exit": 0, "reasons": [], "warnings": [],
            "command": ["ringroom", "load", "--rate", "1000"], "target": "ringroom", "loop": "open", "run": format!("{:08x}", self.seed),
            "started_unix_ms": self.started_ms, "scenario": { "name": "fan-out", "file": null, "about": "One room of 100." },
            "plan": {
                "address": "127.0.0.1:7777", "mode": "rooms", "connections": 100, "rooms": 1, "room_size": 100,
                "room_sizes": { "min": 100, "median": 100, "mean": 100.0, "max": 100 }, "memberships": 100, "rate": 1000.0, "direct_share": 0.0,
                "body_bytes": 128, "body_sizes": "128", "threads": 1, "arrivals": "poisson", "seed": self.seed, "warmup_ns": 1_000_000_000u64,
                "duration_ns": 4_000_000_000u64, "sample_every": 1,
                "phases": [{ "name": "hold", "start_ns": 0, "end_ns": 5_000_000_000u64, "rate_from": 1000.0, "rate_to": 1000.0 }],
                "sources": ["127.0.0.1"], "churn_per_s": 0.0, "slow_readers": 0, "stopped_readers": 0, "probes": 0,
            },
            "window_ns": 4_000_000_000u64, "cut_short": false,
            "counts": { "offered": sent, "sent": sent, "answered": sent, "delivered": sent * 100, "refused": 0, "late": 0 },
            "sent_per_s": sent / SECONDS, "delivered_per_s": u64::from(self.samples) + self.seed % 7,
            "sent_in_all": sent + 10, "deliveries_expected_in_all": (sent + 10) * 100, "deliveries_in_all": (sent + 10) * 100,
            "faults": { "lost": 0, "doubled": 0, "out_of_order": 0, "order_differs": 0, "garbled": 0, "unanswered": 0, "closed": 0 },
            "excused": 0, "unsent": 0,
            "remarks": { "refusals": {}, "closed": {}, "connect_failures": {}, "gaps": 0, "missed_by_closed": 0, "reconnects": 0, "examples": [] },
            "latency": latency, "slo": [], "find_max": null,
            "generator": { "busy_share": 0.31, "threads": [], "clock": { "source": "tsc", "step_p50_ns": 25, "step_p99_ns": 31, "step_max_ns": 18_000 } },
            "server": {
                "pid": 4242, "cpu_ns": 900_000_000u64, "deliveries": sent * 100, "cpu_us_per_delivery": 5.0 + as_f64(self.seed % 11) / 100.0,
                "memory_before": { "rss_bytes": 20_000_000, "pss_bytes": 19_000_000 }, "memory": { "rss_bytes": 21_000_000, "pss_bytes": 20_000_000 },
            },
            "environment": {
                "kernel": "6.18.5", "cpu": "AMD EPYC", "cpus": 2, "governor": null, "mitigations": { "meltdown": "Not affected" },
                "clocksource": "tsc", "load_before": 0.1, "steal_share": 0.001, "nstat": { "TcpRetransSegs": self.seed % 3 },
                "server_config": "[shard]\nspin_us = 0\n",
            },
            "agents": [], "seconds": seconds,
        })
    }

    fn second_shown(&self, second: u64) -> Value {
        let (phase, us) = (if second == 0 { "warmup" } else { "measured" }, 1_000 + second * 10);
        let sent = self.samples / 100;
        json!({
            "start_ns": second * 1_000_000_000, "end_ns": (second + 1) * 1_000_000_000, "phase": phase, "offered": sent, "sent": sent,
            "answered": sent, "delivered": self.samples, "refused": 0, "late": 0, "p50_ns": self.median_us * us, "p90_ns": self.median_us * us * 5 / 4,
            "p99_ns": self.tail_us * us, "p99_9_ns": self.tail_us * us * 2, "max_ns": self.tail_us * us * 5, "lateness_p99_ns": 11_000, "open": 100,
        })
    }
}

fn empty() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap()
}

fn figures(sum: &Histogram<u64>) -> Value {
    let at = |quantile| sum.value_at_quantile(quantile);
    json!({ "count": sum.len(), "p50_ns": at(0.5), "p99_ns": at(0.99), "max_ns": sum.max() })
}

fn as_f64(number: u64) -> f64 {
    f64::from(u32::try_from(number).unwrap())
}

/// The command as a library call: what it prints, or its problem.
pub(crate) fn compare(sides: &[&Path], more: &[&str]) -> Result<String, ringroom::results::Problem> {
    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: ringroom::compare::Args,
    }
    let words = std::iter::once("compare").chain(sides.iter().map(|path| path.to_str().unwrap())).chain(more.iter().copied());
    let cli = <Cli as clap::Parser>::try_parse_from(words).unwrap_or_else(|error| panic!("{error}"));
    let mut out = Vec::new();
    ringroom::compare::execute(&cli.args, &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

/// The same, as the object that `--json` prints.
pub(crate) fn comparison(sides: &[&Path], more: &[&str]) -> Value {
    let more: Vec<&str> = more.iter().copied().chain(["--json"]).collect();
    serde_json::from_str(&compare(sides, &more).unwrap_or_else(|problem| panic!("{problem}"))).unwrap()
}

/// The verdict on a figure of a histogram in the first pair.
pub(crate) fn verdict<'a>(comparison: &'a Value, histogram: &str, figure: &str) -> &'a str {
    let pair = &comparison["pairs"][0];
    let rows = match histogram {
        "whole" => &pair["whole"],
        name => &pair["histograms"].as_array().unwrap().iter().find(|h| h["name"] == name).unwrap()["rows"],
    };
    let row = rows.as_array().unwrap().iter().find(|row| row["figure"] == figure).unwrap();
    row["verdict"].as_str().unwrap()
}
