//! What is to be done: the flags, the scenario file with the same words, and both together as a [`Wish`].
//!
//! A scenario is a TOML file whose keys are the long flags (`room-size = "zipf:500:1"`), and `[[phase]]` tables for a rate that changes. A flag wins over
//! the file. An unknown key is an error that names its line. Texts are turned into numbers here and nowhere else.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::body::Sizes;
use super::dialect::Target;
use super::plan::{Arrivals, Stage, Troubles, Wish, as_f64};
use super::rooms::RoomSizes;
use super::schedule::Stretch;

/// A length of time as people write it: `10`, `0.5s`, `20ms`, `2m`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span(pub u64);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const MOST: f64 = 1e15;
        let units = [("ns", 1.0), ("us", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3_600e9)];
        let (number, unit) = units.iter().find_map(|(unit, ns)| Some((text.strip_suffix(unit)?, *ns))).unwrap_or((text, 1e9));
        let number: f64 = number.trim().parse().map_err(|_| "a length of time, as 10, 0.5s or 20ms".to_owned())?;
        let ns = number * unit;
        if !(0.0..=MOST).contains(&ns) {
            return Err("a length of time from 0 to 1000000 seconds".into());
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 0 and 10^15 by the check above")]
        let ns = ns.round() as u64;
        Ok(Self(ns))
    }
}

impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}s", as_f64(self.0) / 1e9)
    }
}

/// The load: flags and keys of a scenario file alike.
#[derive(Clone, Debug, Default, PartialEq, clap::Args, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Shape {
    /// What to drive [default: ringroom]
    #[arg(long, value_enum)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// Connections, each a user of its own [default: 100]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<u32>,
    /// Rooms; their members are spread over the connections [default: 1]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rooms: Option<u32>,
    /// Members of a room: 100, 10-200 (evenly), zipf:500:1 (largest, exponent) [default: connections / rooms, at least 1]
    #[arg(long, value_name = "N")]
    #[serde(deserialize_with = "text", serialize_with = "print", skip_serializing_if = "Option::is_none")]
    pub room_size: Option<RoomSizes>,
    /// Messages per second, of all senders together [default: 1000]
    #[arg(long, value_name = "R")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// Bytes of a message's body: 128, 64-1024 (evenly), 128:90,4096:10 (sizes and weights) [default: 128]
    #[arg(long, value_name = "BYTES")]
    #[serde(deserialize_with = "text", serialize_with = "print", skip_serializing_if = "Option::is_none")]
    pub size: Option<Sizes>,
    /// Seconds of load before measuring [default: 2]
    #[arg(long, value_name = "S")]
    #[serde(deserialize_with = "text", serialize_with = "print", skip_serializing_if = "Option::is_none")]
    pub warmup: Option<Span>,
    /// Seconds measured [default: 10]
    #[arg(long, value_name = "S")]
    #[serde(deserialize_with = "text", serialize_with = "print", skip_serializing_if = "Option::is_none")]
    pub duration: Option<Span>,
    /// Seconds after the window for what is on its way; over as soon as everything has come [default: 5]
    #[arg(long, value_name = "S")]
    #[serde(deserialize_with = "text", serialize_with = "print", skip_serializing_if = "Option::is_none")]
    pub grace: Option<Span>,
    /// Generator threads that send [default: 1]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<u16>,
    /// Gaps between messages: poisson, constant, burst:K [default: poisson]
    #[arg(long, value_name = "KIND")]
    #[serde(deserialize_with = "text", serialize_with = "print", skip_serializing_if = "Option::is_none")]
    pub arrivals: Option<Arrivals>,
    /// The same seed gives the same schedule [default: 1]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Write to one other user each instead of to rooms
    #[arg(long, conflicts_with_all = ["rooms", "room_size", "idle", "direct_share"])]
    pub direct: bool,
    /// Part of the messages that go to one other user, from 0 to 1 [default: 0]
    #[arg(long, value_name = "SHARE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direct_share: Option<f64>,
    /// Only log in, join and hold the connections for the duration
    #[arg(long)]
    pub idle: bool,
    /// Maximum throughput: this many messages under way at once instead of a schedule. Its latencies hide stalls
    #[arg(long, value_name = "N", conflicts_with_all = ["rate", "idle"])]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed: Option<u32>,
    /// Time one receiver in this many; all are checked [default: 1]
    #[arg(long, value_name = "K")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<u32>,
    /// Receivers on a thread of their own that check the bulk's figures [default: 2 where a CPU is left for them, else 0]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probes: Option<u32>,
    /// Logins begun per second [default: as fast as they are answered]
    #[arg(long, value_name = "R")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_rate: Option<f64>,
    /// Connections that go away and come back, and read but don't send
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub churners: Option<u32>,
    /// How many of them go away per second
    #[arg(long, value_name = "R")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub churn: Option<f64>,
    /// How long each stays away [default: 1]
    #[arg(long, value_name = "S")]
    #[serde(deserialize_with = "text", serialize_with = "print", skip_serializing_if = "Option::is_none")]
    pub away: Option<Span>,
    /// Moments in the window at which all of them go away at once (5s,20s)
    #[arg(long, value_name = "S", value_delimiter = ',')]
    #[serde(deserialize_with = "texts", serialize_with = "prints", skip_serializing_if = "Vec::is_empty")]
    pub storm: Vec<Span>,
    /// Connections that read slowly once the window begins
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow: Option<u32>,
    /// Bytes per second that each of them reads [default: 2048]
    #[arg(long, value_name = "BYTES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_pace: Option<u32>,
    /// Connections that read nothing once the window begins
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<u32>,
    /// Requests for a room's past per second
    #[arg(long, value_name = "R")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history: Option<f64>,
    /// Messages asked for each time [default: 50]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history_limit: Option<u32>,
    /// Source addresses, in turn: 127.0.0.2-127.0.0.9,10.0.0.1
    #[arg(long, value_name = "LIST")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Objective, as delivery.p99<20ms or room.last.p99.9<0.1s; several may be given. Sets the exit code
    #[arg(long, value_name = "TEXT")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub slo: Vec<String>,
    /// Parts of the window with rates of their own; in a scenario file only.
    #[arg(skip)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub phase: Vec<PhaseText>,
}

