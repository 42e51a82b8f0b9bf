"""SIGTERM with many streams in flight, over HTTP/1.1 and HTTP/2: each ends as it was sent."""

import asyncio
import re
import time
from pathlib import Path

import pytest

from relay.wire.h2.frames import NO_ERROR
from tests.fakes.caller import BODY, read_answer, read_head, request
from tests.fakes.http2 import Http2Caller, body, http2_caller, post
from tests.handover.relays import Relays, balanced

from .process import serving

LARGEST_STREAM = 2**31 - 1
SCRIPT = "tokens=40;pace=20;seed=same"  # for two seconds


def without_ids(stream: bytes) -> bytes:
    """A stream with its message's id, which counts requests, replaced."""
    return re.sub(rb'"msg_01[0-9a-f]+"', b'"msg_01"', stream)


async def sent_by(port: int) -> bytes:
    """The stream that the simulator sends by `SCRIPT`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    script = f"x-simulate: {SCRIPT.replace('pace=20', 'pace=0')}\r\n"
    writer.write(request("sim-key", {**BODY, "stream": True}, fields=script))
    status, _, payload = await read_answer(reader)
    writer.close()
    assert status == 200
    return without_ids(payload)


async def read_http1(port: int, key: str, started: asyncio.Semaphore) -> bytes:
    """Read one stream over HTTP/1.1 to its end, and the end of its connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request(key, {**BODY, "stream": True}, fields=f"x-simulate: {SCRIPT}\r\n"))
    status, _ = await read_head(reader)
    assert status == 200
    started.release()
    payload = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        payload += (await reader.readexactly(size + 2))[:-2]
    assert await reader.read(-1) == b"\r\n"
    writer.close()
    return without_ids(payload)


async def read_http2(caller: Http2Caller, key: str, started: asyncio.Semaphore) -> bytes:
    """Read one stream of a connection over HTTP/2 to its end."""
    stream = caller.request(post(key, ("x-simulate", SCRIPT)), body(stream=True))
    assert (await caller.octets(stream, 0, wait=20)).status == 200
    started.release()
    reply = await caller.answer(stream, wait=60)
    assert (reply.complete, reply.reset) == (True, None)
    return without_ids(reply.payload)


async def drain(home: tuple[Path, str], simulator: str, streams: int) -> None:
    folder, key = home
    expected = await sent_by(int(simulator.rpartition(":")[2]))
    with serving(folder) as running:
        started = asyncio.Semaphore(0)
        half = streams // 2
        async with (
            http2_caller(running.port) as one,
            http2_caller(running.port) as other,
            asyncio.TaskGroup() as group,
        ):
            tasks = [group.create_task(read_http1(running.port, key, started)) for _ in range(half)]
            for number in range(half):
                caller = (one, other)[number % 2]
                tasks.append(group.create_task(read_http2(caller, key, started)))
            for _ in range(streams):
                await started.acquire()
            assert not any(task.done() for task in tasks)
            running.signal()
            await asyncio.gather(*tasks)
            last = time.monotonic()
            for caller in (one, other):
                await caller.ended()
                goaways = [(goaway.last_stream_id, goaway.error_code) for goaway in caller.goaways]
                assert goaways[0] == (LARGEST_STREAM, NO_ERROR)
                assert goaways[-1] == (half - 1, NO_ERROR)  # its last of half/2 streams
        assert await running.exited(5) == 0
        took = time.monotonic() - last
    assert [task.result() == expected for task in tasks] == [True] * streams
    outcomes = [(line["status"], line["outcome"]) for line in running.log()[-streams:]]
    assert outcomes == [(200, "whole")] * streams
    balanced(Relays(folder), streams)
    print(f"{streams} streams of {len(expected)} octets; ended {took:.2f} s after the last")
    assert took < 1


async def test_streams_of_both_protocols_end_byte_for_byte(
    metered: tuple[Path, str], simulator: str
) -> None:
    await drain(metered, simulator, 20)


@pytest.mark.long
async def test_two_hundred_streams_end_byte_for_byte(
    metered: tuple[Path, str], simulator: str
) -> None:
    await drain(metered, simulator, 200)
