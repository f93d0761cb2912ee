//! A machine in a directory: the files that the profile of these tests sets, each with its own bytes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ringroom::sys::affinity::Cpu;
use ringroom::tune::catalogue::Catalogue;
use ringroom::tune::machine::Machine;
use ringroom::tune::plan::Plan;
use ringroom::tune::profile::{self, Profile};
use tempfile::TempDir;

/// Path below the root, what stands there, and what the profile wants.
pub(crate) const FILES: [(&str, &str, &str); 6] = [
    ("proc/sys/kernel/timer_migration", "1\n", "\"kernel.timer_migration\" = 0"),
    ("proc/sys/vm/stat_interval", "1\n", "\"vm.stat_interval\" = 10"),
    ("proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t6291456\n", "\"tcp.rmem\" = [4096, 16384, 262144]"),
    ("proc/sys/net/core/somaxconn", "4096\n", "\"net.somaxconn\" = { at_least = 16384 }"),
    ("sys/class/net/lo/queues/rx-0/rps_cpus", "00000000,00000000\n", "\"net.lo_rps_cpus\" = \"0-1\""),
    ("sys/devices/virtual/workqueue/cpumask", "3\n", "\"kernel.workqueue_cpus\" = \"first\""),
];

pub(crate) struct Fake {
    root: TempDir,
}

impl Fake {
    pub(crate) fn new() -> Self {
        let fake = Self { root: tempfile::tempdir().expect("a temporary directory") };
        for (path, text, _) in FILES {
            fake.put(path, text);
        }
        fake.put("sys/devices/system/cpu/online", "0-1\n");
        fake.put("proc/sys/kernel/random/boot_id", "first-boot\n");
        fake.put("proc/cmdline", "quiet skew_tick=1 -- init=/x\n");
        let lines: Vec<&str> = FILES.iter().map(|(_, _, line)| *line).collect();
        fake.put("p.toml", &format!("text = \"t\"\n[values]\n{}\n", lines.join("\n")));
        fake
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.root.path().join(below)
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn put(&self, below: &str, text: &str) {
        let path = self.path(below);
        fs::create_dir_all(path.parent().expect("below the root")).expect("made");
        fs::write(path, text).expect("written");
    }

    pub(crate) fn get(&self, below: &str) -> String {
        fs::read_to_string(self.path(below)).expect("there")
    }

    /// The settings' files.
    pub(crate) fn bytes(&self) -> BTreeMap<&'static str, String> {
        FILES.iter().map(|(path, _, _)| (*path, self.get(path))).collect()
    }

    pub(crate) fn original() -> BTreeMap<&'static str, String> {
        FILES.iter().map(|(path, text, _)| (*path, (*text).to_owned())).collect()
    }

    pub(crate) fn machine(&self) -> Machine {
        Machine::new(self.root(), None)
    }

    pub(crate) fn profile(&self) -> Profile {
        let path = self.path("p.toml");
        profile::load(path.to_str().expect("UTF-8"), &Catalogue::built_in(), &[Cpu(0), Cpu(1)]).expect("a good profile")
    }

    pub(crate) fn plan(&self) -> Plan {
        Plan::new(&self.machine(), &self.profile())
    }

    /// `ringroom tune ARGS` on this machine.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringroom"));
        command.arg("tune").args(args).arg("--root").arg(self.root());
        command
    }

    /// Runs it; exit code and both outputs.
    pub(crate) fn run(&self, args: &[&str]) -> (i32, String) {
        let path = self.path("p.toml");
        let args: Vec<&str> = args.iter().map(|arg| if *arg == "P" { path.to_str().expect("UTF-8") } else { arg }).collect();
        said(&self.command(&args).output().expect("runs"))
    }
}

pub(crate) fn said(output: &Output) -> (i32, String) {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
}
