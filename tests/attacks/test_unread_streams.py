"""Callers that do not read a large stream cost the relay little memory each."""

import asyncio
import socket
from pathlib import Path

import psutil
import pytest

from tests.durability.process import data, relay, serving, write_settings
from tests.fakes import answers
from tests.fakes.caller import BODY, connected, request
from tests.fakes.until import until
from tests.fakes.upstream import UpstreamWith, always

READERS = 20
KIB_EACH = 256
EVENT_OCTETS = 60_000
EMAIL = "ada@example.com"
STREAM = {**BODY, "stream": True}


def large_stream() -> bytes:
    events = answers.stream()
    text = {"type": "text_delta", "text": "x" * EVENT_OCTETS}
    delta = answers.event("content_block_delta", index=0, delta=text)
    return answers.chunked([*events[:4], *[delta] * 60, *events[4:]])


@pytest.mark.alone
async def test_readers_that_do_not_read_hold_256_kib_each(
    upstream_with: UpstreamWith, tmp_path: Path
) -> None:
    upstream = await upstream_with(always(large_stream()))
    write_settings(tmp_path, upstream.url)
    await asyncio.to_thread(relay, tmp_path, "user", "create", EMAIL)
    made = await asyncio.to_thread(data, tmp_path, "key", "create", "--user", EMAIL)
    octets = request(made["key"], STREAM)
    with serving(tmp_path) as running:
        process = psutil.Process(running.process.pid)
        async with connected(running.port) as (reader, writer):  # what only the first one costs
            writer.write(octets)
            await reader.readuntil(answers.LAST)
        before = process.memory_full_info().uss
        callers = []
        for _ in range(READERS):
            caller = socket.socket()
            callers.append(caller)
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            caller.connect(("127.0.0.1", running.port))
            caller.sendall(octets)
        await until(lambda: len(upstream.requests) == READERS + 1, within=10)
        await asyncio.sleep(1)
        each = (process.memory_full_info().uss - before) / READERS / 1024
        for caller in callers:
            caller.close()
    assert each <= KIB_EACH, f"{each:.0f} KiB"
