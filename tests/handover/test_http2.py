"""HTTP/2 connections of a process that hands over: each is drained with GOAWAY."""

from pathlib import Path

from relay.wire.h2.frames import NO_ERROR
from tests.fakes.http2 import body, http2_caller, post

from .test_handover import relays_of

LARGEST_STREAM = 2**31 - 1


async def test_a_stream_over_http2_ends_in_the_old_process(metered: tuple[Path, str]) -> None:
    async with relays_of(metered) as relays, http2_caller(relays.port) as caller:
        script = ("x-simulate", "tokens=60;pace=10")
        stream = caller.request(post(metered[1], script), body(stream=True))
        await caller.octets(stream, 100)
        await relays.start()
        assert (await caller.goaway()).last_stream_id == LARGEST_STREAM
        reply = await caller.answer(stream, wait=20)
        assert (reply.status, reply.complete) == (200, True)
        assert b"message_stop" in reply.payload
        await caller.ended()
        assert await relays.ended(0) == 0


async def test_an_idle_connection_over_http2_is_closed(metered: tuple[Path, str]) -> None:
    async with relays_of(metered) as relays, http2_caller(relays.port) as caller:
        await caller.pong()
        await relays.start()
        await caller.ended()
        first, last = caller.goaways
        assert (first.last_stream_id, last.last_stream_id) == (LARGEST_STREAM, 0)
        assert (first.error_code, last.error_code) == (NO_ERROR, NO_ERROR)
        assert await relays.ended(0) == 0
        async with http2_caller(relays.port) as other:
            stream = other.request(post(metered[1]), body())
            assert (await other.answer(stream)).status == 200
