"""Section 2: every type and field, names, positions, ids, bodies; with rule 15, what happens to bad ones."""

import json
import time

from client import Ended, Refused
from harness import (
    ABSENT, Mismatch, check, expect, expect_alive, expect_end, expect_quiet, expect_refused, read_answers, same, true,
)  # fmt: skip
from shape import epoch_of, place_of

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.:-"
BAD_NAMES = ["", "x" * 65, "a b", "a/b", "a@b", "é", "a\n", "a\0", "#", "a,b", "\U0001f600", " a", "a "]
ID_MAX = 2**53 - 1


def error_to(session, text):
    """What the server says to this text."""
    session.write(text)
    return expect(session.read(), type="error")


@check("2.2", "`welcome` tells the limits of this page and the defaults", server="plain")
def _(env):
    user = env.name("user")
    welcome = env.session(user).welcome
    expect(welcome, type="welcome", version=1, user=user, heartbeat_ms=25000, expires_at=ABSENT)
    limits = {"frame_bytes": 65536, "body_bytes": 61440, "rooms": 128, "requests_per_s": 50, "requests_burst": 100}
    same({**limits, "replay": welcome["limits"]["replay"]}, welcome["limits"])
    true(welcome["limits"]["replay"] in (0, 1000), "1,000, or 0 where nothing is retained", welcome["limits"])
    expect(welcome["inbox"], replay=0, recovered=ABSENT)
    same((0, 0), place_of(welcome["inbox"]["at"]), "an inbox without messages is at 0-0")


@check("2.2", "`welcome`'s `inbox.at` is the inbox's newest position")
def _(env):
    bob, alice = env.session(), env.session()
    at = alice.request("send", room=f"@{bob.user}", body=1)["at"]
    expect(bob.next_event("message"), at=at)
    same(at, env.session(bob.user).welcome["inbox"]["at"])


@check("2.2", "each session has a name of its own")
def _(env):
    user = env.name("user")
    names = [env.session(user).welcome["session"] for _ in range(5)] + [env.session().welcome["session"] for _ in range(5)]
    same(10, len(set(names)), "different names:")


@check("2.1", "`hello` of another version: `bye` 505, and the versions that are spoken in `message`")
def _(env):
    for version in (0, 2, 99):
        connection = env.connect()
        connection.write({"type": "hello", "version": version, "user": "alice"})
        try:
            while True:
                bye = connection.read()
        except Ended:
            expect(bye, type="bye", code=505, reason="version")
            true("1" in bye.get("message", ""), "the versions in `message`", bye)


@check("2.1", "`hello` with a bad or missing field is answered by `bye` 400")
def _(env):
    good = {"type": "hello", "version": 1, "user": "alice"}
    bad = [{"version": "1"}, {"version": None}, {"version": 1.5}, {"user": 5}, {"device": 5}, {"device": "x" * 65}, {"inbox": 5}, {"inbox": "x" * 65}]
    texts = [json.dumps({**good, **each}) for each in bad + [{"user": name} for name in BAD_NAMES + ["@alice", "@"]]]
    texts += [json.dumps({name: good[name] for name in good if name != gone}) for gone in ("version", "user")]
    texts += ['{"type":"hello","version":1,"user":"alice","user":"alice"}']
    wrong = []
    for text in texts:
        connection = env.connect()
        connection.write(text)
        try:
            same([], expect_end(connection, 400, "bad_field", 8), "nothing before")
        except Exception as fault:
            wrong.append((text, str(fault)))
    same([], wrong)


@check("2", "a user's name may be of 1 to 64 bytes of the alphabet, `device` of any 64 bytes")
def _(env):
    for user in [ALPHABET[:64], ALPHABET[2:], "u" * 64, "..", ":", "-"]:
        expect(env.session(user).welcome, user=user)
    for device in ["d" * 64, "\U0001f4f1" * 16, "a b", '"\\/', "\u0000"]:
        env.session(device=device)
    connection = env.connect()
    connection.write('{"type":"h\\u0065llo","version":1,"us\\u0065r":"\\u0061l\\u0069ce"}')
    expect(connection.read(), type="welcome", user="alice")


@check("2", "a device name of more than 64 bytes in fewer characters is refused")
def _(env):
    connection = env.connect()
    connection.write({"type": "hello", "version": 1, "user": "alice", "device": "\u00e9" * 33})
    expect_end(connection, 400, "bad_field")


