//! Values of settings: what a profile may say, how it is written to the kernel's file, and when two texts mean the same.
//!
//! A file of the kernel answers in its own way: `always [madvise] never`, `4096<TAB>16384`, `00000000,00000003`, `Y`. [`Type::normal`] brings
//! such a text and a wanted value to one form, so that a comparison is one of texts. Values come in from TOML, out go texts.

use std::fmt;

use toml::Value as Toml;

use crate::sys::affinity::{self, Cpu};

use super::roles::Roles;

/// What may be written to a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    Integer {
        least: i64,
        most: i64,
    },
    Choice(Vec<String>),
    /// 0 or 1; some files say N or Y.
    Switch,
    Integers {
        count: usize,
        least: i64,
        most: i64,
    },
    /// A list of CPUs.
    Cpus,
    /// A set of CPUs, as hexadecimal mask.
    Mask,
    Text,
}

/// What a profile wants of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// As it is written to the file.
    pub text: String,
    /// A larger value that is there already stays.
    pub at_least: bool,
}

/// Longest text of a value: a list of a thousand CPUs is shorter.
const TEXT_BYTES_MAX: usize = 4_096;

impl Type {
    /// Reads a profile's value. The error says what is allowed.
    pub fn wanted(&self, value: &Toml, roles: &Roles) -> Result<Wanted, String> {
        if let Toml::Table(table) = value {
            return self.at_least(table, roles);
        }
        let text = match self {
            Self::Integer { least, most } => integer(value, *least, *most)?,
            Self::Choice(choices) => choice(value, choices)?,
            Self::Switch => switch(value)?,
            Self::Integers { count, least, most } => integers(value, *count, *least, *most)?,
            Self::Cpus => list(&roles.cpus(text(value)?)?),
            Self::Mask => mask(&roles.cpus(text(value)?)?),
            Self::Text => roles.fill(text(value)?)?,
        };
        Ok(Wanted { text, at_least: false })
    }

    fn at_least(&self, table: &toml::Table, roles: &Roles) -> Result<Wanted, String> {
        let wrong = "a table may only be { at_least = NUMBER }, for a single number";
        let (Self::Integer { .. }, Some(value), 1) = (self, table.get("at_least"), table.len()) else { return Err(wrong.to_owned()) };
        if value.is_table() {
            return Err(wrong.to_owned());
        }
        Ok(Wanted { at_least: true, ..self.wanted(value, roles)? })
    }

    /// One form for all texts that mean the same: how a file's content and a wanted value are compared.
    pub fn normal(&self, text: &str) -> String {
        let text = text.trim();
        match self {
            Self::Choice(_) => chosen(text).unwrap_or(text).to_owned(),
            Self::Switch => match text {
                "Y" | "y" | "on" | "true" => "1".to_owned(),
                "N" | "n" | "off" | "false" => "0".to_owned(),
                other => other.to_owned(),
            },
            Self::Cpus => affinity::parse_list(text).map_or_else(
                |_| text.to_owned(),
                |mut cpus| {
                    cpus.sort_unstable();
                    list(&cpus)
                },
            ),
            Self::Mask => {
                let digits: String = text.chars().filter(|c| *c != ',').collect();
                let short = digits.trim_start_matches('0');
                if short.is_empty() { "0".to_owned() } else { short.to_ascii_lowercase() }
            }
            Self::Integer { .. } | Self::Integers { .. } | Self::Text => text.split_whitespace().collect::<Vec<_>>().join(" "),
        }
    }

    /// Whether what is there is as wanted.
    pub fn met(&self, present: &str, wanted: &Wanted) -> bool {
        if wanted.at_least
            && let (Ok(present), Ok(wanted)) = (present.trim().parse::<i64>(), wanted.text.parse::<i64>())
        {
            return present >= wanted;
        }
        self.normal(present) == self.normal(&wanted.text)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer { least, most } => write!(f, "a number from {least} to {most}"),
            Self::Choice(choices) => write!(f, "one of {}", choices.join(", ")),
            Self::Switch => f.write_str("0 or 1"),
            Self::Integers { count, least, most } => write!(f, "{count} numbers from {least} to {most}"),
            Self::Cpus => f.write_str("CPUs, like 0-3,6, or a role of the profile"),
            Self::Mask => f.write_str("CPUs, like 0-3,6, or a role of the profile; empty for none"),
            Self::Text => f.write_str("a text"),
        }
    }
}

/// `always [madvise] never`: the one in brackets.
fn chosen(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0)
}

fn integer(value: &Toml, least: i64, most: i64) -> Result<String, String> {
    let number = value.as_integer().ok_or_else(|| format!("must be a number from {least} to {most}"))?;
    if !(least..=most).contains(&number) {
        return Err(format!("{number} is out of range: {least} to {most}"));
    }
    Ok(number.to_string())
}

fn choice(value: &Toml, choices: &[String]) -> Result<String, String> {
    let wrong = || format!("must be one of {}", choices.join(", "));
    let text = value.as_str().ok_or_else(wrong)?;
    choices.iter().find(|choice| *choice == text).cloned().ok_or_else(|| format!("{text:?}: {}", wrong()))
}

fn switch(value: &Toml) -> Result<String, String> {
    match value {
        Toml::Integer(0) | Toml::Boolean(false) => Ok("0".to_owned()),
        Toml::Integer(1) | Toml::Boolean(true) => Ok("1".to_owned()),
        _ => Err("must be 0 or 1".to_owned()),
    }
}

