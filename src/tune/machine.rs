//! The machine as the tool sees it: where a setting stands, what is there, and how it is written.
//!
//! Everything is below a root directory, `/` on a real machine, so that tests have machines of their own. Never creates a file: what is not there
//! is not on this machine. Nothing here decides; it reads and writes.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{AccessFlags, access};
use serde::{Deserialize, Serialize};

use crate::sys::affinity::{Cpu, parse_list};

use super::catalogue::{Ethtool, Kind, Setting};

/// A place that holds a setting's value. Paths are below the root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    File(String),
    /// A device that is held open.
    Held(String),
    /// `group:key` of an interface.
    Ethtool {
        nic: String,
        target: String,
    },
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) | Self::Held(path) => write!(f, "/{path}"),
            Self::Ethtool { nic, target } => write!(f, "{nic} {target}"),
        }
    }
}

/// Bytes of a file that are read: /proc/interrupts of a large machine fits.
const READ_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Daemons that set the same things, and what they set.
const RIVALS: [(&str, &str); 7] = [
    ("tuned", "sysctls, idle states, governor: stop it or give it no profile"),
    ("irqbalance", "interrupts: stop it or ban the card's interrupts"),
    ("power-profiles-", "governor and energy preference"),
    ("thermald", "frequency limits"),
    ("auto-cpufreq", "governor"),
    ("numad", "placement on memory nodes"),
    ("ksmtuned", "merging of equal pages"),
];

/// A machine, or a directory that looks like one.
#[derive(Clone, Debug)]
pub struct Machine {
    root: PathBuf,
    nic: Option<String>,
    ethtool: PathBuf,
}

impl Machine {
    /// `nic`: the network interface to tune; none: the first one with a device behind it.
    pub fn new(root: impl Into<PathBuf>, nic: Option<String>) -> Self {
        let mut machine = Self { root: root.into(), nic, ethtool: "ethtool".into() };
        if machine.nic.is_none() {
            machine.nic = machine.first_nic();
        }
        machine
    }

    /// Another program in ethtool's place.
    #[must_use]
    pub fn with_ethtool(self, program: impl Into<PathBuf>) -> Self {
        Self { ethtool: program.into(), ..self }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.root.join(below)
    }

