//! The page around the pictures: one file, readable in light and dark, on a phone and on paper, without network and without a script.

use super::markup::Markup;

/// The whole file.
pub fn document(title: &str, body: Markup) -> String {
    let mut page = Markup::new();
    page.trusted("<!DOCTYPE html>\n").open("html", &[("lang", "en")]);
    page.open("head", &[]).empty("meta", &[("charset", "utf-8")]);
    page.empty("meta", &[("name", "viewport"), ("content", "width=device-width, initial-scale=1")]);
    page.empty("meta", &[("name", "color-scheme"), ("content", "light dark")]);
    // Nothing may be loaded or run, whatever a name in a file tries.
    page.empty("meta", &[("http-equiv", "Content-Security-Policy"), ("content", "default-src 'none'; style-src 'unsafe-inline'")]);
    page.leaf("title", &[], title).open("style", &[]).trusted(STYLE).close().close();
    page.open("body", &[]).open("main", &[]).put(body).close().close().close();
    page.finish()
}

/// How a cell is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    Text,
    Number,
}

/// A cell's text and its class of the style sheet, which may be empty.
#[derive(Clone, Debug)]
pub struct Cell {
    pub text: String,
    pub class: &'static str,
}

impl Cell {
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), class: "" }
    }
}

/// A table: its caption, heads with their setting, rows. The first cell of a row names the row.
pub fn table(caption: &str, heads: &[(&str, Align)], rows: &[Vec<Cell>]) -> Markup {
    let mut table = Markup::new();
    // Wide tables scroll in their own box, also by keyboard.
    table.open("div", &[("class", "scroll"), ("tabindex", "0"), ("role", "region"), ("aria-label", caption)]).open("table", &[]);
    table.leaf("caption", &[], caption).open("thead", &[]).open("tr", &[]);
    for (text, align) in heads {
        table.leaf("th", &[("scope", "col"), ("class", class_of(*align))], text);
    }
    table.close().close().open("tbody", &[]);
    for row in rows {
        table.open("tr", &[]);
        for (place, cell) in row.iter().enumerate() {
            let align = heads.get(place).map_or(Align::Text, |head| head.1);
            let class = format!("{} {}", class_of(align), cell.class);
            let class = class.trim();
            if place == 0 {
                table.leaf("th", &[("scope", "row"), ("class", class)], &cell.text);
            } else {
                table.leaf("td", &[("class", class)], &cell.text);
            }
        }
        table.close();
    }
    table.close().close().close();
    table
}

fn class_of(align: Align) -> &'static str {
    match align {
        Align::Text => "",
        Align::Number => "number",
    }
}

/// Names and values under each other.
pub fn facts(pairs: &[(String, String)]) -> Markup {
    let mut list = Markup::new();
    list.open("dl", &[]);
    for (name, value) in pairs {
        list.open("div", &[]).leaf("dt", &[], name).leaf("dd", &[], value).close();
    }
    list.close();
    list
}

/// A few large figures.
pub fn tiles(tiles: &[(String, String)]) -> Markup {
    let mut list = Markup::new();
    list.open("ul", &[("class", "tiles")]);
    for (name, value) in tiles {
        list.open("li", &[]).leaf("strong", &[], value).leaf("span", &[], name).close();
    }
    list.close();
    list
}

/// A picture with its caption.
pub fn figure(caption: &str, legend: Option<Markup>, picture: Markup) -> Markup {
    let mut figure = Markup::new();
    figure.open("figure", &[]);
    if let Some(legend) = legend {
        figure.put(legend);
    }
    figure.put(picture).leaf("figcaption", &[], caption).close();
    figure
}

