//! The statistics against a second implementation, numpy and scipy, on random sides with and without equal values. Without scipy the test says
//! so and checks nothing; the published examples beside the code still hold.

use std::io::Write;
use std::process::{Command, Stdio};

use ringroom::stats::{holm, noise, permutation, random::Random, shift};

const CASES: usize = 24;
const SEED: u64 = 41;
/// Coarse sides are rounded to this.
const COARSE: f64 = 150.0;

/// A side of 4 to 8 runs, skewed as latencies are; coarse sides have equal values.
fn side(random: &mut Random, center: u64, coarse: bool) -> Vec<f64> {
    let count = 4 + random.below(5);
    let mut run = || {
        let draw = |random: &mut Random| f64::from(u32::try_from(random.below(1_000)).expect("below 1,000"));
        let value = f64::from(u32::try_from(center).expect("small")) + draw(random) * draw(random) / 1_000.0;
        if coarse { (value / COARSE).round() * COARSE } else { value }
    };
    (0..count).map(|_| run()).collect()
}

fn case(random: &mut Random, number: usize) -> String {
    let coarse = number.is_multiple_of(3);
    let (a, b) = (side(random, 1_000, coarse), side(random, 1_000 + 60 * (number as u64 % 7), coarse));
    let family: Vec<f64> = (0..5).map(|_| f64::from(u32::try_from(random.below(300)).expect("small")) / 1_000.0).collect();
    let test = permutation::test(&a, &b, 1).expect("two sides");
    assert!(test.exact, "at most 8 against 8 runs are counted");
    let (low, high) = shift::interval(&a, &b, 1).expect("two sides");
    serde_json::json!({
        "a": a, "b": b, "family": family, "step": if coarse { COARSE } else { 0.0 },
        "shift": shift::hodges_lehmann(&a, &b), "p": test.p, "low": low, "high": high,
        "floor": noise::floor(&a, 1).expect("four runs").share, "holm": holm::adjust(&family),
    })
    .to_string()
}

#[test]
fn scipy_comes_to_the_same_figures() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stats/second.py");
    let python = Command::new("python3").arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut python = match python {
        Ok(python) => python,
        Err(why) => return eprintln!("skipped: python3: {why}"),
    };
    let mut random = Random::new(SEED);
    let cases: Vec<String> = (0..CASES).map(|number| case(&mut random, number)).collect();
    // Without scipy the script ends before it reads; that shows in its answer.
    let _ = python.stdin.take().expect("piped").write_all((cases.join("\n") + "\n").as_bytes());
    let output = python.wait_with_output().expect("the script is waited for");
    let text = String::from_utf8_lossy(&output.stdout);
    if text.starts_with("skip") {
        return eprintln!("skipped: {text}");
    }
    assert!(output.status.success(), "seed {SEED}");
    let right = text.lines().filter(|line| line.starts_with("ok")).count();
    assert_eq!(right, CASES, "seed {SEED}\n{text}");
}
