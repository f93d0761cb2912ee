"""Section 3, rules 1 to 9: log-in, order, joins, sends, inboxes, ephemeral messages, presence."""

import threading
import time

from client import Ended, Refused, Session
from harness import (
    ABSENT, PATIENCE_S, Mismatch, check, expect, expect_alive, expect_end, expect_quiet, expect_refused, read_answers, read_until, same, true,
)  # fmt: skip
from shape import place_of


def joined(env, room, count, **join):
    """Sessions of different users, all in the room."""
    sessions = [env.session() for _ in range(count)]
    for session in sessions:
        session.request("join", room=room, **join)
    return sessions


def messages(session, room, count):
    """The next so many messages of a room; others are skipped."""
    found = []
    while len(found) < count:
        message = session.next_event("message")
        if message["room"] == room:
            found.append(message)
    return found


def side_by_side(*works):
    """Runs them at once; the first fault is this check's."""
    faults = []

    def run(work):
        try:
            work()
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=run, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(4 * PATIENCE_S)
    if faults:
        raise faults[0]
    true(not any(thread.is_alive() for thread in threads), "an end", "still waiting")


# Rule 1


@check("3.1", "before `welcome` anything but `hello` is `bye` 401 hello_first")
def _(env):
    wrong = []
    for first in (
        {"type": "ping", "id": 1}, {"type": "join", "id": 1, "room": "a"}, {"type": "send", "room": "@a", "body": 1}, {"type": "leave", "room": "a"},
        {"type": "history", "room": "a"}, {"type": "presence", "room": "a"}, {"type": "pong"}, {"type": "nonsense"}, {"type": "welcome"},
        {"type": "join"}, {"type": "Hello"}, {},
    ):  # fmt: skip
        connection = env.connect()
        connection.write(first, {"type": "hello", "version": 1, "user": "alice"})
        try:
            same([], expect_end(connection, 401, "hello_first", 8), "nothing before")
        except Exception as fault:
            wrong.append((first, str(fault)))
    same([], wrong)


@check("3.1", "no whole `hello` within 5 s: `bye` 408 handshake_timeout")
def _(env):
    began = time.monotonic()
    connections = [env.connect() for _ in range(4)]
    for connection, first in zip(connections, (b"", b"\0", b"\0\0\0\x2b", b'\0\0\0\x2b{"type":"hello"')):
        connection.write_bytes(first)
    for connection in connections:
        same([], expect_end(connection, 408, "handshake_timeout"), "nothing before")
        true(time.monotonic() - began >= 4.9, "5 s", time.monotonic() - began)


@check("3.1", "a `hello` that trickles for longer than 5 s: `bye` 408 handshake_timeout")
def _(env):
    connection = env.connect()
    began = time.monotonic()
    for byte in b'\0\0\x01\0{"type":"hello"' + b" " * 100:
        try:
            connection.write_bytes(bytes([byte]))
            connection.read(0.2)
        except TimeoutError:
            continue
        except (ConnectionError, Ended):
            break
        break
    true(4.9 <= time.monotonic() - began < 15, "the end after 5 s", time.monotonic() - began)


@check("3.1", "what stands behind a refused `hello` isn't read")
def _(env):
    stays = env.session()
    connection = env.connect()
    connection.write({"type": "hello", "version": 9, "user": "a"}, {"type": "send", "id": 1, "room": f"@{stays.user}", "body": 1})
    same([], expect_end(connection, 505, "version"), "nothing before")
    expect_quiet(stays)


@check("3.1", "a second `hello` of the same user is answered by a new `welcome`; the session keeps what it has")
def _(env):
    session = env.session()
    room = env.name("room")
    session.request("join", room=room)
    first = session.welcome
    again = session.hello(session.user)
    expect(again, session=first["session"], inbox=first["inbox"])
    expect(session.request("send", room=room, body=1), type="sent")
    expect(session.next_event("message"), room=room)
    expect(session.request("presence", room=room), members=1)
    connection = env.connect()
    hello = {"type": "hello", "version": 1, "user": env.name("user")}
    connection.write(hello, hello, {"type": "ping", "id": 1})
    same(["welcome", "welcome", "pong"], [connection.read()["type"] for _ in range(3)])


