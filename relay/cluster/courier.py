"""Carries claims to PostgreSQL and grants back: those of many requests in one round trip.

Decides which claims travel together. Those that a request waits for go at once, and with all that
came while the call before was out. Claims ahead of need have a connection of their own and wait
for others, so that a thousand keys cost a few calls a second. Must not know what a claim is about.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from relay.cluster.calls import Answers, WindowClaim, acquire
from relay.cluster.figures import Figures
from relay.cluster.link import Connection, EngineAwayError, EngineRefusalError, Link
from relay.cluster.schema import SchemaError
from relay.quota.share.claims import Grant

_log = logging.getLogger("relay.cluster")

_AHEAD_SECONDS: Final = 0.1  # claims ahead of need wait so long for others
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


class Courier:
    """See the module."""

    def __init__(self, url: str, node: str, figures: Figures) -> None:
        self.urgent_link = Link(url, f"{node} claims")
        self._ahead_link = Link(url, f"{node} claims ahead")
        self._urgent = _Lane(self.urgent_link, 0.0, figures)
        self._ahead = _Lane(self._ahead_link, _AHEAD_SECONDS, figures)

    def send(self, errand: Errand, *, urgent: bool) -> None:
        """Let the claims be answered. `urgent`: a request waits, here or at another node."""
        (self._urgent if urgent else self._ahead).put(errand)

    @property
    def down_since(self) -> float | None:
        """When the engine was lost, monotonic seconds; None: it is there."""
        return self.urgent_link.down_since

    def away_for(self) -> float:
        """Seconds since the engine was lost; 0: it is there."""
        down_since = self.down_since
        return 0.0 if down_since is None else time.monotonic() - down_since

    async def flush(self) -> None:
        """Wait until all that was sent so far has its reply."""
        await asyncio.gather(self._urgent.flush(), self._ahead.flush())

    async def close(self) -> None:
        """End at once. What is under way fails."""
        await asyncio.gather(self._urgent.close(), self._ahead.close())


class _Lane:
    """A queue and its connection."""

    def __init__(self, link: Link, delay: float, figures: Figures) -> None:
        self._link = link
        self._delay = delay
        self._figures = figures
        self._queue: deque[Errand] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task = asyncio.get_running_loop().create_task(self._run())

    def put(self, errand: Errand) -> None:
        self._queue.append(errand)
        self._wake.set()
        self._idle.clear()

    async def flush(self) -> None:
        await self._idle.wait()

    async def close(self) -> None:
        self._task.cancel()
        self._link.abort()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._link.close()
        self._fail(list(self._queue))
        self._queue.clear()
        self._idle.set()

    async def _run(self) -> None:
        while True:
            if self._link.down_since is None:
                await self._wake.wait()
                if self._delay:
                    await asyncio.sleep(self._delay)
            await self._link.wait_for_turn()
            if self._queue:
                await self._carry(self._next_batch())
            else:
                await self._find_again()
            if not self._queue:
                self._wake.clear()
                self._idle.set()

    async def _find_again(self) -> None:
        """Open a connection that was lost, so that a claim need not try whether it can be."""
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
        requests = [errand.claims for errand in batch]

        async def work(connection: Connection) -> Answers:
            return await acquire(connection, requests)

        self._figures.calls += 1
        self._figures.claims += sum(map(len, requests))
        try:
            answers = await self._link.call(work)
        except (EngineAwayError, EngineRefusalError, SchemaError) as error:
            self._figures.failed_calls += 1
            if not isinstance(error, EngineAwayError):  # `Outages` says that it is away
                _log.warning("the shared ledger refused claims: %s", error)
            self._fail(batch)
            return
        except BaseException:
            self._fail(batch)
            raise
        for errand, grants in zip(batch, answers.grants, strict=True):
            errand.done(Reply(grants, answers.incarnation, answers.frozen))

    def _fail(self, batch: Sequence[Errand]) -> None:
        for errand in batch:
            errand.done(Reply(None, 0, False))
