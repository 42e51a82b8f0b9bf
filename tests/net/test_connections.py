"""A caller's connection: kept, pipelined, half closed, left, and HTTP/1.0."""

import asyncio
import socket
import struct
import time
from typing import Any

import pytest

from relay.net.runner import CoroutineRunner
from tests.fakes import answers
from tests.fakes.caller import BODY, connected, exchange, read_answer, read_head, request
from tests.fakes.live import Live, RelayWith
from tests.fakes.until import until
from tests.fakes.upstream import JSON_ANSWER, OK, Seen, Upstream, UpstreamWith, always
from tests.net.pausing import pause_reading

STREAM = {**BODY, "stream": True}
EVENTS = answers.stream()
LONG = b" " * 1_200_000  # above the buffer limit of an answer
HELLO = b"HEAD / HTTP/1.1\r\nhost: relay\r\n\r\n"


async def test_a_connection_takes_one_request_after_another(live: Live) -> None:
    async with connected(live.port) as (reader, writer):
        for number in range(20):
            stream = number % 2 == 1
            writer.write(request(live.key, STREAM if stream else BODY))
            status, fields, body = await read_answer(reader)
            assert status == 200
            assert b"connection" not in fields
            assert body.endswith(b"\n\n") == stream
        assert len(live.app.server.connections) == 1
    assert live.app.upstreams[0].pool.opened == 1


async def test_pipelined_requests_are_answered_in_their_order(live: Live) -> None:
    octets = b"".join(
        request(live.key, body, fields=f"x-simulate: {script}\r\n")
        for body, script in ((BODY, "delay=0.1;tokens=1"), (STREAM, "tokens=5"), (BODY, "tokens=2"))
    )
    async with connected(live.port) as (reader, writer):
        writer.write(octets + request(None) + HELLO)
        replies = [await read_answer(reader) for _ in range(4)]
        assert [status for status, _, _ in replies] == [200, 200, 200, 401]
        assert replies[1][1][b"content-type"].startswith(b"text/event-stream")
        assert b'"output_tokens":1' in replies[0][2]
        assert b'"output_tokens":2' in replies[2][2]
        assert (await read_head(reader))[0] == 200
    assert [line["status"] for line in live.log()] == [200, 200, 200, 401, 200]


@pytest.mark.parametrize("size", [1, 50, 5000])
async def test_requests_may_be_cut_anywhere(live: Live, size: int) -> None:
    octets = request(live.key) * 3
    async with connected(live.port) as (reader, writer):
        for start in range(0, len(octets), size):
            writer.write(octets[start : start + size])
            await writer.drain()
            await asyncio.sleep(0)
        for _ in range(3):
            assert (await read_answer(reader))[0] == 200


async def test_ten_thousand_pipelined_requests_are_all_answered(live: Live) -> None:
    async with connected(live.port) as (reader, writer):
        writer.write(HELLO * 10_000)
        for _ in range(10_000):
            assert (await read_head(reader))[0] == 200
        assert len(live.log()) == 10_000


async def test_a_pipelining_caller_that_never_reads_is_paused(live: Live) -> None:
    async with connected(live.port, limit=1024) as (_, writer):
        pause_reading(writer)
        sent = 0
        buffered = 0  # the most octets that the relay held at once
        piece = HELLO * 1000
        while True:
            writer.write(piece)
            sent += len(piece)
            try:
                async with asyncio.timeout(0.4):
                    await writer.drain()
            except TimeoutError:
                break
            (connection,) = live.app.server.connections
            buffered = max(buffered, connection.transport.get_write_buffer_size())
            assert sent < 64 * 1024 * 1024, "the relay never stops reading"
        assert buffered <= 512 * 1024


# --- half closed --------------------------------------------------------------------


async def final_head(reader: asyncio.StreamReader) -> bytes:
    """The head after any number of interim responses, the relay's probes."""
    head = b"HTTP/1.1 100 "
    while head.startswith(b"HTTP/1.1 100 "):
        head = await reader.readuntil(b"\r\n\r\n")
    return head