/// A `[[phase]]` of a scenario file: `rate` alone holds it, `from` and `to` ramp it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PhaseText {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(rename = "for", deserialize_with = "text", serialize_with = "print")]
    pub length: Option<Span>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<f64>,
}

/// A scenario file, read.
#[derive(Clone, Debug, Default)]
pub struct Scenario {
    pub shape: Shape,
    pub name: Option<String>,
    pub file: Option<String>,
    /// Its first comment.
    pub about: Option<String>,
}

impl Scenario {
    /// Reads a file; the error is one line with file, place and cause.
    pub fn read(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let text = fs::read_to_string(path).map_err(|error| format!("--scenario {shown}: {error}"))?;
        let shape = toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(0, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            format!("--scenario {shown}: line {line}: {}", error.message().lines().next().unwrap_or_default())
        })?;
        let comment = text.lines().take_while(|line| line.starts_with('#')).map(|line| line.trim_start_matches(['#', ' ']));
        let about = comment.collect::<Vec<_>>().join(" ");
        let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        Ok(Self { shape, name, file: Some(shown.to_string()), about: Some(about).filter(|about| !about.is_empty()) })
    }
}

impl Shape {
    /// These flags over a file's keys.
    pub fn over(self, file: Self) -> Self {
        // A rate or a duration by flag replaces the file's course.
        let phase = if self.rate.is_some() || self.duration.is_some() || self.closed.is_some() { Vec::new() } else { file.phase };
        let list = |flags: Vec<String>, keys: Vec<String>| if flags.is_empty() { keys } else { flags };
        Self {
            target: self.target.or(file.target),
            connections: self.connections.or(file.connections),
            rooms: self.rooms.or(file.rooms),
            room_size: self.room_size.or(file.room_size),
            rate: self.rate.or(file.rate),
            size: self.size.or(file.size),
            warmup: self.warmup.or(file.warmup),
            duration: self.duration.or(file.duration),
            grace: self.grace.or(file.grace),
            threads: self.threads.or(file.threads),
            arrivals: self.arrivals.or(file.arrivals),
            seed: self.seed.or(file.seed),
            direct: self.direct || file.direct,
            direct_share: self.direct_share.or(file.direct_share),
            idle: self.idle || file.idle,
            closed: self.closed.or(file.closed),
            sample: self.sample.or(file.sample),
            probes: self.probes.or(file.probes),
            connect_rate: self.connect_rate.or(file.connect_rate),
            churners: self.churners.or(file.churners),
            churn: self.churn.or(file.churn),
            away: self.away.or(file.away),
            storm: if self.storm.is_empty() { file.storm } else { self.storm },
            slow: self.slow.or(file.slow),
            slow_pace: self.slow_pace.or(file.slow_pace),
            stopped: self.stopped.or(file.stopped),
            history: self.history.or(file.history),
            history_limit: self.history_limit.or(file.history_limit),
            source: self.source.or(file.source),
            slo: list(self.slo, file.slo),
            phase,
        }
    }

