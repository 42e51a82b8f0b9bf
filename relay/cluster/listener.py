"""Hears of recalls and changes, and says each second that this node is alive.

Decides when a node polls: each second, and at once after a change. A notification that was
lost, with its connection or before it, is made up for by the poll. Must not know what a recall or
a change is about.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Final, Protocol

import psycopg

from relay.cluster import calls
from relay.cluster.figures import Figures
from relay.cluster.link import (
    ANSWER_SECONDS,
    Connection,
    EngineAwayError,
    EngineRefusalError,
    Link,
)
from relay.cluster.schema import SchemaError

_log = logging.getLogger("relay.cluster")

_POLL_SECONDS: Final = 1.0
_TIDY_SECONDS: Final = 600.0
_LISTEN_SECONDS: Final = 0.25  # `close` waits so long at most


class Node(Protocol):
    """The node that listens."""

    def recalled(self, window: str, asker: str) -> None:
        """The lease `asker` could use what is unused here."""

    def polled(self, pulse: calls.Pulse) -> None:
        """The engine answered."""

    def reported(self) -> int | None:
        """The incarnation that has all of this node's use; None: nothing was used."""


class Listener:
    """See the module. `on_change` gets kind and id of each change, in their order; `("", "")`
    when any may have been missed."""

    def __init__(
        self, url: str, name: tuple[str, str], node: Node, figures: Figures,
        on_change: Callable[[str, str], None],
    ) -> None:  # fmt: skip
        """`name`: of the node, and of its boot."""
        self.seq: int | None = None  # of the last change that was handed on
        self.on_begun: Callable[[], None] | None = None  # all later changes are handed on
        self._name = name
        self._node = node
        self._figures = figures
        self._on_change = on_change
        self._link = Link(url, f"{name[0]} listens")
        self._listening: Connection | None = None
        self._tidied = time.monotonic()
        self._due = 0.0
        self._refusal = ""
        self._is_closed = False
        self._task = asyncio.get_running_loop().create_task(self._run())

    def away_for(self) -> float:
        """Seconds since the engine was lost; 0: it is there."""
        return self._link.away_for()

    async def close(self, *, leaves: bool) -> None:
        """End. `leaves`: the node needs not be waited for after a failure of the engine."""
        self._is_closed = True
        # A poll that is under way would let the node be alive again after it has left.
        answer_seconds = ANSWER_SECONDS if self._link.down_since is None else 0.0
        await asyncio.wait([self._task], timeout=2 * _LISTEN_SECONDS + answer_seconds)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self._task.cancelled():  # in a call: its connection takes no other one
            self._link.abort()
            await self._link.close()
        if leaves and self._link.down_since is None:
            try:
                await self._link.call(lambda it: calls.leave(it, *self._name))
            except (EngineAwayError, EngineRefusalError, SchemaError):
                pass  # it counts as alive for some seconds more
        self._link.abort()
        await self._link.close()

    async def _run(self) -> None:
        while not self._is_closed:
            await self._link.wait_for_turn()
            try:
                await self._link.call(self._beat)
                await self._hear()
            except EngineAwayError:
                pass  # `Outages` says so
            except (EngineRefusalError, SchemaError) as error:
                if str(error) != self._refusal:
                    self._refusal = str(error)
                    _log.error("the shared ledger cannot be used: %s", error)
                await asyncio.sleep(_POLL_SECONDS)
            except (
                Exception
            ):  # of a function that was called: the node must be heard of all the same
                _log.exception("a change or a recall in the shared ledger was not handled")
                await asyncio.sleep(_POLL_SECONDS)

    async def _beat(self, connection: Connection) -> None:
        """One poll."""
        self._due = time.monotonic() + _POLL_SECONDS
        if connection is not self._listening:
            await connection.execute("LISTEN relay_recall")
            await connection.execute("LISTEN relay_change")
            self._listening = connection
        started = time.monotonic()
        pulse = await calls.poll(connection, *self._name, self._node.reported())
        self._figures.lag = time.monotonic() - started
        self._node.polled(pulse)
        if self.seq is None:
            self.seq = pulse.seq
            if self.on_begun is not None:
                self.on_begun()
        elif pulse.seq != self.seq:
            await self._hand_on(connection, pulse.seq)
        if started - self._tidied > _TIDY_SECONDS:
            self._tidied = started
            await calls.tidy(connection)

    async def _hand_on(self, connection: Connection, seq: int) -> None:
        """Hand on the changes since the last one."""
        assert self.seq is not None
        changes = await calls.changes_after(connection, self.seq)
        # Old ones are deleted, and an earlier state of the database has lower numbers.
        if seq < self.seq or not changes or changes[0][0] != self.seq + 1:
            self._on_change("", "")
        for _, kind, id in changes:
            self._on_change(kind, id)
        self.seq = changes[-1][0] if changes else seq

    async def _hear(self) -> None:
        """Hand on notifications until the next poll is due."""
        while self._listening is not None and not self._listening.closed:
            left = self._due - time.monotonic()
            if left <= 0 or self._is_closed:
                return
            try:
                timeout = min(left, _LISTEN_SECONDS)
                async with aclosing(self._listening.notifies(timeout=timeout)) as notified:
                    async for one in notified:
                        if one.channel == "relay_change":
                            self._due = 0.0
                            break
                        asker, _, window = one.payload.partition(" ")
                        self._node.recalled(window, asker)
            except psycopg.Error as error:  # the next poll opens another connection
                _log.debug("the connection that listens was lost: %s", error)
                return
