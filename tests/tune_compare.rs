//! A comparison of settings runs, stops, goes on, and its answer comes from the files of the runs alone.

#![allow(clippy::unwrap_used, reason = "tests")]

#[allow(dead_code, reason = "each test program uses its part")]
mod tune_support;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tune_support::{Fake, said};

/// The shortest load that has a result; whether it is fast is of no interest.
const LOAD: [&str; 12] =
    ["--", "--connections", "4", "--rate", "200", "--warmup", "0.1", "--duration", "0.5", "--no-spin", "--size", "128"];

struct Lab {
    fake: Fake,
}

impl Lab {
    /// A machine with all files of the catalogue's kind that the profile sets, and this machine's CPUs.
    fn new() -> Self {
        let fake = Fake::new();
        fake.put("sys/devices/system/cpu/online", &fs::read_to_string("/sys/devices/system/cpu/online").unwrap());
        fake.put(
            "mine.toml",
            "text = \"t\"\n[values]\n\"vm.stat_interval\" = 10\n\"server.spin\" = 3\n\"scheduler.nice\" = 1\n\"cpu.governor\" = \"performance\"\n\"boot.skew_tick\" = 0\n",
        );
        Self { fake }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mine = self.fake.path("mine.toml");
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringroom"));
        command.args(["tune", "compare", "--root"]).arg(self.fake.root());
        command.arg("--profiles").arg(format!("baseline,{}", mine.display()));
        command.arg("--out").arg(self.fake.path("out")).args(["--settle", "1ms"]);
        command.args(args).args(LOAD);
        command
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.fake.get("out/compare.json")).unwrap()
    }
}

fn texts<'a>(list: &'a Value, field: &str) -> Vec<&'a str> {
    list.as_array().unwrap().iter().map(|item| item[field].as_str().unwrap()).collect()
}

#[test]
fn a_comparison_is_run_put_back_gone_on_with_and_computed_again() {
    let lab = Lab::new();
    let (code, text) = said(&lab.command(&["--runs", "1", "--mode", "ablation"]).output().unwrap());
    assert_eq!(code, 0, "{text}");
    assert_eq!(lab.fake.bytes(), Fake::original(), "everything is put back");
    let answer = lab.json();
    assert_eq!(texts(&answer["plan"]["sides"], "name"), ["baseline", "vm.stat_interval", "server.spin", "scheduler.nice", "mine"]);
    assert_eq!(texts(&answer["unobservable"], "setting"), ["cpu.governor", "boot.skew_tick"]);
    assert!(
        answer["effects"].as_array().unwrap().iter().all(|effect| effect["verdict"] != "better" && effect["verdict"] != "worse"),
        "one run shows nothing"
    );
    let config = lab.fake.get("out/sides/server.spin/00/server.toml");
    assert!(config.contains("spin_us = 3"), "{config}");
    assert!(!lab.fake.get("out/sides/baseline/00/server.toml").contains("spin_us"));
    let page = lab.fake.get("out/compare.html");
    assert!(page.contains("not observable here") && !page.contains("http://") && !page.contains("https://"));
    // The same directory again: nothing without --resume, nothing to do with it, another comparison never.
    assert_eq!(said(&lab.command(&["--runs", "1", "--mode", "ablation"]).output().unwrap()).0, 64);
    assert_eq!(said(&lab.command(&["--runs", "1", "--resume"]).output().unwrap()).0, 64);
    fs::remove_dir_all(lab.fake.path("out/sides/mine")).unwrap();
    let (code, text) = said(&lab.command(&["--runs", "1", "--mode", "ablation", "--resume"]).output().unwrap());
    assert!(code == 0 && text.contains("mine #1") && !text.contains("server.spin #1"), "{text}");
    // A run in which the machine changed is none.
    fs::write(lab.fake.path("out/sides/mine/00/drift.txt"), "vm.stat_interval 1 -> 2\n").unwrap();
    let (code, text) = said(&lab.command(&["--runs", "1", "--mode", "ablation", "--resume"]).output().unwrap());
    assert!(code == 0 && text.contains("mine #1") && !text.contains("server.spin #1"), "{text}");
    assert!(!lab.fake.path("out/sides/mine/00/drift.txt").exists());
    // From the files alone.
    let before = lab.json();
    fs::remove_file(lab.fake.path("out/compare.json")).unwrap();
    let recompute =
        Command::new(env!("CARGO_BIN_EXE_ringroom")).args(["tune", "compare", "--recompute"]).arg(lab.fake.path("out")).output().unwrap();
    assert_eq!(said(&recompute).0, 0);
    assert_eq!(lab.json(), before);
}

#[test]
fn a_stop_puts_everything_back_and_leaves_no_process() {
    let lab = Lab::new();
    let mut child = lab.command(&["--runs", "50"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    let runs = |side: &str| fs::read_dir(lab.fake.path(&format!("out/sides/{side}"))).map(Iterator::count).unwrap_or(0);
    while runs("again") < 2 {
        assert!(Instant::now() < end, "no run within a minute");
        std::thread::yield_now();
    }
    Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    let status = child.wait().unwrap();
    // Runs of one side alone are nothing to compare, and it says so; with two sides it would be 2.
    assert!(matches!(status.code(), Some(1 | 2)), "{status}");
    assert_eq!(lab.fake.bytes(), Fake::original());
    assert!(!is_served(lab.fake.root()), "a server of it still runs");
}

/// Whether a process has a file below the directory in its command line.
fn is_served(root: &Path) -> bool {
    let root = root.display().to_string();
    let lines = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| fs::read_to_string(entry.path().join("cmdline")).ok());
    lines.filter(|line| line.contains(&root)).count() > 0
}

#[test]
fn what_can_not_be_compared_is_said_before_anything_starts() {
    let lab = Lab::new();
    let run = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_ringroom"))
            .args(["tune", "compare", "--root"])
            .arg(lab.fake.root())
            .args(args)
            .output()
            .unwrap();
        said(&output)
    };
    let (code, text) = run(&["--profiles", "baseline"]);
    assert!(code == 64 && text.contains("at least two profiles"), "{text}");
    assert_eq!(run(&["--profiles", "baseline,latencies"]).0, 64);
    assert_eq!(run(&["--profiles", "baseline,lab-unsafe"]).0, 64, "needs --i-understand");
    let (code, text) = run(&["--profiles", "baseline,vm-loopback", "--scenario", "nowhere.toml"]);
    assert!(code == 64 && text.contains("nowhere.toml"), "{text}");
    let (code, text) = run(&["--profiles", "baseline,vm-loopback", "--shard-cpus", "900"]);
    assert!(code == 64 && text.contains("CPU 900"), "{text}");
    let (code, text) = run(&["--profiles", "baseline,vm-loopback", "--print", "--listen", "127.0.0.1:7999"]);
    assert!(code == 0 && text.contains("ringroom serve --listen 127.0.0.1:7999") && text.contains("spin_us = 20"), "{text}");
    assert!(!lab.fake.path("out").exists());
    assert_eq!(run(&["--recompute", "/nonexistent"]).0, 1);
}
