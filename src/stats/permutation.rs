//! The permutation test on ranks: had the labels of the sides been dealt at random, how often would the runs be parted at least this well?
//!
//! The statistic is the sum of the ranks of one side (equal values share the mean of their ranks), so one wild run counts as one wild run and
//! not as its size; without equal values it is the exact test of Mann and Whitney. Two-sided: as far from the expected sum, on either side.
//! All ways to deal the labels are counted up to [`WAYS_MAX`]; above, as many random ones are, from a seed, with the one that was observed
//! counted in (so that p is never zero; Phipson and Smyth 2010).
//!
//! The smallest p that `n` against `n` runs can give is 2 / C(2n, n): 0.029 for 4, 0.008 for 5, 0.00016 for 8.

use super::random::Random;

/// Ways that are still counted one by one: up to 10 against 10 runs. Beyond, this many are drawn.
pub const WAYS_MAX: u64 = 200_000;

/// What a test found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Test {
    /// Two-sided.
    pub p: f64,
    /// Ways to deal the labels that were looked at.
    pub ways: u64,
    /// All of them were; otherwise they were drawn.
    pub exact: bool,
}

/// `None` where a side is empty. `seed` is used only when there are too many ways.
pub fn test(a: &[f64], b: &[f64], seed: u64) -> Option<Test> {
    if a.is_empty() || b.is_empty() {
        return None;
    }
    let ranks = ranks_doubled(a, b);
    let deal = Deal { chosen: b.len(), expected_doubled: b.len() as u64 * (ranks.len() as u64 + 1), ranks };
    Some(match combinations(a.len() + b.len(), b.len()) {
        Some(ways) if ways <= WAYS_MAX => deal.count_all(a.len(), ways),
        _ => deal.draw(a.len(), seed),
    })
}

/// The smallest p these numbers of runs can give.
pub fn smallest_p(a: usize, b: usize) -> f64 {
    let sides = if a == b || a.min(b) > 0 { 2.0 } else { 1.0 };
    match combinations(a + b, b) {
        Some(ways) if ways <= WAYS_MAX => (sides / count_f64(ways)).min(1.0),
        _ => 1.0 / count_f64(WAYS_MAX + 1),
    }
}

/// Ways to choose `k` of `n`; `None` above 2^64.
pub fn combinations(n: usize, k: usize) -> Option<u64> {
    let k = k.min(n.checked_sub(k)?) as u64;
    let mut ways: u128 = 1;
    for step in 1..=k {
        ways = ways.checked_mul(u128::from(n as u64 - k + step))? / u128::from(step);
        u64::try_from(ways).ok()?;
    }
    u64::try_from(ways).ok()
}

#[allow(clippy::cast_precision_loss, reason = "exact below 2^53")]
fn count_f64(count: u64) -> f64 {
    count as f64
}

/// Ranks of `a` followed by `b`, times two: means of ranks then stay whole numbers, and sums compare exactly.
fn ranks_doubled(a: &[f64], b: &[f64]) -> Vec<u64> {
    let all: Vec<f64> = a.iter().chain(b).copied().collect();
    let mut order: Vec<usize> = (0..all.len()).collect();
    order.sort_by(|x, y| all[*x].total_cmp(&all[*y]));
    let mut ranks = vec![0; all.len()];
    let mut start = 0;
    while start < order.len() {
        let equal = order[start..].iter().take_while(|index| all[**index] == all[order[start]]).count();
        // Ranks start+1 ..= start+equal; twice their mean.
        let doubled = (2 * start + equal + 1) as u64;
        order[start..start + equal].iter().for_each(|index| ranks[*index] = doubled);
        start += equal;
    }
    ranks
}

/// The ranks of all runs and how many of them one side gets.
struct Deal {
    ranks: Vec<u64>,
    chosen: usize,
    /// Twice the expected sum of the chosen ranks.
    expected_doubled: u64,
}

impl Deal {
    fn distance(&self, sum: u64) -> u64 {
        sum.abs_diff(self.expected_doubled)
    }

    /// How far the runs as they are lie from the expected sum; those of the side in question stand last.
    fn observed(&self, first: usize) -> u64 {
        self.distance(self.ranks[first..].iter().sum())
    }

    fn count_all(&self, first: usize, ways: u64) -> Test {
        let observed = self.observed(first);
        let mut far = 0u64;
        let mut places: Vec<usize> = (0..self.chosen).collect();
        loop {
            far += u64::from(self.distance(places.iter().map(|place| self.ranks[*place]).sum()) >= observed);
            if !next_choice(&mut places, self.ranks.len()) {
                break;
            }
        }
        Test { p: count_f64(far) / count_f64(ways), ways, exact: true }
    }

