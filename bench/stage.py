"""What stands ready for a round, and how a round reads costs off it.

Decides how a fresh process is begun and explained when it fails, what the upstream itself says
to a request (so that a rival's answer can be held against it), and what is charged to whom
between two moments. Must not know which scenarios there are.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from bench.dialects import MESSAGES, Dialect
from bench.loadgen import JsonLoad, LoadError
from bench.process import BenchError, Cores, Process, busy_ns
from bench.rivals import UPSTREAM_KEY, Rival
from bench.streams import StreamLoad

Figures = dict[str, float]
Results = dict[str, dict[str, list[Figures]]]

# About 500 bytes of JSON in the answer.
JSON_ANSWER = "tokens=40"
_WHOLE_S = 60.0


@dataclass(frozen=True, slots=True)
class Settings:
    """How long and how much."""

    rounds: int = 3
    seconds: float = 5.0
    connections: int = 64
    streams: int = 300
    pace: float = 25.0


@dataclass(slots=True)
class Stage:
    """Everything that stands ready for a round."""

    settings: Settings
    cores: Cores
    upstream: Process
    upstream_port: int
    rivals: list[Rival]
    # Who answers in `json`, and the rivals in front of it; see `replay`.
    json_upstream: Process
    json_rivals: list[Rival]
    told: Callable[[str, int, str, Figures], None]
    results: Results = field(default_factory=dict)
    # Events and text of streams that were read in full, by dialect and script.
    streams: dict[tuple[str, str], tuple[int, str]] = field(default_factory=dict)
    whole: str = ""

    @contextmanager
    def running(self, rival: Rival) -> Iterator[Process]:
        """A fresh process of this rival; its last words explain a failure."""
        process, _ = rival.start(self.cores.proxy)
        with process:
            try:
                yield process
            except LoadError as error:
                raise explained(rival, process, error) from None

    async def events_of(
        self, simulate: str, rival: Rival | None = None, dialect: Dialect = MESSAGES
    ) -> int:
        """How many events such a stream has.

        That of the upstream's own dialect is asked from the upstream itself; another one from
        the rival that makes it, which has to say the same.
        """
        key = simulate.partition(";")[0]
        if (MESSAGES.name, key) not in self.streams:
            port = self.upstream_port
            payload = MESSAGES.request(port, UPSTREAM_KEY, key, stream=True)
            try:
                self.streams[MESSAGES.name, key] = await _read_whole(StreamLoad(port, payload))
            except LoadError as error:
                raise BenchError(f"the upstream alone is wrong already: {error}") from None
        if (dialect.name, key) not in self.streams:
            assert rival is not None
            made = await _read_whole(stream_load(rival, key, dialect))
            if made[1] != self.streams[MESSAGES.name, key][1]:
                raise LoadError(f"a stream says something else than the upstream: {made[1][:200]}")
            self.streams[dialect.name, key] = made
        return self.streams[dialect.name, key][0]

    async def said(self) -> str:
        """What the upstream says in a whole answer."""
        if not self.whole:
            self.whole = (await record(self.upstream_port)).said
        return self.whole


class Window:
    """Time, CPU and work between two moments."""

    def __init__(self, cores: Cores, process: Process, upstream: Process) -> None:
        self._cores = cores
        self._process = process
        self._upstream = upstream
        self._before = self._read()

    def close(self, work: int, unit: str) -> Figures:
        """Costs per piece of work; `others…` is what strangers took of either core."""
        if work <= 0:
            raise BenchError(f"no {unit} in a whole round")
        then, now = self._before, self._read()
        wall, proxy, upstream, load, *cores = (
            after - before for before, after in zip(then, now, strict=True)
        )
        share = proxy / wall
        return {
            "cpu_us": proxy / work / 1e3,
            f"{unit}_s": work / wall * 1e9,
            "share": share,
            "others": _others(cores[0], cores[1], share),
            "others_load": _others(cores[2], cores[3], (load + upstream) / wall),
            "load_us": load / work / 1e3,
            "upstream_us": upstream / work / 1e3,
        }

    def _read(self) -> tuple[int, ...]:
        return (
            time.perf_counter_ns(),
            self._process.cpu_ns(),
            self._upstream.cpu_ns(),
            time.process_time_ns(),
            *busy_ns(self._cores.proxy),
            *busy_ns(self._cores.load),
        )


def _others(busy: int, total: int, ours: float) -> float:
    return max(0.0, busy / total - ours) if total else 0.0


def json_load(rival: Rival, dialect: Dialect = MESSAGES) -> JsonLoad:
    """The clients of whole answers, not connected yet."""
    port = rival.json_port
    payload = dialect.request(port, rival.key, JSON_ANSWER, stream=False)
    return JsonLoad(port, payload, dialect)


def stream_load(rival: Rival, simulate: str, dialect: Dialect = MESSAGES) -> StreamLoad:
    """The clients of streams, none begun yet."""
    port = rival.sse_port
    return StreamLoad(port, dialect.request(port, rival.key, simulate, stream=True), dialect)


async def record(port: int) -> JsonLoad:
    """One JSON answer of the upstream: head and body as they came, and what it says."""
    load = JsonLoad(port, MESSAGES.request(port, UPSTREAM_KEY, JSON_ANSWER, stream=False))
    try:
        await load.open(1)
    except LoadError as error:
        raise BenchError(f"the upstream alone is wrong already: {error}") from None
    finally:
        load.close()
    return load


async def _read_whole(load: StreamLoad) -> tuple[int, str]:
    """How many events one stream has, and what it says."""
    load.kept = []
    try:
        await load.open(1)
        await load.ended(_WHOLE_S)
        return load.counts[0], load.said()
    finally:
        load.close()


def explained(rival: Rival, process: Process, error: LoadError) -> BenchError:
    state = "" if process.running() else f" ({rival.name} is no longer running)"
    tail = process.tail()
    return BenchError(f"{rival.name}: {error}{state}" + (f"\n{tail}" if tail else ""))
