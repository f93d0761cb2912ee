//! Numbers as people read them, and text from outside made harmless in a page.

/// A time in nanoseconds, three digits.
pub fn time(ns: f64) -> String {
    let size = ns.abs();
    let (value, unit) = match size {
        _ if size < 1e3 => return format!("{ns:.0} ns"),
        _ if size < 999.5e3 => (ns / 1e3, "us"),
        _ if size < 999.5e6 => (ns / 1e6, "ms"),
        _ => (ns / 1e9, "s"),
    };
    format!("{} {unit}", digits(value))
}

/// Three digits of a number below 1,000.
fn digits(value: f64) -> String {
    match value.abs() {
        size if size < 9.995 => format!("{value:.2}"),
        size if size < 99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// A share as a signed percentage.
pub fn percent_signed(share: f64) -> String {
    let text = format!("{:+.1} %", share * 100.0);
    if text == "+0.0 %" || text == "-0.0 %" { "0.0 %".into() } else { text }
}

/// A share as a percentage.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// A chance.
pub fn chance(p: f64) -> String {
    if p < 0.001 { format!("{p:.5}") } else { format!("{p:.3}") }
}

/// A whole number with its thousands apart.
pub fn count(number: f64) -> String {
    let whole = format!("{:.0}", number.abs());
    let mut text = if number <= -0.5 { "-".to_owned() } else { String::new() };
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of any size, short: for axes and dots.
pub fn short(number: f64) -> String {
    match number.abs() {
        size if size >= 1e9 => format!("{}G", digits_short(number / 1e9)),
        size if size >= 1e6 => format!("{}M", digits_short(number / 1e6)),
        size if size >= 1e4 => format!("{}k", digits_short(number / 1e3)),
        size if size >= 100.0 => format!("{number:.0}"),
        _ => digits_short(number),
    }
}

/// Up to three digits without zeros at the end.
pub(super) fn digits_short(value: f64) -> String {
    let text = digits(value);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// Text for between tags and for attribute values in double quotes. Control characters, which no XML may hold, become U+FFFD.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            '\n' | '\t' => safe.push(character),
            _ if character.is_control() || matches!(character, '\u{fffe}' | '\u{ffff}') => safe.push('\u{fffd}'),
            _ => safe.push(character),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_printed_for_people() {
        assert_eq!(
            [time(999.0), time(1_234.0), time(56_789e3), time(-1.5e9), time(999_900.0)],
            ["999 ns", "1.23 us", "56.8 ms", "-1.50 s", "1.00 ms"]
        );
        assert_eq!([count(0.0), count(1_234_567.4), count(-12_345.0), count(-0.2)], ["0", "1,234,567", "-12,345", "0"]);
        assert_eq!([short(1_250_000.0), short(20_000.0), short(950.0), short(2.5), short(0.0)], ["1.25M", "20k", "950", "2.5", "0"]);
        assert_eq!([percent_signed(0.0512), percent_signed(-1e-9)], ["+5.1 %", "0.0 %"]);
        assert_eq!([percent_signed(-0.0512), percent(0.03), chance(0.00016), chance(0.03)], ["-5.1 %", "3.0 %", "0.00016", "0.030"]);
    }

    #[test]
    fn nothing_that_means_something_to_a_browser_is_left() {
        assert_eq!(escape("<a b=\"c\" d='e'>&\u{0}\u{7f}"), "&lt;a b=&quot;c&quot; d=&#39;e&#39;&gt;&amp;\u{fffd}\u{fffd}");
        assert_eq!(escape("plain \u{e9}\n"), "plain \u{e9}\n");
    }
}
