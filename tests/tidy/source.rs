//! A source file as the rules see it: the text, the same text with comments and literals blanked out, and which of it is test code.
//!
//! Not a parser: a scanner that knows comments, strings, characters and matching brackets. Offsets and lines are the same in both texts.

use std::ops::Range;

/// One file of the repository.
#[derive(Debug)]
pub(crate) struct Source {
    /// From the root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
    /// `text` with every byte of a comment or a literal replaced by a blank, line ends kept.
    pub(crate) code: String,
    /// Items under `#[cfg(test)]`, as offsets.
    pub(crate) tests: Vec<Range<usize>>,
}

/// A rule broken at a line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) path: String,
    pub(crate) line: usize,
    pub(crate) what: String,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let code = blank(text);
        let tests = test_items(&code);
        Self { path: path.into(), text: text.into(), code, tests }
    }

    pub(crate) fn line(&self, offset: usize) -> usize {
        1 + self.text.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count()
    }

    pub(crate) fn violation(&self, offset: usize, what: impl Into<String>) -> Violation {
        Violation { path: self.path.clone(), line: self.line(offset), what: what.into() }
    }

    /// Under `#[cfg(test)]`, in a file of tests, or outside `src`.
    pub(crate) fn is_test(&self, offset: usize) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        !self.path.starts_with("src/")
            || name == "tests.rs"
            || name.ends_with("_tests.rs")
            || self.tests.iter().any(|range| range.contains(&offset))
    }

    /// Offsets of `pattern` in the code, not as a part of a longer word.
    pub(crate) fn find(&self, pattern: &str) -> impl Iterator<Item = usize> {
        let code = self.code.as_bytes();
        let (starts, ends) = (pattern.as_bytes()[0], pattern.as_bytes()[pattern.len() - 1]);
        self.code.match_indices(pattern).map(|(at, _)| at).filter(move |&at| {
            let before = at.checked_sub(1).map_or(b' ', |i| code[i]);
            let after = code.get(at + pattern.len()).copied().unwrap_or(b' ');
            let joined = is_word(starts) && is_word(before) || is_word(ends) && is_word(after);
            !joined
        })
    }

    /// Functions with a body: the offset of `fn`, the name and the number of lines.
    pub(crate) fn functions(&self) -> Vec<(usize, String, usize)> {
        let mut found = Vec::new();
        for at in self.find("fn") {
            let name: String = self.code[at + 2..].trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            // `fn(u8)` is a type.
            if name.is_empty() {
                continue;
            }
            if let Some(end) = item_end(&self.code, at)
                && self.code.as_bytes()[end - 1] == b'}'
            {
                found.push((at, name, self.line(end - 1) - self.line(at) + 1));
            }
        }
        found
    }

    /// How many inline modules stand around an offset.
    pub(crate) fn inline_modules(&self, offset: usize) -> usize {
        let modules = self.find("mod").filter_map(|at| item_end(&self.code, at).map(|end| at..end));
        modules.filter(|range| range.contains(&offset)).count()
    }
}

/// Where the item that starts at `from` ends: behind its body, or behind its semicolon.
pub(crate) fn item_end(code: &str, from: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (i, byte) in code.bytes().enumerate().skip(from) {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth = depth.checked_sub(1)?,
            b';' if depth == 0 => return Some(i + 1),
            b'{' if depth == 0 => return matching(code, i).map(|end| end + 1),
            _ => {}
        }
    }
    None
}

/// The bracket that closes the one at `open`.
pub(crate) fn matching(code: &str, open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (i, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' | b'(' | b'[' => depth += 1,
            b'}' | b')' | b']' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(i);
                }
            }
            _ => {}
        }
    }
    None
}

pub(crate) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn test_items(code: &str) -> Vec<Range<usize>> {
    let attributes = code.match_indices("#[cfg(").filter_map(|(at, _)| {
        let end = matching(code, at + 1)?;
        let condition = &code[at + 6..end];
        let words: Vec<&str> = condition.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        (words.contains(&"test") && !words.contains(&"not") && !words.contains(&"any")).then_some((at, end + 1))
    });
    attributes.filter_map(|(at, behind)| item_end(code, skip_attributes(code, behind)).map(|end| at..end)).collect()
}

fn skip_attributes(code: &str, mut from: usize) -> usize {
    loop {
        let blanks = code[from..].len() - code[from..].trim_start().len();
        from += blanks;
        if !code[from..].starts_with("#[") {
            return from;
        }
        match matching(code, from + 1) {
            Some(end) => from = end + 1,
            None => return from,
        }
    }
}

/// Blanks out comments and literals.
pub(crate) fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_end(bytes, at);
        for byte in &mut out[at..end] {
            *byte = if *byte == b'\n' { b'\n' } else { b' ' };
        }
        // Outside of literals one byte at a time; the byte stays as it is.
        if end == at {
            at += 1;
        } else {
            at = end;
        }
    }
    String::from_utf8(out).expect("literals begin and end at ASCII bytes, and are blanked as a whole")
}

