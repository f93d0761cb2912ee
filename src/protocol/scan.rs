//! Walks over one JSON object and reports where its members stand, in one pass and without allocating.
//!
//! It accepts exactly the grammar of RFC 8259, as `serde_json` does for values that it skips (a differential test
//! holds the two together), with one bound more: nesting. It checks every byte of the text, but keeps nothing:
//! members go to the caller as ranges, in the order written, each one as soon as the delimiter behind it was seen. So
//! a member that was reported is whole even when the text turns out to be broken further on.
//!
//! Recursion is bounded by [`JSON_DEPTH_MAX`], so no text can exhaust the stack. Ranges begin and end at ASCII
//! characters, so they always are valid places to cut the text.

use std::ops::Range;

use crate::limits::JSON_DEPTH_MAX;

/// Why a text is not one JSON object: the rule that it breaks, for a person to read.
pub(super) type Broken = &'static str;

const SYNTAX: Broken = "not JSON";
const NOT_AN_OBJECT: Broken = "not a JSON object";
const TRAILING: Broken = "more than one JSON object";
const TOO_DEEP: Broken = "nested deeper than 16";
const CONTROL: Broken = "a control character, an unknown escape or no end in a string";

const _: () = assert!(JSON_DEPTH_MAX == 16, "the text of TOO_DEEP names the bound");

/// A member of the outer object: its key with the quotes, and its value without the white space around it.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) key: Range<usize>,
    pub(super) value: Range<usize>,
}

/// Walks over `text`, which has to be one object with nothing but white space around it.
pub(super) fn object(text: &str, mut each: impl FnMut(Member) -> Result<(), Broken>) -> Result<(), Broken> {
    let mut scanner = Scanner { bytes: text.as_bytes(), at: 0 };
    scanner.white_space();
    if scanner.next() != Some(b'{') {
        return Err(NOT_AN_OBJECT);
    }
    scanner.members(1, &mut each)?;
    scanner.white_space();
    if scanner.at == text.len() { Ok(()) } else { Err(TRAILING) }
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn white_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// From behind `{` to behind its `}`. `depth` counts this object.
    fn members<F: FnMut(Member) -> Result<(), Broken>>(&mut self, depth: usize, each: &mut F) -> Result<(), Broken> {
        self.white_space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            let key_start = self.at;
            if self.next() != Some(b'"') {
                return Err(SYNTAX);
            }
            self.string()?;
            let key = key_start..self.at;
            self.white_space();
            if self.next() != Some(b':') {
                return Err(SYNTAX);
            }
            self.white_space();
            let value_start = self.at;
            self.value(depth)?;
            let value = value_start..self.at;
            self.white_space();
            let delimiter = self.next();
            if !matches!(delimiter, Some(b',' | b'}')) {
                return Err(SYNTAX);
            }
            each(Member { key, value })?;
            if delimiter == Some(b'}') {
                return Ok(());
            }
            self.white_space();
        }
    }

    /// From behind `[` to behind its `]`. `depth` counts this array.
    fn elements(&mut self, depth: usize) -> Result<(), Broken> {
        self.white_space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.value(depth)?;
            self.white_space();
            match self.next() {
                Some(b',') => self.white_space(),
                Some(b']') => return Ok(()),
                _ => return Err(SYNTAX),
            }
        }
    }

    /// One value inside `depth` open brackets.
    fn value(&mut self, depth: usize) -> Result<(), Broken> {
        match self.next() {
            Some(b'"') => self.string(),
            Some(b'{') if depth < JSON_DEPTH_MAX => self.members(depth + 1, &mut |_| Ok(())),
            Some(b'[') if depth < JSON_DEPTH_MAX => self.elements(depth + 1),
            Some(b'{' | b'[') => Err(TOO_DEEP),
            Some(b't') => self.literal(b"rue"),
            Some(b'f') => self.literal(b"alse"),
            Some(b'n') => self.literal(b"ull"),
            Some(b'-') => match self.next() {
                Some(digit @ b'0'..=b'9') => self.number(digit),
                _ => Err(SYNTAX),
            },
            Some(digit @ b'0'..=b'9') => self.number(digit),
            _ => Err(SYNTAX),
        }
    }

    fn literal(&mut self, rest: &[u8]) -> Result<(), Broken> {
        if !self.bytes[self.at..].starts_with(rest) {
            return Err(SYNTAX);
        }
        self.at += rest.len();
        Ok(())
    }

    /// From behind a number's first digit. A digit behind a leading zero is left for the caller, to whom it is no
    /// delimiter.
    fn number(&mut self, first: u8) -> Result<(), Broken> {
        if first != b'0' {
            self.digits();
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits_at_least_one()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits_at_least_one()?;
        }
        Ok(())
    }

    fn digits(&mut self) {
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
    }

    fn digits_at_least_one(&mut self) -> Result<(), Broken> {
        let start = self.at;
        self.digits();
        if self.at > start { Ok(()) } else { Err(SYNTAX) }
    }

    /// From behind the opening quote to behind the closing one.
    fn string(&mut self) -> Result<(), Broken> {
        loop {
            self.at = plain_end(self.bytes, self.at);
            match self.next() {
                Some(b'"') => return Ok(()),
                Some(b'\\') => self.escape()?,
                _ => return Err(CONTROL),
            }
        }
    }

    /// Whether a `\u` escape is half of a surrogate pair is only asked of texts that are decoded.
    fn escape(&mut self) -> Result<(), Broken> {
        match self.next() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(()),
            Some(b'u') => match self.bytes.get(self.at..self.at + 4) {
                Some(digits) if digits.iter().all(u8::is_ascii_hexdigit) => {
                    self.at += 4;
                    Ok(())
                }
                _ => Err(CONTROL),
            },
            _ => Err(CONTROL),
        }
    }
}

/// The first place from `at` on that does not stand for itself in a string: a quote, a backslash or a control.
#[inline]
fn plain_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some(word) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
        let stops = stops(u64::from_le_bytes(*word));
        if stops != 0 {
            return at + stops.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while bytes.get(at).is_some_and(|&byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
        at += 1;
    }
    at
}

/// The high bit of each byte that ends a run of plain ones. Exact for the lowest such byte, which is the only one
/// asked for: a subtraction borrows from the byte above only where it has found one.
fn stops(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    let equal = |byte: u8| {
        let difference = word ^ (ONES * u64::from(byte));
        difference.wrapping_sub(ONES) & !difference
    };
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    (control | equal(b'"') | equal(b'\\')) & (ONES << 7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_of_plain_bytes_ends_where_a_byte_by_byte_search_says() {
        let special = |byte: u8| byte < 0x20 || byte == b'"' || byte == b'\\';
        for byte in 0..=255u8 {
            for at in 0..20 {
                for filler in [b'a', 0x20, 0x21, 0x23, 0x5b, 0x5d, 0x7f, 0x80, 0xff] {
                    let mut bytes = [filler; 20];
                    bytes[at] = byte;
                    let expected = if special(byte) { at } else { 20 };
                    assert_eq!(plain_end(&bytes, 0), expected, "byte {byte:#x} at {at} among {filler:#x}");
                }
            }
        }
    }

    #[test]
    fn a_member_is_reported_only_with_its_delimiter() {
        let mut seen = Vec::new();
        let text = r#"{"a":1 ,"b":23"#;
        let result = object(text, |member| {
            seen.push((text[member.key].to_owned(), text[member.value].to_owned()));
            Ok(())
        });
        assert_eq!(result, Err(SYNTAX));
        assert_eq!(seen, [("\"a\"".to_owned(), "1".to_owned())]);
    }
}
