//! A picture with two axes: lines, bands, dots, and areas behind them.
//!
//! Drawn twice into a figure, wide and narrow; the style sheet shows one of them. Colours and dashes are classes of the style sheet (`s0` to `s7`), so
//! that they follow the reader's scheme and a copied picture in a print stays readable.

use super::markup::Markup;
use super::scale::{Scale, Unit};
use super::text::escape;

/// Styles that look different; beyond, they repeat.
pub const STYLES: usize = 8;
/// Points of one line: pages stay small.
const POINTS_MAX: usize = 4_000;

/// An axis: what it says, in which unit, between which ends.
#[derive(Clone, Debug)]
pub struct Axis {
    pub label: String,
    pub unit: Unit,
    pub scale: Scale,
}

/// What a line is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    Main,
    /// One run among others.
    Faint,
    /// Too few samples to rely on.
    Dotted,
}

#[derive(Clone, Debug)]
pub struct Line {
    /// Shown when pointed at.
    pub name: String,
    pub style: usize,
    pub weight: Weight,
    pub points: Vec<(f64, f64)>,
}

/// An area between two lines: x, low, high.
#[derive(Clone, Debug)]
pub struct Band {
    pub style: usize,
    pub points: Vec<(f64, f64, f64)>,
}

/// A part of the x axis behind everything, with its name.
#[derive(Clone, Debug)]
pub struct Shade {
    pub name: String,
    pub from: f64,
    pub to: f64,
}

/// A horizontal stripe that means something: the noise, the threshold.
#[derive(Clone, Copy, Debug)]
pub struct Stripe {
    pub low: f64,
    pub high: f64,
}

/// A whole picture. `title` and `about` are read to those who can't see it.
#[derive(Clone, Debug)]
pub struct Plot {
    pub title: String,
    pub about: String,
    pub x: Axis,
    pub y: Axis,
    pub lines: Vec<Line>,
    pub bands: Vec<Band>,
    pub shades: Vec<Shade>,
    pub stripe: Option<Stripe>,
    /// Height as a part of the usual one.
    pub height: f64,
}

impl Plot {
    pub fn new(title: &str, about: &str, x: Axis, y: Axis) -> Self {
        let (lines, bands, shades) = (Vec::new(), Vec::new(), Vec::new());
        Self { title: title.into(), about: about.into(), x, y, lines, bands, shades, stripe: None, height: 1.0 }
    }

    /// Both drawings.
    pub fn draw(&self) -> Markup {
        let mut figure = Markup::new();
        for size in [Size::Wide, Size::Narrow] {
            figure.put(self.sized(size));
        }
        figure
    }

    fn sized(&self, size: Size) -> Markup {
        let frame = Frame::new(size, self.height);
        let mut svg = Markup::new();
        begin(&mut svg, &frame, &self.title, &self.about);
        for shade in &self.shades {
            let (from, to) = (frame.x(self.x.scale.place(shade.from)), frame.x(self.x.scale.place(shade.to)));
            rectangle(&mut svg, "shade", Area { left: from, top: frame.top, right: to, bottom: frame.bottom() });
            if to - from > 7.0 * pixels(shade.name.chars().count()) {
                label(&mut svg, "small middle", from.midpoint(to), frame.top + 12.0, &shade.name);
            }
        }
        if let Some(stripe) = self.stripe {
            let (low, high) = (frame.y(self.y.scale.place(stripe.low)), frame.y(self.y.scale.place(stripe.high)));
            rectangle(&mut svg, "stripe", Area { left: frame.left, top: high, right: frame.right(), bottom: low });
        }
        draw_axes(&mut svg, &frame, &self.x, &self.y);
        for band in &self.bands {
            self.band(&mut svg, &frame, band);
        }
        for faint in [true, false] {
            self.lines.iter().filter(|line| (line.weight == Weight::Faint) == faint).for_each(|line| self.line(&mut svg, &frame, line));
        }
        svg.close();
        svg
    }

    fn at(&self, frame: &Frame, x: f64, y: f64) -> (f64, f64) {
        (frame.x(self.x.scale.place(x)), frame.y(self.y.scale.place(y)))
    }

