//! What is wrong with a configuration, in one line a person can act on.
//!
//! A problem is found either while a file or a flag is read (its place is known at once) or by `validate` (which knows the key alone; the reader
//! then adds the place the key was set at). Printed as `file:line: section.key: message`.

use std::fmt;

/// One wrong thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    pub place: Place,
    /// `section.key`, or empty when no key is to blame.
    pub key: String,
    /// What is wrong and what is allowed.
    pub message: String,
}

/// Where the key got its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Built in, or set by hand in a program.
    Unknown,
    File {
        file: String,
        line: usize,
    },
    Flag(&'static str),
}

impl ConfigError {
    /// A wrong value whose place is not known here.
    pub fn of_key(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place: Place::Unknown, key: key.into(), message: message.into() }
    }

    #[must_use]
    pub fn at(self, place: Place) -> Self {
        Self { place, ..self }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Unknown => {}
            Place::File { file, line } => write!(f, "{file}:{line}: ")?,
            Place::Flag(flag) => write!(f, "{flag}: ")?,
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for ConfigError {}
