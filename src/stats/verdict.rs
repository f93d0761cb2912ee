//! The verdict on one figure of two sides: better, worse, or not shown.
//!
//! Three things must hold together, else it is "not shown": the 95 % interval of the shift leaves out zero, the shift is larger than 3 %, the
//! noise floor and a histogram's step, and p, corrected for the other figures asked at the same time, is below 0.05. A tool in which everything
//! helps is not trusted; so there is no way around any of the three.

use serde::Serialize;

use super::{holm, noise, permutation, shift};

/// Runs below which a side says nothing: with three against three the smallest p is 0.1.
pub const RUNS_MIN: usize = 4;
/// Samples that must lie beyond a quantile in every run for it to be a figure.
pub const BEYOND_MIN: f64 = 100.0;
/// Shifts up to this part are of no practical use, however sure.
pub const SHARE_MIN: f64 = 0.03;
/// Highest corrected p.
pub const P_MAX: f64 = 0.05;

/// Which direction is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Good {
    Lower,
    Higher,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Verdict {
    #[serde(rename = "better")]
    Better,
    #[serde(rename = "worse")]
    Worse,
    #[serde(rename = "not shown")]
    NotShown,
    /// Too few samples beyond the quantile, or not measured.
    #[serde(rename = "n/a")]
    NoSamples,
    /// Too few valid runs.
    #[serde(rename = "invalid")]
    Invalid,
}

impl Verdict {
    pub fn name(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::NotShown => "not shown",
            Self::NoSamples => "n/a",
            Self::Invalid => "invalid",
        }
    }
}

/// One figure of both sides, a value per run.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    pub a: &'a [f64],
    pub b: &'a [f64],
    /// Runs of the first side's configuration taken apart from it; empty without.
    pub again: &'a [f64],
    pub good: Good,
    /// Relative step of what measured it, 0 if there is none.
    pub step: f64,
    /// Every run has the figure.
    pub present: bool,
}

/// What was found. Shares are parts of the first side's median: 0.05 is 5 % more.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    pub verdict: Verdict,
    /// Why it is not shown, or which runs are missing; empty for a verdict.
    pub why: String,
    pub median_a: Option<f64>,
    pub median_b: Option<f64>,
    /// Hodges-Lehmann, in the figure's unit, and its 95 % interval.
    pub shift: Option<f64>,
    pub low: Option<f64>,
    pub high: Option<f64>,
    pub shift_share: Option<f64>,
    pub low_share: Option<f64>,
    pub high_share: Option<f64>,
    /// Of the permutation test, as it is and after Holm.
    pub p: Option<f64>,
    pub p_holm: Option<f64>,
    /// All ways were counted, none drawn.
    pub p_exact: bool,
    /// Of the A/A comparison.
    pub noise_share: Option<f64>,
    /// What a shift must exceed.
    pub threshold_share: f64,
}

