//! What stands in front of a message's body, built once; while messages are due only the digits of a name are patched.

use crate::load::names::{NUMBER_DIGITS, Names};

/// Bytes with a name in them.
#[derive(Debug)]
struct Head {
    bytes: Vec<u8>,
    /// Where the digits of the name begin.
    digits: usize,
}

impl Head {
    fn new(bytes: Vec<u8>, name: &str) -> Self {
        let name_at = bytes.windows(name.len()).rposition(|bytes| bytes == name.as_bytes()).expect("a head holds the name it was made for");
        Self { digits: name_at + name.len() - NUMBER_DIGITS, bytes }
    }
}

/// The heads of messages to rooms and to inboxes.
#[derive(Debug)]
pub(super) struct Heads {
    room: Head,
    inbox: Head,
}

impl Heads {
    /// `build` makes the head of a message to a name.
    pub(super) fn new(names: &Names, build: impl Fn(&str) -> Vec<u8>) -> Self {
        let head = |name: String| Head::new(build(&name), &name);
        // A run without rooms has only inboxes; the head of rooms is then never used.
        Self { room: head(Names::new(names.run(), 1).room(0)), inbox: head(names.room(names.inbox(0))) }
    }

    /// Appends the head of a message to a room or inbox.
    pub(super) fn write(&self, names: &Names, number: u32, out: &mut Vec<u8>) {
        let head = if names.is_inbox(number) { &self.inbox } else { &self.room };
        let start = out.len();
        out.extend_from_slice(&head.bytes);
        out[start + head.digits..][..NUMBER_DIGITS].copy_from_slice(&names.digits(number));
    }
}

/// Appends a number in decimal digits.
pub(super) fn write_number(number: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// A text of decimal digits alone, at most nine of them: more announces what no peer may send.
pub(super) fn read_number(text: &[u8]) -> Option<usize> {
    if text.is_empty() || text.len() > 9 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(text.iter().fold(0, |number, digit| number * 10 + usize::from(digit - b'0')))
}

/// The line at the front without its end (CR LF), and how many bytes it takes; `None` while it is incomplete.
pub(super) fn line(bytes: &[u8], most: usize) -> Result<Option<(&[u8], usize)>, super::Broken> {
    let seen = &bytes[..bytes.len().min(most)];
    match seen.iter().position(|byte| *byte == b'\n') {
        Some(end) if end > 0 && bytes[end - 1] == b'\r' => Ok(Some((&bytes[..end - 1], end + 1))),
        Some(_) => Err(super::Broken("a line that does not end in CR LF".into())),
        None if seen.len() == most => Err(super::Broken(format!("a line of more than {most} bytes"))),
        None => Ok(None),
    }
}

/// What a peer said, fit to be printed.
pub(super) fn printable(text: &[u8]) -> String {
    String::from_utf8_lossy(text).escape_debug().take(200).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::super::names::RunId;
    use super::*;

    #[test]
    fn heads_name_the_room_or_inbox_they_are_for() {
        for rooms in [0, 1, 50] {
            let names = Names::new(RunId::new(12_345_678), rooms);
            let heads = Heads::new(&names, |name| format!("PUB {name} ").into_bytes());
            for number in (0..rooms).chain([rooms, rooms + 7]) {
                let mut out = b"before".to_vec();
                heads.write(&names, number, &mut out);
                assert_eq!(out, format!("beforePUB {} ", names.room(number)).into_bytes());
            }
        }
    }

    #[test]
    fn numbers_are_digits_and_nothing_else() {
        for number in [0, 7, 61_440, 999_999_999] {
            let mut text = Vec::new();
            write_number(number, &mut text);
            assert_eq!(read_number(&text), Some(number));
        }
        for text in ["", "-1", "+1", " 1", "1 ", "1a", "1000000000"] {
            assert_eq!(read_number(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_line_ends_in_both_bytes_and_has_a_bound() {
        assert_eq!(line(b"ab\r\nrest", 10).unwrap(), Some((&b"ab"[..], 4)));
        assert_eq!(line(b"ab\r", 10).unwrap(), None);
        assert!(line(b"ab\n", 10).is_err() && line(b"\n", 10).is_err());
        assert!(line(b"0123456789", 10).is_err() && line(b"0123456789\r\n", 10).is_err());
    }
}
