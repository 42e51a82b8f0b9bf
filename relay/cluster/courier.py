"""Carries claims to PostgreSQL and grants back: those of many requests in one round trip.

Decides which claims travel together. Those that a request waits for go at once, and with all that
came while the call before was out. Claims ahead of need have a connection of their own and wait
for others, so that a thousand keys cost a few calls a second. Must not know what a claim is about.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple, TypeAlias

from relay.cluster.calls import Answers, WindowClaim, acquire
from relay.cluster.figures import Figures
from relay.cluster.link import EngineAwayError, EngineRefusalError, Link
from relay.cluster.schema import SchemaError
from relay.quota.share.claims import Grant

_log = logging.getLogger("relay.cluster")

_AHEAD_SECONDS: Final = 0.1  # claims ahead of need wait so long for others
_CLOSE_SECONDS: Final = 0.5  # for a call to see the end of its connection
_BATCH: Final = 128  # claims in one call: some 20 ms of the server's time


class Reply(NamedTuple):
    """The grants of one errand; None: it failed, and may have been carried out or not."""

    grants: list[Grant] | None
    incarnation: int
    frozen: bool


class Errand(NamedTuple):
    """The claims of one request, and the function that gets the reply."""

    claims: Sequence[WindowClaim]
    done: Callable[[Reply], None]


Requests: TypeAlias = Sequence[Sequence[WindowClaim]]
Acquire: TypeAlias = Callable[[Link, Requests], Awaitable[Answers | None]]


class Courier:
    """See the module."""

    def __init__(self, url: str, node: str, figures: Figures) -> None:
        self.reported = 0  # the incarnation of the engine that has all of the node's use
        self._node = node
        self._figures = figures
        self.urgent_link = Link(url, f"{node} claims")
        self._ahead_link = Link(url, f"{node} claims ahead")
        self._urgent = _Lane(self.urgent_link, 0.0, self._acquire)
        self._ahead = _Lane(self._ahead_link, _AHEAD_SECONDS, self._acquire)

    def send(self, errand: Errand, *, urgent: bool) -> None:
        """Let the claims be answered. `urgent`: a request waits, here or at another node."""
        (self._urgent if urgent else self._ahead).put(errand)

    @property
    def down_since(self) -> float | None:
        """When the engine was lost, monotonic seconds; None: it is there."""
        return self.urgent_link.down_since

    def look(self) -> None:
        """Find out whether the engine is there, though no claim is to be sent."""
        self._urgent.look()

    def away_for(self) -> float:
        """Seconds since the engine was lost; 0: it is there."""
        return self.urgent_link.away_for()

    async def flush(self) -> None:
        """Wait until all that was sent so far has its reply."""
        await asyncio.gather(self._urgent.flush(), self._ahead.flush())

    async def close(self) -> None:
        """End at once. What is under way fails."""
        await asyncio.gather(self._urgent.close(), self._ahead.close())

    async def _acquire(self, link: Link, requests: Requests) -> Answers | None:
        """One round trip; None: it failed."""
        figures = self._figures
        figures.calls += 1
        figures.claims += sum(map(len, requests))
        try:
            return await link.call(lambda it: acquire(it, self._node, self.reported, requests))
        except (EngineAwayError, EngineRefusalError, SchemaError) as error:
            figures.failed_calls += 1
            if not isinstance(error, EngineAwayError):  # `Outages` says that it is away
                _log.warning("the shared ledger refused claims: %s", error)
            return None


class _Lane:
    """A queue and its connection."""

    def __init__(self, link: Link, delay: float, acquire: Acquire) -> None:
        self._link = link
        self._delay = delay
        self._acquire = acquire
        self._queue: deque[Errand] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_closed = False
        self._task = asyncio.get_running_loop().create_task(self._run())

    def put(self, errand: Errand) -> None:
        self._queue.append(errand)
        self._wake.set()
        self._idle.clear()

    def look(self) -> None:
        self._wake.set()

    async def flush(self) -> None:
        await self._idle.wait()

    async def close(self) -> None:
        self._is_closed = True
        self._wake.set()
        self._link.abort()
        await asyncio.wait([self._task], timeout=_CLOSE_SECONDS)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._link.close()
        self._fail(list(self._queue))
        self._queue.clear()
        self._idle.set()

    async def _run(self) -> None:
        await self._find()  # so that the first claim need not wait for it
        while not self._is_closed:
            if self._link.down_since is None:
                await self._wake.wait()
                if self._delay:
                    await asyncio.sleep(self._delay)
            await self._link.wait_for_turn()
            if self._queue:
                await self._carry(self._next_batch())
            else:
                await self._find()
            if not self._queue:
                self._wake.clear()
                self._idle.set()

    async def _find(self) -> None:
        """Open the connection, so that no claim is needed to find out whether it can be."""
        try:
            await self._link.call(lambda connection: connection.execute("SELECT 1"))
        except (EngineAwayError, EngineRefusalError, SchemaError):
            pass  # the next attempt comes after a pause

    def _next_batch(self) -> list[Errand]:
        batch: list[Errand] = []
        claims = 0
        while self._queue and (not batch or claims + len(self._queue[0].claims) <= _BATCH):
            errand = self._queue.popleft()
            claims += len(errand.claims)
            batch.append(errand)
        return batch

    async def _carry(self, batch: list[Errand]) -> None:
        try:
            answers = await self._acquire(self._link, [errand.claims for errand in batch])
        except asyncio.CancelledError:
            self._fail(batch)
            raise
        if answers is None:
            self._fail(batch)
            return
        for errand, grants in zip(batch, answers.grants, strict=True):
            self._hand(errand, Reply(grants, answers.incarnation, answers.frozen))

    def _fail(self, batch: Sequence[Errand]) -> None:
        for errand in batch:
            self._hand(errand, Reply(None, 0, False))

    def _hand(self, errand: Errand, reply: Reply) -> None:
        try:
            errand.done(reply)
        except Exception:  # of one request: all others still need this lane
            _log.exception("an answer of the shared ledger was not handled")
