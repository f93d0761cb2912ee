"""Rules that hold under disorder: random walks through rooms, clients that vanish, that pour, that never read."""

import random
import socket
import threading
import time

from client import PATIENCE_S, Ended, Session, frame
from harness import Mismatch, check, expect, expect_alive, expect_end, read_answers, read_until, same, true
from rooms import joined, side_by_side
from shape import place_of


class Walker:
    """One session that joins, leaves and sends at random in a few rooms, and writes down what it is told."""

    def __init__(self, session, rooms, seed):
        self.session, self.rooms, self.random = session, rooms, random.Random(seed)
        self.member = set()
        self.sent = {room: [] for room in rooms}
        # For each room, its spells of membership: [the room's newest position at first, the positions that came, whether it is over].
        self.spells = {room: [] for room in rooms}
        self.number = 0

    def burst(self, size):
        """So many requests in one packet, each judged by what was asked before it."""
        expected, objects = {}, []
        for _ in range(size):
            room, kind = self.random.choice(self.rooms), self.random.choice(("join", "leave", "send", "send", "send", "presence"))
            inside = room in self.member
            answer = {"join": "joined", "leave": "left", "send": "sent" if inside else "error", "presence": "presence" if inside else "error"}[kind]
            (self.member.add if kind == "join" else self.member.discard if kind == "leave" else len)(room)
            objects.append({"type": kind, "id": self.number, "room": room, "body": self.number, "presence": False})
            expected[self.number] = (answer, room)
            self.number += 1
        self.session.write(*objects)
        while expected:
            received = self.take()
            if "id" in received:
                answer, room = expected.pop(received["id"])
                expect(received, type=answer, **({} if answer == "error" else {"room": room}))

    def take(self, patience_s=PATIENCE_S):
        received = self.session.read(patience_s)
        kind, room, at = received["type"], received.get("room"), received.get("at")
        spells = self.spells.get(room)
        if kind == "sent":
            self.sent[room].append(at)
        elif kind == "message":
            spells[-1][1].append(at)
        elif kind == "left" and spells:
            spells[-1][2] = True
        elif kind == "joined":
            if not spells or spells[-1][2]:
                spells.append([at, [], False])
            else:
                first, came, _ = spells[-1]
                same((came or [first])[-1], at, "the room's newest position, and everything before it has come:")
        return received


@check("3.2, 3.3, 3.7", "a random walk of many sessions: every spell in a room is one whole piece of its order")
def _(env):
    seed = random.SystemRandom().randrange(1 << 32)
    # One that stays keeps the rooms alive, so that each has one order from the beginning to the end.
    keeper, rooms = env.session(), [env.name("walk") for _ in range(4)]
    for room in rooms:
        keeper.request("join", room=room, echo=False)
    walkers = [Walker(env.session(), rooms, seed + number) for number in range(8)]

    def walk(walker):
        for _ in range(25):
            walker.burst(walker.random.randrange(1, 25))

    try:
        side_by_side(*(lambda walker=walker: walk(walker) for walker in walkers))
        order = {room: sorted({at for walker in walkers for at in walker.sent[room]}, key=place_of) for room in rooms}
        for room in rooms:
            same(sum(len(walker.sent[room]) for walker in walkers), len(order[room]), "a position for each message:")
            users = {keeper.user} | {walker.session.user for walker in walkers if room in walker.member}
            same(users, set(keeper.request("presence", room=room)["users"]), room)
        for walker in walkers:
            compare(walker, order)
    except Mismatch as mismatch:
        raise Mismatch(f"(seed {seed}) no fault", str(mismatch)) from None


def compare(walker, order):
    for room, spells in walker.spells.items():
        for first, _, over in spells:
            after = [at for at in order[room] if place_of(at) > place_of(first)]
            came = next(spell[1] for spell in spells if spell[0] == first and spell[2] == over)
            while not over and len(came) < len(after):
                walker.take()
            same(after[: len(came)], came, f"{walker.session.user} in {room}, spell after {first}:")
            true(over or len(came) == len(after), "all to the end", f"{len(came)} of {len(after)}")


@check("3.9", "clients that vanish behind a join leave no member behind")
def _(env):
    room = env.name("room")
    (watcher,) = joined(env, room, 1)
    for number in range(60):
        with env.connect(Session) as goes:
            user = env.name("user")
            data = frame({"type": "hello", "version": 1, "user": user}) + frame({"type": "join", "id": 1, "room": room})
            data += frame({"type": "leave", "id": 2, "room": room}) + frame({"type": "join", "id": 3, "room": room})
            goes.write_bytes(data)
            if number % 3 == 0:
                goes.read()
            if number % 2 == 0:
                goes.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    deadline = time.monotonic() + PATIENCE_S
    while (presence := watcher.request("presence", room=room))["members"] > 1:
        true(time.monotonic() < deadline, "the watcher alone", presence)
        time.sleep(0.05)
    same([watcher.user], presence["users"])


