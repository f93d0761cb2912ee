//! Measured runs on disk: read, checked, put side by side, and shown.
//!
//! A run is a directory that `ringroom load --out` has written (`result.json` version 2 and `run.hlog`); this module reads nothing else and never
//! touches a server. [`run`] reads one, [`side`] several of one configuration, [`compare`] judges sides against each other with
//! [`crate::stats`], [`merge`] adds up the files of several generators of one run. [`report`] and [`page`] draw them, [`text`] prints.
//!
//! What is read may be damaged or foreign: it ends in a [`Problem`] of one line, never in a panic, and every word that comes from a file is escaped
//! before it stands in a page.

pub mod compare;
pub mod environment;
pub mod hlog;
pub mod merge;
pub mod page;
pub mod pictures;
pub mod report;
pub mod run;
pub mod side;
pub mod text;

use std::fmt;

/// Why there is no result; the number of the exit code goes with the kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// What was asked makes no sense: 64.
    Usage(String),
    /// A file is missing, damaged, or does not belong to the others: 65.
    Data(String),
    /// The answer can't be written: 74.
    Output(String),
}

impl Problem {
    pub fn exit(&self) -> u8 {
        match self {
            Self::Usage(_) => 64,
            Self::Data(_) => 65,
            Self::Output(_) => 74,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Usage(text) | Self::Data(text) | Self::Output(text)) = self;
        f.write_str(text)
    }
}
