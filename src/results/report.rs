//! The page of one run: `report.html`, made from the run's own files, so that it can be made again.
//!
//! What a field of `result.json` does not hold is left out of the page; a file that is missing or damaged is an error.

use std::fs;
use std::io;
use std::path::Path;

use hdrhistogram::Histogram;
use serde_json::Value;

use crate::chart::markup::Markup;
use crate::chart::page::{self, Align, Cell, document, facts, table, tiles};
use crate::chart::plot::{Axis, Line, Plot, STYLES, Shade, Weight, legend};
use crate::chart::scale::{Scale, Unit};
use crate::chart::text::{count, percent, time};

use super::Problem;
use super::compare::{QUANTILES, as_f64, value_at};
use super::environment;
use super::pictures::{Curve, percentile_curves};
use super::run::Run;

pub const FILE: &str = "report.html";
/// Seconds that are drawn; a longer run is thinned.
const SECONDS_MAX: usize = 1_200;

const CONNECTIONS: &str = "Connections and history";

/// Histograms that belong into one picture.
const GROUPS: [(&str, &[&str]); 4] = [
    ("Deliveries", &["room.delivery", "dm.delivery", "room.last", "room.spread", "probe"]),
    ("The sender's view and the generator's own lateness", &["sent", "uncorrected", "lateness"]),
    (CONNECTIONS, &["connect", "reconnect", "history"]),
    ("Other", &[]),
];

/// Builds `report.html` beside the files of a finished run.
pub fn write(directory: &Path) -> io::Result<()> {
    make(directory).map_err(|problem| io::Error::new(io::ErrorKind::InvalidData, problem.to_string()))
}

/// The same for a program with exit codes.
pub fn make(directory: &Path) -> Result<(), Problem> {
    let run = Run::read(directory)?;
    let file = directory.join(FILE);
    fs::write(&file, page(&run)).map_err(|error| Problem::Output(format!("{}: {error}", file.display())))
}

/// The page.
pub fn page(run: &Run) -> String {
    let what = run.text("scenario.name").or_else(|| run.text("plan.mode")).unwrap_or("run");
    let title = format!("ringroom load: {what}");
    let mut body = Markup::new();
    body.leaf("h1", &[], &title).put(head(run)).put(tiles(&tiles_of(run)));
    body.leaf("h2", &[], "Latency by percentile").put(curves(run)).put(latency_table(run));
    if !run.list("seconds").is_empty() {
        body.leaf("h2", &[], "Second by second").put(timeline(run)).put(rates(run));
    }
    body.leaf("h2", &[], "What became of the messages").put(messages(run));
    for (title, part) in [("Objectives", objectives(run)), ("Search for the highest rate", find_max(run)), ("Generators", agents(run))] {
        if let Some(part) = part {
            body.leaf("h2", &[], title).put(part);
        }
    }
    body.leaf("h2", &[], "Plan").put(facts(&plan(run)));
    body.leaf("h2", &[], "Server").put(facts(&server(run)));
    body.leaf("h2", &[], "Surroundings").put(surroundings(run));
    body.leaf("h2", &[], "How to repeat").put(repeat(run));
    document(&title, body)
}

fn head(run: &Run) -> Markup {
    let verdict = run.text("verdict").unwrap_or("unknown");
    let class = match verdict {
        "ok" => "badge ok",
        _ => "badge invalid",
    };
    let mut head = Markup::new();
    head.open("p", &[]).leaf("span", &[("class", class)], verdict).text(" ");
    let closed = if run.text("loop") == Some("closed") { ", closed loop: its latencies hide stalls" } else { "" };
    head.text(&format!("{} at {}{closed}", run.target(), run.text("plan.address").unwrap_or("?"))).close();
    if let Some(about) = run.text("scenario.about") {
        head.leaf("p", &[("class", "soft")], about);
    }
    if let Some(ms) = run.count("started_unix_ms") {
        head.leaf("p", &[("class", "soft")], &format!("started {}", utc(ms / 1_000)));
    }
    let sentences: Vec<&str> = ["reasons", "warnings"].iter().flat_map(|key| run.list(key)).filter_map(Value::as_str).collect();
    if !sentences.is_empty() {
        head.open("ul", &[("class", "notes")]);
        for sentence in sentences {
            head.leaf("li", &[], sentence);
        }
        head.close();
    }
    head
}

