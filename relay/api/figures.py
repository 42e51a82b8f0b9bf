"""The figures of one process as plain values, and those of several processes as one.

Counters add up, and those of a process that has ended are kept. Gauges add up over the processes
that run; of lags the longest stands. Values go from process to process as octets, in pieces that
hold a loop for less than a millisecond each.

Decides how each figure is added up. Must not know where a figure is counted, nor how it is shown.
"""

from collections.abc import Callable, Iterable, Iterator
from operator import add
from typing import Final, TypeVar

import msgspec

from relay.gateway.request_metrics import RequestMetrics, Series
from relay.telemetry.histogram import REQUEST_BOUNDS, SHARE_BOUNDS, Histogram

PIECE: Final = 250  # series that are read, or decoded, in one go

_Labels = tuple[str, str, str]
_Name = TypeVar("_Name", str, int)
_One = TypeVar("_One")


class Durations(msgspec.Struct, array_like=True):
    """A histogram: the counts of its buckets, and the sum in microseconds."""

    counts: list[int]
    total: int = 0

    @classmethod
    def read(cls, histogram: Histogram) -> "Durations":
        """Copy a histogram."""
        return cls(histogram.counts.copy(), histogram.total)

    @classmethod
    def none(cls, bounds: tuple[int, ...]) -> "Durations":
        """No durations."""
        return cls([0] * (len(bounds) + 1))

    def add(self, other: "Durations") -> None:
        """Add those of another process."""
        self.counts = list(map(add, self.counts, other.counts))
        self.total += other.total

    @property
    def number(self) -> int:
        """Number of durations."""
        return sum(self.counts)


class SeriesFigures(msgspec.Struct, array_like=True):
    """The counts of one endpoint, model and upstream; see `gateway.request_metrics.Series`."""

    endpoint: str
    model: str
    upstream: str
    by_status: list[int]
    completed: int
    other_outcomes: dict[str, int]
    input: int
    output: int
    cache_read: int
    cache_write: int
    cost: int
    durations: Durations
    first_events: Durations

    @classmethod
    def read(cls, one: Series) -> "SeriesFigures":
        """Copy a series."""
        return cls(
            one.endpoint, one.model, one.upstream, one.by_status.copy(), one.completed,
            dict(one.other_outcomes), one.input, one.output, one.cache_read, one.cache_write,
            one.cost, Durations.read(one.durations), Durations.read(one.first_events),
        )  # fmt: skip

    @property
    def labels(self) -> _Labels:
        """Endpoint, model and upstream."""
        return self.endpoint, self.model, self.upstream

    def add(self, other: "SeriesFigures") -> None:
        """Add those of another process."""
        self.by_status = list(map(add, self.by_status, other.by_status))
        self.completed += other.completed
        _add_counts(self.other_outcomes, other.other_outcomes)
        self.input += other.input
        self.output += other.output
        self.cache_read += other.cache_read
        self.cache_write += other.cache_write
        self.cost += other.cost
        self.durations.add(other.durations)
        self.first_events.add(other.first_events)


class UpstreamFigures(msgspec.Struct, array_like=True):
    """What one process counts of an upstream. The last two are of the present."""

    name: str
    requests: int = 0
    answered: int = 0
    other_model: int = 0
    opened: int = 0  # connections
    in_flight: int = 0
    idle: int = 0  # connections

    def add(self, other: "UpstreamFigures") -> None:
        """Add those of another process."""
        self.requests += other.requests
        self.answered += other.answered
        self.other_model += other.other_model
        self.opened += other.opened
        self.in_flight += other.in_flight
        self.idle += other.idle


class Figures(msgspec.Struct):
    """What one process has counted, or several together.

    Counts of requests and connections, octets, seconds for lags. `processes`: the number of those
    that run. `shed_share` is the sum of their shares.
    """

    pid: int = 0
    series: list[SeriesFigures] = []
    upstreams: list[UpstreamFigures] = []
    own_share: Durations = msgspec.field(default_factory=lambda: Durations.none(SHARE_BOUNDS))
    waits: Durations = msgspec.field(default_factory=lambda: Durations.none(REQUEST_BOUNDS))
    loop_lag: Durations = msgspec.field(default_factory=lambda: Durations.none(SHARE_BOUNDS))
    refusals: dict[str, int] = {}
    rejected: dict[int, int] = {}
    # counters
    shed: int = 0
    refused_connections: int = 0
    log_dropped: int = 0
    traces_sent: int = 0
    traces_dropped: int = 0
    # gauges
    processes: int = 0
    relayed: int = 0  # requests of the API in flight
    in_flight: int = 0
    in_flight_limit: int = 0
    shed_share: float = 0.0
    waiting: int = 0
    connections: int = 0
    connections_limit: int = 0
    silent_connections: int = 0
    handshakes: int = 0
    held: int = 0
    held_limit: int = 0
    accepting: int = 0
    draining: int = 0
    # lags
    latest_lag: float = 0.0
    longest_lag: float = 0.0