@pytest.mark.parametrize(
    ("body", "script"),
    [
        (BODY, ""),
        (BODY, "delay=0.3"),
        (BODY, "delay=0.06;split=100"),
        (BODY, "bytes=8000000"),
        (STREAM, "tokens=10;pace=40"),
        (STREAM, "delay=0.3;tokens=3"),
        (STREAM, "delay=0.05;split=1;tokens=10"),
        (STREAM, "bytes=4000000"),
    ],
)
async def test_a_half_closed_caller_gets_its_complete_answer(
    live: Live, body: dict[str, Any], script: str
) -> None:
    octets = request(live.key, body, fields=f"x-simulate: {script}\r\n")
    async with connected(live.port) as (reader, writer):
        writer.write(octets)
        writer.write_eof()
        head = await final_head(reader)
        assert head.startswith(b"HTTP/1.1 200 ")
        rest = await reader.read(-1)
    if b"transfer-encoding" in head:
        assert rest.endswith(b"\r\n0\r\n\r\n")
    else:
        assert b"content-length: %d\r\n" % len(rest) in head
    assert [line["outcome"] for line in live.log()] == ["whole"]


async def test_a_half_closed_slow_reader_gets_its_complete_answer(live: Live) -> None:
    async with connected(live.port, limit=65_536) as (reader, writer):
        writer.write(request(live.key, fields="x-simulate: bytes=12000000\r\n"))
        writer.write_eof()
        head = await final_head(reader)
        await asyncio.sleep(0.3)  # longer than the relay waits before it probes
        rest = await reader.read(-1)
        assert b"content-length: %d\r\n" % len(rest) in head


async def test_a_half_closed_caller_gets_every_pipelined_answer(live: Live) -> None:
    async with connected(live.port) as (reader, writer):
        writer.write(request(live.key, fields="x-simulate: delay=0.1\r\n") * 3)
        writer.write_eof()
        received = await reader.read(-1)
    assert received.count(b"HTTP/1.1 200 OK\r\n") == 3
    assert received.count(b"connection: close\r\n") == 1


async def test_an_incomplete_request_is_not_sent_upstream(live: Live) -> None:
    octets = request(live.key)
    for end in (len(octets) - 1, octets.index(b"\r\n\r\n") + 4, 20):
        async with connected(live.port) as (reader, writer):
            writer.write(octets[:end])
            writer.write_eof()
            assert await reader.read(-1) == b""
    assert live.simulator is not None
    assert live.simulator.journal.requests == 0


# --- left ---------------------------------------------------------------------------


async def slow_answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Seen
) -> None:
    """Start an answer as the request's `x-stainless-begin` says, then send nothing more."""
    begin = seen.fields.get(b"x-stainless-begin")
    if begin == b"kept json":
        writer.write(OK[:-10])
    elif begin == b"kept stream":
        writer.write(answers.chunked_head() + b"".join(map(answers.chunk, EVENTS[:3])))
    elif begin == b"json":
        writer.write(answers.sized(LONG + JSON_ANSWER)[:-10])
    elif begin == b"stream":
        writer.write(answers.chunked_head() + b"".join(map(answers.chunk, EVENTS[:4])))
    elif begin == b"event":
        writer.write(answers.chunked_head() + b"".join(map(answers.chunk, EVENTS[:4])))
        writer.write(answers.chunk(EVENTS[4][:50])[:-2])
    await writer.drain()
    assert await reader.read(1) == b""
    raise ConnectionResetError


@pytest.fixture
async def slow(upstream_with: UpstreamWith, relay_with: RelayWith) -> tuple[Live, Upstream]:
    upstream = await upstream_with(slow_answer)
    return await relay_with(upstream), upstream


# Within a body with a length, or within an event, a caller that only shut its sending side
# cannot be probed; a reset is noticed anywhere.
@pytest.mark.parametrize(
    ("begin", "how"),
    [
        ("nothing", "close"),
        ("nothing", "reset"),
        ("kept json", "close"),
        ("kept json", "reset"),
        ("kept stream", "close"),
        ("kept stream", "reset"),
        ("stream", "close"),
        ("stream", "reset"),
        ("json", "reset"),
        ("event", "reset"),
    ],
)
@pytest.mark.alone
async def test_a_caller_that_leaves_closes_the_upstream_within_100_ms(
    slow: tuple[Live, Upstream], begin: str, how: str
) -> None:
    relay, upstream = slow
    async with connected(relay.port) as (reader, writer):
        body = BODY if "json" in begin else STREAM
        writer.write(request(relay.key, body, fields=f"x-stainless-begin: {begin}\r\n"))
        await upstream.asked.wait()
        if begin == "nothing" or begin.startswith("kept"):
            await asyncio.sleep(0.05)
        else:
            await read_head(reader)
            await reader.read(1)
        left = time.monotonic()
        if how == "reset":
            writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            writer.transport.abort()
        else:
            writer.close()
        await upstream.closed.wait()
        took = time.monotonic() - left
    assert took < 0.1
    await until(lambda: not relay.app.server.connections)
    await until(relay.log)
    assert [line["outcome"] for line in relay.log()] == ["caller left"]
    assert relay.keeps_idle(0)


