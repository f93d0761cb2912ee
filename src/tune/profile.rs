//! Profiles: named sets of wanted values. Six are built in (`tuning/profiles/`); a path to a file of one's own works as well.
//!
//! A profile includes others, later values win; CPU roles too. Reading one checks every id and every value against the catalogue, so that nothing
//! is found wrong after the first write. Errors name file, line and reason.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use toml::{Spanned, Value as Toml};

use crate::config;
use crate::sys::affinity::Cpu;

use super::catalogue::{Catalogue, Setting, in_file, line_of};
use super::roles::{self, Roles};
use super::value::Wanted;

/// The built-in profiles: name and text.
pub const BUILT_IN: [(&str, &str); 6] = [
    ("baseline", include_str!("../../tuning/profiles/baseline.toml")),
    ("vm-loopback", include_str!("../../tuning/profiles/vm-loopback.toml")),
    ("latency", include_str!("../../tuning/profiles/latency.toml")),
    ("throughput", include_str!("../../tuning/profiles/throughput.toml")),
    ("isolated", include_str!("../../tuning/profiles/isolated.toml")),
    ("lab-unsafe", include_str!("../../tuning/profiles/lab-unsafe.toml")),
];

/// Profiles that include profiles.
const DEPTH_MAX: usize = 8;
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// A profile made concrete for this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    pub name: String,
    pub text: String,
    pub cost: String,
    pub roles: Roles,
    /// In the order of the catalogue.
    pub values: Vec<(Setting, Wanted)>,
}

impl Profile {
    /// The highest risk of its settings.
    pub fn risk(&self) -> u8 {
        self.values.iter().map(|(setting, _)| setting.risk).max().unwrap_or(0)
    }

    /// The same with one value alone, or without one; named so.
    #[must_use]
    pub fn only(&self, id: &str) -> Self {
        let values = self.values.iter().filter(|(setting, _)| setting.id == id).cloned().collect();
        Self { name: id.to_owned(), values, ..self.clone() }
    }

