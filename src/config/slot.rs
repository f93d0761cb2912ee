//! A place in [`super::Settings`] as text sees it: read from a TOML value, written as one, checked against its range.
//!
//! The table of keys (`keys`) gives each key its slot; reading a file, printing and range checks all go through it, so that a key can't be
//! readable and not printable. Messages say what is allowed and nothing else; the caller adds where.

use std::net::SocketAddr;
use std::ops::RangeInclusive;

use toml::de::DeValue;

use super::{AuthMode, Network, RateMode, SlowReader, cpus};

/// One setting, borrowed by its kind.
pub(super) enum Slot<'a> {
    Number(&'a mut dyn Number, RangeInclusive<u64>),
    Switch(&'a mut bool),
    Word(&'a mut dyn Word),
    Text(&'a mut String),
    Cpus(&'a mut Vec<usize>),
    Texts(&'a mut Vec<String>),
    Addresses(&'a mut Vec<SocketAddr>),
    Networks(&'a mut Vec<Network>),
}

/// An unsigned setting of any width.
pub(super) trait Number {
    fn get(&self) -> u64;
    /// False when it does not fit the type.
    #[must_use]
    fn set(&mut self, value: u64) -> bool;
}

/// A setting with a few named values.
pub(super) trait Word {
    fn choices(&self) -> &'static [&'static str];
    fn get(&self) -> &'static str;
    /// False when it is none of the choices.
    #[must_use]
    fn set(&mut self, word: &str) -> bool;
}

impl Slot<'_> {
    /// Takes a value from a file. The error says what is allowed instead.
    pub(super) fn read(&mut self, value: &DeValue<'_>) -> Result<(), String> {
        match self {
            Slot::Number(number, range) => read_number(*number, range, value),
            Slot::Switch(switch) => {
                **switch = value.as_bool().ok_or_else(|| format!("must be true or false, not {}", shown(value)))?;
                Ok(())
            }
            Slot::Word(word) => {
                let taken = value.as_str().is_some_and(|text| word.set(text));
                if taken { Ok(()) } else { Err(format!("must be {}, not {}", choices(*word), shown(value))) }
            }
            Slot::Text(text) => {
                **text = value.as_str().ok_or_else(|| format!("must be a text in quotes, not {}", shown(value)))?.to_owned();
                Ok(())
            }
            Slot::Cpus(list) => {
                let text = value.as_str().ok_or_else(|| format!("must be a list in quotes like \"0-3,6\", not {}", shown(value)))?;
                **list = cpus::parse(text)?;
                Ok(())
            }
            Slot::Texts(texts) => {
                **texts = read_texts(value)?;
                Ok(())
            }
            Slot::Addresses(addresses) => {
                **addresses = read_addresses(value)?;
                Ok(())
            }
            Slot::Networks(networks) => {
                **networks = read_texts(value)?.iter().map(|text| Network::parse(text)).collect::<Result<_, _>>()?;
                Ok(())
            }
        }
    }

    /// The value as TOML.
    pub(super) fn print(&self) -> String {
        match self {
            Slot::Number(number, _) => number.get().to_string(),
            Slot::Switch(switch) => switch.to_string(),
            Slot::Word(word) => quoted(word.get()),
            Slot::Text(text) => quoted(text),
            Slot::Cpus(list) => quoted(&cpus::print(list)),
            Slot::Texts(texts) => list(texts),
            Slot::Addresses(addresses) => list(addresses),
            Slot::Networks(networks) => list(networks),
        }
    }

    /// What may stand there, for the sample file; `None` where the meaning says it all.
    pub(super) fn allowed(&self) -> Option<String> {
        match self {
            Slot::Number(_, range) => Some(format!("{} to {}", range.start(), range.end())),
            Slot::Word(word) => Some(choices(*word)),
            Slot::Switch(_) | Slot::Text(_) | Slot::Cpus(_) | Slot::Texts(_) | Slot::Addresses(_) | Slot::Networks(_) => None,
        }
    }

    /// The value lies in its range: a program that fills the settings by hand does not come through `read`.
    pub(super) fn check(&self) -> Result<(), String> {
        match self {
            Slot::Number(number, range) if !range.contains(&number.get()) => Err(out_of_range(range, number.get())),
            _ => Ok(()),
        }
    }
}

/// An address with its port. Names are not looked up: which of its addresses would be meant?
pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("must be an IP address with a port, like 127.0.0.1:7777 or [::1]:7777, not {text:?}"))
}

fn read_number(number: &mut dyn Number, range: &RangeInclusive<u64>, value: &DeValue<'_>) -> Result<(), String> {
    let wrong = || format!("must be a whole number from {} to {}, not {}", range.start(), range.end(), shown(value));
    let written = value.as_integer().ok_or_else(wrong)?;
    let value = u64::from_str_radix(written.as_str(), written.radix()).map_err(|_| wrong())?;
    if range.contains(&value) && number.set(value) { Ok(()) } else { Err(out_of_range(range, value)) }
}

fn out_of_range(range: &RangeInclusive<u64>, value: u64) -> String {
    format!("must be a whole number from {} to {}, not {value}", range.start(), range.end())
}

fn read_addresses(value: &DeValue<'_>) -> Result<Vec<SocketAddr>, String> {
    let list = value.as_array().ok_or_else(|| format!("must be a list like [\"127.0.0.1:7777\"], not {}", shown(value)))?;
    let one = |item: &toml::Spanned<DeValue<'_>>| {
        let text = item.get_ref().as_str().ok_or_else(|| format!("must hold texts in quotes, not {}", shown(item.get_ref())))?;
        parse_address(text)
    };
    list.iter().map(one).collect()
}

fn read_texts(value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let list = value.as_array().ok_or_else(|| format!("must be a list of texts like [\"a\", \"b\"], not {}", shown(value)))?;
    let one = |item: &toml::Spanned<DeValue<'_>>| {
        let text = item.get_ref().as_str();
        text.map(str::to_owned).ok_or_else(|| format!("must hold texts in quotes, not {}", shown(item.get_ref())))
    };
    list.iter().map(one).collect()
}

/// A value as an error shows it: cut, for it may be a whole table.
pub(super) fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("{:?}", text.chars().take(60).collect::<String>()),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(value) => value.to_string(),
        other => format!("a value of type {}", other.type_str()),
    }
}

