"""The clients of HTTP/2: as those of HTTP/1.1, but many requests share a connection.

Decides how requests are put on streams, and whether an answer is right. Must not know which proxy
answers. Connections begin with prior knowledge (RFC 9113 §3.3), without TLS, whose cost would hide
the proxy's. The clients allow no dynamic table for header blocks of answers, so that a block is
checked by its first octet; for their own they use one, as real clients do.
"""

import asyncio
import ssl
from time import perf_counter_ns
from typing import Final, Protocol, cast

from hpack import Encoder
from hyperframe.frame import Frame, SettingsFrame, WindowUpdateFrame

from bench.dialects import HOST
from bench.loadgen import HEAD_END, JsonLoad, LoadError, read_answer
from bench.streams import StreamLoad

STREAMS_A_CONNECTION: Final = 16
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_WINDOW: Final = 2**31 - 1
_LOW: Final = 2**30  # of the connection's window, in octets that were received
_STATUS_200: Final = 0x88  # as an indexed field of the static table
_HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _UPDATE = 1, 3, 4, 6, 7, 8


class Request:
    """One request, as header blocks and a body; from the octets of HTTP/1.1.

    `first` is the block of a connection's first request, `later` of each that follows: its fields
    are in the server's table by then.
    """

    def __init__(self, payload: bytes) -> None:
        head, _, self.body = payload.partition(HEAD_END)
        start, *lines = head.decode().split("\r\n")
        method, path, _ = start.split(" ")
        fields = [line.split(": ", 1) for line in lines]
        authority = next(value for name, value in fields if name == "Host")
        listed = [(":method", method), (":scheme", "http"), (":authority", authority)]
        listed += [(":path", path)]
        listed += [
            (name.lower(), value)
            for name, value in fields
            if name.lower() not in ("host", "connection")
        ]
        encoder = Encoder()
        self.first = encoder.encode(listed)
        self.later = encoder.encode(listed)


class Owner(Protocol):
    """The load that a connection's streams belong to."""

    def fail(self, error: LoadError) -> None: ...


class User(Protocol):
    """One request after another, each on a stream of its own."""

    def received(self, payload: bytes, is_end: bool) -> None:
        """A part of the answer's body has come."""


class Connection(asyncio.Protocol):
    """One connection and its streams."""

    def __init__(self, owner: Owner, request: Request) -> None:
        self.request = request
        self.users: dict[int, User] = {}
        self._owner = owner
        self._next = 1
        self._window = 65_535
        self._waiting: list[User] = []
        self._received = 0
        self._buffer = b""
        self._is_closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        settings = {
            SettingsFrame.HEADER_TABLE_SIZE: 0,
            SettingsFrame.ENABLE_PUSH: 0,
            SettingsFrame.INITIAL_WINDOW_SIZE: _WINDOW,
        }
        update = WindowUpdateFrame(0, window_increment=_WINDOW - 65_535)
        frames: list[Frame] = [SettingsFrame(0, settings=settings), update]
        self.transport.write(_PREFACE + b"".join(frame.serialize() for frame in frames))

    def send(self, user: User) -> None:
        """Open a stream with a request; later, where the server's window has no room for it."""
        request = self.request
        if self._window < len(request.body):
            self._waiting.append(user)
            return
        self._window -= len(request.body)
        stream, block = self._next, request.later if self._next > 1 else request.first
        self._next += 2
        self.users[stream] = user
        self.transport.write(
            len(block).to_bytes(3, "big") + b"\x01\x04" + stream.to_bytes(4, "big") + block
            + len(request.body).to_bytes(3, "big") + b"\x00\x01" + stream.to_bytes(4, "big")
            + request.body
        )  # fmt: skip

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
        at, size = 0, len(data)
        while size - at >= 9:
            end = at + 9 + int.from_bytes(data[at : at + 3], "big")
            if end > size:
                break
            kind, flags = data[at + 3], data[at + 4]
            stream = int.from_bytes(data[at + 5 : at + 9], "big")
            try:
                if kind:
                    self._on_frame(kind, flags, stream, data[at + 9 : end])
                else:
                    self._on_data(flags, stream, data[at + 9 : end])
            except LoadError as error:
                self._owner.fail(error)
                self.leave()
                return
            at = end
        self._buffer = data[at:]

    def _on_data(self, flags: int, stream: int, payload: bytes) -> None:
        self._received += len(payload)
        if self._received > _LOW:
            update = WindowUpdateFrame(0, window_increment=self._received)
            self.transport.write(update.serialize())
            self._received = 0
        is_end = bool(flags & 1)
        user = self.users.pop(stream) if is_end else self.users[stream]
        user.received(payload, is_end)

    def _on_frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _HEADERS:
            status = payload.lstrip(b"\x20")[:1]  # behind changes of the table's size
            if status != bytes([_STATUS_200]) or flags & 1:
                raise LoadError(f"instead of 200 and a body came {payload[:200]!r}")
        elif kind == _UPDATE and not stream:
            self._window += int.from_bytes(payload, "big")
            waiting, self._waiting = self._waiting, []
            for user in waiting:
                self.send(user)
        elif kind == _SETTINGS and not flags & 1:
            self.transport.write(SettingsFrame(0, flags=["ACK"]).serialize())
        elif kind in (_RESET, _GOAWAY):
            raise LoadError(f"a stream or the connection was closed: {kind} {payload[:200]!r}")

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._is_closed:
            self._owner.fail(LoadError(f"a connection was closed: {exc or 'FIN'}"))

    def leave(self) -> None:
        """Close the connection."""
        self._is_closed = True
        self.transport.abort()


