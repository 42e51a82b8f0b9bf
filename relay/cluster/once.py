"""Acts that may happen once in a cluster: a claim in PostgreSQL comes before the act.

Decides how long a claim lasts. It stays for good once its act was done and all rows of the act are
shared. A claim whose act failed is taken back. If the caller is cancelled, the database may go on
with the act: the claim is free once all rows of this node are shared. A node may die before that,
and then nobody else knows whether the act was done:
- when the node is back, its rows are shared first; then its claims are free;
- acts whose rows count as one, should they be done twice, are taken over once the node has been
  silent for ten minutes;
- others wait until the node is back, or until an operator declares it gone: then it stays away.
A node that takes a claim over reads the rows of all others first. Without PostgreSQL there is no
claim, and the act is refused. Must not know the acts, but for those that may be taken over.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final, NamedTuple, TypeAlias
from weakref import WeakValueDictionary

from relay.cluster.link import Connection, EngineAwayError, EngineRefusalError, Link
from relay.cluster.schema import SchemaError
from relay.store.claims import ClaimError
from relay.store.errors import StoreError

_Act: TypeAlias = tuple[str, str]  # kind and id
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


class _End:
    """The end of an attempt at an act. Each is a value of its own: a later attempt has another."""

    __slots__ = ("is_done",)

    def __init__(self, *, is_done: bool) -> None:
        self.is_done = is_done


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
        # A lock is there for as long as an attempt has it or waits for it.
        self._busy: WeakValueDictionary[_Act, asyncio.Lock] = WeakValueDictionary()
        self._boot = secrets.token_hex(4)
        self._ended: dict[_Act, _End] = {}  # those whose claims are to be settled
        self._settled = 0.0  # when claims were last settled, monotonic seconds

    @asynccontextmanager
    async def once(self, kind: str, id: str) -> AsyncIterator[None]:
        """See `Claims`."""
        act = kind, id
        lock = self._busy.setdefault(act, asyncio.Lock())
        async with lock:
            self._ended.pop(act, None)  # from now on it is not settled: it is under way
            is_new = False
            try:
                grant = await self._claim(act)
                is_new = grant.is_new
                if grant.is_taken:
                    await self._read_all()
                yield
            except BaseException as error:
                self._ended[act] = _End(is_done=False)
                # Not taken back at once: a claim of an earlier attempt, whose act may have been
                # done, or one whose caller has left, for whom the database may go on.
                if is_new and isinstance(error, Exception) and await self._release(act):
                    self._ended.pop(act, None)
                raise
            self._ended[act] = _End(is_done=True)

    @asynccontextmanager
    async def alone(self, kind: str) -> AsyncIterator[None]:
        """See `Claims`."""
        async with self._alone:
            try:
                await self._lock(kind)
                await self._read_all()
            except BaseException:
                await self._locks.close()  # and with the connection ends a lock that it may have
                raise
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

    def ended(self) -> Mapping[_Act, _End]:
        """The acts that have ended so far: to be settled once the rows of this moment are
        shared."""
        return dict(self._ended)

    async def settle(self, ended: Mapping[_Act, _End]) -> None:
        """Settle claims: all rows are shared that there were when `ended` was called. Raises as
        `Link.call`."""
        now = time.monotonic()
        if not ended and self._settled and now - self._settled < _SETTLE_SECONDS:
            return
        async with self._calling:
            # Not those that were begun again meanwhile. One that begins from here on waits for the
            # end of this call before it claims.
            settled = {act: end for act, end in ended.items() if self._ended.get(act) is end}
            values = [
                [kind for kind, _ in settled],
                [id for _, id in settled],
                [end.is_done for end in settled.values()],
            ]
            await self._claims.call(
                lambda it: it.execute(
                    "SELECT relay.settle_claims(%s, %s, %s::text[], %s::text[], %s::boolean[])",
                    [self._node, self._boot, *values],
                )
            )
        self._settled = now
        for act, end in settled.items():
            if self._ended.get(act) is end:
                del self._ended[act]

    async def number(self, series: str, subject: str, above: int) -> int:
        """See `Claims`."""
        try:
            async with self._calling:
                return await self._claims.call(lambda it: _number(it, series, subject, above))
        except _FAILURES:
            raise ClaimError(_AWAY) from None

    async def _claim(self, act: _Act) -> _Grant:
        try:
            async with self._calling:
                grant = await self._claims.call(
                    lambda it: _claim(it, act, (self._node, self._boot))
                )
        except _FAILURES:
            raise ClaimError(_AWAY) from None
        if grant.owner != self._node:
            raise ClaimError(_TAKEN.format(grant.owner) if grant.owner.strip() else _BUSY)
        return grant

    async def _lock(self, kind: str) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        try:
            while not await self._locks.call(lambda it: _lock(it, kind)):
                if time.monotonic() > deadline:
                    raise ClaimError(_BUSY)
                await asyncio.sleep(_PAUSE_SECONDS)
        except _FAILURES:
            raise ClaimError(_AWAY) from None

    async def _read_all(self) -> None:
        try:
            await self._sync()
        except _FAILURES:
            raise ClaimError(_AWAY) from None

    async def _release(self, act: _Act) -> bool:
        """Take a claim back; False: that may not have happened."""
        try:
            async with self._calling:
                await self._claims.call(lambda it: _release(it, act, self._node))
        except _FAILURES:
            return False
        return True


async def _claim(connection: Connection, act: _Act, process: tuple[str, str]) -> _Grant:
    """`process`: node and boot."""
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


async def _release(connection: Connection, act: _Act, node: str) -> None:
    await connection.execute(
        "DELETE FROM relay.claimed_act WHERE kind = %s AND id = %s AND node = %s", [*act, node]
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