@check("2", "unknown fields are ignored, in every type")
def _(env):
    more = {"x": None, "at": [1, {"y": 2}], "ts": "z", "code": 1}
    session = env.session(token="nobody asked", **more)
    room = env.name("room")
    for kind, answer in (("join", "joined"), ("presence", "presence"), ("history", "history"), ("leave", "left"), ("ping", "pong")):
        expect(session.request(kind, room=room, **more), type=answer)
    expect(session.request("send", room=f"@{session.user}", body=1, **more), type="sent")
    session.write({"type": "pong", "room": 5, **more}, {"type": "bye", "code": 7, **more})
    expect_end(session, 0, "bye")


@check("2", "an unknown type: 400 unknown_type with its id; the session goes on, however often")
def _(env):
    session = env.session()
    for kind in ["", "JOIN", "Join", "joi", "joined", "welcome", "message", "error", "left", "sent", "member", "gap", "x" * 300, "é"] * 2:
        expect_refused(session, kind, 400, "unknown_type")
    session.write('{"id":77,"room":"a b","type":"nonsense"}')
    expect(session.read(), type="error", code=400, reason="unknown_type", id=77)
    session.write('{"type":"nonsense"}')
    expect(session.read(), type="error", code=400, reason="unknown_type", id=ABSENT)
    expect_alive(session)


@check("2", "answers and errors carry the request's id, 0 and 2^53-1 too, and none when there was none")
def _(env):
    session = env.session()
    room = env.name("room")
    for number in (0, 1, ID_MAX, None):
        fields = {} if number is None else {"id": number}
        wanted = ABSENT if number is None else number
        exchange = [
            ("join", "joined", {"room": room}), ("presence", "presence", {"room": room}), ("history", "history", {"room": room}),
            ("ping", "pong", {}), ("send", "sent", {"room": room, "body": 1, "ephemeral": True}), ("leave", "left", {"room": room}),
            ("send", "error", {"room": room, "body": 1}), ("history", "error", {"room": room}), ("presence", "error", {"room": room}),
            ("join", "error", {"room": "@bob"}), ("leave", "error", {"room": "@bob"}), ("nonsense", "error", {}),
        ]  # fmt: skip
        for kind, answer, more in exchange:
            session.write({"type": kind, **fields, **more})
            while (received := session.read())["type"] in ("message", "ping"):
                pass
            expect(received, type=answer, id=wanted)


@check("2, 15", "an id that is no integer of 0 .. 2^53-1 is a bad field")
def _(env):
    wrong = []
    for text in ("9007199254740992", "-1", "1.5", '"1"', "true", "[1]", "{}", "18446744073709551616", "1e400"):
        session = env.session()
        session.write(f'{{"type":"ping","id":{text}}}')
        received = session.read()
        if (received["type"], received.get("reason"), "id" in received) != ("error", "bad_field", False):
            wrong.append((text, received.raw))
        expect_alive(session)
    same([], wrong)


@check("2", "an error about a bad field carries the id, wherever in the object it stands")
def _(env):
    wrong = []
    for text in (
        '{"id":7,"type":"join","room":5}', '{"type":"join","room":5,"id":7}', '{"room":"a b","id":7,"type":"join"}',
        '{"type":"join","id":7}', '{"type":"join","room":"a","room":"a","id":7}', '{"type":"send","id":7,"room":"a"}',
        '{"type":"history","room":"a","limit":-1,"id":7}',
    ):  # fmt: skip
        received = error_to(env.session(), text)
        if (received["reason"], received.get("id")) != ("bad_field", 7):
            wrong.append((text, received.raw))
    same([], wrong)


@check("2", "a room's name: 1 to 64 bytes of the alphabet; `@` and a name is an inbox")
def _(env):
    session = env.session()
    for room in ["a", "r" * 64, ALPHABET[:64], ALPHABET[2:], ".", "-:-"]:
        expect(session.request("join", room=room), room=room)
        expect(session.request("leave", room=room), room=room)
    for inbox in ["@a", "@" + "b" * 64]:
        expect(session.request("send", room=inbox, body=1), type="sent", room=inbox)


@check("2", "a bad room name is a bad field, in every type")
def _(env):
    wrong = []
    for room in BAD_NAMES + ["@", "@@a", "@" + "x" * 65, "@a b", "@a@b", 5, None, True, ["a"], {"a": 1}]:
        session = env.session()
        for kind in ("join", "leave", "send", "history", "presence"):
            try:
                expect_refused(session, kind, 400, "bad_field", room=room, body=1)
            except Mismatch as fault:
                wrong.append(str(fault))
        expect_alive(session)
    same([], wrong)


