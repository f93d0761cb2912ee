//! The noise floor: how far runs of the *same* configuration lie apart (A/A).
//!
//! One side is cut into two halves in every way (or in [`SPLITS_MAX`] random ways, from a seed), the shift between the halves is taken each
//! time, and the floor is the size that 95 % of them stay below. Halves have fewer runs than the sides of the real comparison, so the floor is
//! rather too high than too low. Where a second set of runs of the same configuration exists, the shift between the two sets counts too: it holds
//! what drifts over time, which no cut of one set shows.

use super::permutation::{combinations, next_choice};
use super::quantile;
use super::random::Random;
use super::shift::{hodges_lehmann, share};

/// Cuts that are still all made: up to 14 runs. Beyond, this many are drawn.
pub const SPLITS_MAX: u64 = 4_000;
/// Part of the cuts that stay below the floor.
const BELOW: f64 = 0.95;
/// A half needs two runs.
const RUNS_MIN: usize = 4;

/// What a cut of one side shows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Floor {
    /// As a part of the side's median: 0.05 is 5 %.
    pub share: f64,
    /// Cuts it rests on.
    pub splits: u64,
}

/// The floor of one side; `None` with fewer than four runs or a median of zero.
pub fn floor(values: &[f64], seed: u64) -> Option<Floor> {
    if values.len() < RUNS_MIN {
        return None;
    }
    let half = values.len() / 2;
    let mut sizes: Vec<f64> = match combinations(values.len(), half) {
        Some(ways) if ways <= SPLITS_MAX => all(values, half),
        _ => drawn(values, half, seed),
    };
    sizes.sort_by(f64::total_cmp);
    let size = quantile(&sizes, BELOW)?;
    Some(Floor { share: share(size, values)?, splits: sizes.len() as u64 })
}

/// The floor of a side and a second set of runs of the same configuration.
pub fn floor_with(values: &[f64], again: &[f64], seed: u64) -> Option<Floor> {
    let both: Vec<f64> = values.iter().chain(again).copied().collect();
    let within = floor(&both, seed)?;
    let between = share(hodges_lehmann(values, again)?, values)?.abs();
    Some(Floor { share: within.share.max(between), splits: within.splits + 1 })
}

fn size_between(first: &[f64], second: &[f64]) -> Option<f64> {
    hodges_lehmann(first, second).map(f64::abs)
}

fn all(values: &[f64], half: usize) -> Vec<f64> {
    let (mut places, mut sizes): (Vec<usize>, _) = ((0..half).collect(), Vec::new());
    loop {
        let (mut first, mut second) = (Vec::with_capacity(half), Vec::with_capacity(values.len() - half));
        for (place, value) in values.iter().enumerate() {
            if places.contains(&place) { first.push(*value) } else { second.push(*value) }
        }
        sizes.extend(size_between(&first, &second));
        if !next_choice(&mut places, values.len()) {
            return sizes;
        }
    }
}

fn drawn(values: &[f64], half: usize, seed: u64) -> Vec<f64> {
    let (mut random, mut values) = (Random::new(seed), values.to_vec());
    let draw = |_| {
        random.shuffle(&mut values);
        size_between(&values[..half], &values[half..])
    };
    (0..SPLITS_MAX).filter_map(draw).collect()
}

#[cfg(test)]
mod tests {
    use super::super::as_f64;
    use super::*;

    /// As many values as asked, evenly from 100 to 100 + spread.
    fn spread(count: usize, width: f64) -> Vec<f64> {
        (0..count).map(|i| 100.0 + width * as_f64(i) / as_f64(count - 1)).collect()
    }

    #[test]
    fn runs_that_agree_have_no_floor_and_runs_that_scatter_a_high_one() {
        assert_eq!(floor(&[5.0; 8], 1), Some(Floor { share: 0.0, splits: 70 }));
        let narrow = floor(&spread(8, 2.0), 1).expect("eight runs");
        let wide = floor(&spread(8, 40.0), 1).expect("eight runs");
        assert!(narrow.share > 0.0 && narrow.share < 0.03, "{narrow:?}");
        assert!(wide.share > 0.1 && wide.share < 0.4, "{wide:?}");
    }

    #[test]
    fn many_runs_are_cut_at_random_and_come_to_the_same() {
        let (counted, drawn) = (floor(&spread(14, 20.0), 1).expect("runs"), floor(&spread(16, 20.0), 1).expect("runs"));
        assert_eq!((counted.splits, drawn.splits), (3_432, SPLITS_MAX));
        assert!((counted.share - drawn.share).abs() < 0.02, "{counted:?} {drawn:?}");
    }

    #[test]
    fn a_drift_between_two_sets_raises_the_floor() {
        let (before, after) = (spread(8, 2.0), spread(8, 2.0).iter().map(|v| v * 1.2).collect::<Vec<_>>());
        assert!(floor_with(&before, &after, 1).expect("runs").share > 0.15);
        assert!(floor(&before, 1).expect("runs").share < 0.03);
    }

    #[test]
    fn too_few_runs_have_no_floor() {
        assert_eq!((floor(&[1.0, 2.0, 3.0], 1), floor(&[0.0; 8], 1)), (None, None));
    }
}