    pub fn target(&self) -> Target {
        self.target.unwrap_or_default()
    }

    /// As numbers; `probes` where the user names none.
    pub fn wish(&self, address: SocketAddr, probes: u32) -> Result<Wish, String> {
        let connections = self.connections.unwrap_or(100);
        let direct_share = if self.direct { 1.0 } else { self.direct_share.unwrap_or(0.0) };
        let rooms = if direct_share >= 1.0 { 0 } else { self.rooms.unwrap_or(1) };
        let room_sizes = self.room_size.unwrap_or_else(|| RoomSizes::Fixed((connections / rooms.max(1)).max(1)));
        let span = |span: Option<Span>, seconds: u64| span.map_or(seconds * 1_000_000_000, |span| span.0);
        Ok(Wish {
            target: self.target(),
            address,
            connections,
            rooms,
            room_sizes,
            direct_share,
            idle: self.idle,
            stages: self.stages()?,
            sizes: self.size.clone().unwrap_or(Sizes::Fixed(128)),
            threads: self.threads.unwrap_or(1),
            arrivals: self.arrivals.unwrap_or(Arrivals::Poisson),
            seed: self.seed.unwrap_or(1),
            warmup_ns: if self.idle { 0 } else { span(self.warmup, 2) },
            grace_ns: span(self.grace, 5),
            sample_every: self.sample.unwrap_or(1),
            probes: if rooms == 0 || self.idle { self.probes.unwrap_or(0) } else { self.probes.unwrap_or(probes) },
            troubles: Troubles {
                churners: self.churners.unwrap_or(0),
                churn_per_s: self.churn.unwrap_or(0.0),
                away_ns: span(self.away, 1),
                storms_ns: self.storm.iter().map(|span| span.0).collect(),
                slow: self.slow.unwrap_or(0),
                slow_bytes_per_s: self.slow_pace.unwrap_or(2_048),
                stopped: self.stopped.unwrap_or(0),
                history_per_s: self.history.unwrap_or(0.0),
                history_limit: self.history_limit.unwrap_or(50),
            },
            connect_per_s: self.connect_rate,
            closed: self.closed,
            sources: self.source.as_deref().map_or(Ok(Vec::new()), sources)?,
        })
    }

    /// One generator's part of several: its share of everything that is counted, a seed of its own, the same laws.
    pub fn part(&self, part: u32, parts: u32) -> Result<Self, String> {
        let share = |count: u32| (count / parts) + u32::from(part < count % parts);
        let rate = |rate: f64| rate / f64::from(parts);
        let connections = self.connections.unwrap_or(100);
        let rooms = self.rooms.unwrap_or(1);
        if connections < parts || (rooms < parts && !self.direct) {
            return Err(format!("{parts} agents need as many connections and rooms at least: a room lives within one of them"));
        }
        let phase = |phase: &PhaseText| PhaseText {
            rate: phase.rate.map(rate),
            from: phase.from.map(rate),
            to: phase.to.map(rate),
            ..phase.clone()
        };
        Ok(Self {
            connections: Some(share(connections)),
            rooms: (!self.direct).then(|| share(rooms)),
            // The size that all rooms together would give, not what a part's numbers do.
            room_size: self.room_size.or_else(|| Some(RoomSizes::Fixed((connections / rooms.max(1)).max(1)))).filter(|_| !self.direct),
            rate: Some(rate(self.rate.unwrap_or(1_000.0))),
            seed: Some(self.seed.unwrap_or(1).wrapping_add(u64::from(part) * 1_000_003)),
            closed: self.closed.map(|window| share(window).max(1)),
            connect_rate: self.connect_rate.map(rate),
            churners: self.churners.map(share),
            churn: self.churn.map(rate),
            slow: self.slow.map(share),
            stopped: self.stopped.map(share),
            history: self.history.map(rate),
            phase: self.phase.iter().map(phase).collect(),
            slo: Vec::new(),
            ..self.clone()
        })
    }

