//! Random numbers for the model tests of `memory`: the same in every run, and a failing seed says its name.
#![allow(dead_code, reason = "each test is a crate of its own and uses its part")]

/// SplitMix64.
pub(crate) struct Random {
    seed: u64,
    state: u64,
}

impl Random {
    fn new(seed: u64) -> Self {
        Random { seed, state: seed }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.state;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }

    /// 0 .. `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// As [`Random::below`], for slots and counts.
    pub(crate) fn below_u32(&mut self, end: u32) -> u32 {
        u32::try_from(self.below(u64::from(end))).expect("it is below a u32")
    }

    /// A place in a list of `len` items.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("it is below a usize")
    }
}

impl Drop for Random {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with seed {}: MEMORY_SEED={} repeats it", self.seed, self.seed);
        }
    }
}

/// Runs `property` with the seeds 0 .. `seeds`, or with the one in MEMORY_SEED.
pub(crate) fn for_each_seed(seeds: u64, mut property: impl FnMut(&mut Random)) {
    if let Ok(seed) = std::env::var("MEMORY_SEED") {
        return property(&mut Random::new(seed.parse().expect("MEMORY_SEED is a number")));
    }
    for seed in 0..seeds {
        property(&mut Random::new(seed));
    }
}