/// A wall clock without a calendar of the system: days to date by H. Hinnant's `civil_from_days`.
fn utc(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC", rest / 3_600, rest / 60 % 60, rest % 60)
}

fn tiles_of(run: &Run) -> Vec<(String, String)> {
    let delivery = run.histograms.get("delivery");
    let at = |quantile| delivery.and_then(|histogram| value_at(histogram, quantile)).map_or_else(|| "n/a".into(), time);
    let number = |path: &str| run.number(path).map_or_else(|| "n/a".into(), count);
    let mut tiles = vec![
        ("deliveries per s".to_owned(), number("delivered_per_s")),
        ("messages per s".to_owned(), number("sent_per_s")),
        ("delivery p50".to_owned(), at(0.5)),
        ("delivery p99".to_owned(), at(0.99)),
        ("delivery p99.9".to_owned(), at(0.999)),
        ("delivery max".to_owned(), delivery.map_or_else(|| "n/a".into(), |histogram| time(as_f64(histogram.max())))),
        ("lost".to_owned(), number("faults.lost")),
    ];
    if let Some(us) = run.number("server.cpu_us_per_delivery") {
        tiles.push(("server CPU per delivery".to_owned(), format!("{us:.3} us")));
    }
    tiles
}

/// A name and its histogram.
type Named<'a> = (&'a str, &'a Histogram<u64>);

/// The histograms of the run by group, in the order they are named there.
fn grouped(run: &Run) -> Vec<(&'static str, Vec<Named<'_>>)> {
    let known = |name: &str| GROUPS.iter().any(|(_, names)| names.contains(&name));
    let of = |names: &'static [&'static str]| -> Vec<Named<'_>> {
        if names.is_empty() {
            let others = run.histograms.iter().filter(|(name, _)| !known(name) && !["warmup", "delivery", ""].contains(&name.as_str()));
            return others.map(|(name, histogram)| (name.as_str(), histogram)).collect();
        }
        names.iter().filter_map(|name| run.histograms.get(*name).map(|histogram| (*name, histogram))).collect()
    };
    GROUPS.iter().map(|(title, names)| (*title, of(names))).filter(|(_, found)| !found.is_empty()).collect()
}

fn curves(run: &Run) -> Markup {
    let mut part = Markup::new();
    for (title, histograms) in grouped(run) {
        let curves: Vec<Curve<'_>> = histograms
            .iter()
            .enumerate()
            .map(|(style, (name, histogram))| Curve { name, style: style % STYLES, weight: Weight::Main, histogram })
            .collect();
        let from = if title == CONNECTIONS { "from the first step to the last answer" } else { "from the time a message was due" };
        let caption = format!("{title}: {from}. Dotted: fewer than 100 samples lie beyond.");
        part.put(percentile_curves(title, &curves, &caption));
    }
    part
}

fn latency_table(run: &Run) -> Markup {
    let number = Align::Number;
    let heads = [
        ("histogram", Align::Text),
        ("samples", number),
        ("p50", number),
        ("p90", number),
        ("p99", number),
        ("p99.9", number),
        ("p99.99", number),
        ("max", number),
    ];
    let row = |(name, histogram): Named<'_>| {
        let quantiles = QUANTILES.iter().map(|(_, quantile)| *quantile).chain([0.9999]);
        let values = quantiles.map(|quantile| Cell::new(value_at(histogram, quantile).map_or_else(|| "n/a".into(), time)));
        let mut cells = vec![Cell::new(name), Cell::new(count(as_f64(histogram.len())))];
        cells.extend(values);
        cells.push(Cell::new(time(as_f64(histogram.max()))));
        cells
    };
    let rows: Vec<Vec<Cell>> = grouped(run).into_iter().flat_map(|(_, histograms)| histograms).map(row).collect();
    table("Latencies of the measured window; n/a: fewer than 100 samples beyond", &heads, &rows)
}

