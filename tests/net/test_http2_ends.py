"""HTTP/2 connections: deadlines, drains and TLS."""

import asyncio
import ssl
import time
from pathlib import Path

import pytest
import trustme
from hpack import Encoder
from hyperframe.frame import DataFrame, HeadersFrame, SettingsFrame, WindowUpdateFrame

from relay.wire.h2.frames import (
    INITIAL_WINDOW_SIZE,
    LARGEST_STREAM,
    NO_ERROR,
    PREFACE,
    PROTOCOL_ERROR,
    goaway_frame,
)
from tests.fakes import answers
from tests.fakes.caller import BODY, connected, read_answer, request
from tests.fakes.http2 import body, get, http2_caller, post
from tests.fakes.live import Live, RelayWith
from tests.fakes.until import until
from tests.fakes.upstream import Seen, UpstreamWith

DUE = 0.5  # each deadline in these tests, in seconds
EARLY, LATE = 0.3, 0.6  # the deadlines' clock ticks four times a second
EVENTS = answers.stream()


def fired(started: float) -> bool:
    """Whether the deadline `DUE` is now, within the clock's tolerance."""
    return -EARLY <= time.monotonic() - started - DUE <= LATE


async def test_an_idle_connection_ends_with_goaway(relay_with: RelayWith) -> None:
    live = await relay_with(server={"timeouts": {"idle": DUE}})
    async with http2_caller(live.port) as caller:
        assert (await caller.answer(caller.request(get()))).status == 200
        started = time.monotonic()
        goaway = await caller.goaway()
        await caller.ended()
        assert fired(started)
        assert (goaway.last_stream_id, goaway.error_code) == (1, NO_ERROR)


@pytest.mark.parametrize("part", ["a block without its end", "a part of a frame"])
async def test_an_unfinished_head_ends_the_connection(relay_with: RelayWith, part: str) -> None:
    live = await relay_with(server={"timeouts": {"head": DUE}})
    async with http2_caller(live.port) as caller:
        await caller.pong()
        head = HeadersFrame(1, caller.encoder.encode(get()), flags=["END_STREAM"])
        started = time.monotonic()
        caller.send(head if part == "a block without its end" else head.serialize()[:-3])
        await caller.ended()
        assert fired(started)
        assert caller.goaways


async def test_an_unfinished_head_ends_what_else_is_stalled(relay_with: RelayWith) -> None:
    live = await relay_with(server={"timeouts": {"head": DUE}})
    settings = {INITIAL_WINDOW_SIZE: 0}
    async with http2_caller(live.port, settings=settings, grants=False) as caller:
        stream = caller.request(post(live.key), body(stream=True))
        await caller.octets(stream, 0)
        await caller.pong()
        started = time.monotonic()
        caller.send(HeadersFrame(3, caller.encoder.encode(get()), flags=["END_STREAM"]))
        await caller.ended()
        assert fired(started)
        assert [one.error_code for one in caller.goaways] == [PROTOCOL_ERROR]
    await until(lambda: not live.app.server.connections)


async def test_a_body_that_stops_is_a_408_on_its_stream(relay_with: RelayWith) -> None:
    live = await relay_with(server={"timeouts": {"body": DUE}})
    async with http2_caller(live.port) as caller:
        started = time.monotonic()
        stream = caller.begin(post(live.key, ("content-length", "1000")))
        caller.send(DataFrame(stream, b"{"))
        reply = await caller.answer(stream)
        assert reply.status == 408
        assert fired(started)
        assert (await caller.answer(caller.request(get()))).status == 200


async def test_a_frame_that_trickles_in_counts_as_it_comes(relay_with: RelayWith) -> None:
    live = await relay_with(server={"timeouts": {"body": DUE}})
    octets = body(messages=[{"role": "user", "content": "x" * 6000}])
    async with http2_caller(live.port) as caller:
        stream = caller.begin(post(live.key, ("content-length", str(len(octets)))))
        await caller.pong()  # nothing else is sent from now on
        frame = DataFrame(stream, octets, flags=["END_STREAM"]).serialize()
        for start in range(0, len(frame), 1000):
            caller.send(frame[start : start + 1000])
            await asyncio.sleep(0.25)
        assert (await caller.answer(stream)).status == 200


async def test_a_body_of_unknown_length_is_not_awaited_for_long(live: Live) -> None:
    async with http2_caller(live.port) as caller:
        stream = caller.begin(post("no-key"))
        reply = await caller.answer(stream)
        assert (reply.status, reply.complete, reply.reset) == (401, True, None)
        reply.complete = False
        assert (await caller.answer(stream, wait=2.0)).reset == NO_ERROR
        assert (await caller.answer(caller.request(get()))).status == 200


async def test_a_body_that_follows_its_answer_must_come_soon(relay_with: RelayWith) -> None:
    live = await relay_with(server={"timeouts": {"body": DUE}})
    async with http2_caller(live.port) as caller:
        stream = caller.begin(post("no-key", ("content-length", "1000")))
        reply = await caller.answer(stream)
        assert (reply.status, reply.complete) == (401, True)
        started = time.monotonic()
        reply.complete = False
        assert (await caller.answer(stream)).reset == NO_ERROR
        assert fired(started)