@check("3.1", "a second `hello` with another user: `bye` 403 forbidden")
def _(env):
    session = env.session()
    session.write({"type": "hello", "version": 1, "user": env.name("user")})
    same([], expect_end(session, 403, "forbidden"), "nothing before")


# Rule 2


@check("3.2", "requests about one room are judged in the order sent, in one packet")
def _(env):
    session = env.session()
    room = env.name("room")
    script = [
        ("send", "error"), ("presence", "error"), ("history", "error"), ("join", "joined"), ("send", "sent"), ("presence", "presence"),
        ("history", "history"), ("join", "joined"), ("send", "sent"), ("leave", "left"), ("send", "error"), ("presence", "error"), ("leave", "left"),
        ("join", "joined"), ("leave", "left"), ("join", "joined"), ("send", "sent"), ("leave", "left"),
    ]  # fmt: skip
    for _ in range(5):
        session.write(*({"type": kind, "id": number, "room": room, "body": number} for number, (kind, _) in enumerate(script)))
        answers, seen = read_answers(session, range(len(script)))
        same([kind for _, kind in script], [answers[number]["type"] for number in range(len(script))])
        # Two answers of one kind can't change places: whoever asked without ids tells them by their order.
        for kind in ("joined", "sent", "presence"):
            order = [each["id"] for each in seen if each["type"] == kind]
            same(sorted(order), order, f"`{kind}`s in order")


@check("3.2", "a `send` behind an unanswered `join` is a member's, in a hundred rooms at once")
def _(env):
    connection = env.session()
    rooms = [env.name("room") for _ in range(100)]
    connection.write(
        *({"type": "join", "id": number, "room": room} for number, room in enumerate(rooms)),
        *({"type": "send", "id": 100 + number, "room": room, "body": number} for number, room in enumerate(rooms)),
        *({"type": "presence", "id": 200 + number, "room": room} for number, room in enumerate(rooms)),
    )
    answers, seen = read_answers(connection, range(300))
    for number, room in enumerate(rooms):
        expect(answers[number], type="joined", room=room, members=1)
        expect(answers[100 + number], type="sent", room=room)
        expect(answers[200 + number], type="presence", room=room, users=[connection.user])
    while sum(each["type"] == "message" for each in seen) < 100:
        seen.append(connection.read())
    same(set(rooms), {each["room"] for each in seen if each["type"] == "message"})


@check("3.2", "`sent` comes before the session's own `message`, pipelined and in an inbox too")
def _(env):
    session = env.session()
    room = env.name("room")
    session.request("join", room=room)
    session.write(*({"type": "send", "id": number, "room": (room, f"@{session.user}")[number % 2], "body": number} for number in range(500)))
    sent, seen = set(), 0
    while seen < 500:
        received = session.read()
        if received["type"] == "sent":
            sent.add((received["room"], received["at"]))
        else:
            expect(received, type="message")
            true((received["room"], received["at"]) in sent, "`sent` first", received)
            seen += 1


# Rule 3


@check("3.3", "a second join answers again and neither loses nor doubles a live message")
def _(env):
    room = env.name("room")
    sender, reader = joined(env, room, 2)
    count = 600

    def send():
        for start in range(0, count, 20):
            sender.write(*({"type": "send", "id": number, "room": room, "body": number} for number in range(start, start + 20)))
            read_until(sender, lambda each: each["type"] == "sent" and each["id"] == start + 19)

    bodies, answers, written = [], 0, 0

    def read():
        nonlocal answers, written
        while len(bodies) < count or answers < written:
            received = reader.read()
            if received["type"] == "message":
                bodies.append(received["body"])
                if len(bodies) % 15 == 0:
                    reader.write({"type": "join", "id": written, "room": room})
                    written += 1
            elif received["type"] == "joined":
                expect(received, id=answers, members=2, replay=0)
                answers += 1

    side_by_side(send, read)
    same(list(range(count)), bodies)


