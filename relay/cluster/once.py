"""Acts that may happen once in a cluster: a claim in PostgreSQL comes before the act.

Decides what a claim is worth. It stays for good once its act was done and all rows of the act are
shared. A claim whose act failed is taken back. A node may die between the two, and then nobody else
knows whether the act was done:
- when the node is back, its rows are shared first; then its claims are free;
- acts whose rows count as one, should they be done twice, are taken over once the node has been
  silent for ten minutes;
- others wait until the node is back, or until an operator declares it gone: then it stays away.
Whoever takes a claim over reads the rows of all others first. Without PostgreSQL there is no claim,
and the act is refused. Must not know the acts, but for those that may be taken over.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

from relay.cluster.link import Connection, EngineAwayError, EngineRefusalError, Link
from relay.cluster.schema import SchemaError
from relay.store.claims import ClaimError
from relay.store.errors import StoreError

_FAILURES: Final = (EngineAwayError, EngineRefusalError, SchemaError)
_PATIENCE_SECONDS: Final = 3.0  # for another node's act to end
_PAUSE_SECONDS: Final = 0.05
_SETTLE_SECONDS: Final = 30.0  # between looks for claims of earlier processes
# An entry of a statement is known by what it is about: a second one is dropped where it comes.
REPEATABLE: Final = ("payment event", "refund")
_AWAY: Final = "the shared ledger is away, and this may happen once only: try again later"
_TAKEN: Final = "this was done, or is being done, by node {}"
_BUSY: Final = "other nodes are busy with the same: try again in a moment"


class _Grant(NamedTuple):
    """The answer to a claim, see `relay.claim_act`."""

    owner: str
    is_new: bool
    is_taken: bool


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
        self._boot = secrets.token_hex(4)
        self._ended: dict[tuple[str, str], bool] = {}  # acts: whether they were done
        self._settled = 0.0  # when claims were last settled, monotonic seconds

    @asynccontextmanager
    async def once(self, kind: str, id: str) -> AsyncIterator[None]:
        """See `Claims`."""
        lock = self._busy.setdefault((kind, id), asyncio.Lock())
        try:
            async with lock:
                grant = await self._claim(kind, id)
                try:
                    if grant.is_taken:
                        await self._read_all()
                    yield
                except Exception:
                    # A claim of an earlier attempt may be that of an act that was done.
                    if not grant.is_new or not await self._release(kind, id):
                        self._ended[kind, id] = False
                    raise
                self._ended[kind, id] = True
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

    def ended(self) -> dict[tuple[str, str], bool]:
        """The acts that have ended so far, and whether they were done: to be settled once the rows
        of this moment are shared."""
        return dict(self._ended)

    async def settle(self, ended: dict[tuple[str, str], bool]) -> None:
        """Settle claims: all rows are shared that there were when `ended` was called. Raises as
        `Link.call`."""
        now = time.monotonic()
        if not ended and self._settled and now - self._settled < _SETTLE_SECONDS:
            return
        kinds, ids = [kind for kind, _ in ended], [id for _, id in ended]
        async with self._calling:
            await self._claims.call(
                lambda it: it.execute(
                    "SELECT relay.settle_claims(%s, %s, %s::text[], %s::text[], %s::boolean[])",
                    [self._node, self._boot, kinds, ids, [*ended.values()]],
                )
            )
        self._settled = now
        for name, is_done in ended.items():
            if self._ended.get(name) == is_done:
                del self._ended[name]

    async def number(self, series: str, subject: str, above: int) -> int:
        """See `Claims`."""
        try:
            async with self._calling:
                return await self._claims.call(lambda it: _number(it, series, subject, above))
        except _FAILURES:
            raise ClaimError(_AWAY) from None

    async def _claim(self, kind: str, id: str) -> _Grant:
        self._ended.pop((kind, id), None)  # not known any more
        try:
            async with self._calling:
                grant = await self._claims.call(
                    lambda it: _claim(it, (kind, id), (self._node, self._boot))
                )
        except _FAILURES:
            raise ClaimError(_AWAY) from None
        if grant.owner != self._node:
            raise ClaimError(_TAKEN.format(grant.owner) if grant.owner.strip() else _BUSY)
        return grant

    async def _read_all(self) -> None:
        try:
            await self._sync()
        except _FAILURES:
            raise ClaimError(_AWAY) from None

    async def _release(self, kind: str, id: str) -> bool:
        """Take a claim back; False: that may not have happened."""
        try:
            async with self._calling:
                await self._claims.call(lambda it: _release(it, kind, id, self._node))
        except _FAILURES:
            return False
        return True


async def _claim(connection: Connection, act: tuple[str, str], process: tuple[str, str]) -> _Grant:
    """`act`: kind and id; `process`: node and boot."""
    cursor = await connection.execute(
        "SELECT * FROM relay.claim_act(%s, %s, %s, %s, %s)", [*act, *process, act[0] in REPEATABLE]
    )
    row = await cursor.fetchone()
    assert row is not None
    return _Grant(*row)


async def _number(connection: Connection, series: str, subject: str, above: int) -> int:
    cursor = await connection.execute(
        "SELECT relay.give_number(%s, %s, %s::bigint)", [series, subject, above]
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


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
