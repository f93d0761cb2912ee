"""The table of checks, what a check may expect, and the servers it runs against.

A check is a function of an `Env`, entered in the table by `@check(section, title)`. It fails by raising. It makes its own users and rooms, so that checks
can run side by side. A connection that a check opens is closed behind it.
"""

import contextlib
import itertools
import os
import re
import signal
import subprocess
import tempfile
import threading
import time

from client import PATIENCE_S, Connection, Ended, Refused, Session
from shape import Observer

CHECKS = []
ABSENT = object()
# How long a check listens for what must not come. Too short misses a fault, and never invents one.
QUIET_S = 0.15

# What the server kinds differ in; the rest is the server's default.
CONFIGS = {
    "plain": "",
    "main": "[limits]\nrequests_per_s = 1000000\nrequests_burst = 1000000\n",
    "brisk": "[limits]\nheartbeat_ms = 1000\n",
    "drain": "[limits]\ndrain_ms = 4000\n",
}


class Mismatch(Exception):
    """What was expected, and what was seen."""

    def __init__(self, expected, seen):
        raw = getattr(seen, "raw", None)
        super().__init__(f"expected {expected}; seen {raw if raw is not None else seen!r}")


class Skip(Exception):
    """The server at hand can't show it."""


def check(section, title, server="main"):
    """Enters a check in the table."""

    def enter(function):
        CHECKS.append((section, title, server, function))
        return function

    return enter


def expect(seen, **fields):
    """`seen` has these fields with these values; `ABSENT`: hasn't the field."""
    for name, value in fields.items():
        found = seen.get(name, ABSENT)
        if found is not value and (value is ABSENT or found is ABSENT or found != value or type(found) is not type(value)):
            wanted = {key: "(absent)" if each is ABSENT else each for key, each in fields.items()}
            raise Mismatch(wanted, seen)
    return seen


def same(expected, seen, what=""):
    if expected != seen:
        raise Mismatch(f"{what} {expected!r}".strip(), seen)


def true(condition, expected, seen):
    if not condition:
        raise Mismatch(expected, seen)


def expect_refused(session, kind, code, reason, **fields):
    """The request is answered by an `error` that carries its id."""
    try:
        answer = session.request(kind, **fields)
    except Refused as refused:
        return expect(refused.error, code=code, reason=reason)
    raise Mismatch(f"error {code} {reason} to {kind} {fields}", answer)


def expect_alive(session):
    expect(session.request("ping"), type="pong")


def expect_end(connection, code, reason, patience_s=PATIENCE_S):
    """The connection ends: this `bye` is the last object, then a clean end. Returns what came before it."""
    before = []
    try:
        deadline = time.monotonic() + patience_s
        while True:
            before.append(connection.read(deadline - time.monotonic()))
    except Ended as ended:
        expect(ended.bye or {}, type="bye", code=code, reason=reason)
        same("eof", ended.how, "behind the bye")
    return before[:-1]


def read_until(connection, wanted, patience_s=PATIENCE_S):
    """Everything up to the first object that `wanted` says yes to, that one last."""
    deadline, seen = time.monotonic() + patience_s, []
    while not seen or not wanted(seen[-1]):
        try:
            seen.append(connection.read(deadline - time.monotonic()))
        except (TimeoutError, Ended) as end:
            raise Mismatch("more objects", f"{end!r} after {[each.raw for each in seen[-8:]]}") from None
    return seen


def read_answers(connection, ids):
    """Reads until each id is answered. Returns the answers by id, and everything in the order it came."""
    missing, seen = set(ids), []
    while missing:
        seen += read_until(connection, lambda received: received.get("id") in missing)
        missing.discard(seen[-1]["id"])
    return {received["id"]: received for received in seen if "id" in received}, seen


def expect_quiet(session, *kinds):
    """None of these types comes (of any, when none is given). Answers the server's pings."""
    deadline = time.monotonic() + QUIET_S
    with contextlib.suppress(TimeoutError):
        while True:
            received = session.next_event(patience_s=deadline - time.monotonic())
            true(kinds and received["type"] not in kinds, f"nothing of {kinds or 'any type'}", received)


