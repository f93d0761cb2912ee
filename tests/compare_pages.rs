//! The pages hold to what they promise: well formed, one file without network or script, every picture with words, and no text from outside that
//! means anything to a browser.
#![allow(clippy::unwrap_used, reason = "tests")]

mod compare_support;

use std::fs;
use std::path::Path;
use std::process::Command;

use compare_support::{Plant, compare};
use serde_json::{Value, json};

const HOSTILE: &str = "</title><script>alert(\"x\")</script>'&amp;<img src=http://x onerror=y>";

/// Reads the page with parsers that know nothing of ours.
fn check(page: &Path, hostile: &str) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/compare/page.py");
    let run = Command::new("python3").args([script, page.to_str().unwrap(), hostile]).output();
    let output = run.unwrap_or_else(|why| panic!("python3 is needed to run {script}: {why}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Every text of a result that a page shows, replaced by one that wants out.
fn hostile(result: &mut Value) {
    result["scenario"] = json!({ "name": HOSTILE, "about": HOSTILE });
    result["command"] = json!(["ringroom", HOSTILE]);
    result["reasons"] = json!([HOSTILE]);
    result["target"] = HOSTILE.into();
    result["plan"]["address"] = HOSTILE.into();
    result["plan"]["arrivals"] = HOSTILE.into();
    result["environment"]["kernel"] = HOSTILE.into();
    result["environment"]["server_config"] = format!("[{HOSTILE}]\n{HOSTILE} = {HOSTILE}").into();
    result["remarks"]["refusals"] = json!({ HOSTILE: 3 });
    result["remarks"]["examples"] = json!([HOSTILE]);
    result["slo"] = json!([{ "text": HOSTILE, "value_ns": null, "met": null }]);
    result["agents"] = json!([{ "address": HOSTILE, "verdict": HOSTILE }]);
    result["find_max"] = json!({ "objective": HOSTILE, "best_rate": null, "steps": [{ "rate": 5, "held": false, "why": HOSTILE }] });
    result["verdict"] = "ok".into();
}

#[test]
fn the_page_of_a_run_is_sound() {
    let root = tempfile::tempdir().unwrap();
    Plant { samples: 2_000, ..Plant::default() }.write(root.path());
    ringroom::results::report::write(root.path()).unwrap();
    assert!(check(&root.path().join("report.html"), "").starts_with("10 pictures"), "five, each for screen and phone");
}

#[test]
fn the_page_of_a_comparison_is_sound() {
    let root = tempfile::tempdir().unwrap();
    let (a, b, c) = (root.path().join("a"), root.path().join("b"), root.path().join("c"));
    for (seed, path) in (1..).zip([&a, &b, &c]) {
        Plant { seed, samples: 2_000, ..Plant::default() }.side(path, 4);
    }
    compare(&[&a, &b, &c], &["--out", root.path().to_str().unwrap()]).unwrap();
    assert!(
        check(&root.path().join("compare.html"), "").starts_with("36 pictures"),
        "three for each of three histograms and two pairs, twice"
    );
    let json: Value = serde_json::from_slice(&fs::read(root.path().join("compare.json")).unwrap()).unwrap();
    assert_eq!((json["format"].as_str(), json["version"].as_u64()), (Some("ringroom-compare"), Some(1)));
}

#[test]
fn texts_from_outside_stay_texts() {
    let root = tempfile::tempdir().unwrap();
    let (a, b) = (root.path().join("<b>&'\""), root.path().join("b"));
    for (seed, path) in (1..).zip([&a, &b]) {
        Plant { seed, samples: 500, ..Plant::default() }.write_with(path, &hostile);
        ringroom::results::report::write(path).unwrap();
        check(&path.join("report.html"), HOSTILE);
    }
    compare(&[&a, &b], &["--out", root.path().to_str().unwrap()]).unwrap();
    check(&root.path().join("compare.html"), HOSTILE);
}

#[test]
fn a_result_with_hardly_a_field_still_has_a_page() {
    let root = tempfile::tempdir().unwrap();
    Plant { samples: 50, ..Plant::default() }.write_with(root.path(), &|result| {
        *result =
            json!({ "format": "ringroom-load", "version": 2, "verdict": "ok", "latency": result["latency"], "seconds": [{}, 5, null] });
    });
    ringroom::results::report::write(root.path()).unwrap();
    check(&root.path().join("report.html"), "");
}

#[test]
fn a_run_that_can_not_be_read_has_no_page_but_a_sentence() {
    let root = tempfile::tempdir().unwrap();
    let error = ringroom::results::report::write(root.path()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    assert!(error.to_string().contains("result.json"), "{error}");
}
