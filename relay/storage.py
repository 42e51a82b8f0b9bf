"""The open database, and every part of a relay that starts from its contents.

Decides what is read at the start, and in which order. Must not know sockets or requests.
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from relay import config
from relay.changes import InForce, apply_keys, apply_spending, read_spending
from relay.config import ConfigError, Settings
from relay.gateway.authentication import KeyIndex
from relay.gateway.catalog import Catalog
from relay.quota.held import State
from relay.quota.ledger import Ledger
from relay.quota.transfer import join
from relay.secret import Secret, derived
from relay.store import pauses
from relay.store.database import Database
from relay.store.journal import Journal
from relay.store.keys import live_keys, revision
from relay.store.records import AdmissionRow
from relay.store.recovery import restore
from relay.store.replication import joining
from relay.store.responses import Bounds as ResponseBounds
from relay.store.responses import DatabaseResponseStore, MemoryResponseStore, ResponseStore
from relay.store.server_secret import sealing_key
from relay.upkeep import upstream_costs
from relay.web.mount import WebMount
from relay.web.parts import Operations, Parts

if TYPE_CHECKING:
    from relay.cluster.node import ClusterNode
    from relay.cluster.replication.replication import Replication

_STOP_FIRST = "a relay joins others when it starts: stop this one, then start it again"


async def open_storage(
    settings: Settings, hand_over: Callable[[], Awaitable[State]] | None
) -> "Storage":
    """Join the relays that share a ledger, if any, and see `Storage.open`. `hand_over`: has the
    process that serves until now stop, and gives its state; None: there is none."""
    node = await _joined(settings)
    try:
        return await Storage.open(settings, None if hand_over is None else await hand_over(), node)
    except BaseException:
        if node is not None:
            await node.close()  # others would wait for it, and share limits with it
        raise


async def _joined(settings: Settings) -> "ClusterNode | None":
    """This process as a node of those that share a ledger; None: it has its own.

    Raises:
        ConfigError: the shared ledger cannot be used.
    """
    if not settings.ledger.url:
        return None
    try:
        from relay.cluster.joining import join  # psycopg is for those who share a ledger
    except ImportError as error:
        raise ConfigError("ledger.url", f"{config.missing_client()} ({error})") from None
    return await join(settings)


async def _replicated(
    settings: Settings, database: Database, *, alive: bool
) -> "Replication | None":
    """The database with the rows of the other nodes; None: it is no node's, from now on. `alive`:
    the last process is handing over.

    Raises:
        ConfigError: PostgreSQL cannot be used, or is away at a node's first start.
        StoreError: the database cannot be used, or its rows contradict those of the others.
    """
    is_member = await database.run(joining.membership) is not None
    if not settings.ledger.url:
        if is_member:
            await database.write(joining.leave)
        return None
    from relay.cluster.joining import replicate

    if not is_member:
        if alive:  # its requests in flight are yet to be counted where no other node would see it
            raise ConfigError("ledger.url", _STOP_FIRST)
        await restore(database, time.time())  # it joins with what its limits have used until now
    return await replicate(settings, database)


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
    running: list[AdmissionRow]  # requests of the process that hands over
    spent: dict[str, tuple[int, int]]  # micro-dollars of this day and month, by upstream
    in_force: InForce  # of the accounts
    node: "ClusterNode | None" = None  # None: the ledger is this process's own
    replication: "Replication | None" = None  # None: so are all rows

    @classmethod
    async def open(
        cls,
        settings: Settings,
        handed: State | None = None,
        node: "ClusterNode | None" = None,
    ) -> "Storage":
        """Open the database and restore the state that the last process left, or hands over. With
        a `node`, the ledger is shared.

        Raises:
            ConfigError: the key for stored responses cannot be read.
            StoreError: the database cannot be used.
        """
        database = await Database.open(settings.database.path)
        replication = await _replicated(settings, database, alive=handed is not None)
        state = await restore(database, time.time(), alive=handed is not None)
        ledger = Ledger() if node is None else _shared_ledger(node)
        ledger.restore(state.rows)
        if handed is not None:
            join(ledger, handed)
        ledger.go_on(alive=handed is not None)
        if settings.database.synchronous == "normal":
            database.open_inline()
        journal = await Journal.start(database, ledger.changes, settings.database.synchronous)
        storage = await cls._read(settings, database, ledger, journal, state.running)
        return replace(storage, node=node, replication=replication)

    async def close(self) -> None:
        """Write and share what waits, and give leases back."""
        await self.journal.close()
        if self.node is not None:
            await self.node.close()
        if self.replication is not None:
            await self.replication.close()
        await self.database.close()

    @classmethod
    async def beside(
        cls, settings: Settings, database: Database, ledger: Ledger, journal: Journal
    ) -> "Storage":
        """As `open`, in a process whose limits and journal are another one's. Raises as `open`."""
        return await cls._read(settings, database, ledger, journal, [])

    @classmethod
    async def _read(
        cls,
        settings: Settings,
        database: Database,
        ledger: Ledger,
        journal: Journal,
        running: list[AdmissionRow],
    ) -> "Storage":
        secret = _responses_secret(settings.responses)
        if secret is None:
            sealing = await sealing_key(database)
        else:
            sealing = derived(secret, b"relay sealing")
        paused = list(await pauses.paused(database))
        # Read first, so that a later change is found as one.
        number = await revision(database)
        keys = await live_keys(database)
        now = time.time()
        spending = await read_spending(database, now)
        storage = cls(
            database,
            ledger,
            KeyIndex(),
            journal,
            paused,
            _response_store(settings.responses, secret, database),
            sealing,
            running,
            await upstream_costs(database, now),
            InForce(number, {account: one.plan for account, one in spending.items()}),
        )
        apply_keys(storage.keys, ledger, keys)
        apply_spending(ledger, spending, now)
        return storage

    def web(
        self,
        settings: Callable[[], Settings],
        catalog: Callable[[], Catalog],
        operations: Callable[[], Operations],
        refresh: Callable[[], Awaitable[None]],
    ) -> WebMount:
        """The pages for people, with the settings, the catalog and the parts of each moment."""
        parts = Parts(self.database, self.ledger, settings, catalog, operations, refresh)
        return WebMount(parts)


def _shared_ledger(node: "ClusterNode") -> Ledger:
    from relay.cluster.joining import shared_ledger

    return shared_ledger(node)


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