/// Colours by Okabe and Ito, which people with any colour vision tell apart; lighter ones on dark.
const STYLE: &str = "
:root{--bg:#fff;--fg:#1b1f24;--soft:#57606a;--line:#d5dae0;--panel:#f5f7f9;--good:#00664b;--bad:#a63c00;
--c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#b5528f;--c4:#8a6d00;--c5:#3b9bd6;--c6:#5d5d5d;--c7:#7a4fbf}
@media (prefers-color-scheme:dark){:root{--bg:#14171b;--fg:#e6e9ed;--soft:#9da7b3;--line:#363d46;--panel:#1d2228;--good:#4fd6ad;--bad:#ff9d5c;
--c0:#56b4e9;--c1:#ff8a3d;--c2:#35d0a0;--c3:#e79ac9;--c4:#e6c229;--c5:#9ad1f5;--c6:#b8b8b8;--c7:#bda2f0}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--fg);font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}
main{max-width:960px;margin:0 auto;padding:20px 16px 48px}
h1{font-size:1.5rem;line-height:1.25;margin:0 0 4px;overflow-wrap:anywhere}
h2{font-size:1.15rem;margin:36px 0 8px;padding-top:12px;border-top:1px solid var(--line)}
h3{font-size:1rem;margin:22px 0 6px}
p{margin:6px 0;max-width:75ch;overflow-wrap:anywhere}
.soft,figcaption{color:var(--soft)}
.badge{display:inline-block;padding:1px 10px;border:1.5px solid currentColor;border-radius:99px;font-weight:600;white-space:nowrap}
.better,.worse,.plain{white-space:nowrap}
.better,.ok{color:var(--good);font-weight:600}
.worse,.faulty,.invalid,.missed{color:var(--bad);font-weight:600}
.short{padding-left:20px;margin:12px 0}
.notes{margin:12px 0;padding:8px 12px 8px 28px;background:var(--panel);border-left:4px solid var(--bad)}
.tiles{list-style:none;display:grid;grid-template-columns:repeat(auto-fit,minmax(min(200px,45%),1fr));gap:8px;padding:0;margin:16px 0}
.tiles li{background:var(--panel);border:1px solid var(--line);border-radius:6px;padding:8px 10px}
.tiles strong{display:block;font-size:1.2rem;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
.tiles span{color:var(--soft);font-size:.82rem}
figure{margin:12px 0 20px}
figcaption{font-size:.86rem;max-width:80ch}
svg.wide,svg.narrow{display:block;width:100%;height:auto}
svg.narrow{display:none}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:2px 18px;padding:0;margin:0 0 4px;font-size:.88rem}
.legend li{overflow-wrap:anywhere}
.legend svg{vertical-align:-1px;margin-right:6px}
svg text{fill:var(--fg);font:12px system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}
svg .axis,svg .small{fill:var(--soft)}
svg .small{font-size:11px}
svg .middle{text-anchor:middle}
svg .end{text-anchor:end}
.grid{stroke:var(--line);stroke-width:1}
.grid.zero{stroke:var(--soft);stroke-width:1.5}
.edge{stroke:var(--soft);stroke-width:1}
.shade{fill:var(--soft);opacity:.12}
.stripe{fill:var(--soft);opacity:.16}
.line{fill:none;stroke-width:2.2;stroke-linejoin:round}
.line.faint{stroke-width:1;opacity:.32}
.line.dotted{stroke-width:1.8;stroke-dasharray:1.5 4!important;stroke-linecap:round}
.dot{stroke-width:2}
.band{opacity:.22;stroke:none!important}
.median{stroke-width:2.5}
.mark{fill-opacity:.55;stroke-width:1.2}
.s0{stroke:var(--c0)}.s1{stroke:var(--c1);stroke-dasharray:9 4}.s2{stroke:var(--c2);stroke-dasharray:3 3}.s3{stroke:var(--c3);stroke-dasharray:12 3 3 3}
.s4{stroke:var(--c4);stroke-dasharray:6 2}.s5{stroke:var(--c5);stroke-dasharray:14 5}.s6{stroke:var(--c6);stroke-dasharray:2 4}.s7{stroke:var(--c7);stroke-dasharray:8 3 2 3 2 3}
.mark,.median,.line.faint{stroke-dasharray:none}
.mark.s0,.band.s0{fill:var(--c0)}.mark.s1,.band.s1{fill:var(--c1)}.mark.s2,.band.s2{fill:var(--c2)}.mark.s3,.band.s3{fill:var(--c3)}
.mark.s4,.band.s4{fill:var(--c4)}.mark.s5,.band.s5{fill:var(--c5)}.mark.s6,.band.s6{fill:var(--c6)}.mark.s7,.band.s7{fill:var(--c7)}
.scroll{overflow-x:auto;margin:10px 0}
table{border-collapse:collapse;width:100%;font-size:.88rem;font-variant-numeric:tabular-nums}
caption{text-align:left;font-weight:600;padding:4px 0}
th,td{padding:4px 10px 4px 0;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
thead th{color:var(--soft);font-weight:500;white-space:nowrap}
tbody th{font-weight:500}
.number{text-align:right;white-space:nowrap}
.why{min-width:190px;color:var(--soft);font-size:.84rem}
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(280px,1fr));gap:0 24px;margin:8px 0;font-size:.88rem}
dl div{display:flex;gap:10px;justify-content:space-between;border-bottom:1px solid var(--line);padding:3px 0;min-width:0}
dt{flex:0 0 auto;max-width:48%;color:var(--soft);overflow-wrap:anywhere}
dd{margin:0;text-align:right;overflow-wrap:anywhere;min-width:0}
pre{background:var(--panel);border:1px solid var(--line);border-radius:6px;padding:10px;white-space:pre-wrap;overflow-wrap:anywhere;font-size:.84rem}
summary{cursor:pointer;font-weight:600;margin:8px 0}
@media (max-width:600px){main{padding:14px 12px 40px}svg.wide{display:none}svg.narrow{display:block}dl{grid-template-columns:1fr}}
@media print{:root{--bg:#fff;--fg:#000;--soft:#444;--line:#bbb;--panel:#fff;--good:#00664b;--bad:#a63c00;--c0:#0072b2;--c1:#d55e00;--c2:#009e73;
--c3:#b5528f;--c4:#8a6d00;--c5:#3b9bd6;--c6:#5d5d5d;--c7:#7a4fbf}main{max-width:none;padding:0}svg.wide{display:block}svg.narrow{display:none}
figure,tr,.tiles li{break-inside:avoid}h2,h3{break-after:avoid}.scroll{overflow:visible}}
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_loads_nothing() {
        let mut body = Markup::new();
        body.leaf("h1", &[], "x").put(table("c", &[("a", Align::Text)], &[vec![Cell::new("<b>")]]));
        let text = document("t<", body);
        assert!(text.starts_with("<!DOCTYPE html>") && text.contains("&lt;b&gt;") && text.contains("<title>t&lt;</title>"));
        assert!(!["http:", "https:", "src=", "href=", "url(", "@import", "<script"].iter().any(|word| text.contains(word)));
    }
}
