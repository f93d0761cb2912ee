//! The table of `compare-peers` leaves out the runs that the generator calls invalid, and says so.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::process::Command;

use serde_json::{Value, json};

/// The cells of a row: `rows` are one server's runs, `base` those of ringroom.
fn cells(rows: &Value, base: &Value) -> Vec<String> {
    let code = "import json, sys; import peers_report; print(json.dumps(peers_report.cells(*json.loads(sys.argv[1]))))";
    let scripts = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts");
    let output = Command::new("python3")
        .args(["-B", "-c", code, &json!([rows, base]).to_string()])
        .env("PYTHONPATH", scripts)
        .output()
        .unwrap_or_else(|error| panic!("python3: {error}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn run(cpu: f64, invalid: Option<&str>, why: Option<&str>) -> Value {
    json!({ "sound": true, "cpu": cpu, "p50": 1.0, "p99": 2.0, "p99_9": 3.0, "share": 0.5, "invalid": invalid, "why": why })
}

#[test]
fn invalid_runs_give_no_figures_and_do_not_count_as_held() {
    let late = Some("the generator was late");
    let base = json!([run(2.0, None, None), run(2.0, None, None), run(2.0, late, None)]);
    let some = cells(&json!([run(4.0, None, None), run(90.0, late, None), run(4.0, None, Some("p99 300 ms"))]), &base);
    assert_eq!((some[0].as_str(), some[1].as_str()), ("4.00 (4.00 .. 4.00)", "2.00"), "{some:?}");
    assert_eq!(some[7], "1 of 2; 1 invalid, left out: the generator was late; not held: p99 300 ms");
    let none = cells(&json!([run(4.0, late, None), run(4.0, late, None)]), &base);
    assert!(none[..7].iter().all(|cell| cell == "n/a"), "{none:?}");
    assert_eq!(none[7], "n/a: all 2 invalid: the generator was late");
}
