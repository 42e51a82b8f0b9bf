"""Upstreams, rivals and settings that a round finds ready, and how it reads costs.

Decides which process a round gets and how its failure is explained, which answer of the upstream
a rival's answer is compared with, and which costs between two moments belong to which process.
Must not know which scenarios there are.
"""

import asyncio
import resource
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Literal

from bench.certificate import trusting
from bench.dialects import MESSAGES, Dialect
from bench.headroom import LimitedError, check_core
from bench.http2 import Http2JsonLoad, Http2StreamLoad
from bench.loadgen import JsonLoad, LoadError
from bench.process import BenchError, Cores, NoProcess, Process, busy_ns
from bench.rivals.rival import UPSTREAM_KEY, Rival
from bench.streams import StreamLoad
from bench.upstreams import put_script

Figures = dict[str, float]
# By scenario, by rival, one entry for each round.
Results = dict[str, dict[str, list[Figures]]]
# The simulator; its JSON answer, from a program or from nginx; a short stream of it; the first
# octets of a stream, which then stays open; streams of events with their time. Before the last
# two the rivals speak TLS: an answer as "static", and the simulator.
UpstreamKind = Literal[
    "simulator", "replay", "static", "stream", "held", "ticking", "tls", "tls-sse"
]

# About 500 bytes of JSON in the answer.
JSON_ANSWER = "tokens=40"
_STREAM_END_TIMEOUT_S = 60.0
_WEIGHINGS = 5  # of a process in a window
# A stream that is held open: the start of this answer, with two events ahead of its content.
_OPENED_ANSWER = "tokens=40"
_OPENED_EVENTS = 20


class NotStartedError(BenchError):
    """A rival cannot be started: it has no figures in any scenario."""


class UpstreamError(BenchError):
    """The upstream answers wrongly without a rival: the run is worth nothing."""

    def __init__(self, error: LoadError) -> None:
        super().__init__(f"the upstream alone is wrong already: {error}")


@dataclass(frozen=True, slots=True)
class Settings:
    """Number of rounds, their length, and the size of the load."""

    rounds: int = 3
    seconds: float = 5.0
    connections: int = 32
    rate: float = 4600.0
    streams: int = 300
    pace: float = 25.0
    bodies: tuple[str, ...] = ("1k", "100k", "300k", "1m")
    idle_streams: int = 10_000
    live_streams: int = 5_000
    largest: int = 10_000_000  # of the sizes of curves
    most_others: float = 0.5  # of the proxy's core, that other processes may take


@dataclass(frozen=True, slots=True)
class Testbed:
    """An upstream, and the rivals that are configured to use it."""

    upstream: Process
    port: int
    rivals: list[Rival]


