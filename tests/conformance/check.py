"""Checks a server against the wire protocol, one line for each check: `ok`, `FAIL` with what was expected and what was seen, or `skip` with why.

    check.py --binary target/debug/ringroom --shards 3     starts servers of its own
    check.py --address 127.0.0.1:7777                      takes one that runs; skips what needs one of its own

Exit code 1 when a check failed, 2 when none was made. `--only` takes words that a check's section and title must have.
"""

import argparse
import concurrent.futures
import os
import signal
import sys
import time
import traceback

sys.dont_write_bytecode = True

import endings
import objects
import rooms
import storms
import transport
from harness import CHECKS, Env, Mismatch, Servers, Skip
from shape import Violation

# The long waits first, so that they pass side by side while the rest is done.
MODULES = (endings, transport, storms, rooms, objects)
WORKERS = 10
# All of it takes half a minute; whoever is not done after this is stuck.
ALL_S = 500


def run(servers, entry):
    """One check: (what happened, a word about it, seconds)."""
    _, _, kind, function = entry
    began, env = time.monotonic(), Env(servers, kind)
    try:
        function(env)
        outcome = ("ok", "")
    except Skip as skip:
        outcome = ("skip", str(skip))
    except (Mismatch, Violation) as fault:
        outcome = ("FAIL", str(fault))
    except Exception as fault:
        where = traceback.extract_tb(fault.__traceback__)
        at = next((frame for frame in where if frame.filename.endswith(tuple(f"{module.__name__}.py" for module in MODULES))), where[-1])
        outcome = ("FAIL", f"{type(fault).__name__}: {fault} ({os.path.basename(at.filename)}:{at.lineno})")
    finally:
        env.close()
    return (*outcome, time.monotonic() - began)


def tell(outcome, section, title, word, seconds):
    print(f"{outcome:4} {section:8} {title}" + (f"\n       {word}" if word else "") + (f"  [{seconds:.1f} s]" if seconds > 20 else ""), flush=True)


def options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--address", help="host:port of a server that runs")
    where.add_argument("--binary", help="the program, to start servers of our own")
    parser.add_argument("--shards", type=int, default=1, help="shards of our own servers")
    parser.add_argument("--only", nargs="*", default=[], help="words that a check's section and title must have")
    parser.add_argument("--workers", type=int, default=WORKERS, help="checks at a time")
    return parser.parse_args()


def give_up(servers):
    """Leaves nothing running."""
    print(f"FAIL not done after {ALL_S} s", flush=True)
    servers.kill()
    os._exit(1)


def main():
    asked = options()
    address = None
    if asked.address:
        host, _, port = asked.address.rpartition(":")
        address = (host.strip("[]"), int(port))
    servers = Servers(address, asked.binary, asked.shards)
    order = [module.__name__ for module in MODULES]
    chosen = [entry for entry in CHECKS if all(word in f"{entry[0]} {entry[1]}" for word in asked.only)]
    chosen.sort(key=lambda entry: order.index(entry[3].__module__))
    counts = {"ok": 0, "skip": 0, "FAIL": 0}
    signal.signal(signal.SIGALRM, lambda *_: give_up(servers))
    signal.alarm(ALL_S)
    try:
        with concurrent.futures.ThreadPoolExecutor(asked.workers) as pool:
            for entry, future in [(entry, pool.submit(run, servers, entry)) for entry in chosen]:
                outcome, word, seconds = future.result()
                counts[outcome] += 1
                tell(outcome, entry[0], entry[1], word, seconds)
    finally:
        ends = servers.stop()
    for kind, code, said in ends:
        good = code == 0 and "panicked" not in said and "ERROR" not in said
        counts["ok" if good else "FAIL"] += 1
        tell("ok" if good else "FAIL", "3.14", f"the `{kind}` server got through all of it and ends with 0", "" if good else f"{code}: {said[-2000:]}", 0)
    print(f"{sum(counts.values())} checks: {counts['ok']} ok, {counts['FAIL']} failed, {counts['skip']} skipped")
    return 1 if counts["FAIL"] else 0 if counts["ok"] else 2


if __name__ == "__main__":
    sys.exit(main())