@check("3.3", "a second join, with other options, makes no second member")
def _(env):
    room = env.name("room")
    watcher, session = joined(env, room, 2, presence=True)
    expect(watcher.next_event("member"), event="join", user=session.user, members=2)
    for fields in ({}, {"presence": True}, {"echo": False}, {"presence": False}):
        expect(session.request("join", room=room, **fields), members=2)
    expect_quiet(watcher)
    expect(session.request("leave", room=room), type="left")
    expect(watcher.next_event("member"), event="leave", user=session.user, members=1)
    expect_quiet(session)


@check("3.3", "live messages come behind `joined` and not behind `left`, under a storm of both")
def _(env):
    room = env.name("room")
    (sender,) = joined(env, room, 1, echo=False)
    others = [env.session() for _ in range(3)]
    done = threading.Event()

    def send():
        number = 0
        while not done.is_set():
            sender.request("send", room=room, body=number)
            number += 1

    def come_and_go(session):
        try:
            for number in range(60):
                kind, answer = (("join", "joined"), ("leave", "left"))[number % 2]
                session.write({"type": kind, "id": number, "room": room})
                read_until(session, lambda each: each["type"] == answer)
        finally:
            done.set()

    # What each connection's observer sees is the check: it knows which rooms are joined.
    side_by_side(send, *(lambda session=session: come_and_go(session) for session in others))


@check("3.3", "`since` with messages missing: not recovered, or all of them follow")
def _(env):
    room = env.name("room")
    sender, reader = joined(env, room, 2)
    since = sender.request("send", room=room, body=0)["at"]
    reader.request("leave", room=room)
    sent = [sender.request("send", room=room, body=number)["at"] for number in range(1, 6)]
    answer = env.session().request("join", room=room, since=since)
    true("recovered" in answer and (not answer["recovered"] or answer["replay"] == len(sent)), "no promise that isn't kept", answer)


@check("3.3", "`since` with messages missing of a room that was empty in between: the same")
def _(env):
    room = env.name("room")
    (sender,) = joined(env, room, 1)
    empty = env.session().request("join", room=room)["at"]
    first = sender.request("send", room=room, body=0)["at"]
    # Behind the second position only what is sent from here on, behind the first one all of it.
    for since, missing in ((empty, 2), (first, 2)):
        sender.request("send", room=room, body=1)
        sender.request("leave", room=room)
        reader = env.session()
        answer = reader.request("join", room=room, since=since)
        true("recovered" in answer and (not answer["recovered"] or answer["replay"] == missing), "no promise that isn't kept", answer)
        reader.request("leave", room=room)
        sender.request("join", room=room)


@check("3.5", "`hello` with `inbox` while messages are missing: not recovered, or all of them follow")
def _(env):
    bob, alice = env.name("user"), env.session()
    for _ in range(2):
        session = env.session(bob)
        since = session.welcome["inbox"]["at"]
        session.write({"type": "bye"})
        expect_end(session, 0, "bye")
        for number in range(3):
            alice.request("send", room=f"@{bob}", body=number)
        inbox = env.session(bob, inbox=since).welcome["inbox"]
        true("recovered" in inbox and (not inbox["recovered"] or inbox["replay"] == 3), "no promise that isn't kept", inbox)


@check("3.3", "`since` with nothing missing: whatever is said, no message follows and live ones do")
def _(env):
    room = env.name("room")
    sender, _ = joined(env, room, 2)
    since = sender.request("send", room=room, body=0)["at"]
    reader = env.session()
    expect(reader.request("join", room=room, since=since), at=since, replay=0)
    sender.request("send", room=room, body=1)
    expect(reader.next_event("message"), body=1)


@check("3.3", "a `since` that lies ahead is answered within the join deadline")
def _(env):
    room = env.name("room")
    (session,) = joined(env, room, 1)
    at = session.request("send", room=room, body=0)["at"]
    ahead = at.replace(f".{place_of(at)[0]}-", f".{place_of(at)[0] + 3_600_000}-")
    began = time.monotonic()
    answer = env.session().request("join", room=room, since=ahead)
    expect(answer, type="joined", recovered=False, at=at)
    true(answer["replay"] <= 1, "the newest message, where it is retained", answer)
    true(time.monotonic() - began < 15, "5 s and a little", time.monotonic() - began)


