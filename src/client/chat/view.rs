//! How things look on a terminal: pure texts.
//!
//! What others wrote never reaches the terminal as control characters: those, and the marks that turn the direction of writing, are shown escaped; a
//! second line of a message is set off, so that nobody can write a line that looks like another person's.

use std::fmt::Write;

use chrono::{Local, TimeZone};

use crate::client::event::Message;

/// Whether escape sequences of our own are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Colour,
}

const DIM: u8 = 2;
const YELLOW: u8 = 33;
const MAGENTA: u8 = 35;
/// Readable on dark and on light.
const NAMES: [u8; 5] = [31, 32, 34, 36, 95];

impl Style {
    /// Colours unless the environment says no (no-color.org) or the terminal has none.
    pub(super) fn of_environment() -> Self {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let refused = set("NO_COLOR").is_some() || set("TERM").is_none_or(|term| term == "dumb");
        if refused { Style::Plain } else { Style::Colour }
    }

    fn paint(self, code: u8, text: &str) -> String {
        match self {
            Style::Plain => text.to_owned(),
            Style::Colour => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }

    /// A remark of the program's own.
    pub(super) fn remark(self, text: &str) -> String {
        self.paint(YELLOW, &format!("* {text}"))
    }

    /// Somebody's message. `me` is the user who reads it.
    pub(super) fn message(self, message: &Message, me: &str) -> String {
        let time = self.paint(DIM, &time(message.ts));
        let text = message.text().map_or_else(|| escape(message.body.get()), |text| escape(&text));
        let from = escape(&message.from);
        if message.room.strip_prefix('@') == Some(me) {
            let head = self.paint(MAGENTA, &format!("[{from} -> you]"));
            return format!("{time} {head} {text}");
        }
        let room = self.paint(DIM, &escape(&message.room));
        format!("{time} {room} {}: {text}", self.name(&from))
    }

    /// What one wrote to one person.
    pub(super) fn direct(self, to: &str, text: &str) -> String {
        self.paint(MAGENTA, &format!("[you -> {to}] {}", escape(text)))
    }

    /// The same name has the same colour, today and tomorrow.
    fn name(self, name: &str) -> String {
        let sum = name.bytes().fold(7_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        self.paint(NAMES[sum % NAMES.len()], name)
    }
}

/// The local time of day, with the date if that is not today.
fn time(unix_ms: u64) -> String {
    let time = i64::try_from(unix_ms).ok().and_then(|ms| Local.timestamp_millis_opt(ms).single());
    let Some(time) = time else { return "--:--".into() };
    let format = if time.date_naive() == Local::now().date_naive() { "%H:%M" } else { "%Y-%m-%d %H:%M" };
    time.format(format).to_string()
}

/// Text of others, made harmless.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (index, line) in text.trim_end_matches(['\r', '\n']).split('\n').enumerate() {
        if index > 0 {
            out.push_str("\n      | ");
        }
        for c in line.strip_suffix('\r').unwrap_or(line).chars() {
            match c {
                '\t' => out.push_str("    "),
                c if c.is_control() || turns_direction(c) => {
                    write!(out, "{}", c.escape_unicode()).expect("a string takes everything");
                }
                c => out.push(c),
            }
        }
    }
    out
}

/// Marks that make text show in another order than it is in (Unicode TR 36), and separators that some terminals break lines at.
fn turns_direction(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// A message as one line of JSON. Its body may hold line ends between its parts, never inside a string.
pub(super) fn json_line(message: &Message) -> String {
    let line = serde_json::to_string(message).expect("strings, numbers and checked JSON always serialize");
    line.replace(['\n', '\r'], " ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use serde_json::value::RawValue;

    fn message(room: &str, body: &str) -> Message {
        let body = RawValue::from_string(body.into()).unwrap();
        Message { room: room.into(), at: Some("1.2-0".into()), from: "bob".into(), ts: 0, body }
    }

    #[test]
    fn nobody_elses_bytes_steer_the_terminal() {
        let evil = message("r", "{\"text\":\"a\\u001b[2J\\u0007b\\r\\n12:00 r alice: fake\\u202e\\u009b1m\"}");
        let shown = Style::Plain.message(&evil, "me");
        assert!(shown.chars().all(|c| c == '\n' || !c.is_control()), "{shown:?}");
        assert!(shown.contains("a\\u{1b}[2J\\u{7}b\n      | 12:00 r alice: fake\\u{202e}\\u{9b}1m"), "{shown}");
        let evil = message("r", "{\"x\": \n\"\u{7f}\"}");
        assert!(!Style::Plain.message(&evil, "me").contains('\u{7f}'));
    }

    #[test]
    fn a_body_of_another_shape_is_shown_as_it_is() {
        for body in ["{\"text\":1}", "[1,2]", "{\"text\":\"a\",\"b\":1}", "\"text\""] {
            assert!(Style::Plain.message(&message("r", body), "me").ends_with(&format!(" r bob: {body}")));
        }
        assert!(Style::Plain.message(&message("@me", "{\"text\":\"hi\"}"), "me").ends_with(" [bob -> you] hi"));
    }

    #[test]
    fn colours_are_ours_alone() {
        assert!(!Style::Plain.message(&message("r", "1"), "me").contains('\x1b'));
        assert!(Style::Colour.message(&message("r", "1"), "me").contains("\x1b[0m"));
    }

    #[test]
    fn a_json_line_is_one_line() {
        let line = json_line(&message("r", "{ \"a\":\n\r1 }"));
        assert_eq!(line, "{\"room\":\"r\",\"at\":\"1.2-0\",\"from\":\"bob\",\"ts\":0,\"body\":{ \"a\":  1 }}");
    }
}
