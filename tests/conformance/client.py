"""A small ringroom client: one TCP connection, blocking, standard library alone.

Written from the wire protocol, not from the server. `Connection` carries objects in frames, `Session` knows requests and their answers. Every wait has
a deadline. Bodies can be had byte for byte (`Received.raw_field`), because the server promises to carry them so.

    session = Session(("127.0.0.1", 7777))
    session.hello("alice")
    session.request("join", room="lobby")
    session.request("send", room="lobby", body={"text": "hi"})
    print(session.next_event("message"))
"""

import collections
import json
import socket
import struct
import time

FRAME_BYTES_MAX = 64 * 1024
# Long beyond doubt: only a server that hangs makes anybody wait for it.
PATIENCE_S = 60.0


class Ended(Exception):
    """The connection is over. `how`: "eof", "torn" (eof inside a frame) or "reset"; `bye`: the server's last object, if it sent one."""

    def __init__(self, how, bye):
        super().__init__(f"connection ended ({how}) after {bye and bye.raw}")
        self.how = how
        self.bye = bye


class Refused(Exception):
    """A request was answered by `error`."""

    def __init__(self, error):
        super().__init__(error.raw)
        self.error = error


class Received(dict):
    """An object from the server; `raw` is its text as it came."""

    def __init__(self, raw):
        self.raw = raw
        outermost = []

        def keep(pairs):
            outermost[:] = pairs
            return dict(pairs)

        super().__init__(json.loads(raw.decode(), object_pairs_hook=keep, parse_constant=_no_constant))
        if len(outermost) != len(self):
            raise ValueError(f"a doubled field from the server: {raw}")

    def raw_field(self, name):
        """The bytes of one field's value, white space inside it and all."""
        return raw_fields(self.raw.decode())[name].encode()


def _no_constant(text):
    raise ValueError(f"{text} is not JSON")


def raw_fields(text):
    """Each field of an object with its value as it is written."""
    decoder = json.JSONDecoder()
    skip = lambda at: at + len(text[at:]) - len(text[at:].lstrip(" \t\r\n"))
    fields, at = {}, skip(0)
    assert text[at] == "{", text
    at = skip(at + 1)
    while text[at] != "}":
        name, at = decoder.raw_decode(text, at)
        at = skip(at)
        assert text[at] == ":", text
        start = skip(at + 1)
        _, end = decoder.raw_decode(text, start)
        fields[name] = text[start:end]
        at = skip(end)
        if text[at] == ",":
            at = skip(at + 1)
    return fields


def frame(payload):
    """A frame of an object, or of text or bytes that are meant to be one."""
    if isinstance(payload, dict):
        payload = json.dumps(payload, ensure_ascii=False)
    if isinstance(payload, str):
        payload = payload.encode()
    return struct.pack(">I", len(payload)) + payload


class Connection:
    """Objects over TCP. `observer` sees each object that comes, first."""

    def __init__(self, address, observer=None, receive_buffer=None):
        self.socket = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect(address)
        self._waiting = bytearray()
        self._observer = observer
        self._last = None

    def write(self, *payloads):
        """All of these in one piece."""
        self.write_bytes(b"".join(frame(payload) for payload in payloads))

    def write_bytes(self, data):
        self.socket.settimeout(PATIENCE_S)
        self.socket.sendall(data)

    def read(self, patience_s=PATIENCE_S):
        """The next object. Raises `Ended`, or `TimeoutError` when nothing whole came in time."""
        deadline = time.monotonic() + patience_s
        while (raw := self._whole()) is None:
            self.socket.settimeout(max(deadline - time.monotonic(), 1e-3))
            try:
                piece = self.socket.recv(256 * 1024)
            except (ConnectionResetError, BrokenPipeError):
                raise Ended("reset", self._bye()) from None
            if not piece:
                raise Ended("torn" if self._waiting else "eof", self._bye())
            self._waiting += piece
        self._last = received = Received(raw)
        if self._observer is not None:
            self._observer(received)
        return received

    def close(self):
        self.socket.close()

    def _bye(self):
        return self._last if self._last is not None and self._last.get("type") == "bye" else None

    def _whole(self):
        if len(self._waiting) < 4:
            return None
        (length,) = struct.unpack_from(">I", self._waiting)
        if not 0 < length <= FRAME_BYTES_MAX:
            raise ValueError(f"a frame of {length} bytes from the server")
        if len(self._waiting) < 4 + length:
            return None
        raw = bytes(self._waiting[4 : 4 + length])
        del self._waiting[: 4 + length]
        return raw

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Session(Connection):
    """Requests and answers on a connection; what comes besides answers waits in `events`."""

    def __init__(self, address, **options):
        super().__init__(address, **options)
        self.events = collections.deque()
        self.welcome = None
        self.user = None
        self._id = 0

    def hello(self, user, **fields):
        """Logs in. Raises `Ended` with the server's `bye` when it doesn't let us."""
        self.write({"type": "hello", "version": 1, "user": user, **fields})
        while (received := self._read_answering())["type"] != "welcome":
            if received["type"] != "bye":
                self.events.append(received)
        self.welcome, self.user = received, user
        return received

    def request(self, kind, **fields):
        """Asks, and waits for the answer with the request's id. Raises `Refused`."""
        self._id += 1
        wanted = fields.setdefault("id", self._id)
        self.write({"type": kind, **fields})
        while (received := self._read_answering()).get("id") != wanted:
            self.events.append(received)
        if received["type"] == "error":
            raise Refused(received)
        return received

    def next_event(self, kind=None, patience_s=PATIENCE_S):
        """The next object that is no answer to `request`; of this type, where one is given: those before it are dropped."""
        deadline = time.monotonic() + patience_s
        while True:
            waited = self.events.popleft() if self.events else self._read_answering(deadline - time.monotonic())
            if kind is None or waited["type"] == kind:
                return waited

    def _read_answering(self, patience_s=PATIENCE_S):
        """Reads; a `ping` from the server is answered here."""
        deadline = time.monotonic() + patience_s
        while (received := self.read(deadline - time.monotonic()))["type"] == "ping":
            self.write({"type": "pong"})
        return received