    #[must_use]
    pub fn without(&self, id: &str) -> Self {
        let values = self.values.iter().filter(|(setting, _)| setting.id != id).cloned().collect();
        Self { name: format!("{} without {id}", self.name), values, ..self.clone() }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    text: String,
    #[serde(default)]
    cost: String,
    #[serde(default)]
    include: Vec<Spanned<String>>,
    #[serde(default)]
    cpus: BTreeMap<Spanned<String>, String>,
    #[serde(default)]
    values: BTreeMap<Spanned<String>, Spanned<Toml>>,
}

/// Where a value was written, for an error that is found when all is known.
#[derive(Clone)]
struct Place {
    file: String,
    line: usize,
}

impl Place {
    fn blame(&self, why: impl std::fmt::Display) -> String {
        format!("{}:{}: {why}", self.file, self.line)
    }
}

/// What the included files add up to.
#[derive(Default)]
struct Sum {
    roles: BTreeMap<String, (String, Place)>,
    values: BTreeMap<String, (Toml, Place)>,
}

/// Reads the profile of a built-in name, or of a path that ends in `.toml`.
pub fn load(name: &str, catalogue: &Catalogue, cpus: &[Cpu]) -> Result<Profile, String> {
    let mut sum = Sum::default();
    let (text, cost) = gather(name, None, 0, &mut sum)?;
    let pairs: Vec<(&str, &str)> = sum.roles.iter().map(|(role, (cpus, _))| (role.as_str(), cpus.as_str())).collect();
    let roles = Roles::of(cpus, &pairs).map_err(|why| {
        let place = sum.roles.values().next().map(|(_, place)| place.clone());
        place.map_or_else(|| why.clone(), |place| place.blame(&why))
    })?;
    let mut values = Vec::with_capacity(sum.values.len());
    for setting in catalogue.settings() {
        let Some((value, place)) = sum.values.remove(&setting.id) else { continue };
        let wanted = setting.values.wanted(&value, &roles).map_err(|why| place.blame(format!("{}: {why}", setting.id)))?;
        values.push((setting.clone(), wanted));
    }
    if let Some((id, (_, place))) = sum.values.into_iter().next() {
        let near = catalogue.nearest(&id).map_or_else(String::new, |near| format!("; did you mean {near}?"));
        return Err(place.blame(format!("{id}: no such setting{near} (ringroom tune list)")));
    }
    Ok(Profile { name: short_name(name), text, cost, roles, values })
}

/// Adds a file and what it includes; gives its own text and cost.
fn gather(name: &str, from: Option<&Place>, depth: usize, sum: &mut Sum) -> Result<(String, String), String> {
    let blame = |why: String| from.map_or_else(|| why.clone(), |place| place.blame(&why));
    if depth > DEPTH_MAX {
        return Err(blame(format!("{name} is included too deep: does it include itself?")));
    }
    let (file, text) = source(name).map_err(blame)?;
    let parsed: File = toml::from_str(&text).map_err(|error| in_file(&file, &text, &error))?;
    let place = |at: usize| Place { file: file.clone(), line: line_of(&text, at) };
    for include in &parsed.include {
        gather(include.get_ref(), Some(&place(include.span().start)), depth + 1, sum)?;
    }
    for (role, cpus) in parsed.cpus {
        let at = place(role.span().start);
        if !roles::NAMES.contains(&role.get_ref().as_str()) {
            return Err(at.blame(format!("{:?} is no role: {}", role.get_ref(), roles::NAMES.join(", "))));
        }
        sum.roles.insert(role.into_inner(), (cpus, at));
    }
    for (id, value) in parsed.values {
        let at = place(id.span().start);
        sum.values.insert(id.into_inner(), (value.into_inner(), at));
    }
    Ok((parsed.text, parsed.cost))
}

/// The name a file goes by and its text.
fn source(name: &str) -> Result<(String, String), String> {
    if let Some((_, text)) = BUILT_IN.iter().find(|(known, _)| *known == name) {
        return Ok((format!("profiles/{name}.toml"), (*text).to_owned()));
    }
    if !name.ends_with(".toml") {
        let names = BUILT_IN.map(|(name, _)| name);
        let near = config::nearest(name, names.into_iter()).map_or_else(String::new, |near| format!("; did you mean {near}?"));
        return Err(format!("no profile {name:?}{near} There are {}; or give the path of a file that ends in .toml", names.join(", ")));
    }
    let too_large = fs::metadata(name).is_ok_and(|data| data.len() > FILE_BYTES_MAX);
    if too_large {
        return Err(format!("{name} is larger than 1 MiB: is it a profile?"));
    }
    let text = fs::read_to_string(name).map_err(|why| format!("can't read {name}: {why}"))?;
    Ok((name.to_owned(), text))
}

fn short_name(name: &str) -> String {
    Path::new(name).file_stem().map_or_else(|| name.to_owned(), |stem| stem.to_string_lossy().into_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::io::Write;

    fn cpus() -> Vec<Cpu> {
        (0..4).map(Cpu).collect()
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn read(text: &str) -> Result<Profile, String> {
        let file = file(text);
        let path = file.path().to_str().unwrap().to_owned();
        load(&path, &Catalogue::built_in(), &cpus()).map_err(|why| why.replace(&path, "p"))
    }

    #[test]
    fn every_built_in_profile_is_right_and_only_one_needs_courage() {
        for (name, _) in BUILT_IN {
            let profile = load(name, &Catalogue::built_in(), &cpus()).unwrap();
            assert!(!profile.text.is_empty() && !profile.cost.is_empty());
            assert_eq!(profile.values.is_empty(), name == "baseline");
            assert_eq!(profile.risk() == super::super::catalogue::RISK_MAX, name == "lab-unsafe", "{name}");
        }
    }

    #[test]
    fn a_profile_adds_to_what_it_includes_and_wins() {
        let profile = read("text = \"t\"\ninclude = [\"vm-loopback\"]\n[values]\n\"server.spin\" = 7\n\"vm.swappiness\" = 1\n").unwrap();
        let value = |id: &str| profile.values.iter().find(|(setting, _)| setting.id == id).map(|(_, wanted)| wanted.text.clone());
        assert_eq!(value("server.spin"), Some("7".into()));
        assert_eq!(value("vm.swappiness"), Some("1".into()));
        assert_eq!(value("cpu.dma_latency"), Some("0".into()));
        assert_eq!(profile.only("server.spin").values.len(), 1);
        assert_eq!(profile.without("server.spin").values.len() + 1, profile.values.len());
    }

    #[test]
    fn mistakes_are_named_with_file_line_and_reason() {
        let wrong = |text: &str| read(text).unwrap_err();
        let values = |line: &str| wrong(&format!("text = \"t\"\n[values]\n{line}\n"));
        assert!(values("\"tcp.autocork\" = 0").starts_with("p:3: tcp.autocork: no such setting; did you mean tcp.autocorking?"));
        assert!(values("\"vm.swappiness\" = \"10\"").starts_with("p:3: vm.swappiness: must be a number from 0 to 200"));
        assert!(values("\"vm.swappiness\" = 201").starts_with("p:3: vm.swappiness: 201 is out of range"));
        assert!(values("\"vm.thp\" = \"sometimes\"").contains("always, madvise, never"));
        assert!(values("\"server.cpus\" = \"9\"").starts_with("p:3: server.cpus: CPU 9 is not on this machine"));
        assert!(wrong("text = \"t\"\n[cpus]\nshard = \"0\"\n").starts_with("p:3: \"shard\" is no role"));
        assert!(wrong("text = \"t\"\ninclude = [\"latencies\"]\n").starts_with("p:2: no profile \"latencies\"; did you mean latency?"));
        assert!(wrong("text = \"t\"\nvalue = 1\n").starts_with("p:2: unknown field"));
        assert!(wrong("text = \n").starts_with("p:1: "));
        assert!(load("nothing.toml", &Catalogue::built_in(), &cpus()).unwrap_err().contains("can't read nothing.toml"));
    }
}
