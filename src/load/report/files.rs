//! The files of a run, as `FORMAT.md` describes them.
//!
//! The log and the seconds are written while the run goes on; everything else at the end. Nothing here is on a thread that sends or receives.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use crate::load::plan::as_f64;
use crate::load::record::{Histograms, Interval, Name, Phase};
use crate::results;

use super::summary::{Second, Summary};

/// Points of a percentile table between two halvings of the distance to 100 %.
const TICKS_PER_HALF: u32 = 5;
/// The tag of the warm-up's deliveries.
const WARMUP: &str = "warmup";

/// The directory a run writes to.
#[derive(Debug)]
pub struct Files {
    directory: PathBuf,
    log: BufWriter<File>,
    seconds: BufWriter<File>,
}

impl Files {
    /// Makes the directory, and fails early if nothing could be kept in the end.
    pub fn create(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let create = |name| File::create(directory.join(name)).map(BufWriter::new);
        let mut seconds = create("seconds.csv")?;
        writeln!(seconds, "{}", Second::COLUMNS)?;
        Ok(Self { directory: directory.to_owned(), log: create("run.hlog")?, seconds })
    }

    /// Begins the log; times in it count from `start`.
    pub fn begin(&mut self, start: SystemTime) -> io::Result<()> {
        let mut serializer = V2DeflateSerializer::new();
        let mut builder = IntervalLogWriterBuilder::new();
        builder.add_comment("ringroom load; values in nanoseconds").with_start_time(start).with_base_time(start);
        builder.begin_log_with(&mut self.log, &mut serializer).map(drop)
    }

    /// Adds the logins, which come before the first second.
    pub fn add_logins(&mut self, histograms: &Histograms) -> io::Result<()> {
        self.write(histograms.of(Name::Connect), (0, 0), Name::Connect.text())
    }

    /// Adds a second.
    pub fn add(&mut self, interval: &Interval) -> io::Result<()> {
        writeln!(self.seconds, "{}", Second::of(interval).row())?;
        let when = (interval.start_ns, interval.end_ns);
        if interval.phase == Phase::Warmup {
            return self.write(&interval.histograms.delivery(), when, WARMUP);
        }
        Name::ALL.into_iter().try_for_each(|name| self.write(interval.histograms.of(name), when, name.text()))
    }

    fn write(&mut self, histogram: &Histogram<u64>, (start_ns, end_ns): (u64, u64), tag: &str) -> io::Result<()> {
        if histogram.is_empty() {
            return Ok(());
        }
        let mut serializer = V2DeflateSerializer::new();
        let mut log = IntervalLogWriterBuilder::new().begin_log_with(&mut self.log, &mut serializer)?;
        let (start, length) = (Duration::from_nanos(start_ns), Duration::from_nanos(end_ns.saturating_sub(start_ns)));
        let tag = Tag::new(tag).ok_or_else(|| io::Error::other("a tag with a blank or a comma"))?;
        log.write_histogram(histogram, start, length, Some(tag)).map_err(|error| io::Error::other(error.to_string()))
    }

    /// Writes what is known at the end.
    pub fn finish(mut self, summary: &Summary, histograms: &Histograms, scenario: &str) -> io::Result<()> {
        self.log.flush()?;
        self.seconds.flush()?;
        let mut json = serde_json::to_vec_pretty(summary)?;
        json.push(b'\n');
        fs::write(self.directory.join("result.json"), json)?;
        fs::write(self.directory.join("scenario.toml"), scenario)?;
        for (name, histogram) in histograms.named() {
            let mut file = BufWriter::new(File::create(self.directory.join(format!("{name}.hgrm")))?);
            percentile_table(&mut file, &histogram)?;
            file.flush()?;
        }
        results::report::write(&self.directory)
    }
}

/// The table as HdrHistogram's `outputPercentileDistribution` prints it.
fn percentile_table(out: &mut dyn Write, histogram: &Histogram<u64>) -> io::Result<()> {
    writeln!(out, "{:>12} {:>14} {:>10} {:>14}\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)")?;
    let mut total = 0;
    for value in histogram.iter_quantiles(TICKS_PER_HALF) {
        total += value.count_since_last_iteration();
        let us = as_f64(value.value_iterated_to()) / 1e3;
        let quantile = value.quantile_iterated_to();
        if quantile < 1.0 {
            writeln!(out, "{us:12.3} {quantile:2.12} {total:10} {:14.2}", 1.0 / (1.0 - quantile))?;
        } else {
            writeln!(out, "{us:12.3} {quantile:2.12} {total:10} {:>14}", "inf")?;
        }
    }
    let (mean, deviation) = (histogram.mean() / 1e3, histogram.stdev() / 1e3);
    writeln!(out, "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]")?;
    writeln!(out, "#[Max     = {:12.3}, Total count    = {:12}]", as_f64(histogram.max()) / 1e3, histogram.len())?;
    writeln!(out, "#[Buckets = {:12}, SubBuckets     = {:12}]", histogram.buckets(), 2_048)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;

    #[test]
    fn the_log_gives_back_every_sample_by_tag_and_second() {
        let directory = tempfile::tempdir().unwrap();
        let mut files = Files::create(directory.path()).unwrap();
        files.begin(SystemTime::now()).unwrap();
        for (second, phase) in [(0u64, Phase::Warmup), (1, Phase::Measured), (2, Phase::Measured)] {
            let mut interval = Interval::new();
            interval.restart(phase, second * 1_000_000_000);
            interval.end_ns = (second + 1) * 1_000_000_000;
            interval.histograms.of_mut(Name::RoomDelivery).saturating_record_n(1_000 * (second + 1), 10 + second);
            files.add(&interval).unwrap();
        }
        files.log.flush().unwrap();
        let text = fs::read(directory.path().join("run.hlog")).unwrap();
        let mut seen = Vec::new();
        for entry in IntervalLogIterator::new(&text) {
            if let LogEntry::Interval(interval) = entry.unwrap() {
                let bytes = decode_base64(interval.encoded_histogram());
                let histogram: Histogram<u64> = Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
                seen.push((interval.tag().unwrap().as_str().to_owned(), interval.start_timestamp().as_secs(), histogram.len()));
            }
        }
        let expected = [("warmup", 0, 10), ("room.delivery", 1, 11), ("room.delivery", 2, 12)];
        assert_eq!(seen, expected.map(|(tag, second, count)| (tag.to_owned(), second, count)));
    }

    fn decode_base64(text: &str) -> Vec<u8> {
        const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut bits = (0u32, 0);
        let mut bytes = Vec::new();
        for byte in text.bytes().filter(|b| *b != b'=') {
            let six = ALPHABET.iter().position(|a| *a == byte).unwrap() as u32;
            bits = ((bits.0 << 6 | six) & 0xff_ffff, bits.1 + 6);
            if bits.1 >= 8 {
                bits.1 -= 8;
                bytes.push((bits.0 >> bits.1) as u8);
            }
        }
        bytes
    }

    #[test]
    fn the_table_ends_at_all_samples() {
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3).unwrap();
        (1..=1_000).for_each(|us| histogram.saturating_record(us * 1_000));
        let mut out = Vec::new();
        percentile_table(&mut out, &histogram).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("Percentile") && text.contains("#[Mean"), "{text}");
        assert!(text.lines().any(|line| line.contains("1.000000000000") && line.contains("1000") && line.ends_with("inf")), "{text}");
    }
}