/// A series of the seconds: x in seconds, y of a field.
fn series(run: &Run, value: &dyn Fn(&Value) -> Option<f64>) -> Vec<(f64, f64)> {
    let seconds = run.list("seconds");
    let every = seconds.len().div_ceil(SECONDS_MAX).max(1);
    let point = |second: &Value| Some((field(second, "start_ns")?.midpoint(field(second, "end_ns")?) / 1e9, value(second)?));
    seconds.iter().filter(|second| second.get("phase").and_then(Value::as_str) != Some("grace")).step_by(every).filter_map(point).collect()
}

fn field(second: &Value, key: &str) -> Option<f64> {
    second.get(key)?.as_f64()
}

fn per_second(second: &Value, key: &str) -> Option<f64> {
    let length = (field(second, "end_ns")? - field(second, "start_ns")?) / 1e9;
    // The last piece of a phase may be a sliver, whose rate says nothing.
    (length > 0.2).then(|| field(second, key).map(|events| events / length)).flatten()
}

fn time_axis(run: &Run) -> Axis {
    let last = run.list("seconds").iter().filter_map(|second| field(second, "end_ns")).fold(1e9, f64::max) / 1e9;
    Axis { label: "time since the start".into(), unit: Unit::Seconds, scale: Scale::Linear { from: 0.0, to: last } }
}

/// Warm-up and grace behind the lines.
fn shades(run: &Run) -> Vec<Shade> {
    let span = |phase: &str| -> Option<Shade> {
        let of = |second: &&Value| second.get("phase").and_then(Value::as_str) == Some(phase);
        let all: Vec<&Value> = run.list("seconds").iter().filter(of).collect();
        let (from, to) = (field(all.first()?, "start_ns")? / 1e9, field(all.last()?, "end_ns")? / 1e9);
        Some(Shade { name: if phase == "warmup" { "warm-up" } else { phase }.to_owned(), from, to })
    };
    ["warmup", "grace"].iter().filter_map(|phase| span(phase)).collect()
}

fn timeline(run: &Run) -> Markup {
    let names = [("p50", "p50_ns"), ("p99", "p99_ns"), ("max", "max_ns"), ("lateness p99 (the generator's own)", "lateness_p99_ns")];
    let line = |(style, (name, key)): (usize, (&'static str, &'static str))| Line {
        name: name.to_owned(),
        style,
        weight: Weight::Main,
        points: series(run, &|second| field(second, key).filter(|ns| *ns > 0.0)),
    };
    let lines: Vec<Line> = names.into_iter().enumerate().map(line).collect();
    let scale = Scale::of(lines.iter().flat_map(|line| &line.points).map(|(_, ns)| *ns));
    let y = Axis { label: "latency of deliveries".into(), unit: Unit::Time, scale };
    let shown: Vec<(usize, &str)> = names.iter().enumerate().map(|(style, (name, _))| (style, *name)).collect();
    let mut plot = Plot::new("Latency second by second", "p50, p99 and maximum of each second's deliveries", time_axis(run), y);
    (plot.lines, plot.shades) = (lines, shades(run));
    page::figure("Latency of each second's deliveries, and how late the generator itself was.", Some(legend(&shown)), plot.draw())
}

