//! What surrounded the runs: kernel, CPU, settings, the server's configuration; and where two sides differ in it.
//!
//! Everything below `environment` is flattened to names with dots. Counters that differ from run to run by nature (load, steal, nstat, interrupts) are
//! no difference in surroundings and are left out here; a page of one run shows them.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use super::run::Run;
use super::side::Side;

/// Names in one environment, values of one name, bytes of one value: a page stays readable whatever a file holds.
const NAMES_MAX: usize = 400;
const VALUES_MAX: usize = 6;
const VALUE_CHARS_MAX: usize = 300;
/// Beginnings of names that measure rather than describe.
const MEASURED: [&str; 6] = ["load_before", "steal_share", "nstat.", "context_switches", "softirqs.", "interrupts"];

/// A name whose value is not the same in all runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    pub name: String,
    /// By side: the values of its runs, each once. Empty: the side has none.
    pub values: Vec<Vec<String>>,
}

/// The surroundings of one run, by name.
pub fn of(run: &Run) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    if let Some(environment) = run.at("environment") {
        flatten("", environment, &mut found);
    }
    if let Some(text) = run.text("environment.server_config") {
        found.remove("server_config");
        found.extend(config_lines(text).map(|(key, value)| (format!("server_config.{key}"), cut(&value))));
    }
    for (name, path) in [("target", "target"), ("address", "plan.address"), ("threads", "plan.threads"), ("seed", "plan.seed")] {
        if let Some(value) = run.at(path) {
            found.insert(name.to_owned(), plain(value));
        }
    }
    found
}

/// Whether a name describes the surroundings; the others are measurements.
pub fn describes(name: &str) -> bool {
    !MEASURED.iter().any(|start| name.starts_with(start))
}

/// The names that differ, between the sides or within one.
pub fn differences(sides: &[Side]) -> Vec<Difference> {
    let all: Vec<Vec<BTreeMap<String, String>>> = sides.iter().map(|side| side.valid().map(of).collect()).collect();
    let names: BTreeSet<&String> = all.iter().flatten().flat_map(BTreeMap::keys).filter(|name| describes(name)).collect();
    let difference = |name: &&String| {
        let by_side: Vec<BTreeSet<Option<&String>>> = all.iter().map(|runs| runs.iter().map(|run| run.get(*name)).collect()).collect();
        let one = by_side.iter().flatten().collect::<BTreeSet<_>>().len() <= 1;
        let shown = |values: &BTreeSet<Option<&String>>| values.iter().flatten().take(VALUES_MAX).map(|value| (*value).clone()).collect();
        // Runs of one side each have a seed of their own; that the sides have the same ones is what counts.
        let same_seeds = *name == "seed" && by_side.windows(2).all(|two| two[0] == two[1]);
        (!one && !same_seeds).then(|| Difference { name: (*name).clone(), values: by_side.iter().map(shown).collect() })
    };
    names.iter().filter_map(difference).collect()
}

fn flatten(name: &str, value: &Value, found: &mut BTreeMap<String, String>) {
    if found.len() >= NAMES_MAX {
        return;
    }
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                flatten(&name, value, found);
            }
        }
        Value::Null => {}
        other => drop(found.insert(cut(name), plain(other))),
    }
}

fn plain(value: &Value) -> String {
    cut(&value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

fn cut(text: &str) -> String {
    if text.chars().count() <= VALUE_CHARS_MAX {
        text.to_owned()
    } else {
        text.chars().take(VALUE_CHARS_MAX).chain("...".chars()).collect()
    }
}

/// Keys and values of a TOML file, without reading it as one: it may be another server's.
fn config_lines(text: &str) -> impl Iterator<Item = (String, String)> {
    let mut section = String::new();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let pairs = lines.filter_map(move |line| {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = format!("{name}.");
            return None;
        }
        let (key, value) = line.split_once(['=', ' ']).unwrap_or((line, ""));
        Some((format!("{section}{}", key.trim()), value.trim_start_matches([' ', '=']).to_owned()))
    });
    pairs.take(NAMES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_cut_into_keys() {
        let text = "# c\nlisten = \"a:1\"\n[queue]\nsoft_bytes=5\nport 6379\n";
        let pairs: Vec<_> = config_lines(text).collect();
        let expected = [("listen", "\"a:1\""), ("queue.soft_bytes", "5"), ("queue.port", "6379")];
        assert_eq!(pairs, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }

    #[test]
    fn an_environment_is_flattened_and_bounded() {
        let mut found = BTreeMap::new();
        let value =
            serde_json::json!({ "kernel": "6", "mitigations": { "meltdown": "no" }, "cpus": 2, "none": null, "long": "x".repeat(9_000) });
        flatten("", &value, &mut found);
        assert_eq!(found.get("mitigations.meltdown").map(String::as_str), Some("no"));
        assert_eq!((found.get("cpus").map(String::as_str), found.contains_key("none"), found["long"].len()), (Some("2"), false, 303));
        assert!(describes("kernel") && !describes("nstat.TcpRetransSegs"));
    }
}
