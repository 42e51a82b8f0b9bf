"""Curves: how a cost grows with connections, streams, bodies, keys, rows of usage, upstreams.

Decides the sizes of each curve, the figures at each size, and how a rival is made ready for a
size. The figures of a size carry it as a suffix: `requests_s@32`. Must not know the order of
rounds.
"""

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from bench.crowds import ticking
from bench.dialects import HOST, MESSAGES
from bench.filling import TOKEN, fill_keys, fill_usage, key_of, log_in
from bench.http import answer_of
from bench.loadgen import LoadError
from bench.process import BenchError, Process
from bench.programs import INSTALLED_BY, program
from bench.rivals.nginx import Nginx
from bench.rivals.relay import PLAN, Relay
from bench.rivals.rival import Rival
from bench.rounds import judged, saturated, upstream_of_json
from bench.stage import JSON_ANSWER, Figures, Stage, UpstreamKind, Window, json_load
from bench.wrk import Wrk

_WARM_S = 0.7
_BODIES_AT_ONCE = 8
# Octets of bodies at once. A relay holds 64 MiB for one key, and those of a warm-up that has just
# ended may still be among them.
_HELD = 30_000_000
_EVENTS_S = 5_000.0  # of all streams together, at every size
_LONGEST_INTERVAL_S = 2.0
_USAGE_FIGURES = ("requests_s", "p99_us", "cpu_us")
_PAGES = {"dashboard_ms": "/dashboard", "usage_page_ms": "/dashboard/usage"}
_READS = 3  # of a page, of which the slowest counts

CurveRound = Callable[[Stage, Rival, Process, int], Awaitable[Figures]]


@dataclass(frozen=True, slots=True)
class Curve:
    """One dimension of scale."""

    sizes: tuple[int, ...]
    round: CurveRound
    upstream: Callable[[], UpstreamKind]
    grown: Callable[[Relay, str, int], Relay] | None = None  # None: any process will do
    beside_nginx: bool = False

    def is_for(self, rival: Rival) -> bool:
        return isinstance(rival, Relay) or (self.beside_nginx and isinstance(rival, Nginx))

    def up_to(self, largest: int) -> tuple[int, ...]:
        """The sizes that are measured; the smallest one always."""
        return tuple(size for size in self.sizes if size <= max(largest, self.sizes[0]))

    def at(self, size: int) -> Callable[[Stage, Rival, Process], Awaitable[Figures]]:
        """The round of a size."""
        return lambda stage, rival, process: self.round(stage, rival, process, size)

    def rival(self, rival: Rival, name: str, size: int) -> Rival:
        """The rival, ready for a size."""
        if self.grown is None or not isinstance(rival, Relay):
            return rival
        return self.grown(rival, name, size)


async def _connections(stage: Stage, rival: Rival, process: Process, size: int) -> Figures:
    """Small requests on so many connections at once."""
    load = json_load(rival)
    upstream = stage.testbeds[upstream_of_json()].upstream
    try:
        figures = await saturated(stage, rival, load, process, upstream, size)
    finally:
        load.close()
    # A few connections do not fill the proxy's core.
    return _chosen(judged(rival, figures, busy=True))


async def _streams(stage: Stage, rival: Rival, process: Process, size: int) -> Figures:
    """So many live streams, with as many events in all at every size."""
    interval = min(_LONGEST_INTERVAL_S, size / _EVENTS_S)
    base = process.rss()
    figures = await ticking(stage, rival, process, size, interval)
    kept = ("cpu_us", "events_s", "gap_p99_us")
    found = {name: figures[name] for name in kept if name in figures}
    memory = figures["rss_mib"]
    return found | {"rss_mib": memory, "more_mib": memory - base / 2**20}