fn integers(value: &Toml, count: usize, least: i64, most: i64) -> Result<String, String> {
    let wrong = || format!("must be a list of {count} numbers from {least} to {most}");
    let list = value.as_array().filter(|list| list.len() == count).ok_or_else(wrong)?;
    let numbers = list.iter().map(|value| integer(value, least, most)).collect::<Result<Vec<_>, _>>().map_err(|_| wrong())?;
    Ok(numbers.join(" "))
}

fn text(value: &Toml) -> Result<&str, String> {
    let text = value.as_str().ok_or("must be a text in quotes")?;
    if text.len() > TEXT_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(format!("must be at most {TEXT_BYTES_MAX} bytes without control characters"));
    }
    Ok(text)
}

/// `0-3,6`, in the order given.
pub fn list(cpus: &[Cpu]) -> String {
    let mut runs: Vec<(u16, u16)> = Vec::new();
    for cpu in cpus {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == cpu.0 => *last = cpu.0,
            _ => runs.push((cpu.0, cpu.0)),
        }
    }
    let text = |(first, last): &(u16, u16)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    runs.iter().map(text).collect::<Vec<_>>().join(",")
}

/// Groups of eight hexadecimal digits, as the kernel takes and gives them.
fn mask(cpus: &[Cpu]) -> String {
    let words = cpus.iter().map(|cpu| cpu.index() / 32 + 1).max().unwrap_or(1);
    let mut bits = vec![0_u32; words];
    for cpu in cpus {
        bits[cpu.index() / 32] |= 1 << (cpu.index() % 32);
    }
    bits.iter().rev().map(|word| format!("{word:08x}")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn roles() -> Roles {
        Roles::of(&[Cpu(0), Cpu(1), Cpu(2), Cpu(33)], &[("shards", "1-2"), ("none", "")]).unwrap()
    }

    fn wanted(kind: &Type, toml: &str) -> Result<String, String> {
        let table: toml::Table = format!("v = {toml}").parse().unwrap();
        kind.wanted(&table["v"], &roles()).map(|wanted| wanted.text)
    }

    #[test]
    fn values_are_held_to_their_type() {
        let number = Type::Integer { least: 0, most: 10 };
        assert_eq!(wanted(&number, "7"), Ok("7".into()));
        assert!(wanted(&number, "11").unwrap_err().contains("0 to 10"));
        assert!(wanted(&number, "\"7\"").is_err() && wanted(&number, "7.0").is_err());
        let choice = Type::Choice(vec!["on".into(), "off".into()]);
        assert_eq!(wanted(&choice, "\"off\""), Ok("off".into()));
        assert!(wanted(&choice, "\"of\"").unwrap_err().contains("on, off"));
        assert_eq!(wanted(&Type::Switch, "true"), Ok("1".into()));
        assert!(wanted(&Type::Switch, "2").is_err());
        let three = Type::Integers { count: 3, least: 1, most: 9 };
        assert_eq!(wanted(&three, "[1, 2, 3]"), Ok("1 2 3".into()));
        assert!(wanted(&three, "[1, 2]").is_err() && wanted(&three, "[1, 2, 10]").is_err() && wanted(&three, "1").is_err());
        assert!(wanted(&Type::Text, "\"a\\nb\"").is_err());
    }

    #[test]
    fn cpus_are_named_by_list_or_role() {
        assert_eq!(wanted(&Type::Cpus, "\"shards\""), Ok("1-2".into()));
        assert_eq!(wanted(&Type::Cpus, "\"2,0-1\""), Ok("2,0-1".into()));
        assert!(wanted(&Type::Cpus, "\"shard\"").unwrap_err().contains("shards"));
        assert_eq!(wanted(&Type::Mask, "\"0,33\""), Ok("00000002,00000001".into()));
        assert_eq!(wanted(&Type::Mask, "\"\""), Ok("00000000".into()));
        assert_eq!(wanted(&Type::Text, "\"domain,{shards}\""), Ok("domain,1-2".into()));
    }

    #[test]
    fn texts_that_mean_the_same_are_equal() {
        let same = |kind: Type, present: &str, text: &str| kind.met(present, &Wanted { text: text.into(), at_least: false });
        assert!(same(Type::Choice(vec![]), "always [madvise] never\n", "madvise"));
        assert!(!same(Type::Choice(vec![]), "[always] madvise never\n", "madvise"));
        assert!(same(Type::Switch, "Y\n", "1") && same(Type::Switch, "0\n", "0"));
        assert!(same(Type::Integers { count: 3, least: 0, most: 9 }, "1\t2\t3\n", "1 2 3"));
        assert!(same(Type::Mask, "00000000,00000003\n", "3") && same(Type::Mask, "0\n", "00000000"));
        assert!(same(Type::Cpus, "0-2\n", "2,0-1"));
    }

    #[test]
    fn a_wish_to_raise_is_met_by_more_and_not_by_less() {
        let number = Type::Integer { least: 0, most: 1_000 };
        let table: toml::Table = "v = { at_least = 100 }".parse().unwrap();
        let wanted = number.wanted(&table["v"], &roles()).unwrap();
        assert!(number.met("100\n", &wanted) && number.met("500", &wanted) && !number.met("99", &wanted));
        let nonsense: toml::Table = "v = { at_most = 100 }".parse().unwrap();
        assert!(number.wanted(&nonsense["v"], &roles()).is_err());
        assert!(Type::Text.wanted(&table["v"], &roles()).is_err());
    }
}
