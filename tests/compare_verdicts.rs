//! What `ringroom compare` says of planted runs: a shift that is there is found, one that is not is not, and mixed ones are seen whole.
#![allow(clippy::unwrap_used, reason = "tests")]

mod compare_support;

use std::fs;

use compare_support::{Plant, compare, comparison, verdict};
use serde_json::Value;

#[test]
fn a_planted_shift_is_found_and_told_in_its_direction() {
    let root = tempfile::tempdir().unwrap();
    let (slow, fast) = (root.path().join("slow"), root.path().join("fast"));
    Plant::default().side(&slow, 6);
    Plant { seed: 2, median_us: 240, tail_us: 720, ..Plant::default() }.side(&fast, 6);
    let found = comparison(&[&slow, &fast], &[]);
    for figure in ["p50", "p90", "p99", "p99.9"] {
        assert_eq!(verdict(&found, "room.delivery", figure), "better", "{figure}");
        assert_eq!(verdict(&comparison(&[&fast, &slow], &[]), "room.delivery", figure), "worse", "{figure}");
    }
    assert_eq!(verdict(&found, "whole", "rate"), "not shown");
    let share = found["pairs"][0]["histograms"][0]["rows"][0]["shift_share"].as_f64().unwrap();
    assert!((share + 0.2).abs() < 0.02, "a fifth was planted: {share}");
}

#[test]
fn runs_of_one_kind_are_not_told_apart() {
    let root = tempfile::tempdir().unwrap();
    let (a, b, again) = (root.path().join("a"), root.path().join("b"), root.path().join("again"));
    Plant::default().side(&a, 6);
    Plant { seed: 2, ..Plant::default() }.side(&b, 6);
    Plant { seed: 3, ..Plant::default() }.side(&again, 6);
    for more in [&[][..], &["--aa", again.to_str().unwrap()]] {
        let found = comparison(&[&a, &b], more);
        for (histogram, figure) in
            [("room.delivery", "p50"), ("room.delivery", "p99.9"), ("room.last", "p99"), ("sent", "p90"), ("whole", "cpu")]
        {
            assert_eq!(verdict(&found, histogram, figure), "not shown", "{histogram} {figure} {more:?}");
        }
    }
    assert_eq!(comparison(&[&a, &b], &["--aa", again.to_str().unwrap()])["method"]["noise"], "again");
}

#[test]
fn a_better_p99_beside_a_worse_tail_is_shown_as_both() {
    let root = tempfile::tempdir().unwrap();
    let (a, b) = (root.path().join("a"), root.path().join("b"));
    Plant::default().side(&a, 6);
    Plant { seed: 2, median_us: 255, tail_us: 1_800, ..Plant::default() }.side(&b, 6);
    let found = comparison(&[&a, &b], &[]);
    assert_eq!(["p50", "p99", "p99.9"].map(|figure| verdict(&found, "room.delivery", figure)), ["better", "better", "worse"]);
    let shifts = found["pairs"][0]["histograms"][0]["shifts"].as_array().unwrap();
    let share_at = |place: usize| shifts[place]["share"].as_f64().unwrap();
    assert!(share_at(0) < 0.0 && share_at(shifts.len() - 1) > 0.0, "the shift changes its sign along the percentiles");
    let text = compare(&[&a, &b], &[]).unwrap();
    let line = |figure: &str| text.lines().find(|line| line.starts_with(&format!("{figure} "))).unwrap().to_owned();
    assert!(line("p99").contains("better") && line("p99.9").contains("worse"), "{text}");
}

#[test]
fn three_sides_are_each_held_against_the_first() {
    let root = tempfile::tempdir().unwrap();
    let paths = ["a", "b", "c"].map(|name| root.path().join(name));
    for (seed, (path, median_us)) in (1..).zip(paths.iter().zip([300, 300, 400])) {
        Plant { seed, median_us, ..Plant::default() }.side(path, 5);
    }
    let found = comparison(&[&paths[0], &paths[1], &paths[2]], &[]);
    let names: Vec<(&Value, &Value)> = found["pairs"].as_array().unwrap().iter().map(|pair| (&pair["a"], &pair["b"])).collect();
    assert_eq!(names, [(&Value::from("a"), &Value::from("b")), (&Value::from("a"), &Value::from("c"))]);
    let p50 = |pair: usize| found["pairs"][pair]["histograms"][0]["rows"][0]["verdict"].as_str().unwrap();
    assert_eq!((p50(0), p50(1)), ("not shown", "worse"));
}