@check("2.2", "at most 128 rooms: 429 too_many_rooms; a place that is left is free again", server="plain")
def _(env):
    session = env.session()
    most = session.welcome["limits"]["rooms"]
    rooms = [env.name("room") for _ in range(most + 1)]
    session.write(*({"type": "join", "id": number, "room": room} for number, room in enumerate(rooms)))
    answers, _ = read_answers(session, range(most + 1))
    refused = [answer for answer in answers.values() if answer["type"] != "joined"]
    same(1, len(refused), "refused:")
    expect(refused[0], type="error", code=429, reason="too_many_rooms")
    session = env.session()
    for room in rooms[:most]:
        session.request("join", room=room)
    expect_refused(session, "join", 429, "too_many_rooms", room=rooms[most])
    expect_refused(session, "send", 403, "not_joined", room=rooms[most], body=1)
    expect(session.request("join", room=rooms[0]), type="joined")
    session.request("leave", room=rooms[0])
    expect(session.request("join", room=rooms[most]), type="joined")
    expect_refused(session, "join", 429, "too_many_rooms", room=rooms[0])


# Rule 4


@check("3.4", "`send`, `history` and `presence` of a room need membership: 403 not_joined")
def _(env):
    room = env.name("room")
    (member,) = joined(env, room, 1)
    session = env.session()
    for kind in ("send", "history", "presence"):
        expect_refused(session, kind, 403, "not_joined", room=room, body=1)
        expect_refused(session, kind, 403, "not_joined", room=env.name("none"), body=1)
    expect_refused(session, "send", 403, "not_joined", room=room, body=1, ephemeral=True)
    session.request("join", room=room)
    session.request("leave", room=room)
    for kind in ("send", "history", "presence"):
        expect_refused(session, kind, 403, "not_joined", room=room, body=1)
    expect_quiet(member)


@check("3.4", "membership is the session's, not the user's")
def _(env):
    room = env.name("room")
    (first,) = joined(env, room, 1)
    second = env.session(first.user)
    expect_refused(second, "send", 403, "not_joined", room=room, body=1)
    first.request("send", room=room, body=1)
    expect_quiet(second)


@check("3.4", "the sender gets its own message, unless it joined with `echo` false")
def _(env):
    room = env.name("room")
    with_echo, without, reader = env.session(), env.session(), env.session()
    for session, echo in ((with_echo, True), (without, False), (reader, True)):
        session.request("join", room=room, echo=echo)
    for number in range(50):
        for session in (without, with_echo):
            session.request("send", room=room, body=number, ephemeral=number % 10 == 9)
    same(100, len(messages(reader, room, 100)))
    same(100, len(messages(with_echo, room, 100)))
    same({with_echo.user}, {message["from"] for message in messages(without, room, 50)})
    expect_quiet(without)


@check("3.4", "a member that left gets nothing more")
def _(env):
    room = env.name("room")
    sender, goes = joined(env, room, 2)
    sender.request("send", room=room, body=1)
    expect(goes.next_event("message"), body=1)
    goes.request("leave", room=room)
    sender.request("send", room=room, body=2)
    expect_quiet(goes)


# Rule 5


@check("3.5", "a message to an inbox reaches each session of its owner, and nobody else")
def _(env):
    bob = env.name("user")
    sessions = [env.session(bob) for _ in range(4)]
    alice, other = env.session(), env.session()
    for ephemeral in (False, True):
        sent = alice.request("send", room=f"@{bob}", body={"for": "bob"}, ephemeral=ephemeral)
        for session in sessions:
            message = expect(session.next_event("message"), room=f"@{bob}", body={"for": "bob"}, at=sent.get("at", ABSENT))
            same(alice.user, message["from"])
    for session in (alice, other):
        expect_quiet(session)


@check("3.5", "one can write to oneself; to somebody who was never here, too")
def _(env):
    session = env.session()
    at = session.request("send", room=f"@{session.user}", body=1)["at"]
    expect(session.next_event("message"), room=f"@{session.user}", at=at, body=1)
    expect(session.request("send", room=f"@{env.name('nobody')}", body=1), type="sent")


