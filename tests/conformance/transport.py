"""Section 1: frames, their limits and deadlines, how bytes may be cut, and how a connection ends."""

import json
import random
import struct
import threading
import time

from client import Ended, Session, frame
from harness import Mismatch, check, expect, expect_alive, expect_end, expect_refused, read_answers, read_until, same, true

HELLO_MAX, FRAME_MAX, BODY_MAX = 4096, 65536, 61440


def padded(fields, size):
    """An object of exactly so many bytes; what fills it is a field that nobody knows."""
    text = json.dumps({**fields, "padding": ""})
    return json.dumps({**fields, "padding": "x" * (size - len(text))})


def hello(user):
    return {"type": "hello", "version": 1, "user": user}


@check("1", "the length is four bytes, big-endian, and counts the JSON only")
def _(env):
    connection = env.connect()
    connection.write_bytes(b'\x00\x00\x00\x2b{"type":"hello","version":1,"user":"alice"}')
    expect(connection.read(), type="welcome", user="alice")


@check("1", "an object of 4,096 bytes is taken before `welcome`")
def _(env):
    connection = env.connect()
    connection.write(padded(hello("alice"), HELLO_MAX))
    expect(connection.read(), type="welcome")


@check("1", "a length of 4,097 before `welcome` ends the connection at once: 413")
def _(env):
    connection = env.connect()
    connection.write_bytes(struct.pack(">I", HELLO_MAX + 1))
    same([], expect_end(connection, 413, "frame_too_large", 4), "nothing before")


@check("1", "an object of 65,536 bytes is taken")
def _(env):
    session = env.session()
    session.write(padded({"type": "ping", "id": 5}, FRAME_MAX))
    expect(session.read(), type="pong", id=5)


@check("1", "a length over the limit ends the connection at once: 413")
def _(env):
    for length in (FRAME_MAX + 1, 0x01000000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF):
        session = env.session()
        session.write_bytes(struct.pack(">I", length))
        expect_end(session, 413, "frame_too_large", 8)


@check("1", "a length of 0 ends the connection: 400 bad_frame")
def _(env):
    for connection in (env.connect(), env.session()):
        connection.write_bytes(bytes(4))
        same([], expect_end(connection, 400, "bad_frame", 8), "nothing before")


@check("1", "what was asked before a bad length is answered")
def _(env):
    session = env.session()
    session.write_bytes(frame({"type": "ping", "id": 1}) + bytes(4) + frame({"type": "ping", "id": 2}))
    before = expect_end(session, 400, "bad_frame")
    same([("pong", 1)], [(each["type"], each.get("id")) for each in before])


@check("1", "a body of 61,440 bytes arrives whole, at others too, with the longest names")
def _(env):
    user, room = env.name("u").ljust(64, "u"), env.name("r").ljust(64, "r")
    sender, reader = env.session(user), env.session()
    for session in (sender, reader):
        session.request("join", room=room)
    body = '"' + "y" * (BODY_MAX - 2) + '"'
    sender.write(f'{{"type":"send","id":9007199254740991,"room":"{room}","body":{body}}}')
    expect(sender.read(), type="sent", id=2**53 - 1)
    for session in (sender, reader):
        same(body.encode(), session.next_event("message").raw_field("body"))


@check("1", "a body of 61,441 bytes is refused: 413 body_too_large, and the session goes on")
def _(env):
    session = env.session()
    room = env.name("room")
    session.request("join", room=room)
    for _ in range(10):
        expect_refused(session, "send", 413, "body_too_large", room=room, body="y" * (BODY_MAX - 1))
    expect_alive(session)


@check("1, 3.1", "what waits behind `hello` in the same packet may be as large as after `welcome`")
def _(env):
    connection = env.connect()
    user = env.name("user")
    connection.write(hello(user), {"type": "send", "id": 1, "room": f"@{user}", "body": "y" * (BODY_MAX - 2)})
    expect(connection.read(), type="welcome")
    expect(connection.read(), type="sent", id=1)
    expect(connection.read(), type="message")


@check("1", "a frame that isn't whole within 10 s ends the connection: 408 frame_timeout")
def _(env):
    whole = frame({"type": "ping", "id": 1})
    halves = [(env.session(), whole[:cut]) for cut in (1, 3, 4, 5, len(whole) - 1)]
    for session, half in halves:
        session.write_bytes(half)
    began = time.monotonic()
    for session, _ in halves:
        same([], expect_end(session, 408, "frame_timeout"), "nothing before")
        true(time.monotonic() - began >= 9.5, "10 s", time.monotonic() - began)


@check("1", "a frame that trickles in for longer than 10 s ends the connection: 408 frame_timeout")
def _(env):
    session = env.session()
    began = time.monotonic()
    for byte in frame({"type": "ping", "padding": "x" * 100}):
        try:
            session.write_bytes(bytes([byte]))
            raise Mismatch("nothing yet", session.read(0.4))
        except TimeoutError:
            continue
        except (Mismatch, ConnectionError, Ended):
            break
    true(9.5 <= time.monotonic() - began < 25, "the end after 10 s", time.monotonic() - began)


@check("1", "a frame that comes slowly but within 10 s is taken, and each frame has its own 10 s")
def _(env):
    session = env.session()
    for number in range(2):
        data = frame({"type": "ping", "id": number})
        for at in range(0, len(data), 4):
            session.write_bytes(data[at : at + 4])
            time.sleep(0.9)
        expect(session.read(), type="pong", id=number)


