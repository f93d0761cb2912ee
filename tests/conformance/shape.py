"""What section 2.2 of the protocol says about every object from the server, as predicates, and the rules that hold on every connection.

An `Observer` per connection sees each object before anybody else does, so that each check also checks all of this.
"""

import re

POSITION = re.compile(r"[^.]+\.(\d+)-(\d+)")
NAME = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
CODES = {
    0: {"bye"},
    400: {"malformed", "bad_field", "unknown_type", "protocol_error", "bad_frame"},
    401: {"hello_first", "bad_token", "token_expired"},
    403: {"forbidden", "not_joined"},
    408: {"handshake_timeout", "frame_timeout", "idle"},
    409: {"replaced"},
    410: {"kicked"},
    413: {"frame_too_large", "body_too_large"},
    429: {"rate_limited", "too_many_rooms", "too_many_sessions", "slow_consumer"},
    500: {"internal"},
    503: {"overloaded", "draining", "log_unavailable"},
    505: {"version"},
}


class Violation(Exception):
    """The server broke a rule that holds for every object."""


def epoch_of(position):
    return position.rpartition(".")[0]


def place_of(position):
    """Where a position stands in its epoch. Clients never look; a check may."""
    match = POSITION.fullmatch(position)
    return int(match[1]), int(match[2])


def _integer(value):
    return type(value) is int and 0 <= value < 2**53


def _truth(value):
    return type(value) is bool


def _text(value):
    return type(value) is str


def _some_text(value):
    return type(value) is str and value != ""


def _name(value):
    return _text(value) and NAME.fullmatch(value) is not None


def _room(value):
    return _text(value) and NAME.fullmatch(value.removeprefix("@")) is not None


def _position(value):
    return _text(value) and len(value.encode()) <= 64 and POSITION.fullmatch(value) is not None


def _any(_):
    return True


def _only_true(value):
    return value is True


def _fields(value, required, optional=()):
    """`value` has all of the required fields, none but these, and each as it must be."""
    optional = dict(optional)
    if type(value) is not dict or not required.keys() <= value.keys() <= required.keys() | optional.keys():
        return False
    return all({**optional, **required}[name](value[name]) for name in value)


def _inbox(value):
    return _fields(value, {"at": _position, "replay": _integer}, {"recovered": _truth})


def _limits(value):
    names = ("frame_bytes", "body_bytes", "rooms", "replay", "requests_per_s", "requests_burst")
    return _fields(value, {name: _integer for name in names})


def _users(value):
    return type(value) is list and all(map(_name, value)) and len(value) == len(set(value)) <= 500


def _history(value):
    entry = {"at": _position, "from": _name, "ts": _integer, "body": _any}
    return type(value) is list and all(_fields(each, entry) for each in value)


ID = {"id": _integer}
ENDING = {"code": _integer, "reason": _text}
# By type: the fields that are always there, and those that may be.
SHAPES = {
    "welcome": (
        {
            "version": _integer, "user": _name, "session": _some_text, "node": _some_text,
            "heartbeat_ms": _integer, "inbox": _inbox, "limits": _limits,
        },
        {"expires_at": _integer},
    ),
    "joined": ({"room": _room, "at": _position, "members": _integer, "replay": _integer}, {**ID, "recovered": _truth}),
    "left": ({"room": _room}, ID),
    "sent": ({"room": _room}, {**ID, "at": _position, "duplicate": _only_true}),
    "message": ({"room": _room, "from": _name, "ts": _integer, "body": _any}, {"at": _position}),
    "history": ({"room": _room, "messages": _history, "more": _truth}, ID),
    "presence": ({"room": _room, "members": _integer, "users": _users, "truncated": _truth}, ID),
    "member": ({"room": _room, "event": _text}, {"user": _name, "members": _integer}),
    "gap": ({"room": _room, "since": _position}, {}),
    "ping": ({}, ID),
    "pong": ({"ts": _integer}, ID),
    "error": ({**ENDING, "message": _text}, {**ID, "retry_after_ms": _integer}),
    "bye": (ENDING, {"message": _text, "retry_after_ms": _integer}),
}  # fmt: skip


def check_object(received):
    """Type, fields, their values, and what the fields say together."""
    kind = received.get("type")
    if kind not in SHAPES:
        raise Violation(f"an object of an unknown type: {received.raw}")
    required, optional = SHAPES[kind]
    if not _fields(dict(received), {"type": _text, **required}, optional):
        raise Violation(f"`{kind}` has a field too many, too few, or a bad one: {received.raw}")
    if kind in ("error", "bye") and received["reason"] not in CODES.get(received["code"], ()):
        raise Violation(f"code and reason are no pair of section 4: {received.raw}")
    if kind == "member":
        alone = received.keys() == {"type", "room", "event"}
        if alone != (received["event"] == "off") or received["event"] not in ("join", "leave", "off"):
            raise Violation(f"a bad `member`: {received.raw}")


class Observer:
    """The rules that each connection's objects keep among themselves."""

    def __init__(self):
        self.user = None
        self.rooms = set()
        self.ended = False
        self.newest = {}
        self.replayed = {}
        self.seen = set()

    def __call__(self, received):
        check_object(received)
        kind, room = received["type"], received.get("room")
        self._expect(not self.ended, "an object after `bye`", received)
        self._expect(self.user is not None or kind in ("welcome", "bye"), "an object before `welcome`", received)
        match kind:
            case "welcome":
                self.user = received["user"]
            case "bye":
                self.ended = True
            case "joined":
                self.rooms.add(room)
                self.replayed[room] = received["replay"]
            case "left":
                self.rooms.discard(room)
            case "sent":
                first = "duplicate" in received or (room, received.get("at")) not in self.seen
                self._expect(first, "`sent` behind the session's own `message`", received)
            case "message":
                self._message(received)
            case "member":
                self._expect(room in self.rooms, "`member` of a room that isn't joined", received)

    def _message(self, received):
        room, at = received["room"], received.get("at")
        self._expect(room in self.rooms or room == f"@{self.user}", "`message` of a room that isn't joined", received)
        if self.replayed.get(room, 0) > 0:
            self.replayed[room] -= 1
        elif at is not None:
            line = (room, epoch_of(at))
            self._expect(place_of(at) > self.newest.get(line, (-1, -1)), "a position that doesn't rise", received)
            self.newest[line] = place_of(at)
            if received["from"] == self.user:
                self.seen.add((room, at))

    @staticmethod
    def _expect(kept, rule, received):
        if not kept:
            raise Violation(f"{rule}: {received.raw}")