@check("3.5", "the inbox is there from `welcome` on")
def _(env):
    alice = env.session()
    for number in range(30):
        bob = env.session()
        alice.request("send", room=f"@{bob.user}", body=number)
        expect(bob.next_event("message"), body=number)


@check("3.5", "inboxes are never joined or left: 403 forbidden, one's own neither")
def _(env):
    session = env.session()
    for inbox in (f"@{session.user}", f"@{env.name('bob')}"):
        for kind in ("join", "leave"):
            expect_refused(session, kind, 403, "forbidden", room=inbox)
    expect(session.request("send", room=f"@{session.user}", body=1), type="sent")
    expect(session.next_event("message"), body=1)


@check("3.5", "`history` and `presence` of an inbox are its owner's: 403 forbidden")
def _(env):
    bob, alice = env.session(), env.session()
    for kind in ("history", "presence"):
        expect_refused(alice, kind, 403, "forbidden", room=f"@{bob.user}")
        expect_refused(alice, kind, 403, "forbidden", room=f"@{env.name('nobody')}")
        expect(bob.request(kind, room=f"@{bob.user}"), type=kind, room=f"@{bob.user}")
    expect(bob.request("presence", room=f"@{bob.user}"), members=1, users=[bob.user], truncated=False)


@check("2.1", "`history` has nothing, or what was sent, oldest first")
def _(env):
    room = env.name("room")
    (session,) = joined(env, room, 1)
    sent = [session.request("send", room=room, body=number)["at"] for number in range(5)]
    for fields in ({}, {"limit": 2}, {"limit": 1000}, {"after": sent[0]}, {"before": sent[-1]}):
        history = expect(session.request("history", room=room, **fields), type="history", room=room)
        found = [message["at"] for message in history["messages"]]
        true(len(found) <= fields.get("limit", 50) and found == [at for at in sent if at in found], f"some of {sent}, in order", history)


# Rule 7


@check("3.7", "all members see the same messages in the same order; of one session, in the order sent")
def _(env):
    room, each = env.name("room"), 150
    members = joined(env, room, 6)
    senders = members[:4]
    seen = {}

    def work(session):
        if session in senders:
            session.write(*({"type": "send", "id": number, "room": room, "body": number, "key": str(number)} for number in range(each)))
        found = []
        while len(found) < each * len(senders):
            received = session.read()
            if received["type"] == "message":
                found.append((received["at"], received["from"], received["body"]))
        seen[session.user] = found

    side_by_side(*(lambda session=session: work(session) for session in members))
    expected = seen[members[0].user]
    for session in members:
        true(seen[session.user] == expected, "one order", f"{session.user} differs from {members[0].user}")
    for sender in senders:
        same(list(range(each)), [body for _, user, body in expected if user == sender.user], sender.user)


@check("3.7", "the sessions of one user see their inbox in one order")
def _(env):
    bob = env.name("user")
    sessions = [env.session(bob) for _ in range(3)]
    senders = [env.session() for _ in range(3)]
    side_by_side(*(lambda sender=sender: [sender.request("send", room=f"@{bob}", body=number) for number in range(60)] for sender in senders))
    seen = [[message["at"] for message in messages(session, f"@{bob}", 180)] for session in sessions]
    true(seen[0] == seen[1] == seen[2], "one order", "different ones")


# Rule 8


@check("3.8", "an ephemeral message has no position, and doesn't move the room's")
def _(env):
    room = env.name("room")
    alice, bob = joined(env, room, 2)
    at = alice.request("send", room=room, body=1)["at"]
    expect(bob.next_event("message"), at=at)
    expect(alice.request("send", room=room, body="typing", ephemeral=True), type="sent", at=ABSENT)
    message = expect(bob.next_event("message"), room=room, at=ABSENT, body="typing")
    same(alice.user, message["from"])
    same(at, env.session().request("join", room=room)["at"])
    history = bob.request("history", room=room)
    true(all(each["body"] != "typing" for each in history["messages"]), "not retained", history)


# Rule 9


