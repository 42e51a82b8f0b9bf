"""HTTP/2 flow control: a caller who reads slowly delays, and fills, their own stream alone."""

import asyncio
import json
import time
from itertools import pairwise

import pytest
from hyperframe.frame import DataFrame, WindowUpdateFrame

from relay.net.deadlines import Deadlines
from relay.net.exchange import Exchange
from relay.net.http2 import Http2Connection
from relay.net.listener import listen
from relay.net.server import Server
from relay.net.upstream.connection import UpstreamConnection
from relay.wire.h2.frames import CANCEL, FLOW_CONTROL_ERROR, INITIAL_WINDOW_SIZE
from tests.fakes import answers
from tests.fakes.caller import BODY
from tests.fakes.http2 import Http2Caller, body, get, http2_caller, post
from tests.fakes.live import Live, RelayWith
from tests.fakes.until import until
from tests.fakes.upstream import UpstreamWith, always

EVENTS = answers.stream(["x" * 1000] * 1000)  # 1 MB
STREAM = answers.chunked(EVENTS)
PAYLOAD = b"".join(EVENTS)
TINY = answers.chunked(answers.stream(["x"] * 8000))  # 1 MB, and more than twice that as chat
MAX_BUFFERED = 64 * 1024  # one read from the upstream, whose socket holds so many
RESPONSES_BODY = json.dumps(
    {"model": BODY["model"], "stream": True, "max_output_tokens": 9, "input": "hi"}
).encode()
MAX_DELAY = 0.01  # seconds that a stalled stream may cost its siblings


def engine_of(live: Live) -> Http2Connection:
    """The relay's side of the only HTTP/2 connection."""
    (connection,) = live.app.server.connections
    assert isinstance(connection, Http2Connection)
    return connection


def buffered(live: Live) -> list[int]:
    """The octets that wait for each stream: frames of its own, and what its upstream has sent."""
    connection = engine_of(live)
    upstreams = [channel.exchange.source for channel in connection.channels.values()]
    unread = [len(one._rest) for one in upstreams if isinstance(one, UpstreamConnection)]
    return [stream.queued for stream in connection.engine.table.streams.values()] + unread


async def _settled(live: Live) -> None:
    """Wait until nothing more moves."""
    before: list[int] = [-1]
    while before != (now := buffered(live)):
        before = now
        await asyncio.sleep(0.05)


async def _latency(caller: Http2Caller) -> float:
    """The median time of a small request."""
    times = []
    for _ in range(21):
        started = time.perf_counter()
        assert (await caller.answer(caller.request(get()))).status == 200
        times.append(time.perf_counter() - started)
    return sorted(times)[10]


@pytest.mark.parametrize("window", [0, 1, 1000, 65535])
async def test_a_stalled_stream_is_bounded_and_delays_no_sibling(
    relay_with: RelayWith, upstream_with: UpstreamWith, window: int
) -> None:
    live = await relay_with(await upstream_with(always(STREAM)))
    settings = {INITIAL_WINDOW_SIZE: window}
    async with http2_caller(live.port, settings=settings, grants=False) as caller:
        stream = caller.request(post(live.key), body(stream=True))
        await caller.octets(stream, window)
        await _settled(live)
        assert sum(buffered(live)) <= MAX_BUFFERED
        assert len(caller.replies[stream].payload) == window
        caller.send(WindowUpdateFrame(0, window_increment=1 << 24))
        sibling = caller.begin(get(), end=True)
        caller.send(WindowUpdateFrame(sibling, window_increment=1000))
        started = time.perf_counter()
        assert (await caller.answer(sibling)).complete
        assert time.perf_counter() - started <= 10 * MAX_DELAY  # one alone may meet a busy moment
        if window >= 1000:
            assert await _latency(caller) <= MAX_DELAY
        caller.send(WindowUpdateFrame(stream, window_increment=1 << 24))
        reply = await caller.answer(stream)
        assert (reply.complete, reply.payload) == (True, PAYLOAD)


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions", "/v1/responses"])
async def test_tiny_events_of_a_stalled_stream_are_bounded(
    relay_with: RelayWith, upstream_with: UpstreamWith, path: str
) -> None:
    live = await relay_with(await upstream_with(always(TINY)))
    request = body(stream=True) if path != "/v1/responses" else RESPONSES_BODY
    async with http2_caller(live.port, settings={INITIAL_WINDOW_SIZE: 0}, grants=False) as caller:
        streams = [caller.request(post(live.key, path=path), request) for _ in range(5)]
        for stream in streams:
            await caller.octets(stream, 0)
        await _settled(live)
        assert all(caller.replies[stream].status == 200 for stream in streams)
        assert 0 < sum(buffered(live)) <= 5 * MAX_BUFFERED
        caller.send(WindowUpdateFrame(0, window_increment=1 << 24))
        caller.send(*(WindowUpdateFrame(stream, window_increment=1 << 24) for stream in streams))
        for stream in streams:
            assert (await caller.answer(stream)).complete


