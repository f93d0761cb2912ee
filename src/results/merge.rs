//! The files of several generators of *one* run, made into one.
//!
//! Counts are added, second by second and name by name; percentiles are taken of the sums and never averaged. Each generator's own percentiles stay in
//! `agents`, and one that holds most of the tail is named: then the tail tells of that generator (or its host) and not of the server.
//!
//! What can't be added is taken from the first generator that has it (the server, the environment). The verdict is the worst of all.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use serde_json::{Map, Value, json};

use super::compare::{as_f64, value_at};
use super::run::{self, Run, data};
use super::side::check_same_merge;
use super::{Problem, hlog};

/// Generators that are merged at once.
pub const GENERATORS_MAX: usize = 256;
/// Generators of one run start together; further apart than this they were not one run.
const START_APART_MS: u64 = 10_000;
/// A generator dominates when it has this part of the tail and this many times its part of all samples.
const TAIL_SHARE: f64 = 0.5;
const TAIL_TIMES: f64 = 1.5;
/// Where the tail begins.
const TAIL: f64 = 0.99;

/// What was merged.
#[derive(Clone, Debug)]
pub struct Merged {
    pub generators: usize,
    /// Sentences about generators that hold most of the tail.
    pub dominating: Vec<String>,
}

/// Reads the directories and writes `out/result.json` and `out/run.hlog`.
pub fn merge(out: &Path, directories: &[PathBuf]) -> Result<Merged, Problem> {
    if directories.len() < 2 {
        return Err(Problem::Usage("--merge takes the directory to write and at least two to read".into()));
    }
    if directories.len() > GENERATORS_MAX {
        return Err(Problem::Usage(format!("{} generators; at most {GENERATORS_MAX} are merged", directories.len())));
    }
    if out.join("result.json").exists() {
        return Err(Problem::Usage(format!("{}: holds a result already", out.display())));
    }
    let runs = directories.iter().map(|path| Run::read(path)).collect::<Result<Vec<_>, _>>()?;
    check_same_merge(&runs)?;
    check_one_run(&runs)?;
    let intervals = intervals(&runs)?;
    let mut sums = BTreeMap::new();
    for ((_, tag), interval) in &intervals {
        run::add_to(&mut sums, tag, &interval.1).map_err(Problem::Data)?;
    }
    let sums = run::with_delivery(sums).map_err(Problem::Data)?;
    let dominating = dominating(&runs, &sums);
    let result = result(&runs, &sums, &intervals, &dominating);
    write(out, &runs, &result, &intervals).map_err(|error| Problem::Output(format!("{}: {error}", out.display())))?;
    Ok(Merged { generators: runs.len(), dominating })
}

fn check_one_run(runs: &[Run]) -> Result<(), Problem> {
    let Some(start) = runs[0].count("started_unix_ms") else { return Err(data(&runs[0].path, "result.json has no started_unix_ms")) };
    for run in &runs[1..] {
        let other = run.count("started_unix_ms").ok_or_else(|| data(&run.path, "result.json has no started_unix_ms"))?;
        if start.abs_diff(other) > START_APART_MS {
            let apart = start.abs_diff(other) / 1_000;
            let (one, other) = (runs[0].path.display(), run.path.display());
            return Err(Problem::Usage(format!("{one} and {other} began {apart} s apart: they are not generators of one run")));
        }
        if run.at("run").is_some()
            && run.at("run") == runs[0].at("run")
            && run.at("plan.sources") == runs[0].at("plan.sources")
            && same_files(run, &runs[0])
        {
            return Err(Problem::Usage(format!("{} and {} are the same generator", runs[0].path.display(), run.path.display())));
        }
    }
    Ok(())
}

/// The same directory named twice, or a copy of it, would count everything twice.
fn same_files(one: &Run, other: &Run) -> bool {
    one.result == other.result
}

/// By the second it began in, in milliseconds, and its tag: length and sum.
type Intervals = BTreeMap<(u64, String), (u64, Histogram<u64>)>;

fn intervals(runs: &[Run]) -> Result<Intervals, Problem> {
    const MS: u64 = 1_000_000;
    let mut sums: Intervals = BTreeMap::new();
    for run in runs {
        let file = run.path.join("run.hlog");
        let mut add = |interval: hlog::Interval<'_>| {
            // Generators cut their seconds at the same times since the common start; milliseconds are what the log keeps.
            let key = (interval.start_ns / MS, interval.tag.to_owned());
            let entry = sums.entry(key).or_insert_with(|| {
                let mut empty = Histogram::new_from(&interval.histogram);
                empty.auto(true);
                (0, empty)
            });
            entry.0 = entry.0.max(interval.length_ns);
            entry.1.add(&interval.histogram).map_err(|error| error.to_string())
        };
        hlog::read(&run::read_log(&file)?, &mut add).map_err(|damage| data(&file, &damage.to_string()))?;
    }
    Ok(sums)
}

