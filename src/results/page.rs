//! The page of a comparison: `compare.html`.
//!
//! Answers first (verdicts), then the pictures they rest on, then every run, the surroundings and how to have it again. Its parts are public: the
//! page of the tuning lab is made of the same.

use hdrhistogram::Histogram;

use crate::chart::markup::Markup;
use crate::chart::page::{Align, Cell, document, facts, table};
use crate::chart::plot::Weight;
use crate::chart::text::{chance, count, percent, percent_signed, time};
use crate::stats::verdict::Verdict;

use super::compare::{Comparison, Pair, Row, SideShown};
use super::environment::Difference;
use super::pictures::{Curve, percentile_curves, run_dots, shift_plot};
use super::run;
use super::side::Side;
use super::text::figure;

/// The whole page; `command` makes it again.
pub fn page(sides: &[Side], comparison: &Comparison, command: &str) -> String {
    let names: Vec<&str> = comparison.sides.iter().map(|side| side.name.as_str()).collect();
    let title = format!("ringroom compare: {}", names.join(" / "));
    let mut body = Markup::new();
    body.leaf("h1", &[], &title).put(head(comparison));
    for (number, pair) in comparison.pairs.iter().enumerate() {
        body.leaf("h2", &[], &format!("{} against {}", pair.b, pair.a));
        body.put(verdicts(pair));
        for histogram in &pair.histograms {
            body.leaf("h3", &[], &histogram.name);
            let (names, style) = ([pair.a.as_str(), pair.b.as_str()], number + 1);
            let both = [(0, &sides[0]), (style, &sides[style])];
            body.put(side_curves(&both, &histogram.name));
            let pictures = [shift_plot(histogram, names, style), run_dots(histogram, names, [0, style])];
            for picture in pictures.into_iter().flatten() {
                body.put(picture);
            }
        }
    }
    body.leaf("h2", &[], "Runs").put(runs(&comparison.sides));
    body.leaf("h2", &[], "Surroundings that differ").put(environment(&comparison.environment, &names));
    body.leaf("h2", &[], "Method").put(method(comparison));
    body.leaf("h2", &[], "How to repeat").leaf("pre", &[], command);
    document(&title, body)
}

fn head(comparison: &Comparison) -> Markup {
    let mut head = Markup::new();
    for (letter, side) in ('A'..='Z').zip(&comparison.sides) {
        let text =
            format!("{letter}: {} ({}, {} valid of {} runs) {}", side.name, side.target, side.runs_valid, side.runs.len(), side.path);
        head.leaf("p", &[("class", "soft")], &text);
    }
    if !comparison.notes.is_empty() {
        head.open("ul", &[("class", "notes")]);
        for note in &comparison.notes {
            head.leaf("li", &[], note);
        }
        head.close();
    }
    head.leaf("h2", &[], "In short").open("ul", &[("class", "short")]);
    for pair in &comparison.pairs {
        head.leaf("li", &[], &in_short(pair));
    }
    head.close();
    head
}

/// `b against a: room.delivery better at p50, p99, worse at p99.9; sent not shown`.
pub fn in_short(pair: &Pair) -> String {
    let tables = pair.histograms.iter().map(|histogram| (histogram.name.as_str(), &histogram.rows)).chain([("whole runs", &pair.whole)]);
    let of = |(name, rows): (&str, &Vec<Row>)| {
        let at =
            |verdict: Verdict| -> Vec<&str> { rows.iter().filter(|row| row.finding.verdict == verdict).map(|row| row.figure).collect() };
        let named = |verdict: Verdict| Some((verdict.name(), at(verdict))).filter(|(_, figures)| !figures.is_empty());
        let parts: Vec<String> = [Verdict::Better, Verdict::Worse, Verdict::Invalid]
            .into_iter()
            .filter_map(named)
            .map(|(word, figures)| format!("{word} at {}", figures.join(", ")))
            .collect();
        format!("{name} {}", if parts.is_empty() { "not shown".to_owned() } else { parts.join(", ") })
    };
    format!("{} against {}: {}", pair.b, pair.a, tables.map(of).collect::<Vec<_>>().join("; "))
}

/// One table per histogram, and one of whole runs.
pub fn verdicts(pair: &Pair) -> Markup {
    let mut tables = Markup::new();
    for histogram in &pair.histograms {
        tables.put(verdict_table(&histogram.name, &histogram.rows, pair));
    }
    tables.put(verdict_table("whole runs", &pair.whole, pair));
    tables
}

fn verdict_table(caption: &str, rows: &[Row], pair: &Pair) -> Markup {
    let number = Align::Number;
    let heads = [
        (caption, Align::Text),
        ("verdict", Align::Text),
        (pair.a.as_str(), number),
        (pair.b.as_str(), number),
        ("shift", number),
        ("95 % interval", number),
        ("p (Holm)", number),
        ("noise", number),
        ("why not", Align::Text),
    ];
    let rows: Vec<Vec<Cell>> = rows.iter().map(verdict_row).collect();
    table(&format!("{caption}: {} against {}", pair.b, pair.a), &heads, &rows)
}