    fn first_nic(&self) -> Option<String> {
        let mut names: Vec<String> = self.names("sys/class/net");
        names.retain(|name| self.path(&format!("sys/class/net/{name}/device")).exists());
        names.into_iter().next()
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(folder)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// CPUs that are online.
    pub fn cpus(&self) -> Result<Vec<Cpu>, String> {
        let file = "sys/devices/system/cpu/online";
        let text = self.text(file).map_err(|why| format!("can't read /{file}: {why}"))?;
        let mut cpus = parse_list(text.trim()).map_err(|why| format!("/{file}: {why}"))?;
        cpus.sort_unstable();
        Ok(cpus)
    }

    /// Which boot this is; values set before another one are gone.
    pub fn boot_id(&self) -> String {
        self.text("proc/sys/kernel/random/boot_id").map(|text| text.trim().to_owned()).unwrap_or_default()
    }

    /// Where the setting stands. The error says why it is not on this machine.
    pub fn places(&self, setting: &Setting) -> Result<Vec<Place>, String> {
        match setting.kind {
            Kind::Sysctl => self.file(&format!("proc/sys/{}", setting.target.replace('.', "/"))),
            Kind::Sysfs | Kind::Cgroup => self.files(&self.with_nic(&setting.target)?),
            Kind::HeldFd => Ok(self.file(&setting.target)?.into_iter().map(held).collect()),
            Kind::Irq => self.interrupts(&self.with_nic(&setting.target)?),
            Kind::Ethtool => {
                let nic = self.with_nic("{nic}")?;
                let place = Place::Ethtool { nic, target: setting.target.clone() };
                self.read(&place).map_err(|why| why.to_string())?;
                Ok(vec![place])
            }
            Kind::Scheduler | Kind::Socket | Kind::Server | Kind::Boot | Kind::Firmware => Ok(Vec::new()),
        }
    }

    fn with_nic(&self, target: &str) -> Result<String, String> {
        if !target.contains("{nic}") {
            return Ok(target.to_owned());
        }
        let nic = self.nic.as_deref().ok_or("no network interface with a device (--nic NAME chooses one)")?;
        Ok(target.replace("{nic}", nic))
    }

    fn file(&self, path: &str) -> Result<Vec<Place>, String> {
        if self.path(path).exists() { Ok(vec![Place::File(path.to_owned())]) } else { Err(format!("no file /{path}")) }
    }

    fn files(&self, pattern: &str) -> Result<Vec<Place>, String> {
        let full = self.path(pattern);
        let found = glob::glob(&full.to_string_lossy()).map_err(|why| format!("{pattern}: {why}"))?;
        let below = |path: PathBuf| Some(Place::File(path.strip_prefix(&self.root).ok()?.to_str()?.to_owned()));
        let places: Vec<Place> = found.filter_map(Result::ok).filter_map(below).collect();
        if places.is_empty() { Err(format!("no file /{pattern}")) } else { Ok(places) }
    }

    /// The interrupts whose line names the interface, by number.
    fn interrupts(&self, nic: &str) -> Result<Vec<Place>, String> {
        let table = self.text("proc/interrupts").map_err(|why| format!("can't read /proc/interrupts: {why}"))?;
        let named = |line: &str| {
            line.split_whitespace().any(|word| word == nic || word.starts_with(&format!("{nic}-")) || word.ends_with(&format!("@{nic}")))
        };
        let numbers = table.lines().filter(|line| named(line)).filter_map(|line| line.split(':').next()?.trim().parse::<u32>().ok());
        let mut numbers: Vec<u32> = numbers.collect();
        numbers.sort_unstable();
        let places: Vec<Place> = numbers.iter().map(|n| Place::File(format!("proc/irq/{n}/smp_affinity_list"))).collect();
        if places.is_empty() { Err(format!("no interrupt of {nic} in /proc/interrupts")) } else { Ok(places) }
    }

    /// What is there, without the line's end.
    pub fn read(&self, place: &Place) -> io::Result<String> {
        match place {
            Place::File(path) => Ok(self.text(path)?.trim_end().to_owned()),
            Place::Held(path) => {
                let mut bytes = [0; 4];
                fs::File::open(self.path(path))?.read_exact(&mut bytes)?;
                Ok(i32::from_ne_bytes(bytes).to_string())
            }
            Place::Ethtool { nic, target } => self.ethtool_value(nic, target),
        }
    }

    fn ethtool_value(&self, nic: &str, target: &str) -> io::Result<String> {
        let tool = Ethtool::of(target).ok_or_else(|| io::Error::other(format!("{target} is no target of ethtool")))?;
        let output = self.ethtool(&[tool.read, nic])?;
        // Rings and channels print what is possible first and what is in force behind this line.
        let current = output.split_once("Current hardware settings").map_or(output.as_str(), |(_, behind)| behind);
        let value = current.lines().find_map(|line| {
            let line = line.trim();
            // `Adaptive RX: off  TX: off`
            if tool.label == "adaptive-rx" {
                return Some(line.strip_prefix("Adaptive RX:")?.split_whitespace().next()?.to_owned());
            }
            let (label, value) = line.split_once(':')?;
            (label == tool.label).then(|| value.split_whitespace().next().unwrap_or_default().to_owned())
        });
        match value {
            Some(value) if value != "n/a" => Ok(value),
            _ => Err(io::Error::other(format!("{nic} has no {target}"))),
        }
    }

    fn ethtool(&self, args: &[&str]) -> io::Result<String> {
        let missing = |why: io::Error| match why.kind() {
            io::ErrorKind::NotFound => io::Error::other("needs the program ethtool, which is not installed"),
            _ => why,
        };
        let done = Command::new(&self.ethtool).args(args).output().map_err(missing)?;
        if done.status.success() {
            return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
        }
        let why = String::from_utf8_lossy(&done.stderr);
        Err(io::Error::other(format!("ethtool {}: {}", args.join(" "), why.lines().next().unwrap_or("failed"))))
    }

    /// Writes a value. A held device is the keeper's to write.
    pub fn write(&self, place: &Place, text: &str) -> io::Result<()> {
        match place {
            Place::File(path) => {
                let mut file = OpenOptions::new().write(true).truncate(true).open(self.path(path))?;
                // One write: the kernel takes each as a value of its own.
                file.write_all(format!("{text}\n").as_bytes())
            }
            Place::Held(_) => Err(io::Error::other("a held device is not written but held")),
            Place::Ethtool { nic, target } => {
                let tool = Ethtool::of(target).ok_or_else(|| io::Error::other(format!("{target} is no target of ethtool")))?;
                self.ethtool(&[tool.set, nic, tool.key, text]).map(drop)
            }
        }
    }

    /// Why this process may not write there; none: it may.
    pub fn forbidden(&self, place: &Place) -> Option<String> {
        match place {
            Place::File(path) | Place::Held(path) => access(&self.path(path), AccessFlags::W_OK).err().map(|errno| match errno {
                nix::errno::Errno::EROFS => "read-only here (a container?)".to_owned(),
                nix::errno::Errno::EACCES | nix::errno::Errno::EPERM => "needs root".to_owned(),
                other => other.desc().to_owned(),
            }),
            Place::Ethtool { .. } => (!nix::unistd::geteuid().is_root()).then(|| "needs root".to_owned()),
        }
    }

    /// The value of a parameter in the line the kernel was started with.
    pub fn boot_parameter(&self, name: &str) -> Option<String> {
        let line = self.text("proc/cmdline").unwrap_or_default();
        let ours = line.split_whitespace().take_while(|word| *word != "--");
        ours.filter_map(|word| word.split_once('=')).filter(|(key, _)| *key == name).map(|(_, value)| value.to_owned()).last()
    }

    /// Running programs that set the same things: one line each.
    pub fn rivals(&self) -> Vec<String> {
        let pids = self.names("proc").into_iter().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
        let running: Vec<(String, String)> =
            pids.filter_map(|pid| Some((self.text(&format!("proc/{pid}/comm")).ok()?.trim().to_owned(), pid))).collect();
        let mut found = Vec::new();
        for (rival, what) in RIVALS {
            let same = |comm: &str| if rival.ends_with('-') { comm.starts_with(rival) } else { comm == rival };
            if let Some((comm, pid)) = running.iter().find(|(comm, _)| same(comm)) {
                found.push(format!("{comm} (process {pid}) is running and sets {what}"));
            }
        }
        found
    }

    fn text(&self, path: &str) -> io::Result<String> {
        let mut bytes = Vec::new();
        fs::File::open(self.path(path))?.take(READ_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

fn held(place: Place) -> Place {
    match place {
        Place::File(path) => Place::Held(path),
        other => other,
    }
}
