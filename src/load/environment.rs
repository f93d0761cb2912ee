//! What a figure depends on besides the code: kernel, CPU, settings, other load. Read from /proc and /sys; what can't be read is absent.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use serde::Serialize;

use super::plan::{as_f64, as_u64};
use super::record;
use super::report::summary::ClockShown;
use crate::sys::clock::monotonic_ns;

/// The machine and what happened on it between two looks.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Environment {
    pub kernel: String,
    pub cpu: String,
    pub cpus: usize,
    pub governor: Option<String>,
    pub mitigations: BTreeMap<String, String>,
    pub clocksource: Option<String>,
    pub hypervisor: bool,
    pub load_before: Option<String>,
    pub git: Option<String>,
    pub build: &'static str,
    /// Part of the time of all CPUs that the hypervisor gave to others.
    pub steal_share: Option<f64>,
    /// Counters of the network stack that changed (/proc/net/netstat and snmp).
    pub nstat: BTreeMap<String, u64>,
    pub context_switches: Option<u64>,
    pub softirqs: BTreeMap<String, u64>,
    pub server_config: Option<String>,
}

/// The counters that are compared.
#[derive(Clone, Debug, Default)]
pub struct Before {
    steal: Option<(u64, u64)>,
    nstat: BTreeMap<String, u64>,
    context_switches: Option<u64>,
    softirqs: BTreeMap<String, u64>,
    load: Option<String>,
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

impl Before {
    pub fn look() -> Self {
        Self { steal: steal(), nstat: nstat(), context_switches: context_switches(), softirqs: softirqs(), load: read("/proc/loadavg") }
    }

    /// The machine now, and the differences since the first look.
    pub fn until_now(&self, server_pid: Option<u32>) -> Environment {
        let steal = self.steal.zip(steal()).map(|((stolen, all), (stolen_now, all_now))| {
            as_f64(stolen_now.saturating_sub(stolen)) / as_f64(all_now.saturating_sub(all).max(1))
        });
        let info = read("/proc/cpuinfo").unwrap_or_default();
        let field =
            |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.split_once(':')).map(|(_, value)| value.trim().to_owned());
        Environment {
            kernel: read("/proc/sys/kernel/osrelease").unwrap_or_default(),
            cpu: field("model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            governor: read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            mitigations: mitigations(),
            clocksource: clocksource(),
            hypervisor: field("flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
            load_before: self.load.clone(),
            git: git(),
            build: if cfg!(debug_assertions) { "debug" } else { "release" },
            steal_share: steal,
            nstat: changed(&self.nstat, &nstat()),
            context_switches: self.context_switches.zip(context_switches()).map(|(before, now)| now.saturating_sub(before)),
            softirqs: changed(&self.softirqs, &softirqs()),
            server_config: server_pid.and_then(server_command),
        }
    }
}

/// What a server was started with.
fn server_command(pid: u32) -> Option<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<String> =
        line.split(|byte| *byte == 0).filter(|word| !word.is_empty()).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    let config = words.iter().position(|word| word == "--config").and_then(|at| words.get(at + 1)).and_then(|path| {
        let path = if path.starts_with('/') { path.into() } else { format!("/proc/{pid}/cwd/{path}") };
        fs::read_to_string(path).ok()
    });
    // A config file is TOML, and its reader takes the command for a comment.
    let text = [Some(format!("# {}", words.join(" "))), config].into_iter().flatten().collect::<Vec<_>>().join("\n");
    Some(text.chars().take(20_000).collect())
}

pub fn clocksource() -> Option<String> {
    read("/sys/devices/system/clocksource/clocksource0/current_clocksource")
}

fn git() -> Option<String> {
    let answer = Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=12"]).output().ok()?;
    answer.status.success().then(|| String::from_utf8_lossy(&answer.stdout).trim().to_owned())
}

fn mitigations() -> BTreeMap<String, String> {
    let Ok(entries) = fs::read_dir("/sys/devices/system/cpu/vulnerabilities") else { return BTreeMap::new() };
    let named =
        |entry: fs::DirEntry| Some((entry.file_name().into_string().ok()?, fs::read_to_string(entry.path()).ok()?.trim().to_owned()));
    entries.flatten().filter_map(named).collect()
}

/// Stolen and all ticks of all CPUs.
fn steal() -> Option<(u64, u64)> {
    let text = read("/proc/stat")?;
    let ticks: Vec<u64> = text.lines().next()?.split_ascii_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; guest time is in user time already.
    Some((*ticks.get(7)?, ticks.iter().take(8).sum()))
}

fn context_switches() -> Option<u64> {
    read("/proc/stat")?.lines().find_map(|line| line.strip_prefix("ctxt "))?.parse().ok()
}

fn softirqs() -> BTreeMap<String, u64> {
    let text = read("/proc/softirqs").unwrap_or_default();
    let sum = |line: &str| {
        let (name, counts) = line.split_once(':')?;
        Some((name.trim().to_owned(), counts.split_ascii_whitespace().filter_map(|count| count.parse::<u64>().ok()).sum()))
    };
    text.lines().skip(1).filter_map(sum).collect()
}

/// `Name` of the protocol and counter joined, as nstat prints them.
fn nstat() -> BTreeMap<String, u64> {
    let mut counters = BTreeMap::new();
    for path in ["/proc/net/netstat", "/proc/net/snmp"] {
        let text = read(path).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        for pair in lines.chunks_exact(2) {
            let (Some((name, names)), Some((_, values))) = (pair[0].split_once(':'), pair[1].split_once(':')) else { continue };
            let named = names.split_ascii_whitespace().zip(values.split_ascii_whitespace());
            counters.extend(named.filter_map(|(counter, value)| Some((format!("{name}{counter}"), value.parse().ok()?))));
        }
    }
    counters
}

fn changed(before: &BTreeMap<String, u64>, now: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let difference = |(name, value): (&String, &u64)| (name.clone(), value.saturating_sub(before.get(name).copied().unwrap_or(0)));
    now.iter().map(difference).filter(|(_, difference)| *difference > 0).collect()
}

/// Reads the clock back to back. Slow clocks are refused by the caller: each read would be what is measured.
pub fn clock() -> ClockShown {
    const READS: usize = 200_000;
    let mut steps = record::empty();
    let mut last = monotonic_ns();
    for _ in 0..READS {
        let now = monotonic_ns();
        steps.saturating_record(now - last);
        last = now;
    }
    debug_assert_eq!(steps.len(), as_u64(READS));
    ClockShown {
        source: clocksource().unwrap_or_default(),
        step_p50_ns: steps.value_at_quantile(0.5),
        step_p99_ns: steps.value_at_quantile(0.99),
        step_max_ns: steps.max(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_described_and_only_what_changed_is_counted() {
        let before = Before::look();
        let now = before.until_now(Some(std::process::id()));
        assert!(!now.kernel.is_empty() && now.cpus > 0 && now.server_config.is_some_and(|text| !text.is_empty()));
        assert!(now.nstat.values().all(|difference| *difference > 0));
        assert!(!nstat().is_empty() && nstat().contains_key("TcpActiveOpens"));
        let counters = |values: [u64; 2]| BTreeMap::from([("a".to_owned(), values[0]), ("b".to_owned(), values[1])]);
        assert_eq!(changed(&counters([1, 5]), &counters([4, 5])), BTreeMap::from([("a".to_owned(), 3)]));
    }

    #[test]
    fn the_clock_steps_forward() {
        let clock = clock();
        assert!(clock.step_p50_ns <= clock.step_p99_ns && clock.step_p99_ns <= clock.step_max_ns);
    }
}
