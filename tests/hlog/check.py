"""Reads the files of a run with a reader that knows nothing of this program, and holds them against result.json.

    check.py DIR        needs the package hdrhistogram; exit 0 when everything agrees
"""

import csv
import json
import os
import sys

from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

print("python", sys.executable)
directory = sys.argv[1]
result = json.load(open(os.path.join(directory, "result.json")))
assert (result["format"], result["version"]) == ("ringroom-load", 2), result["format"]
LONGEST_NS = 60_000_000_000


def log(tag):
    """All intervals of a tag added up, and how many there were. The reader drops tags of lines it skips, so lines are chosen here."""
    path = os.path.join(directory, "run.hlog")
    chosen = path + "." + tag
    with open(chosen, "w") as out:
        for line in open(path):
            if line.startswith("#") or line.startswith("Tag=" + tag + ","):
                out.write(line)
    reader = HistogramLogReader(chosen, HdrHistogram(1, LONGEST_NS, 3))
    total, count = HdrHistogram(1, LONGEST_NS, 3), 0
    while True:
        interval = reader.get_next_interval_histogram()
        if interval is None:
            return total, count
        total.add(interval)
        count += 1


def close(a, b):
    # Three significant digits.
    return abs(a - b) <= 0.002 * max(a, b) + 1


names = [name for name in result["latency"] if name != "delivery"]
assert "room.delivery" in names and "sent" in names and "connect" in names, names
for name in names:
    figures = result["latency"][name]
    total, intervals = log(name)
    if name == "reconnect" or name == "connect":
        # Those of the warm-up are in the result's sum of logins, not in the log of the window.
        assert total.get_total_count() <= figures["count"], name
    else:
        assert total.get_total_count() == figures["count"], (name, total.get_total_count(), figures["count"])
    assert intervals >= 1, name
    for key, percentile in (("p50_ns", 50), ("p90_ns", 90), ("p99_ns", 99)):
        if figures[key] is not None and name not in ("connect", "reconnect"):
            assert close(total.get_value_at_percentile(percentile), figures[key]), (name, key)
    assert close(total.get_max_value(), figures["max_ns"]) or name == "reconnect", name

    rows = [line.split() for line in open(os.path.join(directory, name + ".hgrm")) if line.strip() and not line.startswith("#")]
    assert rows[0][:3] == ["Value", "Percentile", "TotalCount"], rows[0]
    values = [(float(row[0]), float(row[1]), int(row[2])) for row in rows[1:]]
    assert values == sorted(values) and values[-1][1:] == (1.0, figures["count"]), name
    assert close(values[-1][0] * 1000, figures["max_ns"]), name

both = [result["latency"][name]["count"] for name in ("room.delivery", "dm.delivery") if name in result["latency"]]
assert sum(both) == result["latency"]["delivery"]["count"], both

seconds = list(csv.DictReader(open(os.path.join(directory, "seconds.csv"))))
assert len(seconds) == len(result["seconds"]), (len(seconds), len(result["seconds"]))
for row, second in zip(seconds, result["seconds"]):
    for key, value in second.items():
        assert row[key] == ("" if value is None else str(value)), (key, row[key], value)
window = [row for row in seconds if row["phase"] == "measured"]
assert sum(int(row["sent"]) for row in window) == result["counts"]["sent"]
delivered = sum(int(row["delivered"]) for row in seconds if row["phase"] != "warmup")
assert delivered == result["counts"]["delivered"], delivered
print("agreed:", ", ".join(names), f"and {len(seconds)} seconds")
