"""The composition root: builds each object once, starts and stops them in order.

Start: upstreams, database, server, listeners. Stop: listeners close, exchanges in flight
finish, then upstreams, log and database close. Must not know signals, locks or commands.
"""

import asyncio
import os
import socket
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from relay import config
from relay.api.admin import Admin, AdminAccess
from relay.api.admin_token import write_token
from relay.api.endpoints import ApiEndpoints, dialects
from relay.api.handler import Handler
from relay.api.models import Models
from relay.api.monitor import Monitor, Parts
from relay.api.plain_http import open_plain_http
from relay.api.stored_responses import StoredResponses
from relay.config import ConfigError, Settings
from relay.gateway.access_text import open_access_log
from relay.gateway.authentication import KeyIndex
from relay.gateway.catalog import Catalog
from relay.gateway.history import ConversationHistory
from relay.gateway.load import Load
from relay.gateway.metering import Metering
from relay.gateway.relay import Relay
from relay.gateway.request_metrics import RequestMetrics
from relay.net.addresses import is_loopback
from relay.net.certificate_source import CertificateSource
from relay.net.deadlines import Deadlines
from relay.net.descriptors import max_connections
from relay.net.listener import listen
from relay.net.server import Bounds, Prelude, Server
from relay.net.upstream.resolver import Resolver
from relay.pool.affinity import Bindings
from relay.pool.leases import Upstreams
from relay.pool.plan_polling import PlanPoller
from relay.pool.probing import Prober
from relay.pool.upstream import Upstream
from relay.quota.ledger import Ledger
from relay.secret import Secret, derived
from relay.store import pauses
from relay.store.change_watch import watch
from relay.store.database import Database
from relay.store.journal import Journal
from relay.store.keys import LiveKey, live_keys
from relay.store.recovery import restore
from relay.store.responses import Bounds as ResponseBounds
from relay.store.responses import DatabaseResponseStore, MemoryResponseStore, ResponseStore
from relay.store.server_secret import sealing_key
from relay.telemetry.access_log import AccessLog
from relay.telemetry.loop_lag import LoopLag
from relay.upkeep import Upkeep
from relay.wire.events import Limits
from relay.wire.forwarded import TrustedProxies

_ADMIN_BOUNDS: Final = Bounds(connections=16)
_PLAIN_BOUNDS: Final = Bounds(connections=256, body=64 * 1024, idle_time=10.0)
_PLAIN_HTTP: Final = [config.Address("0.0.0.0:80"), config.Address("[::]:80")]
_SWEEP_INTERVAL_SECONDS: Final = 5.0
_WATCH_INTERVAL_SECONDS: Final = 0.25  # a change on the command line takes effect within this


@dataclass(frozen=True, slots=True)
class Storage:
    """The open database and every part that starts from its contents."""

    database: Database
    ledger: Ledger
    keys: KeyIndex
    journal: Journal
    paused: list[str]  # names of upstreams
    responses: ResponseStore | None  # None: responses are not stored
    sealing_key: bytes  # for state that clients carry from turn to turn

    @classmethod
    async def open(cls, settings: Settings) -> "Storage":
        """Open the database and restore the state that the last process left.

        Raises:
            ConfigError: the key for stored responses cannot be read.
            StoreError: the database cannot be used.
        """
        secret = _responses_secret(settings.responses)
        database = await Database.open(settings.database.path)
        state = await restore(database, time.time())
        ledger = Ledger()
        ledger.restore(state.rows)
        if secret is None:
            sealing = await sealing_key(database)
        else:
            sealing = derived(secret, b"relay sealing")
        paused = list(await pauses.paused(database))
        keys = await live_keys(database)
        if settings.database.synchronous == "normal":
            database.open_inline()
        journal = await Journal.start(database, ledger.changes, settings.database.synchronous)
        storage = cls(
            database,
            ledger,
            KeyIndex(),
            journal,
            paused,
            _response_store(settings.responses, secret, database),
            sealing,
        )
        storage.apply_keys(keys)
        return storage

    def apply_keys(self, keys: list[LiveKey]) -> None:
        """Put the database's keys and credits into force."""
        self.keys.replace(keys)
        for key in keys:
            self.ledger.fund(key.user_id, key.credited)


