//! When messages are due: an open-loop schedule per thread, from a seed, that nothing the server does can move.
//!
//! Owns the gaps and the generator's random numbers. It knows no clock: times are nanoseconds since the start of the run. The same seed,
//! rate and thread give the same times, so that two sides of a comparison get the same arrivals.

use super::plan::Arrivals;

/// A number to one that shares nothing visible with it: splitmix64's finish.
pub fn mix(number: u64) -> u64 {
    let mut z = number;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// xoshiro256++ seeded through splitmix64 (Blackman and Vigna, public domain): fast and, with equal seeds, equal everywhere.
#[derive(Clone, Debug)]
pub struct Random {
    state: [u64; 4],
}

impl Random {
    pub fn new(seed: u64) -> Self {
        let mut x = seed;
        let state = std::array::from_fn(|_| {
            x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
            mix(x)
        });
        Self { state }
    }

    pub fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let result = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let (c, d) = (c ^ a, d ^ b);
        self.state = [a ^ d, b ^ c, c ^ (b << 17), d.rotate_left(45)];
        result
    }

    /// Evenly from `0 .. bound` (`bound` > 0); the bias of the multiplication is below 2^-32.
    pub fn below(&mut self, bound: u32) -> u32 {
        let high = self.next_u64() >> 32;
        u32::try_from((high * u64::from(bound)) >> 32).expect("below a u32")
    }

    /// In (0, 1].
    fn unit(&mut self) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "53 bits fit a double exactly")]
        let bits = ((self.next_u64() >> 11) + 1) as f64;
        bits / 9_007_199_254_740_992.0
    }
}

/// The due times of one thread.
#[derive(Clone, Debug)]
pub struct Schedule {
    random: Random,
    arrivals: Arrivals,
    gap_ns: f64,
    due_ns: f64,
}

impl Schedule {
    /// `rate` messages per second (> 0), the first one after a gap from zero.
    pub fn new(arrivals: Arrivals, rate: f64, seed: u64) -> Self {
        debug_assert!(rate > 0.0);
        let mut schedule = Self { random: Random::new(seed), arrivals, gap_ns: 1e9 / rate, due_ns: 0.0 };
        schedule.advance();
        schedule
    }

    /// When the next message is due.
    pub fn due_ns(&self) -> u64 {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive; the cast saturates")]
        let due = self.due_ns as u64;
        due
    }

    pub fn advance(&mut self) {
        self.due_ns += match self.arrivals {
            Arrivals::Constant => self.gap_ns,
            Arrivals::Poisson => -self.random.unit().ln() * self.gap_ns,
        };
    }

    /// The same stream of random numbers serves the choice of the room.
    pub fn random(&mut self) -> &mut Random {
        &mut self.random
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(arrivals: Arrivals, seed: u64) -> Vec<u64> {
        let mut schedule = Schedule::new(arrivals, 1_000.0, seed);
        let mut times = Vec::new();
        for _ in 0..20_000 {
            times.push(schedule.due_ns());
            schedule.advance();
        }
        times
    }

    #[test]
    fn equal_seeds_give_equal_schedules() {
        assert_eq!(times(Arrivals::Poisson, 7), times(Arrivals::Poisson, 7));
        assert_ne!(times(Arrivals::Poisson, 7), times(Arrivals::Poisson, 8));
    }

    #[test]
    fn constant_arrivals_are_a_gap_apart() {
        let times = times(Arrivals::Constant, 1);
        assert!(times.windows(2).all(|w| w[1] - w[0] == 1_000_000));
    }

    #[test]
    fn poisson_gaps_have_the_mean_and_the_spread_of_an_exponential() {
        let times = times(Arrivals::Poisson, 3);
        let gaps: Vec<u64> = times.windows(2).map(|w| w[1] - w[0]).collect();
        let mean = gaps.iter().sum::<u64>() / gaps.len() as u64;
        assert!((970_000..1_030_000).contains(&mean), "{mean}");
        // P(gap > 1 mean) = 1/e = 36.8 %; P(gap > 3 means) = 5.0 %.
        let over = |limit: u64| gaps.iter().filter(|g| **g > limit).count() * 1_000 / gaps.len();
        assert!((355..381).contains(&over(1_000_000)), "{}", over(1_000_000));
        assert!((44..56).contains(&over(3_000_000)), "{}", over(3_000_000));
    }

    #[test]
    fn below_covers_its_range_evenly() {
        let mut random = Random::new(5);
        let mut hits = [0u32; 7];
        for _ in 0..70_000 {
            hits[random.below(7) as usize] += 1;
        }
        assert!(hits.iter().all(|h| (9_500..10_500).contains(h)), "{hits:?}");
    }
}
