//! A side of a comparison: the runs of one configuration.
//!
//! An argument is a directory of run directories, or one run. All runs of all sides must have carried out the same scenario; what may differ is
//! what is compared (the target, its address, its configuration) and the seed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Problem;
use super::run::{self, Run, data};

/// Runs of one side. Every pair of runs is looked at some thousand times.
pub const RUNS_MAX: usize = 100;
/// Parts of the plan that do not make another scenario.
const FREE: [&str; 4] = ["address", "seed", "sources", "threads"];
/// Parts that the seed decides where room sizes are drawn.
const DRAWN: [&str; 3] = ["room_size", "room_sizes", "memberships"];

#[derive(Clone, Debug)]
pub struct Side {
    pub name: String,
    pub path: PathBuf,
    /// By name.
    pub runs: Vec<Run>,
}

impl Side {
    pub fn read(path: &Path) -> Result<Self, Problem> {
        let paths = run_paths(path)?;
        if paths.len() > RUNS_MAX {
            return Err(data(path, &format!("{} runs; at most {RUNS_MAX} are compared", paths.len())));
        }
        let runs = paths.iter().map(|path| Run::read(path)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { name: run::name(path), path: path.to_owned(), runs })
    }

    /// The runs whose figures count.
    pub fn valid(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter().filter(|run| run.flaw().is_none())
    }
}

/// The run directories behind an argument, sorted by name.
fn run_paths(path: &Path) -> Result<Vec<PathBuf>, Problem> {
    if !path.is_dir() {
        return Err(Problem::Usage(format!("{}: no such directory", path.display())));
    }
    if path.join("result.json").exists() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = fs::read_dir(path).map_err(|error| data(path, &error.to_string()))?;
    let mut paths = Vec::new();
    for entry in entries {
        let inside = entry.map_err(|error| data(path, &error.to_string()))?.path();
        // A log without a result is a run that was killed: say so, do not leave it out in silence.
        if inside.join("result.json").exists() || inside.join("run.hlog").exists() {
            paths.push(inside);
        }
    }
    if paths.is_empty() {
        return Err(Problem::Usage(format!("{}: neither a run (result.json) nor a directory of runs", path.display())));
    }
    paths.sort();
    Ok(paths)
}

/// Refuses a run that would count twice, by its directory or as a copy.
pub fn check_distinct<'a>(runs: impl Iterator<Item = &'a Run>) -> Result<(), Problem> {
    let mut seen: BTreeMap<String, &Path> = BTreeMap::new();
    for run in runs {
        let place = run.path.canonicalize().unwrap_or_else(|_| run.path.clone());
        let started = run.at("run").zip(run.at("started_unix_ms")).map(|(id, ms)| format!("{id} {ms}"));
        for key in [Some(place.display().to_string()), started].into_iter().flatten() {
            if let Some(before) = seen.insert(key, &run.path) {
                return Err(Problem::Usage(format!("{} and {} are the same run", before.display(), run.path.display())));
            }
        }
    }
    Ok(())
}

/// Sides of one name get their path as name.
pub fn tell_apart(sides: &mut [Side]) {
    let names: Vec<String> = sides.iter().map(|side| side.name.clone()).collect();
    for side in sides {
        if names.iter().filter(|name| **name == side.name).count() > 1 {
            side.name = side.path.display().to_string();
        }
    }
}

/// Refuses runs of different scenarios, with the first thing that differs.
pub fn check_same_scenario<'a>(mut runs: impl Iterator<Item = &'a Run>) -> Result<(), Problem> {
    let Some(first) = runs.next() else { return Ok(()) };
    for run in runs {
        if let Some((key, one, other)) = difference(first, run) {
            let (one, other) = (shown(one), shown(other));
            let (here, there) = (first.path.display(), run.path.display());
            return Err(Problem::Usage(format!("not the same scenario: {key} is {one} in {here} and {other} in {there}")));
        }
    }
    Ok(())
}

/// Refuses generators that did not work on one plan. Each has its own part of the connections and the load, so those may differ.
pub fn check_same_merge(runs: &[Run]) -> Result<(), Problem> {
    const OWN: [&str; 8] = ["connections", "rate", "memberships", "probes", "phases", "rooms", "churn_per_s", "direct_share"];
    let equal = |key: &str, one: &Run, other: &Run| one.at(key) == other.at(key);
    for run in &runs[1..] {
        let keys = run.at("plan").and_then(Value::as_object).into_iter().flat_map(|plan| plan.keys());
        let plan = keys.filter(|key| !OWN.contains(&key.as_str()) && !FREE[1..].contains(&key.as_str()) && !DRAWN.contains(&key.as_str()));
        let keys = plan.map(|key| format!("plan.{key}")).chain(["loop".to_owned(), "target".to_owned()]);
        if let Some(key) = keys.into_iter().find(|key| !equal(key, &runs[0], run)) {
            let (one, other) = (shown(runs[0].at(&key)), shown(run.at(&key)));
            let (here, there) = (runs[0].path.display(), run.path.display());
            return Err(Problem::Usage(format!("not generators of one run: {key} is {one} in {here} and {other} in {there}")));
        }
    }
    Ok(())
}

type Difference<'a> = (String, Option<&'a Value>, Option<&'a Value>);

fn difference<'a>(one: &'a Run, other: &'a Run) -> Option<Difference<'a>> {
    if one.at("loop") != other.at("loop") {
        return Some(("loop".into(), one.at("loop"), other.at("loop")));
    }
    let plan = |run: &'a Run| run.at("plan").and_then(Value::as_object);
    let (Some(ours), Some(theirs)) = (plan(one), plan(other)) else {
        return (plan(one).is_some() != plan(other).is_some()).then(|| ("plan".into(), one.at("plan"), other.at("plan")));
    };
    let drawn = one.at("plan.seed") != other.at("plan.seed") && one.at("plan.room_sizes.min") != one.at("plan.room_sizes.max");
    let free = |key: &str| FREE.contains(&key) || (drawn && DRAWN.contains(&key));
    let keys = ours.keys().chain(theirs.keys().filter(|key| !ours.contains_key(*key)));
    keys.filter(|key| !free(key))
        .find(|key| ours.get(*key) != theirs.get(*key))
        .map(|key| (format!("plan.{key}"), ours.get(key), theirs.get(key)))
}

/// A value in a sentence, cut: it may be anything.
fn shown(value: Option<&Value>) -> String {
    const LONGEST: usize = 80;
    let text = value.map_or_else(|| "absent".to_owned(), Value::to_string);
    if text.chars().count() <= LONGEST { text } else { text.chars().take(LONGEST).chain("...".chars()).collect() }
}
