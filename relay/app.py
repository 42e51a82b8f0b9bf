"""The composition root: builds each object once, starts and stops them in order.

Start: upstreams, database, server, listeners. Stop: listeners close, exchanges in flight
finish, then upstreams, log and database close. Must not know signals, locks or commands.
"""

import asyncio
import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from typing import Final, Protocol

from relay import config
from relay.api.admin import Admin, AdminAccess
from relay.api.admin_token import write_token
from relay.api.endpoints import ApiEndpoints, dialects
from relay.api.handler import Handler
from relay.api.models import Models
from relay.api.stored_responses import StoredResponses
from relay.config import Settings
from relay.gateway.catalog import Catalog
from relay.gateway.history import ConversationHistory
from relay.gateway.metering import Metering
from relay.gateway.relay import Relay
from relay.net import tls as certificates
from relay.net.deadlines import Deadlines
from relay.net.descriptors import max_connections
from relay.net.listener import listen
from relay.net.server import Bounds, Listener, Server
from relay.net.upstream.resolver import Resolver
from relay.pool.affinity import Bindings
from relay.pool.leases import Upstreams
from relay.pool.plan_polling import PlanPoller
from relay.pool.probing import Prober
from relay.pool.setup import UpstreamSetup, read_setups
from relay.pool.upstream import Upstream
from relay.quota.transfer import State
from relay.storage import Storage
from relay.store.change_watch import watch
from relay.store.database import StoreError
from relay.store.usage import prune
from relay.telemetry.access_log import AccessLog
from relay.wire.events import Limits

_log = logging.getLogger("relay")

_ADMIN_BOUNDS: Final = Bounds(connections=16)
_SWEEP_INTERVAL_SECONDS: Final = 5.0
_PRUNE_INTERVAL_SECONDS: Final = 3600.0
_WATCH_INTERVAL_SECONDS: Final = 0.25  # a change on the command line takes effect within this


