"""Carries outages of upstreams and moves of conversations between nodes, beside all requests.

Decides when: at once after a report or a change, then no more often than every 100 ms, and again
once a lost connection is back. A part reads before it sends, so that reports which a change makes
void are not sent. Must not know what the parts carry.
"""

import asyncio
import logging
from typing import Final, Protocol

from relay.cluster.link import Connection, EngineAwayError, EngineRefusalError, Link
from relay.cluster.schema import SchemaError

_log = logging.getLogger("relay.cluster")

_PAUSE_SECONDS: Final = 0.1  # for reports to come together
_RETRY_SECONDS: Final = 1.0
_CLOSE_SECONDS: Final = 0.5  # for a call to see the end of its connection


class Part(Protocol):
    """One kind of shared state."""

    kind: str  # of changes, see `relay.change`

    def read_all(self) -> None:
        """Any change may have been missed."""

    async def sync(self, connection: Connection) -> None:
        """Read the news of others, and send those of this node. Raises psycopg.Error."""


class StateSync:
    """See the module."""

    def __init__(self, url: str, node: str) -> None:
        self._link = Link(url, f"{node} upstreams")
        self._parts: list[Part] = []
        self._work = asyncio.Event()
        self._refusal = ""
        self._is_closed = False
        self._task = asyncio.get_running_loop().create_task(self._run())

    def add(self, part: Part) -> None:
        """Carry this, too."""
        self._parts.append(part)
        self.wake()

    def wake(self) -> None:
        """There may be something to send or to read."""
        self._work.set()

    def changed(self, kind: str) -> None:
        """Something of a kind has changed; empty: anything may have."""
        for part in self._parts:
            if not kind:
                part.read_all()
            if kind in ("", part.kind):
                self.wake()

    async def close(self) -> None:
        """End at once."""
        self._is_closed = True
        self._work.set()
        self._link.abort()
        await asyncio.wait([self._task], timeout=_CLOSE_SECONDS)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._link.close()

    async def _run(self) -> None:
        while True:
            await self._work.wait()
            if self._is_closed:
                return
            self._work.clear()
            await self._link.wait_for_turn()
            try:
                await self._link.call(self._sync)
            except EngineAwayError:  # `Outages` says so
                self._work.set()
            except (EngineRefusalError, SchemaError) as error:
                if str(error) != self._refusal:
                    self._refusal = str(error)
                    _log.error("nothing is shared of upstreams: %s", error)
                self._work.set()
                await asyncio.sleep(_RETRY_SECONDS)
            except Exception:  # of one part: the others still need this task
                _log.exception("a state of an upstream was not handled")
                await asyncio.sleep(_RETRY_SECONDS)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _sync(self, connection: Connection) -> None:
        for part in self._parts:
            await part.sync(connection)