    fn stages(&self) -> Result<Vec<Stage>, String> {
        if self.phase.is_empty() || self.idle {
            let rate = if self.idle || self.closed.is_some() { 0.0 } else { self.rate.unwrap_or(1_000.0) };
            let length_ns = self.duration.map_or(10_000_000_000, |span| span.0);
            return Ok(vec![Stage { name: "hold".into(), stretch: Stretch { length_ns, from: rate, to: rate } }]);
        }
        let stage = |(number, phase): (usize, &PhaseText)| {
            let (from, to) = match (phase.rate, phase.from, phase.to) {
                (Some(rate), None, None) => (rate, rate),
                (None, Some(from), Some(to)) => (from, to),
                _ => return Err(format!("phase {}: either `rate`, or `from` and `to`", number + 1)),
            };
            let default = if from == to { "hold" } else { "ramp" };
            let name = phase.name.clone().unwrap_or_else(|| default.to_owned());
            Ok(Stage { name, stretch: Stretch { length_ns: phase.length.map_or(0, |span| span.0), from, to } })
        };
        self.phase.iter().enumerate().map(stage).collect()
    }
}

/// `127.0.0.2-127.0.0.9,10.0.0.1` as addresses.
fn sources(text: &str) -> Result<Vec<IpAddr>, String> {
    const MOST: u32 = 65_536;
    let wrong = || format!("--source {text}: addresses, as 127.0.0.2-127.0.0.9,10.0.0.1");
    let mut found = Vec::new();
    for part in text.split(',') {
        match part.split_once('-') {
            None => found.push(part.trim().parse().map_err(|_| wrong())?),
            Some((first, last)) => {
                let number = |text: &str| text.trim().parse::<std::net::Ipv4Addr>().map(u32::from).map_err(|_| wrong());
                let (first, last) = (number(first)?, number(last)?);
                if last < first || last - first >= MOST {
                    return Err(wrong());
                }
                found.extend((first..=last).map(|number| IpAddr::from(std::net::Ipv4Addr::from(number))));
            }
        }
    }
    Ok(found)
}

/// A value in a file as a flag takes it: a text, or a plain number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Text {
    Words(String),
    Whole(u64),
    Broken(f64),
}

impl Text {
    fn read<T: FromStr<Err: std::fmt::Display>>(self) -> Result<T, String> {
        let text = match self {
            Self::Words(text) => text,
            Self::Whole(number) => number.to_string(),
            Self::Broken(number) => number.to_string(),
        };
        text.parse().map_err(|error: T::Err| format!("{text}: {error}"))
    }
}

fn text<'de, T: FromStr<Err: std::fmt::Display>, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    Text::deserialize(from)?.read().map(Some).map_err(serde::de::Error::custom)
}

fn texts<'de, T: FromStr<Err: std::fmt::Display>, D: Deserializer<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    let all = Vec::<Text>::deserialize(from)?;
    all.into_iter().map(Text::read).collect::<Result<_, _>>().map_err(serde::de::Error::custom)
}

fn print<T: std::fmt::Display, S: Serializer>(value: &Option<T>, to: S) -> Result<S::Ok, S::Error> {
    value.as_ref().map(ToString::to_string).serialize(to)
}