@check("3.1", "half a megabyte behind `hello` in one go is all judged")
def _(env):
    connection = env.connect()
    user, room, count = env.name("user"), env.name("room"), 900
    objects = [{"type": "hello", "version": 1, "user": user}, {"type": "join", "id": count, "room": room, "echo": False}]
    objects += [{"type": "send", "id": number, "room": room, "body": "z" * 500} for number in range(count)]
    connection.write(*objects)
    expect(connection.read(), type="welcome")
    answers, _ = read_answers(connection, range(count + 1))
    same({"joined", "sent"}, {answer["type"] for answer in answers.values()})


@check("3.12", "a client that asks and never reads is held back or ended, and its answers come whole")
def _(env):
    session = env.session(receive_buffer=4096)
    session.socket.settimeout(3)
    stop, count = time.monotonic() + 5, 0
    data = b"".join(frame({"type": "ping", "id": 7}) for _ in range(500))
    try:
        while time.monotonic() < stop and count < 400:
            session.socket.sendall(data)
            count += 1
    except OSError:
        pass
    others = env.session()
    expect_alive(others)
    session._observer = None
    try:
        for _ in range(1_000):
            received = session.read(2)
            if received["type"] == "bye":
                expect(received, code=429, reason="slow_consumer")
            else:
                expect(received, type="pong", id=7)
    except (Ended, TimeoutError):
        pass


@check("1", "`bye` comes whole though much is poured behind the client's own")
def _(env):
    session = env.session()
    session.write_bytes(frame({"type": "bye"}) + frame({"type": "ping", "id": 1, "x": "y" * 50_000}))
    time.sleep(0.2)
    same([], expect_end(session, 0, "bye"), "nothing before")


@check("2.1", "what was asked before `bye` is answered before it, rooms included")
def _(env):
    session = env.session()
    rooms = [env.name("room") for _ in range(20)]
    session.write(*({"type": "join", "id": number, "room": room} for number, room in enumerate(rooms)), {"type": "bye"})
    before = expect_end(session, 0, "bye")
    same(list(range(20)), sorted(each["id"] for each in before if each["type"] == "joined"))


@check("3.4", "a message that got `sent` reaches the members though its sender ends at once")
def _(env):
    room = env.name("room")
    (reader,) = joined(env, room, 1)
    for number in range(30):
        with env.session() as sender:
            sender.write({"type": "join", "id": 1, "room": room, "echo": False}, {"type": "send", "id": 2, "room": room, "body": number})
            read_until(sender, lambda each: each["type"] == "sent")
    same(list(range(30)), [reader.next_event("message")["body"] for _ in range(30)])


@check("3.16", "a device that logs in again and again, in the middle of everything")
def _(env):
    user, room = env.name("user"), env.name("room")
    (watcher,) = joined(env, room, 1)
    sessions = []
    for number in range(40):
        session = env.connect(Session)
        session.write({"type": "hello", "version": 1, "user": user, "device": "phone"}, {"type": "join", "id": 1, "room": room})
        if number % 4 == 0:
            read_until(session, lambda each: each["type"] in ("joined", "bye"))
        sessions.append(session)
    # Log-ins overtake each other; the last one is only the last when all others are in.
    for session in sessions:
        if session._last is None:
            expect(session.read(), type="welcome")
    last = env.session(user, device="phone")
    expect_alive(last)
    for session in sessions:
        expect_end(session, 409, "replaced")
    deadline = time.monotonic() + PATIENCE_S
    while (presence := watcher.request("presence", room=room))["members"] > 1:
        true(time.monotonic() < deadline, "the watcher alone", presence)
        time.sleep(0.05)


@check("3.4, 3.9", "joins, sends and ends of many users at once leave the counts right")
def _(env):
    room = env.name("room")
    (watcher,) = joined(env, room, 1, presence=True, echo=False)
    stays = threading.Lock()
    staying = [watcher.user]

    def work(number):
        for turn in range(6):
            session = env.session()
            session.request("join", room=room)
            session.request("send", room=room, body=number)
            if turn % 3 == 0:
                session.close()
            elif turn % 3 == 1:
                session.write({"type": "leave", "room": room}, {"type": "bye"})
                expect_end(session, 0, "bye")
            else:
                with stays:
                    staying.append(session.user)

    side_by_side(*(lambda number=number: work(number) for number in range(6)))
    inside, messages = {watcher.user}, 0
    while messages < 36 or inside != set(staying):
        received = watcher.next_event()
        if received["type"] == "message":
            messages += 1
        elif received["event"] == "join":
            true(received["user"] not in inside, "a user joins once", received)
            inside.add(received["user"])
        else:
            inside.remove(received["user"])
    same(set(staying), set(watcher.request("presence", room=room)["users"]))