@dataclass(slots=True)
class Stage:
    """Everything that stands ready for a round."""

    settings: Settings
    cores: Cores
    testbeds: dict[UpstreamKind, Testbed]
    report_round: Callable[[str, int, str, Figures], None]
    say: Callable[[str], None] = print
    # Called with the scenario and the rival before a process starts.
    starting: Callable[[str, str], None] = lambda scenario, rival: None
    results: Results = field(default_factory=dict)
    # Events and text of streams that were read to their end, by speaker, dialect and script.
    streams: dict[tuple[str, str, str], tuple[int, str]] = field(default_factory=dict)
    json_text: str = ""
    notes: list[str] = field(default_factory=list)  # for the reader of the figures
    ready_s: float = 0.0  # until the process of this round answered
    direct: bool = False  # whether clients without a proxy are measured in every scenario
    # Why a rival has no figures in a scenario, by scenario and rival: a failure of it, and a
    # dialect that it lacks.
    refused: dict[str, dict[str, str]] = field(default_factory=dict)
    left_out: dict[str, dict[str, str]] = field(default_factory=dict)

    @contextmanager
    def running(self, rival: Rival) -> Iterator[Process]:
        """A fresh process of this rival; its last log lines explain a failure."""
        process, self.ready_s = self.start(rival)
        with process:
            try:
                yield process
            except LimitedError:
                raise
            except LoadError as error:
                raise explained(rival, process, error) from None

    def start(self, rival: Rival) -> tuple[Process, float]:
        """A process of this rival that answers, and the seconds until it did."""
        try:
            return rival.start(self.cores.proxy)
        except BenchError as error:
            raise NotStartedError(str(error)) from None

    def script(self, rival: Rival, simulate: str) -> None:
        """Let the simulator answer the rival's requests as `simulate` says.

        Most rivals carry the field that says so; the others translate or drop it.
        """
        if not rival.forwards_fields:
            put_script(self.testbeds["simulator"].port, simulate)

    def streams_at_once(self, rival: Rival) -> int:
        """The number of streams, or the smaller one that this rival can carry."""
        return min(self.settings.streams, rival.most_streams or self.settings.streams)

    async def events_of(
        self, simulate: str, rival: Rival | None = None, dialect: Dialect = MESSAGES
    ) -> int:
        """The number of events in such a stream.

        A stream in the upstream's own dialect is read from the upstream itself; in another
        dialect it is read from the rival that translates, and must have the same text.
        """
        script = simulate.partition(";")[0]
        original = ("upstream", MESSAGES.name, script)
        if original not in self.streams:
            port = self.testbeds["simulator"].port
            payload = MESSAGES.request(port, UPSTREAM_KEY, script, stream=True)
            try:
                self.streams[original] = await _read_stream(StreamLoad(port, payload))
            except LoadError as error:
                raise UpstreamError(error) from None
        if dialect is MESSAGES:
            return self.streams[original][0]
        assert rival is not None
        translated = (rival.name, dialect.name, script)
        if translated not in self.streams:
            self.script(rival, script)
            found = await _read_stream(stream_load(rival, script, dialect))
            if found[1] != self.streams[original][1]:
                raise LoadError(f"a stream has another text than the upstream: {found[1][:200]}")
            self.streams[translated] = found
        return self.streams[translated][0]

    async def stream_text(self, simulate: str) -> str:
        """The text of such a stream."""
        await self.events_of(simulate)
        return self.streams["upstream", MESSAGES.name, simulate][1]

    async def upstream_text(self) -> str:
        """The text of the upstream's JSON answer."""
        if not self.json_text:
            self.json_text = (await record(self.testbeds["simulator"].port)).text
        return self.json_text


class Window:
    """Time, CPU and work between two moments."""

    def __init__(self, stage: Stage, process: Process, upstream: Process) -> None:
        self._cores = stage.cores
        self._most_others = stage.settings.most_others
        self._process = process
        self._upstream = upstream
        self._before = self._read()
        self._after: tuple[int, ...] | None = None

    def stop(self) -> None:
        """End here, before the work is counted: counting it takes time, too."""
        self._after = self._read()

    def close(self, work: int, unit: str) -> Figures:
        """Costs per piece of work; `others…` is the share of a core that other processes took,
        `full_load` that in which the load's was busy with anything.

        Raises:
            LimitedError: other processes took too much of the proxy's core.
        """
        if work <= 0:
            raise BenchError(f"no {unit} in an entire round")
        then, now = self._before, self._after or self._read()
        wall, proxy, upstream, load, *cores = (
            after - before for before, after in zip(then, now, strict=True)
        )
        share = proxy / wall
        figures = {
            "cpu_us": proxy / work / 1e3,
            f"{unit}_s": work / wall * 1e9,
            "share": share,
            "others": _others(cores[0], cores[1], share),
            "others_load": _others(cores[2], cores[3], (load + upstream) / wall),
            "full_load": cores[2] / cores[3],
            "load_share": (load + upstream) / wall,
            "load_us": load / work / 1e3,
            "upstream_us": upstream / work / 1e3,
        }
        if not isinstance(self._process, NoProcess):
            check_core(figures, self._most_others)
        return figures

    def _read(self) -> tuple[int, ...]:
        return (
            time.perf_counter_ns(),
            self._process.cpu_ns(),
            self._upstream.cpu_ns(),
            time.process_time_ns() + _ended_children_ns(),
            *busy_ns(self._cores.proxy),
            *busy_ns(self._cores.load),
        )


@asynccontextmanager
async def weighed(process: Process, seconds: float) -> AsyncIterator[list[int]]:
    """The resident octets of the process tree at even intervals of a window so long."""
    found: list[int] = []

    async def weigh() -> None:
        while True:
            await asyncio.sleep(seconds / (_WEIGHINGS + 1))
            found.append(process.rss())

    task = asyncio.ensure_future(weigh())
    try:
        yield found
    finally:
        task.cancel()
    if not found:
        found.append(process.rss())


def _others(busy: int, total: int, ours: float) -> float:
    return max(0.0, busy / total - ours) if total else 0.0


