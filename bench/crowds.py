"""Rounds of many streams at once: silent ones, live ones, and the gaps between their events.

Decides how many streams a round has, over which protocol, and how it proves that none was lost:
each is read to its last event. Must not know how a rival is configured.
"""

import resource
from collections.abc import Sequence
from time import monotonic_ns

from bench.dialects import MESSAGES
from bench.headroom import check_pace
from bench.loadgen import LoadError, quantile
from bench.process import BenchError, Process, awake
from bench.rivals.rival import Rival
from bench.rounds import judged
from bench.stage import Figures, Stage, Window, request_of, stream_load
from bench.stamps import StampedLoad, closed, end, release, tick
from bench.streams import StreamLoad

FEW_IDLE = 1_000
_ANY = "tokens=1"  # not read by this upstream
_OPENINGS_S = 1_500  # streams opened in a second
_WARM_STREAMS = 20
_SETTLE_S = 1.5
_WARM_S = 0.5
_END_S = 30.0
_LIVE_PACE = 3.0  # events a second of each stream
_GAP_STREAMS = 64
_GAP_S = 0.020
# Descriptors of a process beside its streams.
_SPARE_DESCRIPTORS = 1_000


def takes_http2(streams: int) -> bool:
    """Whether so many streams fit into a proxy's descriptors only if callers share connections."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    # A proxy that keeps a reserve for itself takes fewer connections than it has descriptors.
    return 2 * streams > limit * 3 // 4 - _SPARE_DESCRIPTORS


async def idle_round(stage: Stage, rival: Rival, process: Process, streams: int = 0) -> Figures:
    """Open streams in silence: memory of each, CPU at rest, and whether all live on.

    Above the limit of descriptors the callers use HTTP/2, 16 streams a connection.
    """
    most = min(stage.settings.idle_streams, rival.most_streams or stage.settings.idle_streams)
    streams = min(streams or most, most)
    port = stage.testbeds["ticking"].port
    warm = stream_load(rival, _ANY)
    load = stream_load(rival, _ANY, http2=_http2(rival, streams))
    try:
        await _opened(warm, _WARM_STREAMS)
        await release(port)
        await warm.ended(_END_S)
        base = process.rss()
        await _opened(load, streams)
        await load.run(min(_SETTLE_S, stage.settings.seconds))
        grown = process.rss()
        window = Window(stage, process, stage.testbeds["ticking"].upstream)
        await load.run(stage.settings.seconds)
        rest = judged(rival, window.close(streams, "streams"), busy=False)
        if load.live < streams:
            raise LoadError(f"{streams - load.live} of {streams} silent streams were ended")
        await release(port)
        # A proxy that keeps silent streams alive sends events of its own.
        await load.ended(_END_S, equal=False)
        if min(load.counts) < warm.counts[0]:
            raise LoadError(f"a silent stream had {min(load.counts)} of {warm.counts[0]} events")
        return {
            "streams": load.completed,
            "stream_kib": (grown - base) / streams / 1024,
            "rest_ms_s": rest["share"] * 1e3,
        }
    finally:
        warm.close()
        load.close()
        await closed()


def _http2(rival: Rival, streams: int) -> bool:
    if not takes_http2(streams):
        return False
    if rival.http2_ports is None:
        raise BenchError(
            f"{rival.name}: {streams} streams need more than the limit of descriptors (ulimit -n)"
        )
    return True


async def _opened(load: StreamLoad, streams: int) -> None:
    """Open streams, and wait until each has had content."""
    await load.open(streams, streams / _OPENINGS_S)
    for _ in range(round(_END_S / 0.05)):
        if len(load.first_content) >= streams:
            return
        await load.run(0.05)
    raise LoadError(f"only {len(load.first_content)} of {streams} streams had content")


async def live_round(stage: Stage, rival: Rival, process: Process) -> Figures:
    """Thousands of live streams: CPU per event, gaps, and no event lost."""
    streams = min(stage.settings.live_streams, rival.most_streams or stage.settings.live_streams)
    figures = await ticking(stage, rival, process, streams, 1 / _LIVE_PACE)
    return {**figures, **rival.own_figures()}


async def gaps_round(stage: Stage, rival: Rival, process: Process) -> Figures:
    """How much longer or shorter than at the upstream the gaps between events are."""
    with awake(stage.cores, rival.folder, 2 * stage.settings.seconds + 20):
        figures = await ticking(stage, rival, process, _GAP_STREAMS, _GAP_S)
    return {name: value for name, value in figures.items() if name.startswith("gap_")}


async def ticking(
    stage: Stage, rival: Rival, process: Process, streams: int, interval: float
) -> Figures:
    """So many streams, each with an event in every interval, all read to their end."""
    seconds = stage.settings.seconds
    testbed = stage.testbeds["ticking"]
    payload = request_of(rival, MESSAGES, rival.sse_port, _ANY, stream=True)
    stamped = StampedLoad(rival.sse_port, payload)
    load = stream_load(rival, _ANY, http2=True) if _http2(rival, streams) else stamped
    try:
        await _opened(load, streams)
        await load.run(_WARM_S)
        before = load.events
        # Streams go on until they are ended, however long the window takes on a busy machine.
        await tick(testbed.port, interval)
        await load.run(min(_WARM_S, seconds))
        done = load.events
        stamped.since = monotonic_ns()
        window = Window(stage, process, testbed.upstream)
        await load.run(seconds)
        stamped.until = monotonic_ns()
        figures = judged(rival, window.close(load.events - done, "events"), busy=False)
        check_pace(figures, streams / interval)
        figures["rss_mib"] = process.rss() / 2**20  # while all are open
        if load.completed:
            raise LoadError(f"{load.completed} streams were ended before the upstream ended them")
        sent = await end(testbed.port)
        # A proxy that keeps silent streams alive sends events of its own.
        await load.ended(_END_S, equal=False)
        came = stamped.stamps if load is stamped else load.events - before
        if came < sent:
            raise LoadError(f"{sent - came} of {sent} events were lost")
        return figures | {"streams": load.completed} | _gaps(stamped.gaps)
    finally:
        load.close()
        await closed()


def _gaps(gaps: Sequence[int]) -> Figures:
    if not gaps:
        return {}
    return {
        "gap_p50_us": quantile(gaps, 0.50) / 1e3,
        "gap_p99_us": quantile(gaps, 0.99) / 1e3,
        "gap_max_us": max(gaps) / 1e3,
    }