class Server:
    """A server of our own, stopped at the end."""

    def __init__(self, binary, shards, config):
        self._folder = tempfile.TemporaryDirectory()
        path = os.path.join(self._folder.name, "ringroom.toml")
        with open(path, "w") as file:
            file.write(config)
        self._said = open(os.path.join(self._folder.name, "said"), "w+")
        command = [binary, "serve", "--shards", str(shards), "--listen", "127.0.0.1:0", "--config", path]
        deadline = time.monotonic() + PATIENCE_S
        while (match := self._start(command)) is None:
            code, said = self.kill(), self.said()
            # The kernel gives locked memory back some time after its owner has ended.
            if "locked memory" not in said or time.monotonic() > deadline:
                raise RuntimeError(f"the server did not start ({code}): {said}")
            self._said.truncate(0)
            time.sleep(0.2)
        self.address = (match[1].strip("[]"), int(match[2]))

    def _start(self, command):
        environment = {name: value for name, value in os.environ.items() if name != "RUST_LOG"}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self._said, stdin=subprocess.DEVNULL, text=True, env=environment
        )
        return re.search(r"ready on (\S+):(\d+):", self.process.stdout.readline())

    def said(self):
        self._said.flush()
        self._said.seek(0)
        return self._said.read()

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def wait(self, patience_s=PATIENCE_S):
        """Its exit code."""
        return self.process.wait(patience_s)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        return self.process.wait(PATIENCE_S)

    def close(self):
        self.kill()
        self.process.stdout.close()
        self._said.close()
        self._folder.cleanup()


class Servers:
    """One server for each kind, started when first asked for; or the one at an address that was given."""

    def __init__(self, address=None, binary=None, shards=1):
        self.address, self._binary, self._shards = address, binary, shards
        self._running, self._made, self._lock = {}, [], threading.Lock()

    def at(self, kind):
        """The address of a server of this kind."""
        if self.address is not None:
            return self.address
        with self._lock:
            if kind not in self._running:
                self._running[kind] = self.fresh(kind)
            return self._running[kind].address

    def fresh(self, kind):
        """A server that the caller has for itself and stops."""
        if self._binary is None:
            raise Skip("needs a server of its own")
        server = Server(self._binary, self._shards, CONFIGS[kind])
        self._made.append(server)
        return server

    def kill(self):
        for server in self._made:
            server.kill()

    def stop(self):
        """Stops them all; each must have got through everything: (kind, exit code, what it said)."""
        with self._lock:
            running, self._running = self._running, {}
        for server in running.values():
            server.terminate()
        ends = []
        for kind, server in running.items():
            try:
                ends.append((kind, server.wait(), server.said()))
            except subprocess.TimeoutExpired:
                ends.append((kind, f"killed: {server.kill()}", server.said()))
            server.close()
        return ends


class Env:
    """What one check has in its hands."""

    _serial = itertools.count()
    _run = f"{os.getpid():x}{int(time.time()):x}"

    def __init__(self, servers, kind):
        self.servers, self.kind = servers, kind
        self._open = contextlib.ExitStack()

    def name(self, word="x"):
        """A name that nobody has."""
        return f"{word}.{self._run}.{next(self._serial)}"

    def connect(self, maker=Connection, address=None, **options):
        """A connection that has said nothing yet."""
        address = address or self.servers.at(self.kind)
        return self._open.enter_context(maker(address, observer=Observer(), **options))

    def session(self, user=None, address=None, receive_buffer=None, **hello):
        """A session that is in."""
        session = self.connect(Session, address, receive_buffer=receive_buffer)
        session.hello(user or self.name("user"), **hello)
        return session

    def server(self, kind):
        """A server of this check's own."""
        server = self.servers.fresh(kind)
        self._open.callback(server.close)
        return server

    def close(self):
        self._open.close()
