"""The clients of streams: each event is counted, each stream read to its end.

Decides whether a stream is complete: every chunk ends where its size says, the dialect's final
event comes last, the last chunk follows it, and nothing comes after that. Any other stream is a
`LoadError`, never a figure. Must not know which proxy answers, nor read /proc.
"""

import asyncio
import re
import socket
import ssl
from array import array
from time import perf_counter_ns
from typing import Protocol, TypeVar, cast

from bench.dialects import HOST, MESSAGES, Dialect
from bench.loadgen import HEAD_END, OK, LoadError

_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked\r\n", re.IGNORECASE)
_NEWLINE = 10
_START_TIMEOUT_S = 60.0
# Octets of the last event that are kept where a short chunk follows it.
_TAIL = 8192


class Leaving(Protocol):
    """A client of one stream."""

    def leave(self) -> None:
        """Close the connection."""


C = TypeVar("C", bound=Leaving)


class StreamLoad:
    """Streams that are opened one after another, each read to its end."""

    def __init__(self, port: int, payload: bytes, dialect: Dialect = MESSAGES) -> None:
        self.port = port
        self.payload = payload
        self.dialect = dialect
        self.tls: ssl.SSLContext | None = None
        self.payloads: list[bytes] | None = None  # a list keeps the chunks for `text()`
        self.head = b""  # of the first answer
        self.events = 0
        self.stream_bytes = 0
        self.live = 0
        self.completed = 0
        self.first_content = array("Q")
        self.counts: list[int] = []
        self.failure: LoadError | None = None
        self._clients: list[Leaving] = []
        self._changed = asyncio.Event()

    async def open(self, streams: int, over: float = 0.0) -> None:
        """Open streams at even intervals, so that their events do not coincide."""
        loop = asyncio.get_running_loop()
        origin = loop.time()
        for number in range(streams):
            await loop.create_connection(self._client, HOST, self.port, ssl=self.tls)
            await self.run(max(0.0, origin + over * (number + 1) / streams - loop.time()))
        await self.started(streams, origin + over + _START_TIMEOUT_S)

    async def started(self, streams: int, deadline: float) -> None:
        """Wait until so many streams have started."""
        while self.live + self.completed < streams:
            if asyncio.get_running_loop().time() > deadline:
                raise LoadError(
                    f"only {self.live + self.completed} of {streams} streams have started"
                )
            await self.run(0.005)

    async def open_slow(self, receive_buffer: int) -> "StreamClient":
        """One stream with a small receive buffer, which is not read until `resume()`."""
        loop = asyncio.get_running_loop()
        peer = socket.socket()
        peer.setblocking(False)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await loop.sock_connect(peer, (HOST, self.port))
        _, client = await loop.create_connection(self._client, sock=peer)
        client.pause()
        return client

    async def run(self, seconds: float) -> None:
        """Let the streams go on; raises at once when one was wrong."""
        if self.failure is None and seconds > 0:
            self._changed.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self._changed.wait()
            except TimeoutError:
                pass
        if self.failure is not None:
            raise self.failure

    async def ended(self, within: float, step: float = 0.02, *, equal: bool = True) -> None:
        """Wait until all streams are complete, each with the same number of events if `equal`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within
        while self.completed < len(self._clients):
            if loop.time() > deadline:
                missing = len(self._clients) - self.completed
                raise LoadError(f"{missing} streams did not end within {within:g} s")
            await self.run(step)
        if equal and len(set(self.counts)) > 1:
            raise LoadError(
                f"equal streams brought {min(self.counts)} to {max(self.counts)} events"
            )

    def text(self) -> str:
        """The text of the streams whose chunks were kept."""
        try:
            return self.dialect.stream_text(b"".join(self.payloads or ()))
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise LoadError(f"a stream has other events than its dialect: {error!r}") from None

    def close(self) -> None:
        for client in self._clients:
            client.leave()
        self._clients.clear()

    def fail(self, error: LoadError) -> None:
        if self.failure is None:
            self.failure = error
            self._changed.set()

    def _client(self) -> "StreamClient":
        """A client for the next stream."""
        return self.join(self.new_client())

    def new_client(self) -> "StreamClient":
        """A client that has not joined yet."""
        return StreamClient(self)

    def join(self, client: C) -> C:
        """Add a client; its stream is read to its end, too."""
        self._clients.append(client)
        return client


class StreamClient(asyncio.Protocol):
    """One stream: chunks are parsed one by one, events counted in their payload."""

    __slots__ = (
        "buffer",
        "closed",
        "events",
        "has_content",
        "last",
        "load",
        "newline",
        "sent",
        "started",
        "transport",
    )

    def __init__(self, load: StreamLoad) -> None:
        self.load = load
        self.buffer = b""
        self.last = b""
        self.started = False
        self.closed = False
        self.newline = False
        self.has_content = False
        self.events = 0
        self.sent = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self.transport = cast(asyncio.Transport, transport)
        self.sent = perf_counter_ns()
        self.transport.write(self.load.payload)

    def pause(self) -> None:
        self.transport.pause_reading()

    def resume(self) -> None:
        self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self.closed:
            self._fail(f"bytes after the end of a stream: {data[:80]!r}")
            return
        if self.buffer:
            data = self.buffer + data
            self.buffer = b""
        try:
            at = 0 if self.started else self._head(data)
            if self.started:
                self._body(data, at)
            else:
                self.buffer = data
        except (LoadError, ValueError) as error:
            self._fail(str(error))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed:
            self._fail(f"a stream was cut after {self.events} events: {exc or 'FIN'}")

    def leave(self) -> None:
        self.closed = True
        self.transport.abort()

    def _fail(self, message: str) -> None:
        self.closed = True
        self.load.fail(LoadError(message))
        self.transport.abort()

    def _head(self, data: bytes) -> int:
        """Where the body starts; 0 while the head is incomplete."""
        head_end = data.find(HEAD_END)
        if head_end < 0:
            return 0
        if not data.startswith(OK):
            raise LoadError(f"instead of 200 came {data[:600].decode(errors='replace')!r}")
        if not _CHUNKED.search(data, 0, head_end + 2):
            raise LoadError(f"a stream that is not chunked: {data[:head_end]!r}")
        if not self.load.head:
            self.load.head = data[: head_end + 4]
        self.started = True
        self.load.live += 1
        return head_end + 4

    def _body(self, data: bytes, at: int) -> None:
        size = len(data)
        load = self.load
        while at < size:
            start = data.find(b"\r\n", at) + 2
            if start < 2:
                break
            length = int(data[at : start - 2], 16)
            end = start + length
            if end + 2 > size:
                break
            if data[end : end + 2] != b"\r\n":
                raise LoadError(f"a chunk does not end where its size says: {data[at:end][:80]!r}")
            at = end + 2
            if not length:
                self._finish(size - at)
                return
            payload = data[start:end]
            events = payload.count(b"\n\n")
            # A proxy may cut between the two newlines that end an event.
            if self.newline and payload[0] == _NEWLINE:
                events += 1
            self.newline = payload[-1] == _NEWLINE and payload[-2:] != b"\n\n"
            # Relay holds a stream back until it has content, so earlier events are no measure.
            if not self.has_content and load.dialect.first.search(payload):
                self.has_content = True
                load.first_content.append(perf_counter_ns() - self.sent)
            if load.payloads is not None:
                load.payloads.append(payload)
            self.events += events
            load.events += events
            self.last = payload if length >= 64 else self.last[-_TAIL:] + payload
        load.stream_bytes += at
        self.buffer = data[at:] if at else data

    def _finish(self, extra: int) -> None:
        load = self.load
        if extra:
            raise LoadError(f"{extra} bytes after the end of a stream")
        if load.dialect.last not in self.last:
            ending = load.dialect.last.decode().strip().rpartition(" ")[2]
            raise LoadError(
                f"a stream ended cleanly without {ending} after {self.events} events: "
                f"…{self.last[-80:]!r}"
            )
        self.closed = True
        load.live -= 1
        load.completed += 1
        load.counts.append(self.events)
        self.transport.close()