fn rates(run: &Run) -> Markup {
    let mut part = Markup::new();
    let groups: [(&str, &[(&str, &str)]); 2] =
        [("Messages per second", &[("offered", "offered"), ("sent", "sent")]), ("Deliveries per second", &[("delivered", "delivered")])];
    for (title, names) in groups {
        let line = |(style, (name, key)): (usize, &(&str, &'static str))| Line {
            name: (*name).to_owned(),
            style,
            weight: Weight::Main,
            points: series(run, &|second| per_second(second, key)),
        };
        let lines: Vec<Line> = names.iter().enumerate().map(line).collect();
        let high = lines.iter().flat_map(|line| &line.points).map(|(_, rate)| *rate).fold(1.0, f64::max);
        let y = Axis { label: "per second".into(), unit: Unit::Number, scale: Scale::from_zero(high) };
        let mut plot = Plot::new(title, "Counts of each second", time_axis(run), y);
        (plot.lines, plot.shades, plot.height) = (lines, shades(run), 0.62);
        let shown: Vec<(usize, &str)> = names.iter().enumerate().map(|(style, (name, _))| (style, *name)).collect();
        part.put(page::figure(title, Some(legend(&shown)), plot.draw()));
    }
    part
}

fn messages(run: &Run) -> Markup {
    const ROWS: [(&str, &str); 21] = [
        ("offered by the schedule", "counts.offered"),
        ("sent", "counts.sent"),
        ("answered", "counts.answered"),
        ("delivered", "counts.delivered"),
        ("refused", "counts.refused"),
        ("late (over 1 s)", "counts.late"),
        ("deliveries that had to follow, whole run", "deliveries_expected_in_all"),
        ("deliveries that did, whole run", "deliveries_in_all"),
        ("lost", "faults.lost"),
        ("doubled", "faults.doubled"),
        ("out of order", "faults.out_of_order"),
        ("members that saw another order", "faults.order_differs"),
        ("garbled", "faults.garbled"),
        ("sends without an answer", "faults.unanswered"),
        ("connections closed", "faults.closed"),
        ("not promised (refused or cut off)", "excused"),
        ("never handed to a connection", "unsent"),
        ("gaps announced", "remarks.gaps"),
        ("reconnects", "remarks.reconnects"),
        ("recovered", "remarks.recovered"),
        ("not recovered", "remarks.not_recovered"),
    ];
    let fault = |path: &str, number: u64| number > 0 && (path.starts_with("faults.") || path == "unsent");
    let row = |(name, path): (&str, &str)| {
        let number = run.count(path)?;
        let text = count(as_f64(number));
        Some(vec![Cell::new(name), if fault(path, number) { Cell { text, class: "faulty" } } else { Cell::new(text) }])
    };
    let mut rows: Vec<Vec<Cell>> = ROWS.into_iter().filter_map(row).collect();
    for (title, path) in [("refused", "remarks.refusals"), ("closed", "remarks.closed"), ("failed to connect", "remarks.connect_failures")]
    {
        for (reason, number) in run.at(path).and_then(Value::as_object).into_iter().flatten() {
            rows.push(vec![Cell::new(format!("{title}: {reason}")), Cell::new(count(number.as_f64().unwrap_or(0.0)))]);
        }
    }
    let mut part = table("Counted at every receiver that stayed", &[("what", Align::Text), ("how many", Align::Number)], &rows);
    for example in run.list("remarks.examples").iter().filter_map(Value::as_str) {
        part.leaf("p", &[("class", "soft")], example);
    }
    part
}

fn objectives(run: &Run) -> Option<Markup> {
    let row = |slo: &Value| {
        let met = match slo.get("met") {
            Some(Value::Bool(true)) => Cell { text: "\u{2714} met".into(), class: "ok" },
            Some(Value::Bool(false)) => Cell { text: "\u{2718} missed".into(), class: "missed" },
            _ => Cell { text: "too few samples".into(), class: "missed" },
        };
        let value = slo.get("value_ns").and_then(Value::as_f64).map_or_else(|| "n/a".into(), time);
        vec![Cell::new(slo.get("text").and_then(Value::as_str).unwrap_or("?")), Cell::new(value), met]
    };
    let rows: Vec<Vec<Cell>> = run.list("slo").iter().map(row).collect();
    (!rows.is_empty()).then(|| table("Objectives", &[("objective", Align::Text), ("measured", Align::Number), ("", Align::Text)], &rows))
}

fn find_max(run: &Run) -> Option<Markup> {
    let steps = run.list("find_max.steps");
    let number = |step: &Value, key: &str| step.get(key).and_then(Value::as_f64);
    let row = |step: &Value| {
        let held = if step.get("held") == Some(&Value::Bool(true)) {
            Cell { text: "\u{2714} held".into(), class: "ok" }
        } else {
            Cell { text: "\u{2718} not held".into(), class: "missed" }
        };
        vec![
            Cell::new(number(step, "rate").map_or_else(|| "?".into(), count)),
            Cell::new(number(step, "achieved_per_s").map_or_else(|| "n/a".into(), count)),
            Cell::new(number(step, "p99_ns").map_or_else(|| "n/a".into(), time)),
            held,
            Cell { text: step.get("why").and_then(Value::as_str).unwrap_or_default().to_owned(), class: "why" },
        ]
    };
    let heads =
        [("rate per s", Align::Number), ("achieved per s", Align::Number), ("p99", Align::Number), ("", Align::Text), ("why", Align::Text)];
    let caption = format!("Objective: {}; this page's other figures are of the best rate", run.text("find_max.objective").unwrap_or("?"));
    (!steps.is_empty()).then(|| table(&caption, &heads, &steps.iter().map(row).collect::<Vec<_>>()))
}

fn agents(run: &Run) -> Option<Markup> {
    let at = |agent: &Value, histogram: &str, key: &str| agent.get(histogram)?.get(key)?.as_f64();
    let row = |agent: &Value| {
        let value = |histogram: &str, key: &str| Cell::new(at(agent, histogram, key).map_or_else(|| "n/a".into(), time));
        let number = |key: &str| Cell::new(agent.get(key).and_then(Value::as_f64).map_or_else(|| "n/a".into(), count));
        let text = |key: &str| Cell::new(agent.get(key).and_then(Value::as_str).unwrap_or("?"));
        let [p50, p99] = ["p50_ns", "p99_ns"].map(|key| value("delivery", key));
        vec![text("address"), text("verdict"), number("connections"), number("deliveries_in_all"), p50, p99, value("lateness", "p99_ns")]
    };
    let number = Align::Number;
    let heads = [
        ("generator", Align::Text),
        ("verdict", Align::Text),
        ("connections", number),
        ("deliveries", number),
        ("p50", number),
        ("p99", number),
        ("lateness p99", number),
    ];
    let rows: Vec<Vec<Cell>> = run.list("agents").iter().map(row).collect();
    (!rows.is_empty()).then(|| table("Each generator's own deliveries: one that stands out makes the common tail", &heads, &rows))
}

/// The plan with times and lists as people read them.
fn plan(run: &Run) -> Vec<(String, String)> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for (key, value) in run.at("plan").and_then(Value::as_object).into_iter().flatten() {
        let text = match value {
            Value::Null => continue,
            Value::Number(ns) if key.ends_with("_ns") => time(ns.as_f64().unwrap_or(0.0)),
            Value::String(text) => text.clone(),
            Value::Array(entries) => {
                entries.iter().map(|entry| entry.as_str().map_or_else(|| phase(entry), str::to_owned)).collect::<Vec<_>>().join("; ")
            }
            Value::Object(fields) => fields.iter().map(|(key, value)| format!("{key} {value}")).collect::<Vec<_>>().join(", "),
            Value::Number(number) => number.as_f64().filter(|n| n.fract() == 0.0).map_or_else(|| number.to_string(), count),
            other => other.to_string(),
        };
        pairs.push((key.trim_end_matches("_ns").replace('_', " "), text));
    }
    pairs.push(("measured window".into(), run.number("window_ns").map_or_else(|| "n/a".into(), time)));
    pairs
}

