//! The page of a comparison: the ranked table of effects first, then curves, shifts, cost, surroundings, and how to have it again.

use crate::chart::markup::Markup;
use crate::chart::page::{Align, Cell, document, facts, table};
use crate::chart::text::{chance, percent, percent_signed};
use crate::results::page::{environment, method, side_curves, verdicts};
use crate::results::pictures::shift_plot;
use crate::results::side::Side;
use crate::stats::verdict::Verdict;

use super::outcome::{Answer, Effect};

/// Curves that can be told apart in one picture.
const CURVES_MAX: usize = 8;

/// The whole page.
pub(super) fn page(answer: &Answer, sides: &[Side]) -> String {
    let comparison = &answer.comparison;
    let names: Vec<&str> = comparison.sides.iter().map(|side| side.name.as_str()).collect();
    let mut body = Markup::new();
    body.leaf("h1", &[], &format!("What {} do to latency", answer.plan.profiles.join(", ")));
    body.put(head(answer));
    body.leaf("h2", &[], "Effects").put(effects(&answer.effects));
    body.put(unobservable(answer));
    let histograms: Vec<&str> =
        comparison.pairs.first().map(|pair| pair.histograms.iter().map(|histogram| histogram.name.as_str()).collect()).unwrap_or_default();
    for name in histograms {
        body.leaf("h2", &[], name);
        for chunk in chunks(sides) {
            body.put(side_curves(&chunk, name));
        }
        for (number, pair) in comparison.pairs.iter().enumerate() {
            let histogram = pair.histograms.iter().find(|histogram| histogram.name == name);
            if let Some(picture) = histogram.and_then(|histogram| shift_plot(histogram, [pair.a.as_str(), pair.b.as_str()], number + 1)) {
                body.leaf("h3", &[], &format!("{name}: {} against {}", pair.b, pair.a)).put(picture);
            }
        }
    }
    body.leaf("h2", &[], "Every figure");
    for pair in &comparison.pairs {
        body.put(verdicts(pair));
    }
    body.leaf("h2", &[], "Surroundings that differ").put(environment(&comparison.environment, &names));
    body.leaf("h2", &[], "Sides").put(values(answer));
    body.leaf("h2", &[], "Method").put(method(comparison));
    body.leaf("h2", &[], "How to repeat").leaf("pre", &[], &answer.plan.command);
    if let Some(scenario) = &answer.plan.scenario {
        body.leaf("pre", &[], scenario);
    }
    document("ringroom tune compare", body)
}

fn head(answer: &Answer) -> Markup {
    let plan = &answer.plan;
    let load = if plan.load.is_empty() { "the defaults of ringroom load".to_owned() } else { plan.load.join(" ") };
    let one_host = plan.load_host.as_ref().map_or_else(|| "this host".to_owned(), Clone::clone);
    let mut head = Markup::new();
    head.put(facts(&[
        ("mode".to_owned(), format!("{:?}", plan.mode).to_lowercase()),
        ("runs of a side".to_owned(), plan.runs.to_string()),
        ("load".to_owned(), load),
        ("CPUs".to_owned(), format!("shards {}, generator {} on {one_host}", plan.shard_cpus, plan.client_cpus)),
    ]));
    if !answer.comparison.notes.is_empty() {
        head.open("ul", &[("class", "notes")]);
        for note in &answer.comparison.notes {
            head.leaf("li", &[], note);
        }
        head.close();
    }
    head
}

/// One row a subject and figure, CPU cost beside latency.
fn effects(effects: &[Effect]) -> Markup {
    let number = Align::Number;
    let heads = [
        ("setting or profile", Align::Text),
        ("figure", Align::Text),
        ("verdict", Align::Text),
        ("effect", number),
        ("95 % interval", number),
        ("p (Holm)", number),
        ("noise", number),
        ("CPU of the server", number),
        ("measured", Align::Text),
    ];
    let rows: Vec<Vec<Cell>> = effects.iter().filter(|effect| effect.figure != CPU).map(|effect| row(effect, effects)).collect();
    table("What each does, the largest shown effect first", &heads, &rows)
}

const CPU: &str = "whole run cpu";

fn row(effect: &Effect, all: &[Effect]) -> Vec<Cell> {
    let or_na = |text: Option<String>| Cell::new(text.unwrap_or_else(|| "n/a".to_owned()));
    let interval =
        effect.low_share.zip(effect.high_share).map(|(low, high)| format!("{} .. {}", percent_signed(low), percent_signed(high)));
    let (mark, class) = match effect.verdict {
        Verdict::Better => ("\u{2714} ", "better"),
        Verdict::Worse => ("\u{2718} ", "worse"),
        Verdict::Invalid => ("", "invalid"),
        Verdict::NotShown | Verdict::NoSamples => ("", ""),
    };
    let cpu = all.iter().find(|other| other.subject == effect.subject && other.measured == effect.measured && other.figure == CPU);
    let cpu = cpu.and_then(|cpu| Some(format!("{} ({})", percent_signed(cpu.share?), cpu.verdict.name())));
    vec![
        Cell::new(effect.subject.clone()),
        Cell::new(effect.figure.clone()),
        Cell { text: format!("{mark}{}", effect.verdict.name()), class },
        or_na(effect.share.map(percent_signed)),
        or_na(interval),
        or_na(effect.p_holm.map(chance)),
        or_na(effect.noise_share.map(percent)),
        or_na(cpu),
        Cell::new(effect.measured),
    ]
}

/// What could not be compared here, said as such and not as zero.
fn unobservable(answer: &Answer) -> Markup {
    let mut part = Markup::new();
    if !answer.unobservable.is_empty() {
        let rows: Vec<Vec<Cell>> = answer
            .unobservable
            .iter()
            .map(|absent| vec![Cell::new(absent.setting.clone()), Cell::new("not observable here"), Cell::new(absent.why.clone())])
            .collect();
        part.put(table(
            "Settings that could not be compared on this machine",
            &[("setting", Align::Text), ("verdict", Align::Text), ("why", Align::Text)],
            &rows,
        ));
    }
    part
}

/// The first side in every picture, the others in portions.
fn chunks(sides: &[Side]) -> Vec<Vec<(usize, &Side)>> {
    let Some((first, others)) = sides.split_first() else { return Vec::new() };
    let numbered: Vec<(usize, &Side)> = others.iter().enumerate().map(|(i, side)| (i + 1, side)).collect();
    numbered.chunks(CURVES_MAX - 1).map(|chunk| std::iter::once((0, first)).chain(chunk.iter().copied()).collect()).collect()
}

/// What each side had set.
fn values(answer: &Answer) -> Markup {
    let rows: Vec<Vec<Cell>> = answer
        .plan
        .sides
        .iter()
        .map(|side| {
            let values: Vec<String> = side.values.iter().map(|(id, value)| format!("{id} = {value}")).collect();
            vec![Cell::new(side.name.clone()), Cell::new(if values.is_empty() { "nothing".to_owned() } else { values.join("; ") })]
        })
        .collect();
    table("Wanted values of each side; what is not observable had no effect", &[("side", Align::Text), ("values", Align::Text)], &rows)
}
