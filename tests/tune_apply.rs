//! Values are set and put back whatever comes in between: a crash at any step, a file that can't be written, a kernel with a mind of its own, a second
//! process, a reboot, somebody else's hand.

#![allow(clippy::unwrap_used, reason = "tests")]

mod tune_support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::time::{Duration, Instant};

use ringroom::tune::apply::{Event, Failure, Work};
use ringroom::tune::journal::{Journal, State};
use ringroom::tune::plan::State as StepState;
use tune_support::{FILES, Fake, said};

const STATE: &str = "var/lib/ringroom/tune";

fn work<T>(fake: &Fake, with: impl FnOnce(&Work<'_>) -> T) -> T {
    let state = State::lock(&fake.path(STATE)).unwrap();
    with(&Work { machine: &fake.machine(), state: &state, now_unix_ms: 1 })
}

fn apply(fake: &Fake, watch: &mut dyn FnMut(Event<'_>) -> bool) -> Result<Journal, Failure> {
    let plan = fake.plan();
    work(fake, |work| work.apply(&plan, watch).map(|(journal, _)| journal))
}

fn revert(fake: &Fake) -> ringroom::tune::apply::Reverted {
    work(fake, |work| work.revert(&mut |_| true).unwrap())
}

#[test]
fn a_crash_at_any_step_of_apply_can_be_reverted_to_the_original_bytes() {
    let mut crash = 0;
    loop {
        let fake = Fake::new();
        let mut steps = 0;
        let done = apply(&fake, &mut |_| {
            steps += 1;
            steps <= crash
        });
        let stopped = matches!(done, Err(Failure::Stopped));
        // What a crash in the middle of a line leaves.
        let journal = fake.path(STATE).join("journal.jsonl");
        let mut text = fs::read_to_string(&journal).unwrap();
        text.push_str("{\"setting\":");
        fs::write(&journal, text).unwrap();
        let reverted = revert(&fake);
        assert!(reverted.clean(), "crash at step {crash}: {reverted:?}");
        assert_eq!(fake.bytes(), Fake::original(), "crash at step {crash}");
        assert_eq!(revert(&fake), Default::default(), "a second revert has nothing to do");
        if !stopped {
            assert_eq!(reverted.back.len(), FILES.len());
            break;
        }
        crash += 1;
    }
    assert_eq!(crash, 1 + 3 * FILES.len(), "journal, and three steps for each value");
}

#[test]
fn a_crash_while_reverting_can_be_reverted() {
    for crash in 0..FILES.len() {
        let fake = Fake::new();
        drop(apply(&fake, &mut |_| true).unwrap());
        let mut steps = 0;
        let _ = work(&fake, |work| {
            work.revert(&mut |_| {
                steps += 1;
                steps <= crash
            })
        });
        assert!(revert(&fake).clean());
        assert_eq!(fake.bytes(), Fake::original(), "crash at step {crash}");
    }
}

#[test]
fn former_values_go_back_newest_first() {
    let fake = Fake::new();
    let mut order = Vec::new();
    drop(apply(&fake, &mut |event| {
        if let Event::Wrote(change) = event {
            order.push(change.id.clone());
        }
        true
    }));
    order.reverse();
    assert_eq!(revert(&fake).back.iter().map(|change| change.id.clone()).collect::<Vec<_>>(), order);
}

#[test]
fn a_file_that_can_not_be_written_puts_everything_back() {
    let fake = Fake::new();
    let path = fake.path("proc/sys/net/core/somaxconn");
    fs::remove_file(&path).unwrap();
    // The kernel gives it to read and answers a write with an error, also to root.
    symlink("/proc/version", &path).unwrap();
    let before: Vec<String> = FILES.iter().map(|(path, _, _)| fake.get(path)).collect();
    let (code, text) = fake.run(&["apply", "P"]);
    // Without root it is seen before anything is written.
    assert!(code == 1 && text.contains("net.somaxconn") && text.contains("everything is put back") || code == 77, "{code}: {text}");
    assert_eq!(FILES.iter().map(|(path, _, _)| fake.get(path)).collect::<Vec<_>>(), before);
    assert_eq!(fake.run(&["status"]), (0, "Nothing is in force.\n".into()));
}

#[test]
fn a_value_that_the_kernel_changes_is_a_failure_that_says_so() {
    let fake = Fake::new();
    fake.put("q.toml", "text = \"t\"\n[values]\n\"vm.stat_interval\" = 10\n\"tcp.congestion\" = \"longer_than_fifteen\"\n");
    let path = fake.path("proc/sys/net/ipv4/tcp_congestion_control");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    // The kernel cuts a thread's name after fifteen bytes.
    symlink("/proc/self/comm", path).unwrap();
    let (code, text) = fake.run(&["apply", fake.path("q.toml").to_str().unwrap()]);
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains("tcp.congestion") && text.contains("reads back as \"longer_than_fif\"") && text.contains("everything is put back"),
        "{text}"
    );
    assert_eq!(fake.bytes(), Fake::original());
}

#[test]
fn two_appliers_do_not_meet() {
    let fake = Fake::new();
    let held = State::lock(&fake.path(STATE)).unwrap();
    let (code, text) = fake.run(&["apply", "P"]);
    assert_eq!(code, 75);
    assert!(text.contains("another `ringroom tune` is at work"), "{text}");
    assert_eq!(fake.run(&["revert"]).0, 75);
    assert_eq!(fake.bytes(), Fake::original());
    drop(held);
    assert_eq!(fake.run(&["apply", "P"]).0, 0);
    fake.put("q.toml", "text = \"t\"\n[values]\n\"vm.stat_interval\" = 20\n");
    let (code, text) = fake.run(&["apply", fake.path("q.toml").to_str().unwrap()]);
    assert!(code == 75 && text.contains("p is in force"), "{code}: {text}");
    assert_eq!(fake.run(&["revert"]).0, 0);
    assert_eq!(fake.bytes(), Fake::original());
}

#[test]
fn without_root_there_is_a_plan_and_an_exit_code() {
    let fake = Fake::new();
    let root = nix_is_root();
    if root {
        // Others may look into the directory, and into none of its files write.
        fs::set_permissions(fake.root(), fs::Permissions::from_mode(0o755)).unwrap();
    } else {
        for (path, _, _) in FILES {
            fs::set_permissions(fake.path(path), fs::Permissions::from_mode(0o444)).unwrap();
        }
    }
    let as_nobody = |args: &[&str]| {
        let mut command = fake.command(args);
        if root {
            command.uid(65_534).gid(65_534);
        }
        said(&command.output().unwrap())
    };
    let path = fake.path("p.toml");
    let path = path.to_str().unwrap();
    let (code, text) = as_nobody(&["plan", path]);
    assert_eq!(code, 2, "{text}");
    assert_eq!(text.matches("not allowed: needs root").count(), FILES.len(), "{text}");
    let (code, text) = as_nobody(&["apply", path]);
    assert_eq!(code, 77, "{text}");
    assert!(text.contains("nothing was changed"), "{text}");
    assert_eq!(fake.bytes(), Fake::original());
}

fn nix_is_root() -> bool {
    fs::read_to_string("/proc/self/status").unwrap().lines().any(|line| line.starts_with("Uid:\t0\t"))
}

#[test]
fn a_second_apply_mends_what_drifted_and_keeps_the_first_former_values() {
    let fake = Fake::new();
    assert_eq!(fake.run(&["apply", "P"]).0, 0);
    assert_eq!(fake.run(&["status"]).0, 0);
    assert_eq!(fake.run(&["verify", "P"]).0, 0);
    fake.put("proc/sys/vm/stat_interval", "5\n");
    assert_eq!(fake.run(&["status"]).0, 2);
    let (code, text) = fake.run(&["verify", "P"]);
    assert_eq!((code, text.as_str()), (2, "vm.stat_interval: 5 instead of 10\n"));
    assert_eq!(fake.run(&["apply", "P"]).0, 0);
    assert_eq!(fake.get("proc/sys/vm/stat_interval"), "10\n");
    assert_eq!(fake.run(&["apply", "P"]).0, 0);
    assert_eq!(fake.run(&["revert"]).0, 0);
    assert_eq!(fake.bytes(), Fake::original());
}

#[test]
fn what_somebody_else_changed_stays_and_is_told_with_three_values() {
    let fake = Fake::new();
    assert_eq!(fake.run(&["apply", "P"]).0, 0);
    fake.put("proc/sys/vm/stat_interval", "7\n");
    let (code, text) = fake.run(&["revert"]);
    assert_eq!(code, 3);
    assert!(text.contains("vm.stat_interval: /proc/sys/vm/stat_interval was 1, was set to 10, and is 7 now"), "{text}");
    let mut expected = Fake::original();
    expected.insert("proc/sys/vm/stat_interval", "7\n".into());
    assert_eq!(fake.bytes(), expected);
    assert_eq!(fake.run(&["status"]), (0, "Nothing is in force.\n".into()));
}

#[test]
fn a_journal_of_another_boot_is_closed() {
    let fake = Fake::new();
    assert_eq!(fake.run(&["apply", "P"]).0, 0);
    fake.put("proc/sys/kernel/random/boot_id", "second-boot\n");
    for (path, text, _) in FILES {
        fake.put(path, text);
    }
    assert!(fake.run(&["status"]).1.contains("started again"));
    let (code, text) = fake.run(&["revert"]);
    assert!(code == 0 && text.contains("started again"), "{text}");
    assert_eq!(fake.bytes(), Fake::original());
}

#[test]
fn a_plan_says_what_is_there_what_needs_a_reboot_and_who_interferes() {
    let fake = Fake::new();
    fake.put("proc/17/comm", "irqbalance\n");
    fake.put(
        "q.toml",
        "text = \"t\"\n[values]\n\"boot.skew_tick\" = 1\n\"boot.nohz_full\" = \"{shards}\"\n\"cpu.governor\" = \"performance\"\n\"net.somaxconn\" = { at_least = 100 }\n\"server.spin\" = 5\n[cpus]\nshards = \"all but first\"\n",
    );
    let (code, text) = fake.run(&["plan", fake.path("q.toml").to_str().unwrap()]);
    assert_eq!(code, 0, "nothing that this tool writes is open: {text}");
    for part in [
        "boot.skew_tick  1 -> 1  already so",
        "boot.nohz_full  - -> 1  needs a reboot",
        "  nohz_full=1\n",
        "not on this machine: no file /sys/devices/system/cpu/cpufreq",
        "net.somaxconn   4096 -> >= 100  already so",
        "with the server: server.spin_us",
        "Conflict: irqbalance (process 17)",
    ] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    assert_eq!(fake.plan().changes().filter(|step| step.state == StepState::Change).count(), FILES.len());
    assert_eq!(fake.run(&["plan", "P"]).0, 2);
    assert_eq!(fake.bytes(), Fake::original(), "a plan changes nothing");
}

#[test]
fn a_bad_profile_or_id_is_a_usage_error_in_one_line() {
    let fake = Fake::new();
    fake.put("q.toml", "text = \"t\"\n[values]\n\"vm.stat\" = 1\n");
    let (code, text) = fake.run(&["apply", fake.path("q.toml").to_str().unwrap()]);
    assert!(code == 64 && text.contains("q.toml:3: vm.stat: no such setting") && text.lines().count() == 1, "{code}: {text}");
    assert_eq!(fake.run(&["plan", "latencies"]).0, 64);
    assert_eq!(fake.run(&["show", "vm.stat"]).0, 64);
    assert_eq!(fake.run(&["apply", "lab-unsafe"]).0, 64, "needs --i-understand");
    assert_eq!(fake.bytes(), Fake::original());
}

#[test]
fn killed_processes_leave_what_revert_can_put_back() {
    for round in 0..12_u64 {
        let fake = Fake::new();
        let path = fake.path("p.toml");
        let mut child = fake.command(&["apply", path.to_str().unwrap()]).stdout(std::process::Stdio::null()).spawn().unwrap();
        // Some moment of its life: the journal's steps are what is tested one by one above.
        let until = Instant::now() + Duration::from_micros(round * 400);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let (code, text) = fake.run(&["revert"]);
        assert_eq!(code, 0, "round {round}: {text}");
        assert_eq!(fake.bytes(), Fake::original(), "round {round}");
    }
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < end, "never came true: {what}");
        std::thread::yield_now();
    }
}