#[test]
fn runs_that_failed_are_left_out_and_named() {
    let root = tempfile::tempdir().unwrap();
    let (a, b) = (root.path().join("a"), root.path().join("b"));
    Plant::default().side(&a, 5);
    Plant { seed: 2, ..Plant::default() }.side(&b, 4);
    let lossy = Plant { seed: 99, median_us: 10, ..Plant::default() };
    lossy.write_with(&b.join("5"), &|result| {
        result["verdict"] = "faulty".into();
        result["reasons"] = serde_json::json!(["deliveries lost: 3"]);
    });
    Plant { seed: 98, ..lossy }.write_with(&b.join("6"), &|result| result["cut_short"] = true.into());
    Plant { seed: 97, ..lossy }.write(&b.join("7"));
    fs::write(b.join("7/drift.txt"), "vm.swappiness 60 -> 10\n").unwrap();
    let found = comparison(&[&a, &b], &[]);
    assert_eq!((found["sides"][1]["runs_valid"].as_u64(), found["sides"][1]["runs"].as_array().unwrap().len()), (Some(4), 7));
    assert_eq!(found["sides"][1]["runs"][4]["flaw"], "faulty: deliveries lost: 3");
    assert_eq!(verdict(&found, "room.delivery", "p50"), "not shown", "the lossy run's figures do not count");
    let text = compare(&[&a, &b], &[]).unwrap();
    assert!(text.contains("left out: 5: faulty: deliveries lost: 3") && text.contains("left out: 6: cut short"), "{text}");
    assert!(text.contains("left out: 7: the machine's settings changed"), "{text}");
}

#[test]
fn too_few_runs_or_samples_give_no_verdict() {
    let root = tempfile::tempdir().unwrap();
    let (a, b) = (root.path().join("a"), root.path().join("b"));
    Plant { samples: 500, ..Plant::default() }.side(&a, 4);
    Plant { seed: 2, samples: 500, median_us: 900, ..Plant::default() }.side(&b, 3);
    let found = comparison(&[&a, &b], &[]);
    assert_eq!(["p50", "p90", "p99"].map(|figure| verdict(&found, "room.delivery", figure)), ["invalid", "invalid", "n/a"]);
    assert!(compare(&[&a, &b], &[]).unwrap().contains("note: b: 3 valid runs; a verdict needs 4"));
    // One run alone is a side of one.
    let single = comparison(&[&a.join("1"), &b.join("1")], &[]);
    assert_eq!(verdict(&single, "room.delivery", "p50"), "invalid");
}

#[test]
fn a_run_does_not_count_twice_and_sides_of_one_name_are_told_apart() {
    let root = tempfile::tempdir().unwrap();
    let (a, b) = (root.path().join("x/runs"), root.path().join("y/runs"));
    Plant { samples: 500, ..Plant::default() }.side(&a, 2);
    Plant { seed: 2, samples: 500, ..Plant::default() }.side(&b, 2);
    let found = comparison(&[&a, &b], &[]);
    assert_eq!(found["sides"][1]["name"].as_str(), b.to_str());
    for twice in [[&a, &a], [&b, &b.join("1")]] {
        let problem = compare(&[twice[0], twice[1]], &[]).unwrap_err();
        assert!(problem.exit() == 64 && problem.to_string().contains("are the same run"), "{problem}");
    }
    fs::create_dir(b.join("copy")).unwrap();
    for file in ["result.json", "run.hlog"] {
        fs::copy(b.join("1").join(file), b.join("copy").join(file)).unwrap();
    }
    assert!(compare(&[&a, &b], &[]).unwrap_err().to_string().contains("are the same run"));
}

#[test]
fn what_differs_around_the_runs_is_told() {
    let root = tempfile::tempdir().unwrap();
    let (a, b) = (root.path().join("a"), root.path().join("b"));
    Plant::default().side(&a, 4);
    for number in 0..4u64 {
        let plant = Plant { seed: 1_000 + number, started_ms: 1_795_668_523_000, ..Plant::default() };
        plant.write_with(&b.join(number.to_string()), &|result| {
            result["environment"]["server_config"] = "[shard]\nspin_us = 50\n".into();
            result["environment"]["nstat"]["TcpRetransSegs"] = 77.into();
        });
    }
    let found = comparison(&[&a, &b], &[]);
    assert_eq!(found["environment"], serde_json::json!([{ "name": "server_config.shard.spin_us", "values": [["0"], ["50"]] }]));
    assert!(found["notes"].as_array().unwrap().iter().any(|note| note.as_str().unwrap().contains("Interleave")), "{}", found["notes"]);
}

/// The whole object on fixed inputs; `BLESS=1` writes it anew after a change that is meant.
#[test]
fn the_json_of_fixed_inputs_stays_as_it_is() {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/compare/golden.json");
    let root = tempfile::tempdir().unwrap();
    let (a, b) = (root.path().join("a"), root.path().join("b"));
    Plant { samples: 3_000, ..Plant::default() }.side(&a, 5);
    Plant { seed: 2, samples: 3_000, median_us: 330, ..Plant::default() }.side(&b, 5);
    let mut found = comparison(&[&a, &b], &[]);
    for side in found["sides"].as_array_mut().unwrap() {
        side["path"] = "-".into();
    }
    if std::env::var_os("BLESS").is_some() {
        fs::write(golden, serde_json::to_string_pretty(&found).unwrap() + "\n").unwrap();
    }
    let expected: Value = serde_json::from_str(&fs::read_to_string(golden).unwrap()).unwrap();
    assert_eq!(rounded(found), rounded(expected));
}

/// Nine digits of every number: mathematical functions may differ in the last ones from machine to machine.
fn rounded(value: Value) -> Value {
    match value {
        Value::Number(number) => format!("{:.9e}", number.as_f64().unwrap()).into(),
        Value::Array(values) => values.into_iter().map(rounded).collect(),
        Value::Object(fields) => fields.into_iter().map(|(key, value)| (key, rounded(value))).collect::<serde_json::Map<_, _>>().into(),
        other => other,
    }
}
