//! An independent client, written from the wire contract alone, checks the real program sentence by sentence, with one shard and with three.

use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// One run at a time: each starts several servers, which share the machine's CPUs and this user's locked memory.
static TURN: Mutex<()> = Mutex::new(());

fn conforms(shards: &str) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let check = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance/check.py");
    let run = Command::new("python3").args([check, "--binary", env!("CARGO_BIN_EXE_ringroom"), "--shards", shards]).output();
    let output = run.unwrap_or_else(|why| panic!("python3 is needed to run {check}: {why}"));
    let text = String::from_utf8_lossy(&output.stdout);
    let faults: Vec<&str> = text.lines().filter(|line| !line.starts_with("ok") && !line.starts_with("skip")).collect();
    assert!(output.status.success(), "{}\n{}", faults.join("\n"), String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_server_keeps_the_contract_with_one_shard() {
    conforms("1");
}

#[test]
fn the_server_keeps_the_contract_with_three_shards() {
    conforms("3");
}
