//! The end of a run on the screen: percentiles, counts, the server's cost, and a drawing of the delivery latency.

use std::io::{self, Write};

use hdrhistogram::Histogram;

use crate::load::plan::{as_f64, as_u64};
use crate::load::record::Histograms;
use crate::load::verdict::Verdict;

use super::summary::{Server, Summary};
use super::{count, quantile, time};

const BAR_WIDTH: u64 = 50;

pub fn write(out: &mut dyn Write, summary: &Summary, histograms: &Histograms) -> io::Result<()> {
    writeln!(out)?;
    writeln!(out, "{:<14}{:>12} {:>9} {:>9} {:>9} {:>9} {:>9}", "latency", "samples", "p50", "p90", "p99", "p99.9", "max")?;
    for (name, histogram) in histograms.named() {
        let at = |quantile| percentile(&histogram, quantile);
        let columns = [at(0.5), at(0.9), at(0.99), at(0.999), time(histogram.max())];
        write!(out, "{name:<14}{:>12}", count(histogram.len()))?;
        columns.iter().try_for_each(|column| write!(out, " {column:>9}"))?;
        writeln!(out)?;
    }
    writeln!(out)?;
    counts(out, summary)?;
    writeln!(out, "generator: busiest thread {:.0} % of its CPU, spinning not counted", summary.generator.busy_share * 100.0)?;
    if let Some(server) = &summary.server {
        cost(out, summary, server)?;
    }
    let delivery = histograms.delivery();
    if !delivery.is_empty() {
        writeln!(out, "\ndelivery latency")?;
        draw(out, &delivery)?;
    }
    conclusion(out, summary)
}

fn percentile(histogram: &Histogram<u64>, q: f64) -> String {
    quantile(histogram, q).map_or_else(|| "n/a".into(), time)
}

fn counts(out: &mut dyn Write, summary: &Summary) -> io::Result<()> {
    let counts = &summary.counts;
    writeln!(
        out,
        "window {}: offered {}, sent {} ({}/s), answered {}, refused {}, delivered {} ({}/s), late {}",
        time(summary.window_ns),
        count(counts.offered),
        count(counts.sent),
        count(summary.sent_per_s),
        count(counts.answered),
        count(counts.refused),
        count(counts.delivered),
        count(summary.delivered_per_s),
        count(counts.late),
    )?;
    let faults = &summary.faults;
    writeln!(
        out,
        "whole run: {} messages, {} of {} deliveries; lost {}, doubled {}, out of order {}, orders that differ {}, garbled {}, unanswered {}, closed {}",
        count(summary.sent_in_all),
        count(summary.deliveries_in_all),
        count(summary.deliveries_expected_in_all),
        count(faults.lost),
        count(faults.doubled),
        count(faults.out_of_order),
        count(faults.order_differs),
        count(faults.garbled),
        count(faults.unanswered),
        count(faults.closed),
    )?;
    let remarks = &summary.remarks;
    for (reason, number) in &remarks.refusals {
        writeln!(out, "refused {}: {reason}", count(*number))?;
    }
    for (reason, number) in &remarks.closed {
        writeln!(out, "closed {}: {reason}", count(*number))?;
    }
    if remarks.missed_by_closed > 0 {
        writeln!(out, "missed by connections that were closed or away: {} deliveries", count(remarks.missed_by_closed))?;
    }
    for (reason, number) in &remarks.closed_readers {
        writeln!(out, "slow or stopped readers ended {}: {reason}", count(*number))?;
    }
    for (kind, number) in &remarks.connect_failures {
        writeln!(out, "coming back failed {}: {kind}", count(*number))?;
    }
    if remarks.reconnects > 0 {
        let [back, whole, holes] = [remarks.reconnects, remarks.recovered, remarks.not_recovered].map(count);
        writeln!(out, "came back {back}, rooms recovered {whole}, not recovered {holes}")?;
    }
    if remarks.gaps > 0 {
        writeln!(out, "gaps announced: {}", count(remarks.gaps))?;
    }
    remarks.examples.iter().try_for_each(|example| writeln!(out, "{example}"))
}

fn cost(out: &mut dyn Write, summary: &Summary, server: &Server) -> io::Result<()> {
    write!(out, "server pid {}", server.pid)?;
    if let Some(cpu_ns) = server.cpu_ns {
        let share = as_f64(cpu_ns) / as_f64(summary.window_ns.max(1)) * 100.0;
        write!(out, ": CPU {} ({share:.0} % of one)", time(cpu_ns))?;
    }
    if let Some(us) = server.cpu_us_per_delivery {
        write!(out, ", {us:.3} us per delivery")?;
    }
    if let Some(memory) = server.memory {
        write!(out, ", RSS {} KiB, PSS {} KiB", count(memory.rss_bytes / 1024), count(memory.pss_bytes / 1024))?;
        if let Some(before) = server.memory_before {
            let grown = memory.pss_bytes.saturating_sub(before.pss_bytes);
            let per_connection = grown / u64::from(summary.plan.connections.max(1));
            write!(out, " (grown by {} bytes per connection)", count(per_connection))?;
        }
    }
    writeln!(out)
}

