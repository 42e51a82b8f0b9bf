"""Streams that a test scripts step by step on the upstream's side and reads on the caller's."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from relay.wire.chunked import ChunkReader
from relay.wire.sse import EventReader
from tests.fakes import answers
from tests.fakes.caller import BODY, connected, request
from tests.fakes.live import Live
from tests.fakes.upstream import Answer, Seen, Upstream

LivelyWith = Callable[[Answer], Awaitable[tuple[Live, Upstream]]]

STREAM = {**BODY, "stream": True}
EVENTS = answers.stream()
PING = b'event: ping\ndata: {"type": "ping"}\n\n'
KEEP_ALIVE = b": keep-alive\n\n"
WHOLE = b"".join(EVENTS)
LIVELY = {"grace": 0.05, "keep_alive": 0.05}
CLOSE = "connection: close\r\n"
OVERLOADED = b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'
HEAD = answers.chunked_head()


class End:
    """The upstream closes its connection."""


class Reset:
    """The upstream resets its connection."""


Step = bytes | asyncio.Event | type[End] | type[Reset]


def steps(*script: Step) -> Answer:
    """An upstream's answer, step by step: write octets, wait for an event, end."""

    async def answer(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Seen
    ) -> None:
        for step in script:
            if isinstance(step, bytes):
                writer.write(step)
                await writer.drain()
            elif isinstance(step, asyncio.Event):
                await step.wait()
            elif step is End:
                writer.close()
            else:
                writer.transport.abort()

    return answer


def in_chunks(events: list[bytes]) -> bytes:
    return b"".join(map(answers.chunk, events))


async def ticks(relay: Live, count: int) -> None:
    """Wait until the relay has checked its deadlines `count` times."""
    enough = asyncio.Event()
    left = count

    def tick() -> None:
        nonlocal left
        left -= 1
        if not left:
            enough.set()

    relay.app.deadlines.each_tick(tick)
    await enough.wait()


class Answered:
    """An answer while it arrives."""

    def __init__(self, reader: asyncio.StreamReader, ping: bytes = PING) -> None:
        self._reader = reader
        self._ping = ping
        self.raw = b""
        self.cut = False  # by a reset

    async def pings(self, count: int) -> None:
        """Read until the relay has sent `count` pings in all."""
        while self.raw.count(self._ping) < count:
            octets = await self._reader.read(65_536)
            assert octets, self.raw
            self.raw += octets

    async def end(self) -> "Answered":
        """Read until the connection ends."""
        try:
            self.raw += await self._reader.read(-1)
        except ConnectionResetError:
            self.cut = True
        return self

    @property
    def head(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[0].lower()

    @property
    def complete(self) -> bool:
        return self.raw.endswith(answers.LAST)

    @property
    def payload(self) -> bytes:
        body = self.raw.partition(b"\r\n\r\n")[2]
        return ChunkReader().feed(body) if b"chunked" in self.head else body

    @property
    def events(self) -> list[tuple[str, Any]]:
        """All events but pings: name and document."""
        read = EventReader().feed(self.payload)
        return [
            (event.name.decode(), json.loads(event.data)) for event in read if event.name != b"ping"
        ]

    def assert_events(self, events: list[bytes]) -> None:
        """Assert that it is exactly `events`, with pings only between them."""
        payload = self.payload
        assert payload.replace(PING, b"") == b"".join(events)
        edges = {len(b"".join(events[:count])) for count in range(len(events) + 1)}
        passed = 0
        for piece in payload.split(PING)[:-1]:
            passed += len(piece)
            assert passed in edges


@contextlib.asynccontextmanager
async def asking(
    relay: Live, body: dict[str, Any] | None = None, *, http10: bool = False, wait: float = 10.0
) -> AsyncIterator[Answered]:
    """Request a stream on a connection of its own."""
    octets = request(relay.key, body or STREAM, fields=CLOSE)
    if http10:
        octets = octets.replace(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", 1)
    async with connected(relay.port, wait=wait) as (reader, writer):
        writer.write(octets)
        yield Answered(reader)
