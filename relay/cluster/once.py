"""Acts that may happen once in a cluster: a claim in PostgreSQL comes before the act.

Decides what a claim is worth: it stays for good once its act was done, so that a node which dies
before it could share the act leaves no second chance to the others. A claim whose act failed is
taken back. Without PostgreSQL there is no claim, and the act is refused. Must not know the acts.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from relay.cluster.link import Connection, EngineAwayError, EngineRefusalError, Link
from relay.cluster.schema import SchemaError
from relay.store.claims import ClaimError
from relay.store.errors import StoreError

_FAILURES: Final = (EngineAwayError, EngineRefusalError, SchemaError)
_PATIENCE_SECONDS: Final = 3.0  # for another node's act to end
_PAUSE_SECONDS: Final = 0.05
_AWAY: Final = "the shared ledger is away, and this may happen once only: try again later"
_TAKEN: Final = "this was done, or is being done, by node {}"
_BUSY: Final = "other nodes are busy with the same: try again in a moment"


class Once:
    """`relay.store.claims.Claims` of a node. All methods are for one event loop."""

    def __init__(self, url: str, node: str, sync: Callable[[], Awaitable[None]]) -> None:
        """`sync`: sends all changes of this node, and reads those of the others."""
        self.are_needed = True
        self._node = node
        self._sync = sync
        self._claims = Link(url, f"{node} claims acts")
        self._locks = Link(url, f"{node} acts alone")
        self._calling = asyncio.Lock()  # a link has one call at a time
        self._alone = asyncio.Lock()
        self._busy: dict[tuple[str, str], asyncio.Lock] = {}

    @asynccontextmanager
    async def once(self, kind: str, id: str) -> AsyncIterator[None]:
        """See `Claims`."""
        lock = self._busy.setdefault((kind, id), asyncio.Lock())
        try:
            async with lock:
                is_new = await self._claim(kind, id)
                try:
                    yield
                except Exception:
                    # A claim of an earlier attempt may be that of an act that was done.
                    if is_new:
                        await self._release(kind, id)
                    raise
        finally:
            if not lock.locked():
                self._busy.pop((kind, id), None)

    @asynccontextmanager
    async def alone(self, kind: str) -> AsyncIterator[None]:
        """See `Claims`."""
        async with self._alone:
            deadline = time.monotonic() + _PATIENCE_SECONDS
            try:
                while not await self._locks.call(lambda it: _lock(it, kind)):
                    if time.monotonic() > deadline:
                        raise ClaimError(_BUSY)
                    await asyncio.sleep(_PAUSE_SECONDS)
                await self._sync()
            except _FAILURES:
                raise ClaimError(_AWAY) from None
            try:
                yield
            finally:
                with contextlib.suppress(*_FAILURES, StoreError):
                    try:  # so that the next one sees the act
                        await self._sync()
                    finally:
                        await self._locks.call(lambda it: _unlock(it, kind))

    async def close(self) -> None:
        """End. Acts that are under way go on."""
        for link in (self._claims, self._locks):
            link.abort()
            await link.close()

    async def _claim(self, kind: str, id: str) -> bool:
        """Claim an act; whether this node had no claim on it before."""
        try:
            async with self._calling:
                owner, is_new = await self._claims.call(lambda it: _claim(it, kind, id, self._node))
        except _FAILURES:
            raise ClaimError(_AWAY) from None
        if owner != self._node:
            raise ClaimError(_TAKEN.format(owner))
        return is_new

    async def _release(self, kind: str, id: str) -> None:
        with contextlib.suppress(*_FAILURES):  # this node may try again, others may not
            async with self._calling:
                await self._claims.call(lambda it: _release(it, kind, id, self._node))


async def _claim(connection: Connection, kind: str, id: str, node: str) -> tuple[str, bool]:
    cursor = await connection.execute(
        "SELECT * FROM relay.claim_once(%s, %s, %s)", [kind, id, node]
    )
    row = await cursor.fetchone()
    assert row is not None
    return str(row[0]), bool(row[1])


async def _release(connection: Connection, kind: str, id: str, node: str) -> None:
    await connection.execute(
        "DELETE FROM relay.claimed_act WHERE kind = %s AND id = %s AND node = %s", [kind, id, node]
    )


async def _lock(connection: Connection, kind: str) -> bool:
    cursor = await connection.execute(
        "SELECT pg_try_advisory_lock(hashtextextended(%s, 21))", [f"relay {kind}"]
    )
    row = await cursor.fetchone()
    return row is not None and bool(row[0])


async def _unlock(connection: Connection, kind: str) -> None:
    await connection.execute(
        "SELECT pg_advisory_unlock(hashtextextended(%s, 21))", [f"relay {kind}"]
    )
