//! One run: its `result.json` and the sums of its `run.hlog`.
//!
//! The two are held against each other: each histogram must have as many samples in the log as the result says, so a log that was cut at the end
//! of a line is noticed as well. Fields of the result that nothing here knows are kept and ignored.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use hdrhistogram::Histogram;
use serde_json::Value;

use super::{Problem, hlog};

/// What a `result.json` must call itself.
pub const FORMAT: &str = "ringroom-load";
pub const VERSION: u64 = 2;
/// A run with this file beside its result is not to be compared; it names what changed.
pub const DRIFT: &str = "drift.txt";
/// A result has a few KiB and a line per second; a log a few KiB per second and histogram.
const RESULT_BYTES_MAX: u64 = 64 << 20;
const LOG_BYTES_MAX: u64 = 1 << 30;
/// Names of histograms in one log.
const TAGS_MAX: usize = 64;
/// The two that make up the derived `delivery`.
const DELIVERIES: [&str; 2] = ["room.delivery", "dm.delivery"];

/// Not of the window, so not held against the result's counts.
const OUTSIDE: [&str; 2] = ["connect", "warmup"];

/// A run as it was read.
#[derive(Clone, Debug)]
pub struct Run {
    /// The last part of its path.
    pub name: String,
    pub path: PathBuf,
    /// `result.json`.
    pub result: Value,
    /// By name: the sum over the whole log, and `delivery`.
    pub histograms: BTreeMap<String, Histogram<u64>>,
}

impl Run {
    pub fn read(path: &Path) -> Result<Self, Problem> {
        let result = read_result(&path.join("result.json"))?;
        let file = path.join("run.hlog");
        let mut histograms = BTreeMap::new();
        let mut add = |interval: hlog::Interval<'_>| add_to(&mut histograms, interval.tag, &interval.histogram);
        hlog::read(&read_bytes(&file, LOG_BYTES_MAX)?, &mut add).map_err(|damage| data(&file, &damage.to_string()))?;
        let run = Self {
            name: name(path),
            path: path.to_owned(),
            result,
            histograms: with_delivery(histograms).map_err(|why| data(&file, &why))?,
        };
        run.check()?;
        Ok(run)
    }

    /// The log has what the result counts.
    fn check(&self) -> Result<(), Problem> {
        let Some(latency) = self.result.get("latency").and_then(Value::as_object) else {
            return Err(data(&self.path.join("result.json"), "has no latency"));
        };
        for (name, figures) in latency.iter().filter(|(name, _)| !OUTSIDE.contains(&name.as_str())) {
            let told = figures.get("count").and_then(Value::as_u64).unwrap_or(0);
            let found = self.histograms.get(name).map_or(0, Histogram::len);
            if told != found {
                let what = format!("has {found} samples of {name}, result.json tells {told}: cut short, or of another run");
                return Err(data(&self.path.join("run.hlog"), &what));
            }
        }
        Ok(())
    }

    /// A field by its path of names: `at("plan.rate")`.
    pub fn at(&self, path: &str) -> Option<&Value> {
        path.split('.').try_fold(&self.result, |value, key| value.get(key)).filter(|value| !value.is_null())
    }

    pub fn text(&self, path: &str) -> Option<&str> {
        self.at(path)?.as_str()
    }

    pub fn number(&self, path: &str) -> Option<f64> {
        self.at(path)?.as_f64()
    }

    pub fn count(&self, path: &str) -> Option<u64> {
        self.at(path)?.as_u64()
    }

    pub fn list(&self, path: &str) -> &[Value] {
        self.at(path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// What was driven: `ringroom`, `nats`...
    pub fn target(&self) -> &str {
        self.text("target").unwrap_or("?")
    }

    /// Why the run's figures are not to be compared; `None` if they may be. A missed objective is a figure like any other.
    pub fn flaw(&self) -> Option<String> {
        let reason = || self.list("reasons").first().and_then(Value::as_str).unwrap_or("no reason given");
        // `tune compare` leaves it where the machine's settings had changed during the run.
        if self.path.join(DRIFT).exists() {
            return Some("the machine's settings changed during the run (drift.txt)".into());
        }
        match self.text("verdict") {
            Some("ok" | "missed") if self.at("cut_short") == Some(&Value::Bool(true)) => Some("cut short".into()),
            Some("ok" | "missed") => None,
            Some(verdict) => Some(format!("{verdict}: {}", reason())),
            None => Some("without a verdict".into()),
        }
    }
}

/// The last part of a path that says something: `..` and `.` are followed first.
pub(super) fn name(path: &Path) -> String {
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    whole.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

pub(super) fn data(path: &Path, what: &str) -> Problem {
    Problem::Data(format!("{}: {what}", path.display()))
}

pub(super) fn read_bytes(path: &Path, most: u64) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(most + 1).read_to_end(&mut bytes));
    read.map_err(|error| data(path, &error.to_string()))?;
    if bytes.len() as u64 > most { Err(data(path, &format!("longer than {most} bytes"))) } else { Ok(bytes) }
}

pub(super) fn read_log(path: &Path) -> Result<Vec<u8>, Problem> {
    read_bytes(path, LOG_BYTES_MAX)
}

pub(super) fn read_result(path: &Path) -> Result<Value, Problem> {
    let result: Value =
        serde_json::from_slice(&read_bytes(path, RESULT_BYTES_MAX)?).map_err(|error| data(path, &format!("no JSON: {error}")))?;
    let (format, version) = (result.get("format").and_then(Value::as_str), result.get("version").and_then(Value::as_u64));
    match (format, version) {
        (Some(FORMAT), Some(VERSION)) => Ok(result),
        (Some(FORMAT), Some(version)) => Err(data(path, &format!("is of version {version}; this program reads version {VERSION}"))),
        _ => Err(data(path, "is no result of `ringroom load`")),
    }
}

/// Adds counts; names and their number come from the file, so both are bounded.
pub(super) fn add_to(sums: &mut BTreeMap<String, Histogram<u64>>, tag: &str, part: &Histogram<u64>) -> Result<(), String> {
    if !sums.contains_key(tag) {
        if sums.len() >= TAGS_MAX {
            return Err(format!("more than {TAGS_MAX} names of histograms"));
        }
        let mut empty = Histogram::new_from(part);
        empty.auto(true);
        sums.insert(tag.to_owned(), empty);
    }
    let sum = sums.get_mut(tag).ok_or("just put there")?;
    sum.add(part).map_err(|error| format!("{tag}: histograms that do not add: {error}"))
}

pub(super) fn with_delivery(mut sums: BTreeMap<String, Histogram<u64>>) -> Result<BTreeMap<String, Histogram<u64>>, String> {
    for name in DELIVERIES {
        if let Some(part) = sums.get(name).cloned() {
            add_to(&mut sums, "delivery", &part)?;
        }
    }
    Ok(sums)
}
