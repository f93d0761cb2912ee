//! A comparison on the terminal.

use std::io::{self, Write};

use crate::chart::text::{chance, count, percent, percent_signed, time};
use crate::stats::verdict::Verdict;

use super::compare::{Comparison, Pair, Row};

pub fn write(out: &mut dyn Write, comparison: &Comparison) -> io::Result<()> {
    for (letter, side) in ('A'..='Z').zip(&comparison.sides) {
        writeln!(
            out,
            "{letter}  {}  ({}, {} valid of {} runs)",
            printable(&side.path),
            printable(&side.target),
            side.runs_valid,
            side.runs.len()
        )?;
        for run in side.runs.iter().filter(|run| !run.valid) {
            writeln!(out, "   left out: {}: {}", printable(&run.name), printable(run.flaw.as_deref().unwrap_or_default()))?;
        }
    }
    for note in &comparison.notes {
        writeln!(out, "note: {}", printable(note))?;
    }
    for (letter, pair) in ('B'..='Z').zip(&comparison.pairs) {
        write_pair(out, letter, pair)?;
    }
    if !comparison.environment.is_empty() {
        writeln!(out, "\nnot the same everywhere:")?;
    }
    for difference in &comparison.environment {
        let values: Vec<String> =
            difference.values.iter().map(|values| if values.is_empty() { "-".into() } else { values.join(" | ") }).collect();
        writeln!(out, "  {}: {}", printable(&difference.name), printable(&values.join("  /  ")))?;
    }
    let method = &comparison.method;
    writeln!(
        out,
        "\nA run is the unit. Shift: {}; interval: {}, {} draws; p: permutation test on ranks, {}; noise: A/A by {}; seed {}.",
        method.shift,
        method.interval,
        method.resamples,
        method.correction,
        printable(&method.noise),
        method.seed
    )?;
    writeln!(
        out,
        "A verdict needs all: the interval leaves out 0; |shift| above {}, the noise and a histogram's step; p below {}.",
        percent(method.share_min),
        method.p_max
    )
}

fn write_pair(out: &mut dyn Write, letter: char, pair: &Pair) -> io::Result<()> {
    for histogram in &pair.histograms {
        header(out, &histogram.name, letter)?;
        histogram.rows.iter().try_for_each(|row| write_row(out, row))?;
    }
    header(out, "whole runs", letter)?;
    pair.whole.iter().try_for_each(|row| write_row(out, row))
}

fn header(out: &mut dyn Write, name: &str, letter: char) -> io::Result<()> {
    let interval = "95 % interval";
    writeln!(out, "\n{:<15} {:>10} {:>10} {:>9} {interval:>21} {:>8} {:>7}  verdict", printable(name), "A", letter, "shift", "p", "noise")
}

fn write_row(out: &mut dyn Write, row: &Row) -> io::Result<()> {
    let found = &row.finding;
    let value = |value: Option<f64>| value.map_or_else(|| "n/a".into(), |value| figure(value, row.unit));
    let share = |share: Option<f64>| share.map_or_else(|| "n/a".into(), percent_signed);
    let absent = found.verdict == Verdict::NoSamples;
    let interval = match (found.low_share, found.high_share) {
        (Some(low), Some(high)) if !absent => format!("{} .. {}", percent_signed(low), percent_signed(high)),
        _ => "n/a".into(),
    };
    let [a, b] = [found.median_a, found.median_b].map(|median| value(median.filter(|_| !absent)));
    let p = found.p_holm.map_or_else(|| "n/a".into(), chance);
    let noise = found.noise_share.map_or_else(|| "n/a".into(), percent);
    let shift = share(found.shift_share.filter(|_| !absent));
    let why = if found.why.is_empty() { String::new() } else { format!(" ({})", found.why) };
    writeln!(out, "{:<15} {a:>10} {b:>10} {shift:>9} {interval:>21} {p:>8} {noise:>7}  {}{why}", row.figure, found.verdict.name())
}

/// A figure in its unit.
pub(super) fn figure(value: f64, unit: &str) -> String {
    match unit {
        "ns" => time(value),
        "per s" => format!("{}/s", count(value)),
        _ => format!("{value:.3} us"),
    }
}

/// Names come from directories and files: nothing that moves a terminal's cursor gets through.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