fn prints<T: std::fmt::Display, S: Serializer>(values: &[T], to: S) -> Result<S::Ok, S::Error> {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().serialize(to)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn read(text: &str) -> Result<Scenario, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("town.toml");
        fs::write(&path, text).unwrap();
        Scenario::read(&path)
    }

    const TOWN: &str = "# A town.\n# With rooms.\nconnections = 50\nrooms = 5\nroom-size = \"zipf:20:1\"\nsize = \"64-256\"\nwarmup = 1\nstorm = [\"5s\", 9]\nchurners = 3\n\
        slo = [\"delivery.p99<20ms\"]\n[[phase]]\nfor = \"5s\"\nfrom = 0\nto = 100\n[[phase]]\nname = \"spike\"\nfor = 2\nrate = 900\n";

    #[test]
    fn lengths_of_time_are_read_with_and_without_unit() {
        let read = |text: &str| text.parse::<Span>().map(|span| span.0);
        assert_eq!(
            (read("10"), read("0.5s"), read("20ms"), read("2m"), read("7us")),
            (Ok(10_000_000_000), Ok(500_000_000), Ok(20_000_000), Ok(120_000_000_000), Ok(7_000))
        );
        assert!(["-1", "x", "NaN", "1e9", "", "s"].iter().all(|text| read(text).is_err()));
    }

    #[test]
    fn a_scenario_is_read_and_what_is_printed_of_it_reads_the_same() {
        let scenario = read(TOWN).unwrap();
        assert_eq!((scenario.name.as_deref(), scenario.about.as_deref()), (Some("town"), Some("A town. With rooms.")));
        let wish = scenario.shape.wish("127.0.0.1:1".parse().unwrap(), 2).unwrap();
        assert_eq!((wish.connections, wish.rooms, wish.probes, wish.warmup_ns), (50, 5, 2, 1_000_000_000));
        assert_eq!(wish.troubles.storms_ns, [5_000_000_000, 9_000_000_000]);
        let names: Vec<&str> = wish.stages.iter().map(|stage| stage.name.as_str()).collect();
        assert_eq!((names, wish.stages[0].stretch.to, wish.stages[1].stretch.from), (vec!["ramp", "spike"], 100.0, 900.0));
        let printed = toml::to_string(&scenario.shape).unwrap();
        assert_eq!(toml::from_str::<Shape>(&printed).unwrap(), scenario.shape, "{printed}");
    }

    #[test]
    fn flags_win_over_the_file() {
        let flags = Shape { connections: Some(7), rate: Some(30.0), slo: vec!["sent.p50<1s".into()], ..Shape::default() };
        let shape = flags.over(read(TOWN).unwrap().shape);
        assert_eq!((shape.connections, shape.rooms, shape.slo.len()), (Some(7), Some(5), 1));
        let stages = shape.stages().unwrap();
        assert_eq!((stages.len(), stages[0].stretch.from), (1, 30.0));
    }

    #[test]
    fn what_is_wrong_in_a_file_is_named_with_its_line() {
        for (text, line, word) in [
            ("connections = 5\nroms = 3\n", "line 2", "roms"),
            ("connections = 5\nrooms = \"x\"\n", "line 2", "invalid type"),
            ("a = 1\n", "line 1", "a"),
            ("size = \"9-3\"\n", "line 1", "bytes"),
            ("connections = \n", "line 1", ""),
            ("[[phase]]\nfor = 3\nspeed = 1\n", "line 3", "speed"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(line) && error.contains(word) && error.lines().count() == 1, "{text}: {error}");
        }
        assert!(Scenario::read(Path::new("/no/such/file.toml")).unwrap_err().contains("No such file"));
        let half = read("[[phase]]\nfor = 3\nfrom = 1\n").unwrap();
        assert!(half.shape.stages().unwrap_err().contains("phase 1"));
    }

    #[test]
    fn sources_are_addresses_and_ranges_of_them() {
        let count = |text| sources(text).map(|found| found.len());
        assert_eq!((count("127.0.0.2-127.0.0.9,10.0.0.1"), count("::1")), (Ok(9), Ok(1)));
        assert!(["x", "127.0.0.9-127.0.0.2", "0.0.0.0-255.0.0.0", ""].iter().all(|text| sources(text).is_err()));
    }
}
