"""Section 3, rules 11, 12 and 14: silence, slow readers, the server's own end."""

import contextlib
import socket
import threading
import time

from client import PATIENCE_S, Ended, frame
from harness import Mismatch, Skip, check, expect, expect_end, expect_quiet, read_until, same, true
from rooms import joined, side_by_side

# A clock may be read a little before the tick that it is judged by.
SLACK_S = 0.1


def brisk(session):
    """The heartbeat in seconds, where it is short enough to wait for."""
    heartbeat_s = session.welcome["heartbeat_ms"] / 1000
    if heartbeat_s > 2:
        raise Skip(f"a heartbeat of {heartbeat_s} s")
    return heartbeat_s


# Rule 11


@check("3.11", "silence: a `ping`, and after twice the time `bye` 408 idle", server="brisk")
def _(env):
    session = env.session()
    heartbeat_s, began = brisk(session), time.monotonic()
    expect(session.read(), type="ping")
    true(time.monotonic() - began >= heartbeat_s - SLACK_S, f"{heartbeat_s} s", time.monotonic() - began)
    before = expect_end(session, 408, "idle")
    same([], [each.raw for each in before], "no other object:")
    true(time.monotonic() - began >= 2 * heartbeat_s - SLACK_S, f"{2 * heartbeat_s} s", time.monotonic() - began)


@check("3.11", "a session that answers stays", server="brisk")
def _(env):
    session = env.session()
    until, pings = time.monotonic() + 4 * brisk(session), 0
    while time.monotonic() < until:
        expect(session.read(), type="ping")
        session.write({"type": "pong"})
        pings += 1
    true(pings >= 3, "several pings", pings)


@check("3.11", "any bytes count: pieces of a frame are as good as a `pong`", server="brisk")
def _(env):
    session = env.session()
    heartbeat_s = brisk(session)
    for byte in frame({"type": "ping", "id": 1})[: int(4 / 0.3)]:
        session.write_bytes(bytes([byte]))
        try:
            raise Mismatch("no ping, no end", session.read(0.3 * heartbeat_s))
        except TimeoutError:
            pass


@check("3.11", "a client that asks often is never asked", server="brisk")
def _(env):
    session = env.session()
    heartbeat_s = brisk(session)
    for number in range(int(4 / 0.3)):
        session.write({"type": "ping", "id": number})
        expect(session.read(), type="pong", id=number)
        time.sleep(0.3 * heartbeat_s)


@check("3.11", "what the server sends is no sign of life of the client", server="brisk")
def _(env):
    room = env.name("room")
    session, sender = joined(env, room, 2, echo=False)
    heartbeat_s, began = brisk(session), time.monotonic()
    kinds = []
    deadline = began + PATIENCE_S
    with contextlib.suppress(Ended):
        while time.monotonic() < deadline:
            sender.request("send", room=room, body=1)
            with contextlib.suppress(TimeoutError):
                while True:
                    kinds.append(session.read(0.2 * heartbeat_s)["type"])
    same(["ping", "bye"], [kind for kind in kinds if kind != "message"])


@check("3.11, 3.9", "a session that went silent leaves its rooms", server="brisk")
def _(env):
    room = env.name("room")
    (watcher,) = joined(env, room, 1, presence=True)
    brisk(watcher)
    (silent,) = joined(env, room, 1)
    expect(watcher.next_event("member"), event="join", members=2)
    expect(watcher.next_event("member"), event="leave", user=silent.user, members=1)


# Rule 12


def drain_rest(session):
    """What still comes from a session that ended: the objects, and how it ended."""
    session.events.clear()
    seen = []
    try:
        while True:
            seen.append(session.read())
    except Ended as ended:
        return seen, ended


@check("3.12", "a reader that stops is ended at the hard mark; nobody else loses anything")
def _(env):
    room, count = env.name("room"), 100
    watcher, sender, reader = joined(env, room, 3, presence=True)
    slow = env.session(receive_buffer=4096)
    slow.request("join", room=room)
    read_until(watcher, lambda each: each.get("user") == slow.user)

    # Nobody but the slow one falls behind: each message waits until those before it have come to all others.
    behind = threading.Semaphore(4)

    def send():
        for number in range(count):
            true(behind.acquire(timeout=PATIENCE_S), "the reader to go on", number)
            sender.request("send", room=room, body=f"{number}:" + "y" * 60_000)

    def read(session, come=lambda: None):
        bodies = []
        while len(bodies) < count:
            bodies.append(int(session.next_event("message")["body"].partition(":")[0]))
            come()
        same(list(range(count)), bodies)

    left = []
    def watch():
        bodies = 0
        while bodies < count or not left:
            received = watcher.next_event()
            bodies += received["type"] == "message"
            left.extend([received] if received.get("event") == "leave" else [])

    side_by_side(send, lambda: read(reader, behind.release), watch)
    expect(left[0], user=slow.user, members=3)
    read(sender)
    seen, ended = drain_rest(slow)
    bodies = [int(each["body"].partition(":")[0]) for each in seen if each["type"] == "message"]
    same(list(range(len(bodies))), bodies, "no hole in what came")
    true(len(bodies) < count, "an end before all", len(bodies))
    if ended.bye is not None:
        expect(ended.bye, code=429, reason="slow_consumer")


@check("3.12", "a slow reader that reads on finds the `bye` behind whole objects")
def _(env):
    room = env.name("room")
    (sender,) = joined(env, room, 1)
    slow = env.session(receive_buffer=4096)
    slow.request("join", room=room)
    stop = []

    def send():
        while not stop:
            sender.request("send", room=room, body="y" * 60_000)

    def read_slowly():
        try:
            while True:
                slow.read()
                time.sleep(0.05)
        except Ended as ended:
            expect(ended.bye or {}, type="bye", code=429, reason="slow_consumer")
        finally:
            stop.append(True)

    side_by_side(send, read_slowly)