PASSED: Final = "passed"  # the name of a socket that the service manager passed


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
    ) -> None:
        self.settings = settings
        self.deadlines = deadlines
        self._storage = storage
        self.database = storage.database
        self.ledger = storage.ledger
        self.keys = storage.keys
        self.journal = storage.journal
        self.upstreams = upstreams
        self.bindings = bindings
        self.operator = operator
        self.server = server
        self.admin = Server(operator.handle, deadlines, _ADMIN_BOUNDS, private=True)
        self.metering = metering
        self.running = storage.running
        self._handler = handler
        self._api = api
        self._resolver = resolver
        self._log_fd = 1
        self._tls: ssl.SSLContext | None = None
        self._poller = PlanPoller(upstreams)
        self._polling: asyncio.Task[None] | None = None
        self._prober: Prober | None = None
        self.addresses: list[str] = []
        self.listening: list[tuple[str, Listener]] = []  # each with the address that it is for
        self._handed: dict[str, list[socket.socket]] = {}  # sockets of the process before
        self.admin_address = ""  # "": there is no admin listener
        self.without_admin = ""  # why there is none although one is configured
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def catalog(self) -> Catalog:
        """The settings that new requests are served by."""
        return self._handler.catalog

    @property
    def log(self) -> AccessLog | None:
        """The access log, if there is one."""
        return self._handler.log

    @classmethod
    async def start(
        cls,
        settings: Settings,
        *,
        log_fd: int = 1,
        sockets: Sequence[socket.socket] = (),
        admin_sockets: Sequence[socket.socket] = (),
        resolver: Resolver | None = None,
        takeover: Takeover | None = None,
    ) -> "App":
        """Build the relay and serve, on `sockets` in place of the configured addresses if any.

        `takeover` leads to the process that serves until now. `resolver`
        looks up the names of upstreams; None: by the system's resolver.

        Raises:
            ConfigError: a credential, a proxy, a certificate or a key cannot be read.
            StoreError: the database cannot be used.
            OSError: an address cannot be bound.
        """
        deadlines = Deadlines(asyncio.get_running_loop())
        resolver = resolver or Resolver()
        setups = read_setups(settings)
        tls = certificates.listener(settings.server.tls) if settings.server.tls else None
        state = None if takeover is None else await takeover.begin()
        storage = await Storage.open(settings, state)
        upstreams = [Upstream(one.settings, settings, deadlines, resolver, one) for one in setups]
        app = compose(settings, deadlines, storage, upstreams, resolver)
        app._tls, app._log_fd = tls, log_fd
        app._handler.log = AccessLog(log_fd) if settings.log.access else None
        app._start_tasks()
        if admin_sockets:
            app._handed[f"admin {settings.admin_address}"] = list(admin_sockets)
        try:
            if takeover is not None:
                await takeover.finish(app)
                for name, sock in takeover.sockets:
                    app._handed.setdefault(name, []).append(sock)
                sockets = app._handed.pop(PASSED, [])
            await app._listen(sockets, tls)
            await app._listen_for_operator()
            app._close_unused()
        except BaseException:
            await app.stop(0)
            raise
        return app

    def _start_tasks(self) -> None:
        self.deadlines.each_tick(self._flush_log)
        self._prober = Prober(self.upstreams, self.deadlines)
        self.deadlines.start()
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(
                watch(self.database, _WATCH_INTERVAL_SECONDS, self._storage.apply_keys)
            ),
            loop.create_task(self._sweep()),
            loop.create_task(self._prune()),
        ]
        self._polling = loop.create_task(self._poller.run())

    def _close_unused(self) -> None:
        """Close the sockets that were handed over for addresses that are no longer configured."""
        for sockets in self._handed.values():
            for sock in sockets:
                sock.close()
        self._handed.clear()

    def _flush_log(self) -> None:
        if self.log is not None:
            self.log.flush()

    async def _listen(self, sockets: Sequence[socket.socket], tls: ssl.SSLContext | None) -> None:
        scheme = "https" if tls else "http"
        for sock in sockets:
            port = await listen(self.server, sock=sock, tls=tls)
            self._name_sockets(PASSED)
            bound = config.Address.tcp(str(sock.getsockname()[0]), port) if port else "unix"
            self.addresses.append(f"{scheme}://{bound}" if port else "a Unix socket")
        if sockets:
            return
        for address in self.settings.server.listen:
            bound = await self._bind(self.server, address, tls)
            self.addresses.append(str(bound) if bound.path else f"{scheme}://{bound}")

    async def _bind(
        self, server: Server, address: config.Address, tls: ssl.SSLContext | None = None
    ) -> config.Address:
        """Listen on `address`: on the sockets for it that were handed over, else on new ones."""
        name = f"{'admin' if server is self.admin else 'listen'} {address}"
        port = -1
        for sock in self._handed.pop(name, []):
            port = await listen(server, sock=sock, tls=tls)
        if port < 0:
            bound = await _bind(server, address, tls)
        else:
            bound = address if address.path else config.Address.tcp(address.host, port)
        self._name_sockets(name)
        return bound

    def _name_sockets(self, name: str) -> None:
        """Note which address the latest listeners are for."""
        listeners = [*self.server.listeners, *self.admin.listeners]
        known = {id(one) for _, one in self.listening}
        self.listening += [(name, one) for one in listeners if id(one) not in known]

    async def _listen_for_operator(self) -> None:
        """Open the admin listener.

        Where the default cannot be used (the path of a Unix socket has 107 octets at most), the
        relay serves without it.
        """
        address = self.settings.admin_address
        if not address:
            return
        try:
            self.admin_address = str(await self._bind(self.admin, address))
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
        last = self._handler.catalog
        catalog = Catalog(settings, upstreams, last)  # the last step that may fail
        for upstream, setup in zip(upstreams, setups, strict=True):
            if upstream.setup is not setup:
                upstream.configure(setup)
        self.ledger.supersede(catalog.successors(last))
        self.upstreams.replace(upstreams, settings.pool)
        self.bindings.keep_for(_session_seconds(settings.pool))
        self._handler.catalog = catalog
        self._api.models = Models(settings.model)
        self.server.bound(_bounds(settings.server))
        self.settings = settings
        self._exchange_log(settings.log)
        if not self._poller.polls(self.upstreams) and self._polling is not None:
            self._polling.cancel()
            self._poller = PlanPoller(self.upstreams)
            self._polling = asyncio.get_running_loop().create_task(self._poller.run())

    def exchange_certificate(self, tls: config.TlsSettings) -> None:
        """Use this certificate for the handshakes to come. Raises ConfigError."""
        if self._tls is not None:
            certificates.renew(self._tls, tls)

    def _exchange_log(self, settings: config.LogSettings) -> None:
        log = self.log
        if settings.access and log is None:
            self._handler.log = AccessLog(self._log_fd)
        elif log is not None and not settings.access:
            self._handler.log = None
            # It may wait for a reader that stalls.
            threading.Thread(target=log.close, name="access-log-end", daemon=True).start()

    def stop_tasks(self) -> list[asyncio.Task[None]]:
        """End the work in the background: it is another process's, or nobody's."""
        tasks = [*self._tasks, *([self._polling] if self._polling is not None else [])]
        for task in tasks:
            task.cancel()
        return tasks

    async def stop(self, drain_seconds: float) -> None:
        """Let exchanges in flight finish within `drain_seconds`, then close everything."""
        await self.server.drain(drain_seconds)
        await self.admin.drain(1.0)
        await asyncio.gather(*self.stop_tasks(), return_exceptions=True)
        if self._prober is not None:
            self._prober.stop()
        for upstream in self.upstreams:
            upstream.pool.close()
        self.deadlines.stop()
        if self.log is not None:
            self.log.close()
        await self.journal.close()
        await self.database.close()

    async def _sweep(self) -> None:
        """Forget limits that are full again and expired bindings."""
        while True:
            await asyncio.sleep(_SWEEP_INTERVAL_SECONDS)
            self.ledger.sweep(time.time())
            self.bindings.sweep(time.monotonic())

    async def _prune(self) -> None:
        """Delete rows and stored responses that are past their retention."""
        responses = self._storage.responses
        while True:
            try:
                await prune(self.database, self.settings.database.retention_days, time.time())
                if responses is not None:
                    await responses.prune(time.time())
            except StoreError as error:
                _log.warning("old rows are not deleted for now: %s", error)
            await asyncio.sleep(_PRUNE_INTERVAL_SECONDS)


