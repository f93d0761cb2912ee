"""What `compare-peers` has found, as a table in Markdown and as one page without network."""

import html as escape
import json
import math
import os
import statistics

import bench_lib as lib

KEYS = (("cpu", 2), ("p50", 2), ("p99", 2), ("p99_9", 2))
STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --dim: #667; --line: #d5d9df; --bar: #3b6ea8; --own: #c2571a; --bad: #a33; --paper: #fff; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --dim: #98a; --line: #3a3f46; --bar: #6d9bd1; --own: #e58a4e; --bad: #e77; --paper: #16191d; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2.2rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .25rem .6rem; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; } th { font-weight: 600; color: var(--dim); }
tr.own td { font-weight: 600; } td.bad { color: var(--bad); text-align: left; } small, .dim { color: var(--dim); }
svg { width: 100%; height: auto; } svg text { font: 12px system-ui, sans-serif; fill: var(--ink); }
pre { color: var(--dim); font-size: .85rem; white-space: pre-wrap; }
"""


def column(rows, key):
    return [row.get(key) for row in rows]


def sound(rows):
    """Runs with figures: every message came once and in order, if perhaps too late to count as held, and the generator was not what was late."""
    return [row for row in rows if is_sound(row)]


def is_sound(row):
    return bool(row.get("sound")) and not row.get("invalid")


def median(values):
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None


def ratio(rows, base, key):
    """Ratios within a round, of rounds in which both have figures."""
    both = [(a, b) for a, b in zip(rows, base) if is_sound(a) and is_sound(b) and a.get(key) and b.get(key)]
    return [a[key] / b[key] for a, b in both]


def spread(values, digits=2):
    """Median and range, short where they are one."""
    values = [value for value in values if value is not None]
    if not values:
        return "n/a"
    middle, low, high = statistics.median(values), min(values), max(values)
    places = 0 if middle >= 100 else 1 if middle >= 10 else digits
    one = f"{middle:,.{places}f}"
    return one if len(values) == 1 else f"{one} ({low:,.{places}f} .. {high:,.{places}f})"


def note(rows):
    """How many of the runs were held, and why the others were not."""
    doubted = [row["invalid"] for row in rows if row.get("invalid")]
    valid = [row for row in rows if not row.get("invalid")]
    good, reasons = [row for row in valid if row["why"] is None], [row["why"] for row in valid if row["why"]]
    if not rows:
        return "no run"
    if not valid:
        return f"n/a: all {len(rows)} invalid: {doubted[0]}"
    words = f"{len(good)} of {len(valid)}"
    if doubted:
        words += f"; {len(doubted)} invalid, left out: {doubted[0]}"
    if reasons:
        words += f"; not held: {reasons[-1]}"
    return words


def cells(rows, base):
    """The cells of a row: figures of the runs that have any; the last cell says how many were held, and why not all."""
    good = sound(rows)
    figures = [spread(column(good, key), digits) for key, digits in KEYS]
    return [
        figures[0],
        spread(ratio(rows, base, "cpu")),
        figures[1],
        figures[2],
        spread(ratio(rows, base, "p99")),
        figures[3],
        spread([100 * value for value in column(good, "share") if value is not None], 0),
        note(rows),
    ]


HEAD = ["server", "CPU us/delivery", "x ringroom", "p50 ms", "p99 ms", "x ringroom", "p99.9 ms", "CPU %", "runs held"]
LAST_HEAD = ["server", "highest rate held, deliveries/s", "x ringroom", "bytes per idle connection", "x ringroom", "version", "settings"]


def last_cells(side, found):
    top, memory = found["highest"].get(side.name, {}), found["memory"].get(side.name, {})
    own_top, own_memory = found["highest"].get("ringroom", {}), found["memory"].get("ringroom", {})
    rate = f"{top['rate']:,}" if top.get("rate") else f"none: {top['why']}" if top else "not tried"
    if top.get("generator_bound"):
        rate = f"{rate} or more: the generator was full"
    elif top.get("rate") and top.get("why"):
        rate = f"{rate}; above it {top['why']}"
    size = f"{memory['bytes']:,.0f}" if memory.get("bytes") else f"n/a: {memory['why']}" if memory else "not tried"
    if memory.get("stacks", 0) >= 1024:
        size += f" and {memory['stacks']:,.0f} of kernel stacks"
    times = lambda a, b: f"{a / b:.2f}" if a and b else "n/a"
    if side.name in found["ending"]:
        size += f"; {found['ending'][side.name]}"
    return [rate, times(top.get("rate"), own_top.get("rate")), size, times(memory.get("bytes"), own_memory.get("bytes")), side.about, side.settings]


def tables(sides, found):
    """Title, head and rows (name, cells) of every table."""
    for label, rows in found["rows"].items():
        base = rows.get("ringroom", [])
        yield label, HEAD, [(side.name, cells(rows[side.name], base)) for side in sides]
    yield "Highest rate to a room of 100, memory, versions", LAST_HEAD, [(side.name, last_cells(side, found)) for side in sides]


def remarks(args):
    quick = ["The quick form: it shows that everything works; a second per run and few idle connections say little."] if args.quick else []
    return quick + [
        f"Server on CPU {lib.SERVER_CPU}, generator on CPU {lib.GENERATOR_CPU}, bodies of 128 bytes, {args.duration:g} s measured after {args.warmup:g} s of load; every run has a fresh server.",
        "Medians (lowest .. highest) of the valid runs in which every message came once and in order; ratios are taken within a round in which both are.",
        "Invalid: the generator was late, or too busy, by its own account. Such a run counts neither as held nor as not held, and its figures are left out; with no other run there are none (n/a).",
        f"Held: nothing lost, doubled or out of order, 98 % delivered in time, p99 at most {args.held_p99_ms:g} ms. Lost: not there 2 s after the end of the load.",
        "Latency counts from when a message was due. Memory is the slope of PSS between two counts of idle connections in rooms of 100; the kernel's sockets are not in it.",
        "floor: a bare relay on the same ring; threads, tokio, glommio: small servers built in the usual ways (benches/baselines), same bytes per frame.",
    ]


def markdown(sides, found, args):
    lines = [f"- {remark}" for remark in remarks(args)]
    for title, head, rows in tables(sides, found):
        lines += ["", f"### {title}", "", "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
        lines += ["| " + " | ".join([name, *cells]) + " |" for name, cells in rows]
    return "\n".join(lines)


def bars(sides, rows, key, unit):
    """Horizontal bars on a logarithmic scale, one per server."""
    values = [(side.name, median(column(sound(rows[side.name]), key))) for side in sides]
    shown = [(name, value) for name, value in values if value]
    if not shown:
        return ""
    least = math.floor(math.log10(min(value for _, value in shown)))
    most = max(math.ceil(math.log10(max(value for _, value in shown))), least + 1)
    place = lambda value: 110 + 560 * (math.log10(value) - least) / (most - least)
    height, parts = 22 * len(values) + 26, []
    for decade in range(least, most + 1):
        x = place(10**decade)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height - 24}" stroke="var(--line)"/>')
        parts.append(f'<text x="{x:.1f}" y="{height - 8}" text-anchor="middle">{10**decade:g}</text>')
    for index, (name, value) in enumerate(values):
        y, colour = 22 * index, "var(--own)" if name == "ringroom" else "var(--bar)"
        parts.append(f'<text x="104" y="{y + 15}" text-anchor="end">{escape.escape(name)}</text>')
        if value:
            parts.append(f'<rect x="110" y="{y + 3}" width="{max(place(value) - 110, 1):.1f}" height="15" fill="{colour}"/>')
        words = f"{value:,.2f} {unit}" if value else "no figure"
        if value and any(row["why"] and not row.get("invalid") for row in rows[name]):
            words += ", not held"
        parts.append(f'<text x="{(place(value) if value else 110) + 6:.1f}" y="{y + 15}">{words}</text>')
    return f'<svg viewBox="0 0 780 {height}" role="img" aria-label="{key}">{"".join(parts)}</svg>'


def html(sides, found, args):
    text = escape.escape
    machine = "\n".join(lib.origin())
    parts = [f"<!doctype html><html lang=en><meta charset=utf-8><title>ringroom and its peers</title><style>{STYLE}</style>"]
    parts.append(f"<h1>ringroom and its peers</h1><pre>{text(machine)}</pre><ul>")
    parts += [f"<li>{text(remark)}</li>" for remark in remarks(args)]
    parts.append("</ul>")
    for title, head, rows in tables(sides, found):
        parts.append(f"<h2>{text(title)}</h2>")
        if title in found["rows"]:
            parts.append("<p class=dim>CPU time of the server per delivery, us</p>" + bars(sides, found["rows"][title], "cpu", "us"))
            parts.append("<p class=dim>p99 of a delivery, ms</p>" + bars(sides, found["rows"][title], "p99", "ms"))
        parts.append("<table><tr>" + "".join(f"<th>{text(word)}</th>" for word in head) + "</tr>")
        for name, cells in rows:
            own = " class=own" if name == "ringroom" else ""
            bad = lambda cell: " class=bad" if "not held" in cell or cell.startswith(("none", "n/a:")) else ""
            parts.append(f"<tr{own}><td>{text(name)}</td>" + "".join(f"<td{bad(cell)}>{text(cell)}</td>" for cell in cells) + "</tr>")
        parts.append("</table>")
    return "\n".join(parts) + "\n"


def write(folder, table, page, found):
    origin = "\n".join(lib.origin())
    for name, content in (("peers.md", f"```\n{origin}\n```\n\n{table}\n"), ("peers.html", page), ("peers.json", json.dumps(found, indent=1))):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write(content)