@check("2", "names are the same however they are escaped, and differ by case")
def _(env):
    session = env.session()
    room = env.name("room")
    session.request("join", room=room)
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in room)
    session.write(f'{{"type":"send","id":1,"room":"{escaped}","body":1}}')
    expect(session.read(), type="sent", id=1, room=room)
    expect(session.next_event("message"), room=room)
    expect_refused(session, "send", 403, "not_joined", room=room.upper(), body=1)
    longest = "\\u0061" * 64
    session.write(f'{{"type":"join","id":2,"room":"{longest}"}}')
    expect(session.read(), type="joined", room="a" * 64)
    session.request("leave", room="a" * 64)


@check("2.1", "required fields that are missing and fields of a wrong type are bad fields")
def _(env):
    room = env.name("room")
    cases = [
        ("join", {}), ("leave", {}), ("history", {}), ("presence", {}), ("send", {"body": 1}), ("send", {"room": room}),
        ("join", {"room": room, "presence": 1}), ("join", {"room": room, "presence": "true"}), ("join", {"room": room, "echo": 0}),
        ("join", {"room": room, "history": -1}), ("join", {"room": room, "history": "3"}), ("join", {"room": room, "history": 1.5}),
        ("join", {"room": room, "history": True}), ("join", {"room": room, "since": 5}), ("join", {"room": room, "since": "1" * 65}),
        ("send", {"room": room, "body": 1, "key": 5}), ("send", {"room": room, "body": 1, "key": "k" * 65}),
        ("send", {"room": room, "body": 1, "key": "\u00e9" * 33}), ("send", {"room": room, "body": 1, "ephemeral": "yes"}),
        ("send", {"room": room, "body": 1, "ephemeral": 1}), ("history", {"room": room, "limit": -1}),
        ("history", {"room": room, "limit": "5"}), ("history", {"room": room, "before": 5}), ("history", {"room": room, "after": []}),
        ("history", {"room": room, "before": "1" * 65}),
    ]  # fmt: skip
    wrong = []
    for kind, fields in cases:
        session = env.session()
        session.request("join", room=room)
        try:
            expect_refused(session, kind, 400, "bad_field", **fields)
        except Mismatch as fault:
            wrong.append((kind, fields, str(fault)))
        expect_alive(session)
    same([], wrong)


@check("2.1", "optional fields at their largest, and at their defaults")
def _(env):
    session = env.session()
    room = env.name("room")
    for fields in ({"presence": False, "echo": True}, {"history": 0}, {"history": 1000}, {"presence": True, "echo": True}):
        expect(session.request("join", room=room, **fields), type="joined", members=1, recovered=ABSENT)
    for fields in ({"key": "k" * 64}, {"key": "\u00e9" * 32}, {"ephemeral": False}, {"key": "a b\n"}):
        true("at" in session.request("send", room=room, body=1, **fields), "`sent` with `at`", fields)
    for limit in (1, 50, 1000):
        expect(session.request("history", room=room, limit=limit), type="history", room=room)


@check("2.2", "`sent` and `message` say what was sent, by whom, when and where")
def _(env):
    alice, bob = env.session(), env.session()
    room = env.name("room")
    for session in (alice, bob):
        session.request("join", room=room)
    sent = expect(alice.request("send", room=room, body={"text": "hi"}), type="sent", room=room, duplicate=ABSENT)
    now = time.time() * 1000
    for session in (alice, bob):
        message = session.next_event("message")
        expect(message, room=room, at=sent["at"], body={"text": "hi"})
        same(alice.user, message["from"])
        true(abs(message["ts"] - now) < 60_000, f"ms since 1970, about {now}", message["ts"])


@check("2.2", "`pong` has the server's time")
def _(env):
    pong = env.session().request("ping", id=0)
    true(abs(pong["ts"] - time.time() * 1000) < 60_000, "ms since 1970", pong["ts"])


@check("2.1", "`pong` from the client has no answer")
def _(env):
    session = env.session()
    session.write(*[{"type": "pong"}] * 50)
    expect_quiet(session)
    expect_alive(session)


@check("2.1", "`leave` is answered by `left`, joined or not")
def _(env):
    session = env.session()
    room = env.name("room")
    for _ in range(2):
        expect(session.request("leave", room=room), type="left", room=room)
    session.request("join", room=room)
    expect(session.request("leave", room=room), type="left", room=room)


