"""An upstream of raw octets: records each request and writes the answer that a test gave it."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

JSON_ANSWER = (
    b'{"id":"msg_1","type":"message","role":"assistant","model":"claude-sonnet-4-7",'
    b'"content":[{"type":"text","text":"hi"}],"stop_reason":"end_turn","stop_sequence":null,'
    b'"usage":{"input_tokens":11,"output_tokens":7}}'
)
OK = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    % len(JSON_ANSWER)
) + JSON_ANSWER


@dataclass
class Seen:
    """One request as the upstream received it."""

    head: bytes
    body: bytes
    connection: int

    @property
    def fields(self) -> dict[bytes, bytes]:
        lines = self.head.split(b"\r\n")[1:-2]
        return {name.lower(): value for name, _, value in (line.partition(b": ") for line in lines)}


@dataclass
class Upstream:
    """The record of a listening upstream."""

    url: str = ""
    requests: list[Seen] = field(default_factory=list)
    received: bytearray = field(default_factory=bytearray)
    connections: int = 0
    closed: asyncio.Event = field(default_factory=asyncio.Event)  # a peer has left
    asked: asyncio.Event = field(default_factory=asyncio.Event)  # a request has arrived


Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter, Seen], Awaitable[None]]
# Opens an upstream that the test's end closes: the fixture `upstream_with` of tests/conftest.py.
UpstreamWith = Callable[[Answer], Awaitable[Upstream]]


def always(octets: bytes, *, close: bool = False) -> Answer:
    """Answer every request with these octets."""

    async def answer(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Seen
    ) -> None:
        writer.write(octets)
        await writer.drain()
        if close:
            writer.close()

    return answer


def forwarding(url: str) -> Answer:
    """Answer as the server at `url` does, over a connection of its own for each request."""
    port = int(url.rpartition(":")[2])

    async def answer(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Seen
    ) -> None:
        source, sink = await asyncio.open_connection("127.0.0.1", port)
        sink.write(seen.head[:-2] + b"connection: close\r\n\r\n" + seen.body)
        while octets := await source.read(65536):
            writer.write(octets)
        sink.close()
        writer.close()

    return answer


@contextlib.asynccontextmanager
async def raw_upstream(answer: Answer) -> AsyncIterator[Upstream]:
    """Listen; records each request (framed by content-length), then awaits `answer` for it."""
    upstream = Upstream()
    writers: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream.connections += 1
        number = upstream.connections
        writers.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                upstream.received += head
                length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
                body = await reader.readexactly(int(length[1]) if length else 0)
                upstream.received += body
                seen = Seen(head, body, number)
                upstream.requests.append(seen)
                upstream.asked.set()
                await answer(reader, writer, seen)
        except (
            asyncio.IncompleteReadError,
            ConnectionError,
            RuntimeError,
            asyncio.LimitOverrunError,
        ) as error:
            if isinstance(error, asyncio.IncompleteReadError):
                upstream.received += error.partial
            upstream.closed.set()
        finally:
            writers.discard(writer)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=64 * 1024 * 1024)
    upstream.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield upstream
    finally:
        server.close()
        for writer in tuple(writers):
            writer.transport.abort()
