//! Axes: where a value lies between the ends, and which values get a mark.

use super::text::{count, digits_short, short, time};

/// How values lie on an axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scale {
    Linear {
        from: f64,
        to: f64,
    },
    /// Both ends above zero.
    Log {
        from: f64,
        to: f64,
    },
    /// Quantiles: the distance to 1 on a logarithm, so that 90 %, 99 %, 99.9 % lie evenly.
    Nines {
        most: f64,
    },
}

/// How values are written at the axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Nanoseconds, written as people do.
    Time,
    /// 0.05 as +5 %.
    ShareSigned,
    /// 0.99 as 99 %.
    Quantile,
    /// Plain, shortened.
    Number,
    Seconds,
}

/// A spread of more than this gets a logarithm.
const LOG_FROM_FACTOR: f64 = 25.0;

impl Scale {
    /// From zero, or by logarithm where values lie far apart.
    pub fn of(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = ends(values.filter(|value| *value > 0.0));
        if high > low * LOG_FROM_FACTOR { Self::Log { from: power_below(low), to: power_above(high) } } else { Self::from_zero(high) }
    }

    pub fn from_zero(high: f64) -> Self {
        let step = step(high.max(f64::MIN_POSITIVE), 5.0);
        Self::Linear { from: 0.0, to: (high / step).ceil().max(1.0) * step }
    }

    /// Around zero, for differences.
    pub fn around_zero(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = ends(values.chain([0.0]));
        let step = step((high - low).max(1e-3), 6.0);
        Self::Linear { from: (low / step).floor().min(-1.0) * step, to: (high / step).ceil().max(1.0) * step }
    }

    /// From 0 to 1; values outside are moved to the nearer end.
    pub fn place(self, value: f64) -> f64 {
        let place = match self {
            Self::Linear { from, to } => (value - from) / (to - from),
            Self::Log { from, to } => (value.max(from) / from).ln() / (to / from).ln(),
            Self::Nines { most } => -(1.0 - value).max(1e-12).log10() / most,
        };
        if place.is_finite() { place.clamp(0.0, 1.0) } else { 0.0 }
    }

    /// The values that get a mark; about `most` of them at most.
    pub fn ticks(self, most: f64) -> Vec<f64> {
        match self {
            Self::Linear { from, to } => {
                let step = step(to - from, most);
                every(from, to, step)
            }
            Self::Log { from, to } => log_ticks(from, to, most),
            Self::Nines { most } => {
                const NINES: [f64; 8] = [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.999_99, 0.999_999];
                NINES.into_iter().filter(|quantile| -(1.0 - quantile).log10() <= most + 1e-9).collect()
            }
        }
    }
}

impl Unit {
    pub fn label(self, value: f64) -> String {
        match self {
            Self::Time if value == 0.0 => "0".into(),
            Self::Time => trimmed(&time(value)),
            Self::ShareSigned if value.abs() < 1e-9 => "0 %".into(),
            Self::ShareSigned => format!("{}{} %", if value > 0.0 { "+" } else { "" }, digits_short(value * 100.0)),
            Self::Quantile => quantile(value),
            Self::Number if value.abs() < 1e4 => count_or_short(value),
            Self::Number => short(value),
            Self::Seconds => format!("{} s", digits_short(value)),
        }
    }
}

/// 0.999 as 99.9 %.
pub fn quantile(value: f64) -> String {
    let text = format!("{:.4}", value * 100.0);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

fn count_or_short(value: f64) -> String {
    if value.fract() == 0.0 { count(value) } else { digits_short(value) }
}

/// `2.00 ms` as `2 ms`.
fn trimmed(text: &str) -> String {
    match text.split_once(' ') {
        Some((number, unit)) if number.contains('.') => format!("{} {unit}", number.trim_end_matches('0').trim_end_matches('.')),
        _ => text.to_owned(),
    }
}

fn ends(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) =
        values.filter(|value| value.is_finite()).fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    if low <= high { (low, high) } else { (1.0, 1.0) }
}

