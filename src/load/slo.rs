//! Objectives: `delivery.p99<20ms` against what was measured.

use std::str::FromStr;

use serde::Serialize;

use super::record::{DELIVERY, Histograms, Name};
use super::report::{self, quantile};
use super::scenario::Span;

/// What of a histogram is held against the limit.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Measure {
    Quantile(f64),
    Max,
    Mean,
}

/// One objective.
#[derive(Clone, Debug, PartialEq)]
pub struct Slo {
    text: String,
    name: &'static str,
    measure: Measure,
    measure_text: String,
    limit_ns: u64,
}

/// An objective and what became of it.
#[derive(Clone, Debug, Serialize)]
pub struct SloShown {
    pub text: String,
    pub name: &'static str,
    pub quantile: String,
    pub limit_ns: u64,
    pub value_ns: Option<u64>,
    /// None: too few samples to say.
    pub met: Option<bool>,
}

impl FromStr for Slo {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("--slo {text}: {what} (as delivery.p99<20ms)");
        let (left, limit) = text.split_once('<').ok_or_else(|| wrong("a name, a quantile, `<` and a time"))?;
        let limit: Span = limit.trim_start_matches('=').trim().parse().map_err(|error: String| wrong(&error))?;
        let left = left.trim();
        let cut = left.rmatch_indices('.').map(|(at, _)| at).filter(|at| measure(&left[at + 1..]).is_some()).min();
        let cut = cut.ok_or_else(|| wrong("no quantile: p50, p99, p99.9, max, mean"))?;
        let names = || Name::ALL.into_iter().map(Name::text).chain([DELIVERY]);
        let word = match &left[..cut] {
            "last" => "room.last",
            "spread" => "room.spread",
            "dm" => "dm.delivery",
            word => word,
        };
        let name = names()
            .find(|name| *name == word)
            .ok_or_else(|| wrong(&format!("no such name; one of {}", names().collect::<Vec<_>>().join(", "))))?;
        let measure_text = left[cut + 1..].to_owned();
        let measure = measure(&measure_text).expect("found above");
        Ok(Self { text: text.to_owned(), name, measure, measure_text, limit_ns: limit.0 })
    }
}

fn measure(text: &str) -> Option<Measure> {
    match text {
        "max" => Some(Measure::Max),
        "mean" => Some(Measure::Mean),
        _ => {
            let percent: f64 = text.strip_prefix('p')?.parse().ok()?;
            (percent > 0.0 && percent < 100.0).then_some(Measure::Quantile(percent / 100.0))
        }
    }
}

impl std::fmt::Display for Slo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl Slo {
    pub fn check(&self, histograms: &Histograms) -> SloShown {
        let named = histograms.named();
        let value_ns = named.iter().find(|(name, _)| *name == self.name).and_then(|(_, histogram)| match self.measure {
            Measure::Quantile(q) => quantile(histogram, q),
            Measure::Max => Some(histogram.max()),
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a mean of values up to a minute of nanoseconds")]
            Measure::Mean => Some(histogram.mean() as u64),
        });
        let met = value_ns.map(|value| value < self.limit_ns);
        SloShown { text: self.text.clone(), name: self.name, quantile: self.measure_text.clone(), limit_ns: self.limit_ns, value_ns, met }
    }
}

impl SloShown {
    /// Why it is not met, if it is not.
    pub fn missed(&self) -> Option<String> {
        match (self.met, self.value_ns) {
            (Some(true), _) => None,
            (_, Some(value)) => Some(format!("objective missed: {}, but it was {}", self.text, report::time(value))),
            (_, None) => Some(format!("objective not shown to be met: {}: fewer than 100 samples beyond it", self.text)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn objectives_are_read_and_wrong_ones_say_why() {
        let read = |text: &str| text.parse::<Slo>();
        let slo = read("room.last.p99.9<0.1s").unwrap();
        assert_eq!((slo.name, slo.measure_text.as_str(), slo.limit_ns), ("room.last", "p99.9", 100_000_000));
        assert_eq!(read("last.max < 5ms").unwrap().name, "room.last");
        assert_eq!(read("delivery.p99<=20ms").unwrap().limit_ns, 20_000_000);
        for (text, word) in [
            ("delivery.p99", "`<`"),
            ("delivery<5ms", "no quantile"),
            ("delivery.p100<5ms", "no quantile"),
            ("foo.p99<5ms", "no such name"),
            ("sent.p50<x", "length of time"),
        ] {
            assert!(read(text).unwrap_err().contains(word), "{text}: {:?}", read(text));
        }
    }

    #[test]
    fn an_objective_is_met_missed_or_not_shown() {
        let mut histograms = Histograms::new();
        histograms.of_mut(Name::RoomDelivery).saturating_record_n(1_000_000, 50_000);
        let check = |text: &str| text.parse::<Slo>().unwrap().check(&histograms);
        assert_eq!(check("delivery.p99<2ms").met, Some(true));
        assert_eq!(check("room.delivery.p99<1ms").met, Some(false));
        assert_eq!(check("delivery.max<2ms").met, Some(true));
        assert_eq!((check("delivery.p99.9<2ms").met, check("sent.p50<1s").met), (None, None));
        assert!(check("delivery.p99<2ms").missed().is_none());
        assert!(check("delivery.p99<1ms").missed().unwrap().contains("1.00ms"));
        assert!(check("sent.p50<1s").missed().unwrap().contains("fewer than 100"));
    }
}
