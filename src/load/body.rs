//! The body of a message: who sent it when, and padding up to its size.
//!
//! A body is a JSON object: `{"h":"<56 digits>","x":"xxx..."}`, the same for every target. The digits are seven groups at fixed places: run 8, room 8,
//! lane 2 and sender 6, sequence 8, previous sequence 8, due time 16 (ns since the start of the run). The sequence counts the messages of a lane in a
//! room; "previous" is the sequence of this sender's last one in it plus one (0: none), which is what lets a receiver check every sender's order
//! without a table per sender. The size follows from the seed and the stamp, so a receiver knows it too. No JSON is built while messages are due.

use std::fmt;
use std::str::FromStr;

use super::names::{RunId, eight_digits, read_eight};
use super::schedule::mix;

/// Digits of the header inside the body.
pub const STAMP_DIGITS: usize = 56;
/// `{"h":"` before the digits.
const OPEN: &[u8] = br#"{"h":""#;
/// Between the digits and the padding, where there is room for a field.
const FIELD: &[u8] = br#"","x":""#;
/// The smallest body: header and closing.
pub const BODY_BYTES_MIN: usize = OPEN.len() + STAMP_DIGITS + 2;
/// Six digits of the sender.
pub const USERS_MAX: u32 = 1_000_000;

/// Who and when: what the body of a message says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub room: u32,
    pub lane: u16,
    pub sender: u32,
    pub sequence: u32,
    /// The sender's previous sequence in this room and lane plus one; 0: none.
    pub previous: u32,
    /// Nanoseconds since the start of the run.
    pub intended_ns: u64,
}

/// How large the bodies are, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sizes {
    Fixed(usize),
    /// Evenly from the first to the second.
    Uniform(usize, usize),
    /// Sizes with their weights.
    Mix(Vec<(usize, u32)>),
}

impl Sizes {
    /// The size of a message's body: the same at its sender and at each receiver.
    pub fn of(&self, stamp: &Stamp) -> usize {
        match self {
            Self::Fixed(bytes) => *bytes,
            Self::Uniform(least, most) => least + to_index(draw(stamp, to_u32(most - least + 1))),
            Self::Mix(parts) => {
                let mut ticket = draw(stamp, parts.iter().map(|part| part.1).sum());
                for (bytes, weight) in parts {
                    match ticket.checked_sub(*weight) {
                        Some(rest) => ticket = rest,
                        None => return *bytes,
                    }
                }
                parts.last().map_or(BODY_BYTES_MIN, |part| part.0)
            }
        }
    }

    pub fn least(&self) -> usize {
        match self {
            Self::Fixed(bytes) | Self::Uniform(bytes, _) => *bytes,
            Self::Mix(parts) => parts.iter().map(|part| part.0).min().unwrap_or(0),
        }
    }

    pub fn most(&self) -> usize {
        match self {
            Self::Fixed(bytes) | Self::Uniform(_, bytes) => *bytes,
            Self::Mix(parts) => parts.iter().map(|part| part.0).max().unwrap_or(0),
        }
    }

    pub fn mean(&self) -> usize {
        match self {
            Self::Fixed(bytes) => *bytes,
            Self::Uniform(least, most) => usize::midpoint(*least, *most),
            Self::Mix(parts) => {
                let weights: usize = parts.iter().map(|part| to_index(part.1)).sum();
                parts.iter().map(|part| part.0 * to_index(part.1)).sum::<usize>() / weights.max(1)
            }
        }
    }
}

/// Evenly from `0 .. bound`, from the stamp alone.
fn draw(stamp: &Stamp, bound: u32) -> u32 {
    let place = u64::from(stamp.room) << 32 | u64::from(stamp.sequence);
    let hash = mix(place ^ u64::from(stamp.lane) << 56);
    u32::try_from(((hash >> 32) * u64::from(bound)) >> 32).expect("below a u32")
}

impl FromStr for Sizes {
    type Err = String;