fn verdict_row(row: &Row) -> Vec<Cell> {
    let found = &row.finding;
    let absent = found.verdict == Verdict::NoSamples;
    let or_na = |text: Option<String>| Cell::new(text.filter(|_| !absent).unwrap_or_else(|| "n/a".into()));
    let value = |value: Option<f64>| or_na(value.map(|value| figure(value, row.unit)));
    let interval = found.low_share.zip(found.high_share).map(|(low, high)| format!("{} .. {}", percent_signed(low), percent_signed(high)));
    let class = match found.verdict {
        Verdict::Better => "better",
        Verdict::Worse => "worse",
        Verdict::Invalid => "invalid",
        Verdict::NotShown | Verdict::NoSamples => "plain",
    };
    // An arrow says the direction without colour.
    let arrow = match found.verdict {
        Verdict::Better => "\u{2714} ",
        Verdict::Worse => "\u{2718} ",
        _ => "",
    };
    vec![
        Cell::new(row.figure),
        Cell { text: format!("{arrow}{}", found.verdict.name()), class },
        value(found.median_a),
        value(found.median_b),
        or_na(found.shift_share.map(percent_signed)),
        or_na(interval),
        or_na(found.p_holm.map(chance)),
        or_na(found.noise_share.map(percent)),
        Cell { text: found.why.clone(), class: "why" },
    ]
}

/// A side as one curve, its runs faintly behind it. Sides come with their style.
pub fn side_curves(sides: &[(usize, &Side)], name: &str) -> Markup {
    let sums: Vec<(usize, &str, Option<Histogram<u64>>)> =
        sides.iter().map(|(style, side)| (*style, side.name.as_str(), sum(side, name))).collect();
    let mut curves = Vec::new();
    for (style, side) in sides {
        let runs = side.valid().filter_map(|run| Some((run.name.as_str(), run.histograms.get(name)?)));
        curves.extend(runs.map(|(name, histogram)| Curve { name, style: *style, weight: Weight::Faint, histogram }));
    }
    let main =
        sums.iter().filter_map(|(style, name, sum)| Some(Curve { name, style: *style, weight: Weight::Main, histogram: sum.as_ref()? }));
    curves.extend(main);
    let caption = "Thick: all valid runs of a side together. Thin: its runs. Dotted: fewer than 100 samples lie beyond.";
    percentile_curves(&format!("{name}: latency over percentile"), &curves, caption)
}

/// All valid runs of a side added.
fn sum(side: &Side, name: &str) -> Option<Histogram<u64>> {
    let mut sums = std::collections::BTreeMap::new();
    for run in side.valid() {
        if let Some(histogram) = run.histograms.get(name) {
            // Histograms that were added within a run add here too; one that can't is missing in a picture, not in a verdict.
            let _ = run::add_to(&mut sums, name, histogram);
        }
    }
    sums.remove(name)
}

fn runs(sides: &[SideShown]) -> Markup {
    let number = Align::Number;
    let heads = [
        ("run", Align::Text),
        ("side", Align::Text),
        ("counted", Align::Text),
        ("p50", number),
        ("p90", number),
        ("p99", number),
        ("p99.9", number),
        ("max", number),
        ("per s", number),
        ("CPU us", number),
    ];
    let mut rows = Vec::new();
    for side in sides {
        for run in &side.runs {
            let delivery = run.latency.get("delivery").or_else(|| run.latency.values().next());
            let at = |figure: &str| delivery.and_then(|figures| figures.get(figure).copied().flatten()).map_or_else(|| "n/a".into(), time);
            let counted = run.flaw.as_ref().map_or_else(|| Cell::new("yes"), |flaw| Cell { text: format!("no: {flaw}"), class: "invalid" });
            let mut row = vec![Cell::new(run.name.clone()), Cell::new(side.name.clone()), counted];
            row.extend(["p50", "p90", "p99", "p99.9", "max"].map(|figure| Cell::new(at(figure))));
            row.push(Cell::new(run.rate_per_s.map_or_else(|| "n/a".into(), count)));
            row.push(Cell::new(run.cpu_us_per_delivery.map_or_else(|| "n/a".into(), |us| format!("{us:.3}"))));
            rows.push(row);
        }
    }
    table("Every run: latency of deliveries, deliveries per second, CPU time of the server per delivery", &heads, &rows)
}

/// What is not the same on all sides.
pub fn environment(differences: &[Difference], names: &[&str]) -> Markup {
    let mut part = Markup::new();
    if differences.is_empty() {
        part.leaf("p", &[], "None that was recorded.");
        return part;
    }
    let mut heads = vec![("name", Align::Text)];
    heads.extend(names.iter().map(|name| (*name, Align::Text)));
    let row = |difference: &Difference| {
        let values = difference.values.iter().map(|values| Cell::new(if values.is_empty() { "-".to_owned() } else { values.join(" | ") }));
        std::iter::once(Cell::new(difference.name.clone())).chain(values).collect()
    };
    part.put(table("Values of all valid runs of a side, each once", &heads, &differences.iter().map(row).collect::<Vec<_>>()));
    part
}

/// How the figures came about.
pub fn method(comparison: &Comparison) -> Markup {
    let method = &comparison.method;
    let mut part = Markup::new();
    part.leaf(
        "p",
        &[],
        "A run is the unit: samples inside a run hang together. A verdict needs three things at once, else it is \"not shown\": the 95 % interval of the shift \
         leaves out 0; the shift is larger than the least share, the noise floor and a histogram's step; p is below its limit after correction.",
    );
    let noise = if method.noise == "split" {
        "A/A: the first side cut into halves, 95 % of the cuts stay below".into()
    } else {
        format!("A/A with {}", method.noise)
    };
    let pairs = [
        ("shift", method.shift.to_owned()),
        ("interval", format!("{}, {} draws", method.interval, method.resamples)),
        ("test", format!("{} = {}", method.test, count(super::compare::as_f64(method.ways_counted_max)))),
        ("correction", method.correction.to_owned()),
        ("noise floor", noise),
        ("least share", percent(method.share_min)),
        ("highest p", method.p_max.to_string()),
        ("runs a side", format!("at least {}", method.runs_min)),
        ("samples beyond a quantile", format!("at least {}", method.beyond_min)),
        ("seed", method.seed.to_string()),
    ];
    part.put(facts(&pairs.map(|(name, value)| (name.to_owned(), value))));
    part
}
