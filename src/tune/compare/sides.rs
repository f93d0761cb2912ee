//! The sides of a comparison and the order of their runs.
//!
//! *pair*: profiles against the first one. *ablation*: each setting of the second profile alone, and all of them, against the first profile.
//! *leave-one-out*: the second profile with one setting less each time, against the whole of it. The first side is measured a second time under the name
//! of `again`: the difference of two equal sides is the noise of the machine.

use serde::{Deserialize, Serialize};

use crate::stats::random::Random;

use super::super::catalogue::Loopback;
use super::super::machine::Machine;
use super::super::plan::{Plan, State};
use super::super::profile::Profile;

/// What is compared with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    Pair,
    Ablation,
    LeaveOneOut,
}

/// One side: a profile, and the setting it is there for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side {
    /// As its directory is called.
    pub name: String,
    pub profile: Profile,
    /// In ablation and leave-one-out: whose effect it shows.
    pub setting: Option<String>,
}

/// A setting that can't be compared here, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unobservable {
    pub setting: String,
    pub why: String,
}

/// All sides; the first is the reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sides {
    pub sides: Vec<Side>,
    pub unobservable: Vec<Unobservable>,
}

/// The directory of the reference's second set of runs.
pub const AGAIN: &str = "again";
/// Sides, and so directories.
const SIDES_MAX: usize = 64;

impl Sides {
    /// `loopback`: server and generator on one host, where the catalogue says what can't be seen.
    pub fn new(machine: &Machine, mode: Mode, profiles: &[Profile], loopback: bool) -> Result<Self, String> {
        let [first, second, ..] = profiles else { return Err("name at least two profiles: --profiles baseline,latency".to_owned()) };
        if mode != Mode::Pair && profiles.len() > 2 {
            return Err("ablation and leave-one-out compare two profiles".to_owned());
        }
        let mut unobservable = Vec::new();
        for profile in profiles {
            for (id, why) in out_of_reach(machine, profile, loopback) {
                if !unobservable.iter().any(|known: &Unobservable| known.setting == id) {
                    unobservable.push(Unobservable { setting: id, why });
                }
            }
        }
        let whole = |profile: &Profile| Side { name: directory(&profile.name), profile: profile.clone(), setting: None };
        let seen =
            second.values.iter().map(|(setting, _)| setting.id.clone()).filter(|id| !unobservable.iter().any(|known| known.setting == *id));
        let sides = match mode {
            Mode::Pair => profiles.iter().map(whole).collect(),
            Mode::Ablation => {
                let alone = seen.map(|id| Side { name: directory(&id), profile: over(first, &second.only(&id)), setting: Some(id) });
                std::iter::once(whole(first)).chain(alone).chain([whole(second)]).collect()
            }
            Mode::LeaveOneOut => {
                let without =
                    seen.map(|id| Side { name: directory(&format!("without-{id}")), profile: second.without(&id), setting: Some(id) });
                std::iter::once(whole(second)).chain(without).chain([whole(first)]).collect()
            }
        };
        Self { sides, unobservable }.checked()
    }

    fn checked(self) -> Result<Self, String> {
        if self.sides.len() > SIDES_MAX {
            return Err(format!("{} sides; at most {SIDES_MAX} are compared: name fewer settings", self.sides.len()));
        }
        for (i, side) in self.sides.iter().enumerate() {
            if side.name == AGAIN || self.sides[..i].iter().any(|other| other.name == side.name) {
                return Err(format!("two sides are called {}: rename a profile", side.name));
            }
        }
        Ok(self)
    }
}

/// The first profile's values with another's over them.
fn over(first: &Profile, other: &Profile) -> Profile {
    let mut values: Vec<_> =
        first.values.iter().filter(|(setting, _)| !other.values.iter().any(|(own, _)| own.id == setting.id)).cloned().collect();
    values.extend(other.values.iter().cloned());
    Profile { values, ..other.clone() }
}

/// What a run of this profile would not differ in.
fn out_of_reach(machine: &Machine, profile: &Profile, loopback: bool) -> Vec<(String, String)> {
    let plan = Plan::new(machine, profile);
    let mut found: Vec<(String, String)> = Vec::new();
    for step in &plan.steps {
        let id = &step.setting.id;
        let others = plan.steps.iter().filter(|other| other.setting.id == *id);
        let why = match &step.state {
            State::Absent(why) if others.clone().all(|other| matches!(other.state, State::Absent(_))) => {
                format!("not on this machine: {why}")
            }
            State::Forbidden(why) => format!("not allowed: {why}"),
            State::Reboot => "a boot parameter: reboot with it, then compare two results".to_owned(),
            State::Firmware => "a setting of the firmware".to_owned(),
            State::Met if others.clone().all(|other| other.state == State::Met) => "already so: both sides would be the same".to_owned(),
            _ if loopback && step.setting.loopback == Loopback::No => "has no effect over loopback".to_owned(),
            _ => continue,
        };
        if !found.iter().any(|(known, _)| known == id) {
            found.push((id.clone(), why));
        }
    }
    found
}

/// A name as a directory's.
fn directory(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).collect()
}

/// One run: which side (`None`: the reference again) and which number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    pub side: Option<usize>,
    pub number: usize,
}

/// The order of the runs: first the reference alone, for the noise of the machine, then blocks of all sides, each block in an order of its own.
pub fn schedule(sides: usize, runs: usize, seed: u64) -> Vec<Turn> {
    let mut random = Random::new(seed);
    let mut order = Vec::with_capacity(runs * (sides + 1));
    order.extend((0..runs).map(|number| Turn { side: None, number }));
    for number in 0..runs {
        let mut block: Vec<Turn> = (0..sides).map(|side| Turn { side: Some(side), number }).collect();
        random.shuffle(&mut block);
        order.extend(block);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_side_runs_equally_often_in_blocks_of_changing_order() {
        let order = schedule(3, 8, 7);
        let (first, blocks) = order.split_at(8);
        assert!(first.iter().all(|turn| turn.side.is_none()), "the noise of the machine comes first");
        assert_eq!(blocks.len(), 24);
        for block in blocks.chunks(3) {
            let mut sides: Vec<_> = block.iter().map(|turn| turn.side).collect();
            sides.sort();
            assert_eq!(sides, [Some(0), Some(1), Some(2)]);
        }
        let orders: Vec<Vec<_>> = blocks.chunks(3).map(|block| block.iter().map(|turn| turn.side).collect()).collect();
        assert!(orders.iter().any(|order| *order != orders[0]), "blocks differ");
        assert_eq!(schedule(3, 8, 7), order);
        assert_ne!(schedule(3, 8, 8), order);
    }
}