def compose(
    settings: Settings,
    deadlines: Deadlines,
    storage: Storage,
    upstreams: list[Upstream],
    resolver: Resolver,
) -> App:
    """Build the parts that serve requests and connect them; starts nothing.

    Raises:
        StoreError: the token of the admin listener cannot be written.
    """
    pool = Upstreams(upstreams, settings.pool, storage.ledger, deadlines)
    for name in storage.paused:  # one that is no longer configured is left out
        upstream = pool.named(name)
        if upstream is not None:
            upstream.health.pause()
    bindings = Bindings(_session_seconds(settings.pool))
    metering = Metering(storage.ledger, storage.journal)
    relay = Relay(storage.keys, metering, pool, bindings, deadlines)

    def is_ready() -> bool:
        serves_any = handler.catalog.serves_any
        return serves_any and storage.journal.healthy and not server.draining

    api = ApiEndpoints(
        Models(settings.model),
        StoredResponses(storage.responses),
        storage.keys,
        metering,
        is_ready,
    )
    history = ConversationHistory(storage.responses)
    endpoints = api.routes(relay, dialects(storage.sealing_key, history))
    catalog = Catalog(settings, upstreams)
    handler = Handler(endpoints, storage.keys, metering, catalog, None)
    server = Server(handler.handle, deadlines, _bounds(settings.server), handler.refused)
    address = settings.admin_address
    token = write_token(settings.database.path) if address and address.path is None else None
    admin = Admin(
        pool,
        bindings,
        storage.database,
        settings.database.path,
        AdminAccess(settings.server.admin_listen.host, token),
    )
    return App(
        settings,
        deadlines,
        storage,
        pool,
        bindings,
        handler,
        api,
        server,
        admin,
        resolver,
        metering,
    )


def _session_seconds(settings: config.PoolSettings) -> float:
    # Kept even without stickiness: a binding records whose thinking a history contains.
    return settings.sticky.seconds or 1.0


def _bounds(server: config.ServerSettings) -> Bounds:
    limits, times = server.limits, server.timeouts
    return Bounds(
        head=Limits(request_line=limits.request_line, head=limits.head, fields=limits.fields),
        body=limits.body,
        held=limits.held,
        held_per_key=limits.held_per_key,
        uploads_per_key=limits.uploads_per_key,
        head_time=times.head,
        body_time=times.body,
        upload_time=times.upload,
        idle_time=times.idle,
        write_time=times.write,
        connections=max_connections(),
    )


async def _bind(
    server: Server, address: config.Address, tls: ssl.SSLContext | None = None
) -> config.Address:
    """Listen on `address`; returns the address with the port that was bound.

    Raises:
        OSError: the address cannot be bound; the message names it.
    """
    try:
        port = await listen(server, address.host, address.port, path=address.path, tls=tls)
    except OSError as error:
        number = error.errno or 0
        reason = os.strerror(number) if number > 0 else error.strerror or str(error)
        raise OSError(f"cannot listen on {address}: {reason}") from None
    return address if address.path is not None else config.Address.tcp(address.host, port)
