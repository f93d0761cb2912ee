//! The noise check: what a CPU does to a thread that only ever reads the clock.
//!
//! One CPU after the other is given a spinning loop; the gaps between its readings are the time that something else had the CPU: the kernel's tick, interrupts,
//! other threads, the host below a virtual machine. Nothing that runs there can have a shorter tail than this. Measured before and after a profile it
//! says what the profile did to the machine itself. First a self-test of the clock: what the shortest gap costs.

use std::fmt::Write;
use std::thread;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::sys::affinity::{self, Cpu};
use crate::sys::clock;

/// A gap from here on is somebody else's doing and not the clock's.
const HICCUP_NS: u64 = 10_000;
/// Readings of the self-test.
const READINGS: u32 = 1_000_000;
const LONGEST_NS: u64 = 60_000_000_000;

/// What was seen; all times in nanoseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Noise {
    pub clocksource: String,
    pub clock: Gaps,
    pub cpus: Vec<CpuNoise>,
}

/// Gaps between readings.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Gaps {
    pub readings: u64,
    pub min_ns: u64,
    pub p50_ns: u64,
    pub p99_ns: u64,
    pub p99_99_ns: u64,
    pub max_ns: u64,
}

/// One CPU.
#[derive(Clone, Debug, Serialize)]
pub struct CpuNoise {
    pub cpu: u16,
    pub measured_ns: u64,
    pub gaps: Gaps,
    /// Gaps of 10 us or more: how many in a second, and how much of the time they took.
    pub hiccups_per_s: f64,
    pub lost_share: f64,
    /// Number of gaps from 2^n to 2^(n+1) microseconds, from n = 3.
    pub powers: Vec<u64>,
}

/// Measures each CPU for so long. Fails where a CPU can't be used.
pub fn measure(cpus: &[Cpu], duration_ns: u64, clocksource: String, between: &mut dyn FnMut(&CpuNoise)) -> Result<Noise, String> {
    let clock = self_test();
    let mut seen = Vec::with_capacity(cpus.len());
    for cpu in cpus.iter().copied() {
        let spinning = thread::Builder::new().name("noise".into()).spawn(move || {
            affinity::pin_current_thread(cpu).map_err(|why| format!("CPU {cpu} can't be used: {why}"))?;
            Ok(spin(cpu, duration_ns))
        });
        let ended = spinning.map_err(|why| format!("can't start a thread: {why}"))?.join();
        let noise: Result<CpuNoise, String> = ended.map_err(|_| "the measuring thread failed".to_owned())?;
        let noise = noise?;
        between(&noise);
        seen.push(noise);
    }
    Ok(Noise { clocksource, clock, cpus: seen })
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("bounds and digits are constants that it takes")
}

fn self_test() -> Gaps {
    let mut gaps = histogram();
    let mut last = clock::monotonic_ns();
    for _ in 0..READINGS {
        let now = clock::monotonic_ns();
        gaps.saturating_record((now - last).max(1));
        last = now;
    }
    summary(&gaps)
}

fn spin(cpu: Cpu, duration_ns: u64) -> CpuNoise {
    let mut gaps = histogram();
    let (mut hiccups, mut lost_ns) = (0_u64, 0_u64);
    let mut powers = vec![0; 14];
    let start = clock::monotonic_ns();
    let mut last = start;
    while last - start < duration_ns {
        let now = clock::monotonic_ns();
        let gap = now - last;
        last = now;
        gaps.saturating_record(gap.max(1));
        if gap >= HICCUP_NS {
            hiccups += 1;
            lost_ns += gap;
            let power = usize::try_from((gap / 1_000).ilog2().saturating_sub(3)).unwrap_or(0);
            let most = powers.len() - 1;
            powers[power.min(most)] += 1;
        }
    }
    let measured_ns = last - start;
    #[allow(clippy::cast_precision_loss, reason = "shares and rates to a few digits")]
    let (hiccups_per_s, lost_share) = (hiccups as f64 * 1e9 / measured_ns as f64, lost_ns as f64 / measured_ns as f64);
    CpuNoise { cpu: cpu.0, measured_ns, gaps: summary(&gaps), hiccups_per_s, lost_share, powers }
}

fn summary(gaps: &Histogram<u64>) -> Gaps {
    Gaps {
        readings: gaps.len(),
        min_ns: gaps.min(),
        p50_ns: gaps.value_at_quantile(0.5),
        p99_ns: gaps.value_at_quantile(0.99),
        p99_99_ns: gaps.value_at_quantile(0.9999),
        max_ns: gaps.max(),
    }
}

impl CpuNoise {
    /// One line for people.
    pub fn line(&self) -> String {
        format!(
            "CPU {:<3} largest gap {:>9}   p99.99 {:>9}   {:>8.1} gaps of 10 us or more per s, {:.3} % of the time",
            self.cpu,
            time(self.gaps.max_ns),
            time(self.gaps.p99_99_ns),
            self.hiccups_per_s,
            self.lost_share * 100.0
        )
    }
}

impl Noise {
    /// The clock, and the gaps of each CPU as bars.
    pub fn table(&self) -> String {
        let mut out = String::new();
        let clock = &self.clock;
        let _ = writeln!(
            out,
            "clock    {}: a reading after a reading {} (p50), {} (p99), {} (largest)",
            self.clocksource,
            time(clock.p50_ns),
            time(clock.p99_ns),
            time(clock.max_ns)
        );
        for cpu in &self.cpus {
            let most = cpu.powers.iter().copied().max().unwrap_or(0).max(1);
            let _ = writeln!(out, "\nCPU {}", cpu.cpu);
            for (n, count) in cpu.powers.iter().enumerate().filter(|(_, count)| **count > 0) {
                // Powers of two, so that one long gap stays visible beside a thousand short ones.
                let length = (64 - count.leading_zeros()) * 40 / (64 - most.leading_zeros());
                let from = if n == 0 { 10 } else { 8_u64 << n };
                let _ = writeln!(out, "  from {:>9}  {count:>9}  {}", time(from * 1_000), "#".repeat(length as usize));
            }
        }
        out
    }
}

/// Nanoseconds in the unit a person would choose.
pub fn time(ns: u64) -> String {
    #[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
    let value = ns as f64;
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.1} us", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", value / 1e6),
        _ => format!("{:.2} s", value / 1e9),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_counted_whole_and_a_missing_cpu_is_named() {
        let cpu = affinity::available().unwrap()[0];
        let mut told = 0;
        let noise = measure(&[cpu], 20_000_000, "tsc".into(), &mut |_| told += 1).unwrap();
        assert_eq!((noise.cpus.len(), told), (1, 1));
        let seen = &noise.cpus[0];
        assert!(seen.measured_ns >= 20_000_000 && seen.gaps.readings > 100 && seen.gaps.max_ns >= seen.gaps.p50_ns);
        assert!(noise.clock.readings == u64::from(READINGS) && noise.clock.min_ns >= 1);
        assert!(noise.table().contains("tsc"));
        assert!(measure(&[Cpu(1023)], 1, String::new(), &mut |_| {}).unwrap_err().contains("CPU 1023"));
    }

    #[test]
    fn times_have_the_unit_a_person_would_choose() {
        assert_eq!([time(7), time(1_500), time(2_500_000), time(3_000_000_000)], ["7 ns", "1.5 us", "2.5 ms", "3.00 s"]);
    }
}
