//! What the tests of a running server share: the real program as a child process, and a client that speaks raw frames.
//!
//! The client is written from `protocol.md` alone and shares no code with the server. Every wait ends at [`PATIENCE`], which only a server that
//! hangs ever reaches; nothing here asserts that something was fast. A server is killed by its process id when its test ends.
#![allow(dead_code, unused_imports, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod client;
pub(crate) mod http;
mod server;

use std::time::{Duration, Instant};

pub(crate) use client::{Client, frame, hello};
pub(crate) use serde_json::Value;
pub(crate) use server::{Ended, Server};

/// Long beyond doubt: only a server that hangs gets there.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// Looks until `done` says so; fails at the deadline.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what}: still not so after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A `bye` with this code and reason.
#[track_caller]
pub(crate) fn assert_bye(object: &Value, code: u64, reason: &str) {
    assert_eq!(object["type"], "bye", "{object}");
    assert_eq!((object["code"].as_u64(), object["reason"].as_str()), (Some(code), Some(reason)), "{object}");
}

/// An `error` with this code and reason.
#[track_caller]
pub(crate) fn assert_error(object: &Value, code: u64, reason: &str) {
    assert_eq!(object["type"], "error", "{object}");
    assert_eq!((object["code"].as_u64(), object["reason"].as_str()), (Some(code), Some(reason)), "{object}");
}

/// A position's parts that can be compared: `<epoch>.<ms>-<n>`.
pub(crate) fn place_in_order(at: &Value) -> (u64, u64) {
    let (ms, n) = at.as_str().and_then(|at| at.split_once('.')).and_then(|(_, rest)| rest.split_once('-')).unwrap();
    (ms.parse().unwrap(), n.parse().unwrap())
}