/// Bars over steps of 1, 2, 5.
fn draw(out: &mut dyn Write, histogram: &Histogram<u64>) -> io::Result<()> {
    let mut rows: Vec<(u64, u64, u64)> = Vec::new();
    for value in histogram.iter_recorded() {
        let (low, high) = step_of(value.value_iterated_to());
        match rows.last_mut() {
            Some(row) if row.0 == low => row.2 += value.count_since_last_iteration(),
            _ => {
                fill(&mut rows, low);
                rows.push((low, high, value.count_since_last_iteration()));
            }
        }
    }
    let most = rows.iter().map(|row| row.2).max().unwrap_or(1);
    for (low, high, number) in rows {
        // One sample is visible however many there are.
        let bar = (number * BAR_WIDTH).div_ceil(most);
        let bar = "#".repeat(usize::try_from(bar).expect("at most the width"));
        let share = as_f64(number) * 100.0 / as_f64(histogram.len());
        writeln!(out, "{:>7} - {:<7} {share:>7.3} % |{bar}", step(low), step(high))?;
    }
    Ok(())
}

/// Empty steps between the last row and `low`.
fn fill(rows: &mut Vec<(u64, u64, u64)>, low: u64) {
    while let Some((_, high, _)) = rows.last().copied().filter(|row| row.1 < low) {
        rows.push((high, step_of(high).1, 0));
    }
}

/// The step that holds a value: from 1, 2 or 5 times a power of ten to the next.
fn step_of(value: u64) -> (u64, u64) {
    let power = 10u64.pow(value.max(1).ilog10());
    match value / power {
        0 | 1 => (power, power * 2),
        2..=4 => (power * 2, power * 5),
        _ => (power * 5, power * 10),
    }
}

fn step(ns: u64) -> String {
    let (value, unit) = match ns {
        0..1_000 => (ns, "ns"),
        1_000..1_000_000 => (ns / 1_000, "us"),
        1_000_000..1_000_000_000 => (ns / 1_000_000, "ms"),
        _ => (ns / 1_000_000_000, "s"),
    };
    format!("{value}{unit}")
}

fn conclusion(out: &mut dyn Write, summary: &Summary) -> io::Result<()> {
    writeln!(out)?;
    if summary.kind == "closed" {
        writeln!(out, "closed loop: maximum throughput; a stall delays what would have seen it, so the latencies are no one's experience")?;
    }
    for slo in summary.slo.iter().filter(|slo| slo.met == Some(true)) {
        writeln!(out, "objective met: {} ({})", slo.text, slo.value_ns.map_or_else(String::new, time))?;
    }
    summary.warnings.iter().try_for_each(|warning| writeln!(out, "note: {warning}"))?;
    let word = match summary.verdict {
        Verdict::Ok => "ok: every message reached every member, once and in order",
        Verdict::Faulty => "FAULTY",
        Verdict::Missed => "MISSED: every message arrived, but not as wished",
        Verdict::Invalid => "INVALID RUN: do not use these figures",
    };
    let word = if summary.sent_in_all == 0 && summary.verdict == Verdict::Ok { "ok" } else { word };
    writeln!(out, "{word}")?;
    summary.reasons.iter().try_for_each(|reason| writeln!(out, "  {reason}"))?;
    debug_assert!(as_u64(summary.reasons.len()) > 0 || summary.verdict == Verdict::Ok);
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_drawing_has_a_row_per_step_and_shows_single_samples() {
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3).unwrap();
        histogram.saturating_record_n(150_000, 1_000_000);
        histogram.saturating_record(3_000_000);
        let mut out = Vec::new();
        draw(&mut out, &histogram).unwrap();
        let text = String::from_utf8(out).unwrap();
        let rows: Vec<&str> = text.lines().collect();
        assert_eq!(rows.len(), 5, "{text}");
        assert!(rows[0].contains("100us") && rows[0].ends_with(&"#".repeat(50)));
        assert!(rows[1].ends_with('|') && rows[4].ends_with("|#"), "{text}");
    }

    #[test]
    fn a_percentile_without_samples_beyond_it_is_not_printed() {
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3).unwrap();
        histogram.saturating_record_n(1_000, 9_900);
        assert_eq!(percentile(&histogram, 0.99), "n/a");
        histogram.saturating_record_n(1_000, 100);
        assert_eq!(percentile(&histogram, 0.99), "1.00us");
    }
}
