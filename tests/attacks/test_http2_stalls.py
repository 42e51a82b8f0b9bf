"""HTTP/2 callers that stall for 10 s in every way, with an honest caller beside them."""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from typing import cast

import pytest
from hyperframe.frame import DataFrame, SettingsFrame, WindowUpdateFrame

from relay.wire.h2.frames import HEADERS, INITIAL_WINDOW_SIZE, PREFACE, frame
from tests.attacks.relay_process import RelayProcess, relay_process
from tests.attacks.test_http2_floods import MAX_GROWTH, P99_SECONDS, TRIES, honest_latencies
from tests.fakes import answers
from tests.fakes.http2 import Http2Caller, body, http2_caller, post
from tests.fakes.live import upstream_row
from tests.fakes.upstream import UpstreamWith, always

SECONDS = 10.0
STREAMS = 50
WIDE = 1 << 24  # octets of a window
LARGE = answers.chunked(answers.stream(["x" * 1000] * 300))
SMALL = answers.chunked(answers.stream(["x" * 100] * 10))  # for connections that come and go


def _start(caller: Http2Caller, key: str) -> list[int]:
    return [caller.request(post(key), body(stream=True)) for _ in range(STREAMS)]


async def _without_a_window(relay: RelayProcess, end: float) -> None:
    settings = {INITIAL_WINDOW_SIZE: 0}
    async with http2_caller(relay.port, settings=settings, grants=False) as caller:
        _start(caller, relay.key)
        await asyncio.sleep(end - time.monotonic())
        assert not caller.closed.is_set()


async def _octet_by_octet(relay: RelayProcess, end: float) -> None:
    while time.monotonic() < end:
        settings = {INITIAL_WINDOW_SIZE: 0}
        async with http2_caller(relay.port, settings=settings, grants=False) as caller:
            streams = _start(caller, relay.key)
            while time.monotonic() < end and not caller.closed.is_set():
                caller.send(*(WindowUpdateFrame(one, window_increment=1) for one in streams))
                await asyncio.sleep(0.01)


async def _with_a_full_socket(relay: RelayProcess, end: float) -> None:
    with socket.socket() as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        caller.connect(("127.0.0.1", relay.port))
        reader, writer = await asyncio.open_connection(sock=caller, limit=1024)
        cast(asyncio.Transport, writer.transport).pause_reading()
        blind = Http2Caller(reader, writer, grants=False)
        update = WindowUpdateFrame(0, window_increment=WIDE)
        blind.send(PREFACE, SettingsFrame(settings={INITIAL_WINDOW_SIZE: WIDE}), update)
        _start(blind, relay.key)
        await asyncio.sleep(end - time.monotonic())
        await blind.stop()


async def _in_a_head(relay: RelayProcess, end: float) -> None:
    head = frame(HEADERS, 1, 1, b"\x82")  # END_HEADERS is missing
    octets = PREFACE + SettingsFrame().serialize() + head
    writers = []
    for _ in range(2 * STREAMS):
        _, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        writer.write(octets)
        writers.append(writer)
    await asyncio.sleep(end - time.monotonic())
    for writer in writers:
        writer.transport.abort()


async def _in_a_body(relay: RelayProcess, end: float) -> None:
    async with http2_caller(relay.port) as caller:
        for _ in range(STREAMS):
            stream = caller.begin(post(relay.key))
            caller.send(*(DataFrame(stream, bytes(10_000)) for _ in range(6)))
        await asyncio.sleep(end - time.monotonic())


STALLS: dict[str, Callable[[RelayProcess, float], Awaitable[None]]] = {
    "without a window": _without_a_window,
    "octet by octet": _octet_by_octet,
    "with a full socket": _with_a_full_socket,
    "in a head": _in_a_head,
    "in a body": _in_a_body,
}


@pytest.mark.long
@pytest.mark.alone
@pytest.mark.parametrize("name", STALLS)
async def test_an_honest_caller_is_served_beside_a_stall(
    upstream_with: UpstreamWith, name: str
) -> None:
    upstream = await upstream_with(always(SMALL if name == "octet by octet" else LARGE))
    with relay_process([upstream_row("main", upstream)]) as relay:
        await honest_latencies(relay.port, 0)  # caches and buffers are there now
        before = relay.memory()
        p99 = grown = 0.0
        for _ in range(TRIES):
            end = time.monotonic() + SECONDS
            stall = asyncio.ensure_future(STALLS[name](relay, end))
            times = await honest_latencies(relay.port, end - 0.5)
            grown = relay.memory() - before
            await stall
            p99 = times[int(len(times) * 0.99)]
            if p99 <= P99_SECONDS:
                break
    assert p99 <= P99_SECONDS
    assert grown <= MAX_GROWTH
