"""The composition root: builds each object once, starts and stops them in order.

Start: upstreams, database, server, listeners. Stop: listeners close, exchanges in flight
finish, then upstreams, log and database close. Must not know signals, locks or commands.
"""

import asyncio
import socket
import threading
from typing import Final, Protocol

from relay import config, server_setup
from relay.alerts.used_up import WindowsUsedUp
from relay.api.admin import Admin
from relay.api.endpoints import ApiEndpoints, dialects
from relay.api.handler import Handler
from relay.api.models import Models
from relay.api.operator import new_operator
from relay.api.plain_http import exchange_plain_http
from relay.api.reading import Parts
from relay.api.stored_responses import StoredResponses
from relay.api.usage import KeyUsage
from relay.changes import Changes
from relay.config import Settings
from relay.forbidden_addresses import guard_connections
from relay.gateway.access_text import open_access_log
from relay.gateway.catalog import Catalog
from relay.gateway.history import ConversationHistory
from relay.gateway.metering import Metering
from relay.gateway.refusal_counts import RefusalCounts
from relay.gateway.relay import Relay
from relay.gateway.request_metrics import RequestMetrics
from relay.gateway.traces import open_traces
from relay.listeners import Listeners, PassedSockets
from relay.net.certificate_source import CertificateSource
from relay.net.deadlines import Deadlines
from relay.net.server import Bounds, Server
from relay.net.upstream.resolver import Resolver
from relay.pool.affinity import Bindings
from relay.pool.leases import Upstreams
from relay.pool.plan_polling import PlanPoller
from relay.pool.probing import Prober
from relay.pool.setup import UpstreamSetup, read_setups
from relay.pool.threads import Threads
from relay.pool.upstream import Upstream
from relay.provisioning import mount as provisioning
from relay.quota.held import State
from relay.storage import Storage, open_storage
from relay.telemetry.access_log import AccessLog
from relay.telemetry.loop_lag import LoopLag
from relay.upkeep import Upkeep, share_costs, sweep
from relay.web.mount import WebMount
from relay.web.parts import Operations, Reloading

_ADMIN_BOUNDS: Final = Bounds(connections=16)
_WATCH_INTERVAL_SECONDS: Final = 0.25  # a change on the command line takes effect within this


class Takeover(Protocol):
    """The process that serves until now, as the one that takes its place sees it."""

    @property
    def sockets(self) -> list[tuple[str, socket.socket]]:
        """Its listening sockets, with the addresses that they are for."""
        ...

    async def begin(self) -> State:
        """Let it stop admitting requests; returns what its ledger holds.

        Raises:
            OSError: it does not.
        """
        ...

    async def finish(self, app: "App") -> None:
        """The database is open here: let it leave. Raises OSError: it serves on."""
        ...


