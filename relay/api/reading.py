"""Reads the figures of this process from the parts that count them.

Decides which part each figure comes from. Must not know other processes.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from relay.api.figures import (
    Durations,
    Figures,
    SeriesFigures,
    UpstreamFigures,
    read_requests,
    read_series,
)
from relay.gateway.authentication import KeyIndex
from relay.gateway.load import Load
from relay.gateway.request_metrics import RequestMetrics
from relay.gateway.traces import RequestTraces
from relay.gateway.watch import Watch
from relay.net.server import Server
from relay.pool.leases import Upstreams
from relay.pool.upstream import Upstream
from relay.quota.ledger import Ledger
from relay.store.journal import Journal
from relay.telemetry.access_log import AccessLog
from relay.telemetry.loop_lag import LoopLag

if TYPE_CHECKING:
    from relay.cluster.node import NodeFigures
    from relay.cluster.replication.replication import ReplicationFigures

CertificateDates = Callable[[], Mapping[str, float]]
"""Name of each certificate → the end of its validity, epoch seconds. Must not wait."""


def no_certificates() -> Mapping[str, float]:
    """The dates where the relay has no certificates of its own."""
    return {}


@dataclass(slots=True)
class Parts:
    """The parts of a relay whose figures are read."""

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
    node: "Callable[[], NodeFigures] | None" = None  # of a ledger that machines share
    replication: "Callable[[], ReplicationFigures] | None" = None  # of rows that they share
    started_at: float = field(default_factory=time.time)


async def read_pieces(parts: Parts) -> AsyncIterator[list[SeriesFigures]]:
    """All series, in pieces; other work of the loop comes between two of them."""
    for piece in read_series(parts.requests):
        yield piece
        await asyncio.sleep(0)


def read_figures(parts: Parts, watch: Watch) -> Figures:
    """All figures but the series. Begins the time anew in which a lag is the longest."""
    server, load, bounds = parts.server, parts.load, parts.server.bounds
    figures = Figures(
        pid=os.getpid(),
        shed=load.shed,
        refused_connections=server.addresses.refused,
        log_dropped=0 if parts.log is None else parts.log.dropped,
        processes=1,
        relayed=sum(ctx.dialect is not None for ctx in watch.running),
        in_flight=load.in_flight,
        in_flight_limit=load.max_in_flight,
        shed_share=load.share,
        waiting=parts.upstreams.waiting,
        connections=len(server.connections),
        connections_limit=bounds.connections,
        silent_connections=len(server.strangers),
        handshakes=server.handshakes,
        held=server.budget.held,
        held_limit=bounds.held,
        accepting=int(server.accepts),
        draining=int(server.draining),
        latest_lag=parts.loop_lag.latest,
        longest_lag=parts.loop_lag.take_longest(),
        loop_lag=Durations.read(parts.loop_lag.delays),
        upstreams=[_of_upstream(one) for one in parts.upstreams],
    )
    exporter = None if parts.traces is None else parts.traces.exporter
    if exporter is not None:
        figures.traces_sent, figures.traces_dropped = exporter.sent, exporter.dropped
    read_requests(parts.requests, figures)
    return figures


def _of_upstream(one: Upstream) -> UpstreamFigures:
    return UpstreamFigures(
        one.name, one.requests, one.answered, one.other_model, one.pool.opened, one.in_flight,
        one.pool.idle,
    )  # fmt: skip
