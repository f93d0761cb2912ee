//! The catalogue of settings: `tuning/catalogue.toml`, which is built into the program.
//!
//! Owns the meaning of an entry. A catalogue with a mistake is an error with its line; the one that is built in is held to be right by a test.

use serde::Deserialize;
use toml::Spanned;

use crate::config;

use super::value::Type;

/// The catalogue as the program carries it.
pub const BUILT_IN: &str = include_str!("../../tuning/catalogue.toml");

/// What a setting is a setting of, and so how it is read and set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Sysctl,
    Sysfs,
    HeldFd,
    Ethtool,
    Irq,
    Cgroup,
    Scheduler,
    Socket,
    Server,
    Boot,
    Firmware,
}

/// When a change takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    Run,
    Boot,
    Firmware,
}

/// Whether the effect can be seen on a small virtual machine over loopback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loopback {
    Yes,
    Partly,
    No,
}

/// One setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    pub id: String,
    pub kind: Kind,
    pub target: String,
    pub values: Type,
    pub unit: String,
    pub when: When,
    pub needs: String,
    /// 0 harmless .. 3 gives up safety or security.
    pub risk: u8,
    pub applies_if: String,
    pub effect: String,
    pub source: String,
    pub date: String,
    pub loopback: Loopback,
}

/// Settings in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catalogue {
    settings: Vec<Setting>,
}

pub const RISK_MAX: u8 = 3;

/// An entry as it stands in the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: Spanned<String>,
    kind: Kind,
    target: String,
    #[serde(rename = "type")]
    kind_of_value: String,
    #[serde(default)]
    range: Option<[i64; 2]>,
    #[serde(default)]
    choices: Vec<String>,
    #[serde(default)]
    count: usize,
    #[serde(default)]
    unit: String,
    when: When,
    needs: String,
    risk: u8,
    applies_if: String,
    effect: String,
    source: String,
    date: String,
    loopback: Loopback,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    setting: Vec<Entry>,
}

impl Catalogue {
    /// The one that is built in.
    pub fn built_in() -> Self {
        Self::parse("catalogue.toml", BUILT_IN).expect("a test reads the built-in catalogue")
    }

    /// Reads a catalogue; `file` is its name in errors.
    pub fn parse(file: &str, text: &str) -> Result<Self, String> {
        let parsed: File = toml::from_str(text).map_err(|error| in_file(file, text, &error))?;
        let mut settings: Vec<Setting> = Vec::with_capacity(parsed.setting.len());
        for entry in parsed.setting {
            let line = line_of(text, entry.id.span().start);
            let setting = entry.setting().map_err(|why| format!("{file}:{line}: {why}"))?;
            if settings.iter().any(|other| other.id == setting.id) {
                return Err(format!("{file}:{line}: {} stands here twice", setting.id));
            }
            settings.push(setting);
        }
        Ok(Self { settings })
    }

    pub fn settings(&self) -> &[Setting] {
        &self.settings
    }

    pub fn get(&self, id: &str) -> Option<&Setting> {
        self.settings.iter().find(|setting| setting.id == id)
    }

    /// The id that is written most alike, for an error.
    pub fn nearest(&self, id: &str) -> Option<&str> {
        config::nearest(id, self.settings.iter().map(|setting| setting.id.as_str()))
    }
}

impl Entry {
    fn setting(self) -> Result<Setting, String> {
        let id = self.id.into_inner();
        let name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' || c == '_';
        if id.is_empty() || !id.chars().all(name) {
            return Err(format!("{id:?}: an id is made of a-z 0-9 . _"));
        }
        if self.risk > RISK_MAX {
            return Err(format!("{id}: risk is 0 to {RISK_MAX}"));
        }
        let range = self.range.unwrap_or([i64::MIN, i64::MAX]);
        let values = match self.kind_of_value.as_str() {
            "integer" => Type::Integer { least: range[0], most: range[1] },
            "choice" if !self.choices.is_empty() => Type::Choice(self.choices),
            "choice" => return Err(format!("{id}: a choice needs `choices`")),
            "switch" => Type::Switch,
            "integers" if self.count > 0 => Type::Integers { count: self.count, least: range[0], most: range[1] },
            "integers" => return Err(format!("{id}: integers need `count`")),
            "cpus" => Type::Cpus,
            "mask" => Type::Mask,
            "text" => Type::Text,
            other => return Err(format!("{id}: {other:?} is no type: integer, choice, switch, integers, cpus, mask, text")),
        };
        let Self { kind, target, unit, when, needs, risk, applies_if, effect, source, date, loopback, .. } = self;
        Ok(Setting { id, kind, target, values, unit, when, needs, risk, applies_if, effect, source, date, loopback })
    }
}

