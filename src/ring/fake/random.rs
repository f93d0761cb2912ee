//! The simulation's only source of chance: one word of state, the same sequence for the same seed on every machine.

/// SplitMix64 (Steele, Lea, Flood 2014): every seed is a good seed, and a fork is independent enough for a test.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    pub fn word(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// `0 .. bound`; the bias of the remainder is of no interest here.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "a choice between nothing");
        self.word() % bound
    }

    /// `low ..= high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// An index below `len`.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(u64::try_from(len).expect("usize is 64 bits here"))).expect("below len")
    }

    /// `low ..= high`.
    pub fn size(&mut self, low: usize, high: usize) -> usize {
        low + self.index(high - low + 1)
    }

    /// True `parts` times in a million.
    pub fn chance(&mut self, parts_per_million: u32) -> bool {
        parts_per_million > 0 && self.below(1_000_000) < u64::from(parts_per_million)
    }

    pub fn percent(&mut self, percent: u32) -> bool {
        self.chance(percent * 10_000)
    }

    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.index(choices.len())]
    }

    /// A generator of its own, so that what one part draws does not shift what another part gets.
    pub fn fork(&mut self) -> Random {
        Random::new(self.word())
    }
}