async def _body(stage: Stage, rival: Rival, process: Process, size: int) -> Figures:
    """Bodies of so many octets."""
    load = json_load(rival, MESSAGES, size)
    connections = max(1, min(_BODIES_AT_ONCE, _HELD // size))
    if connections < _BODIES_AT_ONCE:
        stage.say(
            f"curve-body: {connections} connections in place of {_BODIES_AT_ONCE} at {size:,} "
            f"octets, so that {_HELD // 1_000_000} MB of bodies are under way at most"
        )
    upstream = stage.testbeds["replay"].upstream
    try:
        figures = await saturated(stage, rival, load, process, upstream, connections)
    finally:
        load.close()
    return {**_chosen(judged(rival, figures, busy=True)), "connections": connections}


async def _keys(stage: Stage, rival: Rival, process: Process, size: int) -> Figures:
    """Requests in turns by each of so many keys."""
    if program("wrk") is None:
        raise BenchError(f"this curve needs wrk ({INSTALLED_BY['wrk']})")
    ready = stage.ready_s
    load = json_load(rival)
    try:
        await load.open(1)
    finally:
        load.close()
    payload = MESSAGES.request(rival.json_port, key_of(0), JSON_ANSWER, stream=False)
    wrk = Wrk(rival.folder, rival.json_port, payload, len(load.answer))
    wrk.spread(key_of(0), [key_of(number) for number in range(size)])
    connections = stage.settings.connections
    await wrk.run(connections, _WARM_S)
    window = Window(stage, process, stage.testbeds[upstream_of_json()].upstream)
    report = await wrk.run(connections, stage.settings.seconds)
    figures = judged(rival, window.close(report.requests, "requests"), busy=True)
    figures |= {"requests_s": report.requests / report.microseconds * 1e6, "p99_us": report.p99_us}
    more = {"ready_ms": ready * 1e3, "rss_mib": process.rss() / 2**20}
    return {**_chosen(figures), **more, **rival.own_figures()}


async def _usage(stage: Stage, rival: Rival, process: Process, size: int) -> Figures:
    """Small requests on a database with so many rows, and how long its pages take."""
    assert isinstance(rival, Relay)
    ready = stage.ready_s
    found = {"ready_ms": ready * 1e3}
    for name, page in _PAGES.items():
        found[name] = await _slowest(rival, page, f"cookie: relay={TOKEN}\r\n")
    found["key_usage_ms"] = await _slowest(rival, "/v1/usage", f"x-api-key: {rival.key}\r\n")
    start = perf_counter()
    await asyncio.to_thread(rival.run, "usage")
    found["command_ms"] = (perf_counter() - start) * 1e3
    figures = await _connections(stage, rival, process, stage.settings.connections)
    return {**figures, **found, **rival.own_figures()}


async def _slowest(rival: Rival, target: str, fields: str) -> float:
    slowest = 0.0
    for _ in range(_READS):
        start = perf_counter()
        body = await answer_of(HOST, rival.json_port, target, fields)
        slowest = max(slowest, perf_counter() - start)
        if not body:
            raise LoadError(f"{target} is empty")
    return slowest * 1e3


async def _upstreams(stage: Stage, rival: Rival, process: Process, size: int) -> Figures:
    """Small requests shared among so many upstreams."""
    return await _connections(stage, rival, process, stage.settings.connections)


def _chosen(figures: Figures) -> Figures:
    return {name: figures[name] for name in _USAGE_FIGURES if name in figures}


def _with_upstreams(rival: Relay, name: str, size: int) -> Relay:
    return Relay(_folder(rival, f"{name}-{size}"), rival.upstream, size, rival.build)


def _with_keys(rival: Relay, name: str, size: int) -> Relay:
    return _filled(rival, name, size, lambda path: fill_keys(path, size, PLAN))


def _with_usage(rival: Relay, name: str, size: int) -> Relay:
    def fill(path: Path) -> None:
        fill_usage(path, size)
        log_in(path)

    return _filled(rival, name, size, fill)


def _filled(rival: Relay, name: str, size: int, fill: Callable[[Path], None]) -> Relay:
    """A relay with a copy of the database that `fill` makes once."""
    folder = _folder(rival, f"{name}-{size}")
    filled = folder / "filled.db"
    if not filled.exists():
        grown = Relay(folder, rival.upstream, rival.upstreams, rival.build)
        shutil.move(grown.database, filled)
        fill(filled)
        rival.grown[folder.name] = grown
    grown = rival.grown[folder.name]
    for path in folder.glob("relay.db*"):
        if path.is_file():
            path.unlink()
    shutil.copyfile(filled, grown.database)
    return grown


def _folder(rival: Relay, name: str) -> Path:
    return rival.folder.with_name(f"{rival.folder.name}-{name}")


def _ticking() -> UpstreamKind:
    return "ticking"


def _replay() -> UpstreamKind:
    return "replay"


CURVES = {
    "curve-connections": Curve(
        (1, 8, 32, 128, 512, 2_000), _connections, upstream_of_json, beside_nginx=True
    ),
    "curve-streams": Curve((10, 100, 1_000, 3_000, 10_000), _streams, _ticking, beside_nginx=True),
    "curve-body": Curve(
        (1_000, 10_000, 100_000, 1_000_000, 10_000_000), _body, _replay, beside_nginx=True
    ),
    "curve-keys": Curve((1, 100, 1_000, 10_000, 100_000), _keys, upstream_of_json, _with_keys),
    "curve-usage": Curve(
        (0, 10_000, 100_000, 1_000_000, 10_000_000), _usage, upstream_of_json, _with_usage
    ),
    "curve-upstreams": Curve((1, 2, 5, 10, 25, 50), _upstreams, upstream_of_json, _with_upstreams),
}