class App:
    """A running relay: its parts, its listeners and its background tasks."""

    def __init__(
        self,
        settings: Settings,
        deadlines: Deadlines,
        storage: Storage,
        upstreams: Upstreams,
        bindings: Bindings,
        log: AccessLog | None,
        server: Server,
        admin: Server,
        poller: PlanPoller,
        loop_lag: LoopLag,
        parts: Parts,
    ) -> None:
        self._settings = settings
        self.deadlines = deadlines
        self._storage = storage
        self.database = storage.database
        self.ledger = storage.ledger
        self.keys = storage.keys
        self.journal = storage.journal
        self.upstreams = upstreams
        self.bindings = bindings
        self.log = log
        self.server = server
        self.admin = admin
        self._poller = poller
        self._loop_lag = loop_lag
        self.parts = parts  # as metrics read them
        self.upkeep = Upkeep(
            settings, storage.database, storage.journal, upstreams, storage.responses
        )
        self.addresses: list[str] = []
        self.admin_address = ""  # "": there is no admin listener
        self.without_admin = ""  # why there is none although one is configured
        self.certificates: CertificateSource | None = None  # None: without TLS
        self.plain: Server | None = None  # redirects people to https
        self._renewing: asyncio.Task[None] | None = None  # of certificates
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def start(
        cls,
        settings: Settings,
        *,
        log_fd: int = 1,
        sockets: Sequence[socket.socket] = (),
        resolver: Resolver | None = None,
    ) -> "App":
        """Build the relay and serve, on `sockets` in place of the configured addresses if any.

        `resolver` looks up the names of upstreams; None: by the system's resolver.

        Raises:
            ConfigError: a credential, a proxy, a certificate or a key cannot be read.
            StoreError: the database cannot be used.
            OSError: an address cannot be bound.
        """
        deadlines = Deadlines(asyncio.get_running_loop())
        upstreams = _upstreams(settings, deadlines, resolver or Resolver())
        certificates = CertificateSource(settings) if settings.server.tls else None
        storage = await Storage.open(settings)
        log = open_access_log(settings.log, log_fd) if settings.log.access else None
        address = settings.admin_address
        token = write_token(settings.database.path) if address and address.path is None else None
        app = compose(settings, deadlines, storage, upstreams, log, token)
        app._show_certificates(certificates)
        app._start_tasks()
        try:
            await app._listen(sockets, certificates.context if certificates else None)
            if certificates is not None:
                await app._keep_certificates(certificates)
            await app._listen_for_operator()
        except BaseException:
            await app.stop(0)
            raise
        return app

    def _start_tasks(self) -> None:
        if self.log is not None:
            self.deadlines.each_tick(self.log.flush)
        self._prober = Prober(self.upstreams, self.deadlines)
        self.deadlines.start()
        self._loop_lag.start()
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(
                watch(self.database, _WATCH_INTERVAL_SECONDS, self._storage.apply_keys)
            ),
            loop.create_task(self._sweep()),
            loop.create_task(self._poller.run()),
            *map(loop.create_task, self.upkeep.work()),
        ]

    async def _listen(self, sockets: Sequence[socket.socket], tls: ssl.SSLContext | None) -> None:
        scheme = "https" if tls else "http"
        for sock in sockets:
            port = await listen(self.server, sock=sock, tls=tls)
            bound = config.Address.tcp(str(sock.getsockname()[0]), port) if port else "unix"
            self.addresses.append(f"{scheme}://{bound}" if port else "a Unix socket")
        if sockets:
            return
        for address in self._settings.server.listen:
            bound = await _bind(self.server, address, tls)
            self.addresses.append(str(bound) if bound.path else f"{scheme}://{bound}")

    def _show_certificates(self, certificates: CertificateSource | None) -> None:
        """Let metrics and alerts read until when certificates are valid."""
        self.certificates = certificates
        if certificates is not None:
            self.parts.certificates = certificates.ends
            self.upkeep.sources.expiries = lambda: list(certificates.ends().items())

    async def _keep_certificates(self, certificates: CertificateSource) -> None:
        """Keep them up to date, and listen for plain HTTP beside https. Raises OSError."""
        challenges = certificates.challenges
        if challenges is not None and self.server.prelude is not None:
            self.server.prelude.challenges = challenges
            challenges.on_change = self.server.accept_anew
        self.plain, is_open = await open_plain_http(
            self._settings.server, challenges, self.deadlines
        )
        certificates.answers_http(is_open)
        self._renewing = asyncio.get_running_loop().create_task(certificates.run())

    async def _listen_for_operator(self) -> None:
        """Open the admin listener.

        Where the default cannot be used (the path of a Unix socket has 107 octets at most), the
        relay serves without it.
        """
        address = self._settings.admin_address
        if not address:
            return
        try:
            self.admin_address = str(await _bind(self.admin, address))
        except OSError as error:
            if self._settings.server.admin_listen != config.ServerSettings().admin_listen:
                raise
            self.without_admin = str(error)

    async def stop(self, drain_seconds: float) -> None:
        """Let exchanges in flight finish within `drain_seconds`, then close everything."""
        if self._renewing is not None:  # the next process orders from now on
            self._renewing.cancel()
        if self.plain is not None:
            await self.plain.drain(0)
        await self.server.drain(drain_seconds)
        await self.admin.drain(1.0)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._prober.stop()
        self._loop_lag.stop()
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


