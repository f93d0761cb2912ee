//! Reading `.hlog` files: HdrHistogram's interval log, format 1.3, V2 histograms, compressed or not.
//!
//! A file may be damaged, cut short, or somebody else's. So every size in it is checked before anything is made of it, and what is wrong is an error
//! that names the line; nothing in here panics on any bytes. The last step, counts to histogram, is the crate's, on bytes whose counts have been
//! walked through once before.
//!
//! Intervals are handed out one by one: a histogram is some 200 KiB in memory, a file has thousands.

use std::fmt;
use std::io::Read;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::read::ZlibDecoder;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;

/// First words of a histogram, plain and compressed; the low half of a byte says how wide counts are stored.
const COOKIE: u32 = 0x1c84_9303 | 0x10;
const COOKIE_COMPRESSED: u32 = 0x1c84_9304 | 0x10;
/// Bytes of a plain histogram before its counts.
const HEADER_BYTES: usize = 40;
/// Counts of one histogram, encoded: one of ten times our own range and digits fits.
const COUNTS_BYTES_MAX: usize = 4 << 20;
/// Significant digits: 4 already take 2 MB in memory.
const DIGITS_MAX: u32 = 4;
/// Samples in one histogram, so that sums of many stay far from the end of a u64.
const SAMPLES_MAX: u64 = 1 << 48;
/// Seconds since the start of a run, or since 1970.
const SECONDS_MAX: f64 = 1e11;

/// One line: what was recorded under `tag` from `start_ns` for `length_ns`.
#[derive(Debug)]
pub struct Interval<'a> {
    /// Empty without a tag.
    pub tag: &'a str,
    pub start_ns: u64,
    pub length_ns: u64,
    pub histogram: Histogram<u64>,
}

/// What stands above the intervals; wall-clock seconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Header {
    pub start_s: Option<f64>,
    pub base_s: Option<f64>,
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// From 1.
    pub line: usize,
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

/// Reads a whole file; `each` gets its intervals in their order and may refuse one with a reason.
pub fn read(bytes: &[u8], each: &mut dyn FnMut(Interval<'_>) -> Result<(), String>) -> Result<Header, Damage> {
    let mut header = Header::default();
    let mut rest = bytes;
    let mut number = 0;
    while !rest.is_empty() {
        number += 1;
        let damage = |what: String| Damage { line: number, what };
        let end = rest.iter().position(|byte| *byte == b'\n').ok_or_else(|| damage("cut off in the middle".into()))?;
        let line = std::str::from_utf8(&rest[..end]).map_err(|_| damage("not text".into()))?;
        rest = &rest[end + 1..];
        on_line(line.trim_end_matches('\r'), &mut header, each).map_err(damage)?;
    }
    Ok(header)
}

fn on_line(line: &str, header: &mut Header, each: &mut dyn FnMut(Interval<'_>) -> Result<(), String>) -> Result<(), String> {
    if let Some(time) = line.strip_prefix("#[StartTime: ") {
        header.start_s = Some(stamp(time)?);
    } else if let Some(time) = line.strip_prefix("#[BaseTime: ") {
        header.base_s = Some(stamp(time)?);
    } else if !(line.is_empty() || line.starts_with('#') || line.starts_with("\"StartTimestamp\"")) {
        each(interval(line)?)?;
    }
    Ok(())
}

fn stamp(text: &str) -> Result<f64, String> {
    let number = text.split([' ', ']']).next().unwrap_or_default();
    seconds(number, "a time of day")
}

fn seconds(text: &str, what: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| format!("{what} is no number"))?;
    if (0.0..=SECONDS_MAX).contains(&number) { Ok(number) } else { Err(format!("{what} is out of range")) }
}

fn interval(line: &str) -> Result<Interval<'_>, String> {
    let (tag, rest) = match line.strip_prefix("Tag=") {
        Some(tagged) => tagged.split_once(',').ok_or("a tag without anything behind it")?,
        None => ("", line),
    };
    let mut fields = rest.splitn(4, ',');
    let mut next = |what: &str| fields.next().ok_or_else(|| format!("{what} is missing"));
    let start = seconds(next("the start")?, "the start")?;
    let length = seconds(next("the length")?, "the length")?;
    // The maximum is for people; the histogram knows it better.
    next("the maximum")?;
    let histogram = decode(next("the histogram")?)?;
    Ok(Interval { tag, start_ns: nanoseconds(start), length_ns: nanoseconds(length), histogram })
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 10^20 by `seconds`; the cast saturates")]
fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9).round() as u64
}

/// A histogram from its text.
pub fn decode(text: &str) -> Result<Histogram<u64>, String> {
    let bytes = STANDARD.decode(text).map_err(|error| format!("the histogram is no base64: {error}"))?;
    let plain = match word(&bytes, 0) {
        Some(COOKIE) => bytes,
        Some(COOKIE_COMPRESSED) => inflate(&bytes)?,
        Some(_) => return Err("the histogram is of another format than V2".into()),
        None => return Err("the histogram is cut off".into()),
    };
    check(&plain)?;
    let found = Deserializer::new().deserialize::<u64, _>(&mut plain.as_slice());
    found.map_err(|error| format!("the histogram can't be read: {error}"))
}

