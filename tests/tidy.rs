//! The house rules as a test: floors, lengths, banned words, the root of the repository, reasons for dependencies.
//!
//! Each rule runs over the repository, and over a planted violation that it has to find: a rule that finds nothing proves nothing.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/source.rs"]
mod source;

use std::fs;
use std::path::{Path, PathBuf};

use rules::{BANS, Tests};
use source::{Source, Violation};

/// As cargo says when it runs the test, so that a built test can be pointed at another checkout.
fn root() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        // A corpus is raw input for parsers, no text of ours.
        if path.file_name().is_some_and(|name| name == "corpus") {
            continue;
        }
        if path.is_dir() { walk(&path, files) } else { files.push(path) }
    }
}

/// Every text file of the repository below the folders it is made of.
fn texts() -> Vec<Source> {
    let mut files = Vec::new();
    for folder in ["src", "tests", "benches", "scripts", "tuning", ".ci"] {
        walk(&root().join(folder), &mut files);
    }
    files.extend(["Cargo.toml", "README.md", ".gitignore", ".rustfmt.toml"].map(|name| root().join(name)));
    let text = |path: PathBuf| {
        let text = fs::read_to_string(&path).ok()?;
        let name = path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
        Some(Source::new(&name, &text))
    };
    files.into_iter().filter_map(text).collect()
}

fn rust() -> impl Iterator<Item = Source> {
    texts().into_iter().filter(|source| source.path.ends_with(".rs"))
}

fn assert_none(found: &[Violation]) {
    let lines: Vec<String> = found.iter().map(|violation| format!("{}:{}: {}", violation.path, violation.line, violation.what)).collect();
    assert!(found.is_empty(), "{} violations\n{}", found.len(), lines.join("\n"));
}

fn over(rule: fn(&Source) -> Vec<Violation>) -> Vec<Violation> {
    rust().flat_map(|source| rule(&source)).collect()
}

/// The lines at which a rule finds something in a planted file.
fn planted(rule: fn(&Source) -> Vec<Violation>, path: &str, text: &str) -> Vec<usize> {
    rule(&Source::new(path, text)).into_iter().map(|violation| violation.line).collect()
}

#[test]
fn the_repository_is_seen() {
    let paths: Vec<String> = texts().into_iter().map(|source| source.path).collect();
    for path in ["src/lib.rs", "src/main.rs", "src/ids.rs", "src/chat/mod.rs", "tests/tidy.rs", "scripts/test", ".ci/run", "Cargo.toml"] {
        assert!(paths.iter().any(|seen| seen == path), "{path} is not seen");
    }
}

#[test]
fn a_file_imports_from_lower_floors_only() {
    assert_none(&over(rules::floors));
}

#[test]
fn an_import_from_above_is_found() {
    let find = |path, text| planted(rules::floors, path, text);
    assert_eq!(find("src/chat/mod.rs", "use crate::ids::Key;\nuse crate::chat::room;\nuse crate::memory;\n"), []);
    assert_eq!(find("src/chat/mod.rs", "use crate::ids::Key;\nuse crate::reactor::Turn;\n"), [2]);
    assert_eq!(find("src/chat/mod.rs", "use crate::{ids::{Key, Now}, limits, mesh::{a, b}};\n"), [1]);
    assert_eq!(find("src/mesh/mod.rs", "fn f() {\n    crate::cluster::g()\n}\n"), [2]);
    assert_eq!(find("src/memory/slab.rs", "use crate::ring::Io;\n"), [1]);
    assert_eq!(find("src/sys/clock.rs", "use crate::memory::slab;\n"), [1]);
    assert_eq!(find("src/ring/mod.rs", "use crate::memory::slab;\nuse crate::sys::clock;\n"), []);
    assert_eq!(find("src/load/worker.rs", "use crate::ids::Key;\nuse crate::protocol::frame;\n"), [2]);
    assert_eq!(find("src/client/mod.rs", "use crate::protocol::frame;\nuse crate::ids::Key;\nuse crate::sys::clock;\n"), [1, 3]);
    assert_eq!(find("src/serve/mod.rs", "use crate::load::Args;\n"), [1]);
    assert_eq!(find("src/novelty.rs", "\n"), [1]);
    assert_eq!(find("src/ids.rs", "// use crate::chat;\nconst A: &str = \"crate::chat\";\n"), []);
}

#[test]
fn a_way_around_the_floors_is_found() {
    let find = |path, text| planted(rules::floors, path, text);
    assert_eq!(find("src/ids.rs", "use super::chat;\n"), [1]);
    assert_eq!(find("src/chat/mod.rs", "use super::reactor;\n"), [1]);
    assert_eq!(find("src/chat/room.rs", "use super::effect;\n"), []);
    assert_eq!(find("src/chat/room.rs", "use super::super::reactor;\n"), [1]);
    assert_eq!(find("src/chat/room.rs", "mod tests {\n    use super::*;\n    use super::super::effect;\n}\n"), []);
    assert_eq!(find("src/chat/room.rs", "mod tests {\n    use super::super::super::reactor;\n}\n"), [2]);
}

