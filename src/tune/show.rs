//! What the tool tells people: lists, one setting, what went back, what is in force.

use std::fmt::Write;

use super::apply::Reverted;
use super::catalogue::{Catalogue, Kind, Loopback, Setting};
use super::journal::{Progress, StateError, Story};
use super::keeper;
use super::machine::{Machine, Place};
use super::profile;

/// All settings with their value here.
pub(super) fn list(machine: &Machine, catalogue: &Catalogue) -> String {
    let mut out = String::new();
    let width = catalogue.settings().iter().map(|setting| setting.id.len()).max().unwrap_or(0);
    for setting in catalogue.settings() {
        let _ = writeln!(out, "{:width$}  risk {}  {}", setting.id, setting.risk, here(machine, setting));
    }
    let _ = writeln!(out, "\n{} settings; `ringroom tune show ID` tells what one does", catalogue.settings().len());
    out
}

/// The value on this machine, or why there is none.
fn here(machine: &Machine, setting: &Setting) -> String {
    match setting.kind {
        Kind::Boot => match machine.boot_parameter(&setting.target) {
            Some(value) => format!("boot parameter, {value}"),
            None => "boot parameter, not given".to_owned(),
        },
        Kind::Firmware => "in the firmware".to_owned(),
        Kind::Server | Kind::Socket => format!("server's config, {}", setting.target),
        Kind::Scheduler => "of the server's threads".to_owned(),
        _ => match machine.places(setting) {
            Err(why) => format!("not on this machine: {why}"),
            Ok(places) => values(machine, setting, &places),
        },
    }
}

/// Equal values of several places are one.
fn values(machine: &Machine, setting: &Setting, places: &[Place]) -> String {
    let mut seen: Vec<String> = Vec::new();
    for place in places {
        let value = machine.read(place).map_or_else(|why| why.to_string(), |text| setting.values.normal(&text));
        if !seen.contains(&value) {
            seen.push(value);
        }
    }
    let unit = setting.unit.split([':', ';']).next().unwrap_or_default();
    format!("{} {unit}", seen.join(", ")).trim_end().to_owned()
}

/// All about one setting.
pub(super) fn setting(machine: &Machine, catalogue: &Catalogue, id: &str) -> Result<String, String> {
    let Some(setting) = catalogue.get(id) else {
        let near = catalogue.nearest(id).map_or_else(String::new, |near| format!("; did you mean {near}?"));
        return Err(format!("no setting {id:?}{near} (ringroom tune list)"));
    };
    let mut out = format!("{}\n  {}\n\n", setting.id, setting.effect);
    let mut line = |name: &str, text: &str| {
        let _ = writeln!(out, "  {name:<12}{text}");
    };
    line("here", &here(machine, setting));
    line("values", &setting.values.to_string());
    if !setting.unit.is_empty() {
        line("unit", &setting.unit);
    }
    line("target", &setting.target);
    for (name, text) in setting.by_hand() {
        line(name, &text);
    }
    line("takes effect", &format!("{:?}", setting.when).to_lowercase());
    line("needs", &setting.needs);
    line("risk", &format!("{} of 3", setting.risk));
    line("applies if", &setting.applies_if);
    line(
        "loopback",
        match setting.loopback {
            Loopback::Yes => "its effect can be seen on a virtual machine over loopback",
            Loopback::Partly => "its effect may be seen in part on a virtual machine over loopback",
            Loopback::No => "not observable on a virtual machine over loopback",
        },
    );
    line("source", &format!("{} (read {})", setting.source, setting.date));
    Ok(out)
}

/// The built-in profiles.
pub(super) fn profiles(catalogue: &Catalogue) -> Result<String, String> {
    let mut out = String::new();
    // Any CPUs: only texts and counts are shown.
    let cpus: Vec<_> = (0..2).map(crate::sys::affinity::Cpu).collect();
    for (name, _) in profile::BUILT_IN {
        let profile = profile::load(name, catalogue, &cpus)?;
        let _ = writeln!(
            out,
            "{name:<12} {} ({} values, risk {})\n{:<12} costs: {}",
            profile.text,
            profile.values.len(),
            profile.risk(),
            "",
            profile.cost
        );
    }
    Ok(out)
}

/// What went back and what did not.
pub(super) fn reverted(done: &Reverted) -> String {
    if done.gone {
        return "The machine was started again since: nothing is in force.\n".to_owned();
    }
    let mut out = String::new();
    for change in &done.back {
        let _ = writeln!(out, "{}: {} is {} again", change.id, change.place, change.old);
    }
    for (change, present) in &done.foreign {
        let _ = writeln!(
            out,
            "{}: {} was {}, was set to {}, and is {present} now: somebody else changed it, it stays",
            change.id, change.place, change.old, change.new
        );
    }
    for (change, why) in &done.failed {
        let _ = writeln!(out, "{}: {} {why}; it was {}", change.id, change.place, change.old);
    }
    let _ = writeln!(out, "{} values put back.", done.back.len());
    out
}

/// The same in half a sentence.
pub(super) fn reverted_in_words(reverted: &Result<Reverted, StateError>) -> String {
    match reverted {
        Ok(done) if done.clean() => "everything is put back".to_owned(),
        Ok(done) => format!("not everything could be put back:\n{}", self::reverted(done)),
        Err(why) => format!("putting back failed: {why}"),
    }
}

/// What is in force; whether anything has drifted.
pub(super) fn status(machine: &Machine, story: &Story, now_unix_ms: u64) -> (bool, String) {
    if story.boot_id != machine.boot_id() {
        return (false, "Nothing is in force: the machine was started again since.\n".to_owned());
    }
    let since_s = now_unix_ms.saturating_sub(story.at_unix_ms) / 1_000;
    let whole = if story.applied { "in force" } else { "half set (its apply did not come to its end: revert puts back what it did)" };
    let mut out = format!("{} is {whole}, {since_s} s old\n", story.profile);
    if let Some(until) = story.until_unix_ms {
        let _ = writeln!(out, "goes back by itself in {} s", until.saturating_sub(now_unix_ms) / 1_000);
    }
    let mut drifted = !story.applied;
    if let Some(keeper) = story.keeper {
        let alive = keeper::alive(keeper);
        drifted |= !alive;
        let _ = writeln!(
            out,
            "keeper: process {}{}",
            keeper.pid,
            if alive { "" } else { ", which is gone: what it held is not in force any more" }
        );
    }
    for (change, progress) in &story.changes {
        let present = machine.read(&change.place).unwrap_or_else(|why| why.to_string());
        let drift = matches!(progress, Progress::Set { reads } if *reads != present);
        drifted |= drift;
        let mark = if drift { "  (somebody else changed it)" } else { "" };
        let _ = writeln!(out, "{}: was {}, set to {}, is {present}{mark}", change.id, change.old, change.new);
    }
    (drifted, out)
}
