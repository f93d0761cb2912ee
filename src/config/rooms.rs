//! `[[rooms]]`: rooms that differ from the rest, chosen by pattern of their names.
//!
//! The one part of the file that is a list: each table is one [`RoomRule`], and of those that match a room the first counts. Everything else is in
//! the table of keys. Reading names the place of whatever is wrong; the caller turns it into a line.

use std::fmt::Write;

use toml::de::DeValue;
use toml::{Spanned, de::DeTable};

use super::file::nearest;
use super::print::comment;
use super::slot::{Word, choices, quoted, shown};
use super::{ConfigError, Settings, SlowReader};
use crate::ids::RoomPattern;

/// One table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomRule {
    /// A room's name, or the beginning of one and a `*`. Never an inbox's.
    pub pattern: RoomPattern,
    pub slow_reader: SlowReader,
}

pub(super) const SECTION: &str = "rooms";
/// Looked through once for each room of a shard that gets its first member.
const RULES_MAX: usize = 64;
const KEYS: [&str; 2] = ["pattern", "slow_reader"];

/// What is wrong with a table, and where in the text.
pub(super) struct Wrong {
    pub(super) at: usize,
    pub(super) key: String,
    pub(super) why: String,
}

/// The rule of this index, as errors name it.
pub(super) fn path(index: usize) -> String {
    format!("{SECTION}[{index}]")
}

/// All tables, each with its place in the text.
pub(super) fn read(value: &Spanned<DeValue<'_>>) -> Result<Vec<(usize, RoomRule)>, Wrong> {
    let wrong = |at, why: &str| Wrong { at, key: SECTION.into(), why: why.into() };
    let Some(list) = value.get_ref().as_array() else {
        return Err(wrong(value.span().start, "is a list of tables: write [[rooms]] on a line of its own, above each"));
    };
    let mut rules = Vec::new();
    for item in list.iter() {
        let at = item.span().start;
        let Some(table) = item.get_ref().as_table() else { return Err(wrong(at, "must hold tables: write [[rooms]] above each")) };
        rules.push((at, read_one(at, table)?));
    }
    Ok(rules)
}

fn read_one(at: usize, table: &DeTable<'_>) -> Result<RoomRule, Wrong> {
    let (mut pattern, mut slow_reader) = (None, SlowReader::Stall);
    let mut chosen = false;
    for (name, value) in table {
        let key = format!("{SECTION}.{}", name.get_ref());
        let text = value.get_ref().as_str();
        match name.get_ref().as_ref() {
            "pattern" => {
                let read = text.and_then(RoomPattern::parse).filter(|_| text.is_none_or(|text| !text.starts_with('@')));
                let why =
                    || format!("must be a room's name, or the beginning of one and a *, like \"game:*\", not {}", shown(value.get_ref()));
                pattern = Some(read.ok_or_else(|| Wrong { at: value.span().start, key, why: why() })?);
            }
            "slow_reader" => {
                chosen = text.is_some_and(|text| slow_reader.set(text));
                if !chosen {
                    let why = format!("must be {}, not {}", choices(&slow_reader), shown(value.get_ref()));
                    return Err(Wrong { at: value.span().start, key, why });
                }
            }
            other => {
                let why = match nearest(other, KEYS.into_iter()) {
                    Some(near) => format!("no such key; did you mean {near}?"),
                    None => format!("no such key; [[{SECTION}]] has {}", KEYS.join(", ")),
                };
                return Err(Wrong { at: name.span().start, key, why });
            }
        }
    }
    let missing = |name: &str| Wrong { at, key: format!("{SECTION}.{name}"), why: "is missing: each [[rooms]] needs it".into() };
    let pattern = pattern.ok_or_else(|| missing("pattern"))?;
    if chosen { Ok(RoomRule { pattern, slow_reader }) } else { Err(missing("slow_reader")) }
}