fn inflate(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let length = word(bytes, 4).ok_or("the histogram is cut off")?;
    let body = usize::try_from(length).ok().and_then(|length| bytes.get(8..8usize.checked_add(length)?));
    let body = body.ok_or("the histogram is cut off")?;
    let most = HEADER_BYTES + COUNTS_BYTES_MAX;
    let mut plain = Vec::new();
    let read = ZlibDecoder::new(body).take(most as u64 + 1).read_to_end(&mut plain);
    read.map_err(|error| format!("the histogram does not unpack: {error}"))?;
    if plain.len() > most { Err("the histogram is too large".into()) } else { Ok(plain) }
}

/// Everything that the crate would believe: sizes, ranges, and each count.
fn check(plain: &[u8]) -> Result<(), String> {
    const CUT: &str = "the histogram is cut off";
    if word(plain, 0) != Some(COOKIE) {
        return Err("the histogram is of another format than V2".into());
    }
    let digits = word(plain, 12).ok_or(CUT)?;
    let (low, high) = wide(plain, 16).zip(wide(plain, 24)).ok_or(CUT)?;
    if digits > DIGITS_MAX || low == 0 || low > u64::MAX / 2 || high < 2 * low {
        return Err(format!("a histogram from {low} to {high} with {digits} digits is not sensible"));
    }
    let length = usize::try_from(word(plain, 4).ok_or(CUT)?).map_err(|_| CUT)?;
    let counts = plain.get(HEADER_BYTES..).ok_or(CUT)?;
    if counts.len() != length {
        return Err(CUT.into());
    }
    check_counts(counts)
}

fn check_counts(counts: &[u8]) -> Result<(), String> {
    let (mut at, mut samples, mut places) = (0, 0u64, 0u64);
    while at < counts.len() {
        let (number, bytes) = number(&counts[at..]).ok_or("the last count of the histogram is cut off")?;
        at += bytes;
        // Below zero: so many empty places; else the count of one place.
        let (zeros, count) = if number < 0 { (number.unsigned_abs(), 0) } else { (1, number.unsigned_abs()) };
        places = places.saturating_add(zeros);
        samples = samples.saturating_add(count);
        if places > u64::from(u32::MAX) || samples > SAMPLES_MAX {
            return Err("the histogram's counts are not sensible".into());
        }
    }
    Ok(())
}

/// A whole number as the format packs it: seven bits a byte, the ninth byte whole, then zig-zag; and its length.
fn number(bytes: &[u8]) -> Option<(i64, usize)> {
    let mut packed = 0u64;
    for place in 0..9 {
        let byte = u64::from(*bytes.get(place)?);
        if place == 8 {
            packed |= byte << 56;
        } else {
            packed |= (byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                return Some((unfold(packed), place + 1));
            }
        }
    }
    Some((unfold(packed), 9))
}

