//! Pictures of histograms and seconds: what the page of a run, of a comparison and of the tuning lab have in common.

use hdrhistogram::Histogram;

use crate::chart::markup::Markup;
use crate::chart::page;
use crate::chart::plot::{Axis, Band, DotRow, Dots, Line, Plot, Stripe, Weight, legend, legend_of_marks};
use crate::chart::scale::{Scale, Unit};
use crate::stats::verdict::BEYOND_MIN;

use super::compare::{HistogramPair, as_f64};

/// Points of a curve for each factor of ten of the distance to 100 %.
const POINTS_PER_NINE: u32 = 24;
const NINES_MAX: u32 = 7;

/// A histogram to be drawn, with its style.
#[derive(Clone, Copy, Debug)]
pub struct Curve<'a> {
    pub name: &'a str,
    pub style: usize,
    pub weight: Weight,
    pub histogram: &'a Histogram<u64>,
}

/// Latency over the percentile. Where fewer than 100 samples lie beyond, a line is dotted.
pub fn percentile_curves(title: &str, curves: &[Curve<'_>], caption: &str) -> Markup {
    let most = curves.iter().map(|curve| as_f64(curve.histogram.len()).max(10.0).log10()).fold(1.0, f64::max).min(f64::from(NINES_MAX));
    let lines: Vec<Line> = curves.iter().flat_map(lines).collect();
    let scale = Scale::of(lines.iter().flat_map(|line| &line.points).map(|(_, latency)| *latency));
    let x = Axis { label: "percentile (distance to 100 % on a logarithm)".into(), unit: Unit::Quantile, scale: Scale::Nines { most } };
    let y = Axis { label: "latency".into(), unit: Unit::Time, scale };
    let main: Vec<(usize, &str)> =
        curves.iter().filter(|curve| curve.weight == Weight::Main).map(|curve| (curve.style, curve.name)).collect();
    let mut plot = Plot::new(title, &spoken(curves), x, y);
    plot.lines = lines;
    page::figure(caption, Some(legend(&main)), plot.draw())
}

/// The figures of a picture for those who can't see it.
fn spoken(curves: &[Curve<'_>]) -> String {
    let main = curves.iter().filter(|curve| curve.weight == Weight::Main && !curve.histogram.is_empty());
    let of = |curve: &Curve<'_>| {
        let at = |quantile| crate::chart::text::time(as_f64(curve.histogram.value_at_quantile(quantile)));
        format!("{}: median {}, p99 {}, maximum {}", curve.name, at(0.5), at(0.99), at(1.0))
    };
    format!("Latency over percentile. {}", main.map(of).collect::<Vec<_>>().join("; "))
}

fn lines(curve: &Curve<'_>) -> Vec<Line> {
    let count = as_f64(curve.histogram.len());
    if count < 1.0 {
        return Vec::new();
    }
    let steps = (0..=NINES_MAX * POINTS_PER_NINE).map(|point| 1.0 - 10f64.powf(-f64::from(point) / f64::from(POINTS_PER_NINE)));
    let last = 1.0 - 1.0 / count;
    let points = |quantile: f64| (quantile, as_f64(curve.histogram.value_at_quantile(quantile)));
    let all: Vec<(f64, f64)> =
        steps.take_while(|quantile| *quantile <= last).map(points).chain([(last, as_f64(curve.histogram.max()))]).collect();
    let sure = 1.0 - BEYOND_MIN / count;
    let split = all.partition_point(|(quantile, _)| *quantile <= sure);
    let line = |weight, points: &[(f64, f64)]| Line { name: curve.name.to_owned(), style: curve.style, weight, points: points.to_vec() };
    if curve.weight == Weight::Faint {
        return vec![line(Weight::Faint, &all)];
    }
    let (solid, dotted) = (&all[..split], &all[split.saturating_sub(1)..]);
    [(curve.weight, solid), (Weight::Dotted, dotted)]
        .into_iter()
        .filter(|(_, points)| points.len() > 1)
        .map(|(w, points)| line(w, points))
        .collect()
}

/// The shift at every quantile with its band: below zero the second side is faster.
pub fn shift_plot(pair: &HistogramPair, names: [&str; 2], style: usize) -> Option<Markup> {
    let points: Vec<(f64, f64, f64, f64)> = pair
        .shifts
        .iter()
        .filter_map(|point| {
            let share = point.share?;
            let per = if point.shift == 0.0 { 0.0 } else { share / point.shift };
            // With a shift of zero the share tells nothing about the scale; the band is then left to its neighbours.
            let bound = |end: Option<f64>| end.filter(|_| point.shift != 0.0).map_or(share, |end| end * per);
            Some((point.quantile, share, bound(point.low), bound(point.high)))
        })
        .collect();
    if points.len() < 2 {
        return None;
    }
    let most = points.iter().map(|(quantile, ..)| -(1.0 - quantile).log10()).fold(1.0, f64::max);
    let x = Axis { label: "percentile (distance to 100 % on a logarithm)".into(), unit: Unit::Quantile, scale: Scale::Nines { most } };
    let scale = Scale::around_zero(points.iter().flat_map(|(_, share, low, high)| [*share, *low, *high]));
    let y = Axis { label: format!("shift of {}", pair.name), unit: Unit::ShareSigned, scale };
    let title = format!("Shift of {} from {} to {}", pair.name, names[0], names[1]);
    let told: Vec<String> = pair.rows.iter().map(|row| format!("{}: {}", row.figure, row.finding.verdict.name())).collect();
    let mut plot = Plot::new(&title, &told.join(", "), x, y);
    let least = pair.rows.iter().map(|row| row.finding.threshold_share).fold(0.0, f64::max);
    plot.stripe = Some(Stripe { low: -least, high: least });
    plot.bands.push(Band { style, points: points.iter().map(|(quantile, _, low, high)| (*quantile, *low, *high)).collect() });
    plot.lines.push(Line {
        name: title.clone(),
        style,
        weight: Weight::Main,
        points: points.iter().map(|(quantile, share, ..)| (*quantile, *share)).collect(),
    });
    let caption = format!(
        "{title}: below 0 {} is faster. The band is the 95 % interval of each point by itself; inside the grey stripe ({}, the largest of the judged quantiles' thresholds) a shift is too small to count.",
        names[1],
        crate::chart::text::percent(least)
    );
    Some(page::figure(&caption, None, plot.draw()))
}

/// Every run's figures as dots, relative to the first side's median.
pub fn run_dots(pair: &HistogramPair, names: [&str; 2], styles: [usize; 2]) -> Option<Markup> {
    let mut rows = Vec::new();
    for row in &pair.rows {
        let Some(median) = row.finding.median_a.filter(|median| *median > 0.0) else { continue };
        let share = |values: &[f64]| -> Vec<f64> { values.iter().map(|value| value / median - 1.0).collect() };
        let groups = vec![(styles[0], names[0].to_owned(), share(&row.runs_a)), (styles[1], names[1].to_owned(), share(&row.runs_b))];
        rows.push(DotRow { label: row.figure.to_owned(), groups });
    }
    if rows.is_empty() {
        return None;
    }
    let values = rows.iter().flat_map(|row| &row.groups).flat_map(|group| group.2.iter().copied());
    let x =
        Axis { label: format!("difference from the median of {}", names[0]), unit: Unit::ShareSigned, scale: Scale::around_zero(values) };
    let title = format!("Runs of {} and {}: {}", names[0], names[1], pair.name);
    let dots = Dots { title: title.clone(), about: "One mark per run, a bar at each median".into(), x, rows };
    let caption =
        format!("{title}. One mark per run, a bar at each side's median: where the marks overlap, runs of both sides came out alike.");
    Some(page::figure(&caption, Some(legend_of_marks(&[(styles[0], names[0]), (styles[1], names[1])])), dots.draw()))
}
