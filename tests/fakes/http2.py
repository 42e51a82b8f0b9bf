"""A caller over HTTP/2 of raw frames: it sends any frame, and reads when it is told to."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from typing import Any

from hpack import Decoder, Encoder
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from relay.wire.h2.frames import PREFACE
from tests.fakes.caller import BODY

Fields = list[tuple[str, str]]


class Reply:
    """The answer on one stream, as far as it has come."""

    def __init__(self) -> None:
        self.fields: dict[str, str] = {}
        self.interim: list[str] = []  # statuses of 1xx responses
        self.pieces: list[bytes] = []  # the payload of each DATA frame
        self.complete = False
        self.reset: int | None = None  # the code of RST_STREAM
        self.changed = asyncio.Event()

    @property
    def status(self) -> int:
        return int(self.fields.get(":status", 0))

    @property
    def payload(self) -> bytes:
        return b"".join(self.pieces)


class Http2Caller:
    """One connection. `grants`: every octet received is given back to the windows."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, grants: bool
    ) -> None:
        self.writer = writer
        self.replies: dict[int, Reply] = {}
        self.goaways: list[GoAwayFrame] = []
        self.settings: dict[int, int] = {}
        self.pongs: list[bytes] = []
        self.windows: dict[int, int] = {}  # granted by the relay, by stream
        self.closed = asyncio.Event()
        self.answers_pings = True
        self.encoder = Encoder()
        self._decoder = Decoder()
        self._reader = reader
        self._grants = grants
        self._next = 1
        self._changed = asyncio.Event()
        self._reading = asyncio.get_running_loop().create_task(self._read())

    def send(self, *frames: Frame | bytes) -> None:
        """Send frames in one piece."""
        octets = [one if isinstance(one, bytes) else one.serialize() for one in frames]
        self.writer.write(b"".join(octets))

    def begin(self, fields: Fields, *, end: bool = False) -> int:
        """Send the head of a request; its stream."""
        stream, self._next = self._next, self._next + 2
        self.replies[stream] = Reply()
        self.send(self.head(stream, fields, end=end))
        return stream

    def head(self, stream: int, fields: Fields, *, end: bool) -> HeadersFrame:
        """The HEADERS frame of a request."""
        flags = ["END_HEADERS", "END_STREAM"] if end else ["END_HEADERS"]
        return HeadersFrame(stream, self.encoder.encode(fields), flags=flags)

    def request(self, fields: Fields, body: bytes = b"") -> int:
        """Send a request with a small body; its stream."""
        stream = self.begin(fields, end=not body)
        if body:
            self.send(DataFrame(stream, body, flags=["END_STREAM"]))
        return stream

    async def answer(self, stream: int, wait: float = 10.0) -> Reply:
        """The answer once it is complete, reset, or its connection closed."""
        reply = self.replies[stream]
        async with asyncio.timeout(wait):
            while not (reply.complete or reply.reset is not None or self.closed.is_set()):
                reply.changed.clear()
                await reply.changed.wait()
        return reply

    async def octets(self, stream: int, number: int, wait: float = 10.0) -> Reply:
        """The answer once so many octets of payload have come, or its head for 0."""
        reply = self.replies[stream]
        async with asyncio.timeout(wait):
            while not reply.fields or len(reply.payload) < number:
                reply.changed.clear()
                await reply.changed.wait()
        return reply

    async def pong(self, wait: float = 10.0) -> None:
        """Wait until the relay has taken every frame sent so far."""
        count = len(self.pongs)
        self.send(PingFrame(opaque_data=b"are-you?"))
        async with asyncio.timeout(wait):
            while len(self.pongs) == count:
                self._changed.clear()
                await self._changed.wait()

    async def goaway(self, wait: float = 10.0) -> GoAwayFrame:
        """The first GOAWAY, once it has come."""
        async with asyncio.timeout(wait):
            while not self.goaways:
                self._changed.clear()
                await self._changed.wait()
        return self.goaways[0]

    async def ended(self, wait: float = 10.0) -> None:
        """Wait until the relay has closed the connection."""
        async with asyncio.timeout(wait):
            await self.closed.wait()

    async def stop(self) -> None:
        self._reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reading
        self.writer.transport.abort()

    async def _read(self) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await self._reader.readexactly(9)
                frame, length = Frame.parse_frame_header(memoryview(head))
                frame.parse_body(memoryview(await self._reader.readexactly(length)))
                self._take(frame)
        self.writer.close()
        self.closed.set()
        self._changed.set()
        for reply in self.replies.values():
            reply.changed.set()

    def _take(self, frame: Frame) -> None:
        reply = self.replies.get(frame.stream_id)
        if isinstance(frame, HeadersFrame):
            fields = {str(k): str(v) for k, v in self._decoder.decode(frame.data)}
            if reply is not None and fields[":status"].startswith("1"):
                reply.interim.append(fields[":status"])
            elif reply is not None:
                reply.fields = fields
        elif isinstance(frame, DataFrame):
            if reply is not None and frame.data:
                reply.pieces.append(frame.data)
            if self._grants and frame.flow_controlled_length:
                size = frame.flow_controlled_length
                updates = [WindowUpdateFrame(0, window_increment=size)]
                if "END_STREAM" not in frame.flags:
                    updates.append(WindowUpdateFrame(frame.stream_id, window_increment=size))
                self.send(*updates)
        elif isinstance(frame, RstStreamFrame) and reply is not None:
            reply.reset = frame.error_code
        elif isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
            self.settings = dict(frame.settings)
            self.send(SettingsFrame(flags=["ACK"]))
        elif isinstance(frame, PingFrame):
            if "ACK" in frame.flags:
                self.pongs.append(frame.opaque_data)
            elif self.answers_pings:
                self.send(PingFrame(opaque_data=frame.opaque_data, flags=["ACK"]))
        elif isinstance(frame, GoAwayFrame):
            self.goaways.append(frame)
        elif isinstance(frame, WindowUpdateFrame):
            before = self.windows.get(frame.stream_id, 0)
            self.windows[frame.stream_id] = before + frame.window_increment
        if reply is not None:
            if "END_STREAM" in frame.flags:
                reply.complete = True
            reply.changed.set()
        self._changed.set()


@contextlib.asynccontextmanager
async def http2_caller(
    port: int,
    *,
    grants: bool = True,
    settings: dict[int, int] | None = None,
    tls: ssl.SSLContext | None = None,
    limit: int = 1 << 20,
) -> AsyncIterator[Http2Caller]:
    """A connection whose preface is sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, limit=limit)
    caller = Http2Caller(reader, writer, grants=grants)
    try:
        caller.send(PREFACE, SettingsFrame(settings=settings or {}))
        yield caller
    finally:
        await caller.stop()


def get(path: str = "/healthz", *more: tuple[str, str]) -> Fields:
    """The fields of a GET."""
    return [(":method", "GET"), *_target(path), *more]


def post(key: str, *more: tuple[str, str], path: str = "/v1/messages") -> Fields:
    """The fields of a request of the Messages API."""
    return [
        (":method", "POST"),
        *_target(path),
        ("x-api-key", key),
        ("anthropic-version", "2023-06-01"),
        ("content-type", "application/json"),
        *more,
    ]


def body(**more: Any) -> bytes:
    """A body of the Messages API."""
    return json.dumps({**BODY, **more}).encode()


def _target(path: str) -> Fields:
    return [(":scheme", "http"), (":path", path), (":authority", "relay")]