/// The end of the comment or literal that begins at `at`; `at` itself when none does.
fn literal_end(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let inside_word = at > 0 && is_word(bytes[at - 1]);
    let length = match rest {
        [b'/', b'/', ..] => rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()),
        [b'/', b'*', ..] => block_comment(rest),
        [b'"', ..] => 1 + string(&rest[1..]),
        [b'b' | b'c', b'"', ..] if !inside_word => 2 + string(&rest[2..]),
        [b'b', b'\'', ..] if !inside_word => 1 + character(&rest[1..]),
        [b'r', b'"' | b'#', ..] if !inside_word => raw_string(rest, 1),
        [b'b' | b'c', b'r', b'"' | b'#', ..] if !inside_word => raw_string(rest, 2),
        [b'\'', ..] => character(rest),
        _ => 0,
    };
    at + length
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut i) = (0, 0);
    while i < rest.len() {
        match rest[i..] {
            [b'/', b'*', ..] => (depth, i) = (depth + 1, i + 2),
            [b'*', b'/', ..] => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            break;
        }
    }
    i
}

/// Bytes up to and with the closing quote.
fn string(inside: &[u8]) -> usize {
    let mut i = 0;
    while i < inside.len() {
        match inside[i] {
            b'\\' => i += 2,
            b'"' => return i + 1,
            _ => i += 1,
        }
    }
    inside.len()
}

fn raw_string(rest: &[u8], prefix: usize) -> usize {
    let hashes = rest[prefix..].iter().take_while(|byte| **byte == b'#').count();
    let open = prefix + hashes;
    // `r#name` is a word, not a string.
    if rest.get(open) != Some(&b'"') {
        return 0;
    }
    let mut close = vec![b'"'];
    close.extend(std::iter::repeat_n(b'#', hashes));
    let found = rest[open + 1..].windows(close.len()).position(|window| window == close);
    found.map_or(rest.len(), |i| open + 1 + i + close.len())
}

/// A character literal; 0 for a lifetime.
fn character(rest: &[u8]) -> usize {
    if rest.get(1) == Some(&b'\\') {
        // The escaped byte may itself be a quote.
        return rest.iter().skip(3).position(|byte| *byte == b'\'').map_or(0, |i| 3 + i + 1);
    }
    let width = match rest.get(1) {
        Some(byte) if *byte < 0x80 => 1,
        Some(byte) if *byte < 0xe0 => 2,
        Some(byte) if *byte < 0xf0 => 3,
        _ => 4,
    };
    if rest.get(1 + width) == Some(&b'\'') { 2 + width } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_and_code_is_not() {
        let kept = |text: &str| blank(text).split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(kept("a // b\nc"), "a c");
        assert_eq!(kept("a /* b /* c */ d */ e"), "a e");
        assert_eq!(kept(r#"a("b \" { c") d"#), "a( ) d");
        assert_eq!(kept("a(r#\"b \" c\"#) d"), "a( ) d");
        assert_eq!(kept("a(br\"b\\\") d"), "a( ) d");
        assert_eq!(kept("r#type = b'{'; 'x: loop { break 'x }"), "r#type = ; 'x: loop { break 'x }");
        assert_eq!(kept(r"['{', '\'', '\u{7b}', 'é', '€'] f::<'a, 'b>()"), "[ , , , , ] f::<'a, 'b>()");
        assert_eq!(kept("\"// no comment\" + attr\"s\""), "+ attr");
        assert_eq!(blank("a\n\"b\nc\"\nd").lines().count(), 4);
    }

    #[test]
    fn functions_are_measured_from_their_name_to_their_brace() {
        let source =
            Source::new("src/x.rs", "fn a() { /* } */ }\ntype F = fn(u8);\nfn b(x: [u8; 2])\nwhere\n{\n \"}\";\n}\ntrait T { fn c(); }\n");
        let functions: Vec<(String, usize)> = source.functions().into_iter().map(|(_, name, lines)| (name, lines)).collect();
        assert_eq!(functions, [("a".into(), 1), ("b".into(), 5)]);
    }

    #[test]
    fn test_items_are_told_from_the_rest() {
        let text = "fn a() {}\n#[cfg(test)]\n#[allow(x)]\nmod tests {\n fn b() {}\n}\nfn c() {}\n#[cfg(not(test))]\nfn d() {}\n#[cfg(test)]\nuse e;\nfn f() {}\n";
        let source = Source::new("src/x.rs", text);
        for (word, is_test) in [("fn a", false), ("fn b", true), ("fn c", false), ("fn d", false), ("use e", true), ("fn f", false)] {
            assert_eq!(source.is_test(text.find(word).expect("planted above")), is_test, "{word}");
        }
        assert!(Source::new("tests/x.rs", text).is_test(0));
        assert!(Source::new("src/a/tests.rs", text).is_test(0));
    }

    #[test]
    fn words_are_found_whole() {
        let source = Source::new("src/x.rs", "unsafe_code unsafe {} myunsafe; // unsafe\n");
        assert_eq!(source.find("unsafe").collect::<Vec<_>>(), [12]);
    }
}
