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
    pub fn unit(&mut self) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "53 bits fit a double exactly")]
        let bits = ((self.next_u64() >> 11) + 1) as f64;
        bits / 9_007_199_254_740_992.0
    }
}

/// A stretch of time with a rate that is level or changes evenly. Rates in messages per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stretch {
    pub length_ns: u64,
    pub from: f64,
    pub to: f64,
}

/// The due times of one thread.
#[derive(Clone, Debug)]
pub struct Schedule {
    random: Random,
    arrivals: Arrivals,
    /// End (ns since the start of the run) and rates (per ns) at both ends.
    stretches: Vec<(f64, f64, f64)>,
    at: usize,
    due_ns: f64,
    /// Messages of the burst that are due at the same time.
    burst_left: u32,
}

impl Schedule {
    /// The stretches follow one another from zero; `share` of their rates is this thread's. The first message comes after a gap from zero.
    pub fn new(arrivals: Arrivals, stretches: &[Stretch], share: f64, seed: u64) -> Self {
        let mut end = 0.0;
        let line = |stretch: &Stretch| {
            end += super::plan::as_f64(stretch.length_ns);
            (end, stretch.from * share / 1e9, stretch.to * share / 1e9)
        };
        let stretches = stretches.iter().filter(|stretch| stretch.length_ns > 0).map(line).collect();
        let mut schedule = Self { random: Random::new(seed), arrivals, stretches, at: 0, due_ns: 0.0, burst_left: 0 };
        schedule.advance();
        schedule
    }

    /// When the next message is due; `u64::MAX` when there is none any more.
    pub fn due_ns(&self) -> u64 {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive; the cast saturates")]
        let due = self.due_ns as u64;
        due
    }

    pub fn advance(&mut self) {
        if let Some(left) = self.burst_left.checked_sub(1) {
            self.burst_left = left;
            return;
        }
        let messages = match self.arrivals {
            Arrivals::Constant => 1.0,
            Arrivals::Poisson => -self.random.unit().ln(),
            Arrivals::Burst(size) => {
                self.burst_left = size - 1;
                -self.random.unit().ln() * f64::from(size)
            }
        };
        self.pass(messages);
    }

    /// Moves on to where this many messages would have come: the rate's integral, solved piece by piece.
    fn pass(&mut self, messages: f64) {
        let mut lacking = messages;
        while let Some(&(end, from, to)) = self.stretches.get(self.at) {
            let start = self.at.checked_sub(1).map_or(0.0, |before| self.stretches[before].0);
            let slope = (to - from) / (end - start);
            let rate = from + slope * (self.due_ns - start);
            let left = end - self.due_ns;
            let area = (rate + to) / 2.0 * left;
            if lacking <= area && area > 0.0 {
                // rate x + slope x^2 / 2 = lacking, in the form that bears a slope of zero.
                let root = (rate * rate + 2.0 * slope * lacking).max(0.0).sqrt();
                self.due_ns += (2.0 * lacking / (rate + root)).min(left);
                return;
            }
            lacking -= area;
            self.due_ns = end;
            self.at += 1;
        }
        self.due_ns = f64::INFINITY;
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
        let level = Stretch { length_ns: 100_000_000_000, from: 1_000.0, to: 1_000.0 };
        let mut schedule = Schedule::new(arrivals, &[level], 1.0, seed);
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
        assert!(times.windows(2).all(|w| (999_999..=1_000_001).contains(&(w[1] - w[0]))));
    }

    #[test]
    fn bursts_come_together_and_keep_the_mean() {
        let times = times(Arrivals::Burst(10), 4);
        assert!(times.chunks(10).all(|burst| burst.iter().all(|time| *time == burst[0])));
        let mean = times.last().unwrap_or(&0) / 20_000;
        assert!((940_000..1_060_000).contains(&mean), "{mean}");
    }

    /// Messages due in each second of the stretches.
    fn per_second(arrivals: Arrivals, stretches: &[Stretch], share: f64) -> Vec<u32> {
        let seconds = stretches.iter().map(|s| s.length_ns).sum::<u64>() / 1_000_000_000;
        let mut counts = vec![0; usize::try_from(seconds).unwrap_or(0)];
        let mut schedule = Schedule::new(arrivals, stretches, share, 1);
        while schedule.due_ns() < u64::MAX {
            let second = usize::try_from(schedule.due_ns() / 1_000_000_000).unwrap_or(usize::MAX);
            let last = counts.len() - 1;
            counts[second.min(last)] += 1;
            schedule.advance();
        }
        counts
    }

    #[test]
    fn ramps_holds_and_spikes_are_followed_and_then_it_ends() {
        let stretch = |seconds: u64, from, to| Stretch { length_ns: seconds * 1_000_000_000, from, to };
        let profile = [stretch(4, 0.0, 4_000.0), stretch(2, 4_000.0, 4_000.0), stretch(1, 20_000.0, 20_000.0), stretch(2, 2_000.0, 0.0)];
        let counts = per_second(Arrivals::Constant, &profile, 0.5);
        let wanted = [250, 750, 1_250, 1_750, 2_000, 2_000, 10_000, 750, 250];
        for (count, wanted) in counts.iter().zip(wanted) {
            assert!((wanted - 2..=wanted + 2).contains(count), "{counts:?}");
        }
        let poisson = per_second(Arrivals::Poisson, &profile, 0.5);
        assert!((9_600..10_400).contains(&poisson[6]) && (180..330).contains(&poisson[0]), "{poisson:?}");
        assert!(per_second(Arrivals::Poisson, &[stretch(3, 0.0, 0.0)], 1.0).iter().all(|count| *count == 0));
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