/// `hold 2.00 s to 12.0 s at 1,000 per s`.
fn phase(entry: &Value) -> String {
    let clock = |ns: f64| if ns == 0.0 { "0".to_owned() } else { time(ns) };
    let number = |key: &str| entry.get(key).and_then(Value::as_f64);
    let name = entry.get("name").and_then(Value::as_str).unwrap_or("phase");
    let Some((start, end)) = number("start_ns").zip(number("end_ns")) else { return entry.to_string() };
    let rate = match (number("rate_from"), number("rate_to")) {
        (Some(from), Some(to)) if from == to => format!(" at {} per s", count(from)),
        (Some(from), Some(to)) => format!(" at {} to {} per s", count(from), count(to)),
        _ => String::new(),
    };
    format!("{name} {} to {}{rate}", clock(start), clock(end))
}

fn server(run: &Run) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    let mut put = |name: &str, text: Option<String>| pairs.push((name.to_owned(), text.unwrap_or_else(|| "not observed".into())));
    put("process", run.count("server.pid").map(|pid| pid.to_string()));
    put("CPU time in the window", run.number("server.cpu_ns").map(time));
    let share = run.number("server.cpu_ns").zip(run.number("window_ns")).filter(|(_, window)| *window > 0.0);
    put("part of one CPU", share.map(|(cpu, window)| percent(cpu / window)));
    put("CPU per delivery", run.number("server.cpu_us_per_delivery").map(|us| format!("{us:.3} us")));
    let mib = |path: &str| run.number(path).map(|bytes| format!("{:.1} MiB", bytes / 1_048_576.0));
    put(
        "memory (PSS) before and at the end",
        mib("server.memory_before.pss_bytes").zip(mib("server.memory.pss_bytes")).map(|(a, b)| format!("{a}, {b}")),
    );
    put(
        "busiest generator thread",
        run.number("generator.busy_share").map(|share| format!("{} of a CPU, spin not counted", percent(share))),
    );
    let clock = ["p50", "p99", "max"].map(|q| run.number(&format!("generator.clock.step_{q}_ns")).map(time));
    if let [Some(p50), Some(p99), Some(max)] = clock {
        put("steps of the clock", Some(format!("p50 {p50}, p99 {p99}, max {max}")));
    }
    pairs
}