class App:
    """A running relay: its parts, its listeners and its background tasks."""

    def __init__(
        self,
        settings: Settings,
        deadlines: Deadlines,
        storage: Storage,
        upstreams: Upstreams,
        bindings: Bindings,
        handler: Handler,
        api: ApiEndpoints,
        server: Server,
        operator: Admin,
        resolver: Resolver,
        metering: Metering,
        parts: Parts,
        web: WebMount,
        threads: Threads,
    ) -> None:
        self.settings = settings
        self.deadlines = deadlines
        self._storage = storage
        self.database = storage.database
        self.ledger = storage.ledger
        self.keys = storage.keys
        self.journal = storage.journal
        self.responses = storage.responses
        stored = (storage.database, storage.ledger, storage.keys, storage.journal)
        self.changes = Changes(*stored, lambda plan: self.catalog.plan(plan), storage.in_force)
        self.refresh = self.changes.refresh
        self.upstreams = upstreams
        self.bindings = bindings
        self.threads = threads
        self.operator = operator
        self.server = server
        self.admin = Server(operator.handle, deadlines, _ADMIN_BOUNDS, private=True)
        self.metering = metering
        self.web = web
        self.running = storage.running
        self.reloading: Reloading | None = None  # None: the settings are of no file
        self.handler = handler
        self._api = api
        self._resolver = resolver
        self._parts = parts
        self._keeping: list[asyncio.Task[None]] = []
        self.upkeep = self._new_upkeep()
        self._log_fd = 1
        self._poller = PlanPoller(upstreams)
        self._polling: asyncio.Task[None] | None = None
        self._prober: Prober | None = None
        self.addresses: list[str] = []
        self.listeners = Listeners()
        self.admin_address = ""  # "": there is no admin listener
        self.without_admin = ""  # why there is none although one is configured
        self.certificates: CertificateSource | None = None  # None: without TLS
        self.plain: Server | None = None  # redirects people to https
        self._renewing: asyncio.Task[None] | None = None  # of certificates
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def catalog(self) -> Catalog:
        """The settings that new requests are served by."""
        return self.handler.catalog

    @property
    def operations(self) -> Operations:
        """What the pages of administrators show and change."""
        return Operations(
            self.operator.monitor, self._parts, self.upstreams, self.bindings, self.deadlines,
            self.handler.watch, self.upkeep.sources, self.upkeep.backups, self.reloading,
        )  # fmt: skip

    @property
    def log(self) -> AccessLog | None:
        """The access log, if there is one."""
        return self.handler.log

    @classmethod
    async def start(
        cls,
        settings: Settings,
        *,
        log_fd: int = 1,
        passed: PassedSockets | None = None,
        resolver: Resolver | None = None,
        takeover: Takeover | None = None,
    ) -> "App":
        """Build the relay and serve, on `passed` in place of the configured addresses if any.

        `takeover` leads to the process that serves until now. `resolver`
        looks up the names of upstreams; None: by the system's resolver.

        Raises:
            ConfigError: a credential, a proxy, a certificate or a key cannot be read.
            StoreError: the database cannot be used.
            OSError: an address cannot be bound.
        """
        guard_connections()
        deadlines = Deadlines(asyncio.get_running_loop())
        resolver = resolver or Resolver()
        setups = read_setups(settings)
        certificates = CertificateSource(settings) if settings.server.tls else None
        log = open_access_log(settings.log, log_fd) if settings.log.access else None
        storage = await open_storage(settings, None if takeover is None else takeover.begin)
        upstreams = [Upstream(one.settings, settings, deadlines, resolver, one) for one in setups]
        app = compose(settings, deadlines, storage, upstreams, resolver)
        app._log_fd = log_fd
        app._show_certificates(certificates)
        app.exchange_log(log)
        app._trace_by(settings.traces)
        app._start_tasks()
        app.listeners.hand_passed(passed or PassedSockets(), settings)
        try:
            if takeover is not None:
                await takeover.finish(app)
                for name, sock in takeover.sockets:
                    app.listeners.hand(name, [sock])
                if certificates is not None:
                    await certificates.take_over()
            await app._listen()
            await app._listen_for_operator()
            app.listeners.close_unused()
        except BaseException:
            await app.stop(0)
            raise
        return app

    def _start_tasks(self) -> None:
        self.deadlines.each_tick(self._flush_log)
        self._prober = Prober(self.upstreams, self.deadlines)
        self.deadlines.start()
        self._parts.loop_lag.start()
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self.changes.watch(_WATCH_INTERVAL_SECONDS)),
            loop.create_task(sweep(self.ledger, self.bindings)),
        ]
        if self._storage.node is not None:
            self._tasks.append(loop.create_task(share_costs(self.database, self.upstreams)))
        self._keeping = list(map(loop.create_task, self.upkeep.work()))
        self._polling = loop.create_task(self._poller.run())

    def _flush_log(self) -> None:
        if self.log is not None:
            self.log.flush()

    async def _listen(self) -> None:
        tls = None if self.certificates is None else self.certificates.context
        challenges = None if self.certificates is None else self.certificates.challenges
        if challenges is not None and self.server.prelude is not None:
            self.server.prelude.challenges = challenges
            challenges.on_change = self.server.accept_anew
        self.addresses = await self.listeners.open_passed(self.server, tls)
        if not self.addresses:
            scheme = "https" if tls else "http"
            for address in self.settings.server.listen:
                bound = await self.listeners.open(self.server, "listen", address, tls)
                self.addresses.append(str(bound) if bound.path else f"{scheme}://{bound}")
        if self.certificates is not None:
            await self._keep_certificates(self.certificates)

    def _show_certificates(self, certificates: CertificateSource | None) -> None:
        """Let metrics and alerts read until when certificates are valid."""
        self.certificates = certificates
        if certificates is not None:
            self._parts.certificates = certificates.ends
            self.upkeep.sources.expiries = lambda: list(certificates.ends().items())

    async def _keep_certificates(self, certificates: CertificateSource) -> None:
        """Keep them up to date, and listen for plain HTTP beside https. Raises OSError."""
        self.plain = await self.listeners.open_plain(
            self.settings.server, certificates.challenges, self.deadlines
        )
        certificates.answers_http(bool(self.plain.listeners))
        self._renewing = asyncio.get_running_loop().create_task(certificates.run())

    async def _listen_for_operator(self) -> None:
        """Open the admin listener.

        Where the default cannot be used (the path of a Unix socket has 107 octets at most), the
        relay serves without it.
        """
        address = self.settings.admin_address
        if not address:
            return
        try:
            self.admin_address = str(await self.listeners.open(self.admin, "admin", address))
        except OSError as error:
            if self.settings.server.admin_listen != config.ServerSettings().admin_listen:
                raise
            self.without_admin = str(error)

    def exchange(self, settings: Settings, setups: list[UpstreamSetup], paused: set[str]) -> None:
        """Serve by these settings from now on; requests in flight keep those they began with.

        `setups` are the upstreams of `settings`, `paused` the names of those that the operator has
        paused. One step of the loop: no request sees some settings of before and some of after.

        Raises:
            ConfigError: a plan contradicts itself, and nothing has changed.
        """
        before = {one.name: one for one in self.upstreams}
        upstreams = []
        for setup in setups:
            upstream = before.get(setup.settings.name)
            if upstream is None or not setup.is_same_place(upstream.setup):
                upstream = Upstream(setup.settings, settings, self.deadlines, self._resolver, setup)
                if upstream.name in paused:
                    upstream.health.pause()
            upstreams.append(upstream)
        last = self.handler.catalog
        catalog = Catalog(settings, upstreams, last)  # the last step that may fail
        for upstream, setup in zip(upstreams, setups, strict=True):
            if upstream.setup is not setup:
                upstream.configure(setup)
        self.ledger.supersede(catalog.successors(last))
        self.upstreams.replace(upstreams, settings.pool)
        self.bindings.keep_for(server_setup.session_seconds(settings.pool))
        self.handler.catalog = catalog
        self._api.models = Models(settings.model)
        self._parts.requests.forget_names()
        server_setup.bound_load(self._parts.load, settings.server)
        server_setup.exchange_server(self.server, settings.server)
        if self.plain is not None and self.certificates is not None:
            exchange_plain_http(self.plain, settings.server, self.certificates.challenges)
        self._keep_by(settings)
        if not self._poller.polls(self.upstreams) and self._polling is not None:
            self._polling.cancel()
            self._poller = PlanPoller(self.upstreams)
            self._polling = asyncio.get_running_loop().create_task(self._poller.run())

    def _new_upkeep(self) -> Upkeep:
        parts = (self.database, self.journal, self.upstreams, self.responses)
        return Upkeep(self.settings, *parts)

    def _keep_by(self, settings: Settings) -> None:
        """Use these settings for backups, alerts and retention, too."""
        before, self.settings = self.settings, settings
        if before.traces != settings.traces:
            self._trace_by(settings.traces)
        names = ("backup", "alerting", "alert", "database", "mail", "web", "plan")
        is_same_url = before.server.public_url == settings.server.public_url  # alerts name it
        if is_same_url and all(getattr(before, name) == getattr(settings, name) for name in names):
            return
        for task in self._keeping:
            task.cancel()
        self.upkeep = self._new_upkeep()
        self._show_certificates(self.certificates)
        loop = asyncio.get_running_loop()
        self._keeping = list(map(loop.create_task, self.upkeep.work()))

    def open_log(self, settings: config.LogSettings) -> AccessLog | None:
        """The access log of other settings, for `exchange_log`; None: there is none. Blocks.

        Raises:
            ConfigError: its file cannot be opened.
        """
        return open_access_log(settings, self._log_fd) if settings.access else None

    def exchange_log(self, log: AccessLog | None) -> None:
        """Write lines to another log from now on."""
        before = self.log
        self.handler.log = self._parts.log = log
        if before is not None and before is not log:
            # It may wait for a reader that stalls.
            threading.Thread(target=before.close, name="access-log-end", daemon=True).start()

    def _trace_by(self, settings: config.TracesSettings) -> None:
        """Send the spans of requests by these settings from now on."""
        before = self.handler.traces
        self.handler.traces = self._parts.traces = open_traces(settings)
        if before is not None:
            threading.Thread(target=before.close, name="traces-end", daemon=True).start()

    @property
    def servers(self) -> list[Server]:
        """All that listen."""
        return [self.server, self.admin, *([self.plain] if self.plain is not None else [])]

    def stop_tasks(self) -> list[asyncio.Task[None]]:
        """End the work in the background: it is another process's, or nobody's."""
        others = (self._polling, self._renewing)
        tasks = [*self._tasks, *self._keeping, *(task for task in others if task is not None)]
        for task in tasks:
            task.cancel()
        return tasks

    async def drain(self, seconds: float) -> None:
        """Listen no more, and let exchanges in flight finish within `seconds`."""
        if self._renewing is not None:  # the next process orders from now on
            self._renewing.cancel()
        self.web.close()
        if self.plain is not None:
            await self.plain.drain(0)
        await self.server.drain(seconds)

    async def stop(self, drain_seconds: float) -> None:
        """Let exchanges in flight finish within `drain_seconds`, then close everything."""
        await self.drain(drain_seconds)
        await self.admin.drain(1.0)
        await asyncio.gather(*self.stop_tasks(), return_exceptions=True)
        if self._prober is not None:
            self._prober.stop()
        self._parts.loop_lag.stop()
        for upstream in self.upstreams:
            upstream.pool.close()
        self.deadlines.stop()
        for writer in (self.log, self.handler.traces):
            if writer is not None:
                writer.close()
        await self._storage.close()