/// 0, 1, 2, 3, 4 as 0, -1, 1, -2, 2.
fn unfold(packed: u64) -> i64 {
    (packed >> 1).cast_signed() ^ -(packed & 1).cast_signed()
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn wide(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::{Duration, UNIX_EPOCH};

    use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
    use hdrhistogram::serialization::{Serializer, V2DeflateSerializer, V2Serializer};
    use proptest::prelude::*;

    use super::*;

    fn histogram(values: &[u64]) -> Histogram<u64> {
        let mut histogram = Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap();
        values.iter().for_each(|value| histogram.saturating_record(*value));
        histogram
    }

    fn file(seconds: &[Vec<u64>]) -> Vec<u8> {
        let (mut out, mut serializer) = (Vec::new(), V2DeflateSerializer::new());
        let mut builder = IntervalLogWriterBuilder::new();
        let start = UNIX_EPOCH + Duration::from_millis(1_700_000_000_250);
        builder.add_comment("a comment").with_start_time(start).with_base_time(start);
        let mut log = builder.begin_log_with(&mut out, &mut serializer).unwrap();
        for (second, values) in (0..).zip(seconds) {
            log.write_histogram(&histogram(values), Duration::from_secs(second), Duration::from_secs(1), Tag::new("sent")).unwrap();
        }
        out
    }

    fn entries(bytes: &[u8]) -> Result<Vec<(String, u64, Histogram<u64>)>, Damage> {
        let mut found = Vec::new();
        read(bytes, &mut |interval| {
            found.push((interval.tag.to_owned(), interval.start_ns, interval.histogram));
            Ok(())
        })?;
        Ok(found)
    }

    fn encoded(serializer: &mut impl Serializer, histogram: &Histogram<u64>) -> Vec<u8> {
        let mut bytes = Vec::new();
        assert!(serializer.serialize(histogram, &mut bytes).is_ok());
        bytes
    }

    /// A plain histogram with counts of one's own choice.
    fn plain(digits: u32, high: u64, counts: &[u8]) -> String {
        let mut bytes = Vec::new();
        bytes.extend(COOKIE.to_be_bytes());
        bytes.extend(u32::try_from(counts.len()).unwrap().to_be_bytes());
        bytes.extend(0u32.to_be_bytes());
        bytes.extend(digits.to_be_bytes());
        bytes.extend(1u64.to_be_bytes());
        bytes.extend(high.to_be_bytes());
        bytes.extend(1f64.to_be_bytes());
        bytes.extend(counts);
        STANDARD.encode(bytes)
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(seconds in proptest::collection::vec(proptest::collection::vec(1u64..70_000_000_000, 0..40), 0..6)) {
            let found = entries(&file(&seconds)).unwrap();
            prop_assert_eq!(found.len(), seconds.len());
            for (second, ((tag, start_ns, read), values)) in (0u64..).zip(found.iter().zip(&seconds)) {
                prop_assert_eq!((tag.as_str(), *start_ns), ("sent", second * 1_000_000_000));
                prop_assert!(*read == histogram(values));
            }
        }

        #[test]
        fn a_damaged_file_is_an_error_or_another_file_but_never_a_panic(
            seconds in proptest::collection::vec(proptest::collection::vec(1u64..70_000_000_000, 1..20), 1..3),
            damage in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..6),
            keep in any::<u16>(),
        ) {
            let mut bytes = file(&seconds);
            for (at, byte) in damage {
                let at = usize::from(at) % bytes.len();
                bytes[at] = byte;
            }
            let _ = entries(&bytes);
            bytes.truncate(usize::from(keep) % (bytes.len() + 1));
            let _ = entries(&bytes);
        }

        #[test]
        fn any_counts_behind_a_sound_header_are_an_error_or_a_histogram(
            digits in 0u32..6, high in any::<u64>(), counts in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let _ = decode(&plain(digits, high, &counts));
        }

        #[test]
        fn any_text_is_an_error_or_a_file(text in "(Tag=[a-z]{0,3},)?[0-9.,e#-]{0,30}[A-Za-z0-9+/=,]{0,60}\n?") {
            let _ = entries(text.as_bytes());
        }
    }

    #[test]
    fn the_times_of_day_are_read() {
        let header = read(&file(&[]), &mut |_| Ok(())).unwrap();
        assert_eq!(header, Header { start_s: Some(1_700_000_000.25), base_s: Some(1_700_000_000.25) });
        assert_eq!(read(b"#[StartTime: x]\n", &mut |_| Ok(())).unwrap_err().to_string(), "line 1: a time of day is no number");
    }

    #[test]
    fn a_plain_histogram_a_legend_and_windows_line_ends_are_read() {
        let bytes = encoded(&mut V2Serializer::new(), &histogram(&[5, 7]));
        let text = format!("\"StartTimestamp\",\"Interval_Length\"\r\n0.0,1.0,7,{}\r\n", STANDARD.encode(bytes));
        let found = entries(text.as_bytes()).unwrap();
        assert_eq!((found[0].0.as_str(), found[0].2.len(), found[0].2.max()), ("", 2, 7));
    }

    #[test]
    fn damage_is_named_with_its_line() {
        let error = |bytes: &[u8]| entries(bytes).unwrap_err().to_string();
        let whole = file(&[vec![5], vec![6]]);
        assert_eq!(error(&whole[..whole.len() - 1]), "line 5: cut off in the middle");
        let mut cut = whole[..whole.len() - 20].to_vec();
        cut.push(b'\n');
        assert!(error(&cut).starts_with("line 5: the histogram"), "{}", error(&cut));
        assert_eq!(error(b"\n1.0,2.0\n"), "line 2: the maximum is missing");
        assert_eq!(error(b"-1.0,2.0,3,x\n"), "line 1: the start is out of range");
        assert_eq!(error(b"nan,2.0,3,x\n"), "line 1: the start is out of range");
        assert_eq!(error(b"1,2,3,AAAAAAAA\n"), "line 1: the histogram is of another format than V2");
        assert_eq!(error(&[0xff, b'\n']), "line 1: not text");
    }

    /// A count that the crate would negate over the end of its range, places without end, and a size that would take all memory.
    #[test]
    fn numbers_that_would_hurt_the_crate_do_not_reach_it() {
        assert_eq!(unfold(u64::MAX), i64::MIN);
        let lowest = [0xff; 9];
        assert!(decode(&plain(3, 60_000_000_000, &lowest)).unwrap_err().contains("not sensible"));
        let many = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f];
        assert!(decode(&plain(3, 60_000_000_000, &many)).unwrap_err().contains("not sensible"));
        assert!(decode(&plain(5, u64::MAX, &[2])).unwrap_err().contains("5 digits"));
        let mut bytes = STANDARD.decode(plain(3, 60_000_000_000, &[2])).unwrap();
        bytes[4..8].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(decode(&STANDARD.encode(bytes)).unwrap_err(), "the histogram is cut off");
    }
}
