"""How a relay becomes a node: its name, its connections, and its ledger.

Decides the name of a node that has none in relay.toml. Must not know requests.
"""

import hashlib
import os
import re
import socket
from typing import Final

from relay.cluster.calls import WindowChange
from relay.cluster.ledger import AWAY, ClusterLedger
from relay.cluster.link import EngineAwayError, EngineRefusalError
from relay.cluster.node import ClusterNode, ClusterSettings
from relay.cluster.replication.replication import Replication
from relay.cluster.schema import SchemaError
from relay.cluster.url import read_url
from relay.cluster.windows import owner_window_name
from relay.config import ConfigError, Settings
from relay.errors import OVERLOADED, RelayError
from relay.quota.holdings import SharedChange
from relay.store.database import Database

_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9._-]+")
_MAX_HOST: Final = 48  # characters


def node_name(settings: Settings) -> str:
    """The configured name, else one of this host and database."""
    if settings.ledger.node:
        return settings.ledger.node
    path = os.path.realpath(settings.database.path)
    digest = hashlib.sha256(path.encode(errors="surrogateescape")).hexdigest()[:8]
    host = _NOT_IN_NAMES.sub("-", socket.gethostname())[:_MAX_HOST] or "relay"
    return f"{host}-{digest}"


async def join(settings: Settings) -> ClusterNode:
    """Reach the shared ledger; a relay starts without it, too, and then does what `on_outage` says.

    Raises:
        ConfigError: the URL cannot be read, or this program cannot use the database.
    """
    try:
        url = _url(settings)
        return await ClusterNode.open(
            ClusterSettings(url, node_name(settings), settings.ledger.on_outage), _ignore
        )
    except (ValueError, SchemaError) as error:
        raise ConfigError("ledger.url", str(error)) from None


async def replicate(settings: Settings, database: Database) -> Replication:
    """Share the database's rows with the other nodes.

    Raises:
        ConfigError: PostgreSQL cannot be used, or is away and lacks what this node brings.
        StoreError: SQLite failed, or the rows contradict those of the others.
    """
    try:
        url = _url(settings)
        days = settings.database.retention_days
        addresses = {one.name: one.base_url for one in settings.upstream}
        return await Replication.open(database, url, node_name(settings), days, addresses)
    except EngineAwayError as error:
        raise ConfigError("ledger.url", f"a new node needs PostgreSQL to join: {error}") from None
    except (ValueError, SchemaError, EngineRefusalError) as error:
        raise ConfigError("ledger.url", str(error)) from None


def _url(settings: Settings) -> str:
    """The ledger's URL. Raises ValueError: it cannot be used."""
    url = settings.ledger.resolved_url()
    read_url(url)
    return url


def shared_ledger(node: ClusterNode) -> ClusterLedger:
    """A ledger that admits from the node's leases."""
    ledger = ClusterLedger(node.limits)

    async def change(wanted: SharedChange) -> None:
        try:
            await node.adjust(window_change(wanted))
        except (EngineAwayError, EngineRefusalError, SchemaError):
            raise RelayError(OVERLOADED, AWAY) from None

    ledger.on_change = change
    ledger.views = node.views
    return ledger


def window_change(wanted: SharedChange) -> WindowChange:
    """A change by the names that windows have among nodes."""
    if wanted.kind == "renew":
        windows = [(f"{scope}/{owner}/", 0) for scope, owner in wanted.owners]
    else:
        windows = [
            (owner_window_name(scope, owner, wanted.counts, wanted.per), wanted.per * 1000)
            for scope, owner in wanted.owners
        ]
    return WindowChange(wanted.name, wanted.kind, windows, wanted.amount, wanted.windows)


def _ignore(kind: str, id: str) -> None:
    """Changes of rows are not the ledger's."""
