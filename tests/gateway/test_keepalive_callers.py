"""Callers that wait, leave or read slowly while pings flow."""

import asyncio
import socket

import pytest

from relay.net.listener import listen
from relay.wire.chunked import ChunkReader
from tests.fakes import answers
from tests.fakes.caller import connected, request
from tests.fakes.live import RelayWith
from tests.fakes.until import until
from tests.fakes.upstream import UpstreamWith
from tests.gateway.streaming import (
    CLOSE,
    EVENTS,
    HEAD,
    LIVELY,
    PING,
    STREAM,
    WHOLE,
    Answered,
    LivelyWith,
    asking,
    in_chunks,
    steps,
    ticks,
)

pytestmark = pytest.mark.usefixtures("quick_clock")


async def test_a_queued_stream_gets_pings_and_then_its_answer(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    go_on = asyncio.Event()
    script = steps(go_on, answers.chunked(EVENTS))
    upstream = await upstream_with(script)
    relay = await relay_with(upstream, pool=LIVELY, upstream_options={"max_concurrency": 1})
    async with asking(relay) as first:
        await upstream.asked.wait()
        async with asking(relay) as second:
            await asyncio.gather(first.pings(2), second.pings(2))
            assert len(upstream.requests) == 1
            go_on.set()
            await asyncio.gather(first.end(), second.end())
        lines = relay.log()
    for answered in (first, second):
        assert answered.complete
        answered.assert_events(EVENTS)
    assert [line["outcome"] for line in lines] == ["whole", "whole"]


async def test_a_queued_stream_that_times_out_ends_with_an_error_event(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    never = asyncio.Event()
    upstream = await upstream_with(steps(never))
    relay = await relay_with(
        upstream, pool={**LIVELY, "wait": 0.3}, upstream_options={"max_concurrency": 1}
    )
    async with asking(relay) as first:
        await upstream.asked.wait()
        async with asking(relay) as second:
            await second.pings(1)
            await second.end()
        [line] = relay.log()
        await first.pings(1)
    [(event, document)] = second.events
    assert (event, document["error"]["type"]) == ("error", "overloaded_error")
    assert not second.complete
    assert line["rule"] == "refunded"


async def test_a_caller_that_leaves_during_pings_pays_its_prompt(lively_with: LivelyWith) -> None:
    never = asyncio.Event()
    relay, _ = await lively_with(steps(never))
    async with asking(relay) as answered:
        await answered.pings(2)
    await until(lambda: not relay.app.upstreams[0].in_flight)
    await until(relay.log)
    [line] = relay.log()
    assert (line["outcome"], line["rule"]) == ("caller left", "left")


async def test_a_half_closed_caller_still_gets_its_answer(lively_with: LivelyWith) -> None:
    go_on = asyncio.Event()
    relay, _ = await lively_with(steps(go_on, answers.chunked(EVENTS)))
    async with connected(relay.port) as (reader, writer):
        writer.write(request(relay.key, STREAM, fields=CLOSE))
        answered = Answered(reader)
        await answered.pings(1)
        writer.write_eof()
        await answered.pings(3)
        go_on.set()
        await answered.end()
    assert answered.complete
    assert answered.payload.replace(PING, b"").replace(b":\n\n", b"") == WHOLE


async def test_pings_do_not_pile_up_for_a_slow_reader(lively_with: LivelyWith) -> None:
    fill = answers.event(
        "content_block_delta", index=0, delta={"type": "text_delta", "text": "x" * 60_000}
    )
    events = [*EVENTS[:3], *[fill] * 40, *EVENTS[3:]]
    script = steps(HEAD + in_chunks(events) + answers.LAST)
    loop = asyncio.get_running_loop()
    relay, _ = await lively_with(script)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    listener.setblocking(False)
    port = await listen(relay.app.server, sock=listener)

    def buffered() -> int:
        open_ = relay.app.server.connections
        return sum(one.transport.get_write_buffer_size() for one in open_)

    with socket.socket() as caller:
        caller.setblocking(False)
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await loop.sock_connect(caller, ("127.0.0.1", port))
        await loop.sock_sendall(caller, request(relay.key, STREAM, fields=CLOSE))
        await until(buffered)
        await ticks(relay, 5)
        held = buffered()
        await ticks(relay, 25)  # time for five pings
        assert buffered() == held
        received = bytearray()
        while octets := await loop.sock_recv(caller, 1024 * 1024):
            received += octets
    assert received.endswith(answers.LAST)
    payload = ChunkReader().feed(bytes(received).partition(b"\r\n\r\n")[2])
    assert payload.replace(PING, b"") == b"".join(events)
