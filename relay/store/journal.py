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
in flight; about 1 KiB each. So is what is on disk and not yet in the tables (`unfolder`).

"On disk" means by default: out of this process, with the operating system. No crash of the relay
can undo that; a loss of power may take the last moments. Such a write waits for nothing, so it runs
on the loop: under load, two changes of thread cost more than all SQL of a batch. With
`synchronous = full` it means: written to the disk itself. That waits, so it runs on the
database's thread.

While the thread writes, the loop does not: a batch goes on filling, and is written the moment that
the thread has ended (`Database.attach`, `hasten`).
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

from relay.store.batch import Batch
from relay.store.database import BusyError, Database, StoreError
from relay.store.records import CHARGED, AdmissionRow, BucketRow, Charge, Settlement
from relay.store.unfold import prepare
from relay.store.unfolder import MAX_BEHIND, Unfolder, Written

GRACE_SECONDS: Final = 10.0  # clients wait about 20 s for an octet before they give up
MAX_WAITING: Final = 10_000  # admitted requests; about 1 s of full load
_SETTLE_DELAY_SECONDS: Final = 0.01  # for which a settlement waits for an admission to go with
_BUSY_RETRY_SECONDS: Final = 0.001
_SLOW_SECONDS: Final = 3.0  # for one batch; a healthy disk takes milliseconds
_CHECK_INTERVAL_SECONDS: Final = 0.5
_FIRST_RETRY_SECONDS: Final = 0.05
_LAST_RETRY_SECONDS: Final = 1.0  # the delay doubles up to this

_log = logging.getLogger(__name__)

Callback: TypeAlias = Callable[[bool], None]


class Ticket:
    """The batch of an entry, as a request sees it: is it on disk?"""

    __slots__ = ("durable", "waiting")

    def __init__(self) -> None:
        self.durable = False
        self.waiting: deque[tuple[float, Callback]] = deque()  # deadlines and callbacks

    def when_durable(self, callback: Callback) -> None:
        """Call back on the loop: with True once the batch is on disk, or with False if it is not
        within `GRACE_SECONDS`."""
        if self.durable:
            callback(True)
        else:
            self.waiting.append((asyncio.get_running_loop().time() + GRACE_SECONDS, callback))


class PendingBatch(Batch):
    """A batch that is not on disk. Its ticket may live as long as a request."""

    __slots__ = ("ticket",)

    def __init__(self) -> None:
        super().__init__()
        self.ticket = Ticket()

    def __len__(self) -> int:
        return len(self.opened) + len(self.ended)

    def __bool__(self) -> bool:
        return bool(self.opened or self.ended or self.applied)


OnEnd: TypeAlias = Callable[[Settlement, Charge | None], None]


