"""The running relay in figures: metric families for Prometheus, read from its parts at a scrape.

Nothing here is counted for a scrape's sake: each part has its own counters. Labels are names of the
settings, classes of status codes and words of this code; never an account, a key or a text of a
caller.

Decides the names of the metrics. Must not know how they are rendered.
"""

import asyncio
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from relay import __version__
from relay.clock import rfc3339
from relay.gateway.authentication import KeyIndex
from relay.gateway.load import Load
from relay.gateway.request_metrics import RequestMetrics, Series
from relay.gateway.traces import RequestTraces
from relay.net.descriptors import descriptor_limits
from relay.net.server import Server
from relay.pool.leases import Upstreams
from relay.pool.upstream import Upstream
from relay.quota.ledger import Ledger
from relay.store.journal import Journal
from relay.telemetry.access_log import AccessLog
from relay.telemetry.exposition import (
    AnyFamily,
    Family,
    HistogramFamily,
    counter,
    gauge,
    render,
)
from relay.telemetry.loop_lag import LoopLag

_SERIES_LABELS: Final = ("endpoint", "model", "upstream")
_STATES: Final = ("ok", "strained", "cooling", "down", "probing", "paused")
_SHOWN_LIMITS: Final = 12
_LATENCY_FIELDS: Final = ("requests", "seconds", "streams", "first_seconds")
_DATABASE_FILES: Final = {"database": "", "wal": "-wal"}

CertificateDates = Callable[[], Mapping[str, float]]
"""Name of each certificate → the end of its validity, epoch seconds. Must not wait."""


def no_certificates() -> Mapping[str, float]:
    """The dates where the relay has no certificates of its own."""
    return {}


@dataclass(slots=True)
class Parts:
    """The parts of a relay that a monitor reads."""

    requests: RequestMetrics
    load: Load
    upstreams: Upstreams
    server: Server
    journal: Journal
    loop_lag: LoopLag
    ledger: Ledger
    keys: KeyIndex
    log: AccessLog | None
    traces: RequestTraces | None = None
    certificates: CertificateDates = no_certificates
    started_at: float = field(default_factory=time.time)


class Monitor:
    """Reads a relay's parts."""

    def __init__(self, parts: Parts, database: str) -> None:
        """`database` is its path."""
        self._database = database
        self._parts = parts
        self.upstreams = parts.upstreams

    def status(self) -> dict[str, object]:
        """The present state, in the shape of `relay top --json`."""
        parts = self._parts
        series = parts.requests.series()
        by_code = [sum(one.by_status[digit] for one in series) for digit in range(6)]
        return {
            "version": __version__,
            "now": time.time(),
            "started_at": parts.started_at,
            "requests": sum(one.durations.counts_total for one in series),
            "by_code": {f"{digit}xx": by_code[digit] for digit in range(2, 6)},
            "in_flight": parts.load.in_flight,
            "in_flight_limit": parts.load.max_in_flight,
            "shed": parts.load.shed,
            "waiting": parts.upstreams.waiting,
            "connections": len(parts.server.connections),
            "descriptor_limits": descriptor_limits(),  # soft and hard
            "held_bytes": parts.server.budget.held,
            "loop_lag_seconds": parts.loop_lag.latest,
            "journal": {
                "healthy": parts.journal.healthy,
                "failure": parts.journal.failure,
                "unwritten": parts.journal.unwritten,
            },
            "latencies": _latencies(series),
            "limits": self._tightest(),
        }

    def _tightest(self) -> list[dict[str, object]]:
        """The keys that have used most of a limit."""
        parts = self._parts
        rows = parts.ledger.tightest(time.time(), _SHOWN_LIMITS)
        emails = parts.keys.emails({state.key for state, _, _ in rows})
        return [
            {
                "key": state.key,
                "account": emails[state.key],
                "plan": state.plan.name,
                "limit": limit.name,
                "used": round(share, 3),
                "reset": rfc3339(limit.reset),
            }
            for state, limit, share in rows
            if state.key in emails  # neither a revoked key nor an upstream's own plan
        ]

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        """The metrics as text, and its content type. The values are of one moment; the text is
        written on a thread."""
        work = partial(_render, list(self._families()), self._database, accept)
        return await asyncio.get_running_loop().run_in_executor(None, work)

    def _families(self) -> Iterator[AnyFamily]:
        parts = self._parts
        yield from _of_requests(parts.requests)
        yield from _of_upstreams(parts.upstreams)
        yield from _of_server(parts.server)
        yield from _of_load(parts.load)
        yield from _of_journal(parts.journal)
        yield from _of_process(parts)


