"""The memory of idle HTTP/2 connections."""

import asyncio
import gc
import socket

import psutil
import pytest
from hpack import Encoder

from relay.net.http2 import Http2Connection
from relay.wire.h2.frames import HEADERS, PREFACE, SETTINGS, frame
from tests.fakes.http2 import get
from tests.fakes.live import Live

CONNECTIONS = 500
MAX_OCTETS = 24 * 1024  # of resident memory for each, both ends of its socket in this process


async def _used(port: int) -> socket.socket:
    """A connection that has had one answer, and waits."""
    loop = asyncio.get_running_loop()
    caller = socket.socket()
    caller.setblocking(False)
    await loop.sock_connect(caller, ("127.0.0.1", port))
    block = Encoder().encode([*get(), ("user-agent", "x" * 40), ("x-api-key", "y" * 50)])
    await loop.sock_sendall(
        caller, PREFACE + frame(SETTINGS, 0, 0, b"") + frame(HEADERS, 5, 1, block)
    )
    octets = b""
    while b"ok\n" not in octets:
        octets += await loop.sock_recv(caller, 4096)
    return caller


@pytest.mark.alone
async def test_an_idle_connection_takes_24_kib_at_most(live: Live) -> None:
    callers = [await _used(live.port) for _ in range(20)]
    gc.collect()
    before = psutil.Process().memory_info().rss
    callers += [await _used(live.port) for _ in range(CONNECTIONS)]
    gc.collect()
    grown = psutil.Process().memory_info().rss - before
    assert sum(isinstance(one, Http2Connection) for one in live.app.server.connections) == 520
    for caller in callers:
        caller.close()
    assert grown / CONNECTIONS <= MAX_OCTETS, f"{grown / CONNECTIONS:.0f} octets"
