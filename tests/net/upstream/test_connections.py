"""Connections to an upstream: reused, found stale, never poisoned, paused."""

import asyncio
import hashlib
import json
import socket

import pytest

from relay.net.upstream.connection import UpstreamConnection
from tests.fakes import answers
from tests.fakes.caller import BODY, connected, exchange, read_answer, read_head, request
from tests.fakes.live import Live, RelayWith
from tests.fakes.until import until
from tests.fakes.upstream import JSON_ANSWER, OK, Seen, UpstreamWith, always
from tests.net.pausing import pause_reading, resume_reading

GOOD = (200, JSON_ANSWER)


async def ask(relay: Live, count: int = 1) -> list[tuple[int, bytes]]:
    """Send `count` requests on one connection; return each status and body."""
    received = []
    async with connected(relay.port) as (reader, writer):
        for _ in range(count):
            writer.write(request(relay.key))
            status, _, body = await read_answer(reader)
            received.append((status, body))
    return received


async def settle(relay: Live) -> None:
    """Wait until the relay has noticed its upstream's last action."""
    for _ in range(5):
        await asyncio.sleep(0.005)


async def test_one_connection_serves_one_request_after_another(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    upstream = await upstream_with(always(OK))
    relay = await relay_with(upstream)
    assert await ask(relay, 10) == [GOOD] * 10
    assert upstream.connections == 1
    assert "idle=1" in repr(relay.app.upstreams[0].pool)


async def test_a_connection_that_closed_unseen_is_an_upstreams_failure(
    upstream_with: UpstreamWith, relay_with: RelayWith, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop has closed the socket and has yet to say so: no write is possible any more."""
    upstream = await upstream_with(always(OK))
    relay = await relay_with(upstream)
    pool = relay.app.upstreams[0].pool
    connect = pool.connect

    async def connect_and_close() -> UpstreamConnection:
        connection = await connect()
        connection.transport.abort()
        await asyncio.create_task(until(lambda: connection.lost is not None))
        return connection

    monkeypatch.setattr(pool, "connect", connect_and_close)
    [(status, body)] = await ask(relay)
    assert (status, json.loads(body)["error"]["type"]) == (502, "api_error")


async def test_concurrent_requests_get_a_connection_each(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    gate = asyncio.Event()

    async def answer(reader: object, writer: asyncio.StreamWriter, seen: Seen) -> None:
        await gate.wait()
        writer.write(OK)

    upstream = await upstream_with(answer)
    relay = await relay_with(upstream)
    asked = [asyncio.create_task(ask(relay)) for _ in range(20)]
    await until(lambda: len(upstream.requests) >= 20)
    gate.set()
    assert await asyncio.gather(*asked) == [[GOOD]] * 20
    assert upstream.connections == 20
    assert await ask(relay, 5) == [GOOD] * 5
    assert upstream.connections == 20


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_connection_that_died_while_idle_is_not_used(
    upstream_with: UpstreamWith, relay_with: RelayWith, how: str
) -> None:
    writers: list[asyncio.StreamWriter] = []

    async def answer(reader: object, writer: asyncio.StreamWriter, seen: Seen) -> None:
        writer.write(OK)
        writers.append(writer)

    upstream = await upstream_with(answer)
    relay = await relay_with(upstream)
    assert await ask(relay) == [GOOD]
    if how == "reset":
        writers[0].transport.abort()
    else:
        writers[0].close()
    await settle(relay)
    assert "idle=0" in repr(relay.app.upstreams[0].pool)
    assert await ask(relay) == [GOOD]
    assert len(upstream.requests) == 2


async def test_a_request_on_a_stale_connection_is_sent_once_more(
    upstream_with: UpstreamWith,
    relay_with: RelayWith,
) -> None:
    """The upstream closes as the request arrives: the only case in which it is sent again."""

    async def answer(reader: object, writer: asyncio.StreamWriter, seen: Seen) -> None:
        if seen.connection == 1 and len(upstream.requests) == 2:
            writer.close()  # without one octet of an answer
        else:
            writer.write(OK)

    upstream = await upstream_with(answer)
    relay = await relay_with(upstream)
    assert await ask(relay, 2) == [GOOD] * 2
    assert [seen.connection for seen in upstream.requests] == [1, 1, 2]
    assert upstream.requests[1].body == upstream.requests[2].body
    assert upstream.requests[1].head == upstream.requests[2].head


async def test_a_request_is_never_sent_a_third_time(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    async def answer(reader: object, writer: asyncio.StreamWriter, seen: Seen) -> None:
        if len(upstream.requests) == 1:
            writer.write(OK)
        else:
            writer.close()

    upstream = await upstream_with(answer)
    relay = await relay_with(upstream)
    received = await ask(relay, 2)
    assert [status for status, _ in received] == [200, 502]
    assert len(upstream.requests) == 3


async def test_a_fresh_connection_that_dies_is_not_tried_again(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    upstream = await upstream_with(always(b"", close=True))
    relay = await relay_with(upstream)
    assert [status for status, _ in await ask(relay)] == [502]
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("octets", [b"H", OK[:30], b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_an_answers_first_octet_rules_out_a_second_try(
    upstream_with: UpstreamWith, relay_with: RelayWith, octets: bytes
) -> None:
    async def answer(reader: object, writer: asyncio.StreamWriter, seen: Seen) -> None:
        if len(upstream.requests) == 1:
            writer.write(OK)
        else:
            writer.write(octets)
            writer.close()

    upstream = await upstream_with(answer)
    relay = await relay_with(upstream)
    received = await ask(relay, 2)
    assert [status for status, _ in received] == [200, 502]
    assert len(upstream.requests) == 2


POISON = answers.sized(b'{"poison":true}')


@pytest.mark.parametrize(
    "octets",
    [
        OK + POISON,
        OK + b"\r\n",
        answers.sized(b'{"type":"error"}', b"400 Bad") + POISON,
        answers.sized(b"", b"529 Overloaded") + POISON,
        answers.chunked([JSON_ANSWER], b"application/json") + POISON,
    ],
)
@pytest.mark.parametrize("late", [False, True])
async def test_octets_after_an_answer_never_become_the_next_one(
    upstream_with: UpstreamWith, relay_with: RelayWith, octets: bytes, late: bool
) -> None:
    end = len(octets) - len(POISON) if octets.endswith(POISON) else len(octets) - 2

    async def answer(reader: object, writer: asyncio.StreamWriter, seen: Seen) -> None:
        if len(upstream.requests) > 1:
            writer.write(OK)
        elif late:
            writer.write(octets[:end])
            await asyncio.sleep(0.02)
            writer.write(octets[end:])
        else:
            writer.write(octets)

    upstream = await upstream_with(answer)
    relay = await relay_with(upstream)
    received = await ask(relay)
    assert b"poison" not in received[0][1]
    await asyncio.sleep(0.05 if late else 0)
    await settle(relay)
    assert "idle=0" in repr(relay.app.upstreams[0].pool)
    assert await ask(relay) == [GOOD]
    assert upstream.connections == 2


@pytest.mark.parametrize(
    "octets",
    [
        OK.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n", 1),
        OK.replace(b"HTTP/1.1", b"HTTP/1.0", 1),
    ],
)
async def test_a_connection_that_the_upstream_closes_is_not_kept(
    upstream_with: UpstreamWith, relay_with: RelayWith, octets: bytes
) -> None:
    upstream = await upstream_with(always(octets))
    relay = await relay_with(upstream)
    assert await ask(relay, 3) == [GOOD] * 3
    assert upstream.connections == 3


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, 200),
        (b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" * 16 + OK, 200),
        (b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" * 17 + OK, 502),
        (b"HTTP/1.1 102 Processing\r\n\r\n" * 5000, 502),
        (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n" + OK, 502),
    ],
)
@pytest.mark.parametrize("split", [False, True])
async def test_up_to_sixteen_interim_answers_are_skipped(
    upstream_with: UpstreamWith, relay_with: RelayWith, octets: bytes, expected: int, split: bool
) -> None:
    async def answer(reader: object, writer: asyncio.StreamWriter, seen: Seen) -> None:
        step = 13 if split and len(octets) < 2000 else len(octets)
        for start in range(0, len(octets), step):
            writer.write(octets[start : start + step])
            await asyncio.sleep(0)

    upstream = await upstream_with(answer)
    relay = await relay_with(upstream)
    assert [status for status, _ in await ask(relay)] == [expected]
    assert ("idle=1" in repr(relay.app.upstreams[0].pool)) == (expected == 200)


# --- back-pressure ------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
async def test_a_caller_that_stops_reading_stops_the_upstream(
    upstream_with: UpstreamWith, relay_with: RelayWith, stream: bool
) -> None:
    piece = answers.chunk(answers.stream(["x" * 16_000])[3]) if stream else b"x" * 16_384
    count = 48 * 1024 * 1024 // len(piece)
    front = b"".join(map(answers.chunk, answers.stream()[:2])) if stream else b'{"x":"'
    back = b"".join(map(answers.chunk, answers.stream()[-2:])) + answers.LAST if stream else b'"}'
    size = len(front) + count * len(piece) + len(back)
    expected = hashlib.sha256(front)
    for _ in range(count):
        expected.update(piece)
    expected.update(back)
    sent = 0

    async def answer(reader: object, writer: asyncio.StreamWriter, seen: Seen) -> None:
        nonlocal sent
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        length = b"content-length: %d" % size
        writer.write(answers.chunked_head() if stream else answers.head(b"200 OK", length))
        for data in (front, *(piece for _ in range(count)), back):
            writer.write(data)
            await writer.drain()
            sent += len(data)

    upstream = await upstream_with(answer)
    relay = await relay_with(upstream)
    async with connected(relay.port, limit=65_536, wait=30) as (reader, writer):
        body = {**BODY, "stream": stream}
        writer.write(request(relay.key, body, fields="connection: close\r\n"))
        await read_head(reader)
        pause_reading(writer)
        before = -1
        while sent != before:  # until nothing more is sent
            before = sent
            await asyncio.sleep(0.3)
        assert 0 < sent < size / 2, "the upstream was never stopped"
        (connection,) = relay.app.server.connections
        held = connection.transport.get_write_buffer_size()
        assert held <= 256 * 1024
        print(f"stopped after {sent >> 10} KiB, of which the relay holds {held >> 10} KiB")
        resume_reading(writer)
        received = hashlib.sha256()
        while data := await reader.read(1 << 20):
            received.update(data)
        assert received.digest() == expected.digest()


async def test_a_slow_caller_slows_no_other(live: Live) -> None:
    body = b'{"model":"claude-sonnet-4-7","max_tokens":9,"stream":true,"messages":' + (
        b'[{"role":"user","content":"hi"}]}'
    )
    async with connected(live.port, limit=1024) as (reader, writer):
        writer.write(request(live.key, body, fields="x-simulate: bytes=16000000\r\n"))
        await read_head(reader)
        pause_reading(writer)
        await asyncio.sleep(0.2)
        loop = asyncio.get_running_loop()
        started = loop.time()
        for _ in range(20):
            octets = request(live.key, fields="connection: close\r\n")
            assert (await exchange(live.port, octets)).startswith(b"HTTP/1.1 200 ")
        assert loop.time() - started < 2