@check("3.12", "a reader that takes nothing for 10 s is ended, though little waits")
def _(env):
    room = env.name("room")
    watcher, sender = joined(env, room, 2, presence=True, echo=False)
    slow = env.session(receive_buffer=4096)
    slow.request("join", room=room)
    read_until(watcher, lambda each: each.get("user") == slow.user)
    began = time.monotonic()
    for _ in range(9):
        sender.request("send", room=room, body="y" * 60_000)
    expect(read_until(watcher, lambda each: each["type"] == "member")[-1], event="leave", user=slow.user)
    # Longer than 10 s: what the kernel still moves in the beginning counts, and is seen a second later at most.
    true(10 - SLACK_S <= time.monotonic() - began < 20, "10 s and a little", time.monotonic() - began)


@check("3.12", "a reader that pauses for less than 10 s misses nothing")
def _(env):
    room = env.name("room")
    (sender,) = joined(env, room, 1, echo=False)
    slow = env.session(receive_buffer=4096)
    slow.request("join", room=room)
    for number in range(9):
        sender.request("send", room=room, body=f"{number}:" + "y" * 60_000)
    time.sleep(5)
    for number in range(9):
        same(number, int(slow.next_event("message")["body"].partition(":")[0]))


# Rule 14


@check("3.14", "SIGTERM: `bye` 503 draining to everybody, with a spread-out time to come back; exit 0")
def _(env):
    server = env.server("drain")
    room = "room"
    sessions = [env.session(address=server.address) for _ in range(12)]
    for session in sessions:
        session.request("join", room=room, presence=True)
    for number, session in enumerate(sessions):
        for _ in range(len(sessions) - 1 - number):
            session.next_event("member")
    server.terminate()
    waits = []
    for session in sessions:
        same([], [each.raw for each in expect_end(session, 503, "draining")], "no member objects:")
        waits.append(session._last.get("retry_after_ms"))
    true(None not in waits and len(set(waits)) > 3, "`retry_after_ms`, spread out", waits)
    same(0, server.wait(), "exit code")


@check("3.14", "SIGTERM: what was read is answered before the `bye`, in whole objects")
def _(env):
    server = env.server("drain")
    room, count, all_in = "room", 1000, threading.Barrier(3)
    sessions = [env.session(address=server.address) for _ in range(3)]
    for session in sessions:
        session.request("join", room=room, echo=False)

    def work(session):
        session.write(*({"type": "send", "id": number, "room": room, "body": number} for number in range(count)))
        read_until(session, lambda each: each["type"] == "sent")
        if all_in.wait(PATIENCE_S) == 0:
            server.terminate()
        before = expect_end(session, 503, "draining")
        answered = [each["id"] for each in before if each["type"] == "sent"]
        same(list(range(1, len(answered) + 1)), answered, "the first ones, in order:")

    side_by_side(*(lambda session=session: work(session) for session in sessions))
    same(0, server.wait(), "exit code")


@check("3.14", "SIGTERM: what was read before it is answered and delivered")
def _(env):
    server = env.server("drain")
    rooms = [f"room{number}" for number in range(50)]
    sender, reader = env.session(address=server.address), env.session(address=server.address)
    for room in rooms:
        reader.request("join", room=room)
        sender.request("join", room=room, echo=False)
    sender.write(*({"type": "send", "id": number, "room": room, "body": number} for number, room in enumerate(rooms)), {"type": "ping", "id": 99})
    # The pong says that all of it was read.
    before = read_until(sender, lambda each: each["type"] == "pong")
    server.terminate()
    before += expect_end(sender, 503, "draining")
    same(set(range(50)), {each["id"] for each in before if each["type"] == "sent"}, "sent:")
    after = expect_end(reader, 503, "draining")
    same(set(range(50)), {each["body"] for each in after if each["type"] == "message"}, "delivered:")
    same(0, server.wait(), "exit code")


@check("3.14", "SIGTERM: connections without a session, and with half a frame, don't hold it up")
def _(env):
    server = env.server("drain")
    silent, halfway = env.connect(address=server.address), env.connect(address=server.address)
    halfway.write_bytes(b'\0\0\0\x2b{"type"')
    session = env.session(address=server.address)
    session.write_bytes(b"\0\0\1")
    time.sleep(0.2)
    server.terminate()
    expect_end(session, 503, "draining")
    for connection in (silent, halfway):
        try:
            while True:
                expect(connection.read(), type="bye")
        except Ended as ended:
            same("eof", ended.how)
    same(0, server.wait(), "exit code")


@check("3.14", "SIGTERM: no new connections, and an end within the drain time though a client doesn't read")
def _(env):
    server = env.server("drain")
    stuck = env.session(address=server.address, receive_buffer=4096)
    stuck.request("join", room="room")
    sender = env.session(address=server.address)
    sender.request("join", room="room", echo=False)
    for _ in range(9):
        sender.request("send", room="room", body="y" * 60_000)
    server.terminate()
    began = time.monotonic()
    expect_end(sender, 503, "draining")
    try:
        with socket.create_connection(server.address, 5) as late:
            late.settimeout(5)
            late.sendall(frame({"type": "hello", "version": 1, "user": "late"}))
            true(b"welcome" not in late.recv(4096), "no new session", "a welcome")
    except OSError:
        pass
    code = server.wait()
    true(time.monotonic() - began < 4 + 10, "an end within 4 s", time.monotonic() - began)
    same(0, code, "exit code")


@check("3.14", "SIGTERM to a server without clients: exit 0")
def _(env):
    server = env.server("drain")
    server.terminate()
    same(0, server.wait(), "exit code")
