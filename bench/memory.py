"""Rounds of memory: a process at rest, live streams, idle connections, slow readers.

Decides between which two moments resident memory is compared. Every round needs a process that
has served nothing before, since freed memory is seldom given back to the system. Must not know
how a rival is configured, in which order rounds run, or how figures are summed up.
"""

import asyncio
import time
from collections.abc import Sequence

from bench.bodies import octets
from bench.dialects import MESSAGES, Dialect
from bench.loadgen import LoadError
from bench.process import BenchError, Process
from bench.rivals.rival import Rival
from bench.rounds import STREAM_OPEN_S, expect_events
from bench.stage import Figures, Stage, json_load, stream_load
from bench.streams import StreamLoad

_HELD_ANSWER = "tokens=1"  # not read by the upstream that holds streams open
_HELD_WARM_S = 0.3
_HELD_INTERVAL_S = 0.01  # between the openings of few streams
_CLOSE_S = 0.2
# Ends before the first keep-alive of a relay, which comes after 8 s of silence or more.
_HELD_SETTLE_S = 1.5
_HELD_OPEN_TIMEOUT_S = 30.0
_IDLE_BEFORE = 1000  # connections that are open at the first reading
_IDLE_CONNECTIONS = 3000  # and further ones at the second
_IDLE_STEP = 20
_MEMORY_STREAM_S = 3.0
_SLOW_S = 3.0
_SLOW_READERS = 4
_SLOW_RECEIVE_BUFFER = 64 * 1024
# More than the kernel buffers between the upstream and a client that does not read.
_SLOW_ANSWER = "tokens=120000"
_SLOW_DRAIN_S = 60.0


async def memory_round(stage: Stage, rival: Rival, process: Process) -> Figures:
    """Memory of a fresh process, and the growth for each live stream."""
    settings = stage.settings
    streams = stage.streams_at_once(rival)
    pace = f"tokens={round(_MEMORY_STREAM_S * settings.pace)};pace={settings.pace:g}"
    expected = await stage.events_of(pace)
    stage.script(rival, pace)
    await _warm(rival)
    base = process.rss()
    load = stream_load(rival, pace)
    try:
        await load.open(streams, STREAM_OPEN_S)
        await load.run(_MEMORY_STREAM_S / 3)
        live, grown = load.live, process.rss()
        if live < streams:
            raise LoadError(f"only {live} of {streams} streams were live together")
        await load.ended(_MEMORY_STREAM_S + 10.0)
        expect_events(load, expected)
    finally:
        load.close()
    return {"base_mib": base / 2**20, "stream_kib": (grown - base) / live / 1024}


async def body_memory_round(
    stage: Stage, rival: Rival, process: Process, size: str, dialect: Dialect = MESSAGES
) -> Figures:
    """Growth for each live stream whose request had a body of `size`.

    The upstream has sent some content, so no retry can need the body any more. Then it is
    silent, and holds all streams open.
    """
    streams = stage.streams_at_once(rival)
    warm = stream_load(rival, _HELD_ANSWER, dialect)
    load = stream_load(rival, _HELD_ANSWER, dialect, octets(size))
    try:
        await _open_held(warm, 1)
        warm.close()
        await load.run(_HELD_WARM_S)
        base = process.rss()
        await _open_held(load, streams)
        await load.run(min(_HELD_SETTLE_S, stage.settings.seconds))
        return {f"body_{size}_kib": (process.rss() - base) / streams / 1024}
    finally:
        warm.close()
        load.close()
        # The sockets close when the loop runs next; open streams would delay the proxy's end.
        await asyncio.sleep(_CLOSE_S)


def body_differences(figures: Figures, sizes: Sequence[str]) -> Figures:
    """Growth for each larger body beyond that for the smallest one."""
    small = figures[f"body_{sizes[0]}_kib"]
    return {f"body_{size}_more_kib": figures[f"body_{size}_kib"] - small for size in sizes[1:]}


async def _open_held(load: StreamLoad, streams: int) -> None:
    """Open streams, and wait until each has had content."""
    await load.open(streams, min(STREAM_OPEN_S, (streams - 1) * _HELD_INTERVAL_S))
    deadline = time.monotonic() + _HELD_OPEN_TIMEOUT_S
    while len(load.first_content) < streams:
        if time.monotonic() > deadline:
            raise LoadError(f"only {len(load.first_content)} of {streams} streams had content")
        await load.run(0.05)


async def idle_round(stage: Stage, rival: Rival, process: Process) -> Figures:
    """Memory of a keep-alive connection between two requests."""
    await _warm(rival)
    load = json_load(rival)
    try:
        # Upstream connections, and what a process gathers in its first requests, are not counted.
        for _ in range(_IDLE_BEFORE // _IDLE_STEP):
            await load.open(_IDLE_STEP)
        base = process.rss()
        for _ in range(_IDLE_CONNECTIONS // _IDLE_STEP):
            await load.open(_IDLE_STEP)
        return {"idle_kib": (process.rss() - base) / _IDLE_CONNECTIONS / 1024}
    finally:
        load.close()


async def slow_round(stage: Stage, rival: Rival, process: Process) -> Figures:
    """Growth for a client that does not read, once the upstream has sent all that it can.

    There are several clients, since a single buffer may fit into memory that was freed before.
    The peak includes the buffers that any stream at full speed needs for a moment.
    """
    expected = await stage.events_of(_SLOW_ANSWER)
    stage.script(rival, _SLOW_ANSWER)
    warm, load = stream_load(rival, _SLOW_ANSWER), stream_load(rival, _SLOW_ANSWER)
    try:
        # A stream read at full speed comes first: its buffers belong to the base.
        await warm.open(1)
        await warm.ended(_SLOW_DRAIN_S)
        base = grown = peak = process.rss()
        clients = [await load.open_slow(_SLOW_RECEIVE_BUFFER) for _ in range(_SLOW_READERS)]
        until = time.monotonic() + _SLOW_S
        while time.monotonic() < until:
            await load.run(0.05)
            grown = process.rss()
            peak = max(peak, grown)
        if load.events:
            raise BenchError("a slow reader has read: this round shows nothing")
        for client in clients:
            client.resume()
        await load.ended(_SLOW_DRAIN_S)
        expect_events(load, expected)
        return {
            "growth_kib": (grown - base) / _SLOW_READERS / 1024,
            "peak_kib": (peak - base) / _SLOW_READERS / 1024,
            "stream_mib": load.stream_bytes / _SLOW_READERS / 2**20,
        }
    finally:
        warm.close()
        load.close()


async def _warm(rival: Rival) -> None:
    """One answer and one stream: code that is loaded at first use belongs to the base."""
    load = json_load(rival)
    streams = stream_load(rival, "tokens=20")
    try:
        await load.open(1)
        await streams.open(1)
        await streams.ended(10.0)
    finally:
        load.close()
        streams.close()
