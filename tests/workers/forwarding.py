"""A worker's server in front of a relay, which is its owner, in one process."""

import contextlib
import json
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from relay.api.handler import Handler
from relay.api.paths import ALIVE, MODELS, READYZ, RELAYED, REPORTS
from relay.api.router import Endpoints
from relay.gateway.context import Outcome, RequestContext
from relay.gateway.load import Load
from relay.gateway.request_metrics import RequestMetrics
from relay.net.listener import listen
from relay.net.server import Server
from relay.server_setup import new_server
from relay.telemetry.access_log import AccessLog
from relay.workers.forward import forward_as_worker
from relay.workers.inner_server import InnerServer, serve_forwarded_as_owner
from relay.workers.link import Link
from relay.workers.owner_connections import OwnerConnections
from tests.fakes.live import Live

HERE = b"the worker\n"  # the answer of its own endpoints


@dataclass
class Joined:
    """The owner's list of those that want to know of a new worker."""

    on_joined: list[Callable[[Link], None]] = field(default_factory=list)


@dataclass
class Worker:
    """What a worker's process has."""

    server: Server
    handler: Handler
    load: Load
    metrics: RequestMetrics
    log_path: Path


@dataclass
class Front:
    """A running worker, its port, and its owner."""

    relay: Live
    worker: Worker
    port: int
    connections: OwnerConnections
    inner: InnerServer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def worker_log(self) -> list[dict[str, Any]]:
        """The lines of the worker's own access log."""
        assert self.worker.handler.log is not None
        self.worker.handler.log.close()
        return [json.loads(line) for line in self.worker.log_path.read_bytes().splitlines()]


@contextlib.asynccontextmanager
async def linked() -> AsyncIterator[tuple[Link, Link]]:
    """Both ends of a link."""
    pair = socket.socketpair()
    owner, worker = [await Link.open(one) for one in pair]
    try:
        yield owner, worker
    finally:
        owner.close()
        worker.close()


@contextlib.asynccontextmanager
async def running_front(
    relay: Live, folder: Path, tls: ssl.SSLContext | None = None, *, shares_ledger: bool = False
) -> AsyncIterator[Front]:
    """A worker of a relay. Its own endpoints answer `HERE`."""
    async with contextlib.AsyncExitStack() as stack:
        worker = _worker(relay, folder)
        owner_link, worker_link = await stack.enter_async_context(linked())
        joined = Joined()
        inner = await serve_forwarded_as_owner(relay.app, joined)
        stack.callback(inner.close)
        connections = OwnerConnections(worker_link)
        stack.callback(connections.close)
        forward_as_worker(worker, connections, shares_ledger=shares_ledger)
        worker_link.start()
        for send_state in joined.on_joined:
            send_state(owner_link)
        port = await listen(worker.server, tls=tls)
        stack.push_async_callback(worker.server.drain, 0)
        yield Front(relay, worker, port, connections, inner)


def _worker(relay: Live, folder: Path) -> Worker:
    app, path = relay.app, folder / "worker.log"
    load, metrics = Load(10_000, 0), RequestMetrics(lambda name: "")
    log = AccessLog(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), str(path))
    handler = Handler(_endpoints(), app.keys, app.metering, app.catalog, log, metrics, load)
    server = new_server(app.settings.server, handler, app.deadlines)
    return Worker(server, handler, load, metrics, path)


def _endpoints() -> Endpoints:
    endpoints = Endpoints()
    for path in RELAYED:
        endpoints.post(path, _answer)
    for path in (MODELS, READYZ, *ALIVE):
        endpoints.get(path, _answer)
    for path in REPORTS:
        endpoints.post_prefix(path, _answer)
    endpoints.model(lambda name: _answer)
    endpoints.preflight(_answer)
    return endpoints


async def _answer(ctx: RequestContext) -> None:
    ctx.end(Outcome.COMPLETE)
    ctx.exchange.respond(200, [], HERE)
