//! The rules of the house, each a function from a file to what breaks it. Why each holds is said at it; how they are run, in `tidy.rs`.

use super::source::{Source, Violation, is_word, matching};

/// Floors, from the lowest: a module may name modules that stand further down, in their order here. Modules of one line do not know each other.
pub(crate) const FLOORS: [&[&str]; 13] = [
    // Floor 0: words, and what is built of them alone.
    &["limits", "mutation", "stats", "chart"],
    &["ids"],
    &["config", "protocol"],
    // Floor 1: the machine and the data structures.
    &["sys"],
    &["memory"],
    &["ring"],
    // Floor 2: the rules.
    &["chat"],
    // Floor 3: between shards, between servers.
    &["mesh", "cluster", "auth"],
    // Floor 4: what drives them.
    &["reactor"],
    &["control"],
    // What the programs that measure share: runs on disk, their comparison, their pages.
    &["results"],
    // Floor 5: programs.
    &["serve", "load", "client", "token", "compare"],
    // The lab drives the others.
    &["tune"],
];

/// Modules that may name less than their floor allows: the generator must not share the server's mistakes, a client is built from words alone.
pub(crate) const NARROW: [(&str, &[&str]); 4] = [
    ("results", &["stats", "chart"]),
    ("compare", &["stats", "chart", "results"]),
    ("load", &["limits", "ids", "stats", "chart", "sys", "memory", "ring", "results"]),
    ("client", &["limits", "ids"]),
];

/// What stands at the root of the repository; names with a dot in front are tools' files.
pub(crate) const TOP_LEVEL: [&str; 9] =
    ["Cargo.toml", "Cargo.lock", "LICENSE", "README.md", "src", "benches", "tests", "tuning", "scripts"];
/// What a build or a run leaves there; git ignores it.
pub(crate) const LEFT_BEHIND: [&str; 2] = ["target", "out"];

pub(crate) const FILE_LINES_MAX: usize = 800;
pub(crate) const FUNCTION_LINES_MAX: usize = 70;
pub(crate) const MAIN_LINES_MAX: usize = 79;

/// Where a word may not stand.
pub(crate) struct Ban {
    pub(crate) word: &'static str,
    pub(crate) why: &'static str,
    /// Path beginnings it is banned in.
    pub(crate) within: &'static [&'static str],
    /// Path beginnings inside those where it is allowed.
    pub(crate) except: &'static [&'static str],
    pub(crate) tests: Tests,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tests {
    Too,
    Exempt,
}

const ALL: &[&str] = &["src/", "tests/", "benches/"];
const SRC: &[&str] = &["src/"];
/// Programs talk to people.
const PROGRAMS: &[&str] = &["src/main.rs", "src/serve/", "src/load/", "src/client/", "src/tune/", "src/token.rs", "src/compare.rs"];
/// Code that runs the same under a seed: no clock, no chance, no order that differs from run to run.
const SEEDED: &[&str] = &["src/protocol/", "src/memory/", "src/chat/", "src/mesh/", "src/reactor/"];
/// Maps of names that clients choose.
const CLIENT_KEYS: &[&str] = &["src/chat/", "src/reactor/", "src/mesh/"];
/// Logic without IO.
const PURE: &[&str] = &["src/protocol/", "src/chat/"];