@check("3.9", "`member` objects tell joins and leaves, to those who asked for them")
def _(env):
    room = env.name("room")
    watcher, deaf = env.session(), env.session()
    expect(watcher.request("join", room=room, presence=True), members=1)
    expect(deaf.request("join", room=room), members=2)
    expect(watcher.next_event("member"), room=room, event="join", user=deaf.user, members=2)
    for goes in ("leave", "bye", "close", "reset", "fault"):
        session = env.session()
        expect(session.request("join", room=room), members=3)
        expect(watcher.next_event("member"), room=room, event="join", user=session.user, members=3)
        if goes == "leave":
            session.request("leave", room=room)
        elif goes == "bye":
            session.write({"type": "bye"})
        elif goes == "fault":
            session.write_bytes(bytes(4))
        else:
            if goes == "reset":
                session.socket.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")
            session.close()
        expect(watcher.next_event("member"), room=room, event="leave", user=session.user, members=2)
    expect_quiet(watcher)
    expect_quiet(deaf)


@check("3.9", "a user with several sessions joins once and leaves once")
def _(env):
    room = env.name("room")
    (watcher,) = joined(env, room, 1, presence=True)
    user = env.name("user")
    sessions = [env.session(user) for _ in range(3)]
    for session in sessions:
        expect(session.request("join", room=room), members=2)
    expect(watcher.next_event("member"), event="join", user=user, members=2)
    expect(watcher.request("presence", room=room), members=2, truncated=False)
    same({watcher.user, user}, set(watcher.request("presence", room=room)["users"]))
    sessions[0].request("leave", room=room)
    sessions[1].close()
    expect_quiet(watcher)
    expect(watcher.request("presence", room=room), members=2)
    sessions[2].request("leave", room=room)
    expect(watcher.next_event("member"), event="leave", user=user, members=1)
    expect(watcher.request("presence", room=room), members=1, users=[watcher.user])
    expect_quiet(watcher)


@check("3.9", "what joins and leaves is told in order, and the count ends where it began")
def _(env):
    room = env.name("room")
    (watcher,) = joined(env, room, 1, presence=True)
    others = [env.session() for _ in range(4)]

    def come_and_go(session):
        for _ in range(25):
            session.request("join", room=room)
            session.request("leave", room=room)

    side_by_side(*(lambda session=session: come_and_go(session) for session in others))
    inside = {watcher.user}
    for _ in range(200):
        member = watcher.next_event("member")
        true((member["event"] == "join") != (member["user"] in inside), "joins and leaves in turn", member)
        (inside.add if member["event"] == "join" else inside.discard)(member["user"])
        same(len(inside), member["members"], "members")
    expect_quiet(watcher)


@check("3.9", "above 200 members: `off` alone, once, and no more of them")
def _(env):
    room = env.name("room")
    (watcher,) = joined(env, room, 1, presence=True)
    crowd = []
    for number in range(2, 204):
        crowd.append(env.session())
        expect(crowd[-1].request("join", room=room), members=number)
    for number in range(2, 201):
        expect(watcher.next_event("member"), event="join", members=number, user=crowd[number - 2].user)
    expect(watcher.next_event("member"), room=room, event="off", user=ABSENT, members=ABSENT)
    crowd.pop().request("leave", room=room)
    expect_quiet(watcher)
    expect(watcher.request("presence", room=room), members=202, truncated=False)
    # A session may end without a word about it, and the rest go on.
    crowd[0].request("send", room=room, body=1)
    expect(watcher.next_event("message"), body=1)


@check("2.2", "`presence` names at most 500 users and says that there are more")
def _(env):
    room = env.name("room")
    crowd = [env.connect(Session) for _ in range(502)]
    for number, session in enumerate(crowd):
        session.write({"type": "hello", "version": 1, "user": env.name("long").ljust(64, "g")}, {"type": "join", "id": 1, "room": room})
    for session in crowd:
        read_answers(session, [1])
    presence = expect(crowd[0].request("presence", room=room), members=502, truncated=True)
    same(500, len(presence["users"]))
    crowd[1].request("leave", room=room)
    crowd[2].request("leave", room=room)
    expect(crowd[0].request("presence", room=room), members=500, truncated=False)


# Rules 16 and 17