/// Judges figures that are asked at the same time: Holm's correction is over those of them that can be asked at all.
pub fn judge(questions: &[Question<'_>], seed: u64) -> Vec<Finding> {
    let mut findings: Vec<Finding> = questions.iter().map(|question| measure(question, seed)).collect();
    let asked: Vec<usize> = (0..findings.len()).filter(|i| findings[*i].p.is_some()).collect();
    let p: Vec<f64> = asked.iter().filter_map(|i| findings[*i].p).collect();
    for (i, adjusted) in asked.into_iter().zip(holm::adjust(&p)) {
        findings[i].p_holm = Some(adjusted);
        conclude(&mut findings[i], questions[i].good);
    }
    findings
}

/// Everything but the verdict.
fn measure(question: &Question<'_>, seed: u64) -> Finding {
    let (a, b) = (question.a, question.b);
    let mut finding = Finding {
        verdict: Verdict::NotShown,
        why: String::new(),
        median_a: super::median(a),
        median_b: super::median(b),
        shift: shift::hodges_lehmann(a, b),
        low: None,
        high: None,
        shift_share: None,
        low_share: None,
        high_share: None,
        p: None,
        p_holm: None,
        p_exact: false,
        noise_share: None,
        threshold_share: SHARE_MIN,
    };
    finding.shift_share = finding.shift.and_then(|shift| shift::share(shift, a));
    if !question.present {
        (finding.verdict, finding.why) = (Verdict::NoSamples, "not every run has it".into());
        return finding;
    }
    if let Some((low, high)) = shift::interval(a, b, seed) {
        (finding.low, finding.high) = (Some(low), Some(high));
        (finding.low_share, finding.high_share) = (shift::share(low, a), shift::share(high, a));
    }
    if a.len() < RUNS_MIN || b.len() < RUNS_MIN {
        (finding.verdict, finding.why) = (Verdict::Invalid, format!("{} and {} runs; {RUNS_MIN} each are needed", a.len(), b.len()));
        return finding;
    }
    if let Some(test) = permutation::test(a, b, seed) {
        (finding.p, finding.p_exact) = (Some(test.p), test.exact);
    }
    let floor = if question.again.is_empty() { noise::floor(a, seed) } else { noise::floor_with(a, question.again, seed) };
    finding.noise_share = floor.map(|floor| floor.share);
    finding.threshold_share = SHARE_MIN.max(finding.noise_share.unwrap_or(0.0)).max(question.step);
    finding
}

fn conclude(finding: &mut Finding, good: Good) {
    let (Some(shift), Some(low), Some(high), Some(p)) = (finding.shift, finding.low, finding.high, finding.p_holm) else { return };
    // A first side of zero makes any shift an endless share.
    let share = finding.shift_share.map_or(f64::INFINITY, f64::abs);
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    let mut missing = Vec::new();
    if low <= 0.0 && high >= 0.0 {
        missing.push("the interval holds 0".to_owned());
    }
    if share <= finding.threshold_share {
        missing.push(format!("{} is not above {}", percent(share), percent(finding.threshold_share)));
    }
    if p >= P_MAX {
        missing.push(format!("p {p:.3}"));
    }
    finding.verdict = match (missing.is_empty(), (shift < 0.0) == (good == Good::Lower)) {
        (false, _) => Verdict::NotShown,
        (true, true) => Verdict::Better,
        (true, false) => Verdict::Worse,
    };
    finding.why = missing.join("; ");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fixed scatter that differs from centre to centre.
    fn runs(count: usize, center: u32, wobble: f64) -> Vec<f64> {
        let offsets = [0.3, -0.9, 0.1, 0.8, -0.2, -0.6, 0.5, -0.4, 0.9, -0.1];
        let first = usize::try_from(center).expect("small");
        (0..count).map(|i| f64::from(center) * (1.0 + wobble * offsets[(i * 7 + first) % 10])).collect()
    }

    fn ask<'a>(a: &'a [f64], b: &'a [f64]) -> Question<'a> {
        Question { a, b, again: &[], good: Good::Lower, step: 0.001, present: true }
    }

    fn one(a: &[f64], b: &[f64]) -> Finding {
        judge(&[ask(a, b)], 1).remove(0)
    }

    #[test]
    fn a_planted_shift_is_found_in_both_directions() {
        let (slow, fast) = (runs(8, 1_000, 0.02), runs(8, 800, 0.02));
        assert_eq!((one(&slow, &fast).verdict, one(&fast, &slow).verdict), (Verdict::Better, Verdict::Worse));
        let rate = Question { good: Good::Higher, ..ask(&slow, &fast) };
        assert_eq!(judge(&[rate], 1)[0].verdict, Verdict::Worse, "a lower rate is worse");
    }

    #[test]
    fn equal_sides_are_not_shown() {
        let (a, b) = (runs(8, 1_000, 0.05), runs(8, 1_003, 0.05));
        let finding = one(&a, &b);
        assert_eq!(finding.verdict, Verdict::NotShown);
        assert!(finding.why.contains("holds 0"), "{}", finding.why);
    }

    #[test]
    fn a_sure_but_small_shift_is_not_shown() {
        let (a, b) = (runs(8, 1_000, 0.001), runs(8, 1_020, 0.001));
        let finding = one(&a, &b);
        assert!(finding.p_holm < Some(0.001) && finding.low > Some(0.0));
        assert_eq!((finding.verdict, finding.why.as_str()), (Verdict::NotShown, "2.0 % is not above 3.0 %"));
    }

    #[test]
    fn a_shift_below_the_noise_or_the_step_is_not_shown() {
        let (a, b) = (runs(8, 1_000, 0.002), runs(8, 1_080, 0.002));
        assert_eq!(one(&a, &b).verdict, Verdict::Worse);
        let again = runs(8, 1_100, 0.002);
        let drifting = judge(&[Question { again: &again, ..ask(&a, &b) }], 1).remove(0);
        assert_eq!(drifting.verdict, Verdict::NotShown);
        assert!(drifting.noise_share > Some(0.09), "{drifting:?}");
        assert_eq!(judge(&[Question { step: 0.1, ..ask(&a, &b) }], 1)[0].verdict, Verdict::NotShown);
    }

    #[test]
    fn four_runs_can_show_one_figure_but_not_four() {
        let (a, b) = (runs(4, 1_000, 0.01), runs(4, 2_000, 0.01));
        assert_eq!(one(&a, &b).verdict, Verdict::Worse);
        let four = judge(&[ask(&a, &b), ask(&a, &b), ask(&a, &b), ask(&a, &b)], 1);
        assert!(four.iter().all(|finding| finding.verdict == Verdict::NotShown && finding.why.starts_with("p 0.114")), "{four:?}");
    }

    #[test]
    fn figures_that_lack_runs_or_samples_are_neither_judged_nor_counted() {
        let (a, b) = (runs(8, 1_000, 0.02), runs(8, 800, 0.02));
        let absent = Question { present: false, ..ask(&a, &b) };
        let found = judge(&[ask(&a, &b), absent, ask(&a[..3], &b)], 1);
        assert_eq!(found.iter().map(|f| f.verdict).collect::<Vec<_>>(), [Verdict::Better, Verdict::NoSamples, Verdict::Invalid]);
        assert_eq!(found[0].p, found[0].p_holm, "Holm over one");
        assert_eq!(found[2].why, "3 and 8 runs; 4 each are needed");
        let nothing = judge(&[ask(&[], &[])], 1).remove(0);
        assert_eq!((nothing.verdict, nothing.shift), (Verdict::Invalid, None));
    }

    #[test]
    fn a_first_side_of_zero_is_judged_without_a_share() {
        let finding = one(&[0.0; 8], &[5.0; 8]);
        assert_eq!((finding.verdict, finding.shift_share), (Verdict::Worse, None));
    }
}