fn with_device(values: &str) -> Fake {
    let fake = Fake::new();
    fake.put("dev/cpu_dma_latency", "\u{40}\u{40}\u{40}\u{1}");
    fake.put("p.toml", &format!("text = \"t\"\n[values]\n\"cpu.dma_latency\" = 3\n{values}"));
    fake
}

#[test]
fn a_device_is_held_until_revert() {
    let fake = with_device("");
    let (code, text) = fake.run(&["apply", "P"]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(fs::read(fake.path("dev/cpu_dma_latency")).unwrap(), 3_i32.to_ne_bytes());
    let (code, text) = fake.run(&["status"]);
    assert!(code == 0 && text.contains("keeper: process"), "{text}");
    let pid = text.split("process ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    assert!(fs::metadata(format!("/proc/{pid}")).is_ok());
    assert_eq!(fake.run(&["revert"]).0, 0);
    eventually("the keeper ends", || !fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|text| text.contains("keep")));
}

#[test]
fn a_profile_with_an_end_goes_back_by_itself() {
    let fake = with_device("\"vm.stat_interval\" = 10\n");
    let (code, text) = fake.run(&["apply", "P", "--for", "300ms"]);
    assert!(code == 0 && text.contains("by itself"), "{text}");
    eventually("the former value is back", || fake.get("proc/sys/vm/stat_interval") == "1\n");
    eventually("nothing is in force", || fake.run(&["status"]).1 == "Nothing is in force.\n");
}

/// The machine that runs the test: where it may not, it says so.
#[test]
fn vm_loopback_on_the_real_machine_leaves_every_value_as_it_was() {
    let state = tempfile::tempdir().unwrap();
    let tune = |args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ringroom"));
        said(&command.arg("tune").args(args).arg("--state").arg(state.path()).output().unwrap())
    };
    let values = || tune(&["list"]).1;
    let before = values();
    let (code, text) = tune(&["apply", "vm-loopback"]);
    if code == 77 {
        eprintln!("not observable here: {text}");
        assert_eq!(values(), before);
        return;
    }
    assert_eq!(code, 0, "{text}");
    assert_eq!(tune(&["verify", "vm-loopback"]).0, 0);
    assert_eq!(tune(&["status"]).0, 0);
    let (code, text) = tune(&["revert"]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(values(), before);
}
