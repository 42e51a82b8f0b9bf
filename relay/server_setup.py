"""What the settings mean for the server that callers reach and for its upstreams.

Decides its bounds, the proxies that it trusts, when it sheds, now and after a reload, and which
upstreams start paused. Must not know where it listens.
"""

from collections.abc import Callable

from relay import config
from relay.api.handler import Handler
from relay.gateway.load import Load
from relay.gateway.metering import Metering
from relay.net.addresses import is_loopback
from relay.net.deadlines import Deadlines
from relay.net.descriptors import max_connections
from relay.net.server import Bounds, Prelude, Server
from relay.pool.affinity import Bindings
from relay.pool.leases import Upstreams
from relay.pool.node_outages import NodeOutages
from relay.pool.session_moves import SessionMoves
from relay.pool.upstream import Upstream
from relay.storage import Storage
from relay.telemetry.loop_lag import LoopLag
from relay.wire.events import Limits
from relay.wire.forwarded import TrustedProxies


def _exempt(proxies: TrustedProxies | None) -> Callable[[str], bool]:
    """The addresses without a cap of connections: many callers have the address of a proxy."""
    if proxies is None:
        return is_loopback
    return lambda address: is_loopback(address) or proxies.trusts(address)


def new_server(settings: config.ServerSettings, handler: Handler, deadlines: Deadlines) -> Server:
    """The server for callers; it listens nowhere yet."""
    server = Server(handler.handle, deadlines, _bounds(settings), handler.refused)
    server.proxies = _trusted_proxies(settings)
    if settings.proxy_protocol or settings.tls == "auto":
        server.prelude = Prelude(server.proxies if settings.proxy_protocol else None)
    return server


def exchange_server(server: Server, settings: config.ServerSettings) -> None:
    """Use these settings from now on. `proxy_protocol` and `tls` are as before."""
    server.bound(_bounds(settings))
    server.proxies = _trusted_proxies(settings)
    if server.prelude is not None and settings.proxy_protocol:
        server.prelude.proxies = server.proxies


def new_load(settings: config.ServerSettings, loop_lag: LoopLag) -> Load:
    """The measure by which requests are shed."""
    load = Load(0, 0.0)
    bound_load(load, settings)
    loop_lag.each_time(load.observe)
    return load


def bound_load(load: Load, settings: config.ServerSettings) -> None:
    """Use these settings from now on. Each of several processes has an equal part."""
    load.bound(max(1, settings.limits.in_flight // settings.processes), settings.limits.loop_lag)


def new_pool(
    settings: config.Settings, deadlines: Deadlines, storage: Storage, upstreams: list[Upstream]
) -> Upstreams:
    """The upstreams. Those that an operator has paused get no request; nor do those whose cost
    has reached its cap."""
    pool = Upstreams(upstreams, settings.pool, storage.ledger, deadlines)
    pool.restore(storage.paused, storage.spent)
    pool.by_hash = bool(settings.ledger.url)
    if storage.node is not None:
        from relay.gateway.leased_admissions import lease_upstreams

        lease_upstreams(storage.ledger, pool)
        storage.node.share_upstreams(NodeOutages(pool, storage.node.state_sync.wake))
    return pool


def new_bindings(settings: config.Settings, storage: Storage) -> Bindings:
    """The upstreams of conversations."""
    bindings = Bindings(session_seconds(settings.pool))
    if storage.node is not None:
        storage.node.share_sessions(SessionMoves(bindings, storage.node.state_sync.wake))
    return bindings


def new_metering(storage: Storage) -> Metering:
    """The ledger and the journal. A ledger that machines share admits by leases."""
    metering = Metering(storage.ledger, storage.journal)
    if storage.node is not None:
        from relay.gateway.leased_admissions import LeasedAdmissions

        metering.leases = metering.admissions = LeasedAdmissions(metering, storage.ledger)
    return metering


def unready(handler: Handler, storage: Storage, server: Server) -> str:
    """Why the relay cannot serve requests; "" if it can."""
    if server.draining:
        return "draining"
    if not handler.catalog.serves_any:
        return "no model has an upstream"
    if not storage.journal.healthy:
        return "the database cannot be written"
    if storage.node is not None and storage.node.refuses():
        return "the shared ledger (PostgreSQL) is away"
    return ""


def session_seconds(settings: config.PoolSettings) -> float:
    """How long a conversation stays bound to its upstream."""
    # Kept even without stickiness: a binding records whose thinking a history contains.
    return settings.sticky.seconds or 1.0


def _trusted_proxies(server: config.ServerSettings) -> TrustedProxies | None:
    """None: every peer is a caller."""
    given = server.trusted_proxies
    networks = [one.network for one in given if one.network is not None]
    return TrustedProxies(networks, unix=len(networks) < len(given)) if given else None


def _bounds(server: config.ServerSettings) -> Bounds:
    limits, times = server.limits, server.timeouts
    held = max(limits.held // server.processes, limits.body)  # each process has an equal part
    return Bounds(
        head=Limits(request_line=limits.request_line, head=limits.head, fields=limits.fields),
        body=limits.body,
        held=held,
        held_per_key=min(limits.held_per_key, held),
        uploads_per_key=limits.uploads_per_key,
        head_time=times.head,
        body_time=times.body,
        upload_time=times.upload,
        idle_time=times.idle,
        write_time=times.write,
        connections=min(limits.connections or max_connections(), max_connections()),
        per_address=limits.connections_per_address,
        is_exempt=_exempt(_trusted_proxies(server)),
    )