#[test]
fn banned_words_do_not_occur() {
    assert_none(&over(rules::banned_words));
}

#[test]
fn every_banned_word_is_found_where_it_is_banned() {
    for ban in BANS {
        for within in ban.within {
            let path = format!("{within}planted.rs");
            let text = format!("fn f() {{\n    // {word}\n    let s = \"{word}\";\n    a {word}\n}}\n", word = ban.word);
            let lines = planted(rules::banned_words, &path, &text);
            assert!(lines.contains(&4), "{} in {path}: {lines:?}", ban.word);
            assert!(!lines.contains(&2) && !lines.contains(&3), "{} in {path}: a comment or a text counted", ban.word);
        }
        for except in ban.except {
            let lines = planted(rules::banned_words, &format!("{except}x"), &format!("{}\n", ban.word));
            assert_eq!(lines, [], "{} in {except}", ban.word);
        }
        if ban.tests == Tests::Exempt {
            // A word with an open bracket would leave the module open.
            let close = if ban.word.ends_with('(') { ")" } else { "" };
            let text = format!("#[cfg(test)]\nmod tests {{\n    {}{close}\n}}\n", ban.word);
            assert_eq!(planted(rules::banned_words, &format!("{}x.rs", ban.within[0]), &text), [], "{}", ban.word);
        }
    }
    assert_eq!(planted(rules::banned_words, "src/chat/a.rs", "myprintln!(x.unwrap_or(1))\n"), []);
}

#[test]
fn files_are_short_enough_to_read() {
    assert_none(&over(rules::file_length));
}

#[test]
fn a_file_that_is_too_long_is_found() {
    assert_eq!(planted(rules::file_length, "src/chat/a.rs", &"\n".repeat(800)), []);
    assert_eq!(planted(rules::file_length, "src/chat/a.rs", &"\n".repeat(801)), [1]);
    assert_eq!(planted(rules::file_length, "src/main.rs", &"\n".repeat(79)), []);
    assert_eq!(planted(rules::file_length, "src/main.rs", &"\n".repeat(80)), [1]);
}

#[test]
fn functions_are_short_enough_to_read() {
    assert_none(&over(rules::function_length));
}

#[test]
fn a_function_that_is_too_long_is_found() {
    let function = |lines: usize| format!("fn a() {{}}\nfn b() {{{}}}\n", "\n".repeat(lines - 1));
    assert_eq!(planted(rules::function_length, "src/chat/a.rs", &function(70)), []);
    assert_eq!(planted(rules::function_length, "src/chat/a.rs", &function(71)), [2]);
    assert_eq!(planted(rules::function_length, "tests/a.rs", &function(71)), [2]);
    let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", function(71));
    assert_eq!(planted(rules::function_length, "src/chat/a.rs", &tests), []);
}

#[test]
fn every_source_file_begins_with_its_module_doc() {
    assert_none(&over(rules::module_doc));
}

#[test]
fn a_file_without_module_doc_is_found() {
    assert_eq!(planted(rules::module_doc, "src/chat/a.rs", "//! Rooms.\n"), []);
    assert_eq!(planted(rules::module_doc, "src/chat/a.rs", "// Rooms.\n"), [1]);
    assert_eq!(planted(rules::module_doc, "src/chat/a.rs", "use a;\n//! Rooms.\n"), [1]);
}

#[test]
fn no_line_ends_in_white_space() {
    let found: Vec<Violation> = texts().iter().flat_map(rules::trailing_blanks).collect();
    assert_none(&found);
}

#[test]
fn white_space_at_the_end_is_found() {
    assert_eq!(planted(rules::trailing_blanks, "a", "b\n\nc\n"), []);
    assert_eq!(planted(rules::trailing_blanks, "a", "b \nc\t\n"), [1, 2]);
    assert_eq!(planted(rules::trailing_blanks, "a", "b"), [1]);
    assert_eq!(planted(rules::trailing_blanks, "a", "b\n\n"), [2]);
}

#[test]
fn every_dependency_says_why_it_is_there() {
    let text = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert_none(&rules::dependency_reasons(&Source::new("Cargo.toml", &text)));
}

#[test]
fn a_dependency_without_reason_is_found() {
    let text = "[package]\nname = \"x\"\n[dependencies]\n# does it\na = \"1\"\nb = \"1\" # does it too\nc = \"1\"\n[dev-dependencies]\nd = { version = \"1\" }\n[features]\ne = []\n";
    assert_eq!(planted(rules::dependency_reasons, "Cargo.toml", text), [7, 9]);
}

#[test]
fn the_root_holds_only_what_belongs_there() {
    let names = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_none(&rules::top_level(&names.collect::<Vec<_>>()));
}

#[test]
fn a_stranger_at_the_root_is_found() {
    let names = ["Cargo.toml", ".git", "src", "target", "notes.txt"].map(String::from);
    assert_eq!(rules::top_level(&names).into_iter().map(|violation| violation.path).collect::<Vec<_>>(), ["notes.txt"]);
}