@check("2.1", "`bye` is answered by `bye` 0, and what stands behind it isn't read")
def _(env):
    session = env.session()
    room = env.name("room")
    session.request("join", room=room)
    session.write({"type": "bye"}, {"type": "ping", "id": 5}, {"type": "send", "id": 6, "room": room, "body": 1})
    same([], expect_end(session, 0, "bye"), "nothing before")


@check("2.1", "what was asked before `bye` and needs no other room is answered first")
def _(env):
    session = env.session()
    session.write({"type": "ping", "id": 5}, {"type": "nonsense", "id": 6}, {"type": "bye"})
    same([5, 6], [each.get("id") for each in expect_end(session, 0, "bye")])


@check("2.2", "a body is carried byte for byte, to every member")
def _(env):
    room = env.name("room")
    members = [env.session() for _ in range(4)]
    for session in members:
        session.request("join", room=room)
    sender, nested = members[0], "[" * 15 + "]" * 15
    bodies = [
        "null", "true", "false", "0", "-0", "1.0", "1e5", "1.0E+05", "-1.50e-003", "123456789012345678901234567890", "1e999",
        '""', '"a"', '"\\u0041\\/\\b\\f\\n\\r\\t\\"\\\\"', '"\\u0000"', '"\u00e9\u2028\U0001f600"', '"\\ud83d\\ude00"', '"\\uD83D"',
        '"\u007f\ufeff\uffff"', "[]", "{}", "[ ]", "{ }", '{"a":1,"a":2}', '{"b" : 1 ,\n\t"a":[ 1,2 , 3 ]\r\n}',
        '{"type":"bye","room":"x","id":1}', nested, '{"":{"":[[""]]}}', '[1,\n\n\n2]', '"' + "\\\\" * 3000 + '"',
        "[" + ",".join(["[ ]"] * 9000) + "]",
    ]  # fmt: skip
    for body in bodies:
        sender.write(f'{{"type":"send","id":1,"body":{body},"room":"{room}"}}')
        sent = expect(sender.read(), type="sent", id=1)
        for session in members:
            message = session.next_event("message")
            expect(message, at=sent["at"])
            same(body.encode(), message.raw_field("body"))


@check("2", "white space may stand anywhere in an object, fields in any order")
def _(env):
    session = env.session()
    room = env.name("room")
    session.write(f' \t\r\n{{ "room" : "{room}" ,\n"id":\t1 , "type"\r: "join" }} \n')
    expect(session.read(), type="joined", id=1)
    session.write(f'{{"body":[ 1 ],"ephemeral":false,"id":2,"key":null,"type":"ping"}}\n\n')
    expect(session.read(), type="pong", id=2)
    session.write(f'{{"body" : [ 1 ] ,"room":"{room}","type":"send","id":3}}')
    expect(session.read(), type="sent", id=3)
    same(b"[ 1 ]", session.next_event("message").raw_field("body"))


@check("2", "positions: one epoch, opaque, at most 64 bytes; they rise strictly in a room")
def _(env):
    alice, bob = env.session(), env.session()
    room = env.name("room")
    joined = alice.request("join", room=room)
    same((0, 0), place_of(joined["at"]), "a room without messages is at 0-0")
    bob.request("join", room=room)
    seen = [joined["at"]]
    for number in range(200):
        sender = (alice, bob)[number % 2]
        seen.append(sender.request("send", room=room, body=number)["at"])
    same(1, len({epoch_of(at) for at in seen}), "epochs:")
    true(all(place_of(one) < place_of(two) for one, two in zip(seen, seen[1:])), "strictly rising", seen)
    same(seen[-1], env.session().request("join", room=room)["at"], "`joined.at` is the newest")


@check("2", "positions still rise when a room was empty in between")
def _(env):
    session = env.session()
    room = env.name("room")
    newest = None
    for number in range(20):
        session.request("join", room=room)
        at = session.request("send", room=room, body=number)["at"]
        true(newest is None or epoch_of(at) != epoch_of(newest) or place_of(at) > place_of(newest), f"above {newest}", at)
        newest = at
        session.request("leave", room=room)


@check("2.2", "`joined.at` of a room that was empty in between is its newest position, or 0-0 where nothing is retained")
def _(env):
    session = env.session()
    room = env.name("room")
    session.request("join", room=room)
    at = session.request("send", room=room, body=1)["at"]
    session.request("leave", room=room)
    again = session.request("join", room=room)
    true(again["at"] == at or place_of(again["at"]) == (0, 0), f"{at}, or 0-0", again)