def compose(
    settings: Settings,
    deadlines: Deadlines,
    storage: Storage,
    upstreams: list[Upstream],
    resolver: Resolver,
    kind: type[App] = App,
) -> App:
    """Build the parts that serve requests and connect them; starts nothing.

    Raises:
        StoreError: the token of the admin listener cannot be written.
    """
    pool = server_setup.new_pool(settings, deadlines, storage, upstreams)
    bindings = server_setup.new_bindings(settings, storage)
    metering = server_setup.new_metering(storage)
    relay = Relay(storage.keys, metering, pool, bindings, deadlines)

    def unready() -> str:
        return server_setup.unready(handler, storage, server)

    models, responses = Models(settings.model), StoredResponses(storage.responses)
    usage = KeyUsage(storage.database, storage.ledger)
    api = ApiEndpoints(models, responses, storage.keys, metering, usage, unready)
    web = api.pages = storage.web(
        lambda: app.settings, lambda: handler.catalog, lambda: app.operations, lambda: app.refresh()
    )
    loop_lag = LoopLag(asyncio.get_running_loop())
    load = server_setup.new_load(settings.server, loop_lag)
    endpoints = api.routes(
        relay, dialects(storage.sealing_key, ConversationHistory(storage.responses)), load
    )
    requests = RequestMetrics(lambda name: handler.catalog.model_id(name))
    catalog = Catalog(settings, upstreams)
    handler = Handler(endpoints, storage.keys, metering, catalog, None, requests, load)
    handler.on_exceeded = WindowsUsedUp(storage.database).note
    handler.on_refused = RefusalCounts(storage.database).note
    server = server_setup.new_server(settings.server, handler, deadlines)
    parts = Parts(
        requests, load, pool, server, storage.journal, loop_lag, storage.ledger, storage.keys, None
    )
    parts.node = None if storage.node is None else storage.node.view
    parts.replication = None if storage.replication is None else storage.replication.view
    operator = new_operator(settings, bindings, storage.database, parts, handler)
    operator.commands[b"/trickle"] = api.trickle.answer
    app = kind(
        settings, deadlines, storage, pool, bindings, handler, api, server, operator, resolver,
        metering, parts, web, relay.threads,
    )  # fmt: skip
    provisioning.serve_at(endpoints, app)
    return app
