"""What one key sends is held within bounds, and an honest caller is served beside it."""

import asyncio
import gzip
import time

import pytest

from relay.net.request_body import RequestBody
from tests.attacks.uploads import (
    KIB,
    MIB,
    PATHS,
    chunk,
    head,
    held,
    other_key,
    padded,
    refusal,
    served,
    several,
)
from tests.fakes.caller import connected, read_answer, request
from tests.fakes.live import Live, RelayWith
from tests.fakes.memory import peak_octets
from tests.fakes.pool import PoolWith
from tests.fakes.until import until

SMALL = {"body": MIB, "held_per_key": 2 * MIB, "held": 3 * MIB}


async def test_unfinished_uploads_of_one_key_hold_its_share_alone(live: Live) -> None:
    """25 uploads of 32 MiB that never end held 781 MiB."""
    size = 32 * MIB
    async with several(live.port, 25) as streams:
        for _, writer in streams:
            writer.write(head(live.key, length=size) + b"{" * (100 * KIB))
        answers = [await refusal(stream) for stream in streams[2:]]
        assert {status for status, _, _ in answers} == {429}
        assert {fields[b"retry-after"] for _, fields, _ in answers} == {b"1"}
        assert "requests of this key" in answers[0][2]
        assert held(live) == 2 * size
        assert await served(live, await other_key(live))
        assert await served(live, live.key)  # a small body that came with its head
    await until(lambda: held(live) == 0)


async def test_a_chunked_upload_takes_its_memory_as_it_grows(relay_with: RelayWith) -> None:
    relay = await relay_with(server={"limits": SMALL})
    async with several(relay.port, 4) as streams:
        for _, writer in streams[:2]:
            writer.write(head(relay.key) + chunk(b" " * 900 * KIB))
        await until(lambda: held(relay) >= 1800 * KIB)
        streams[2][1].write(head(relay.key) + chunk(b" " * 10 * KIB))
        await asyncio.sleep(0.05)
        before = held(relay)
        streams[2][1].write(chunk(b" " * 400 * KIB))
        assert (await refusal(streams[2]))[0] == 429
        assert before <= 2 * MIB
        streams[3][1].write(head(relay.key) + chunk(b" " * 2 * MIB))
        assert (await refusal(streams[3]))[0] in (413, 429)
    await until(lambda: held(relay) == 0)


async def test_keys_together_hold_no_more_than_the_budget(relay_with: RelayWith) -> None:
    relay = await relay_with(server={"limits": SMALL})
    other = await other_key(relay)
    async with several(relay.port, 4) as streams:
        for key, (_, writer) in zip([relay.key, relay.key, other, other], streams, strict=True):
            writer.write(head(key, length=MIB) + b"{")
            await asyncio.sleep(0.02)
        status, fields, message = await refusal(streams[3])
        assert (status, fields[b"retry-after"]) == (503, b"1")
        assert "memory" in message
        assert held(relay) == 3 * MIB
        streams[0][1].transport.abort()
        await until(lambda: held(relay) == 2 * MIB)
        async with connected(relay.port) as (reader, writer):
            writer.write(request(other, padded(MIB)))
            assert (await read_answer(reader))[0] == 200
    await until(lambda: held(relay) == 0)


async def test_a_refused_body_is_not_asked_for(relay_with: RelayWith) -> None:
    relay = await relay_with(server={"limits": SMALL})
    async with several(relay.port, 3) as streams:
        for _, writer in streams:
            writer.write(head(relay.key, length=MIB, fields="expect: 100-continue\r\n"))
            await asyncio.sleep(0.02)
        answers = [await stream[0].readuntil(b"\r\n") for stream in streams]
    assert answers == [b"HTTP/1.1 100 Continue\r\n"] * 2 + [b"HTTP/1.1 429 Too Many Requests\r\n"]


