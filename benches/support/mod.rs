//! The harness of all benches: what is compared runs interleaved in one process, so that a ratio holds on a noisy machine.
//!
//! A [`Group`] holds cases that do the same kind of work. Each repetition runs every case once, in turn; the figure is the median of the
//! repetitions. A case times only what it hands to [`Clock::time`], and answers a hash of its result: it is printed, and has to be the same
//! in each repetition and, where the group says so, in each case, so that the work can't quietly change or be optimised away.
//!
//! Modes: tiny (the default, under half a second a bench: it shows that the bench works) and long (`RINGROOM_BENCH=long`: its figures count).
#![allow(clippy::print_stdout, reason = "a bench prints its figures")]
#![allow(dead_code, reason = "each bench is a crate of its own and uses its part")]

use std::time::{Duration, Instant};

/// How much work a bench does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Tiny,
    Long,
}

impl Mode {
    /// The value of RINGROOM_BENCH; anything else than `long`, `tiny` or nothing ends the bench.
    pub(crate) fn get() -> Mode {
        match std::env::var("RINGROOM_BENCH").as_deref() {
            Ok("long") => Mode::Long,
            Ok("tiny" | "") | Err(_) => Mode::Tiny,
            Ok(other) => panic!("RINGROOM_BENCH={other}: it is `tiny` or `long`"),
        }
    }

    pub(crate) fn pick<T>(self, tiny: T, long: T) -> T {
        match self {
            Mode::Tiny => tiny,
            Mode::Long => long,
        }
    }
}

/// Times the part of a repetition that counts.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    spent: Duration,
}

impl Clock {
    /// Runs `work` and adds its time to this repetition's.
    #[inline(never)]
    pub(crate) fn time<R>(&mut self, work: impl FnOnce() -> R) -> R {
        let start = Instant::now();
        let result = std::hint::black_box(work());
        self.spent += start.elapsed();
        result
    }

    /// Adds time that was taken elsewhere.
    pub(crate) fn add(&mut self, spent: Duration) {
        self.spent += spent;
    }
}

struct Case<'a> {
    name: &'static str,
    operations: u64,
    run: Box<dyn FnMut(&mut Clock) -> u64 + 'a>,
    hash: Option<u64>,
    ns_per_op: Vec<f64>,
}

/// Cases that are compared with each other: the first one is the measure of the others.
pub(crate) struct Group<'a> {
    name: &'static str,
    parameters: String,
    repetitions: usize,
    same_result: bool,
    cases: Vec<Case<'a>>,
}

impl<'a> Group<'a> {
    /// `parameters` is printed: whatever decides what the figures mean.
    pub(crate) fn new(name: &'static str, parameters: impl Into<String>) -> Self {
        let repetitions = Mode::get().pick(3, 15);
        Group { name, parameters: parameters.into(), repetitions, same_result: false, cases: Vec::new() }
    }

    /// All cases have to end with the same hash.
    pub(crate) fn same_result(mut self) -> Self {
        self.same_result = true;
        self
    }

    /// Adds a case of `operations` operations a repetition; `run` answers the hash of its result.
    pub(crate) fn case(mut self, name: &'static str, operations: u64, run: impl FnMut(&mut Clock) -> u64 + 'a) -> Self {
        self.cases.push(Case { name, operations, run: Box::new(run), hash: None, ns_per_op: Vec::new() });
        self
    }

    /// Runs and prints; answers the medians in ns per operation, in the order of the cases.
    pub(crate) fn run(mut self) -> Vec<f64> {
        for _ in 0..self.repetitions {
            for case in &mut self.cases {
                let mut clock = Clock::default();
                let hash = (case.run)(&mut clock);
                assert_eq!(*case.hash.get_or_insert(hash), hash, "{}/{}: the result differs between repetitions", self.name, case.name);
                case.ns_per_op.push(clock.spent.as_secs_f64() * 1e9 / case.operations as f64);
            }
        }
        if self.same_result {
            assert!(self.cases.windows(2).all(|pair| pair[0].hash == pair[1].hash), "{}: the cases differ in their results", self.name);
        }
        self.print()
    }

    fn print(self) -> Vec<f64> {
        let mode = Mode::get().pick("tiny", "long");
        println!("{} mode={mode} repetitions={} {}", self.name, self.repetitions, self.parameters);
        let mut medians = Vec::new();
        for case in self.cases {
            let mut times = case.ns_per_op;
            times.sort_by(f64::total_cmp);
            let (low, median, high) = (times[0], times[times.len() / 2], times[times.len() - 1]);
            let hash = case.hash.unwrap_or_default();
            print!("  {:<34} hash={hash:016x} ops={:<8} {median:>9.2} ns/op ({low:.2} .. {high:.2})", case.name, case.operations);
            match medians.first() {
                Some(&measure) if measure > 0.0 => println!("  {:.2} x", median / measure),
                _ => println!(),
            }
            medians.push(median);
        }
        medians
    }
}

/// Mixes `value` into a running hash.
#[inline]
pub(crate) fn mix(hash: u64, value: u64) -> u64 {
    (hash ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29)
}

/// Random numbers that are the same in every run (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }

    /// 0 .. `end`.
    #[allow(clippy::cast_possible_truncation, reason = "smaller than `end`")]
    pub(crate) fn below(&mut self, end: u32) -> u32 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u32
    }
}
