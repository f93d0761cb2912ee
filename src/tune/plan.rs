//! The plan: for every value of a profile, what is there, what is wanted, and what it takes to get from one to the other. A plan changes nothing.

use std::fmt::Write;

use super::catalogue::{Kind, Setting, When};
use super::machine::{Machine, Place};
use super::profile::Profile;
use super::value::Wanted;

/// What stands between what is there and what is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Met,
    /// It will be written.
    Change,
    /// A parameter of the kernel, which a person adds in the boot loader.
    Reboot,
    /// A person at the console.
    Firmware,
    /// Given to the server when a comparison starts it; a person writes it into the server's config.
    Server,
    /// Not on this machine, with the reason.
    Absent(String),
    /// This process may not, with the reason.
    Forbidden(String),
}

/// One value at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub setting: Setting,
    /// None: nothing that this tool writes.
    pub place: Option<Place>,
    pub present: Option<String>,
    pub wanted: Wanted,
    pub state: State,
}

/// All steps, in the order of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub profile: String,
    pub risk: u8,
    pub steps: Vec<Step>,
    /// Running programs that set the same things.
    pub rivals: Vec<String>,
}

impl Plan {
    pub fn new(machine: &Machine, profile: &Profile) -> Self {
        let steps = profile.values.iter().flat_map(|(setting, wanted)| steps(machine, setting, wanted)).collect();
        Self { profile: profile.name.clone(), risk: profile.risk(), steps, rivals: machine.rivals() }
    }

    pub fn changes(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(|step| step.state == State::Change)
    }

    pub fn forbidden(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(|step| matches!(step.state, State::Forbidden(_)))
    }

    /// What a person adds to the kernel's parameters, as one line; empty: nothing.
    pub fn boot_line(&self) -> String {
        let words = self.steps.iter().filter(|step| step.state == State::Reboot);
        words.map(|step| format!("{}={}", step.setting.target, step.wanted.text)).collect::<Vec<_>>().join(" ")
    }

    /// The plan as a table for people.
    pub fn table(&self) -> String {
        let mut out = String::new();
        let width = self.steps.iter().map(|step| step.setting.id.len()).max().unwrap_or(0);
        for step in &self.steps {
            let raise = if step.wanted.at_least { ">= " } else { "" };
            let present = step.present.as_deref().map_or_else(|| "-".to_owned(), |text| step.setting.values.normal(text));
            let place = match &step.place {
                Some(place) if self.shares_setting(step) => format!("  {place}"),
                _ => String::new(),
            };
            let _ = writeln!(out, "{:width$}  {present} -> {raise}{}  {}{place}", step.setting.id, step.wanted.text, step.says());
        }
        let boot = self.boot_line();
        if !boot.is_empty() {
            let _ = writeln!(out, "\nKernel parameters to add in the boot loader (never written by this tool):\n  {boot}");
        }
        for rival in &self.rivals {
            let _ = writeln!(out, "\nConflict: {rival}");
        }
        out
    }

    /// Whether a setting stands at several places, so that the place has to be said.
    fn shares_setting(&self, step: &Step) -> bool {
        self.steps.iter().filter(|other| other.setting.id == step.setting.id).count() > 1
    }
}

impl Step {
    fn says(&self) -> String {
        match &self.state {
            State::Met => "already so".to_owned(),
            State::Change => format!("will be set (risk {})", self.setting.risk),
            State::Reboot => "needs a reboot".to_owned(),
            State::Firmware => "by hand, in the firmware's set-up".to_owned(),
            State::Server if self.setting.kind == Kind::Scheduler => "with the server: given when a comparison starts it".to_owned(),
            State::Server => format!("with the server: {} in its config", self.setting.target),
            State::Absent(why) => format!("not on this machine: {why}"),
            State::Forbidden(why) => format!("not allowed: {why}"),
        }
    }
}

fn steps(machine: &Machine, setting: &Setting, wanted: &Wanted) -> Vec<Step> {
    let step = |place, present, wanted: &Wanted, state| Step { setting: setting.clone(), place, present, wanted: wanted.clone(), state };
    match (setting.when, setting.kind) {
        (When::Firmware, _) => return vec![step(None, None, wanted, State::Firmware)],
        (When::Boot, _) => {
            let present = machine.boot_parameter(&setting.target);
            let met = present.as_deref().is_some_and(|present| setting.values.met(present, wanted));
            return vec![step(None, present, wanted, if met { State::Met } else { State::Reboot })];
        }
        (When::Run, Kind::Scheduler | Kind::Server | Kind::Socket) => return vec![step(None, None, wanted, State::Server)],
        (When::Run, _) => {}
    }
    let places = match machine.places(setting) {
        Ok(places) => places,
        Err(why) => return vec![step(None, None, wanted, State::Absent(why))],
    };
    let count = places.len();
    let of_place = |(i, place): (usize, Place)| {
        let wanted = share(setting, wanted, i, count);
        let (present, state) = match machine.read(&place) {
            Err(why) if why.kind() == std::io::ErrorKind::PermissionDenied => (None, State::Forbidden("needs root".to_owned())),
            Err(why) => (None, State::Absent(why.to_string())),
            Ok(present) => {
                let state = state(machine, setting, &place, &present, &wanted);
                (Some(present), state)
            }
        };
        Step { setting: setting.clone(), place: Some(place), present, wanted, state }
    };
    places.into_iter().enumerate().map(of_place).collect()
}

fn state(machine: &Machine, setting: &Setting, place: &Place, present: &str, wanted: &Wanted) -> State {
    if setting.values.met(present, wanted) {
        return State::Met;
    }
    machine.forbidden(place).map_or(State::Change, State::Forbidden)
}

/// Interrupts are dealt out: the i-th gets the i-th CPU of the list.
fn share(setting: &Setting, wanted: &Wanted, i: usize, places: usize) -> Wanted {
    if setting.kind != Kind::Irq || places < 2 {
        return wanted.clone();
    }
    let cpus = crate::sys::affinity::parse_list(&wanted.text).unwrap_or_default();
    match cpus.get(i % cpus.len().max(1)) {
        Some(cpu) => Wanted { text: cpu.to_string(), ..wanted.clone() },
        None => wanted.clone(),
    }
}
