"""Every deadline fires on time, with its own error, and never early."""

import asyncio
import json
import socket
import time

import pytest

from relay.net.deadlines import NEVER
from relay.net.http1 import ServerConnection
from tests.fakes import answers
from tests.fakes.caller import BODY, connected, read_answer, read_head, request
from tests.fakes.live import Live, RelayWith
from tests.fakes.until import until
from tests.fakes.upstream import Seen, UpstreamWith
from tests.net.pausing import pause_reading, resume_reading

DUE = 0.5  # each deadline in these tests, in seconds
EARLY, LATE = 0.3, 0.6  # seconds; the deadlines' clock ticks four times a second
FAR = 60.0  # seconds; longer than any test
EVENTS = answers.stream()
TORN = b'event: content_block_delta\ndata: {"type":'
LONG = b'{"type":"' + b"x" * 1_200_000  # above the buffer limit of an answer


class Watch:
    """A stopwatch, started at its creation."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def fired(self) -> bool:
        """Whether the deadline `DUE` is now, within the clock's tolerance."""
        return -EARLY <= time.monotonic() - self._started - DUE <= LATE

    def __repr__(self) -> str:
        return f"<{time.monotonic() - self._started:.2f} s>"


def is_error(
    answer: tuple[int, dict[bytes, bytes], bytes], status: int, kind: str, *words: str
) -> bool:
    document = json.loads(answer[2])
    assert (answer[0], document["error"]["type"]) == (status, kind)
    return all(word in document["error"]["message"] for word in words)


async def as_asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Seen) -> None:
    """Answer as far as `x-stainless-begin` says."""
    begin = seen.fields.get(b"x-stainless-begin", b"")
    if begin == b"half a head":
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-ty")
    elif begin == b"json":
        writer.write(answers.head(b"200 OK", b"content-length: 9999999") + LONG)
    elif begin == b"short json":
        writer.write(answers.head(b"200 OK", b"content-length: 99") + b'{"type":')
    elif begin == b"opening":
        writer.write(answers.chunked_head() + b"".join(map(answers.chunk, EVENTS[:3])))
    elif begin == b"stream":
        writer.write(answers.chunked_head() + b"".join(map(answers.chunk, EVENTS[:4])))
    elif begin == b"torn":
        writer.write(answers.chunked_head() + b"".join(map(answers.chunk, EVENTS[:4])))
        writer.write(b"ff\r\n" + TORN)
    elif begin == b"flood":
        writer.write(answers.chunked_head())
        text = answers.chunk(answers.stream(["x" * 1000])[3])
        while True:
            writer.write(text * 60)
            await writer.drain()
    elif begin == b"fast":
        writer.write(answers.chunked(EVENTS))
    elif begin == b"slowly":
        writer.write(answers.chunked_head())
        for event in EVENTS:
            writer.write(answers.chunk(event))
            await asyncio.sleep(DUE / 2.5)
        writer.write(answers.LAST)
    await writer.drain()


def beginning(relay: Live, begin: str) -> bytes:
    """A request that the upstream answers so, in the form that it asks for."""
    body = BODY if "json" in begin else {**BODY, "stream": True}
    return request(relay.key, body, fields=f"x-stainless-begin: {begin}\r\n")


@pytest.fixture
async def short(
    request: pytest.FixtureRequest, upstream_with: UpstreamWith, relay_with: RelayWith
) -> Live:
    """A relay with one short deadline, named by the test; all others are long."""
    timeouts = {"head": FAR, "body": FAR, "idle": FAR, "write": FAR}
    upstream_timeouts = {"connect": FAR, "first_byte": FAR, "silence": FAR, "idle": FAR}
    name = request.param
    table = upstream_timeouts if name in ("first_byte", "silence", "pool") else timeouts
    table["idle" if name == "pool" else name] = DUE
    return await relay_with(
        await upstream_with(as_asked),
        server={"timeouts": timeouts},
        upstream_options={"timeouts": upstream_timeouts},
    )