pub(super) fn choices(word: &dyn Word) -> String {
    let all: Vec<String> = word.choices().iter().map(|choice| quoted(choice)).collect();
    all.join(" or ")
}

fn list(items: &[impl ToString]) -> String {
    let all: Vec<String> = items.iter().map(|item| quoted(&item.to_string())).collect();
    format!("[{}]", all.join(", "))
}

pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

macro_rules! numbers {
    ($($kind:ty),*) => {$(
        impl Number for $kind {
            fn get(&self) -> u64 {
                u64::try_from(*self).expect("no setting is wider than 64 bits")
            }
            fn set(&mut self, value: u64) -> bool {
                let fits = <$kind>::try_from(value);
                *self = fits.unwrap_or(*self);
                fits.is_ok()
            }
        }
    )*};
}
numbers!(u16, u32, u64, usize);

impl Word for AuthMode {
    fn choices(&self) -> &'static [&'static str] {
        &["open", "jwt"]
    }

    fn get(&self) -> &'static str {
        match self {
            AuthMode::Open => "open",
            AuthMode::Jwt => "jwt",
        }
    }

    fn set(&mut self, word: &str) -> bool {
        *self = match word {
            "open" => AuthMode::Open,
            "jwt" => AuthMode::Jwt,
            _ => return false,
        };
        true
    }
}

impl Word for RateMode {
    fn choices(&self) -> &'static [&'static str] {
        &["wait", "reject"]
    }

    fn get(&self) -> &'static str {
        match self {
            RateMode::Wait => "wait",
            RateMode::Reject => "reject",
        }
    }

    fn set(&mut self, word: &str) -> bool {
        *self = match word {
            "wait" => RateMode::Wait,
            "reject" => RateMode::Reject,
            _ => return false,
        };
        true
    }
}

impl Word for SlowReader {
    fn choices(&self) -> &'static [&'static str] {
        &["stall", "close", "drop_oldest"]
    }

    fn get(&self) -> &'static str {
        match self {
            SlowReader::Stall => "stall",
            SlowReader::Close => "close",
            SlowReader::DropOldest => "drop_oldest",
        }
    }

    fn set(&mut self, word: &str) -> bool {
        *self = match word {
            "stall" => SlowReader::Stall,
            "close" => SlowReader::Close,
            "drop_oldest" => SlowReader::DropOldest,
            _ => return false,
        };
        true
    }
}

impl Word for log::LevelFilter {
    fn choices(&self) -> &'static [&'static str] {
        &["off", "error", "warn", "info", "debug", "trace"]
    }

    fn get(&self) -> &'static str {
        self.choices()[*self as usize]
    }

    fn set(&mut self, word: &str) -> bool {
        let Some(level) = log::LevelFilter::iter().find(|level| level.get() == word) else { return false };
        *self = level;
        true
    }
}
