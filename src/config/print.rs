//! Writing: settings as a file that explains itself and reads as the same settings.
//!
//! What `--print-config` shows. Each key stands under its meaning, default, range and the cost of raising it; the value is the one in force, so
//! the output of a running set-up can be kept as its config file.

use std::fmt::Write;

use super::keys::{KEYS, KeySpec, SECTIONS};
use super::{Settings, rooms};

const WIDTH: usize = 110;

/// The whole file.
pub fn print(settings: &Settings) -> String {
    // The table's slots borrow mutably; the copies keep the caller's settings out of reach.
    let (mut now, mut default) = (settings.clone(), Settings::default());
    let mut out = String::from("# ringroom: every setting. Flags of `ringroom serve` win over this file.\n");
    for (section, about) in SECTIONS {
        let _ = write!(out, "\n# {about}\n[{section}]\n");
        for (i, spec) in KEYS.iter().filter(|spec| spec.section == section).enumerate() {
            out.push_str(if i == 0 { "" } else { "\n" });
            let default = (spec.slot)(&mut default).print();
            let slot = (spec.slot)(&mut now);
            comment(&mut out, spec.meaning);
            comment(&mut out, &bounds(spec, &default, slot.allowed()));
            let _ = writeln!(out, "{} = {}", spec.name, slot.print());
        }
    }
    rooms::print(&settings.rooms, &mut out);
    out
}

fn bounds(spec: &KeySpec, default: &str, allowed: Option<String>) -> String {
    let mut text = format!("Default: {default}.");
    if let Some(allowed) = allowed {
        let _ = write!(text, " Allowed: {allowed}.");
    }
    if !spec.cost.is_empty() {
        let _ = write!(text, " Cost of more: {}", spec.cost);
    }
    if spec.reloads() {
        text.push_str(" SIGHUP: a running server takes a new value.");
    }
    text
}

pub(super) fn comment(out: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split(' ') {
        if line.len() + word.len() >= WIDTH {
            out.push_str(&line);
            out.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    out.push_str(&line);
    out.push('\n');
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::{Flags, RoomRule, SlowReader, parse};
    use crate::ids::RoomPattern;

    fn unusual() -> Settings {
        let mut settings = Settings::default();
        settings.server.listen = vec!["[::1]:1".parse().unwrap(), "10.0.0.1:7000".parse().unwrap()];
        settings.server.cpus = vec![5, 0, 1, 2];
        settings.server.shards = 3;
        settings.server.node = "a.b-c:1".into();
        settings.server.proxies = ["10.0.0.0/8", "::1"].map(|text| crate::config::Network::parse(text).unwrap()).to_vec();
        settings.auth.insecure_open = true;
        settings.auth.keys = vec!["a.pem".into(), "b \"c\".pem".into()];
        settings.auth.leeway_s = 0;
        settings.limits.heartbeat_ms = 1_234;
        settings.queues.soft_mark_bytes = 4_096;
        settings.ring.buffers = 64;
        settings.log.level = log::LevelFilter::Trace;
        let rule = |pattern, slow_reader| RoomRule { pattern: RoomPattern::parse(pattern).unwrap(), slow_reader };
        settings.rooms = vec![rule("game:lobby", SlowReader::Stall), rule("game:*", SlowReader::DropOldest), rule("*", SlowReader::Close)];
        settings
    }

    #[test]
    fn what_is_printed_reads_as_the_same_settings() {
        for settings in [Settings::default(), unusual()] {
            let text = print(&settings);
            assert_eq!(parse("printed", &text, &Flags::default()).as_ref(), Ok(&settings), "{text}");
        }
    }

    /// The derived `Debug` names every field, so a field without a row in the table is found.
    #[test]
    fn every_field_of_the_settings_is_a_key_of_the_table() {
        let debug = format!("{:#?}", Settings::default());
        let field = |line: &str, depth: usize| -> Option<String> {
            let rest = line.strip_prefix(&" ".repeat(depth))?;
            let name = rest.split_once(':')?.0;
            name.starts_with(|c: char| c.is_ascii_lowercase()).then(|| name.to_owned())
        };
        let (mut section, mut fields) = (String::new(), Vec::new());
        for line in debug.lines() {
            if let Some(name) = field(line, 4) {
                section = name;
            } else if let Some(name) = field(line, 8) {
                fields.push(format!("{section}.{name}"));
            }
        }
        let keys: Vec<String> = KEYS.iter().map(KeySpec::path).collect();
        assert!(fields.len() > 30, "{fields:?}");
        assert_eq!(fields, keys);
    }

    #[test]
    fn every_key_stands_under_its_meaning_and_default() {
        let text = print(&Settings::default());
        for spec in KEYS {
            let value = (spec.slot)(&mut Settings::default()).print();
            let (before, _) = text.split_once(&format!("\n{} = {value}\n", spec.name)).unwrap();
            let above = before.rsplit("\n\n").next().unwrap().replace("\n# ", " ");
            assert!(above.contains(spec.meaning) && above.contains(&format!("Default: {value}.")), "{}: {above}", spec.name);
        }
        assert!(text.lines().all(|line| line.len() <= WIDTH && line.trim_end() == line));
    }
}