@pytest.mark.alone
async def test_leaving_a_paced_stream_ends_it_at_the_simulator(live: Live) -> None:
    assert live.simulator is not None
    journal = live.simulator.journal
    async with connected(live.port) as (reader, writer):
        writer.write(request(live.key, STREAM, fields="x-simulate: tokens=1000;pace=50\r\n"))
        await read_head(reader)
        await reader.readuntil(b"content_block_delta")
        left = time.monotonic()
        writer.close()
        await until(lambda: journal.aborted)
        assert time.monotonic() - left < 0.1


@pytest.mark.alone
async def test_leaving_before_the_first_octet_is_noticed(live: Live) -> None:
    assert live.simulator is not None
    journal = live.simulator.journal
    async with connected(live.port) as (_, writer):
        writer.write(request(live.key, fields="x-simulate: delay=30\r\n"))
        await until(lambda: journal.requests)
        left = time.monotonic()
        writer.close()
        await until(lambda: journal.aborted)
        # The simulator also takes nearly 0.1 s to notice.
        assert time.monotonic() - left < 0.6  # allows for a busy machine


async def test_leaving_at_any_moment_leaks_nothing(
    live: Live, caplog: pytest.LogCaptureFixture
) -> None:
    """A hundred callers, each leaving a little later: before, during and after the head."""

    async def leave(after: float) -> None:
        async with connected(live.port) as (_, writer):
            writer.write(request(live.key, STREAM, fields="x-simulate: delay=0.02;tokens=9\r\n"))
            await asyncio.sleep(after)

    await asyncio.gather(*(leave(0.0004 * number) for number in range(100)))
    await until(lambda: not live.app.server.connections)
    assert not [entry for entry in caplog.records if entry.levelname in ("ERROR", "WARNING")]
    assert {line["outcome"] for line in live.log()} <= {"whole", "caller left"}


async def test_a_handler_cancelled_as_it_resumes_is_cancelled() -> None:
    """Like a task: a cancelled handler takes no further step."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    steps: list[str] = []

    async def handler() -> None:
        try:
            await future
            steps.append("went on")
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            steps.append("cancelled")

    runner = CoroutineRunner(handler())
    runner.step()
    future.set_result(None)
    runner.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert steps == ["cancelled"]


# --- HTTP/1.0 -----------------------------------------------------------------------


def http_1_0(octets: bytes) -> bytes:
    """The same request in HTTP/1.0."""
    return octets.replace(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", 1)


async def test_an_http_1_0_caller_gets_a_stream_without_chunks(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    upstream = await upstream_with(always(answers.chunked(EVENTS)))
    relay = await relay_with(upstream)
    received = await exchange(relay.port, http_1_0(request(relay.key, STREAM)))
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert b"\r\nconnection: close" in head
    assert body == b"".join(EVENTS)
    assert [line["outcome"] for line in relay.log()] == ["whole"]


async def test_an_http_1_0_caller_gets_json_and_the_connections_end(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    upstream = await upstream_with(always(OK))
    relay = await relay_with(upstream)
    received = await exchange(relay.port, http_1_0(request(relay.key)))
    assert received.endswith(b"connection: close\r\n\r\n" + JSON_ANSWER)


async def test_an_http_1_0_caller_sees_a_cut_stream_as_cut(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    """Only the error event shows the cut: HTTP/1.0 has no framing here."""
    octets = answers.chunked_head() + b"".join(map(answers.chunk, EVENTS[:4]))
    upstream = await upstream_with(always(octets, close=True))
    relay = await relay_with(upstream)
    received = await exchange(relay.port, http_1_0(request(relay.key, STREAM)))
    body = received.partition(b"\r\n\r\n")[2]
    assert body.startswith(b"".join(EVENTS[:4]))
    assert b"event: error\n" in body


async def test_expect_100_continue_is_ignored_for_http_1_0(live: Live) -> None:
    octets = http_1_0(request(live.key, fields="expect: 100-continue\r\n"))
    assert (await exchange(live.port, octets)).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("value", ["close", "Close", "close, x-app", "keep-alive, close"])
async def test_connection_close_closes_the_connection(live: Live, value: str) -> None:
    received = await exchange(live.port, request(live.key, fields=f"connection: {value}\r\n"))
    assert received.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nconnection: close\r\n" in received
