"""Sends a node's changes to PostgreSQL and brings those of the others into its database.

Decides when: what changed here within a fifth of a second, and what others changed as soon as
PostgreSQL says so, or at the poll of each second. Changes are sent before others are read, so that
it is always known which ones have their place in the order of all. While PostgreSQL is away, the
outbox grows and the node goes on. Must not know what rows mean.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Final

import psycopg

from relay.cluster.link import Connection, EngineAwayError, EngineRefusalError, Link
from relay.cluster.once import Once
from relay.cluster.replication import calls
from relay.cluster.replication.joining import join_with_rows, place_of
from relay.cluster.replication.use import bring
from relay.cluster.schema import SchemaError
from relay.store.database import Database, StoreError
from relay.store.replication import joining, outbox, recovery, use
from relay.store.replication.applying import Applier, parse
from relay.store.replication.shape import adds_only, read_tables

_log = logging.getLogger("relay.cluster")

_LOOK_SECONDS: Final = 0.2  # between two looks at the outbox
_POLL_SECONDS: Final = 1.0  # between two looks at PostgreSQL
_TIDY_SECONDS: Final = 600.0
_CLOSE_SECONDS: Final = 2.0
_RETRY_SECONDS: Final = 1.0
_NO_ADDRESSES: Final[Mapping[str, str]] = {}
_WARN_FROM: Final = (10_000, 100_000, 1_000_000, 10_000_000)  # changes that wait
_STEP_ROWS: Final = 100  # in one transaction: some milliseconds, for which the journal waits


@dataclass(slots=True)
class ReplicationFigures:
    """For metrics and `relay doctor`. Counters only grow."""

    sent: int = 0  # rows
    received: int = 0  # rows
    unsent: int = 0  # changes that wait
    waiting_for: float = 0.0  # seconds since nothing waited
    held: int = 0  # rows of others that a constraint refuses
    behind: int = 0  # rows of others that were not read at the last look
    away_for: float = 0.0  # seconds since PostgreSQL was lost; 0: it is there


class Replication:
    """See the module. Made by `open`."""

    def __init__(self, database: Database, url: str, node: str, keep_requests_days: float) -> None:
        self._database = database
        self._node = node
        self._place = place_of(database)
        self._keep_seconds = keep_requests_days * 86_400
        self._link = Link(url, f"{node} shares", calls.ANSWER_SECONDS, notices_restarts=True)
        self._ear = Link(url, f"{node} hears of rows")
        self._listening: Connection | None = None
        self._lock = asyncio.Lock()
        self._seen = 0
        self._has_joined = False  # the database is the node's
        self._is_sure = False  # whether it is known how far PostgreSQL has the outbox
        self._figures = ReplicationFigures()
        self._failure = ""
        self._waiting_since: float | None = None  # monotonic seconds; None: nothing waits
        self._warned = 0  # how many of the thresholds were passed
        self._is_closed = False
        self._polled = self._tidied = time.monotonic()
        self._task: asyncio.Task[None] | None = None
        self.once = Once(url, node, self.sync)

    @classmethod
    async def open(
        cls,
        database: Database,
        url: str,
        node: str,
        keep_requests_days: float = 90,
        addresses: Mapping[str, str] = _NO_ADDRESSES,
    ) -> "Replication":
        """Begin, once the schema in PostgreSQL is up to date. A database that is no node's yet
        joins with all of its rows, and has those of the others then; PostgreSQL has the use of its
        limits before another node has a row. Call it before anything of the database is in use.

        `keep_requests_days`: how long PostgreSQL keeps requests for nodes that come later.
        `addresses`: of upstreams, by their names.

        Raises:
            JoinError: the database is another node's, or its rows contradict those of the others.
            EngineAwayError: PostgreSQL is away, and lacks the use of limits before the join.
            EngineRefusalError, SchemaError: PostgreSQL cannot be used.
            StoreError: SQLite failed.
        """
        self = cls(database, url, node, keep_requests_days)
        try:
            await self._begin(addresses)
        except BaseException:
            await self._leave()
            raise
        database.share(self.once)
        self._task = asyncio.get_running_loop().create_task(self._run())
        return self

    async def close(self) -> None:
        """Send what is left, as far as that can be done now, and end."""
        self._is_closed = True
        with contextlib.suppress(
            TimeoutError, EngineAwayError, EngineRefusalError, SchemaError, StoreError
        ):
            async with asyncio.timeout(_CLOSE_SECONDS):
                ended = self.once.ended()
                await self.sync()
                await self.once.settle(ended)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._leave()

    async def figures(self) -> ReplicationFigures:
        """The state at this moment. Raises StoreError: SQLite failed."""
        [(unsent,)] = await self._database.select(outbox.UNSENT, latest=False)
        [(held,)] = await self._database.select("SELECT count(*) FROM held_row", latest=False)
        self._figures.unsent, self._figures.held = unsent, held
        if not unsent:
            self._waiting_since = None
        elif self._waiting_since is None:
            self._waiting_since = time.monotonic()
        self._warn_of_waiting(unsent)
        return self.view()

    def _warn_of_waiting(self, unsent: int) -> None:
        passed = sum(unsent >= one for one in _WARN_FROM)
        if passed > self._warned:
            _log.warning(
                "%d changes wait to be shared: no other relay has them, and if this one's disk is "
                "lost, so are they",
                unsent,
            )
        if passed > self._warned or not unsent:
            self._warned = passed

    def view(self) -> ReplicationFigures:
        """The state at the last look, which is a second old at most while PostgreSQL answers."""
        figures, now = self._figures, time.monotonic()
        down_since, waiting_since = self._link.down_since, self._waiting_since
        figures.away_for = 0.0 if down_since is None else now - down_since
        figures.waiting_for = 0.0 if waiting_since is None else now - waiting_since
        return figures

    async def sync(self) -> None:
        """Send all changes of this moment, and read all of the others.

        Raises:
            EngineAwayError: PostgreSQL is away.
            EngineRefusalError, SchemaError: it cannot be used.
            StoreError: SQLite failed.
        """
        async with self._lock:
            is_sure, self._is_sure = self._is_sure, False  # a call that fails may be an outage
            if not is_sure:
                await self._find_mark()
            has_sent = has_read = True
            while has_sent or has_read:  # by turns, so that neither waits for all of the other
                has_sent = await self._send()
                has_read = await self._read()
            self._is_sure = True

    # --- the beginning ---

    async def _begin(self, addresses: Mapping[str, str]) -> None:
        found = await self._database.run(joining.membership)
        self._has_joined = found is not None
        if found is None:
            await join_with_rows(self._database, self._link, self._node)
            found = await self._database.run(joining.membership)
            assert found is not None
            self._has_joined = True
        else:
            found = await self._database.run(partial(joining.resume, node=self._node), writes=True)
        self._seen = found.seen
        self._tables = await self._database.run(read_tables)
        self._adds_only = adds_only(self._tables)
        self._applier = Applier(self._tables)
        try:
            await self._find_mark()
            await bring(self._database, self._link, self._node, addresses)
            self._is_sure = True
        except EngineAwayError:
            if await self._database.run(use.next_batch) is not None:
                raise
            self._fail(f"PostgreSQL is away: {self._link.reason}")

    async def _find_mark(self) -> None:
        """Find out which changes PostgreSQL has."""
        mark = await self._link.call(partial(calls.join, node=self._node, place=self._place))
        state = await self._database.write(
            partial(recovery.meet, tables=self._tables, node=self._node, mark=mark)
        )
        if state == "restored":
            # A backup was put back: this node's own rows since are those that it has shared.
            while await self._read(node=""):
                pass
            await self._database.write(partial(recovery.go_on_after, entry=mark.entry))
        if state == "lost":
            _log.error("PostgreSQL has lost rows: all are sent once more")
            await self._database.write(joining.note_all)

    # --- the two directions ---

    async def _send(self) -> bool:
        """Send a batch; whether there was one."""
        if await self._database.run(outbox.has_unnoted):
            await self._database.write(outbox.note_requests)
        batch = await self._database.run(partial(outbox.take, tables=self._tables, node=self._node))
        if batch is None:
            return False
        seq = await self._link.call(
            partial(calls.share, node=self._node, batch=batch, adds_only=self._adds_only)
        )
        if seq is None:  # a reply was lost
            await self._find_mark()
            return True
        await self._database.write(
            partial(outbox.note_sent, tables=self._tables, upto=batch.upto, seq=seq)
        )
        self._figures.sent += batch.number
        return True

    async def _read(self, node: str | None = None) -> bool:
        """Read and apply a page; whether there may be more."""
        page = await self._link.call(
            partial(
                calls.read,
                seen=self._seen,
                node=self._node if node is None else node,
                adds_only=self._adds_only,
            )
        )
        if page.upto <= self._seen:  # below: PostgreSQL has lost rows, which the poll finds out
            return False
        found = await self._database.run(lambda _: parse(page.rows))
        steps = [found[at : at + _STEP_ROWS] for at in range(0, len(found), _STEP_ROWS)]
        for place, rows in enumerate(steps or [[]], start=1):
            is_end = place >= len(steps)
            upto = page.upto if is_end else rows[-1].seq
            await self._database.run(
                partial(self._applier.apply, rows=rows, upto=upto, is_last=is_end and page.is_last),
                writes=True,
            )
            self._seen = upto
        self._figures.received += page.number
        return not page.is_last

    # --- the task ---

    async def _run(self) -> None:
        while not self._is_closed:
            try:
                await self._link.wait_for_turn()
                ended = self.once.ended()
                await self.sync()
                await self.once.settle(ended)
                async with self._lock:  # else rows that came meanwhile would look like lost ones
                    await self._poll()
                self._recover()
                await self._hear()
            except EngineAwayError as error:
                self._fail(f"PostgreSQL is away: {error}")
                with contextlib.suppress(StoreError):
                    await self.figures()
            except (EngineRefusalError, SchemaError, StoreError) as error:
                self._fail(str(error))
                await asyncio.sleep(_RETRY_SECONDS)
            except Exception as error:
                _log.exception("rows are not shared for now")
                self._failure = repr(error)
                await asyncio.sleep(_RETRY_SECONDS)

    def _fail(self, reason: str) -> None:
        self._is_sure = False
        if not self._failure:
            _log.warning("rows are not shared for now: %s", reason)
        self._failure = reason

    def _recover(self) -> None:
        if self._failure:
            _log.warning("rows are shared again")
        self._failure = ""

    async def _poll(self) -> None:
        self._polled = time.monotonic()
        head = await self._link.call(
            partial(calls.note_seen, node=self._node, seen=self._seen, place=self._place)
        )
        if head is None or head < self._seen:
            # It was put back to an earlier state: all rows are read again.
            _log.error("PostgreSQL has lost rows: all are read once more")
            await self._database.write(recovery.read_all_again)
            self._seen, self._is_sure = 0, False
            return
        self._figures.behind = head - self._seen
        await self.figures()
        if self._polled - self._tidied > _TIDY_SECONDS:
            self._tidied = self._polled
            await self._link.call(partial(calls.tidy, keep_requests_seconds=self._keep_seconds))

    async def _hear(self) -> None:
        """Wait until rows have changed, here or elsewhere, or a poll is due."""
        while not self._is_closed:
            if await self._is_notified() or time.monotonic() - self._polled >= _POLL_SECONDS:
                return
            [(unsent,)] = await self._database.select(outbox.UNSENT, latest=False)
            if unsent:
                return

    async def _is_notified(self) -> bool:
        """Listen for a moment; whether PostgreSQL has new rows."""
        try:
            if self._listening is None or self._listening.closed:
                await self._ear.wait_for_turn()
                self._listening = await self._ear.call(_listen)
                return True
            async with aclosing(
                self._listening.notifies(timeout=_LOOK_SECONDS, stop_after=1)
            ) as notified:
                async for _ in notified:
                    return True
        except (EngineAwayError, psycopg.Error):  # the poll goes on
            self._listening = None
            self._ear.abort()
            await self._ear.close()
            await asyncio.sleep(_LOOK_SECONDS)
        return False

    async def _leave(self) -> None:
        """Free the name, as far as PostgreSQL is there, and close all connections."""
        if self._link.down_since is None:
            with contextlib.suppress(
                TimeoutError, EngineAwayError, EngineRefusalError, SchemaError
            ):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self._link.call(
                        partial(
                            calls.leave,
                            node=self._node,
                            place=self._place,
                            joined=self._has_joined,
                        )
                    )
        await self._close_links()

    async def _close_links(self) -> None:
        await self.once.close()
        for link in (self._link, self._ear):
            link.abort()
            await link.close()


async def _listen(connection: Connection) -> Connection:
    await connection.execute("LISTEN relay_row")
    return connection


async def leave(database: Database) -> None:
    """Let a database be no node's any more, where no ledger is shared. One that was none stays as
    it is. Raises StoreError: SQLite failed."""
    if await database.run(joining.membership) is not None:
        await database.write(joining.leave)
