"""This process as a node of a cluster: its connections, its limits, and their upkeep.

Decides what is opened and closed in which order. Must not know requests.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

import psycopg

from relay.cluster import calls
from relay.cluster.attempts import attempts_at, first_line
from relay.cluster.courier import Courier
from relay.cluster.figures import Figures
from relay.cluster.limits import SharedLimits
from relay.cluster.link import EngineAwayError, EngineRefusalError, Link
from relay.cluster.listener import Listener
from relay.cluster.outage import OnOutage
from relay.cluster.reports import unused
from relay.cluster.schema import SchemaError, known_migrations, migrate
from relay.cluster.session_moves import SessionMovesPart
from relay.cluster.state_sync import StateSync
from relay.cluster.states import Sessions, UpstreamStates
from relay.cluster.upstream_states import UpstreamStatesPart
from relay.cluster.views import Views
from relay.cluster.waiting import TICK

_log = logging.getLogger("relay.cluster")

_TICK_SECONDS: Final = TICK / 1000
_LEASE_SECONDS: Final = 10.0  # the engine lets a lease live for so long
_FIRST_TICK: Final = 10  # the relay says first where it listens
_CLOSE_SECONDS: Final = 2.0  # for the leases to go back
_CONNECT_SECONDS: Final = 3
_PATIENCE_SECONDS: Final = 5.0  # at the start, for the engine to be there
_PAUSE_SECONDS: Final = 0.25  # between the attempts
_READ_SECONDS: Final = 60.0  # between readings of the engine's figures, which look at all leases
_RETRY_SECONDS: Final = 2.0
_MIGRATION_SECONDS: Final = 60


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """`name`: of this node, another one for each process. `on_outage`: see `outage`."""

    url: str
    name: str
    on_outage: OnOutage = "refuse"


@dataclass(frozen=True, slots=True)
class NodeFigures:
    """A node's state, for metrics and the operator. Seconds, and amounts of all limits."""

    counters: dict[str, int | float]  # by the names in `Figures`
    away_for: float  # 0: the engine is there
    nodes: int
    leases: int  # with something unused
    unused: int
    engine: calls.EngineFigures | None  # of the last minutes; None: not read yet


