//! One line per second while the run goes on, rewritten in place on a terminal; and the merging of the threads' seconds behind it.

use std::collections::BTreeMap;
use std::io::{self, Write};

use crate::load::record::{Interval, Name, Phase};

use super::{per_second, quantile, time};

/// How lines follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Each overwrites the one before.
    Terminal,
    Plain,
}

/// Phase, then start: the order in which seconds are complete.
type When = (u8, u64);

/// Puts the threads' intervals of the same second together.
#[derive(Debug)]
pub struct Merger {
    /// Up to when each thread has reported.
    reached: Vec<Option<When>>,
    open: BTreeMap<When, Box<Interval>>,
}

impl Merger {
    pub fn new(lanes: usize) -> Self {
        Self { reached: vec![None; lanes], open: BTreeMap::new() }
    }

    /// Takes a thread's interval; gives it back, to be used again, when its figures went into another's.
    pub fn add(&mut self, lane: usize, interval: Box<Interval>) -> Option<Box<Interval>> {
        let when = when(&interval);
        self.reached[lane] = Some(when);
        match self.open.get_mut(&when) {
            Some(sum) => {
                sum.add(&interval);
                Some(interval)
            }
            None => {
                self.open.insert(when, interval);
                None
            }
        }
    }

    /// The next second that no thread can add to, in order.
    pub fn next_complete(&mut self) -> Option<Box<Interval>> {
        let reached = self.reached.iter().min().copied().flatten()?;
        let first = self.open.first_entry()?;
        (*first.key() <= reached).then(|| first.remove())
    }
}

fn when(interval: &Interval) -> When {
    match interval.phase {
        Phase::Warmup => (0, interval.start_ns),
        Phase::Measured => (1, interval.start_ns),
        Phase::Grace => (2, 0),
    }
}

/// What the line says beside the second's own figures.
#[derive(Clone, Copy, Debug)]
pub struct Around {
    /// Deliveries on their way.
    pub missing: u64,
    /// Until the window ends.
    pub left_ns: u64,
}

/// The line of a second.
pub fn line(interval: &Interval, around: Around) -> String {
    let ns = interval.end_ns.saturating_sub(interval.start_ns);
    let rate = |events| short(per_second(events, ns));
    let delivery = interval.histograms.delivery();
    let phase = match interval.phase {
        Phase::Warmup => "warm-up",
        Phase::Measured => "measure",
        Phase::Grace => "grace",
    };
    let counts = &interval.counts;
    let at = |histogram, q| quantile(histogram, q).map_or_else(|| "n/a".to_owned(), time);
    let late = at(interval.histograms.of(Name::Lateness), 0.99);
    let seconds = crate::load::plan::as_f64(interval.end_ns) / 1e9;
    let mut line =
        format!("{phase:>7} {seconds:>5.1}s sent {}/{}/s got {}/s", rate(counts.sent), rate(counts.offered), rate(counts.delivered));
    for (number, what) in [(counts.refused, "refused"), (counts.doubled, "DOUBLED"), (counts.out_of_order, "OUT OF ORDER")] {
        if number > 0 {
            line.push_str(&format!(" {what} {}", short(number)));
        }
    }
    // What matters most comes first: a narrow terminal shows no more.
    line.push_str(&format!(" p99 {} late {late} ETA {}s", at(&delivery, 0.99), around.left_ns.div_ceil(1_000_000_000)));
    line.push_str(&format!(" missing {} p50 {} max {}", short(around.missing), at(&delivery, 0.5), time(delivery.max())));
    line
}

/// A count in three digits or so.
fn short(number: u64) -> String {
    let value = crate::load::plan::as_f64(number);
    match number {
        0..10_000 => number.to_string(),
        10_000..1_000_000 => format!("{:.1}k", value / 1e3),
        _ => format!("{:.2}M", value / 1e6),
    }
}

/// Columns of a line on a terminal: a longer one would leave its first part standing when the next overwrites it.
const COLUMNS: usize = 80;

/// Writes a line in the style; [`finish`] ends the last one.
pub fn show(out: &mut dyn Write, style: Style, text: &str) -> io::Result<()> {
    match style {
        Style::Terminal => write!(out, "\r\x1b[K{}", text.chars().take(COLUMNS - 1).collect::<String>())?,
        Style::Plain => writeln!(out, "{text}")?,
    }
    out.flush()
}

pub fn finish(out: &mut dyn Write, style: Style) -> io::Result<()> {
    match style {
        Style::Terminal => writeln!(out),
        Style::Plain => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn interval(phase: Phase, start_ns: u64, delivered: u64) -> Box<Interval> {
        let mut interval = Interval::new();
        interval.restart(phase, start_ns);
        interval.counts.delivered = delivered;
        Box::new(interval)
    }

    #[test]
    fn a_live_line_fits_a_terminal_and_shows_no_quantile_of_few_samples() {
        let mut busy = interval(Phase::Measured, 0, 12_345_678);
        busy.end_ns = 1_000_000_000;
        busy.counts.sent = 999_999;
        busy.counts.offered = 1_000_000;
        busy.histograms.record(Name::RoomDelivery, 1_000);
        let around = Around { missing: 1_000_000, left_ns: 3_000_000_000 };
        let few = line(&busy, around);
        assert!(few.contains("sent 1000.0k/1.00M/s got 12.35M/s p99 n/a late n/a ETA 3s") && few.contains("max 1.00us"), "{few}");
        busy.histograms.of_mut(Name::RoomDelivery).saturating_record_n(123_000_000, 10_000);
        busy.histograms.of_mut(Name::Lateness).saturating_record_n(12_300, 10_000);
        let mut shown = Vec::new();
        show(&mut shown, Style::Terminal, &line(&busy, around)).unwrap();
        let shown = String::from_utf8(shown).unwrap();
        let shown = shown.strip_prefix("\r\x1b[K").unwrap();
        assert!(shown.len() < COLUMNS && shown.contains("p99 123ms late 12.3us ETA 3s"), "{shown}");
    }

    #[test]
    fn a_second_is_complete_when_every_thread_has_gone_past_it() {
        let mut merger = Merger::new(2);
        assert!(merger.add(0, interval(Phase::Warmup, 0, 1)).is_none());
        assert!(merger.next_complete().is_none());
        assert!(merger.add(1, interval(Phase::Warmup, 0, 2)).is_some());
        assert_eq!(merger.next_complete().unwrap().counts.delivered, 3);
        // Thread 1 slept through a second.
        merger.add(0, interval(Phase::Measured, 1, 4));
        merger.add(0, interval(Phase::Measured, 2, 5));
        assert!(merger.next_complete().is_none());
        merger.add(1, interval(Phase::Measured, 2, 6));
        assert_eq!(merger.next_complete().unwrap().counts.delivered, 4);
        assert_eq!(merger.next_complete().unwrap().counts.delivered, 11);
        merger.add(0, interval(Phase::Grace, 7, 1));
        merger.add(1, interval(Phase::Grace, 8, 1));
        assert_eq!(merger.next_complete().unwrap().counts.delivered, 2);
        assert!(merger.next_complete().is_none());
    }
}
