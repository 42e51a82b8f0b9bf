"""The journal: which requests were admitted and what they used, on disk within a moment.

Decides when entries are written, and what happens while writing fails. Must not know quotas,
prices, answers or SQL. Group commit: everything that came in one turn of the loop, or while the
last batch was being written, is one batch.

The promise: no answer that a caller received completely is missing after a crash. So before the
last octets of an answer go out, its ticket must be `durable`, which it nearly always is; if not,
`when_durable` calls back.

While the disk is full, failing, read-only, locked or slow, `healthy` is False and new work must be
refused. Entries are kept, in order, and retried until writing works. Answers in flight go on, since
their entries were written before. An answer whose entry was not is held for up to `GRACE_SECONDS`
and must then be cut: ending it would break the promise, and holding it longer would leave its
caller waiting for good. Its entry is written later all the same.

What waits is bounded: twice `MAX_WAITING` admitted requests, and one settlement for each request
in flight; about 1 KiB each.

"On disk" means by default: out of this process, with the operating system. No crash of the relay
can undo that; a loss of power may take the last moments. Such a write waits for nothing, so it runs
on the loop: under load, two changes of thread cost more than all SQL of a batch (measured: with
metering, a request cost 1.7 times as much, and now 1.3 to 1.5 times). With `synchronous = full` it
means: written to the disk itself. That waits, so it runs on the database's thread.
"""

import asyncio
import contextlib
import logging
import math
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final, Literal, TypeAlias

from relay.store.batch import (
    CHARGED,
    DATA_ERRORS,
    AdmissionRow,
    Batch,
    BucketRow,
    Charge,
    Settlement,
    fold,
    write,
    write_row_by_row,
)
from relay.store.database import BusyError, Database, StoreError

GRACE_SECONDS: Final = 10.0  # clients wait about 20 s for an octet before they give up
MAX_WAITING: Final = 10_000  # admitted requests; about 1 s of full load
_SETTLE_DELAY_SECONDS: Final = 0.01  # for which a settlement waits for an admission to go with
_FOLD_INTERVAL_SECONDS: Final = 1.0  # until journalled requests are summed up,
_FOLD_REQUESTS: Final = 16_000  # or so many ended before that
_CHECKPOINT_REQUESTS: Final = 20_000
_CHECKPOINT_INTERVAL_SECONDS: Final = 60.0
_BUSY_RETRY_SECONDS: Final = 0.001
_SLOW_SECONDS: Final = 3.0  # for one batch; a healthy disk takes milliseconds
_CHECK_INTERVAL_SECONDS: Final = 0.5
_FIRST_RETRY_SECONDS: Final = 0.05
_LAST_RETRY_SECONDS: Final = 1.0  # the delay doubles up to this

_log = logging.getLogger(__name__)

Callback: TypeAlias = Callable[[bool], None]


class Ticket(Batch):
    """A batch, as a request sees it: is it on disk?"""

    __slots__ = ("durable", "running", "tickets", "waiting")

    def __init__(self) -> None:
        super().__init__()
        self.durable = False
        self.running = 0  # admitted requests of this batch that have no row of their own yet
        self.tickets: list[Ticket] = []  # of the requests in `ended`, and of those withdrawn
        self.waiting: deque[tuple[float, Callback]] = deque()  # deadlines and callbacks

    def when_durable(self, callback: Callback) -> None:
        """Call back on the loop: with True once the batch is on disk, or with False if it is not
        within `GRACE_SECONDS`."""
        if self.durable:
            callback(True)
        else:
            self.waiting.append((asyncio.get_running_loop().time() + GRACE_SECONDS, callback))

    def clear(self) -> None:
        """Drop the entries but keep the number: a ticket may live as long as its request."""
        self.opened, self.ended, self.charges, self.buckets = [], [], [], []
        self.applied, self.tickets = [], []

    def __len__(self) -> int:
        return len(self.opened) + len(self.ended)

    def __bool__(self) -> bool:
        return bool(self.opened or self.ended or self.applied)