def deadline(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("short", [name], indirect=True)


@deadline("head")
@pytest.mark.parametrize("drip", [False, True])
async def test_a_dripping_head_must_be_complete_in_time(short: Live, drip: bool) -> None:
    async with connected(short.port) as (reader, writer):
        watch = Watch()
        writer.write(b"POST /v1/messages HTTP/1.1\r\nx: ")

        async def trickle() -> None:
            while True:
                writer.write(b"y")
                await asyncio.sleep(0.05)

        task = asyncio.create_task(trickle()) if drip else None
        answer = await read_answer(reader)
        if task is not None:
            task.cancel()
        assert is_error(answer, 408, "invalid_request_error", "header", "slowly")
        assert answer[1][b"connection"] == b"close"
        assert watch.fired(), watch


@deadline("body")
@pytest.mark.parametrize("coding", ["content-length: 9000", "transfer-encoding: chunked"])
@pytest.mark.parametrize("begin", [b"", b"1\r\n{\r\n"])
async def test_a_body_must_arrive_at_the_minimum_rate(
    short: Live, coding: str, begin: bytes
) -> None:
    async with connected(short.port) as (reader, writer):
        watch = Watch()
        writer.write(
            b"POST /v1/messages HTTP/1.1\r\nhost: a\r\nx-api-key: %b\r\n%b\r\n\r\n%b"
            % (short.key.encode(), coding.encode(), begin)
        )
        answer = await read_answer(reader)
        assert is_error(answer, 408, "invalid_request_error", "body", "1 KiB/s")
        assert answer[1][b"connection"] == b"close"
        assert watch.fired(), watch


@deadline("body")
async def test_a_body_at_the_minimum_rate_may_take_longer(short: Live) -> None:
    body = json.dumps(BODY).encode() + b" " * 6000
    octets = request(short.key, body, fields="x-stainless-begin: fast\r\n")
    async with connected(short.port) as (reader, writer):
        watch = Watch()
        for start in range(0, len(octets), 400):
            writer.write(octets[start : start + 400])
            await asyncio.sleep(0.09)
        assert (await read_head(reader))[0] == 200
        assert not watch.fired()


@deadline("idle")
@pytest.mark.parametrize("used", [False, True])
async def test_an_idle_connection_is_closed_silently(short: Live, used: bool) -> None:
    async with connected(short.port) as (reader, writer):
        if used:
            await asyncio.sleep(DUE / 2)
            writer.write(b"HEAD / HTTP/1.1\r\nhost: a\r\n\r\n")
            await read_head(reader)
        watch = Watch()
        assert await reader.read(-1) == b""
        assert watch.fired(), watch


@deadline("write")
@pytest.mark.parametrize("begin", ["flood"])
async def test_a_caller_that_reads_nothing_is_dropped(short: Live, begin: str) -> None:
    async with connected(short.port, limit=1024) as (reader, writer):
        writer.write(beginning(short, begin))
        await read_head(reader)
        pause_reading(writer)
        (connection,) = short.app.server.connections
        assert isinstance(connection, ServerConnection)
        watch, deadline = Watch(), 0.0
        while short.app.server.connections:
            if connection.deadline not in (deadline, NEVER):  # the kernel accepted more octets
                watch, deadline = Watch(), connection.deadline
            await asyncio.sleep(0.003)
        assert watch.fired(), watch
        await until(short.log)
        assert [line["outcome"] for line in short.log()] == ["caller left"]


async def test_a_caller_that_leaves_an_answers_end_unread_is_dropped(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    """Whether the answer is complete, cut, or the connection closing: nothing is held forever."""
    body = b'{"x":"' + b"y" * 12_000_000 + b'"}'
    answer = answers.sized(body)

    async def big(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Seen) -> None:
        cut = seen.fields.get(b"x-stainless-cut") == b"1"
        writer.write(answer[:-9] if cut else answer)
        if cut:
            writer.close()

    async def leave_unread(relay: Live, fields: str) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", relay.port, limit=1024)
        pause_reading(writer)
        writer.write(request(relay.key, fields=fields))
        unread.append(writer)

    unread: list[asyncio.StreamWriter] = []
    relay = await relay_with(await upstream_with(big), server={"timeouts": {"write": DUE}})
    async with asyncio.timeout(8):
        for fields in ("", "x-stainless-cut: 1\r\n", "connection: close\r\n"):
            await leave_unread(relay, fields)
        await until(lambda: len(relay.app.server.connections) >= 3)
        await until(lambda: not relay.app.server.connections)
        for writer in unread:
            writer.transport.abort()


@deadline("first_byte")
@pytest.mark.parametrize("begin", ["nothing", "half a head"])
async def test_an_upstream_that_does_not_answer_is_a_504(short: Live, begin: str) -> None:
    async with connected(short.port) as (reader, writer):
        watch = Watch()
        writer.write(beginning(short, begin))
        answer = await read_answer(reader)
        assert is_error(answer, 504, "api_error", "in time", "Try again")
        assert b"connection" not in answer[1]
        assert watch.fired(), watch


@deadline("silence")
@pytest.mark.parametrize("begin", ["short json", "opening"])
async def test_silence_before_content_is_a_504(short: Live, begin: str) -> None:
    async with connected(short.port) as (reader, writer):
        watch = Watch()
        writer.write(beginning(short, begin))
        answer = await read_answer(reader)
        assert is_error(answer, 504, "api_error", "in time", "Try again")
        assert b"connection" not in answer[1]
        assert watch.fired(), watch


@deadline("silence")
async def test_silence_within_a_stream_is_an_error_event(short: Live) -> None:
    async with connected(short.port) as (reader, writer):
        watch = Watch()
        writer.write(beginning(short, "stream"))
        await read_head(reader)
        received = await reader.read(-1)
        assert watch.fired(), watch
        good = b"".join(map(answers.chunk, EVENTS[:4]))
        assert received.startswith(good)
        assert received[len(good) :].split(b"\r\n")[1].startswith(b"event: error\ndata: {")
        assert not received.endswith(answers.LAST)
        assert short.log()[0]["outcome"].startswith("cut: the upstream did not answer in time")


@deadline("silence")
@pytest.mark.parametrize("begin", ["torn", "json"])
async def test_silence_within_an_event_only_ends_the_connection(short: Live, begin: str) -> None:
    async with connected(short.port) as (reader, writer):
        watch = Watch()
        writer.write(beginning(short, begin))
        await read_head(reader)
        received = await reader.read(-1)
        assert watch.fired(), watch
        assert b"error" not in received
        assert received.endswith(TORN if begin == "torn" else LONG)


@deadline("silence")
async def test_a_slow_stream_that_is_not_silent_goes_on(short: Live) -> None:
    async with connected(short.port) as (reader, writer):
        watch = Watch()
        writer.write(beginning(short, "slowly"))
        answer = await read_answer(reader)
        assert answer[2] == b"".join(EVENTS)
        assert not watch.fired()


@deadline("silence")
async def test_an_unread_answer_is_not_the_upstreams_silence(short: Live) -> None:
    async with connected(short.port, limit=1024) as (reader, writer):
        writer.write(beginning(short, "flood"))
        await read_head(reader)
        pause_reading(writer)
        await asyncio.sleep(DUE * 2)
        resume_reading(writer)
        assert await reader.readexactly(10_000_000)
    assert "silent" not in str(short.log())


@deadline("pool")
async def test_an_idle_upstream_connection_is_closed_first(short: Live) -> None:
    async with connected(short.port) as (reader, writer):
        writer.write(beginning(short, "fast"))
        await read_answer(reader)
        watch = Watch()
        assert short.keeps_idle(1)
        await until(lambda: short.keeps_idle(0))
        assert watch.fired(), watch


async def test_an_upstream_that_accepts_nothing_is_a_503_in_time(relay_with: RelayWith) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:  # with a full backlog, the kernel drops connections
            filler.setblocking(False)
            filler.connect_ex(address)
        options = {"timeouts": {"connect": DUE}}
        relay = await relay_with(f"http://127.0.0.1:{address[1]}", upstream_options=options)
        async with connected(relay.port) as (reader, writer):
            watch = Watch()
            writer.write(request(relay.key))
            answer = await read_answer(reader)
            assert is_error(answer, 503, "overloaded_error", "cannot be reached")
            assert watch.fired(), watch
        for filler in fillers:
            filler.close()