class ClusterNode:
    """See the module."""

    def __init__(self, settings: ClusterSettings, on_change: Callable[[str, str], None]) -> None:
        """`on_change`: see `Listener`. Call it on the loop."""
        boot = secrets.token_hex(4)
        self.lease = f"{settings.name}/{boot}"
        self.figures = Figures()
        self._settings = settings
        self._courier = Courier(settings.url, settings.name, self.figures)
        self.limits = SharedLimits(self.lease, self._courier, self.figures, settings.on_outage)
        self.views = Views(settings.url, settings.name, self.limits)
        self.state_sync = StateSync(settings.url, settings.name)

        def changed(kind: str, id: str) -> None:
            self.state_sync.changed(kind)
            on_change(kind, id)

        self._listener = Listener(
            settings.url, (settings.name, boot), self.limits, self.figures, changed
        )
        self._listener.on_begun = self.state_sync.wake
        self._task = asyncio.get_running_loop().create_task(self._tick())
        self._reading = asyncio.get_running_loop().create_task(self._read_engine())
        self._engine: calls.EngineFigures | None = None
        self._migrating: asyncio.Task[None] | None = None  # the engine was away at the start

    @classmethod
    async def open(
        cls, settings: ClusterSettings, on_change: Callable[[str, str], None]
    ) -> "ClusterNode":
        """Bring the schema up to date, and join. A node whose engine is away starts all the same,
        and does what `on_outage` says.

        Raises:
            SchemaError: this program cannot use the database, or may not make its tables.
        """
        attempts = attempts_at(settings.url)  # known until connections are made
        deadline = asyncio.get_running_loop().time() + _PATIENCE_SECONDS
        while True:
            try:
                await migrated(settings)
            except EngineAwayError:  # which `Outages` logs
                if asyncio.get_running_loop().time() < deadline:
                    await asyncio.sleep(_PAUSE_SECONDS)
                    await attempts.wait()
                    continue
                node = cls(settings, on_change)
                node._migrating = asyncio.get_running_loop().create_task(node._migrate_later())
                return node
            return cls(settings, on_change)

    async def _migrate_later(self) -> None:
        """Bring the schema up to date once the engine is there."""
        while True:
            await asyncio.sleep(_RETRY_SECONDS)
            try:
                await migrated(self._settings)
            except EngineAwayError:
                continue
            except SchemaError as error:
                _log.error("%s", error)
            return

    def share_upstreams(self, states: UpstreamStates) -> None:
        """Share the outages of these upstreams with the other nodes."""
        self.state_sync.add(UpstreamStatesPart(self._settings.name, self.lease, states))

    def share_sessions(self, sessions: Sessions) -> None:
        """Share the moves of these conversations with the other nodes."""
        self.state_sync.add(SessionMovesPart(self.lease, sessions))

    async def close(self) -> None:
        """Give all leases back, as far as the engine is there, and leave."""
        tasks = [self._task, self._reading]
        if self._migrating is not None:
            tasks.append(self._migrating)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self.limits.close()
        except TimeoutError:
            _log.warning("leases were not given back: they count as used until they end")
        await self.views.close()
        await self.state_sync.close()
        await self._listener.close(leaves=True)
        await self._courier.close()

    async def adjust(self, change: calls.WindowChange) -> None:
        """Carry out a change of windows. Raises as `engine_figures`."""
        link = Link(self._settings.url, f"{self._settings.name} changes")
        try:
            await link.call(lambda connection: calls.adjust(connection, change))
        finally:
            await link.close()

    def refuses(self) -> bool:
        """Whether all leases are over, since the engine is away, and requests that are limited are
        refused."""
        away = self._courier.away_for()
        has_begun = self.limits.reported() is not None  # else there are no leases
        return self._settings.on_outage == "refuse" and away > (_LEASE_SECONDS if has_begun else 0)

    def view(self) -> NodeFigures:
        """The node's state at this moment."""
        now = self.limits.clock()
        leases, amount = unused(self.limits.live.values(), now)
        figures: Any = self.figures
        return NodeFigures(
            counters={name: getattr(figures, name) for name in Figures.__slots__},
            # An idle node hears of it by its poll.
            away_for=max(self._courier.away_for(), self._listener.away_for()),
            nodes=self.limits.nodes,
            leases=leases,
            unused=amount,
            engine=self._engine,
        )

    async def _read_engine(self) -> None:
        while True:
            await asyncio.sleep(_READ_SECONDS)
            self._engine = await _read(self._settings.url)

    async def _tick(self) -> None:
        for number in count():
            self.limits.stalls.tick(self.limits.clock())
            if number >= _FIRST_TICK:
                if self._listener.away_for():  # a node that claims nothing finds out, too
                    self._courier.look()
                self.limits.tick()
            await asyncio.sleep(_TICK_SECONDS)


async def _read(url: str) -> calls.EngineFigures | None:
    try:
        return await engine_figures(url)
    except (EngineAwayError, EngineRefusalError, SchemaError):
        return None


async def migrated(settings: ClusterSettings) -> None:
    """Bring the schema up to date.

    Raises:
        EngineAwayError: the engine is away, or attempts are held back.
        SchemaError: see `ClusterNode.open`.
    """
    attempts, began = attempts_at(settings.url), time.monotonic()
    if not attempts.begin():
        raise EngineAwayError(attempts.reason)
    failure: psycopg.Error | None = None
    try:
        async with (
            asyncio.timeout(2 * _MIGRATION_SECONDS),
            await psycopg.AsyncConnection.connect(
                settings.url,
                autocommit=True,
                connect_timeout=_CONNECT_SECONDS,
                application_name=f"relay {settings.name} starts",
                options=f"-c statement_timeout={_MIGRATION_SECONDS}s",
            ) as connection,
        ):
            await migrate(connection, known_migrations())
    except (psycopg.OperationalError, TimeoutError) as error:
        failure = error if isinstance(error, psycopg.Error) else None
        raise EngineAwayError(first_line(error)) from None
    except psycopg.Error as error:
        raise SchemaError(f"the shared ledger cannot be set up: {first_line(error)}") from error
    finally:
        attempts.end(failure, began)


async def engine_figures(url: str) -> calls.EngineFigures:
    """The engine's own figures, over a connection of their own.

    Raises:
        EngineAwayError: the engine is away.
        EngineRefusalError: it refused.
        SchemaError: this program cannot use the database.
    """
    link = Link(url, "doctor")
    try:
        return await link.call(calls.read_figures)
    finally:
        await link.close()