const fn ban(word: &'static str, within: &'static [&'static str], why: &'static str) -> Ban {
    Ban { word, why, within, except: &[], tests: Tests::Too }
}

const fn printing(word: &'static str) -> Ban {
    Ban { word, why: "only programs print; the rest logs or returns", within: SRC, except: PROGRAMS, tests: Tests::Exempt }
}

const fn live(mut ban: Ban) -> Ban {
    ban.tests = Tests::Exempt;
    ban
}

const DEFAULT_HASHER: &str = "keys that clients choose are hashed with the shard's secret key: name the hasher";
const NO_CLOCK: &str = "time comes in as a value, so that a seed replays exactly";
const NO_IO: &str = "rules and decoding have no IO, no clock, no thread and no log line";
const NO_BOUND: &str = "every queue has a bound";

pub(crate) const BANS: &[Ban] = &[
    printing("println!"),
    printing("print!"),
    printing("eprintln!"),
    printing("eprint!"),
    Ban {
        word: "thread::sleep",
        why: "wait for what you wait for, with a deadline",
        within: SRC,
        except: &["src/load/", "src/sys/"],
        tests: Tests::Too,
    },
    live(ban(".unwrap()", SRC, "handle it, or `expect` with the proof")),
    ban("todo!", ALL, "finish it"),
    ban("unimplemented!", ALL, "finish it"),
    ban("dbg!", ALL, "a left-over"),
    live(ban("std::collections::HashMap", CLIENT_KEYS, DEFAULT_HASHER)),
    live(ban("std::collections::HashSet", CLIENT_KEYS, DEFAULT_HASHER)),
    live(ban("HashMap::new(", CLIENT_KEYS, DEFAULT_HASHER)),
    live(ban("HashSet::new(", CLIENT_KEYS, DEFAULT_HASHER)),
    live(ban("HashMap::with_capacity(", CLIENT_KEYS, DEFAULT_HASHER)),
    live(ban("HashSet::with_capacity(", CLIENT_KEYS, DEFAULT_HASHER)),
    live(ban("Instant::now", SEEDED, NO_CLOCK)),
    live(ban("SystemTime::now", SEEDED, NO_CLOCK)),
    live(ban("std::net", PURE, NO_IO)),
    live(ban("std::fs", PURE, NO_IO)),
    live(ban("std::thread", PURE, NO_IO)),
    live(ban("std::time", PURE, NO_IO)),
    live(ban("log::error!", PURE, NO_IO)),
    live(ban("log::warn!", PURE, NO_IO)),
    live(ban("log::info!", PURE, NO_IO)),
    live(ban("log::debug!", PURE, NO_IO)),
    live(ban("log::trace!", PURE, NO_IO)),
    ban("unbounded(", SRC, NO_BOUND),
    ban("unbounded_channel", SRC, NO_BOUND),
    ban("unbounded::<", SRC, NO_BOUND),
    ban("mpsc::channel", SRC, NO_BOUND),
    Ban {
        word: "unsafe",
        why: "unsafe code stands in src/ring and src/sys alone",
        within: SRC,
        except: &["src/ring/", "src/sys/"],
        tests: Tests::Too,
    },
];

pub(crate) fn banned_words(source: &Source) -> Vec<Violation> {
    let mut found = Vec::new();
    for ban in BANS {
        let starts = |list: &[&str]| list.iter().any(|start| source.path.starts_with(start));
        if !starts(ban.within) || starts(ban.except) {
            continue;
        }
        let counts = |at: &usize| ban.tests == Tests::Too || !source.is_test(*at);
        found.extend(source.find(ban.word).filter(counts).map(|at| source.violation(at, format!("{}: {}", ban.word, ban.why))));
    }
    found
}

/// A module names modules of lower floors only.
pub(crate) fn floors(source: &Source) -> Vec<Violation> {
    let Some(own) = module(&source.path) else { return Vec::new() };
    let Some(height) = height(own) else {
        return vec![source.violation(0, format!("{own} stands on no floor: give it one in FLOORS"))];
    };
    let mut found = Vec::new();
    for (at, named) in named_modules(source) {
        // A name that is no module is an item of the crate's root.
        let Some(lower) = self::height(&named) else { continue };
        let narrow = NARROW.iter().find(|(module, _)| *module == own).map(|(_, allowed)| *allowed);
        if named != own && (lower >= height || narrow.is_some_and(|allowed| !allowed.contains(&named.as_str()))) {
            found.push(source.violation(at, format!("{own} may not name {named}")));
        }
    }
    found.extend(reaches_root(source));
    found
}

/// `super::` up to the root would be a way around the floors.
fn reaches_root(source: &Source) -> Vec<Violation> {
    let parts = source.path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod").split('/').count();
    let mut found = Vec::new();
    for at in source.find("super::") {
        let ups = source.code[at..].split("::").take_while(|part| *part == "super").count();
        let first = !source.code[..at].ends_with("super::");
        if first && ups >= parts + source.inline_modules(at) {
            found.push(source.violation(at, "write crate::, so that the floors see it"));
        }
    }
    found
}

fn height(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

/// The module of the crate's root that a file belongs to; the root itself belongs to none.
fn module(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/")?;
    let name = inside.split('/').next()?.trim_end_matches(".rs");
    (name != "main" && name != "lib").then_some(name)
}

/// What stands behind `crate::`, also in braces.
fn named_modules(source: &Source) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for at in source.find("crate::") {
        let rest = at + "crate::".len();
        match source.code.as_bytes().get(rest) {
            Some(b'{') => found.extend(names_in_braces(&source.code, rest).into_iter().map(|name| (at, name))),
            _ => found.push((at, word(&source.code[rest..]))),
        }
    }
    found
}

fn names_in_braces(code: &str, open: usize) -> Vec<String> {
    let close = matching(code, open).unwrap_or(code.len());
    let (mut depth, mut names, mut start) = (0, Vec::new(), open + 1);
    for (i, byte) in code.bytes().enumerate().take(close + 1).skip(open + 1) {
        match byte {
            b'{' => depth += 1,
            b'}' if i != close => depth -= 1,
            b',' | b'}' if depth == 0 => {
                names.push(word(code[start..i].trim_start()));
                start = i + 1;
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn word(text: &str) -> String {
    text.bytes().take_while(|byte| is_word(*byte)).map(char::from).collect()
}

pub(crate) fn file_length(source: &Source) -> Vec<Violation> {
    let lines = source.text.lines().count();
    let most = if source.path == "src/main.rs" { MAIN_LINES_MAX } else { FILE_LINES_MAX };
    if lines <= most { Vec::new() } else { vec![source.violation(0, format!("{lines} lines; at most {most}: split it"))] }
}

pub(crate) fn function_length(source: &Source) -> Vec<Violation> {
    let functions = source.functions().into_iter().filter(|(at, _, lines)| *lines > FUNCTION_LINES_MAX && !in_test_module(source, *at));
    functions.map(|(at, name, lines)| source.violation(at, format!("fn {name}: {lines} lines; at most {FUNCTION_LINES_MAX}"))).collect()
}

/// Tests outside `src` are held to the length of functions too.
fn in_test_module(source: &Source, at: usize) -> bool {
    source.path.starts_with("src/") && source.is_test(at)
}

/// A reader learns from the first lines what a file owns.
pub(crate) fn module_doc(source: &Source) -> Vec<Violation> {
    // The crate's page is ARCHITECTURE.md.
    let exempt = !source.path.starts_with("src/") || source.path == "src/lib.rs";
    if exempt || source.text.starts_with("//! ") { Vec::new() } else { vec![source.violation(0, "begins without its module doc (//!)")] }
}

pub(crate) fn trailing_blanks(source: &Source) -> Vec<Violation> {
    let mut found = Vec::new();
    for (i, line) in source.text.split('\n').enumerate() {
        if line != line.trim_end() {
            found.push(Violation { path: source.path.clone(), line: i + 1, what: "white space at the end".into() });
        }
    }
    if !source.text.is_empty() && (!source.text.ends_with('\n') || source.text.ends_with("\n\n")) {
        found.push(Violation { path: source.path.clone(), line: source.text.lines().count(), what: "ends in one line end".into() });
    }
    found
}

/// Each dependency says why it is there, on its line or the one above.
pub(crate) fn dependency_reasons(manifest: &Source) -> Vec<Violation> {
    let lines: Vec<&str> = manifest.text.lines().collect();
    let (mut inside, mut found) = (false, Vec::new());
    for (i, line) in lines.iter().enumerate() {
        if line.starts_with('[') {
            inside = line.trim_end().ends_with("dependencies]");
            continue;
        }
        let is_entry = inside && line.as_bytes().first().is_some_and(|byte| is_word(*byte));
        let above = i.checked_sub(1).is_some_and(|above| lines[above].starts_with("# "));
        if is_entry && !above && !line.contains(" # ") {
            let name = line.split([' ', '=']).next().unwrap_or_default();
            found.push(Violation { path: manifest.path.clone(), line: i + 1, what: format!("{name} gives no reason for being there") });
        }
    }
    found
}

/// The root holds what everybody expects there and nothing else.
pub(crate) fn top_level(names: &[String]) -> Vec<Violation> {
    let known = |name: &str| name.starts_with('.') || TOP_LEVEL.contains(&name) || LEFT_BEHIND.contains(&name);
    let strangers = names.iter().filter(|name| !known(name));
    strangers.map(|name| Violation { path: name.clone(), line: 0, what: "does not belong at the root".into() }).collect()
}