async def connect(
    owner: Owner, port: int, request: Request, tls: ssl.SSLContext | None
) -> Connection:
    """A new connection, its preface sent."""
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(
        lambda: Connection(owner, request), HOST, port, ssl=tls
    )
    return connection


class Http2JsonLoad(JsonLoad):
    """JSON answers: each user sends its next request once an answer is in."""

    async def open(self, connections: int) -> None:
        request = Request(self.payload)
        users: list[_JsonUser] = []
        while len(users) < connections:
            connection = await connect(self, self.port, request, self.tls)
            number = min(STREAMS_A_CONNECTION, connections - len(users))
            users += [_JsonUser(self, connection) for _ in range(number)]
        self.join(users)
        await self.settled()


class _JsonUser:
    """See `User`."""

    __slots__ = ("body", "connection", "load", "sent", "size")

    def __init__(self, load: Http2JsonLoad, connection: Connection) -> None:
        self.load = load
        self.connection = connection
        self.body: bytes | None = b""  # of the first answer; its successors are only counted
        self.size = 0
        self.sent = 0

    def send(self, due: int = 0) -> None:
        self.sent = due or perf_counter_ns()
        self.connection.send(self)

    def received(self, payload: bytes, is_end: bool) -> None:
        self.size += len(payload)
        if self.body is not None:
            self.body += payload
        if not is_end:
            return
        if payload[-1:] not in (b"}", b""):
            raise LoadError(f"an answer does not end as JSON does: {payload[-80:]!r}")
        load = self.load
        if self.body is not None:
            load.text = read_answer(self.body, load.dialect)
            self.body = None
        load.completed += 1
        load.answer_bytes += self.size
        self.size = 0
        if load.recording:
            load.latencies.append(perf_counter_ns() - self.sent)
        if load.saturated:
            self.send()
        else:
            load.idle.append(self)

    def leave(self) -> None:
        self.connection.leave()


class Http2StreamLoad(StreamLoad):
    """Streams of events, each read to its end."""

    async def open(self, streams: int, over: float = 0.0) -> None:
        loop = asyncio.get_running_loop()
        request = Request(self.payload)
        origin = loop.time()
        connection: Connection | None = None
        for number in range(streams):
            if connection is None or number % STREAMS_A_CONNECTION == 0:
                connection = await connect(self, self.port, request, self.tls)
            self.join(_StreamUser(self, connection)).send()
            await self.run(max(0.0, origin + over * (number + 1) / streams - loop.time()))
        await self.started(streams, origin + over + 20)


class _StreamUser:
    """See `User`: counts events, which may be cut anywhere."""

    __slots__ = ("connection", "events", "has_content", "last", "load", "sent", "started")

    def __init__(self, load: Http2StreamLoad, connection: Connection) -> None:
        self.load = load
        self.connection = connection
        self.events = 0
        self.has_content = False
        self.last = b""
        self.sent = 0
        self.started = False

    def send(self) -> None:
        self.sent = perf_counter_ns()
        self.connection.send(self)

    def received(self, payload: bytes, is_end: bool) -> None:
        load = self.load
        if not self.started:
            self.started = True
            load.live += 1
        if payload:
            events = payload.count(b"\n\n")
            # A proxy may cut between the two newlines that end an event.
            if payload[:1] == b"\n" and self.last[-1:] == b"\n" and self.last[-2:] != b"\n\n":
                events += 1
            if not self.has_content and load.dialect.first.search(payload):
                self.has_content = True
                load.first_content.append(perf_counter_ns() - self.sent)
            self.events += events
            load.events += events
            load.stream_bytes += len(payload)
            self.last = payload if len(payload) >= 64 else self.last[-64:] + payload
        if is_end:
            if load.dialect.last not in self.last:
                raise LoadError(f"a stream ended without its last event: …{self.last[-80:]!r}")
            load.live -= 1
            load.completed += 1
            load.counts.append(self.events)

    def leave(self) -> None:
        self.connection.leave()