OnEnd: TypeAlias = Callable[[Ticket, AdmissionRow, Settlement, Charge | None], None]


class Journal:
    """Writes entries to a database. All methods are for the loop's thread."""

    def __init__(
        self,
        database: Database,
        changes: Callable[[], Iterable[BucketRow]],
        inline: bool,
        number: int,
    ) -> None:
        """Use `start`. `inline`: batches are written on the loop. `number` of the last batch."""
        self._database = database
        self._changes = changes
        self._inline = inline
        self._loop = asyncio.get_running_loop()
        self._filling = Ticket()
        self._writing: Ticket | None = None
        self._number = number
        # Since the last fold:
        self._unfolded = False
        self._fold_due = False
        self._ended = 0
        self._changed: dict[tuple[str, str, str, int], BucketRow] = {}
        self._closed: list[int] = []  # numbers of batches whose requests have all ended
        self._since_checkpoint = 0
        self._next_checkpoint = self._loop.time() + _CHECKPOINT_INTERVAL_SECONDS
        self._slow_at = math.inf  # when the step under way has taken too long
        self._idle: asyncio.Future[None] | None = None
        self._close_by: float | None = None
        # Called with the end of each request, once another process writes the journal.
        self.on_end: OnEnd | None = None
        self.healthy = True  # whether new work may be admitted
        self.failure = ""  # if not, why, for the operator
        self._task = self._loop.create_task(self._run())
        self._timer = self._loop.call_later(_CHECK_INTERVAL_SECONDS, self._check_deadlines)

    @classmethod
    async def start(
        cls,
        database: Database,
        changes: Callable[[], Iterable[BucketRow]],
        synchronous: Literal["normal", "full"] = "normal",
        number: int = 0,
    ) -> "Journal":
        """Start to write, in a database that was restored. `number` is the last batch's in it.

        `changes` returns the buckets that changed since its last call. It is called once a batch,
        so a bucket must change in the same step of the loop as its entry is made.

        Raises:
            StoreError: the database cannot be used.
        """
        await database.run(partial(_prepare, synchronous=synchronous))
        return cls(database, changes, synchronous == "normal", number)

    def adopt(self, number: int, requests: int) -> Ticket:
        """The ticket of an earlier process's batch, which has so many requests in flight."""
        ticket = Ticket()
        ticket.number, ticket.running, ticket.durable = number, requests, True
        return ticket

    def resume(self) -> None:
        """Go on after `close`: no other process has written in between."""
        self._close_by = None
        self.healthy, self.failure = True, ""
        self._task = self._loop.create_task(self._run())
        self._timer = self._loop.call_later(_CHECK_INTERVAL_SECONDS, self._check_deadlines)

    @property
    def unwritten(self) -> int:
        """Number of entries that have yet to be written."""
        writing = self._writing
        return len(self._filling) + (0 if writing is None else len(writing))

    @property
    def batches(self) -> int:
        """Number of batches so far."""
        return self._number

    @property
    def lag_seconds(self) -> float:
        """For how long the step under way has been going on; 0.0 if there is none."""
        began = self._slow_at - _SLOW_SECONDS
        return max(0.0, self._loop.time() - began) if began < math.inf else 0.0

    def open(self, admission: AdmissionRow) -> Ticket:
        """Record that a request was admitted."""
        if self.on_end is not None:  # the other process has recorded it
            return self.adopt(0, 1)
        filling = self._filling
        filling.opened.append(admission)
        filling.running += 1
        if self._idle is not None:
            self._wake()
        elif len(filling.opened) >= MAX_WAITING and self.healthy:
            self._mark_unhealthy("it cannot keep up with the requests")
        return filling

    def settle(
        self,
        ticket: Ticket,
        admission: AdmissionRow,
        settlement: Settlement,
        charge: Charge | None = None,
    ) -> Ticket:
        """Record how a request ended, once; `ticket` is the one that `open` gave for it."""
        if self.on_end is not None:
            self.on_end(ticket, admission, settlement, charge)
            return ticket
        filling = self._filling
        filling.ended.append((admission, settlement))
        filling.tickets.append(ticket)
        if charge is not None:
            filling.charges.append(charge)
        if len(filling) == 1:  # nobody waits for it: it goes with the next admission, if one comes
            self._loop.call_later(_SETTLE_DELAY_SECONDS, self._wake)
        return filling

    @property
    def is_elsewhere(self) -> bool:
        """Whether another process writes, or is about to."""
        return self.on_end is not None or self._close_by is not None

    def note_applied(self, adjustment: int, now: float) -> None:
        """Record that a change of windows has been applied, together with the limits' new state,
        which has changed in this step of the loop."""
        self._filling.applied.append((adjustment, now))
        self._wake()

    def withdraw(self, ticket: Ticket) -> None:
        """Forget that a request was admitted, which has just been admitted anew with `open`.

        Call it in the same step of the loop as `open`: both are written together.
        """
        self._filling.tickets.append(ticket)

    async def close(self, patience: float = GRACE_SECONDS) -> int:
        """Write the rest, and stop. Returns the number of entries lost: none, unless the database
        failed for `patience` seconds."""
        if self._close_by is None:
            self._close_by = self._loop.time() + patience
            if self._idle is not None:
                self._wake()
        await asyncio.shield(self._task)
        self._timer.cancel()
        left = [self._filling] if self._writing is None else [self._writing, self._filling]
        lost = sum(map(len, left))
        if lost:
            _log.error("the journal was closed with %d entries unwritten: %s", lost, self.failure)
        for batch in left:
            while batch.waiting:
                _notify(batch.waiting.popleft()[1], False)
        self.healthy, self.failure = False, "it is closed"
        return lost

    # --- batch after batch ---

    def _wake(self) -> None:
        if self._idle is not None:
            self._idle.set_result(None)
            self._idle = None

    async def _run(self) -> None:
        loop = self._loop
        while True:
            if self._unfolded and (self._fold_due or self._ended >= _FOLD_REQUESTS):
                self._fold_due = False
                self._slow_at = loop.time() + _SLOW_SECONDS
                await self._fold()
                await self._checkpoint()
                self._slow_at = math.inf
            if not self._filling:
                if not self.healthy:  # but everything is written
                    self._mark_healthy()
                if self._close_by is None:
                    self._idle = loop.create_future()
                    await self._idle
                else:
                    if self._unfolded:
                        await self._fold()
                    if not self._filling:  # still
                        return
                continue
            batch, self._filling = self._filling, Ticket()
            self._number += 1
            batch.number = self._number
            batch.buckets = self._changed_buckets()
            self._writing = batch
            self._slow_at = loop.time() + _SLOW_SECONDS
            if not await self._commit(batch):
                return
            self._writing, self._slow_at = None, math.inf
            if not self.healthy:
                self._mark_healthy()
            batch.durable = True
            while batch.waiting:
                _notify(batch.waiting.popleft()[1], True)
            self._note_written(batch)

    def _changed_buckets(self) -> list[BucketRow]:
        try:
            return [row for row in self._changes() if row[4] != CHARGED]
        except Exception:  # must not end the journal
            _log.exception("the remaining quota of some limits was not journalled")
            return []

    def _note_written(self, batch: Ticket) -> None:
        """Keep what the next fold needs of a written batch, and no more."""
        if not self._unfolded:
            self._unfolded = True
            self._fold_after(_FOLD_INTERVAL_SECONDS)
        self._ended += len(batch.ended)
        for row in batch.buckets:
            self._changed[row[:4]] = row
        for ticket in batch.tickets:
            ticket.running -= 1
            if not ticket.running:
                self._closed.append(ticket.number)
        if not batch.opened:
            self._closed.append(batch.number)
        batch.clear()

    async def _fold(self) -> None:
        """Bring journalled requests into the sums and limits that are read."""
        buckets = list(self._changed.values())
        work = partial(fold, upto=self._number, closed=self._closed, buckets=buckets)
        try:
            more = await self._database.write(work)
        except Exception as error:  # the entries are on disk; try again
            if not isinstance(error, StoreError):
                _log.exception("journalled requests are not summed up yet")
            self._ended = 0
            self._fold_after(_LAST_RETRY_SECONDS)
        else:
            self._since_checkpoint += self._ended
            self._ended, self._changed, self._closed = 0, {}, []
            self._unfolded = more
            if more:
                self._fold_after(_BUSY_RETRY_SECONDS)

    def _fold_after(self, seconds: float) -> None:
        self._loop.call_later(seconds, self._request_fold)

    def _request_fold(self) -> None:
        self._fold_due = True
        self._wake()

    async def _checkpoint(self) -> None:
        """Bring SQLite's own log into the database file, if it is time."""
        now = self._loop.time()
        if self._since_checkpoint < _CHECKPOINT_REQUESTS and now < self._next_checkpoint:
            return
        self._since_checkpoint, self._next_checkpoint = 0, now + _CHECKPOINT_INTERVAL_SECONDS
        with contextlib.suppress(StoreError):  # the log grows on until the next try
            await self._database.checkpoint()

    async def _commit(self, batch: Ticket) -> bool:
        """Write a batch, with retries; False if the journal's time to close ends before."""
        delay = _FIRST_RETRY_SECONDS
        work = write
        while True:
            pause = delay
            try:
                if self._inline:
                    self._database.run_inline(partial(work, entries=batch))
                else:
                    await self._database.run(partial(work, entries=batch))
            except BusyError:
                pause = _BUSY_RETRY_SECONDS
            except Exception as error:  # must not end the journal
                if work is write and _is_data_error(error):
                    work = write_row_by_row
                    continue
                if not isinstance(error, StoreError):
                    _log.exception("the journal failed unexpectedly")
                self._mark_unhealthy(str(error))
                delay = min(delay * 2, _LAST_RETRY_SECONDS)
            else:
                return True
            if self._close_by is not None and self._loop.time() >= self._close_by:
                return False
            await asyncio.sleep(pause)

    def _mark_unhealthy(self, failure: str) -> None:
        if self.healthy:
            _log.error("new work is refused: the journal cannot be written: %s", failure)
        self.healthy = False
        self.failure = failure

    def _mark_healthy(self) -> None:
        if len(self._filling.opened) < MAX_WAITING:
            self.healthy = True
            self.failure = ""
            _log.warning("the journal can be written again")

    def _check_deadlines(self) -> None:
        """At a fixed interval: mark a slow step, and release callbacks that waited too long."""
        self._timer = self._loop.call_later(_CHECK_INTERVAL_SECONDS, self._check_deadlines)
        now = self._loop.time()
        if now >= self._slow_at and self.healthy:
            self._mark_unhealthy(f"a batch takes longer than {_SLOW_SECONDS:.0f} s")
        for batch in (self._writing, self._filling):
            while batch is not None and batch.waiting and batch.waiting[0][0] <= now:
                _notify(batch.waiting.popleft()[1], False)


def _notify(callback: Callback, durable: bool) -> None:
    try:
        callback(durable)
    except Exception:
        _log.exception("an answer could not be ended")


def _is_data_error(error: Exception) -> bool:
    """Whether an entry cannot be written, rather than the file."""
    cause = error.__cause__ if isinstance(error, StoreError) else error
    if isinstance(cause, sqlite3.OperationalError):  # such as abs() of the least integer
        return cause.sqlite_errorcode == sqlite3.SQLITE_ERROR
    return isinstance(cause, DATA_ERRORS)


def _prepare(connection: sqlite3.Connection, synchronous: str) -> None:
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
