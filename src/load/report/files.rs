//! The files of a run: `result.json`, one `.hgrm` per histogram, and `run.hlog` with every second of each.
//!
//! `.hlog` is the interval log of HdrHistogram (V2, compressed), times in nanoseconds, tags as in [`super::summary::Summary::latency`] with
//! `warmup.` before those of the warm-up, so that any slice of time can be cut out later and files of several generators be added.
//! `.hgrm` is the percentile table that plotters read, in microseconds.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use crate::load::plan::as_f64;
use crate::load::record::{Histograms, Interval, Phase};

use super::summary::Summary;

/// Points of a percentile table between two halvings of the distance to 100 %.
const TICKS_PER_HALF: u32 = 5;

/// The directory a run writes to.
#[derive(Debug)]
pub struct Files {
    directory: PathBuf,
    log: BufWriter<File>,
}

impl Files {
    /// Makes the directory, and fails early if nothing could be kept in the end.
    pub fn create(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let log = BufWriter::new(File::create(directory.join("run.hlog"))?);
        Ok(Self { directory: directory.to_owned(), log })
    }

    /// Begins the log; times in it count from `start`.
    pub fn begin(&mut self, start: SystemTime) -> io::Result<()> {
        let mut serializer = V2DeflateSerializer::new();
        let mut builder = IntervalLogWriterBuilder::new();
        builder.add_comment("ringroom load; values in nanoseconds").with_start_time(start).with_base_time(start);
        builder.begin_log_with(&mut self.log, &mut serializer).map(drop)
    }

    /// Adds a second to the log.
    pub fn add(&mut self, interval: &Interval) -> io::Result<()> {
        let mut serializer = V2DeflateSerializer::new();
        let mut log = IntervalLogWriterBuilder::new().begin_log_with(&mut self.log, &mut serializer)?;
        let start = Duration::from_nanos(interval.start_ns);
        let duration = Duration::from_nanos(interval.end_ns.saturating_sub(interval.start_ns));
        for (name, histogram) in interval.histograms.named().into_iter().filter(|(_, h)| !h.is_empty()) {
            let name = if interval.phase == Phase::Warmup { format!("warmup.{name}") } else { name.to_owned() };
            let written = log.write_histogram(histogram, start, duration, Tag::new(&name));
            written.map_err(|error| io::Error::other(error.to_string()))?;
        }
        Ok(())
    }

    /// Writes what is known at the end.
    pub fn finish(mut self, summary: &Summary, histograms: &Histograms) -> io::Result<()> {
        self.log.flush()?;
        let mut json = serde_json::to_vec_pretty(summary)?;
        json.push(b'\n');
        fs::write(self.directory.join("result.json"), json)?;
        for (name, histogram) in histograms.named().into_iter().filter(|(_, h)| !h.is_empty()) {
            let mut file = BufWriter::new(File::create(self.directory.join(format!("{name}.hgrm")))?);
            percentile_table(&mut file, histogram)?;
            file.flush()?;
        }
        Ok(())
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
            interval.histograms.delivery.saturating_record_n(1_000 * (second + 1), 10 + second);
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
        let expected = [("warmup.delivery", 0, 10), ("delivery", 1, 11), ("delivery", 2, 12)];
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