impl Setting {
    /// How a person reads, sets and reverts it by hand.
    pub fn by_hand(&self) -> [(&'static str, String); 3] {
        let target = &self.target;
        let saved = "write the saved value back the same way".to_owned();
        let (read, set, revert) = match self.kind {
            Kind::Sysctl => (format!("sysctl -n {target}"), format!("sysctl -w {target}=VALUE"), saved),
            Kind::Sysfs | Kind::Cgroup => (format!("cat /{target}"), format!("echo VALUE > /{target}"), saved),
            Kind::HeldFd => (
                format!("od -An -i -N4 /{target}"),
                format!("open /{target}, write VALUE as four bytes and keep it open"),
                "close it".to_owned(),
            ),
            Kind::Ethtool => {
                let tool = Ethtool::of(target);
                let args = tool.map_or(("", "", ""), |tool| (tool.read, tool.set, tool.key));
                (format!("ethtool {} NIC", args.0), format!("ethtool {} NIC {} VALUE", args.1, args.2), saved)
            }
            Kind::Irq => (
                "grep NIC /proc/interrupts; cat /proc/irq/N/smp_affinity_list".to_owned(),
                "echo CPU > /proc/irq/N/smp_affinity_list for each N".to_owned(),
                saved,
            ),
            Kind::Scheduler => (
                "chrt -p PID; ps -o ni PID".to_owned(),
                format!("{target} of the server's threads, given when a comparison starts the server"),
                "ends with the server".to_owned(),
            ),
            Kind::Socket | Kind::Server => (
                "ringroom serve --config FILE --print-config".to_owned(),
                format!("{target} = VALUE in the server's config"),
                "start the server with the former config".to_owned(),
            ),
            Kind::Boot => (
                format!("cat /proc/cmdline (looks for {target}=)"),
                format!("add {target}=VALUE to the kernel's parameters in the boot loader and reboot"),
                "take it out again and reboot".to_owned(),
            ),
            Kind::Firmware => ("look into the firmware's set-up".to_owned(), "set it there".to_owned(), "set it back there".to_owned()),
        };
        [("read", read), ("set", set), ("revert", revert)]
    }
}

/// How the program ethtool reads and sets a key, and what its output calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ethtool<'a> {
    pub read: &'static str,
    pub set: &'static str,
    /// The key behind the device in a call that sets it.
    pub key: &'a str,
    /// The key in front of the colon in the output.
    pub label: &'a str,
}

impl<'a> Ethtool<'a> {
    /// Of a target `group:key`.
    pub fn of(target: &'a str) -> Option<Self> {
        let (group, label) = target.split_once(':')?;
        let (read, set) = match group {
            "coalesce" => ("-c", "-C"),
            "ring" => ("-g", "-G"),
            "channels" => ("-l", "-L"),
            "feature" => ("-k", "-K"),
            _ => return None,
        };
        let key = match label {
            "Combined" => "combined",
            "RX" => "rx",
            "TX" => "tx",
            "generic-receive-offload" => "gro",
            "tcp-segmentation-offload" => "tso",
            other => other,
        };
        Some(Self { read, set, key, label })
    }
}

/// The line, from 1, of a byte in a text.
pub fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// An error of the TOML reader as one line.
pub fn in_file(file: &str, text: &str, error: &toml::de::Error) -> String {
    let line = error.span().map_or(1, |span| line_of(text, span.start));
    let message: Vec<&str> = error.message().split_whitespace().collect();
    format!("{file}:{line}: {}", message.join(" "))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_catalogue_is_whole() {
        let catalogue = Catalogue::built_in();
        assert!(catalogue.settings().len() >= 60, "{}", catalogue.settings().len());
        for setting in catalogue.settings() {
            let texts = [&setting.target, &setting.needs, &setting.applies_if, &setting.effect, &setting.source, &setting.date];
            assert!(texts.iter().all(|text| !text.is_empty()), "{} lacks a text", setting.id);
            assert_eq!(setting.when == When::Boot, setting.kind == Kind::Boot, "{}", setting.id);
            assert_eq!(setting.when == When::Firmware, setting.kind == Kind::Firmware, "{}", setting.id);
            if setting.kind == Kind::Ethtool {
                assert!(Ethtool::of(&setting.target).is_some(), "{}", setting.id);
            }
        }
    }

    #[test]
    fn every_key_of_the_server_that_is_named_exists_there() {
        let catalogue = Catalogue::built_in();
        let known = crate::config::print(&crate::config::Settings::default());
        for setting in catalogue.settings().iter().filter(|setting| matches!(setting.kind, Kind::Server | Kind::Socket)) {
            let (section, key) = setting.target.split_once('.').unwrap();
            let behind = known.split_once(&format!("[{section}]")).map(|(_, behind)| behind).unwrap_or_default();
            let own = behind.split("\n[").next().unwrap_or_default();
            let found = own.lines().any(|line| line.trim_start_matches("# ").split(['=', ' ']).next() == Some(key));
            assert!(found, "{} names {}, which is no key", setting.id, setting.target);
        }
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        let entry = "[[setting]]\nid = \"a\"\nkind = \"sysctl\"\ntarget = \"t\"\ntype = \"switch\"\nwhen = \"run\"\nneeds = \"n\"\nrisk = 0\napplies_if = \"a\"\neffect = \"e\"\nsource = \"s\"\ndate = \"d\"\nloopback = \"no\"\n";
        assert!(Catalogue::parse("c", entry).is_ok());
        let wrong = |from: &str, to: &str| Catalogue::parse("c", &entry.replace(from, to)).unwrap_err();
        assert!(wrong("\"switch\"", "\"switches\"").starts_with("c:2: a: \"switches\" is no type"));
        assert!(wrong("risk = 0", "risk = 4").starts_with("c:2: a: risk"));
        assert!(wrong("\"sysctl\"", "\"sysctrl\"").starts_with("c:3: "));
        assert!(wrong("date =", "dates =").contains("dates"));
        assert!(Catalogue::parse("c", &format!("{entry}{entry}")).unwrap_err().starts_with("c:15: a stands here twice"));
    }

    #[test]
    fn a_mistyped_id_finds_its_neighbour() {
        let catalogue = Catalogue::built_in();
        assert_eq!(catalogue.nearest("tcp.autocork"), Some("tcp.autocorking"));
        assert_eq!(catalogue.nearest("zzzzzzzzzzzzzzzzzzzz"), None);
    }
}
