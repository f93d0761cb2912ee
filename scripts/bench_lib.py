"""What the bench scripts share: building, servers and generators that are started and stopped, medians with their spread.

A script measures by interleaving: in each run every side once, in turn, each with a fresh server, so that a ratio holds on a machine that
is not quiet. Servers run on CPU 0, the generator on CPU 1. Every result begins with the machine, the commit, the command and the config.
Whatever ends the script, the processes it started are ended by pid; nothing here waits without a deadline.
"""

import argparse
import atexit
import contextlib
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CONFIG = os.path.join(ROOT, "benches", "bench.toml")
SERVER_CPU, GENERATOR_CPU = 0, 1
NICE = 0
STARTED = []


def arguments(text, **more):
    """--runs, --duration, --warmup and what the script adds: name=(default, help)."""
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("--runs", type=int, default=5, help="interleaved runs [5]")
    parser.add_argument("--duration", type=float, default=5, help="seconds measured per run [5]")
    parser.add_argument("--warmup", type=float, default=1, help="seconds of load before [1]")
    parser.add_argument("--nice", type=int, default=0, help="of servers and generators; below 0 keeps a shared machine's other work out of the way [0]")
    for name, (default, words) in more.items():
        parser.add_argument("--" + name, type=type(default), default=default, help=f"{words} [{default}]")
    global NICE
    chosen = parser.parse_args()
    NICE = chosen.nice
    return chosen


def build(*benches):
    """Builds server, floor and further benches in release and gives their paths by name. Always with the floor: alone, the server's libraries are
    built with other features."""
    wanted = [word for bench in ("floor", *benches) for word in ("--bench", bench)]
    command = ["cargo", "build", "--release", "--locked", "--bin", "ringroom", *wanted, "--message-format=json-render-diagnostics"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True)
    found = {}
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if message.get("executable"):
            found[message["target"]["name"]] = message["executable"]
    return found


def output(*command):
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=10).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def origin(config=True):
    """Where figures come from: machine, commit, command, build, config; a line each."""
    lines = open("/proc/cpuinfo").read().splitlines()
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    commit = output("git", "log", "-1", "--format=%h") or "unknown"
    dirty = " and changes" if output("git", "status", "--porcelain", "-uno") else ""
    said = [f"machine  {os.cpu_count()} x {model}, Linux {platform.release()}, load {os.getloadavg()[0]:.2f}"]
    said.append(f"commit   {commit}{dirty}")
    said.append(f"command  {' '.join(['scripts/' + os.path.basename(sys.argv[0]), *sys.argv[1:]])}")
    profile = [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith("CARGO_PROFILE_RELEASE")]
    if profile:
        said.append(f"build    {' '.join(profile)}")
    if config:
        keys = [line.strip() for line in open(CONFIG) if line.strip() and not line.startswith("#")]
        said.append(f"config   {os.path.relpath(CONFIG, ROOT)}: {', '.join(keys)}")
    return said


def header(config=True):
    """Says where the figures below come from."""
    print("\n".join(origin(config)), end="\n\n", flush=True)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Process:
    """A process on chosen CPUs whose standard output goes to a file."""

    def __init__(self, command, cpus, nice=0):
        self.log = os.path.join(scratch(), f"{len(STARTED)}.log")
        out = open(self.log, "w")

        def settle():
            os.sched_setaffinity(0, cpus)
            if NICE + nice:
                # A session of its own has a scheduling group of its own, and what is nice is the group.
                os.setsid()
                os.setpriority(os.PRIO_PROCESS, 0, NICE + nice)
                with contextlib.suppress(OSError), open("/proc/self/autogroup", "w") as group:
                    group.write(str(NICE + nice))

        self.popen = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, preexec_fn=settle)
        self.pid = self.popen.pid
        STARTED.append(self.popen)

    def text(self):
        return open(self.log).read()

    def wait(self, seconds):
        return self.popen.wait(timeout=seconds)

    def stop(self, seconds=40):
        """SIGTERM; gives what it has printed."""
        self.popen.send_signal(signal.SIGTERM)
        code = self.popen.wait(timeout=seconds)
        if code not in (0, -signal.SIGTERM):
            raise SystemExit(f"the server ended with {code}:\n{self.text()[-2000:]}")
        return self.text()


class Server(Process):
    """A server that is ready: `address` is where."""

    def __init__(self, command, cpus):
        self.address = f"127.0.0.1:{free_port()}"
        super().__init__([part.replace("ADDRESS", self.address) for part in command], cpus)
        deadline = time.monotonic() + 10
        while "ready on" not in self.text():
            if self.popen.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the server is not ready:\n{self.text()}")
            time.sleep(0.02)


def ringroom(paths, shards=1, cpus=(SERVER_CPU,)):
    """The server under test, with the config of all figures."""
    listed = ",".join(str(cpu) for cpu in cpus)
    return Server([paths["ringroom"], "serve", "--listen", "ADDRESS", "--config", CONFIG, "--shards", str(shards), "--cpus", listed], set(cpus))


def floor(paths):
    return Server([paths["floor"], "--serve", "ADDRESS", "--cpu", str(SERVER_CPU)], {SERVER_CPU})


def start_load(paths, server, flags, nice=0):
    command = [paths["ringroom"], "load", "--connect", server.address, "--server-pid", str(server.pid), "--json"]
    for name, value in flags.items():
        command += ["--" + name] if value is True else ["--" + name, str(value)]
    return Process(command, {GENERATOR_CPU}, nice)


def finish_load(process, seconds):
    """The generator's result, and its exit code as `exit`."""
    code = process.wait(seconds)
    line = process.text().strip().splitlines()[-1] if process.text().strip() else ""
    if not line.startswith("{"):
        raise SystemExit(f"the generator ended with {code}:\n{process.text()[-2000:]}")
    return {**json.loads(line), "exit": code}


def load(paths, server, seconds=180, **flags):
    return finish_load(start_load(paths, server, flags), seconds)


def interleaved(runs, sides):
    """Calls each side once per run, in turn and then in reverse, and gives the lists of results by name."""
    results = {name: [] for name in sides}
    for run in range(runs):
        order = list(sides) if run % 2 == 0 else list(reversed(sides))
        for name in order:
            results[name].append(sides[name]())
    return results


def spread(values, digits=2, unit=""):
    """Median and range."""
    if not values or any(value is None for value in values):
        return "n/a"
    middle = statistics.median(values)
    return f"{middle:.{digits}f}{unit} ({min(values):.{digits}f} .. {max(values):.{digits}f})"


def ratios(over, under):
    """Per run, so that what was slow for both sides of it cancels."""
    return [None if a is None or not b else a / b for a, b in zip(over, under)]


def ms(ns):
    """Milliseconds; a quantile that too few samples lie beyond stays none."""
    return None if ns is None else ns / 1e6


def scratch():
    if not hasattr(scratch, "path"):
        import shutil
        import tempfile

        scratch.path = tempfile.mkdtemp(prefix="ringroom-bench.")
        atexit.register(shutil.rmtree, scratch.path, ignore_errors=True)
        atexit.register(end_all)
    return scratch.path


def end_all():
    for popen in STARTED:
        if popen.poll() is None:
            popen.kill()
            popen.wait(timeout=10)


for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: sys.exit(128 + number))
