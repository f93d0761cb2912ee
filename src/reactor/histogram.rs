//! A histogram of durations with one writer: fixed bounds, so that readers on other threads add shards and servers up.

use super::counters::Counter;

/// Upper bounds of the buckets, microseconds; what is above the last is counted behind it.
pub const BOUNDS_US: [u64; 18] =
    [10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000, 5_000_000];

#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; BOUNDS_US.len() + 1],
    sum_us: Counter,
}

/// What a reader saw: each bucket alone, the sum of all durations in microseconds. A sample that is being recorded may be in one and not in the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub buckets: [u64; BOUNDS_US.len() + 1],
    pub sum_us: u64,
}

impl Histogram {
    pub(super) fn record_us(&self, us: u64) {
        self.buckets[BOUNDS_US.partition_point(|bound| *bound < us)].add(1);
        self.sum_us.add(us);
    }

    pub fn seen(&self) -> Seen {
        Seen { buckets: std::array::from_fn(|index| self.buckets[index].get()), sum_us: self.sum_us.get() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_stands_in_the_first_bucket_that_holds_it() {
        let histogram = Histogram::default();
        for us in [0, 10, 11, 5_000_000, 5_000_001, u64::from(u32::MAX)] {
            histogram.record_us(us);
        }
        let seen = histogram.seen();
        assert_eq!((seen.buckets[0], seen.buckets[1], seen.buckets[17], seen.buckets[18]), (2, 1, 1, 2));
        assert_eq!(seen.sum_us, 21 + 5_000_000 + 5_000_001 + u64::from(u32::MAX));
    }
}
