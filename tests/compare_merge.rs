//! Files of several generators of one run become one run: counts are added, percentiles taken of the sums, and who makes the tail is named.
#![allow(clippy::unwrap_used, reason = "tests")]

mod compare_support;

use std::fs;
use std::path::{Path, PathBuf};

use compare_support::{Plant, compare};
use ringroom::results::Problem;
use ringroom::results::run::Run;
use serde_json::Value;

fn plant() -> Plant {
    Plant { samples: 3_000, ..Plant::default() }
}

fn merge(out: &Path, parts: &[PathBuf]) -> Result<String, Problem> {
    let parts: Vec<&Path> = parts.iter().map(PathBuf::as_path).collect();
    compare(&parts, &["--merge", out.to_str().unwrap()])
}

fn generators(root: &Path, plants: &[Plant]) -> Vec<PathBuf> {
    let write = |(number, plant): (usize, &Plant)| {
        let path = root.join(format!("g{number}"));
        plant.write(&path);
        path
    };
    plants.iter().enumerate().map(write).collect()
}

#[test]
fn counts_are_added_and_percentiles_are_of_the_sum() {
    let root = tempfile::tempdir().unwrap();
    let parts = generators(root.path(), &[plant(), Plant { seed: 2, median_us: 600, ..plant() }, Plant { seed: 3, ..plant() }]);
    let out = root.path().join("out");
    assert!(merge(&out, &parts).unwrap().contains("3 generators merged"));
    let (merged, runs) = (Run::read(&out).unwrap(), parts.iter().map(|path| Run::read(path).unwrap()).collect::<Vec<_>>());
    let mut sum = runs[0].histograms["room.delivery"].clone();
    runs[1..].iter().for_each(|run| sum.add(&run.histograms["room.delivery"]).unwrap());
    assert!(sum == merged.histograms["room.delivery"], "every bucket");
    assert_eq!(merged.count("latency.delivery.p50_ns"), Some(sum.value_at_quantile(0.5)));
    let mean = runs.iter().map(|run| run.histograms["delivery"].value_at_quantile(0.5)).sum::<u64>() / 3;
    assert!(sum.value_at_quantile(0.5) < mean * 9 / 10, "which is not the mean of their medians");
    for path in ["counts.sent", "deliveries_in_all", "plan.connections", "delivered_per_s"] {
        assert_eq!(merged.number(path), Some(runs.iter().filter_map(|run| run.number(path)).sum()), "{path}");
    }
    let agents = merged.list("agents");
    assert_eq!(agents.len(), 3);
    assert_eq!(agents[1]["delivery"]["p50_ns"].as_u64(), Some(runs[1].histograms["delivery"].value_at_quantile(0.5)));
    assert_eq!(merged.list("seconds").len(), runs[0].list("seconds").len());
    assert!(fs::read_to_string(out.join("report.html")).unwrap().contains("Generators"));
}

#[test]
fn one_that_makes_the_tail_is_named() {
    let root = tempfile::tempdir().unwrap();
    let parts = generators(root.path(), &[plant(), Plant { seed: 2, median_us: 3_000, ..plant() }, Plant { seed: 3, ..plant() }]);
    let said = merge(&root.path().join("out"), &parts).unwrap();
    assert!(said.contains("g1 has ") && said.contains("the tail is this generator's"), "{said}");
    let even = generators(&root.path().join("even"), &[plant(), Plant { seed: 2, ..plant() }, Plant { seed: 3, ..plant() }]);
    assert!(!merge(&root.path().join("out2"), &even).unwrap().contains("warning"));
}

#[test]
fn the_worst_verdict_is_that_of_the_whole() {
    let root = tempfile::tempdir().unwrap();
    let paths = [root.path().join("x"), root.path().join("y")];
    plant().write(&paths[0]);
    Plant { seed: 2, ..plant() }.write_with(&paths[1], &|result| {
        result["verdict"] = "invalid".into();
        result["reasons"] = serde_json::json!(["the generator was late"]);
    });
    merge(&root.path().join("out"), &paths).unwrap();
    let merged = Run::read(&root.path().join("out")).unwrap();
    assert_eq!((merged.text("verdict"), merged.list("reasons")), (Some("invalid"), &[Value::from("y: the generator was late")][..]));
    assert!(merged.flaw().is_some());
}

#[test]
fn what_was_not_one_run_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let refused = |name: &str, other: Plant, edit: &dyn Fn(&mut Value), words: &str| {
        let paths = ["one", "two"].map(|part| root.path().join(name).join(part));
        plant().write(&paths[0]);
        other.write_with(&paths[1], edit);
        let Err(Problem::Usage(text)) = merge(&root.path().join(name).join("out"), &paths) else { panic!("{name} was merged") };
        assert!(text.contains(words), "{text}");
        assert!(!root.path().join(name).join("out").exists(), "nothing is left behind");
    };
    let other = Plant { seed: 2, ..plant() };
    refused("late", Plant { started_ms: other.started_ms + 90_000, ..other }, &|_| (), "began 90 s apart");
    refused("body", other, &|result| result["plan"]["body_bytes"] = 64.into(), "plan.body_bytes is 128");
    refused("target", other, &|result| result["target"] = "nats".into(), "target");
    refused("same", plant(), &|_| (), "are the same generator");
}

#[test]
fn a_directory_with_a_result_is_not_written_over() {
    let root = tempfile::tempdir().unwrap();
    let parts = generators(root.path(), &[plant(), Plant { seed: 2, ..plant() }]);
    assert!(matches!(merge(&parts[0], &parts), Err(Problem::Usage(_))));
}