def compose(
    settings: Settings,
    deadlines: Deadlines,
    storage: Storage,
    upstreams: list[Upstream],
    log: AccessLog | None,
    admin_token: str | None = None,
) -> App:
    """Build the parts that serve requests and connect them; starts nothing."""
    pool = Upstreams(upstreams, settings.pool, storage.ledger, deadlines)
    _pause(pool, storage.paused)
    bindings = _bindings(settings.pool)
    loop_lag = LoopLag(asyncio.get_running_loop())
    catalog = Catalog(settings, upstreams)
    metering = Metering(catalog, storage.ledger, storage.journal)
    relay = Relay(
        storage.keys,
        catalog,
        metering,
        pool,
        bindings,
        deadlines,
        settings.pool,
        settings.server.limits.body,
    )

    def is_ready() -> bool:
        return catalog.serves_any and storage.journal.healthy and not server.draining

    api = ApiEndpoints(
        Models(settings.model),
        StoredResponses(storage.responses),
        storage.keys,
        metering,
        is_ready,
    )
    load = _load(settings.server.limits, loop_lag)
    relayed = dialects(storage.sealing_key, ConversationHistory(storage.responses))
    endpoints = api.routes(relay, relayed, load)
    requests = RequestMetrics(catalog.model_id)
    handler = Handler(endpoints, storage.keys, metering, log, requests, load)
    server = _server(settings.server, handler, deadlines)
    parts = Parts(
        requests, load, pool, server, storage.journal, loop_lag, storage.ledger, storage.keys, log
    )
    admin = _admin(settings, bindings, storage.database, parts, admin_token)
    return App(
        settings,
        deadlines,
        storage,
        pool,
        bindings,
        log,
        server,
        Server(admin.handle, deadlines, _ADMIN_BOUNDS, private=True),
        PlanPoller(pool),
        loop_lag,
        parts,
    )


def _pause(pool: Upstreams, names: list[str]) -> None:
    """Pause upstreams again. One that is no longer configured is left out."""
    for name in names:
        upstream = pool.named(name)
        if upstream is not None:
            upstream.health.pause()


def _load(limits: config.HeadLimitSettings, loop_lag: LoopLag) -> Load:
    load = Load(limits.in_flight, limits.loop_lag)
    loop_lag.each_time(load.observe)
    return load


def _admin(
    settings: Settings,
    bindings: Bindings,
    database: Database,
    parts: Parts,
    token: str | None,
) -> Admin:
    return Admin(
        Monitor(parts, settings.database.path),
        None if settings.pool.sticky == "off" else bindings,
        database,
        settings.database.path,
        AdminAccess(settings.server.admin_listen.host, token),
    )


def _upstreams(settings: Settings, deadlines: Deadlines, resolver: Resolver) -> list[Upstream]:
    """Raises ConfigError: a credential, a proxy or a `ca` file cannot be read."""
    upstreams = []
    for index, upstream in enumerate(settings.upstream):
        try:
            upstream.proxy()
        except ValueError as error:
            raise ConfigError(f"upstream[{index}].egress", str(error)) from None
        try:
            upstreams.append(Upstream(upstream, settings, deadlines, resolver))
        except ValueError as error:
            raise ConfigError(f"upstream[{index}]", str(error)) from None
    return upstreams


def _bindings(settings: config.PoolSettings) -> Bindings:
    # Kept even without stickiness: a binding records whose thinking a history contains.
    return Bindings(settings.sticky.seconds or 1.0)


def _responses_secret(settings: config.ResponsesSettings) -> Secret | None:
    """The operator's key; None: none is configured.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return settings.secret()
    except ValueError as error:
        raise ConfigError("responses.key", str(error)) from None


def _response_store(
    settings: config.ResponsesSettings, secret: Secret | None, database: Database
) -> ResponseStore | None:
    """Where responses are stored; None: nowhere."""
    lifetime = settings.keep.seconds
    bounds = ResponseBounds(
        settings.per_account, settings.responses_per_account, settings.conversation
    )
    if settings.store == "memory":
        return MemoryResponseStore(lifetime, settings.memory, bounds)
    if settings.store == "database":
        assert secret is not None  # config.load has checked it
        return DatabaseResponseStore(database, derived(secret, b"relay storing"), lifetime, bounds)
    return None


def _server(settings: config.ServerSettings, handler: Handler, deadlines: Deadlines) -> Server:
    proxies = _trusted_proxies(settings)
    bounds = _bounds(settings)
    if proxies is not None:  # many callers have the address of a proxy

        def is_exempt(address: str) -> bool:
            return is_loopback(address) or proxies.trusts(address)

        bounds = replace(bounds, is_exempt=is_exempt)
    server = Server(handler.handle, deadlines, bounds, handler.refused)
    server.proxies = proxies
    if settings.proxy_protocol or settings.tls == "auto":
        server.prelude = Prelude(server.proxies if settings.proxy_protocol else None)
    return server


def _trusted_proxies(server: config.ServerSettings) -> TrustedProxies | None:
    """None: every peer is a caller."""
    given = server.trusted_proxies
    networks = [one.network for one in given if one.network is not None]
    return TrustedProxies(networks, unix=len(networks) < len(given)) if given else None


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
        connections=min(limits.connections or max_connections(), max_connections()),
        per_address=limits.connections_per_address,
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