def _ended_children_ns() -> int:
    """CPU time of the programs that sent requests and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return round((used.ru_utime + used.ru_stime) * 1e9)


def json_load(
    rival: Rival,
    dialect: Dialect = MESSAGES,
    body_size: int = 0,
    *,
    http2: bool = False,
    secure: bool = False,
) -> JsonLoad:
    """The clients of JSON answers, not connected yet; see `Dialect.request` for `body_size`."""
    port = _port(rival, 0) if http2 and not secure else rival.json_port
    payload = request_of(rival, dialect, port, JSON_ANSWER, stream=False, body_size=body_size)
    load = (Http2JsonLoad if http2 else JsonLoad)(port, payload, dialect)
    load.tls = trusting("h2" if http2 else "http/1.1") if secure else None
    return load


def stream_load(
    rival: Rival,
    simulate: str,
    dialect: Dialect = MESSAGES,
    body_size: int = 0,
    *,
    http2: bool = False,
    secure: bool = False,
) -> StreamLoad:
    """The clients of streams, none opened yet; see `Dialect.request` for `body_size`."""
    port = _port(rival, 1) if http2 and not secure else rival.sse_port
    payload = request_of(rival, dialect, port, simulate, stream=True, body_size=body_size)
    load = (Http2StreamLoad if http2 else StreamLoad)(port, payload, dialect)
    load.tls = trusting("h2" if http2 else "http/1.1") if secure else None
    return load


def request_of(
    rival: Rival, dialect: Dialect, port: int, simulate: str, *, stream: bool, body_size: int = 0
) -> bytes:
    """A request of the rival's callers, as octets for the socket."""
    payload = dialect.request(port, rival.key, simulate, stream=stream, body_size=body_size)
    mark = b"x-simulate: "
    return payload.replace(mark, rival.fields.encode() + mark, 1)


def _port(rival: Rival, place: int) -> int:
    assert rival.http2_ports is not None
    return rival.http2_ports[place]


def spoken(rival: Rival, dialect: Dialect) -> Dialect:
    """The dialect of a rival's callers: Messages where a plain proxy stands in `dialect`."""
    return dialect if dialect.name in rival.dialects else MESSAGES


async def record(port: int) -> JsonLoad:
    """One JSON answer of the upstream: its octets and its text."""
    load = JsonLoad(port, MESSAGES.request(port, UPSTREAM_KEY, JSON_ANSWER, stream=False))
    try:
        await load.open(1)
    except LoadError as error:
        raise UpstreamError(error) from None
    finally:
        load.close()
    return load


async def record_stream(port: int) -> bytes:
    """A stream with one piece of content."""
    load = StreamLoad(port, MESSAGES.request(port, UPSTREAM_KEY, "tokens=1", stream=True))
    await _read_stream(load)
    return load.head + _chunks(load.payloads or ()) + b"0\r\n\r\n"


async def record_opening(port: int) -> bytes:
    """The first octets of a stream of the upstream: its head, and events with some content."""
    payload = MESSAGES.request(port, UPSTREAM_KEY, _OPENED_ANSWER, stream=True)
    load = StreamLoad(port, payload)
    await _read_stream(load)
    return load.head + _chunks((load.payloads or ())[:_OPENED_EVENTS])


async def record_ends(port: int) -> tuple[bytes, bytes]:
    """The first octets of a stream of the upstream, up to some content, and its last ones."""
    load = StreamLoad(port, MESSAGES.request(port, UPSTREAM_KEY, "tokens=1", stream=True))
    await _read_stream(load)
    payloads = load.payloads or []
    after = next(at for at, event in enumerate(payloads) if MESSAGES.first.search(event)) + 1
    opening = load.head + _chunks(payloads[:after])
    return opening, _chunks(payloads[after:]) + b"0\r\n\r\n"


def _chunks(events: Sequence[bytes]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events)


async def _read_stream(load: StreamLoad) -> tuple[int, str]:
    """The number of events in one stream, and its text."""
    load.payloads = []
    try:
        await load.open(1)
        await load.ended(_STREAM_END_TIMEOUT_S)
        return load.counts[0], load.text()
    finally:
        load.close()


def explained(rival: Rival, process: Process, error: LoadError) -> BenchError:
    """The failure of a round, with the last log lines of the rival."""
    state = "" if process.running() else f" ({rival.name} is no longer running)"
    tail = process.tail()
    return BenchError(f"{rival.name}: {error}{state}" + (f"\n{tail}" if tail else ""))
