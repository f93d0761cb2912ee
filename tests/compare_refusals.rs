//! Directories that are damaged, foreign or do not belong together end `ringroom compare` with one clear line and its exit code.
#![allow(clippy::unwrap_used, reason = "tests")]

mod compare_support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use compare_support::Plant;
use serde_json::Value;

fn plant() -> Plant {
    Plant { samples: 400, ..Plant::default() }
}

/// The real program: its exit code and what it said on standard error.
fn program(words: &[&Path]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_ringroom")).arg("compare").args(words).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

struct Sides {
    _root: tempfile::TempDir,
    a: PathBuf,
    b: PathBuf,
}

fn sides() -> Sides {
    let root = tempfile::tempdir().unwrap();
    let (a, b) = (root.path().join("a"), root.path().join("b"));
    plant().side(&a, 1);
    Plant { seed: 2, ..plant() }.side(&b, 1);
    Sides { _root: root, a, b }
}

/// Breaks side `b` in a way and looks at what is said.
fn broken(exit: i32, words: &str, breaks: &dyn Fn(&Path)) {
    let sides = sides();
    breaks(&sides.b.join("1"));
    let (code, said) = program(&[&sides.a, &sides.b]);
    assert_eq!((code, said.lines().count()), (exit, 1), "{said}");
    assert!(said.starts_with("ringroom compare: ") && said.contains(words), "{said}");
}

fn edit(run: &Path, change: &dyn Fn(&mut Value)) {
    let file = run.join("result.json");
    let mut result: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    change(&mut result);
    fs::write(file, result.to_string()).unwrap();
}

#[test]
fn sound_sides_are_compared() {
    let sides = sides();
    assert_eq!(program(&[&sides.a, &sides.b]).0, 0);
}

#[test]
fn a_wrong_command_line_is_64() {
    let sides = sides();
    for words in [vec![], vec![sides.a.as_path()], vec![&sides.a, Path::new("/no/such/place")], vec![&sides.a, sides.a.parent().unwrap()]] {
        assert_eq!(program(&words).0, 64, "{words:?}");
    }
    assert_eq!(program(&[Path::new("--merge"), &sides.a.join("out"), &sides.a.join("1")]).0, 64, "one generator is nothing to merge");
    assert_eq!(program(&[Path::new("--report"), Path::new("/no/such/place")]).0, 65);
}

#[test]
fn another_scenario_is_64() {
    broken(64, "plan.rate is 1000.0 in", &|run| edit(run, &|result| result["plan"]["rate"] = 2_000.0.into()));
    broken(64, "loop is \"open\"", &|run| edit(run, &|result| result["loop"] = "closed".into()));
    broken(64, "plan.novelty is absent", &|run| edit(run, &|result| result["plan"]["novelty"] = 1.into()));
}

#[test]
fn another_target_address_or_seed_is_the_same_scenario() {
    let sides = sides();
    edit(&sides.b.join("1"), &|result| {
        result["target"] = "nats".into();
        result["plan"]["address"] = "127.0.0.1:4222".into();
        result["plan"]["seed"] = 77.into();
    });
    assert_eq!(program(&[&sides.a, &sides.b]).0, 0);
}

#[test]
fn a_file_that_is_missing_foreign_or_of_another_version_is_65() {
    broken(65, "run.hlog: No such file", &|run| fs::remove_file(run.join("run.hlog")).unwrap());
    broken(65, "result.json: No such file", &|run| fs::remove_file(run.join("result.json")).unwrap());
    broken(65, "no JSON", &|run| fs::write(run.join("result.json"), "{").unwrap());
    broken(65, "is no result of `ringroom load`", &|run| fs::write(run.join("result.json"), "{}").unwrap());
    broken(65, "is of version 9; this program reads version 2", &|run| edit(run, &|result| result["version"] = 9.into()));
    broken(65, "has no latency", &|run| edit(run, &|result| result["latency"] = Value::Null));
}

#[test]
fn a_damaged_log_is_65_and_names_the_line() {
    let rewrite = |run: &Path, change: &dyn Fn(Vec<u8>) -> Vec<u8>| {
        let file = run.join("run.hlog");
        fs::write(&file, change(fs::read(&file).unwrap())).unwrap();
    };
    broken(65, "cut off", &|run| rewrite(run, &|bytes| bytes[..bytes.len() - 9].to_vec()));
    broken(65, "line 4: the histogram", &|run| {
        rewrite(run, &|bytes| String::from_utf8(bytes).unwrap().replacen(",HIST", ",HISX", 1).into_bytes())
    });
    broken(65, "samples of", &|run| {
        rewrite(run, &|bytes| {
            let text = String::from_utf8(bytes).unwrap();
            let lines: Vec<&str> = text.lines().collect();
            (lines[..lines.len() - 1].join("\n") + "\n").into_bytes()
        });
    });
    broken(65, "of another run", &|run| edit(run, &|result| result["latency"]["sent"]["count"] = 5.into()));
}

#[test]
fn an_answer_that_can_not_be_written_is_74() {
    let sides = sides();
    let file = sides.a.join("file");
    fs::write(&file, "").unwrap();
    let (code, said) = program(&[&sides.a, &sides.b, Path::new("--out"), &file.join("x")]);
    assert_eq!(code, 74, "{said}");
}