@pytest.mark.parametrize("target", PATHS)
@pytest.mark.parametrize("framing", ["length", "chunks"])
@pytest.mark.parametrize("end", ["answer", "bad request", "upstream refuses", "abort"])
async def test_memory_is_given_back_however_a_request_ends(
    pool_with: PoolWith, target: str, framing: str, end: str
) -> None:
    pool = await pool_with({"a": {}})
    relay = pool.relay
    body = padded(300 * KIB, target)
    if end == "bad request":
        body = body.replace(b'"model"', b'"modle"')
    script = "x-simulate: status=400\r\n" if end == "upstream refuses" else ""
    node = pool["a"]
    node.hold()
    async with connected(relay.port) as (reader, writer):
        length = len(body) if framing == "length" else -1
        writer.write(head(relay.key, target=target, length=length, fields=script))
        writer.write(body if length >= 0 else chunk(body) + b"0\r\n\r\n")
        if end != "bad request":
            await until(lambda: node.held)
            assert 300 * KIB <= held(relay) <= 400 * KIB
        if end == "abort":
            writer.transport.abort()
        else:
            node.let()
            await read_answer(reader)
    await until(lambda: held(relay) == 0)
    assert relay.app.server.budget.held_by("") == 0


@pytest.mark.parametrize("target", PATHS[1:])
async def test_an_unfolded_body_counts_at_its_size(pool_with: PoolWith, target: str) -> None:
    pool = await pool_with({"a": {}}, server={"limits": SMALL})
    relay = pool.relay
    pool["a"].hold()
    body = gzip.compress(padded(900 * KIB, target))
    assert len(body) < 10 * KIB
    async with several(relay.port, 3) as streams:
        for reader_writer in streams:
            reader_writer[1].write(
                request(relay.key, body, target=target, fields="content-encoding: gzip\r\n")
            )
        assert (await refusal(streams[2]))[0] == 429
        assert held(relay) == 2 * 900 * KIB
        pool["a"].let(2)
        for reader, _ in streams[:2]:
            assert (await read_answer(reader))[0] == 200
    await until(lambda: held(relay) == 0)


async def test_bodies_that_wait_in_the_queue_are_counted(pool_with: PoolWith) -> None:
    pool = await pool_with({"a": {"max_concurrency": 1}}, server={"limits": SMALL})
    relay = pool.relay
    pool["a"].hold()
    async with several(relay.port, 4) as streams:
        for _, writer in streams:
            writer.write(request(relay.key, padded(MIB - 1)))
            await asyncio.sleep(0.03)
        assert (await refusal(streams[2]))[0] == 429
        assert (await refusal(streams[3]))[0] == 429
        assert held(relay) == 2 * (MIB - 1)
        assert relay.app.upstreams.waiting == 1


async def test_unfinished_uploads_of_one_key_are_limited_in_number(relay_with: RelayWith) -> None:
    relay = await relay_with(server={"limits": {"uploads_per_key": 3}})
    async with several(relay.port, 4) as streams:
        for _, writer in streams:
            writer.write(head(relay.key, length=1000) + b"{")
            await asyncio.sleep(0.02)
        assert (await refusal(streams[3]))[0] == 429
        streams[0][1].write(padded(1000)[1:])
        assert (await read_answer(streams[0][0]))[0] == 200
        async with connected(relay.port) as (reader, writer):
            writer.write(head(relay.key, length=1000) + b"{")
            await asyncio.sleep(0.05)
            writer.write(padded(1000)[1:])
            assert (await read_answer(reader))[0] == 200


async def test_an_upload_ends_after_its_time_at_any_rate(
    relay_with: RelayWith, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.net.deadlines.TICK", 0.02)
    relay = await relay_with(server={"timeouts": {"upload": 0.5}})
    async with connected(relay.port) as (reader, writer):
        started = time.monotonic()
        writer.write(head(relay.key, length=MIB))

        async def trickle() -> None:
            while True:
                writer.write(b" " * 2 * KIB)
                await asyncio.sleep(0.02)

        sending = asyncio.create_task(trickle())
        status, _, message = await refusal((reader, writer))
        sending.cancel()
    assert (status, 0.4 < time.monotonic() - started < 1.5) == (408, True)
    assert "within 0.5 s" in message


async def test_tiny_segments_take_no_more_memory_than_their_octets() -> None:
    body = RequestBody(60_000, 32 * MIB)

    def feed() -> None:
        for number in range(30_000):
            body.feed(b"%02d" % (number % 100))

    assert peak_octets(feed) < 100_000
    assert len(await body.complete_body()) == 60_000