_COUNTERS: Final = (
    "shed", "refused_connections", "log_dropped", "traces_sent", "traces_dropped",
)  # fmt: skip
_GAUGES: Final = (
    "processes", "relayed", "in_flight", "in_flight_limit", "shed_share", "waiting", "connections",
    "connections_limit", "silent_connections", "handshakes", "held", "held_limit", "accepting",
    "draining",
)  # fmt: skip
_LAGS: Final = ("latest_lag", "longest_lag")
_DURATIONS: Final = ("own_share", "waits", "loop_lag")


def _add_counts(sums: dict[_Name, int], counts: dict[_Name, int]) -> None:
    for name, count in counts.items():
        sums[name] = sums.get(name, 0) + count


def merged(parts: Iterable[Figures], pause: Callable[[], None] = lambda: None) -> Figures:
    """The figures of several processes as one; `parts` are used up.

    `pause` is called about once a millisecond of work: on a thread it lets the loop have a turn.
    """
    total = Figures()
    series: dict[_Labels, SeriesFigures] = {}
    upstreams: dict[str, UpstreamFigures] = {}
    for part in parts:
        for name in (*_COUNTERS, *_GAUGES):
            setattr(total, name, getattr(total, name) + getattr(part, name))
        for name in _LAGS:
            setattr(total, name, max(getattr(total, name), getattr(part, name)))
        for name in _DURATIONS:
            getattr(total, name).add(getattr(part, name))
        _add_counts(total.refusals, part.refusals)
        _add_counts(total.rejected, part.rejected)
        for upstream in part.upstreams:
            if (known := upstreams.setdefault(upstream.name, upstream)) is not upstream:
                known.add(upstream)
        for number, one in enumerate(part.series, 1):
            if (sums := series.setdefault(one.labels, one)) is not one:
                sums.add(one)
            if number % PIECE == 0:
                pause()
    total.series, total.upstreams = list(series.values()), list(upstreams.values())
    return total


def ended(figures: Figures) -> Figures:
    """What is left of a process that has ended: its counters."""
    for name in (*_GAUGES, *_LAGS):
        setattr(figures, name, 0)
    for upstream in figures.upstreams:
        upstream.in_flight = upstream.idle = 0
    return figures


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Figures).decode
_decode_series: Final = msgspec.msgpack.Decoder(list[SeriesFigures]).decode


def encode(figures: Figures) -> bytes:
    """Figures without their series as octets."""
    return _encode(msgspec.structs.replace(figures, series=[]))


def encode_series(series: list[SeriesFigures]) -> bytes:
    """A piece of the series as octets."""
    return _encode(series)


def encode_all(figures: Figures) -> list[bytes]:
    """The octets of `encode`, then those of `encode_series` for each piece."""
    return [encode(figures), *map(encode_series, _split(figures.series))]


def decode(octets: bytes) -> Figures:
    """The reverse of `encode`.

    Raises:
        msgspec.DecodeError: they are none.
    """
    return _decode(octets)


def decode_all(pieces: list[bytes], pause: Callable[[], None] = lambda: None) -> Figures:
    """The reverse of `encode_all`. For `pause` see `merged`.

    Raises:
        msgspec.DecodeError: they are none.
    """
    figures = _decode(pieces[0])
    for piece in pieces[1:]:
        figures.series += _decode_series(piece)
        pause()
    return figures


def read_requests(requests: RequestMetrics, figures: Figures) -> None:
    """Copy the counts of a process's requests, all but its series."""
    figures.own_share = Durations.read(requests.own_share)
    figures.waits = Durations.read(requests.waits)
    figures.refusals = dict(requests.refusals)
    figures.rejected = dict(requests.rejected)


def read_series(requests: RequestMetrics) -> Iterator[list[SeriesFigures]]:
    """The series of a process, in pieces; each series is of the moment when it is taken."""
    for piece in _split(requests.series()):
        yield [SeriesFigures.read(one) for one in piece]


def _split(series: list[_One]) -> Iterator[list[_One]]:
    for at in range(0, len(series), PIECE):
        yield series[at : at + PIECE]
