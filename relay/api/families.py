"""The running relay in figures: metric families for Prometheus.

Nothing here is counted for a scrape's sake: each part has its own counters. Labels are names of the
settings, classes of status codes and words of this code; never an account, a key or a text of a
caller.

Decides the names of the metrics. Must not know how they are rendered, nor where figures come from.
"""

import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from relay import __version__
from relay.api.figures import Durations, Figures, SeriesFigures, UpstreamFigures
from relay.api.others import OtherFigures
from relay.store.journal import Journal
from relay.telemetry.exposition import (
    AnyFamily,
    Family,
    HistogramFamily,
    Labels,
    counter,
    gauge,
)
from relay.telemetry.histogram import REQUEST_BOUNDS, SHARE_BOUNDS, Histogram

_SERIES_LABELS: Final = ("endpoint", "model", "upstream")
_STATES: Final = ("ok", "strained", "cooling", "down", "probing", "paused")
_DATABASE_FILES: Final = {"database": "", "wal": "-wal"}


@dataclass(frozen=True, slots=True)
class Present:
    """What one process knows for all. `upstreams` are rows of `Upstreams.view`."""

    upstreams: list[dict[str, Any]]
    journal: list[Family]
    certificates: dict[str, float]
    started_at: float
    ledger: list[Family]  # of one that machines share


def families(figures: Figures, present: Present) -> Iterator[AnyFamily]:
    """All that the relay shows, whatever the number of its processes."""
    yield from _of_requests(figures)
    yield from _of_upstreams(figures, present.upstreams)
    yield from _of_server(figures)
    yield from _of_load(figures)
    yield from present.journal
    yield from present.ledger
    yield from _of_process(figures, present)


def _of_requests(figures: Figures) -> Iterator[AnyFamily]:
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
    for series in figures.series:
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
        durations.add(labels, _histogram(REQUEST_BOUNDS, series.durations))
        if series.first_events.total:
            first_events.add(labels, _histogram(REQUEST_BOUNDS, series.first_events))
    yield from (by_status, by_outcome, tokens, cost, durations, first_events)
    yield from _of_waits_and_refusals(figures)


def _histogram(bounds: tuple[int, ...], durations: Durations) -> Histogram:
    return Histogram.of(bounds, durations.counts, durations.total)


def _of_waits_and_refusals(figures: Figures) -> Iterator[AnyFamily]:
    own_share = HistogramFamily(
        "relay_own_seconds", "The relay's own time before it sends a request upstream."
    )
    own_share.add((), _histogram(SHARE_BOUNDS, figures.own_share))
    waits = HistogramFamily("relay_queue_wait_seconds", "Waits for a free upstream.")
    waits.add((), _histogram(REQUEST_BOUNDS, figures.waits))
    yield from (own_share, waits)
    yield Family(
        "relay_refusals",
        "counter",
        "Requests that the relay itself refused, by reason.",
        ("reason",),
        [((reason,), count) for reason, count in figures.refusals.items()],
    )
    yield Family(
        "relay_rejected_heads",
        "counter",
        "Octets that were no request, by the status that answered them.",
        ("code",),
        [((str(status),), count) for status, count in figures.rejected.items()],
    )


def _statuses(
    series: SeriesFigures, labels: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], float]]:
    for digit, count in enumerate(series.by_status):
        if count:
            yield (*labels, f"{digit}xx" if digit else "none"), count


