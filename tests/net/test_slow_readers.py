"""Slow callers and slow upstreams delay their own connection and no other."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator

import pytest

from relay.net.listener import listen
from tests.fakes import answers
from tests.fakes.caller import BODY, connected, read_answer, request
from tests.fakes.listening import listening
from tests.fakes.live import Live, RelayWith
from tests.fakes.until import until
from tests.fakes.upstream import JSON_ANSWER, OK, Seen, UpstreamWith

SEND_BUFFER = 8 * 1024  # octets in the kernel for a caller; Linux doubles them
PIECE = b" " * 60_000  # above the doubled buffer, within one read of the relay
STREAM = {**BODY, "stream": True}
STALL = 2.0  # seconds; a stalled test takes longer


async def narrow_port(relay: Live) -> int:
    """A further listener whose connections block after a few KiB."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    listener.setblocking(False)
    return await listen(relay.app.server, sock=listener)


@contextlib.asynccontextmanager
async def slow_caller(port: int, octets: bytes) -> AsyncIterator[socket.socket]:
    """Send a request; the test alone reads the answer."""
    loop = asyncio.get_running_loop()
    with socket.socket() as caller:
        caller.setblocking(False)
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await loop.sock_connect(caller, ("127.0.0.1", port))
        await loop.sock_sendall(caller, octets)
        yield caller


async def read(caller: socket.socket, end: bytes) -> bytes:
    """Read everything up to `end`."""
    loop = asyncio.get_running_loop()
    caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024 * 1024)
    received = bytearray()
    async with asyncio.timeout(10):
        while not received.endswith(end):
            octets = await loop.sock_recv(caller, 1024 * 1024)
            assert octets, "the connection ended"
            received += octets
    return bytes(received)


def buffered(relay: Live) -> int:
    """Octets that the relay holds for its callers."""
    connections = relay.app.server.connections
    return sum(connection.transport.get_write_buffer_size() for connection in connections)


@pytest.mark.parametrize("framing", ["kept", "length", "chunks"])
async def test_an_unread_answer_holds_up_no_other_caller(
    upstream_with: UpstreamWith, relay_with: RelayWith, framing: str
) -> None:
    """The last piece waits for the slow caller while the upstream's connection serves the next."""
    started = asyncio.Event()
    document = JSON_ANSWER[:-1] + PIECE + b"}"
    events = answers.stream()
    events[-2] += b":" + PIECE + b"\n\n"
    if framing == "kept":  # a document is sent in one piece, once it is complete
        octets = answers.sized(document)
        end, first = document[-1:], octets[: -len(PIECE)]
        started.set()
    elif framing == "length":
        octets = answers.sized(b"".join(events), kind=b"text/event-stream")
        end, first = events[-1], octets[: octets.index(events[-2][:50])]
    else:
        octets = answers.chunked_head() + b"".join(map(answers.chunk, events)) + answers.LAST
        end, first = answers.LAST, octets[: octets.index(events[-2][:50]) - 8]

    async def answer(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Seen
    ) -> None:
        if b"x-stainless-first" not in seen.fields:
            writer.write(OK)
            return
        writer.write(first)
        await started.wait()
        writer.write(octets[len(first) :])

    upstream = await upstream_with(answer)
    relay = await relay_with(upstream)
    async with slow_caller(
        await narrow_port(relay),
        request(
            relay.key, BODY if framing == "kept" else STREAM, fields="x-stainless-first: 1\r\n"
        ),
    ) as caller:
        head = await asyncio.get_running_loop().sock_recv(caller, 40)
        started.set()
        await until(lambda: relay.keeps_idle(1))
        assert buffered(relay), "the last piece was read at once: nothing is tested"
        async with connected(relay.port, wait=STALL) as (reader, writer):
            for _ in range(2):
                writer.write(request(relay.key))
                assert (await read_answer(reader))[::2] == (200, JSON_ANSWER)
        assert upstream.connections == 1
        received = head + await read(caller, end)
        assert received.partition(b"\r\n\r\n")[2] == octets.partition(b"\r\n\r\n")[2]


async def test_backpressure_works_from_the_first_octets(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    sent = 0
    pieces = 100
    chunk = answers.chunk(b":" + PIECE + b"\n\n")
    events = answers.stream()
    first = answers.chunk(b"".join(events[:4]))  # content, so that nothing is buffered
    ends = b"".join(map(answers.chunk, events[4:])) + answers.LAST

    async def answer(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Seen
    ) -> None:
        nonlocal sent
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
        writer.write(answers.chunked_head() + first + chunk)
        for _ in range(pieces):
            writer.write(chunk)
            await writer.drain()
            sent += len(chunk)
        writer.write(ends)

    upstream = await upstream_with(answer)
    relay = await relay_with(upstream)
    async with slow_caller(await narrow_port(relay), request(relay.key, STREAM)) as caller:
        await until(lambda: buffered(relay))
        await asyncio.sleep(0.2)  # enough to send everything without backpressure
        assert buffered(relay) < 512 * 1024
        assert sent < pieces * len(chunk) // 2
        received = await read(caller, ends)
        assert received.partition(b"\r\n\r\n")[2] == first + chunk * (pieces + 1) + ends
        await until(relay.log)
        assert [line["outcome"] for line in relay.log()] == ["whole"]


@pytest.mark.parametrize("pieces", ["at once", "head first"])
async def test_an_early_answer_ends_its_upstream_connection(
    relay_with: RelayWith, pieces: str
) -> None:
    refusal = b'{"type":"error","error":{"type":"invalid_request_error","message":"no"}}'
    head, _, body = answers.sized(refusal, b"400 Bad Request").partition(b"\r\n\r\n")
    connections = 0
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        if connections == 1:
            writer.write(head + b"\r\n\r\n")
            if pieces == "head first":
                await asyncio.sleep(0.05)
            writer.write(body)
            await over.wait()  # neither reads on nor closes
        else:
            writer.write(OK)
            await over.wait()
        writer.transport.abort()

    big = b'{"model":"claude-sonnet-4-7","x":"' + b"a" * 20_000_000 + b'"}'
    async with listening(serve) as port:
        relay = await relay_with(f"http://127.0.0.1:{port}")
        async with connected(relay.port) as (reader, writer):
            writer.write(request(relay.key, big))
            assert (await read_answer(reader))[::2] == (400, refusal)
            assert relay.keeps_idle(0)
            since = time.monotonic()
            writer.write(request(relay.key))
            async with asyncio.timeout(STALL):
                assert (await read_answer(reader))[::2] == (200, JSON_ANSWER)
            assert time.monotonic() - since < STALL
        assert connections == 2
        over.set()