/// Sentences about generators that have most of a tail without having most of the samples.
fn dominating(runs: &[Run], sums: &BTreeMap<String, Histogram<u64>>) -> Vec<String> {
    let Some(sum) = sums.get("delivery") else { return Vec::new() };
    let tail = sum.value_at_quantile(TAIL);
    let beyond = |histogram: &Histogram<u64>| as_f64(histogram.count_between(tail.saturating_add(1), u64::MAX));
    let all = beyond(sum);
    let mut found = Vec::new();
    for run in runs {
        let Some(own) = run.histograms.get("delivery") else { continue };
        let (of_tail, of_all) = (beyond(own) / all.max(1.0), as_f64(own.len()) / as_f64(sum.len()).max(1.0));
        if of_tail > TAIL_SHARE && of_tail > TAIL_TIMES * of_all {
            let (of_tail, of_all) = (of_tail * 100.0, of_all * 100.0);
            let p99 = crate::chart::text::time(as_f64(own.value_at_quantile(TAIL)));
            found.push(format!(
                "{} has {of_tail:.0} % of the deliveries beyond the common p99 but {of_all:.0} % of all (its own p99: {p99}): the tail is this generator's",
                run.path.display()
            ));
        }
    }
    found
}

/// Fields whose numbers are added, whole objects at a time.
const ADDED: [&str; 11] = [
    "counts",
    "faults",
    "remarks",
    "excused",
    "unsent",
    "unwatched",
    "sent_per_s",
    "delivered_per_s",
    "sent_in_all",
    "deliveries_expected_in_all",
    "deliveries_in_all",
];
/// Parts of the plan that are added; the rest is equal by [`check_same_merge`].
const PLAN_ADDED: [&str; 4] = ["connections", "rate", "memberships", "probes"];

fn result(runs: &[Run], sums: &BTreeMap<String, Histogram<u64>>, intervals: &Intervals, dominating: &[String]) -> Value {
    let mut merged = runs[0].result.as_object().cloned().unwrap_or_default();
    for key in ADDED {
        if let Some(value) = runs.iter().filter_map(|run| run.result.get(key)).cloned().reduce(|sum, part| add(&sum, &part)) {
            merged.insert(key.into(), value);
        }
    }
    if let Some(plan) = merged.get_mut("plan").and_then(Value::as_object_mut) {
        for key in PLAN_ADDED {
            let path = format!("plan.{key}");
            if let Some(value) = runs.iter().filter_map(|run| run.at(&path)).cloned().reduce(|sum, part| add(&sum, &part)) {
                plan.insert(key.into(), value);
            }
        }
    }
    for key in ["server", "environment"] {
        if let Some(value) = runs.iter().find_map(|run| run.at(key)) {
            merged.insert(key.into(), value.clone());
        }
    }
    let verdict = worst(runs);
    merged.insert("exit".into(), json!(exit_of(verdict)));
    merged.insert("verdict".into(), json!(verdict));
    let sentences = |key: &str| -> Vec<Value> {
        let of = |run: &Run| -> Vec<Value> {
            run.list(key).iter().filter_map(Value::as_str).map(|text| json!(format!("{}: {text}", run.name))).collect()
        };
        runs.iter().flat_map(of).collect()
    };
    let mut warnings = sentences("warnings");
    warnings.extend(dominating.iter().map(|text| json!(text)));
    merged.insert("reasons".into(), Value::Array(sentences("reasons")));
    merged.insert("warnings".into(), Value::Array(warnings));
    merged.insert("cut_short".into(), json!(runs.iter().any(|run| run.at("cut_short") == Some(&Value::Bool(true)))));
    merged.insert("latency".into(), sums.iter().map(|(name, histogram)| (name.clone(), figures(histogram))).collect::<Map<_, _>>().into());
    merged.insert("agents".into(), runs.iter().map(agent).collect());
    merged.insert("seconds".into(), seconds(runs, intervals));
    // An objective was met or missed by one generator's figures: over all it is not known.
    merged.remove("slo");
    merged.remove("find_max");
    Value::Object(merged)
}

/// Numbers added, objects by their keys, lists joined; anything else is the first one's.
fn add(sum: &Value, part: &Value) -> Value {
    match (sum, part) {
        (Value::Number(a), Value::Number(b)) => match (a.as_u64(), b.as_u64()) {
            (Some(a), Some(b)) => json!(a.saturating_add(b)),
            _ => json!(a.as_f64().unwrap_or(0.0) + b.as_f64().unwrap_or(0.0)),
        },
        (Value::Object(a), Value::Object(b)) => {
            let mut both = a.clone();
            for (key, part) in b {
                let value = both.get(key).map_or_else(|| part.clone(), |sum| add(sum, part));
                both.insert(key.clone(), value);
            }
            Value::Object(both)
        }
        (Value::Array(a), Value::Array(b)) => a.iter().chain(b).cloned().collect(),
        (Value::Null, part) => part.clone(),
        (sum, _) => sum.clone(),
    }
}