def exchange(user, room):
    """A session's whole life as objects; everything about one room, so that the answers have one order."""
    return [
        hello(user),
        {"type": "send", "id": 0, "room": room, "body": 1},
        {"type": "join", "id": 1, "room": room, "presence": True},
        {"type": "send", "id": 2, "room": room, "body": {"text": "h\u00e9 \U0001f600"}, "key": "k1"},
        {"type": "presence", "id": 3, "room": room},
        {"type": "send", "id": 4, "room": room, "body": [], "ephemeral": True},
        {"type": "join", "id": 5, "room": room},
        {"type": "nonsense", "id": 6},
        {"type": "leave", "id": 7, "room": room},
        {"type": "send", "id": 8, "room": room, "body": 1},
        {"type": "ping", "id": 9},
    ]


def transcript(env, cuts):
    """The exchange, written in pieces as `cuts` makes them of its bytes; the answers without what differs each time."""
    user, room = env.name("user"), env.name("room")
    with env.connect() as connection:
        for piece in cuts(b"".join(map(frame, exchange(user, room)))):
            connection.write_bytes(piece)
        _, seen = read_answers(connection, range(10))
        connection.write({"type": "bye"})
        seen += expect_end(connection, 0, "bye")
    varying = ("at", "ts", "session", "inbox", "message")
    plain = [{name: value for name, value in each.items() if name not in varying} for each in seen]
    return sorted(json.dumps(each, sort_keys=True).replace(user, "USER").replace(room, "ROOM") for each in plain)


def at_once(data):
    return [data]


@check("1", "an object may come in any number of pieces, and many in one")
def _(env):
    expected = transcript(env, at_once)
    same(expected, transcript(env, lambda data: [data[at : at + 1] for at in range(len(data))]), "byte by byte")
    generator = random.Random(7)

    def slowly(data):
        while data:
            size = generator.choice((1, 2, 3, 4, 5, 7, 40, 90))
            yield data[:size]
            data = data[size:]
            time.sleep(0.002)

    for round in range(4):
        same(expected, transcript(env, slowly), f"cut at random, round {round}")


@check("1", "an object may be cut in two anywhere")
def _(env):
    expected = transcript(env, at_once)
    length = sum(len(frame(each)) for each in exchange(env.name("user"), env.name("room")))

    def cut_at(at):
        def cuts(data):
            yield data[:at]
            time.sleep(0.003)
            yield data[at:]

        return cuts

    for at in range(1, length, 3):
        same(expected, transcript(env, cut_at(at)), f"cut at byte {at}")


@check("1", "the largest object in thousands of pieces, and behind a small one in the same piece")
def _(env):
    session = env.session()
    large = frame(padded({"type": "ping", "id": 1}, FRAME_MAX))
    for at in range(0, len(large), 17):
        session.write_bytes(large[at : at + 17])
    expect(session.read(), type="pong", id=1)
    for number in range(20):
        session.write_bytes(frame({"type": "ping", "id": 2}) + large + frame({"type": "ping", "id": 3})[: number % 9])
        same([2, 1], [session.read()["id"] for _ in range(2)])
        session.write_bytes(frame({"type": "ping", "id": 3})[number % 9 :])
        same(3, session.read()["id"])


@check("1", "a thousand objects in one piece are answered, those of one kind in order")
def _(env):
    session = env.session()
    session.write(*({"type": "ping", "id": number} for number in range(1000)))
    same(list(range(1000)), [session.read()["id"] for _ in range(1000)])


@check("1", "the last object arrives though the client sent more behind its fault")
def _(env):
    for size in (100, 16_000, 60_000):
        for read_late in (0, 0.3):
            session = env.session()
            session.write_bytes(bytes(4) + b"x" * size)
            time.sleep(read_late)
            expect_end(session, 400, "bad_frame")


@check("1", "the last object arrives though the client keeps sending while it reads")
def _(env):
    for pause, piece in ((0.01, 100), (0, 60_000)):
        session = env.session()
        stop = threading.Event()

        def pour():
            try:
                while not stop.wait(pause):
                    session.socket.sendall(b"x" * piece)
            except OSError:
                pass

        session.write_bytes(bytes(4))
        thread = threading.Thread(target=pour, daemon=True)
        thread.start()
        try:
            read_until(session, lambda each: each["type"] == "bye")
        finally:
            stop.set()
            thread.join(10)


@check("1", "the server closes at last, though the client neither reads nor closes")
def _(env):
    session = env.session()
    session.write_bytes(bytes(4))
    deadline = time.monotonic() + 10
    try:
        while time.monotonic() < deadline:
            session.socket.sendall(b"x")
            time.sleep(0.05)
    except (ConnectionError, OSError):
        return
    raise Mismatch("a closed connection after 1 s", "still open after 10 s")


@check("1", "bytes that belong to no transport are told apart and ended", server="plain")
def _(env):
    for first in (b"SSH-2.0-x\r\n", b"\x00\x00\x00\x00", b"POST / HTTP/1.1\r\n\r\n", b"\xff" * 64):
        connection = env.connect()
        connection.write_bytes(first)
        try:
            while True:
                expect(connection.read(), type="bye")
        except Ended as ended:
            same("eof", ended.how)


@check("1", "clients that vanish at any point don't hurt others")
def _(env):
    stays = env.session()
    room = env.name("room")
    stays.request("join", room=room)
    data = b"".join(map(frame, exchange(env.name("user"), room)[:-1]))
    for at in range(0, len(data), 29):
        with env.connect(Session) as goes:
            goes.socket.setsockopt(1, 13, struct.pack("ii", 1, 0))
            goes.write_bytes(data[:at])
    expect(stays.request("send", room=room, body=1), type="sent")
    expect_alive(stays)