@pytest.mark.alone
async def test_a_drain_announces_itself_and_lets_streams_finish(
    relay_with: RelayWith, upstream_with: UpstreamWith
) -> None:
    """SIGTERM with 200 streams, half of them over HTTP/2: each is complete, octet for octet."""
    finish = asyncio.Event()

    async def answer(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Seen
    ) -> None:
        writer.write(answers.chunked_head() + b"".join(map(answers.chunk, EVENTS[:5])))
        await finish.wait()
        writer.write(b"".join(map(answers.chunk, EVENTS[5:])) + answers.LAST)

    live = await relay_with(await upstream_with(answer))

    async def over_http11() -> bytes:
        async with connected(live.port) as (reader, writer):
            writer.write(request(live.key, {**BODY, "stream": True}))
            return (await read_answer(reader))[2]

    old = [asyncio.ensure_future(over_http11()) for _ in range(100)]
    async with http2_caller(live.port) as first, http2_caller(live.port) as second:
        callers = [(first, [first.request(post(live.key), body(stream=True)) for _ in range(50)])]
        callers += [
            (second, [second.request(post(live.key), body(stream=True)) for _ in range(50)])
        ]
        for caller, streams in callers:
            for stream in streams:
                await caller.octets(stream, 100)
        await until(lambda: len(live.app.server.connections) == 102)
        drained = asyncio.ensure_future(live.app.server.drain(10))
        await until(lambda: len(first.goaways) == 2)
        assert [one.last_stream_id for one in first.goaways] == [LARGEST_STREAM, 99]
        assert not drained.done()
        finish.set()
        for caller, streams in callers:
            for stream in streams:
                reply = await caller.answer(stream)
                assert (reply.complete, reply.payload) == (True, b"".join(EVENTS))
            await caller.ended()
        started = time.monotonic()
        await drained
        assert time.monotonic() - started <= 1.0
    assert set(await asyncio.gather(*old)) == {b"".join(EVENTS)}


async def test_frames_behind_the_last_answer_bring_no_reset(live: Live) -> None:
    """A reset takes octets from a caller that it has not read."""
    head = HeadersFrame(1, Encoder().encode(get()), flags=["END_HEADERS", "END_STREAM"])
    update = WindowUpdateFrame(0, window_increment=65_535).serialize()
    async with connected(live.port) as (reader, writer):
        writer.write(PREFACE + SettingsFrame().serialize() + head.serialize())
        await reader.readuntil(b"ok\n")
        drained = asyncio.ensure_future(live.app.server.drain(10))
        await reader.readuntil(goaway_frame(1, NO_ERROR))
        for _ in range(10):
            writer.write(update)
            await asyncio.sleep(0.02)
        assert await reader.read(-1) == b""
        assert not drained.done()
        writer.close()
        await drained


async def test_an_idle_connection_is_drained_at_once(live: Live) -> None:
    async with http2_caller(live.port) as caller:
        assert (await caller.answer(caller.request(get()))).status == 200
        await live.app.server.drain(10)
        await caller.ended()
        assert [one.error_code for one in caller.goaways][-1:] == [NO_ERROR]


async def test_a_silent_caller_does_not_hold_up_a_drain(live: Live) -> None:
    """Its PING is not answered: the second GOAWAY comes all the same."""
    fields = post(live.key, ("x-simulate", "tokens=40;pace=20"))
    async with http2_caller(live.port) as caller:
        caller.answers_pings = False
        stream = caller.request(fields, body(stream=True))
        await caller.octets(stream, 10)
        drained = asyncio.ensure_future(live.app.server.drain(10))
        assert (await caller.answer(stream)).complete
        await caller.ended()
        await drained
        assert [one.last_stream_id for one in caller.goaways] == [LARGEST_STREAM, 1]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.mark.parametrize("protocols", [["h2", "http/1.1"], ["h2"], ["http/1.1"], []])
async def test_tls_chooses_the_protocol(
    relay_with: RelayWith, tmp_path: Path, authority: trustme.CA, protocols: list[str]
) -> None:
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "both.pem"))
    both = str(tmp_path / "both.pem")
    live = await relay_with(server={"tls": {"cert": both, "key": both}})
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if protocols:
        context.set_alpn_protocols(protocols)
    if "h2" in protocols:
        async with http2_caller(live.port, tls=context) as caller:
            streams = [caller.request(post(live.key), body(stream=True)) for _ in range(5)]
            for stream in streams:
                assert (await caller.answer(stream)).complete
            assert (await caller.answer(caller.request(get()))).payload == b"ok\n"
    else:
        reader, writer = await asyncio.open_connection("127.0.0.1", live.port, ssl=context)
        writer.write(request(live.key))
        assert (await read_answer(reader))[0] == 200
        writer.transport.abort()
    assert {line["status"] for line in live.log()} == {200}
