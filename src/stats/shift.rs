//! By how much one side lies above the other, and how sure that is.
//!
//! The Hodges-Lehmann shift is the median of all differences between a run of one side and a run of the other. Unlike the difference of means it
//! is not moved by one wild run, and it is the estimate that goes with a test on ranks.
//!
//! Its 95 % interval is the *percentile* bootstrap: runs are drawn again with replacement, each side from its own, and the middle 95 % of the
//! shifts of [`RESAMPLES`] such draws are taken. The bias-corrected form (BCa) was tried against it on simulated runs, log-normal and with one
//! wild run in seven: both cover the truth 89 to 91 times in 100 with 4 or 5 runs and 93 times with 8, at the same width; so the plain one is
//! taken. Because few runs make it too narrow, a verdict asks the exact test as well.

use super::random::Random;
use super::{median_in_place, quantile};

/// Draws of the bootstrap. The ends of the interval then wander by about a hundredth of its width from seed to seed.
pub const RESAMPLES: usize = 4_000;
/// Part of the draws that the interval leaves out, both ends together.
const OUTSIDE: f64 = 0.05;

/// The Hodges-Lehmann shift: positive where `b` is larger. `None` where a side is empty.
pub fn hodges_lehmann(a: &[f64], b: &[f64]) -> Option<f64> {
    let mut differences: Vec<f64> = b.iter().flat_map(|b| a.iter().map(move |a| b - a)).collect();
    median_in_place(&mut differences)
}

/// Both ends of the 95 % interval of the shift; `None` where a side has no two runs to draw from.
pub fn interval(a: &[f64], b: &[f64], seed: u64) -> Option<(f64, f64)> {
    if a.len() < 2 || b.len() < 2 {
        return None;
    }
    let mut random = Random::new(seed);
    let (mut drawn_a, mut drawn_b) = (a.to_vec(), b.to_vec());
    let mut differences = Vec::with_capacity(a.len() * b.len());
    let mut shifts = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        drawn_a.iter_mut().for_each(|value| *value = a[random.below(a.len())]);
        drawn_b.iter_mut().for_each(|value| *value = b[random.below(b.len())]);
        differences.clear();
        differences.extend(drawn_b.iter().flat_map(|b| drawn_a.iter().map(move |a| b - a)));
        shifts.extend(median_in_place(&mut differences));
    }
    shifts.sort_by(f64::total_cmp);
    quantile(&shifts, OUTSIDE / 2.0).zip(quantile(&shifts, 1.0 - OUTSIDE / 2.0))
}

/// A shift as a part of the first side's median: 0.1 is 10 % more. `None` where that median is zero.
pub fn share(shift: f64, a: &[f64]) -> Option<f64> {
    super::median(a).filter(|median| *median != 0.0).map(|median| shift / median.abs())
}

#[cfg(test)]
mod tests {
    use super::super::as_f64;
    use super::*;

    /// Hollander and Wolfe (1973), page 69, as in the test of `permutation`: R's `wilcox.test(x, y, conf.int = TRUE)` gives 0.305 for x - y.
    #[test]
    fn the_published_shift_comes_out() {
        let x = [0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46];
        let y = [1.15, 0.88, 0.90, 0.74, 1.21];
        assert!((hodges_lehmann(&y, &x).expect("two sides") - 0.305).abs() < 1e-12);
        assert!((hodges_lehmann(&x, &y).expect("two sides") + 0.305).abs() < 1e-12);
    }

    #[test]
    fn a_wild_run_does_not_move_the_shift() {
        let a = [10.0, 11.0, 12.0, 13.0, 14.0];
        let b = [12.0, 13.0, 14.0, 15.0, 1e9];
        assert_eq!(hodges_lehmann(&a, &b), Some(2.0));
    }

    #[test]
    fn the_interval_holds_the_shift_and_only_the_seed_decides() {
        let a = [10.13, 11.02, 12.41, 13.07, 14.92, 15.35];
        let b = [20.78, 21.51, 22.09, 23.66, 24.53, 25.17];
        let (low, high) = interval(&a, &b, 7).expect("two sides");
        let shift = hodges_lehmann(&a, &b).expect("two sides");
        assert!(low <= shift && shift <= high && low > 5.0 && high < 15.0, "{low} {shift} {high}");
        assert_eq!(interval(&a, &b, 7), Some((low, high)));
        assert_ne!(interval(&a, &b, 8), Some((low, high)));
        assert_eq!(interval(&[3.0; 4], &[3.0; 5], 7), Some((0.0, 0.0)));
        assert_eq!(interval(&a, &b[..1], 7), None);
    }

    /// Most intervals over sides of the same kind hold zero; how many was simulated once, a coarse part of it stands here.
    #[test]
    fn intervals_of_equal_sides_mostly_hold_zero() {
        let mut random = Random::new(11);
        let mut side = || -> Vec<f64> { (0..8).map(|_| as_f64(random.below(1_000)) + as_f64(random.below(1_000))).collect() };
        let held = (0..200).filter(|seed| interval(&side(), &side(), *seed).is_some_and(|(low, high)| low <= 0.0 && 0.0 <= high)).count();
        assert!((170..=200).contains(&held), "{held} of 200");
    }

    #[test]
    fn shares_are_of_the_first_side() {
        assert_eq!(share(5.0, &[50.0, 40.0, 60.0]), Some(0.1));
        assert_eq!(share(5.0, &[0.0]), None);
    }
}