fn surroundings(run: &Run) -> Markup {
    let (config, facts_of): (Vec<_>, Vec<_>) = environment::of(run).into_iter().partition(|(name, _)| name.starts_with("server_config."));
    let mut part = facts(&facts_of);
    if !config.is_empty() {
        part.open("details", &[]).leaf("summary", &[], "Configuration of the server").put(facts(&config)).close();
    }
    part
}

fn repeat(run: &Run) -> Markup {
    let mut part = Markup::new();
    let words: Vec<String> = run.list("command").iter().filter_map(Value::as_str).map(quoted).collect();
    part.leaf("pre", &[], &if words.is_empty() { "ringroom load --scenario scenario.toml --out DIR".into() } else { words.join(" ") });
    let text = "Beside this page: scenario.toml (the same plan for --scenario), result.json (every figure), run.hlog (every second of every histogram). \
                This page again: ringroom compare --report DIR. Against another run: ringroom compare A/ B/.";
    part.leaf("p", &[("class", "soft")], text);
    part
}

/// A word of a command line that a shell takes as it stands.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_becomes_a_date() {
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(utc(1_795_568_523), "2026-11-25 01:02:03 UTC");
    }

    #[test]
    fn words_of_a_command_are_quoted_for_a_shell() {
        assert_eq!([quoted("--rate=5"), quoted("a b"), quoted("it's"), quoted("")], ["--rate=5", "'a b'", "'it'\\''s'", "''"]);
    }
}
