//! Statistics of a comparison: what may be said about two sides of measured runs.
//!
//! A *run* is the unit: samples inside a run hang together (one stall touches thousands of them), so a thousand million samples of three runs
//! are three observations. Each side is a short list of numbers, one per run (its p99, its CPU time), and everything here works on such lists.
//!
//! - [`shift`]: by how much one side lies above the other (Hodges-Lehmann), and the 95 % interval of that, by bootstrap over runs.
//! - [`permutation`]: how often chance alone would part the runs this well (exact, on ranks).
//! - [`holm`]: what is left of that when several quantiles were asked at once.
//! - [`noise`]: how far two halves of the *same* side lie apart: the noise floor.
//! - [`verdict`]: the four together: better, worse, or not shown.
//!
//! Pure: no clock, no file; every random number comes from a stated seed, so a result can be had again from the same runs to the last digit.

pub mod holm;
pub mod noise;
pub mod permutation;
pub mod random;
pub mod shift;
pub mod verdict;

/// Seed of everything random here, unless another is asked for. Results state it.
pub const SEED: u64 = 20_261_125;

/// The middle of the values, `None` of none. Values are finite.
pub fn median(values: &[f64]) -> Option<f64> {
    median_in_place(&mut values.to_vec())
}

/// The same without a copy; the order of `values` is lost.
pub fn median_in_place(values: &mut [f64]) -> Option<f64> {
    let count = values.len();
    if count == 0 {
        return None;
    }
    let (below, middle, _) = values.select_nth_unstable_by(count / 2, f64::total_cmp);
    let middle = *middle;
    if count % 2 == 1 {
        return Some(middle);
    }
    let lower = below.iter().copied().max_by(f64::total_cmp)?;
    Some(lower.midpoint(middle))
}

/// The value at `quantile` (0 to 1) of sorted values, straight between neighbours: the definition most programs use (R's type 7).
pub fn quantile(sorted: &[f64], quantile: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let place = quantile.clamp(0.0, 1.0) * as_f64(last);
    let low = floor(place).min(last);
    let high = (low + 1).min(last);
    let part = place - as_f64(low);
    Some(sorted[low] + part * (sorted[high] - sorted[low]))
}

/// Counts of runs and pairs are far below 2^53.
#[allow(clippy::cast_precision_loss, reason = "exact below 2^53")]
pub(crate) fn as_f64(count: usize) -> f64 {
    count as f64
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative; the cast saturates")]
fn floor(place: f64) -> usize {
    place.floor() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_the_two() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[7.0]), Some(7.0));
        assert_eq!(median(&[9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(&[9.0, 1.0, 5.0, 2.0]), Some(3.5));
        assert_eq!(median(&[2.0, 2.0, 2.0, 2.0]), Some(2.0));
    }

    #[test]
    fn quantiles_lie_straight_between_neighbours() {
        let sorted = [1.0, 2.0, 4.0, 8.0];
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!([0.0, 0.5, 1.0].map(|q| quantile(&sorted, q)), [Some(1.0), Some(3.0), Some(8.0)]);
        assert_eq!(quantile(&sorted, 0.75), Some(5.0), "as numpy.quantile and R's default");
    }
}
