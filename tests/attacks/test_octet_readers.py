"""Callers that read a large stream octet by octet delay no honest caller beside them.

Every stream has to begin, and then to wait: the relay reads what it may of each at the same time.
"""

import asyncio
import json
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from subprocess import PIPE, Popen

import pytest
from hyperframe.frame import WindowUpdateFrame

from relay.wire.h2.frames import INITIAL_WINDOW_SIZE
from tests.attacks.honest import HonestCaller, percentile
from tests.attacks.relay_process import RelayProcess, relay_process
from tests.fakes.caller import BODY, request
from tests.fakes.http2 import http2_caller, post
from tests.fakes.live import upstream_row
from tests.scoreboard import RecordProperty

SECONDS = 2.0
READERS = 50
PAUSE_SECONDS = 0.02  # between two octets
MAX_SECONDS = 0.05  # p99 of an honest caller's gaps, and the longest turn of the loop
LARGE = json.dumps(
    {**BODY, "stream": True, "messages": [{"role": "user", "content": "a large stream"}]}
).encode()
TRIES = 3  # other processes may take the core for a moment


@pytest.fixture(scope="module")
def relay() -> Iterator[RelayProcess]:
    command = [sys.executable, "-m", "tests.attacks.large_streams"]
    with Popen(command, stdout=PIPE, text=True) as upstream:
        assert upstream.stdout is not None
        url = upstream.stdout.readline().strip()
        server = {"limits": {"connections_per_address": 0}}
        with relay_process([upstream_row("one", url)], server=server) as process:
            yield process
        upstream.kill()


async def _over_http1(relay: RelayProcess, path: str, end: float) -> None:
    loop = asyncio.get_running_loop()

    async def read() -> None:
        with socket.socket() as caller:
            caller.setblocking(False)
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            await loop.sock_connect(caller, ("127.0.0.1", relay.port))
            await loop.sock_sendall(caller, request(relay.key, LARGE, target=path))
            while time.monotonic() < end:
                assert await loop.sock_recv(caller, 1)
                await asyncio.sleep(PAUSE_SECONDS)

    async with asyncio.TaskGroup() as group:
        for _ in range(READERS):
            group.create_task(read())


async def _over_http2(relay: RelayProcess, path: str, end: float) -> None:
    """Each connection lasts until its tiny windows have used up its budget."""
    while time.monotonic() < end:
        settings = {INITIAL_WINDOW_SIZE: 0}
        async with http2_caller(relay.port, settings=settings, grants=False) as caller:
            fields = post(relay.key, path=path)
            streams = [caller.request(fields, LARGE) for _ in range(READERS)]
            assert (await caller.octets(streams[0], 0)).status == 200
            while time.monotonic() < end and not caller.closed.is_set():
                caller.send(*(WindowUpdateFrame(one, window_increment=1) for one in streams))
                await asyncio.sleep(PAUSE_SECONDS)


READ: dict[str, Callable[[RelayProcess, str, float], Awaitable[None]]] = {
    "HTTP/1.1": _over_http1,
    "HTTP/2": _over_http2,
}


@pytest.mark.alone
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions"])
@pytest.mark.parametrize("protocol", READ)
async def test_octet_readers_delay_no_other_stream(
    relay: RelayProcess, protocol: str, path: str, record_property: RecordProperty
) -> None:
    p99 = turn = 0.0
    for _ in range(TRIES):
        honest = HonestCaller(relay.port, relay.key)
        honest.start()
        await asyncio.to_thread(relay.longest_turn)
        await READ[protocol](relay, path, time.monotonic() + SECONDS)
        turn = await asyncio.to_thread(relay.longest_turn)
        assert honest.reads
        await asyncio.to_thread(honest.stop)
        assert len(honest.gaps) > 10 * SECONDS
        p99 = percentile(honest.gaps, 0.99)
        if max(p99, turn) <= MAX_SECONDS:
            break
    figure = f"p99 {p99 * 1000:.0f} ms, turn {turn * 1000:.0f} ms ({protocol} {path})"
    record_property("figure", figure)
    assert p99 <= MAX_SECONDS, figure
    assert turn <= MAX_SECONDS, figure