    /// `128`, `64-1024` (evenly), or `128:90,4096:10` (sizes and weights).
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "bytes, as 128, 64-1024 (evenly) or 128:90,4096:10 (sizes and weights)".to_owned();
        let number = |text: &str| text.trim().parse::<usize>().map_err(|_| wrong());
        if text.contains(':') {
            let part = |text: &str| {
                let (bytes, weight) = text.split_once(':').ok_or_else(wrong)?;
                let weight: u32 = weight.trim().parse().map_err(|_| wrong())?;
                Ok((number(bytes)?, weight))
            };
            let parts: Vec<(usize, u32)> = text.split(',').map(part).collect::<Result<_, String>>()?;
            let sum = parts.iter().try_fold(0u32, |sum, part| sum.checked_add(part.1));
            return if parts.iter().any(|part| part.1 == 0) || sum.is_none() { Err(wrong()) } else { Ok(Self::Mix(parts)) };
        }
        match text.split_once('-') {
            None => number(text).map(Self::Fixed),
            Some((least, most)) => {
                let (least, most) = (number(least)?, number(most)?);
                if least <= most && u32::try_from(most).is_ok_and(|most| most < u32::MAX) {
                    Ok(Self::Uniform(least, most))
                } else {
                    Err(wrong())
                }
            }
        }
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(bytes) => write!(f, "{bytes}"),
            Self::Uniform(least, most) => write!(f, "{least}-{most}"),
            Self::Mix(parts) => {
                let parts: Vec<String> = parts.iter().map(|(bytes, weight)| format!("{bytes}:{weight}")).collect();
                write!(f, "{}", parts.join(","))
            }
        }
    }
}

/// Writes and checks the bodies of a run.
#[derive(Clone, Debug)]
pub struct Bodies {
    sizes: Sizes,
    /// `{"h":"` and the run's digits.
    open: Vec<u8>,
    /// What follows the digits in the largest body, without the closing quote and brace.
    padding: Vec<u8>,
}

impl Bodies {
    pub fn new(run: RunId, sizes: Sizes) -> Self {
        let filler = sizes.most().saturating_sub(BODY_BYTES_MIN + FIELD.len() - 1) + 1;
        Self { open: [OPEN, &run.digits()].concat(), padding: [FIELD, &vec![b'x'; filler]].concat(), sizes }
    }

    pub fn size_of(&self, stamp: &Stamp) -> usize {
        self.sizes.of(stamp).max(BODY_BYTES_MIN)
    }

    /// Appends the body of a message: exactly [`Bodies::size_of`] bytes.
    pub fn write(&self, stamp: &Stamp, out: &mut Vec<u8>) {
        let bytes = self.size_of(stamp);
        let high = u32::try_from(stamp.intended_ns / 100_000_000 % 100_000_000).expect("eight digits");
        let low = u32::try_from(stamp.intended_ns % 100_000_000).expect("eight digits");
        let who = u32::from(stamp.lane) * USERS_MAX + stamp.sender;
        out.extend_from_slice(&self.open);
        for group in [stamp.room, who, stamp.sequence, stamp.previous, high, low] {
            out.extend_from_slice(&eight_digits(group));
        }
        let room = bytes - BODY_BYTES_MIN;
        if room < FIELD.len() {
            // Too little room for a field: white space is carried byte for byte too.
            out.push(b'"');
            out.resize(out.len() + room, b' ');
            out.push(b'}');
            return;
        }
        out.extend_from_slice(&self.padding[..room]);
        out.extend_from_slice(b"\"}");
    }

    /// The stamp of a body that is ours, whole and unchanged.
    pub fn read(&self, body: &[u8]) -> Option<Stamp> {
        let digits: &[u8; STAMP_DIGITS] = body.strip_prefix(OPEN)?.first_chunk()?;
        if !body.starts_with(&self.open) {
            return None;
        }
        let stamp = read_stamp(digits)?;
        let close = &body[OPEN.len() + STAMP_DIGITS..];
        (body.len() == self.size_of(&stamp) && self.is_close(close)).then_some(stamp)
    }

    fn is_close(&self, close: &[u8]) -> bool {
        let Some(room) = close.len().checked_sub(2) else { return false };
        if room < FIELD.len() {
            return close[0] == b'"' && close[1..=room].iter().all(|byte| *byte == b' ') && close[room + 1] == b'}';
        }
        self.padding.starts_with(&close[..room]) && close.ends_with(b"\"}")
    }
}

