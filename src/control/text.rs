//! The text format of Prometheus (version 0.0.4): families of samples, each family once, in the order of their names.

use std::fmt::Write;

use crate::reactor::histogram::{BOUNDS_US, Seen};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// A metric with its samples, written as lines without their names.
#[derive(Debug)]
struct Family {
    name: String,
    help: String,
    kind: Kind,
    lines: String,
}

/// The page being written. Families are few: found by looking through them.
#[derive(Debug, Default)]
pub(super) struct Page {
    families: Vec<Family>,
}

/// A label's name and value; both are words of ours, never a client's.
pub(super) type Label<'a> = (&'a str, &'a str);

impl Page {
    /// Adds a sample. `name` is whole, with its unit; a counter's ends in `_total`.
    pub(super) fn add(&mut self, kind: Kind, name: &str, help: &str, labels: &[Label<'_>], value: impl std::fmt::Display) {
        let family = self.family(kind, name, help);
        let _ = writeln!(family.lines, "{name}{} {value}", braces(labels));
    }

    /// Adds one histogram of durations, in seconds.
    pub(super) fn add_histogram(&mut self, name: &str, help: &str, labels: &[Label<'_>], seen: &Seen) {
        let family = self.family(Kind::Histogram, name, help);
        let mut below = 0;
        for (index, count) in seen.buckets.iter().enumerate() {
            below += count;
            let bound = BOUNDS_US.get(index).map_or_else(|| "+Inf".to_owned(), |us| seconds(*us));
            let mut labels = labels.to_vec();
            labels.push(("le", &bound));
            let _ = writeln!(family.lines, "{name}_bucket{} {below}", braces(&labels));
        }
        let labels = braces(labels);
        let _ = writeln!(family.lines, "{name}_sum{labels} {}\n{name}_count{labels} {below}", seconds(seen.sum_us));
    }

    fn family(&mut self, kind: Kind, name: &str, help: &str) -> &mut Family {
        let at = self.families.iter().position(|family| family.name == name).unwrap_or_else(|| {
            self.families.push(Family { name: name.to_owned(), help: help.trim().to_owned(), kind, lines: String::new() });
            self.families.len() - 1
        });
        &mut self.families[at]
    }

    pub(super) fn text(mut self) -> String {
        self.families.sort_by(|a, b| a.name.cmp(&b.name));
        let mut text = String::new();
        for Family { name, help, kind, lines } in &self.families {
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {}\n{lines}", kind.name());
        }
        text
    }
}

fn braces(labels: &[Label<'_>]) -> String {
    let inner: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    if inner.is_empty() { String::new() } else { format!("{{{}}}", inner.join(",")) }
}

/// Microseconds as seconds, exactly.
#[allow(clippy::cast_precision_loss, reason = "2^53 microseconds are 285 years")]
fn seconds(us: u64) -> String {
    (us as f64 / 1e6).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_stand_together_whatever_the_order_they_came_in() {
        let mut page = Page::default();
        page.add(Kind::Gauge, "b", "Two.", &[], 1);
        page.add(Kind::Counter, "a_total", " One. ", &[("shard", "0"), ("reason", "x")], 2);
        page.add(Kind::Gauge, "b", "Two.", &[("shard", "1")], 3);
        let expected = "# HELP a_total One.\n# TYPE a_total counter\na_total{shard=\"0\",reason=\"x\"} 2\n# HELP b Two.\n# TYPE b gauge\nb 1\nb{shard=\"1\"} 3\n";
        assert_eq!(page.text(), expected);
    }

    #[test]
    fn a_histograms_buckets_add_up() {
        let mut page = Page::default();
        let mut seen = Seen { buckets: [0; BOUNDS_US.len() + 1], sum_us: 1_500_000 };
        (seen.buckets[0], seen.buckets[18]) = (2, 1);
        page.add_histogram("h_seconds", "H.", &[("shard", "0")], &seen);
        let text = page.text();
        assert!(text.contains("h_seconds_bucket{shard=\"0\",le=\"0.00001\"} 2\n"), "{text}");
        assert!(text.contains("h_seconds_bucket{shard=\"0\",le=\"5\"} 2\nh_seconds_bucket{shard=\"0\",le=\"+Inf\"} 3\n"), "{text}");
        assert!(text.contains("h_seconds_sum{shard=\"0\"} 1.5\nh_seconds_count{shard=\"0\"} 3\n"), "{text}");
    }
}