    fn line(&self, svg: &mut Markup, frame: &Frame, line: &Line) {
        let places: Vec<(f64, f64)> = line.points.iter().take(POINTS_MAX).map(|(x, y)| self.at(frame, *x, *y)).collect();
        let weight = match line.weight {
            Weight::Main => "line",
            Weight::Faint => "line faint",
            Weight::Dotted => "line dotted",
        };
        let class = format!("{weight} s{}", line.style % STYLES);
        match places.as_slice() {
            [] => {}
            [(x, y)] => {
                let class = format!("dot {class}");
                svg.open("circle", &[("class", &class), ("cx", &n(*x)), ("cy", &n(*y)), ("r", "3")]).leaf("title", &[], &line.name).close();
            }
            _ => {
                svg.open("path", &[("class", &class), ("d", &path(&places))]).leaf("title", &[], &line.name).close();
            }
        }
    }

    fn band(&self, svg: &mut Markup, frame: &Frame, band: &Band) {
        let points = || band.points.iter().take(POINTS_MAX);
        let mut outline: Vec<(f64, f64)> = points().map(|(x, _, high)| self.at(frame, *x, *high)).collect();
        outline.extend(points().rev().map(|(x, low, _)| self.at(frame, *x, *low)));
        if outline.len() > 2 {
            let class = format!("band s{}", band.style % STYLES);
            svg.empty("path", &[("class", &class), ("d", &format!("{}Z", path(&outline)))]);
        }
    }
}

/// Values of runs as dots, a row each: all values of a row lie on one line.
#[derive(Clone, Debug)]
pub struct Dots {
    pub title: String,
    pub about: String,
    pub x: Axis,
    pub rows: Vec<DotRow>,
}

#[derive(Clone, Debug)]
pub struct DotRow {
    pub label: String,
    /// Style, name, and the values.
    pub groups: Vec<(usize, String, Vec<f64>)>,
}

/// Height of a group of dots.
const GROUP_HEIGHT: f64 = 17.0;

impl Dots {
    pub fn draw(&self) -> Markup {
        let mut figure = Markup::new();
        for size in [Size::Wide, Size::Narrow] {
            figure.put(self.sized(size));
        }
        figure
    }

    fn sized(&self, size: Size) -> Markup {
        let mut frame = Frame::new(size, 1.0);
        frame.top = 10.0;
        let groups: usize = self.rows.iter().map(|row| row.groups.len()).sum();
        frame.height = frame.top + frame.below + GROUP_HEIGHT * pixels(groups) + 10.0 * pixels(self.rows.len());
        let mut svg = Markup::new();
        begin(&mut svg, &frame, &self.title, &self.about);
        draw_x(&mut svg, &frame, &self.x);
        let mut y = frame.top + 8.0;
        for row in &self.rows {
            let height = GROUP_HEIGHT * pixels(row.groups.len());
            label(&mut svg, "end", frame.left - 8.0, y + height / 2.0 + 4.0, &row.label);
            for (style, name, values) in &row.groups {
                self.group(&mut svg, &frame, y + GROUP_HEIGHT / 2.0, (*style, name, values));
                y += GROUP_HEIGHT;
            }
            y += 10.0;
        }
        svg.close();
        svg
    }

    fn group(&self, svg: &mut Markup, frame: &Frame, y: f64, (style, name, values): (usize, &str, &[f64])) {
        for value in values {
            let x = frame.x(self.x.scale.place(*value));
            let title = format!("{name}: {}", self.x.unit.label(*value));
            mark(svg, style, x, y, &title);
        }
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        if let Some(median) = middle(&sorted) {
            let x = n(frame.x(self.x.scale.place(median)));
            let class = format!("median s{}", style % STYLES);
            svg.empty("line", &[("class", &class), ("x1", &x), ("x2", &x), ("y1", &n(y - 7.5)), ("y2", &n(y + 7.5))]);
        }
    }
}

fn middle(sorted: &[f64]) -> Option<f64> {
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted.get(half).copied() } else { Some(sorted.get(half.checked_sub(1)?)?.midpoint(sorted[half])) }
}

/// Marks differ in shape, so that colour is not needed.
fn mark(svg: &mut Markup, style: usize, x: f64, y: f64, title: &str) {
    let class = format!("mark s{}", style % STYLES);
    let d = match style % 4 {
        0 => format!("M{} {}a4 4 0 1 0 8 0a4 4 0 1 0 -8 0Z", n(x - 4.0), n(y)),
        1 => format!("M{} {}h7v7h-7Z", n(x - 3.5), n(y - 3.5)),
        2 => format!("M{} {}l4.5 8h-9Z", n(x), n(y - 4.5)),
        _ => format!("M{} {}l4.5 4.5l-4.5 4.5l-4.5 -4.5Z", n(x), n(y - 4.5)),
    };
    svg.open("path", &[("class", &class), ("d", &d)]).leaf("title", &[], title).close();
}

