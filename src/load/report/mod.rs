//! What the user sees and keeps: the live line, the table, the drawing, the files.
//!
//! Takes finished figures and writes text. Never computes a verdict, never touches a socket. Percentiles with fewer than 100 samples beyond
//! them are printed as `n/a`: the maximum already says what there is.
#![doc = include_str!("FORMAT.md")]

pub mod files;
pub mod live;
pub mod summary;
pub mod table;

use hdrhistogram::Histogram;

use super::plan::as_f64;

/// Samples that must lie beyond a quantile for it to mean anything.
const BEYOND_MIN: f64 = 100.0;

/// The value at a quantile, where enough samples lie beyond it.
pub fn quantile(histogram: &Histogram<u64>, quantile: f64) -> Option<u64> {
    // A tenth of a sample bears the rounding of 1 - 0.99.
    let beyond = as_f64(histogram.len()) * (1.0 - quantile) + 0.1;
    (beyond >= BEYOND_MIN).then(|| histogram.value_at_quantile(quantile))
}

/// A time as people read it, three digits.
pub fn time(ns: u64) -> String {
    let (value, unit) = match ns {
        0..1_000 => return format!("{ns}ns"),
        1_000..1_000_000 => (as_f64(ns) / 1e3, "us"),
        1_000_000..1_000_000_000 => (as_f64(ns) / 1e6, "ms"),
        _ => (as_f64(ns) / 1e9, "s"),
    };
    match value {
        v if v < 10.0 => format!("{v:.2}{unit}"),
        v if v < 100.0 => format!("{v:.1}{unit}"),
        v => format!("{v:.0}{unit}"),
    }
}

/// A count with its thousands apart.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A rate, whole.
pub fn per_second(events: u64, ns: u64) -> u64 {
    let rate = as_f64(events) * 1e9 / as_f64(ns.max(1));
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative; the cast saturates")]
    let whole = rate.round() as u64;
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_printed_for_people() {
        assert_eq!([time(999), time(1_234), time(56_789_000), time(1_500_000_000)], ["999ns", "1.23us", "56.8ms", "1.50s"]);
        assert_eq!([count(0), count(999), count(1_000), count(1_234_567)], ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(per_second(500, 2_000_000_000), 250);
    }
}