fn worst(runs: &[Run]) -> &'static str {
    let has = |verdict| runs.iter().any(|run| run.text("verdict") == Some(verdict));
    match () {
        () if has("invalid") || runs.iter().any(|run| run.text("verdict").is_none()) => "invalid",
        () if has("faulty") => "faulty",
        () if has("missed") => "missed",
        () => "ok",
    }
}

fn exit_of(verdict: &str) -> u8 {
    match verdict {
        "ok" => 0,
        "invalid" => 2,
        _ => 1,
    }
}

/// As `latency` holds them.
fn figures(histogram: &Histogram<u64>) -> Value {
    let at = |quantile| value_at(histogram, quantile).map(|_| histogram.value_at_quantile(quantile));
    json!({
        "count": histogram.len(), "min_ns": histogram.min(), "mean_ns": histogram.mean(), "p50_ns": at(0.5), "p90_ns": at(0.9), "p99_ns": at(0.99),
        "p99_9_ns": at(0.999), "p99_99_ns": at(0.9999), "max_ns": histogram.max(),
    })
}

fn agent(run: &Run) -> Value {
    let of = |name: &str| run.histograms.get(name).map(figures);
    json!({
        "address": run.path.display().to_string(),
        "connections": run.at("plan.connections"),
        "sent_in_all": run.at("sent_in_all"),
        "deliveries_in_all": run.at("deliveries_in_all"),
        "verdict": run.at("verdict"),
        "delivery": of("delivery"),
        "lateness": of("lateness"),
    })
}

/// Counts added by second, percentiles of the added histograms.
fn seconds(runs: &[Run], intervals: &Intervals) -> Value {
    const ADDED: [&str; 9] = ["offered", "sent", "answered", "delivered", "refused", "late", "open", "doubled", "out_of_order"];
    let mut merged: BTreeMap<u64, Map<String, Value>> = BTreeMap::new();
    for second in runs.iter().flat_map(|run| run.list("seconds")).filter_map(Value::as_object) {
        let start_ms = second.get("start_ns").and_then(Value::as_u64).unwrap_or(0) / 1_000_000;
        match merged.get_mut(&start_ms) {
            None => drop(merged.insert(start_ms, second.clone())),
            Some(sum) => ADDED.iter().for_each(|key| {
                if let Some(part) = second.get(*key) {
                    let value = sum.get(*key).map_or_else(|| part.clone(), |sum| add(sum, part));
                    sum.insert((*key).into(), value);
                }
            }),
        }
    }
    for (start_ms, second) in &mut merged {
        percentiles(*start_ms, second, intervals);
    }
    merged.into_values().map(Value::Object).collect()
}

fn percentiles(start_ms: u64, second: &mut Map<String, Value>, intervals: &Intervals) {
    let mut all = BTreeMap::new();
    for tag in ["room.delivery", "dm.delivery", "warmup"] {
        if let Some((_, histogram)) = intervals.get(&(start_ms, tag.to_owned())) {
            // Both come from sums that could be added before.
            let _ = run::add_to(&mut all, "delivery", histogram);
        }
    }
    let lateness = intervals.get(&(start_ms, "lateness".to_owned())).map(|(_, histogram)| histogram);
    let at = |histogram: Option<&Histogram<u64>>, quantile| histogram.map(|histogram| histogram.value_at_quantile(quantile));
    let delivery = all.get("delivery");
    for (key, value) in [
        ("p50_ns", at(delivery, 0.5)),
        ("p90_ns", at(delivery, 0.9)),
        ("p99_ns", at(delivery, 0.99)),
        ("p99_9_ns", at(delivery, 0.999)),
        ("max_ns", at(delivery, 1.0)),
        ("lateness_p99_ns", at(lateness, 0.99)),
        ("lateness_max_ns", at(lateness, 1.0)),
    ] {
        second.insert(key.into(), json!(value));
    }
}

fn write(out: &Path, runs: &[Run], result: &Value, intervals: &Intervals) -> io::Result<()> {
    fs::create_dir_all(out)?;
    let mut file = BufWriter::new(File::create(out.join("run.hlog"))?);
    let started = runs.iter().filter_map(|run| run.count("started_unix_ms")).min().unwrap_or(0);
    let start = UNIX_EPOCH + Duration::from_millis(started);
    let mut serializer = V2DeflateSerializer::new();
    let mut builder = IntervalLogWriterBuilder::new();
    builder.add_comment("ringroom compare --merge; values in nanoseconds").with_start_time(start).with_base_time(start);
    let mut log = builder.begin_log_with(&mut file, &mut serializer)?;
    for ((start_ms, tag), (length_ns, histogram)) in intervals {
        let (start, length) = (Duration::from_millis(*start_ms), Duration::from_nanos(*length_ns));
        let tag = if tag.is_empty() { None } else { Tag::new(tag) };
        log.write_histogram(histogram, start, length, tag).map_err(|error| io::Error::other(error.to_string()))?;
    }
    file.flush()?;
    let mut text = serde_json::to_vec_pretty(result)?;
    text.push(b'\n');
    fs::write(out.join("result.json"), text)
}