fn read_stamp(digits: &[u8; STAMP_DIGITS]) -> Option<Stamp> {
    let group = |n: usize| read_eight(digits[n * 8..].first_chunk()?);
    let who = group(2)?;
    Some(Stamp {
        room: group(1)?,
        lane: u16::try_from(who / USERS_MAX).ok()?,
        sender: who % USERS_MAX,
        sequence: group(3)?,
        previous: group(4)?,
        intended_ns: u64::from(group(5)?) * 100_000_000 + u64::from(group(6)?),
    })
}

fn to_index(number: u32) -> usize {
    usize::try_from(number).expect("a u32 fits a usize here")
}

fn to_u32(number: usize) -> u32 {
    u32::try_from(number).expect("checked when the sizes were read")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::Value;

    use super::*;

    const STAMP: Stamp = Stamp { room: 42, lane: 3, sender: 123_456, sequence: 7, previous: 5, intended_ns: 12_345_678_901_234 };

    fn body(sizes: &str) -> (Bodies, Vec<u8>) {
        let bodies = Bodies::new(RunId::new(77), sizes.parse().unwrap());
        let mut out = b"before".to_vec();
        bodies.write(&STAMP, &mut out);
        (bodies, out.split_off(6))
    }

    #[test]
    fn bodies_have_exactly_the_size_asked_for_and_are_json() {
        for size in (BODY_BYTES_MIN..200).chain([61_440]) {
            let (bodies, text) = body(&size.to_string());
            assert_eq!(text.len(), size);
            let value: Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(value["h"], "00000077000000420312345600000007000000050012345678901234");
            assert_eq!(bodies.read(&text), Some(STAMP));
        }
    }

    #[test]
    fn a_changed_cut_or_longer_body_is_not_read_as_it_was() {
        for size in ["64", "66", "71", "128"] {
            let (bodies, text) = body(size);
            for at in 0..text.len() {
                let mut changed = text.clone();
                changed[at] ^= 1;
                // A changed digit of the sequence or the time is another stamp: the checker's affair.
                assert_ne!(bodies.read(&changed), Some(STAMP), "byte {at} of {size}");
                let mut shorter = text.clone();
                shorter.remove(at);
                assert_ne!(bodies.read(&shorter), Some(STAMP), "byte {at} of {size}");
            }
            assert_eq!(bodies.read(&[text.as_slice(), b" "].concat()), None);
        }
    }

    #[test]
    fn sizes_follow_their_distribution_and_the_receiver_knows_them() {
        let count = |sizes: &str, wanted: std::ops::Range<usize>| {
            let sizes: Sizes = sizes.parse().unwrap();
            (0..10_000).filter(|sequence| wanted.contains(&sizes.of(&Stamp { sequence: *sequence, ..STAMP }))).count()
        };
        assert_eq!(count("128", 128..129), 10_000);
        assert_eq!(count("64-1063", 64..1_064), 10_000);
        assert!((4_800..5_200).contains(&count("64-1063", 64..564)));
        assert!((8_850..9_150).contains(&count("128:90,4096:10", 128..129)));
        let bodies = Bodies::new(RunId::new(77), "64-300".parse().unwrap());
        for sequence in 0..500 {
            let stamp = Stamp { sequence, ..STAMP };
            let mut text = Vec::new();
            bodies.write(&stamp, &mut text);
            assert_eq!(bodies.read(&text), Some(stamp));
        }
    }

    #[test]
    fn sizes_are_read_and_printed() {
        for text in ["128", "64-1024", "128:90,4096:10"] {
            assert_eq!(text.parse::<Sizes>().unwrap().to_string(), text);
        }
        for text in ["", "x", "9-8", "1:", "1:0", "1:2,", "-5"] {
            assert!(text.parse::<Sizes>().is_err(), "{text}");
        }
        let mix: Sizes = "100:3,200:1".parse().unwrap();
        assert_eq!((mix.least(), mix.most(), mix.mean()), (100, 200, 125));
    }
}