async def test_a_window_of_one_octet_at_a_time_is_served(
    relay_with: RelayWith, upstream_with: UpstreamWith
) -> None:
    live = await relay_with(await upstream_with(always(STREAM)))
    settings = {INITIAL_WINDOW_SIZE: 0}
    async with http2_caller(live.port, settings=settings, grants=False) as caller:
        stream = caller.request(post(live.key), body(stream=True))
        for number in range(1, 50):
            caller.send(WindowUpdateFrame(stream, window_increment=1))
            await caller.octets(stream, number)
        assert caller.replies[stream].payload == PAYLOAD[:49]
        assert sum(buffered(live)) <= MAX_BUFFERED


@pytest.mark.alone
async def test_a_stream_stalled_for_too_long_is_reset(
    relay_with: RelayWith, upstream_with: UpstreamWith
) -> None:
    upstream = await upstream_with(always(STREAM))
    live = await relay_with(upstream, server={"timeouts": {"write": 0.5}})
    async with http2_caller(live.port, grants=False) as caller:
        stream = caller.request(post(live.key), body(stream=True))
        reply = await caller.answer(stream)
        assert (reply.complete, reply.reset) == (False, CANCEL)
        assert not buffered(live)
        other = caller.request(post(live.key), body(stream=True))  # stalls as well, and then not
        await caller.octets(other, 0)
        caller.send(WindowUpdateFrame(0, window_increment=1 << 24))
        await caller.octets(other, 60_000)
        caller.send(WindowUpdateFrame(other, window_increment=1 << 21))
        reply = await caller.answer(other)
        assert (reply.complete, reply.reset, len(reply.payload)) == (True, None, len(PAYLOAD))
        caller.send(WindowUpdateFrame(0, window_increment=1 << 20))
        assert (await caller.answer(caller.request(get()))).status == 200
    await until(lambda: live.log()[0]["outcome"] == "caller left")


async def test_large_streams_share_a_connection_fairly(
    relay_with: RelayWith, upstream_with: UpstreamWith
) -> None:
    live = await relay_with(await upstream_with(always(STREAM)))
    settings = {INITIAL_WINDOW_SIZE: 1 << 20}
    async with http2_caller(live.port, settings=settings, grants=False) as caller:
        streams = [caller.request(post(live.key), body(stream=True)) for _ in range(4)]
        await until(lambda: all(caller.replies[stream].fields for stream in streams))
        await _settled(live)
        before = [len(caller.replies[stream].payload) for stream in streams]
        caller.send(WindowUpdateFrame(0, window_increment=4 * 48 * 1024))
        await _settled(live)
        await caller.pong()
        after = [len(caller.replies[stream].payload) for stream in streams]
        gained = [late - early for early, late in zip(before, after, strict=True)]
        assert sum(gained) == 4 * 48 * 1024
        assert min(gained) >= 16 * 1024
        caller.send(WindowUpdateFrame(0, window_increment=1 << 24))
        for stream in streams:
            caller.send(WindowUpdateFrame(stream, window_increment=1 << 24))
        for stream in streams:
            assert (await caller.answer(stream)).payload == PAYLOAD