/// The names of lines beside a sample of each.
pub fn legend(entries: &[(usize, &str)]) -> Markup {
    names(entries, |list, style| {
        let class = format!("line s{}", style % STYLES);
        list.empty("path", &[("class", &class), ("d", "M1 6H33")]);
    })
}

/// The names of marks beside one of each.
pub fn legend_of_marks(entries: &[(usize, &str)]) -> Markup {
    names(entries, mark_only)
}

fn names(entries: &[(usize, &str)], sample: fn(&mut Markup, usize)) -> Markup {
    let mut list = Markup::new();
    list.open("ul", &[("class", "legend")]);
    for (style, name) in entries {
        list.open("li", &[]).open("svg", &[("width", "34"), ("height", "12"), ("viewBox", "0 0 34 12"), ("aria-hidden", "true")]);
        sample(&mut list, *style);
        list.close().text(name).close();
    }
    list.close();
    list
}

fn mark_only(list: &mut Markup, style: usize) {
    let class = format!("mark s{}", style % STYLES);
    let d = match style % 4 {
        0 => "M13 6a4 4 0 1 0 8 0a4 4 0 1 0 -8 0Z",
        1 => "M13.5 2.5h7v7h-7Z",
        2 => "M17 1.5l4.5 8h-9Z",
        _ => "M17 1.5l4.5 4.5l-4.5 4.5l-4.5 -4.5Z",
    };
    list.empty("path", &[("class", &class), ("d", d)]);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Size {
    /// For screens and paper.
    Wide,
    /// For a phone held upright.
    Narrow,
}

/// The picture's outer size and the place of the axes in it, in its own units.
struct Frame {
    size: Size,
    width: f64,
    height: f64,
    left: f64,
    top: f64,
    beside: f64,
    below: f64,
}

impl Frame {
    fn new(size: Size, height: f64) -> Self {
        match size {
            Size::Wide => Self { size, width: 880.0, height: 350.0 * height, left: 78.0, top: 12.0, beside: 20.0, below: 46.0 },
            Size::Narrow => Self { size, width: 360.0, height: 280.0 * height.max(0.8), left: 56.0, top: 24.0, beside: 12.0, below: 44.0 },
        }
    }

    fn right(&self) -> f64 {
        self.width - self.beside
    }

    fn bottom(&self) -> f64 {
        self.height - self.below
    }

    fn x(&self, place: f64) -> f64 {
        self.left + place * (self.right() - self.left)
    }

    fn y(&self, place: f64) -> f64 {
        self.bottom() - place * (self.bottom() - self.top)
    }

    fn ticks_x(&self) -> f64 {
        if self.size == Size::Wide { 9.0 } else { 4.0 }
    }
}

fn begin(svg: &mut Markup, frame: &Frame, title: &str, about: &str) {
    let class = if frame.size == Size::Wide { "wide" } else { "narrow" };
    let view = format!("0 0 {} {}", n(frame.width), n(frame.height));
    // Names for the reader's ear; an id would have to be unique in the page, a label needs none.
    let spoken = format!("{title}. {about}");
    svg.open("svg", &[("class", class), ("viewBox", &view), ("role", "img"), ("aria-label", &spoken)]);
    svg.leaf("title", &[], title).leaf("desc", &[], about);
}

fn draw_axes(svg: &mut Markup, frame: &Frame, x: &Axis, y: &Axis) {
    let most = ((frame.bottom() - frame.top) / 34.0).max(2.0);
    for tick in y.scale.ticks(most) {
        let place = frame.y(y.scale.place(tick));
        let class = if tick == 0.0 { "grid zero" } else { "grid" };
        rule(svg, class, [frame.left, place, frame.right(), place]);
        label(svg, "end", frame.left - 6.0, place + 4.0, &y.unit.label(tick));
    }
    draw_x(svg, frame, x);
    match frame.size {
        Size::Wide => {
            let (across, up) = (13.0, frame.top.midpoint(frame.bottom()));
            let turn = format!("rotate(-90 {} {})", n(across), n(up));
            svg.leaf("text", &[("class", "axis middle"), ("x", &n(across)), ("y", &n(up)), ("transform", &turn)], &y.label);
        }
        // Beside the marks there is no room: the label lies above them.
        Size::Narrow => label(svg, "axis", 4.0, 13.0, &y.label),
    }
}

fn draw_x(svg: &mut Markup, frame: &Frame, x: &Axis) {
    let mut free_from = f64::NEG_INFINITY;
    for tick in x.scale.ticks(frame.ticks_x()) {
        let place = frame.x(x.scale.place(tick));
        rule(svg, if tick == 0.0 && x.unit == Unit::ShareSigned { "grid zero" } else { "grid" }, [place, frame.top, place, frame.bottom()]);
        let text = x.unit.label(tick);
        let half = 3.6 * pixels(text.chars().count());
        if place - half >= free_from {
            let last = place + half > frame.width;
            label(svg, if last { "end" } else { "middle" }, if last { frame.width - 2.0 } else { place }, frame.bottom() + 16.0, &text);
            free_from = place + half + 4.0;
        }
    }
    rule(svg, "edge", [frame.left, frame.bottom(), frame.right(), frame.bottom()]);
    label(svg, "axis middle", frame.left.midpoint(frame.right()), frame.height - 8.0, &x.label);
}

fn rule(svg: &mut Markup, class: &str, [x1, y1, x2, y2]: [f64; 4]) {
    svg.empty("line", &[("class", class), ("x1", &n(x1)), ("y1", &n(y1)), ("x2", &n(x2)), ("y2", &n(y2))]);
}

struct Area {
    left: f64,
    top: f64,
    right: f64,
    bottom: f64,
}

fn rectangle(svg: &mut Markup, class: &str, area: Area) {
    let (width, height) = ((area.right - area.left).max(0.0), (area.bottom - area.top).max(0.0));
    svg.empty("rect", &[("class", class), ("x", &n(area.left)), ("y", &n(area.top)), ("width", &n(width)), ("height", &n(height))]);
}

fn label(svg: &mut Markup, class: &str, x: f64, y: f64, text: &str) {
    svg.leaf("text", &[("class", class), ("x", &n(x)), ("y", &n(y))], text);
}

fn path(places: &[(f64, f64)]) -> String {
    let mut d = String::new();
    for (i, (x, y)) in places.iter().enumerate() {
        d.push(if i == 0 { 'M' } else { 'L' });
        d.push_str(&n(*x));
        d.push(' ');
        d.push_str(&n(*y));
    }
    escape(&d)
}

/// A length in the picture: a tenth is finer than anyone sees.
fn n(length: f64) -> String {
    let text = format!("{length:.1}");
    text.strip_suffix(".0").map_or_else(|| text.clone(), str::to_owned)
}

#[allow(clippy::cast_precision_loss, reason = "counts of letters and rows")]
fn pixels(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(unit: Unit, scale: Scale) -> Axis {
        Axis { label: "latency <ns>".into(), unit, scale }
    }

    #[test]
    fn a_plot_is_drawn_twice_with_its_texts_escaped() {
        let mut plot =
            Plot::new("a & b", "about \"it\"", axis(Unit::Quantile, Scale::Nines { most: 5.0 }), axis(Unit::Time, Scale::from_zero(5e6)));
        plot.lines.push(Line { name: "<script>".into(), style: 1, weight: Weight::Main, points: vec![(0.0, 1e6), (0.99, 4e6)] });
        plot.bands.push(Band { style: 0, points: vec![(0.0, 1e6, 2e6), (0.9, 1e6, 3e6)] });
        plot.shades.push(Shade { name: "warm-up".into(), from: 0.0, to: 0.9 });
        let text = plot.draw().finish();
        assert_eq!(text.matches("<svg").count(), 2);
        assert!(text.contains("&lt;script&gt;") && !text.contains("<script") && text.contains("a &amp; b"));
        assert!(!text.contains("NaN") && !text.contains("inf"));
    }

    #[test]
    fn what_is_empty_or_no_number_is_drawn_without_harm() {
        let mut plot =
            Plot::new("t", "a", axis(Unit::Number, Scale::of(std::iter::empty())), axis(Unit::Time, Scale::of(std::iter::empty())));
        plot.lines.push(Line { name: "n".into(), style: 9, weight: Weight::Main, points: vec![(f64::NAN, f64::INFINITY)] });
        plot.lines.push(Line { name: "e".into(), style: 0, weight: Weight::Dotted, points: Vec::new() });
        let text = plot.draw().finish();
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        let dots = Dots { title: "t".into(), about: "a".into(), x: axis(Unit::Number, Scale::from_zero(1.0)), rows: Vec::new() };
        assert!(!dots.draw().finish().contains("NaN"));
    }
}