def _of_upstreams(figures: Figures, rows: list[dict[str, Any]]) -> Iterator[AnyFamily]:
    counted = {one.name: one for one in figures.upstreams}
    each = [(counted.get(row["name"]) or UpstreamFigures(row["name"]), row) for row in rows]

    def of_each(
        name: str,
        help: str,
        read: Callable[[UpstreamFigures, dict[str, Any]], float],
        kind: Literal["gauge", "counter"] = "gauge",
    ) -> Family:
        values: list[tuple[Labels, float]] = [((one.name,), read(one, row)) for one, row in each]
        return Family(name, kind, help, ("upstream",), values)

    def counts(name: str, help: str, read: Callable[[UpstreamFigures], int]) -> Family:
        return of_each(name, help, lambda one, row: read(one), "counter")

    yield Family(
        "relay_upstream_state",
        "gauge",
        "1 for the state that an upstream is in.",
        ("upstream", "state"),
        [((row["name"], state), float(row["state"] == state)) for row in rows for state in _STATES],
    )
    yield of_each(
        "relay_upstream_in_flight", "Requests at an upstream.", lambda one, row: one.in_flight
    )
    yield of_each(
        "relay_upstream_max_concurrency",
        "The most requests that an upstream gets at once; 0: no cap.",
        lambda one, row: row["max_concurrency"],
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
    yield counts("relay_upstream_connections", "Connections opened.", lambda one: one.opened)
    yield of_each("relay_upstream_idle_connections", "Connections kept.", lambda one, row: one.idle)
    yield Family(
        "relay_upstream_errors",
        "counter",
        "Failures of an upstream, by what each concerned.",
        ("upstream", "scope"),
        [((row["name"], scope), count) for row in rows for scope, count in row["errors"].items()],
    )
    yield Family(
        "relay_upstream_quota_left",
        "gauge",
        "What is left of an upstream's plan, as its vendor says.",
        ("upstream",),
        [((row["name"],), row["left"]) for row in rows if row["left"] is not None],
    )
    yield gauge("relay_queue_requests", "Requests that wait for an upstream.", figures.waiting)


def _of_server(figures: Figures) -> Iterator[AnyFamily]:
    yield gauge("relay_connections", "Open connections of callers.", figures.connections)
    yield gauge(
        "relay_connections_limit", "The most connections of callers.", figures.connections_limit
    )
    yield gauge(
        "relay_connections_silent",
        "Connections on which no request came yet.",
        figures.silent_connections,
    )
    yield counter(
        "relay_connections_refused",
        "Connections cut because their address has too many.",
        figures.refused_connections,
    )
    yield gauge("relay_tls_handshakes", "TLS handshakes that are going on.", figures.handshakes)
    accepting, draining = float(figures.accepting > 0), float(figures.draining > 0)
    yield gauge("relay_accepting", "1 while connections are accepted.", accepting)
    yield gauge("relay_draining", "1 while the relay stops.", draining)
    yield gauge("relay_held_bytes", "Octets of requests in memory.", figures.held)
    yield gauge(
        "relay_held_limit_bytes", "The most octets of requests in memory.", figures.held_limit
    )


def _of_load(figures: Figures) -> Iterator[AnyFamily]:
    share = figures.shed_share / max(1, figures.processes)
    yield gauge("relay_requests_in_flight", "Requests in flight.", figures.in_flight)
    yield gauge("relay_requests_in_flight_limit", "The most of them.", figures.in_flight_limit)
    yield gauge("relay_shed_ratio", "Share of new requests that is refused.", share)
    yield counter("relay_shed_requests", "Requests refused because of overload.", figures.shed)


def of_journal(journal: Journal) -> list[Family]:
    """The journal's figures as they are now."""
    return [
        gauge("relay_journal_healthy", "1 while new work is accepted.", float(journal.healthy)),
        gauge("relay_journal_unwritten", "Entries that are not on disk.", journal.unwritten),
        gauge(
            "relay_journal_lag_seconds",
            "Age of the batch that is being written.",
            journal.lag_seconds,
        ),
        counter("relay_journal_batches", "Batches of entries.", journal.batches),
    ]


def _of_process(figures: Figures, present: Present) -> Iterator[AnyFamily]:
    lag = HistogramFamily(
        "relay_loop_lag_seconds", "How late the event loop was, twenty times a second."
    )
    lag.add((), _histogram(SHARE_BOUNDS, figures.loop_lag))
    yield lag
    yield gauge(
        "relay_loop_lag_longest_seconds",
        "The longest lag of the event loop since the last scrape.",
        figures.longest_lag,
    )
    yield counter(
        "relay_log_dropped_lines", "Lines of the access log that were lost.", figures.log_dropped
    )
    yield counter("relay_traces_sent", "Requests whose spans were sent.", figures.traces_sent)
    yield counter("relay_traces_dropped", "Requests whose spans were lost.", figures.traces_dropped)
    yield Family(
        "relay_certificate_expiry_timestamp_seconds",
        "gauge",
        "When a certificate ends.",
        ("name",),
        [((name,), end) for name, end in present.certificates.items()],
    )
    yield gauge("relay_started_timestamp_seconds", "When the relay started.", present.started_at)
    yield Family(
        "relay_build_info",
        "gauge",
        "1; the version is in the labels.",
        ("version", "python"),
        [((__version__, platform.python_version()), 1.0)],
    )


def of_processes(others: OtherFigures) -> Iterator[AnyFamily]:
    """What is shown of the processes beside the first one."""
    yield gauge(
        "relay_workers", "Processes that serve, the first included.", 1 + len(others.running)
    )
    yield gauge(
        "relay_workers_silent",
        "Workers that did not answer this scrape; their last figures are counted.",
        len(others.silent),
    )
    yield counter("relay_worker_restarts", "Workers that ended and were replaced.", others.restarts)


def of_files(database: str) -> Iterator[AnyFamily]:
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