@check("3.16", "a new session of the same user and device replaces the old one: `bye` 409")
def _(env):
    room, user, device = env.name("room"), env.name("user"), "phone \U0001f4f1"
    (watcher,) = joined(env, room, 1, presence=True)
    other = env.session(user, device="laptop")
    unnamed = env.session(user)
    stranger = env.session(device=device)
    old = env.session(user, device=device)
    old.request("join", room=room)
    expect(watcher.next_event("member"), event="join", user=user, members=2)
    new = env.session(user, device=device)
    same([], expect_end(old, 409, "replaced"), "nothing before")
    true(new.welcome["session"] != old.welcome["session"], "another session", new.welcome)
    expect(watcher.next_event("member"), event="leave", user=user, members=1)
    expect_refused(new, "send", 403, "not_joined", room=room, body=1)
    for session in (other, unnamed, stranger, new):
        expect_alive(session)
    watcher.request("send", room=f"@{user}", body=1)
    for session in (other, unnamed, new):
        expect(session.next_event("message"), body=1)


@check("3.16", "of many log-ins of one device at once, one stays")
def _(env):
    user = env.name("user")
    connections = [env.connect() for _ in range(12)]
    for connection in connections:
        connection.write({"type": "hello", "version": 1, "user": user, "device": "phone"})
    alive = 0
    for connection in connections:
        expect(connection.read(), type="welcome")
    for connection in connections:
        try:
            connection.write({"type": "ping", "id": 1})
        except ConnectionError:
            pass
        try:
            received = connection.read()
        except Ended as ended:
            raise Mismatch("`bye` 409 or `pong`", ended) from None
        if received["type"] == "bye":
            expect(received, code=409, reason="replaced")
        else:
            alive += 1
    # One that answered the ping may have been replaced right behind it: only the last one's end is certain.
    true(alive >= 1, "one that stays", alive)
    last = env.session(user)
    expect(last.request("presence", room=f"@{user}"), members=1)


@check("3.17", "16 sessions of a user each get every message; the 17th: `bye` 429 too_many_sessions")
def _(env):
    user, room = env.name("user"), env.name("room")
    sessions = [env.session(user) for _ in range(16)]
    for session in sessions:
        expect(session.request("join", room=room), members=1)
    connection = env.connect()
    connection.write({"type": "hello", "version": 1, "user": user})
    same([], expect_end(connection, 429, "too_many_sessions"), "nothing before")
    for where in (room, f"@{user}"):
        at = sessions[0].request("send", room=where, body=1)["at"]
        for session in sessions:
            expect(session.next_event("message"), room=where, at=at, body=1)
    sessions[3].write({"type": "bye"})
    expect_end(sessions[3], 0, "bye")
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            env.session(user)
            break
        except Ended as ended:
            expect(ended.bye, code=429, reason="too_many_sessions")
            true(time.monotonic() < deadline, "a free place", "none")


@check("3.17, 3.16", "a device that comes back is let in though all 16 places are taken")
def _(env):
    user = env.name("user")
    sessions = [env.session(user, device=f"device {number}") for number in range(16)]
    back = env.session(user, device="device 5")
    expect_end(sessions[5], 409, "replaced")
    expect_alive(back)
    connection = env.connect()
    connection.write({"type": "hello", "version": 1, "user": user, "device": "device 17"})
    expect_end(connection, 429, "too_many_sessions")


@check("3.17", "of 24 log-ins at once, 16 are let in")
def _(env):
    user = env.name("user")
    connections = [env.connect() for _ in range(24)]
    for connection in connections:
        connection.write({"type": "hello", "version": 1, "user": user})
    kinds = [connection.read()["type"] for connection in connections]
    same(16, kinds.count("welcome"), "welcomes:")


@check("3.17", "an `echo` of a user's other session")
def _(env):
    user, room = env.name("user"), env.name("room")
    first, second = env.session(user), env.session(user)
    first.request("join", room=room, echo=False)
    second.request("join", room=room)
    first.request("send", room=room, body=1)
    expect(second.next_event("message"), body=1)
    expect_quiet(first, "member")
    try:
        expect(first.request("send", room=f"@{user}", body=2), type="sent")
    except Refused as refused:
        raise Mismatch("sent", refused.error) from None
    for session in (first, second):
        expect(session.next_event("message"), room=f"@{user}", body=2)