/// Appends the tables in force, or an example that is a comment.
pub(super) fn print(rules: &[RoomRule], out: &mut String) {
    out.push('\n');
    let about = format!(
        "Rooms that differ, at most {RULES_MAX} tables: `pattern` is a room's name, or the beginning of one and a *; the first that matches a room counts. `slow_reader` is as under [queues] ({}). Inboxes are not matched.",
        choices(&SlowReader::Stall)
    );
    comment(out, &about);
    if rules.is_empty() {
        out.push_str("# [[rooms]]\n# pattern = \"game:*\"\n# slow_reader = \"drop_oldest\"\n");
    }
    for (i, RoomRule { pattern, slow_reader }) in rules.iter().enumerate() {
        out.push_str(if i == 0 { "" } else { "\n" });
        let _ = writeln!(out, "[[{SECTION}]]\npattern = {}\nslow_reader = {}", quoted(&pattern.to_string()), quoted(slow_reader.get()));
    }
}

impl Settings {
    pub(super) fn check_rooms(&self) -> Result<(), ConfigError> {
        if self.rooms.len() > RULES_MAX {
            return Err(ConfigError::of_key(path(RULES_MAX), format!("there are at most {RULES_MAX} of them")));
        }
        for (index, rule) in self.rooms.iter().enumerate() {
            if self.rooms[..index].iter().any(|before| before.pattern == rule.pattern) {
                return Err(ConfigError::of_key(path(index), format!("names \"{}\" a second time, and the first counts", rule.pattern)));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::{Flags, parse};

    fn refused(text: &str) -> String {
        parse("f", text, &Flags::default()).unwrap_err().to_string()
    }

    #[test]
    fn tables_are_read_in_their_order() {
        let text = "[[rooms]]\npattern = \"game:*\"\nslow_reader = \"drop_oldest\"\n[queues]\nslow_reader = \"close\"\n\
                    [[rooms]]\nslow_reader = \"stall\"\npattern = \"lobby\"\n";
        let settings = parse("f", text, &Flags::default()).unwrap();
        let read: Vec<(String, SlowReader)> = settings.rooms.iter().map(|rule| (rule.pattern.to_string(), rule.slow_reader)).collect();
        assert_eq!(read, [("game:*".into(), SlowReader::DropOldest), ("lobby".into(), SlowReader::Stall)]);
        assert_eq!(settings.queues.slow_reader, SlowReader::Close);
    }

    #[test]
    fn whatever_is_wrong_with_a_table_names_its_line() {
        let cases = [
            ("[[rooms]]\npatern = \"a\"", "f:2: rooms.patern: no such key; did you mean pattern?"),
            ("[[rooms]]\ncolour = 1", "f:2: rooms.colour: no such key; [[rooms]] has pattern, slow_reader"),
            ("[[rooms]]\npattern = \"a b\"", "f:2: rooms.pattern: must be a room's name"),
            ("[[rooms]]\npattern = \"@bob\"", "f:2: rooms.pattern: must be a room's name"),
            ("[[rooms]]\npattern = 1", "f:2: rooms.pattern: must be a room's name"),
            (
                "[[rooms]]\npattern = \"a\"\nslow_reader = \"drop\"",
                "f:3: rooms.slow_reader: must be \"stall\" or \"close\" or \"drop_oldest\", not \"drop\"",
            ),
            ("\n[[rooms]]\npattern = \"a\"", "f:2: rooms.slow_reader: is missing"),
            ("\n[[rooms]]\nslow_reader = \"stall\"", "f:2: rooms.pattern: is missing"),
            ("[rooms]\npattern = \"a\"", "f:1: rooms: is a list of tables"),
            ("rooms = [1]", "f:1: rooms: must hold tables"),
            ("[[room]]\npattern = \"a\"", "f:1: room: no such section; did you mean [rooms]?"),
        ];
        for (text, start) in cases {
            assert!(refused(text).starts_with(start), "{text:?}: {}", refused(text));
        }
        let twice = "[[rooms]]\npattern = \"a\"\nslow_reader = \"stall\"\n".repeat(2);
        assert!(refused(&twice).starts_with("f:4: rooms[1]: names \"a\" a second time"), "{}", refused(&twice));
        let many: String = (0..=RULES_MAX).map(|n| format!("[[rooms]]\npattern = \"r{n}\"\nslow_reader = \"stall\"\n")).collect();
        assert!(refused(&many).starts_with("f:193: rooms[64]: there are at most 64"), "{}", refused(&many));
    }
}