def _latencies(series: list[Series]) -> dict[str, dict[str, float]]:
    """For each upstream the number and the seconds of its requests and of first events."""
    found: dict[str, dict[str, float]] = {}
    for one in series:
        sums = found.setdefault(one.upstream, dict.fromkeys(_LATENCY_FIELDS, 0.0))
        sums["requests"] += one.durations.counts_total
        sums["seconds"] += one.durations.total / 1e6
        sums["streams"] += one.first_events.counts_total
        sums["first_seconds"] += one.first_events.total / 1e6
    found.pop("", None)
    return found


def _render(families: list[AnyFamily], database: str, accept: str) -> tuple[bytes, str]:
    return render([*families, *_of_files(database)], accept)


def _of_requests(requests: RequestMetrics) -> Iterator[AnyFamily]:
    by_status = Family(
        "relay_requests", "counter", "Requests that have ended.", (*_SERIES_LABELS, "code")
    )
    by_outcome = Family(
        "relay_request_outcomes",
        "counter",
        "Requests by how they ended, in the words of the log.",
        (*_SERIES_LABELS, "outcome"),
    )
    tokens = Family(
        "relay_tokens", "counter", "Tokens that answers reported.", (*_SERIES_LABELS, "type")
    )
    cost = Family(
        "relay_cost_dollars", "counter", "Cost of requests at their models' prices.", _SERIES_LABELS
    )
    durations = HistogramFamily(
        "relay_request_duration_seconds",
        "From a request's head to the last octet of its answer.",
        _SERIES_LABELS,
    )
    first_events = HistogramFamily(
        "relay_first_event_seconds",
        "From a request's head to the first content of its stream.",
        _SERIES_LABELS,
    )
    for series in requests.series():
        labels = (series.endpoint, series.model, series.upstream)
        by_status.values += _statuses(series, labels)
        by_outcome.values.append(((*labels, "whole"), series.completed))
        by_outcome.values += [
            ((*labels, outcome), count) for outcome, count in series.other_outcomes.items()
        ]
        tokens.values += [
            ((*labels, "input"), series.input),
            ((*labels, "output"), series.output),
            ((*labels, "cache_read"), series.cache_read),
            ((*labels, "cache_write"), series.cache_write),
        ]
        cost.values.append((labels, series.cost / 1e6))
        durations.add(labels, series.durations)
        if series.first_events.total:
            first_events.add(labels, series.first_events)
    yield from (by_status, by_outcome, tokens, cost, durations, first_events)
    yield from _of_waits_and_refusals(requests)


def _of_waits_and_refusals(requests: RequestMetrics) -> Iterator[AnyFamily]:
    own_share = HistogramFamily(
        "relay_own_seconds", "The relay's own time before it sends a request upstream."
    )
    own_share.add((), requests.own_share)
    waits = HistogramFamily("relay_queue_wait_seconds", "Waits for a free upstream.")
    waits.add((), requests.waits)
    yield from (own_share, waits)
    yield Family(
        "relay_refusals",
        "counter",
        "Requests that the relay itself refused, by reason.",
        ("reason",),
        [((reason,), count) for reason, count in requests.refusals.items()],
    )
    yield Family(
        "relay_rejected_heads",
        "counter",
        "Octets that were no request, by the status that answered them.",
        ("code",),
        [((str(status),), count) for status, count in requests.rejected.items()],
    )


def _statuses(series: Series, labels: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], float]]:
    for digit, count in enumerate(series.by_status):
        if count:
            yield (*labels, f"{digit}xx" if digit else "none"), count


def _of_upstreams(upstreams: Upstreams) -> Iterator[AnyFamily]:
    def of_each(name: str, help: str, read: Callable[[Upstream], float]) -> Family:
        rows: list[tuple[tuple[str, ...], float]] = [((one.name,), read(one)) for one in upstreams]
        return Family(name, "gauge", help, ("upstream",), rows)

    def counts(name: str, help: str, read: Callable[[Upstream], int]) -> Family:
        rows: list[tuple[tuple[str, ...], float]] = [((one.name,), read(one)) for one in upstreams]
        return Family(name, "counter", help, ("upstream",), rows)

    rows = upstreams.view()
    yield Family(
        "relay_upstream_state",
        "gauge",
        "1 for the state that an upstream is in.",
        ("upstream", "state"),
        [
            ((str(row["name"]), state), float(row["state"] == state))
            for row in rows
            for state in _STATES
        ],
    )
    yield of_each("relay_upstream_in_flight", "Requests at an upstream.", lambda one: one.in_flight)
    yield of_each(
        "relay_upstream_max_concurrency",
        "The most requests that an upstream gets at once; 0: no cap.",
        lambda one: one.max_concurrency,
    )
    yield counts(
        "relay_upstream_requests", "Requests sent to an upstream.", lambda one: one.requests
    )
    yield counts("relay_upstream_answers", "Answers that began.", lambda one: one.answered)
    yield counts(
        "relay_upstream_other_model",
        "Answers that name another model than was sent.",
        lambda one: one.other_model,
    )
    yield counts("relay_upstream_connections", "Connections opened.", lambda one: one.pool.opened)
    yield of_each("relay_upstream_idle_connections", "Connections kept.", lambda one: one.pool.idle)
    yield Family(
        "relay_upstream_errors",
        "counter",
        "Failures of an upstream, by what each concerned.",
        ("upstream", "scope"),
        [
            ((one.name, scope), count)
            for one in upstreams
            for scope, count in one.health.errors.items()
        ],
    )
    yield Family(
        "relay_upstream_quota_left",
        "gauge",
        "What is left of an upstream's plan, as its vendor says.",
        ("upstream",),
        [((one.name,), one.quota_left) for one in upstreams if one.quota_left is not None],
    )
    yield gauge("relay_queue_requests", "Requests that wait for an upstream.", upstreams.waiting)