    fn draw(&self, first: usize, seed: u64) -> Test {
        let observed = self.observed(first);
        let (mut random, mut ranks, mut far) = (Random::new(seed), self.ranks.clone(), 0u64);
        for _ in 0..WAYS_MAX {
            random.shuffle(&mut ranks);
            far += u64::from(self.distance(ranks[..self.chosen].iter().sum()) >= observed);
        }
        Test { p: count_f64(far + 1) / count_f64(WAYS_MAX + 1), ways: WAYS_MAX, exact: false }
    }
}

/// The next choice of places among `0 .. of`, in lexical order; false after the last.
pub(super) fn next_choice(places: &mut [usize], of: usize) -> bool {
    let count = places.len();
    let Some(at) = (0..count).rev().find(|at| places[*at] < of - count + at) else { return false };
    places[at] += 1;
    for later in at + 1..count {
        places[later] = places[later - 1] + 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::super::as_f64;
    use super::*;

    fn p(a: &[f64], b: &[f64]) -> f64 {
        test(a, b, 1).expect("two sides").p
    }

    /// Hollander and Wolfe, Nonparametric Statistical Methods (1973), page 69: permeability constants of the human chorioamnion at term (x) and
    /// between 12 and 26 weeks (y). R's `wilcox.test` documents it: W = 35, one-sided p = 0.1272, so 0.2544 two-sided.
    #[test]
    fn the_published_example_comes_out() {
        let x = [0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46];
        let y = [1.15, 0.88, 0.90, 0.74, 1.21];
        assert!((p(&x, &y) - 0.254_412_254).abs() < 1e-8, "{}", p(&x, &y));
        assert_eq!(test(&x, &y, 1).expect("two sides").ways, 3_003);
    }

    #[test]
    fn the_smallest_p_is_that_of_the_tables() {
        let sides = |n: usize| {
            let a: Vec<f64> = (0..n).map(as_f64).collect();
            (a.clone(), a.iter().map(|x| x + 100.0).collect::<Vec<_>>())
        };
        for (n, expected) in [(3, 0.1), (4, 0.028_571_4), (5, 0.007_936_5), (8, 0.000_155_4), (10, 0.000_010_8)] {
            let (a, b) = sides(n);
            assert!((p(&a, &b) - expected).abs() < 1e-7 && (smallest_p(n, n) - expected).abs() < 1e-7, "{n}: {}", p(&a, &b));
        }
    }

    #[test]
    fn equal_sides_are_not_parted() {
        assert_eq!(p(&[1.0, 1.0, 1.0], &[1.0, 1.0, 1.0]), 1.0);
        assert_eq!(p(&[1.0, 2.0, 3.0, 4.0], &[1.0, 2.0, 3.0, 4.0]), 1.0);
    }

    #[test]
    fn the_sides_may_be_swapped() {
        let (a, b) = ([3.0, 1.0, 4.0, 1.5], [9.0, 2.6, 5.0, 3.5, 8.0]);
        assert_eq!(p(&a, &b), p(&b, &a));
    }

    #[test]
    fn drawing_comes_close_to_counting() {
        // 12 against 12: 2,704,156 ways, so they are drawn.
        let a: Vec<f64> = (0..12).map(|i| as_f64(i) * 1.7 % 5.0).collect();
        let b: Vec<f64> = (0..12).map(|i| as_f64(i) * 2.3 % 5.3 + 0.4).collect();
        let drawn = test(&a, &b, 5).expect("two sides");
        assert!(!drawn.exact && drawn == test(&a, &b, 5).expect("two sides"), "the seed decides");
        // scipy.stats.mannwhitneyu(a, b, method="exact").pvalue of the same values.
        assert!((drawn.p - 0.100_530_443).abs() < 0.003, "{}", drawn.p);
    }

    #[test]
    fn choices_are_counted_and_all_made() {
        assert_eq!(combinations(10, 3), Some(120));
        assert_eq!(combinations(200, 100), None);
        assert_eq!(combinations(2, 3), None);
        let (mut places, mut count) = (vec![0, 1, 2], 1);
        while next_choice(&mut places, 10) {
            count += 1;
        }
        assert_eq!((count, places), (120, vec![7, 8, 9]));
    }

    #[test]
    fn an_empty_side_has_no_test() {
        assert_eq!(test(&[], &[1.0], 1), None);
    }
}