async def test_a_caller_whose_socket_is_full_gets_everything_later(
    relay_with: RelayWith, upstream_with: UpstreamWith
) -> None:
    live = await relay_with(await upstream_with(always(STREAM)))
    settings = {INITIAL_WINDOW_SIZE: 1 << 24}
    async with http2_caller(live.port, settings=settings, limit=4096) as caller:
        caller.send(WindowUpdateFrame(0, window_increment=1 << 28))
        streams = [caller.request(post(live.key), body(stream=True)) for _ in range(10)]
        for stream in streams:
            assert (await caller.answer(stream)).payload == PAYLOAD
        assert not engine_of(live).engine.table.waiting


async def test_a_body_that_nobody_reads_stays_within_its_window(live: Live) -> None:
    """Without a key the answer comes at once, and the rest of the body is dropped."""
    async with http2_caller(live.port) as caller:
        stream = caller.begin(post("no-key", ("content-length", "60000")))
        caller.send(*(DataFrame(stream, bytes(10_000)) for _ in range(3)))
        reply = await caller.answer(stream)
        assert (reply.status, reply.complete, reply.reset) == (401, True, None)
        caller.send(*(DataFrame(stream, bytes(10_000)) for _ in range(2)))
        caller.send(DataFrame(stream, bytes(10_000), flags=["END_STREAM"]))
        assert (await caller.answer(caller.request(get()))).status == 200
        assert caller.windows.get(stream, 0) == 0
        assert not engine_of(live).engine.table.streams


async def test_an_unread_body_holds_its_window_at_most() -> None:
    seen: list[Exchange] = []
    reads = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        seen.append(exchange)
        await reads.wait()
        exchange.respond(200, [], str(len(await exchange.body())).encode())

    server = Server(handler, Deadlines(asyncio.get_running_loop()))
    port = await listen(server)
    async with http2_caller(port) as caller:
        stream = caller.begin(post("key", ("content-length", "200000")))
        caller.send(*(DataFrame(stream, bytes(16_383)) for _ in range(4)))
        await caller.pong()
        await until(lambda: bool(seen and seen[0].request_body))
        body = seen[0].request_body
        assert body is not None
        assert (body.size, caller.windows.get(stream, 0)) == (65_532, 0)
        other = caller.begin(post("key", ("content-length", "200000")))  # goes on all the same
        caller.send(*(DataFrame(other, bytes(16_384)) for _ in range(4)))
        assert (await caller.answer(other)).reset == FLOW_CONTROL_ERROR
        reads.set()
        await until(lambda: caller.windows.get(stream, 0) > 200_000)
        caller.send(*(DataFrame(stream, bytes(13_446)) for _ in range(10)))
        caller.send(DataFrame(stream, bytes(8), flags=["END_STREAM"]))
        assert (await caller.answer(stream)).payload == b"200000"
    await server.drain(0)


async def test_events_are_not_gathered(live: Live) -> None:
    """Each event goes out when it comes, though others follow soon."""
    fields = post(live.key, ("x-simulate", "tokens=20;pace=50"))
    times: list[float] = []
    async with http2_caller(live.port) as caller:
        stream = caller.request(fields, body(stream=True))
        reply = caller.replies[stream]
        count = 0
        while not reply.complete:
            reply.changed.clear()
            await reply.changed.wait()
            if len(reply.pieces) > count:
                count = len(reply.pieces)
                times.append(time.perf_counter())
    gaps = sorted(later - earlier for earlier, later in pairwise(times))
    assert len(gaps) >= 18
    assert gaps[len(gaps) // 2] >= 0.01


@pytest.mark.parametrize("size", [1, 16_384, 16_385, 20_000, 40_000, 65_536, 200_000])
async def test_a_write_of_any_size_ends_no_answer(live: Live, size: int) -> None:
    async def handler(exchange: Exchange) -> None:
        exchange.begin(200, [])
        for _ in range(3):
            exchange.write(bytes(size))
            await exchange.writable()
        exchange.end(b"last")

    live.app.server.handler = handler
    async with http2_caller(live.port, settings={INITIAL_WINDOW_SIZE: 1 << 20}) as caller:
        caller.send(WindowUpdateFrame(0, window_increment=1 << 20))
        reply = await caller.answer(caller.request(get("/")))
    assert reply.payload == bytes(3 * size) + b"last"