def _of_server(server: Server) -> Iterator[AnyFamily]:
    bounds = server.bounds
    yield gauge("relay_connections", "Open connections of callers.", len(server.connections))
    yield gauge("relay_connections_limit", "The most connections of callers.", bounds.connections)
    yield gauge(
        "relay_connections_silent",
        "Connections on which no request came yet.",
        len(server.strangers),
    )
    yield counter(
        "relay_connections_refused",
        "Connections cut because their address has too many.",
        server.addresses.refused,
    )
    yield gauge("relay_tls_handshakes", "TLS handshakes that are going on.", server.handshakes)
    yield gauge("relay_accepting", "1 while connections are accepted.", float(server.accepts))
    yield gauge("relay_draining", "1 while the relay stops.", float(server.draining))
    yield gauge("relay_held_bytes", "Octets of requests in memory.", server.budget.held)
    yield gauge("relay_held_limit_bytes", "The most octets of requests in memory.", bounds.held)


def _of_load(load: Load) -> Iterator[AnyFamily]:
    yield gauge("relay_requests_in_flight", "Requests in flight.", load.in_flight)
    yield gauge("relay_requests_in_flight_limit", "The most of them.", load.max_in_flight)
    yield gauge("relay_shed_ratio", "Share of new requests that is refused.", load.share)
    yield counter("relay_shed_requests", "Requests refused because of overload.", load.shed)


def _of_journal(journal: Journal) -> Iterator[AnyFamily]:
    yield gauge("relay_journal_healthy", "1 while new work is accepted.", float(journal.healthy))
    yield gauge("relay_journal_unwritten", "Entries that are not on disk.", journal.unwritten)
    yield gauge(
        "relay_journal_lag_seconds", "Age of the batch that is being written.", journal.lag_seconds
    )
    yield counter("relay_journal_batches", "Batches of entries.", journal.batches)


def _of_process(parts: Parts) -> Iterator[AnyFamily]:
    lag = HistogramFamily(
        "relay_loop_lag_seconds", "How late the event loop was, twenty times a second."
    )
    lag.add((), parts.loop_lag.delays)
    yield lag
    yield gauge(
        "relay_loop_lag_longest_seconds",
        "The longest lag of the event loop since the last scrape.",
        parts.loop_lag.take_longest(),
    )
    dropped = 0 if parts.log is None else parts.log.dropped
    yield counter("relay_log_dropped_lines", "Lines of the access log that were lost.", dropped)
    exporter = None if parts.traces is None else parts.traces.exporter
    sent, lost = (0, 0) if exporter is None else (exporter.sent, exporter.dropped)
    yield counter("relay_traces_sent", "Requests whose spans were sent.", sent)
    yield counter("relay_traces_dropped", "Requests whose spans were lost.", lost)
    yield Family(
        "relay_certificate_expiry_timestamp_seconds",
        "gauge",
        "When a certificate ends.",
        ("name",),
        [((name,), end) for name, end in parts.certificates().items()],
    )
    yield gauge("relay_started_timestamp_seconds", "When the relay started.", parts.started_at)
    yield Family(
        "relay_build_info",
        "gauge",
        "1; the version is in the labels.",
        ("version", "python"),
        [((__version__, platform.python_version()), 1.0)],
    )


def _of_files(database: str) -> Iterator[AnyFamily]:
    """The database's files and their disk. Not for the loop: it asks the file system."""
    sizes = Family("relay_database_bytes", "gauge", "Size of the database's files.", ("file",))
    for name, suffix in _DATABASE_FILES.items():
        try:
            sizes.values.append(((name,), os.stat(database + suffix).st_size))
        except OSError:
            continue
    yield sizes
    try:
        disk = os.statvfs(os.path.dirname(os.path.realpath(database)))
    except OSError:
        return
    yield gauge(
        "relay_disk_free_bytes",
        "Free space on the database's disk.",
        disk.f_bavail * disk.f_frsize,
    )