/// 1, 2 or 5 times a power of ten, so that at most `most` steps fill the span.
fn step(span: f64, most: f64) -> f64 {
    let raw = span / most;
    let power = 10f64.powf(raw.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * power).find(|step| *step >= raw * (1.0 - 1e-9)).unwrap_or(10.0 * power)
}

fn every(from: f64, to: f64, step: f64) -> Vec<f64> {
    const TICKS_MAX: u32 = 50;
    let first = (from / step - 1e-9).ceil();
    (0..TICKS_MAX).map(|i| (first + f64::from(i)) * step).take_while(|value| *value <= to + step * 1e-6).collect()
}

fn power_below(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    [5.0, 2.0, 1.0].into_iter().map(|factor| factor * power).find(|start| *start <= value * (1.0 + 1e-9)).unwrap_or(power)
}

fn power_above(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * power).find(|end| *end >= value * (1.0 - 1e-9)).unwrap_or(10.0 * power)
}

/// Powers of ten, with 2 and 5 between them where there is room.
fn log_ticks(from: f64, to: f64, most: f64) -> Vec<f64> {
    let decades = (to / from).log10();
    let factors: &[f64] = match decades {
        _ if decades * 3.0 <= most => &[1.0, 2.0, 5.0],
        _ if decades * 2.0 <= most => &[1.0, 3.0],
        _ => &[1.0],
    };
    let mut ticks = Vec::new();
    let mut power = 10f64.powf(from.log10().floor());
    while power <= to * (1.0 + 1e-9) && ticks.len() < 60 {
        ticks.extend(factors.iter().map(|factor| factor * power).filter(|tick| (from * (1.0 - 1e-9)..=to * (1.0 + 1e-9)).contains(tick)));
        power *= 10.0;
    }
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nines_lie_evenly() {
        let scale = Scale::Nines { most: 4.0 };
        let places = [0.0, 0.9, 0.99, 0.999, 0.9999, 1.0].map(|q| (scale.place(q) * 100.0).round());
        assert_eq!(places, [0.0, 25.0, 50.0, 75.0, 100.0, 100.0]);
        assert_eq!(scale.ticks(9.0), [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999]);
        assert_eq!([0.0, 0.5, 0.999, 0.999_99].map(quantile), ["0 %", "50 %", "99.9 %", "99.999 %"]);
    }

    #[test]
    fn ticks_are_round_numbers_within_the_ends() {
        assert_eq!(Scale::from_zero(43.0), Scale::Linear { from: 0.0, to: 50.0 });
        assert_eq!(Scale::from_zero(43.0).ticks(5.0), [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]);
        let scale = Scale::of([3e5, 4e8].into_iter());
        assert_eq!(scale, Scale::Log { from: 2e5, to: 5e8 });
        assert!(scale.ticks(6.0).iter().all(|tick| (2e5..=5e8).contains(tick)), "{:?}", scale.ticks(6.0));
        assert_eq!(Scale::of([100.0, 200.0].into_iter()), Scale::Linear { from: 0.0, to: 200.0 });
        assert!(matches!(Scale::around_zero([-0.05, 0.12].into_iter()), Scale::Linear { from, to } if from <= -0.05 && to >= 0.12));
    }

    #[test]
    fn nothing_to_show_is_still_an_axis() {
        for scale in [Scale::of(std::iter::empty()), Scale::around_zero(std::iter::empty()), Scale::from_zero(0.0)] {
            assert!(scale.place(f64::NAN) == 0.0 && (0.0..=1.0).contains(&scale.place(5.0)) && scale.ticks(5.0).len() < 60, "{scale:?}");
        }
    }

    #[test]
    fn labels_carry_their_unit() {
        assert_eq!(Unit::Time.label(2e6), "2 ms");
        assert_eq!(Unit::ShareSigned.label(-0.05), "-5 %");
        assert_eq!(Unit::Number.label(20_000.0), "20k");
        assert_eq!(Unit::Seconds.label(30.0), "30 s");
    }
}