class Journal:
    """Writes entries to a database. All methods are for the loop's thread."""

    def __init__(
        self,
        database: Database,
        changes: Callable[[], Iterable[BucketRow]],
        on_loop: bool,
        number: int,
        slots: int,
    ) -> None:
        """Use `start`. `on_loop`: batches are written on the loop. `number` of the last batch,
        and of the slots that are in use."""
        self._database = database
        self._changes = changes
        self._on_loop = on_loop
        self._loop = asyncio.get_running_loop()
        self._unfolder = Unfolder(database, slots)
        self._filling = PendingBatch()
        self._writing: PendingBatch | None = None
        self._number = number
        self._scheduled = False  # whether `_write_filling` will be called in this turn of the loop
        self._slow_at = math.inf  # when the step under way has taken too long
        self._closed = False
        self._persisting: asyncio.Task[None] | None = None  # writes `_writing`, with retries
        self._close_by: float | None = None
        # Called with the end of each request, once another process writes the journal.
        self.on_end: OnEnd | None = None
        self.healthy = True  # whether new work may be admitted
        self.failure = ""  # if not, why, for the operator
        self._timer = self._loop.call_later(_CHECK_INTERVAL_SECONDS, self._check_deadlines)
        database.attach(self._unfolder.flush, self._go_on)

    @classmethod
    async def start(
        cls,
        database: Database,
        changes: Callable[[], Iterable[BucketRow]],
        synchronous: Literal["normal", "full"] = "normal",
    ) -> "Journal":
        """Start to write, in a database that was restored.

        `changes` returns the buckets that changed since its last call. It is called once a batch,
        so a bucket must change in the same step of the loop as its entry is made.

        Raises:
            StoreError: the database cannot be used.
        """
        if synchronous == "normal":
            database.open_inline()
        await database.run(partial(_set_up, synchronous=synchronous))
        number, slots = await database.run_beside(_prepare)
        return cls(database, changes, synchronous == "normal", number, slots)

    def adopt(self) -> Ticket:
        """The ticket of a request that an earlier process has admitted."""
        ticket = Ticket()
        ticket.durable = True
        return ticket

    async def resume(self) -> None:
        """Go on after `close`. Another process may have unfolded the rest in between, and written
        batches of its own."""
        with contextlib.suppress(StoreError):  # the next batch shows it
            number, _ = await self._database.run_beside(_prepare)
            self._number = max(self._number, number + (self._writing is not None))
        self._close_by, self._closed = None, False
        self.healthy, self.failure = True, ""
        self._timer = self._loop.call_later(_CHECK_INTERVAL_SECONDS, self._check_deadlines)
        if self._writing is not None:
            self._persisting = self._loop.create_task(self._persist(self._writing))
        self._go_on()

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
        started = self._slow_at - _SLOW_SECONDS
        return max(0.0, self._loop.time() - started) if started < math.inf else 0.0

    def open(self, admission: AdmissionRow) -> Ticket:
        """Record that a request was admitted. Of two admissions with the same id the latter
        counts, and the former has no end."""
        if self.on_end is not None:  # the other process has recorded it
            return self.adopt()
        filling = self._filling
        filling.opened.append(admission)
        if not self._scheduled:
            self._schedule()
        if len(filling.opened) >= MAX_WAITING and self.healthy:
            self._mark_unhealthy("it cannot keep up with the requests")
        return filling.ticket

    def settle(self, settlement: Settlement, charge: Charge | None = None) -> Ticket:
        """Record how a request ended that was recorded by `open`, once."""
        if self.on_end is not None:
            self.on_end(settlement, charge)
            return self.adopt()
        filling = self._filling
        filling.ended.append(settlement)
        if charge is not None:
            filling.charges.append(charge)
        if len(filling.ended) == 1 and not filling.opened:
            # Nobody waits for it: it goes with the next admission, if one comes.
            self._loop.call_later(_SETTLE_DELAY_SECONDS, self._go_on)
        return filling.ticket

    def hasten(self) -> None:
        """Write what waits, if it can be written: an answer is complete but for that."""
        self._go_on()

    @property
    def is_elsewhere(self) -> bool:
        """Whether another process writes, or is about to."""
        return self.on_end is not None or self._close_by is not None

    def note_applied(self, adjustment: int, now: float) -> None:
        """Record that a change of windows has been applied, together with the limits' new state,
        which has changed in this step of the loop."""
        self._filling.applied.append((adjustment, now))
        self._go_on()

    async def close(self, patience: float = GRACE_SECONDS) -> int:
        """Write the rest, and stop. Returns the number of entries lost: none, unless the database
        failed for `patience` seconds."""
        if self._close_by is None:
            self._close_by = self._loop.time() + patience
        while True:
            if self._filling:
                self._go_on()
            if self._persisting is not None:
                await asyncio.shield(self._persisting)
                if self._persisting is None and self._writing is not None:  # it has given up
                    break
            elif self._filling:  # the thread writes
                await self._database.run(_do_nothing)
            else:
                await self._unfolder.finish()
                if not self._filling and self._persisting is None:  # still
                    break
        self._closed = True
        self._timer.cancel()
        left = [self._filling] if self._writing is None else [self._writing, self._filling]
        lost = sum(map(len, left))
        if lost:
            _log.error("the journal was closed with %d entries unwritten: %s", lost, self.failure)
        for batch in left:
            while batch.ticket.waiting:
                _notify(batch.ticket.waiting.popleft()[1], False)
        self.healthy, self.failure = False, "it is closed"
        return lost

    # --- batch after batch ---

    def _schedule(self) -> None:
        """Write at the end of this turn of the loop, with all that comes until then."""
        self._scheduled = True
        self._loop.call_soon(self._write_scheduled)

    def _write_scheduled(self) -> None:
        self._scheduled = False
        self._go_on()

    def _go_on(self) -> None:
        """Write what waits, unless something is being written."""
        if self._writing is not None or self._closed or not self._filling:
            return
        if self._on_loop and self._database.is_writing:  # it calls once it has ended
            if self._slow_at == math.inf:
                self._slow_at = self._loop.time() + _SLOW_SECONDS
            return
        batch, self._filling = self._filling, PendingBatch()
        self._number += 1
        batch.buckets = self._changed_buckets()
        self._writing = batch
        entry: Written | None = None
        error: Exception | None = None
        if self._on_loop:
            try:
                entry = self._unfolder.place(self._number, batch)
                self._database.run_inline(entry.write)
            except Exception as raised:  # must not end the journal
                error = raised
            else:
                self._note_written(batch, entry)
                return
        if self._slow_at == math.inf:
            self._slow_at = self._loop.time() + _SLOW_SECONDS
        self._persisting = self._loop.create_task(self._persist(batch, entry, error))

    async def _persist(
        self, batch: PendingBatch, entry: Written | None = None, error: Exception | None = None
    ) -> None:
        """Write a batch, with retries; leave it in `_writing` if the journal's time to close ends
        before. `entry` and `error`: of the first attempt, if there was one."""
        delay = _FIRST_RETRY_SECONDS
        while True:
            if error is not None:
                pause = _BUSY_RETRY_SECONDS
                if not (self._on_loop and isinstance(error, BusyError)):
                    if not isinstance(error, StoreError):
                        _log.error("the journal failed unexpectedly", exc_info=error)
                    self._mark_unhealthy(str(error))
                    pause, delay = delay, min(delay * 2, _LAST_RETRY_SECONDS)
                if self._close_by is not None and self._loop.time() >= self._close_by:
                    self._persisting = None
                    return
                await asyncio.sleep(pause)
            try:
                if entry is None:
                    entry = self._unfolder.place(self._number, batch)
                if self._on_loop:
                    self._database.run_inline(entry.write)
                else:
                    await self._database.run(entry.write, writes=True)
            except Exception as raised:  # must not end the journal
                error = raised
            else:
                break
        self._persisting = None
        self._note_written(batch, entry)
        self._go_on()

    def _changed_buckets(self) -> list[BucketRow]:
        try:
            return [row for row in self._changes() if row[4] != CHARGED]
        except Exception:  # must not end the journal
            _log.exception("the remaining quota of some limits was not journalled")
            return []

    def _note_written(self, batch: PendingBatch, entry: Written) -> None:
        self._writing, self._slow_at = None, math.inf
        self._unfolder.add(entry)
        if not self.healthy:
            self._mark_healthy()
        elif self._unfolder.behind > MAX_BEHIND:
            self._mark_unhealthy("its entries cannot be brought into their tables")
        ticket = batch.ticket
        ticket.durable = True
        while ticket.waiting:
            _notify(ticket.waiting.popleft()[1], True)

    def _mark_unhealthy(self, failure: str) -> None:
        if self.healthy:
            _log.error("new work is refused: the journal cannot be written: %s", failure)
        self.healthy = False
        self.failure = failure

    def _mark_healthy(self) -> None:
        if len(self._filling.opened) < MAX_WAITING and self._unfolder.behind <= MAX_BEHIND:
            self.healthy = True
            self.failure = ""
            _log.warning("the journal can be written again")

    def _check_deadlines(self) -> None:
        """At a fixed interval: mark a slow step, and release callbacks that waited too long."""
        self._timer = self._loop.call_later(_CHECK_INTERVAL_SECONDS, self._check_deadlines)
        now = self._loop.time()
        if now >= self._slow_at and self.healthy:
            self._mark_unhealthy(f"a batch takes longer than {_SLOW_SECONDS:.0f} s")
        elif not self.healthy and self._writing is None and not self._filling:
            self._mark_healthy()
        for batch in (self._writing, self._filling):
            waiting = None if batch is None else batch.ticket.waiting
            while waiting and waiting[0][0] <= now:
                _notify(waiting.popleft()[1], False)


def _notify(callback: Callback, durable: bool) -> None:
    try:
        callback(durable)
    except Exception:
        _log.exception("an answer could not be ended")


def _do_nothing(_: sqlite3.Connection) -> None:
    pass


def _set_up(connection: sqlite3.Connection, synchronous: str) -> None:
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute("PRAGMA wal_autocheckpoint = 0")


def _prepare(connection: sqlite3.Connection) -> tuple[int, int]:
    """Returns the number of the last batch, and of the slots that are in use."""
    prepare(connection)
    number: int
    slots: int
    number, slots = connection.execute(
        """SELECT max(upto, coalesce((SELECT max(number) FROM journal), 0)),
               coalesce((SELECT max(slot) FROM journal WHERE number > limits_upto), 0)
           FROM unfolded"""
    ).fetchone()
    return number, slots