MALFORMED = [
    b"{", b"}", b"x", b" ", b"\n", b'{"type":"ping"', b'{"type":"ping"}}', b'{"type":"ping"}{"type":"ping"}', b"{'type':'ping'}", b'{"type":"ping",}',
    b'{"type":"ping" "id":1}', b'{type:"ping"}', b"[]", b'"ping"', b"1", b"null", b"true", b'[{"type":"ping"}]', b'\xef\xbb\xbf{"type":"ping"}',
    b'{"type":"ping","x":"\xff"}', b'{"type":"ping","x":"\xc3"}', b'{"type":"ping","x":"\xc0\xaf"}', b'{"type":"ping","x":"\xed\xa0\x80"}',
    b'{"type":"ping","x":"\xf4\x90\x80\x80"}', b'{"type":"ping","\xff":1}', b'{"type":"ping","x":"a\nb"}', b'{"type":"ping","x":"\\x41"}',
    b'{"type":"ping","x":"\\u12"}', b'{"type":"ping","x":01}', b'{"type":"ping","x":1.}', b'{"type":"ping","x":.5}', b'{"type":"ping","x":+1}',
    b'{"type":"ping","x":NaN}', b'{"type":"ping","x":tru}', b'{"type":"ping"}\x00', b"\x00", b'{"type":"ping"}//', b'{"type":"ping","x":[1,]}',
    b'{"type":"ping","x":{"a"}}', b'{"type":"ping","x":"', b'{"type":"ping","id":1', b'{"type":"ping","x":-}', b'{"type":"ping","x":1e}',
]  # fmt: skip


@check("15", "not UTF-8, not JSON, no object: `error` 400 malformed, and the session goes on")
def _(env):
    wrong = []
    for text in MALFORMED:
        session = env.session()
        session.write(text)
        received = session.read()
        if (received["type"], received.get("code"), received.get("reason")) != ("error", 400, "malformed"):
            wrong.append((text, received.raw))
        if received["type"] != "bye":
            expect_alive(session)
    same([], wrong)


@check("15", "the same faults inside a body")
def _(env):
    wrong = []
    for body in (b'"\xff"', b"01", b"[1,]", b'"a\nb"', b"nul", b"", b"1 2", b'{"a"}', b"[" * 200, b'"\\q"', b'{"a":"\xed\xa0\x80"}', b"{1:2}", b"[1 2]"):
        session = env.session()
        session.write(b'{"type":"send","id":1,"room":"@bob","body":' + body + b"}")
        received = session.read()
        if (received["type"], received.get("code"), received.get("reason")) != ("error", 400, "malformed"):
            wrong.append((body, received.raw))
        expect_alive(session)
    same([], wrong)


@check("15", "16 levels are taken and 17 are not, in a body as in an unknown field")
def _(env):
    wrong = []
    for opening, closing in (("[", "]"), ('{"a":', "}")):
        for name in ("body", "unknown"):
            for levels, kind in ((15, "sent"), (16, "error")):
                session = env.session()
                inner = opening * levels + ("1" if opening != "[" else "") + closing * levels
                more = "" if name == "body" else ',"body":1'
                session.write(f'{{"type":"send","id":1,"room":"@bob","{name}":{inner}{more}}}')
                received = session.read()
                if received["type"] != kind or received.get("reason", "malformed") not in ("malformed", "bad_field"):
                    wrong.append((name, levels + 1, received.raw))
                expect_alive(session)
    same([], wrong)


@check("15", "brackets in strings are no levels")
def _(env):
    session = env.session()
    expect(session.request("send", room=f"@{session.user}", body="[" * 50 + '"' + "{" * 50), type="sent")


@check("15", "a doubled field: `error` 400, known or not, however it is written")
def _(env):
    wrong = []
    for text in (
        '{"type":"ping","type":"ping"}', '{"type":"ping","id":1,"id":1}', '{"type":"join","room":"a","room":"a"}',
        '{"type":"join","room":"a","ro\\u006fm":"b"}', '{"type":"join","room":"a","echo":true,"echo":true}',
        '{"type":"send","room":"@bob","body":1,"body":2}', '{"type":"send","room":"@bob","body":1,"b\\u006fdy":2}',
    ):  # fmt: skip
        session = env.session()
        session.write(text)
        received = session.read()
        if (received["type"], received.get("code"), received.get("reason")) != ("error", 400, "bad_field"):
            wrong.append((text, received.raw))
        expect_alive(session)
    same([], wrong)


