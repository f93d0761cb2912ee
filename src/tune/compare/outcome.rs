//! The answer, from the files of the runs alone: `compare.json`, `compare.html`, and a table for the terminal.
//!
//! `compare.json`: `format` ("ringroom-tune-compare"), `version` 1, `plan` (what was compared and how), `effects` (one per subject and figure, best shown first),
//! `unobservable` (settings that could not be compared here, with the reason), `comparison` (as `ringroom compare` writes it: every figure of every run).
//! An effect's shares are what the *setting* does, also where it was measured by leaving it out: -0.1 is 10 % less.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::chart::text::{chance, percent, percent_signed};
use crate::results::compare::{Comparison, Request, Row, compare};
use crate::results::side::Side;
use crate::stats::SEED;
use crate::stats::verdict::Verdict;

use super::sides::{AGAIN, Mode, Unobservable};
use super::{PLAN, Plan, VERSION, page};

const FORMAT: &str = "ringroom-tune-compare";

/// What a subject does to a figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Effect {
    /// A setting, or a profile.
    pub subject: String,
    /// `profile`, `alone` (the setting over the first profile), `left out` (the second profile without it).
    pub measured: &'static str,
    /// `room.delivery p99`, `whole run cpu`.
    pub figure: String,
    pub verdict: Verdict,
    pub share: Option<f64>,
    pub low_share: Option<f64>,
    pub high_share: Option<f64>,
    pub p_holm: Option<f64>,
    pub noise_share: Option<f64>,
    /// Why nothing is shown.
    pub why: String,
}

/// All of `compare.json`.
#[derive(Debug, Serialize)]
pub struct Answer {
    pub format: &'static str,
    pub version: u32,
    pub plan: Plan,
    pub effects: Vec<Effect>,
    pub unobservable: Vec<Unobservable>,
    pub comparison: Comparison,
}

/// What the runs of a directory say, as `compare.json` has it; and the sides, for pictures.
pub fn answer(directory: &Path) -> Result<(Answer, Vec<Side>), String> {
    let path = directory.join(PLAN);
    let text = fs::read_to_string(&path).map_err(|why| format!("{}: {why}: is it a directory of tune compare?", path.display()))?;
    let plan: Plan = serde_json::from_str(&text).map_err(|why| format!("{}: {why}", path.display()))?;
    if plan.version != VERSION {
        return Err(format!("{}: version {}, this program reads {VERSION}", path.display(), plan.version));
    }
    let read = |name: &str| {
        let path = directory.join("sides").join(name);
        let any = fs::read_dir(&path).is_ok_and(|mut runs| runs.any(|run| run.is_ok_and(|run| run.path().join("result.json").exists())));
        if any { Side::read(&path).map(Some).map_err(|why| why.to_string()) } else { Ok(None) }
    };
    let mut sides = Vec::new();
    for planned in &plan.sides {
        match read(&planned.name)? {
            Some(side) => sides.push(side),
            None if sides.is_empty() => return Err(format!("no run of {} yet: nothing to compare with", planned.name)),
            None => {}
        }
    }
    if sides.len() < 2 {
        return Err("runs of one side alone so far: nothing to compare".to_owned());
    }
    let again = read(AGAIN)?;
    let comparison = compare(Request { sides: &sides, again: again.as_ref(), seed: SEED }).map_err(|why| why.to_string())?;
    let effects = effects(&plan, &comparison);
    let unobservable = plan.unobservable.clone();
    Ok((Answer { format: FORMAT, version: VERSION, plan, effects, unobservable, comparison }, sides))
}

/// Computes the answer, writes both files, gives the table.
pub fn recompute(directory: &Path) -> Result<String, String> {
    let (answer, sides) = answer(directory)?;
    let json = serde_json::to_string_pretty(&answer).map_err(|why| why.to_string())?;
    let html = page::page(&answer, &sides);
    for (name, text) in [("compare.json", json + "\n"), ("compare.html", html)] {
        let path = directory.join(name);
        fs::write(&path, text).map_err(|why| format!("{}: {why}", path.display()))?;
    }
    Ok(table(&answer, directory))
}

fn effects(plan: &Plan, comparison: &Comparison) -> Vec<Effect> {
    let mut effects = Vec::new();
    for pair in &comparison.pairs {
        let setting = plan.sides.iter().find(|side| side.name == pair.b).and_then(|side| side.setting.clone());
        let measured = match (&setting, plan.mode) {
            (None, _) => "profile",
            (Some(_), Mode::LeaveOneOut) => "left out",
            (Some(_), _) => "alone",
        };
        let subject = setting.unwrap_or_else(|| pair.b.clone());
        let rows = pair.histograms.iter().flat_map(|histogram| histogram.rows.iter().map(move |row| (histogram.name.as_str(), row)));
        let whole = pair.whole.iter().map(|row| ("whole run", row));
        effects.extend(rows.chain(whole).map(|(of, row)| effect(&subject, measured, of, row)));
    }
    effects.sort_by(|a, b| rank(a).total_cmp(&rank(b)));
    effects
}