@check("15", "a missing `type` or one that is no string: `error` 400, and the session goes on")
def _(env):
    for text in ("{}", '{"id":1}', '{"type":5}', '{"type":null}', '{"type":["ping"]}', '{"type":{}}'):
        session = env.session()
        session.write(text)
        expect(session.read(), type="error", code=400)
        expect_alive(session)


@check("15", "seven bad objects are answered, the eighth ends the session: `bye` 400 protocol_error")
def _(env):
    for bad in ("x", "[]", '{"type":"join"}', '{"type":"ping","id":-1}', '{"type":"ping","type":"ping"}', b"\xff"):
        session = env.session()
        for _ in range(7):
            session.write(bad)
            expect(session.read(), type="error", code=400)
            expect_alive(session)
        session.write(bad)
        before = expect_end(session, 400, "protocol_error")
        true(len(before) <= 1, "at most an error before", [each.raw for each in before])


@check("15", "eight bad objects in one packet, with good ones between, end the session the same way")
def _(env):
    session = env.session()
    session.write(*(each for number in range(12) for each in ({"type": "ping", "id": number}, "x")))
    before = expect_end(session, 400, "protocol_error")
    same(list(range(8)), [each["id"] for each in before if each["type"] == "pong"])
    true(sum(each["type"] == "error" for each in before) in (7, 8), "7 errors, or 8", [each.raw for each in before])


@check("15", "refusals are no bad objects: any number of them leaves the session alone")
def _(env):
    session = env.session()
    for _ in range(12):
        expect_refused(session, "send", 403, "not_joined", room="nowhere", body=1)
        expect_refused(session, "join", 403, "forbidden", room="@bob")
        expect_refused(session, "presence", 403, "not_joined", room="nowhere")
    expect_alive(session)


@check("2.1, 2", "`since` and `inbox` of another epoch, or one that means nothing, never end a session")
def _(env):
    session = env.session()
    room = env.name("room")
    for since in ("zzzz.1-0", "0.0-0", "f" * 40 + ".1732345678901-7"):
        expect(session.request("join", room=room, since=since), type="joined", replay=0, recovered=False)
        expect(env.session(inbox=since).welcome["inbox"], replay=0, recovered=False)
    try:
        session.request("join", room=room, since="what is this?")
    except Refused as refused:
        expect(refused.error, code=400, reason="bad_field")
    expect_alive(session)


@check("2.2", "`recovered` comes with `since` only")
def _(env):
    session = env.session()
    room = env.name("room")
    at = expect(session.request("join", room=room), recovered=ABSENT)["at"]
    true("recovered" in session.request("join", room=room, since=at), "`recovered`", at)
    expect(session.request("join", room=room, history=5), recovered=ABSENT)
    expect(session.request("join", room=room, since="zzzz.1-0"), recovered=False)


@check("5", "the exchange of section 5")
def _(env):
    connection = env.connect()
    room = env.name("lobby")
    connection.write('{"type":"hello","version":1,"user":"alice"}')
    expect(connection.read(), type="welcome", version=1, user="alice")
    connection.write(f'{{"type":"join","id":1,"room":"{room}"}}')
    expect(connection.read(), type="joined", id=1, room=room, members=1, replay=0)
    connection.write(f'{{"type":"send","id":2,"room":"{room}","body":{{"text":"hi"}},"key":"k1"}}')
    sent = expect(connection.read(), type="sent", id=2, room=room)
    message = expect(connection.read(), type="message", room=room, at=sent["at"], body={"text": "hi"})
    same("alice", message["from"])


@check("2.1", "everything in one packet with `hello`: every answer comes")
def _(env):
    connection = env.connect()
    user, room = env.name("user"), env.name("room")
    connection.write(
        {"type": "hello", "version": 1, "user": user},
        {"type": "ping", "id": 1},
        {"type": "join", "id": 2, "room": room},
        {"type": "send", "id": 3, "room": room, "body": 1},
        {"type": "send", "id": 4, "room": f"@{user}", "body": 2},
        {"type": "presence", "id": 5, "room": room},
        {"type": "history", "id": 6, "room": room},
        {"type": "leave", "id": 7, "room": room},
    )
    expect(connection.read(), type="welcome")
    answers, _ = read_answers(connection, range(1, 8))
    kinds = {1: "pong", 2: "joined", 3: "sent", 4: "sent", 5: "presence", 6: "history", 7: "left"}
    same(kinds, {number: answer["type"] for number, answer in answers.items()})