fn effect(subject: &str, measured: &'static str, of: &str, row: &Row) -> Effect {
    let found = &row.finding;
    let left_out = measured == "left out";
    // What putting it back does, from what leaving it out did.
    let back = |share: f64| if left_out { -share / (1.0 + share) } else { share };
    let verdict = match found.verdict {
        Verdict::Better if left_out => Verdict::Worse,
        Verdict::Worse if left_out => Verdict::Better,
        other => other,
    };
    let (low, high) = (found.low_share.map(back), found.high_share.map(back));
    let (low_share, high_share) = if left_out { (high, low) } else { (low, high) };
    Effect {
        subject: subject.to_owned(),
        measured,
        figure: format!("{of} {}", row.figure),
        verdict,
        share: found.shift_share.map(back),
        low_share,
        high_share,
        p_holm: found.p_holm,
        noise_share: found.noise_share,
        why: found.why.clone(),
    }
}

/// Shown effects first, the largest first; then the rest in the same way.
fn rank(effect: &Effect) -> f64 {
    let class = match effect.verdict {
        Verdict::Better => 0.0,
        Verdict::Worse => 1e6,
        Verdict::NotShown => 2e6,
        Verdict::NoSamples | Verdict::Invalid => 3e6,
    };
    class - effect.share.map_or(0.0, |share| share.abs().min(1e5))
}

/// For the terminal.
fn table(answer: &Answer, directory: &Path) -> String {
    let mut out = String::new();
    let reference = answer.comparison.sides.first().map_or("", |side| side.name.as_str());
    let _ = writeln!(
        out,
        "\nAgainst {reference}; {} runs a side planned; verdicts need an interval without 0, more than the noise and p < 0.05\n",
        answer.plan.runs
    );
    let width = answer.effects.iter().map(|effect| effect.subject.len()).max().unwrap_or(0).max(7);
    let _ = writeln!(
        out,
        "{:width$}  {:22}  {:9}  {:>8}  {:>20}  {:>8}  {:>7}",
        "subject", "figure", "verdict", "share", "95 % interval", "p (Holm)", "noise"
    );
    for effect in &answer.effects {
        let text = |share: Option<f64>| share.map_or_else(|| "n/a".to_owned(), percent_signed);
        let interval = effect.low_share.zip(effect.high_share);
        let interval =
            interval.map_or_else(|| "n/a".to_owned(), |(low, high)| format!("{} .. {}", percent_signed(low), percent_signed(high)));
        let _ = writeln!(
            out,
            "{:width$}  {:22}  {:9}  {:>8}  {interval:>20}  {:>8}  {:>7}",
            effect.subject,
            effect.figure,
            effect.verdict.name(),
            text(effect.share),
            effect.p_holm.map_or_else(|| "n/a".to_owned(), chance),
            effect.noise_share.map_or_else(|| "n/a".to_owned(), percent),
        );
    }
    for absent in &answer.unobservable {
        let _ = writeln!(out, "{:width$}  not observable here: {}", absent.setting, absent.why);
    }
    for note in &answer.comparison.notes {
        let _ = writeln!(out, "\n{note}");
    }
    let _ = writeln!(out, "\nwritten: {0}/compare.json, {0}/compare.html", directory.display());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::verdict::{Finding, Good};

    fn row(verdict: Verdict, share: f64) -> Row {
        let finding = Finding {
            verdict,
            why: String::new(),
            median_a: Some(1.0),
            median_b: Some(1.0 + share),
            shift: Some(share),
            low: None,
            high: None,
            shift_share: Some(share),
            low_share: Some(share - 0.05),
            high_share: Some(share + 0.05),
            p: Some(0.01),
            p_holm: Some(0.02),
            p_exact: true,
            noise_share: Some(0.03),
            threshold_share: 0.03,
        };
        Row { figure: "p99", unit: "ns", good: Good::Lower, runs_a: vec![], runs_b: vec![], finding }
    }

    #[test]
    fn leaving_a_setting_out_tells_what_the_setting_does() {
        let alone = effect("s", "alone", "room.delivery", &row(Verdict::Better, -0.2));
        assert_eq!((alone.verdict, alone.share), (Verdict::Better, Some(-0.2)));
        // Without it a quarter more: with it a fifth less.
        let left_out = effect("s", "left out", "room.delivery", &row(Verdict::Worse, 0.25));
        assert_eq!(left_out.verdict, Verdict::Better);
        assert!((left_out.share.unwrap_or(0.0) + 0.2).abs() < 1e-9);
        let (low, high) = (left_out.low_share.unwrap_or(0.0), left_out.high_share.unwrap_or(0.0));
        assert!(low < -0.2 && -0.2 < high && high < 0.0, "{low} {high}");
    }

    #[test]
    fn what_is_shown_stands_before_what_is_not() {
        let ranked = |verdict, share| rank(&effect("s", "alone", "x", &row(verdict, share)));
        assert!(ranked(Verdict::Better, -0.1) < ranked(Verdict::Better, -0.05));
        assert!(ranked(Verdict::Better, -0.05) < ranked(Verdict::Worse, 0.9));
        assert!(ranked(Verdict::Worse, 0.04) < ranked(Verdict::NotShown, -0.5));
    }
}
