"""The journal: what was admitted and what it used, on disk within a moment.

Decides when entries are written (group commit: all that came in one turn of the loop, or while
the last batch was being written, go into one row) and what happens while that fails. Knows
nothing of quotas, prices, answers or SQL.

The promise: no answer that a caller saw whole is missing after a crash.
So whoever ends an answer asks the ticket that `open` gave: if it is `durable`, which it nearly
always is, the last octets go out; if not, `when_durable` calls back.

A disk that is full, failing, read-only, locked or slow: `healthy` is False and new work is to
be refused; entries are kept, in order, and tried again until it works. Answers in flight go
on, for theirs were written before. One whose entry was not is held for up to `GRACE`
seconds and must then be cut: to end it would break the promise, and to hold it longer would
leave its caller in front of an answer that never ends. Its entry is written later all the same.

What is kept meanwhile is bounded: twice `MOST` admitted requests, and one settlement for each
request in flight; about 1 KiB apiece.

"On disk" means by default: out of this process, in the operating system's hands. No crash of
ours can undo that; a loss of power may take the last moments. Such a write waits for nothing,
so it is done on the loop, where under load two changes of thread cost more than all SQL of a
batch (measured: metering made a request cost 1.7 times as much, and now 1.3 to 1.5 times).
With `synchronous = full` it means: in the disk's hands. That waits, so it is done on the thread.
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
    MONEY,
    OF_THE_DATA,
    AdmissionRow,
    Batch,
    BucketRow,
    Charge,
    Settlement,
    fold,
    write,
    write_what_can_be,
)
from relay.store.database import BusyError, Database, StoreError

GRACE: Final = 10.0  # seconds; the longest that a client sees nothing before it worries is 20
MOST: Final = 10_000  # admitted requests that wait; about 1 s of full load
_LATER: Final = 0.01  # seconds that the end of a request may wait
_FOLD: Final = 1.0  # seconds until what is journalled is summed up,
_FOLDED_AT_ONCE: Final = 16_000  # or requests that ended, if they are so many before that
_CHECKPOINT: Final = (20_000, 60.0)  # requests and seconds until the log is brought in
_BUSY: Final = 0.001  # seconds until a lock is tried again
_SLOW: Final = 3.0  # seconds for one batch; a healthy disk takes milliseconds
_PACE: Final = 0.5  # seconds between two looks at the clock
_BACK_OFF: Final = (0.05, 1.0)  # seconds: the first, and the longest; space returns, we do too

_log = logging.getLogger(__name__)

Callback: TypeAlias = Callable[[bool], None]


class Ticket(Batch):
    """A batch, as those see it who wait for it: is it on disk?"""

    __slots__ = ("durable", "running", "tickets", "waiting")

    def __init__(self) -> None:
        super().__init__()
        self.durable = False
        self.running = 0  # requests of it that have no row of their own yet
        self.tickets: list[Ticket] = []  # of those that ended, in the same order
        self.waiting: deque[tuple[float, Callback]] = deque()  # until when, whom to call

    def when_durable(self, callback: Callback) -> None:
        """Call back on the loop: with True once it is on disk, or with False when it still is
        not after `GRACE` seconds."""
        if self.durable:
            callback(True)
        else:
            self.waiting.append((asyncio.get_running_loop().time() + GRACE, callback))

    def forget(self) -> None:
        """Keep nothing: whoever holds a ticket may do so for long."""
        super().__init__()
        self.tickets = []

    def __len__(self) -> int:
        return len(self.opened) + len(self.ended)

    def __bool__(self) -> bool:
        return bool(self.opened or self.ended)


class Journal:
    """Writes entries through a database. All methods are for the loop's thread."""

    def __init__(
        self, database: Database, changes: Callable[[], Iterable[BucketRow]], at_once: bool
    ) -> None:
        self._database = database
        self._changes = changes
        self._at_once = at_once
        self._loop = asyncio.get_running_loop()
        self._filling = Ticket()
        self._writing: Ticket | None = None
        self._number = 0
        # Since the last fold:
        self._unfolded = False
        self._fold_due = False
        self._ended = 0
        self._changed: dict[tuple[str, str, str, int], BucketRow] = {}
        self._closed: list[int] = []  # batches whose requests have all ended
        self._since_checkpoint = 0
        self._next_checkpoint = self._loop.time() + _CHECKPOINT[1]
        self._slow_at = math.inf  # when what is under way takes too long
        self._idle: asyncio.Future[None] | None = None
        self._close_by: float | None = None
        self.healthy = True  # whether new work may be admitted
        self.trouble = ""  # why not, in words for the operator

    @classmethod
    async def start(
        cls,
        database: Database,
        changes: Callable[[], Iterable[BucketRow]],
        synchronous: Literal["normal", "full"] = "normal",
    ) -> "Journal":
        """Begin to write, in a database that was restored.

        `changes` tells the buckets that changed since it was last asked; it is asked once a
        batch, so who changes them makes the entry in the same step.

        Raises:
            StoreError: the database cannot be used.
        """
        journal = cls(database, changes, synchronous == "normal")
        await database.read(partial(_prepare, synchronous=synchronous))
        journal._task = journal._loop.create_task(journal._run())
        journal._timer = journal._loop.call_later(_PACE, journal._look)
        return journal

    _task: asyncio.Task[None]
    _timer: asyncio.TimerHandle

    def open(self, opening: AdmissionRow) -> Ticket:
        """Note that a request was admitted."""
        filling = self._filling
        filling.opened.append(opening)
        filling.running += 1
        if self._idle is not None:
            self._wake()
        elif len(filling.opened) >= MOST and self.healthy:
            self._ill("it is too slow for what is asked of it")
        return filling

    def settle(
        self,
        ticket: Ticket,
        opening: AdmissionRow,
        settlement: Settlement,
        charge: Charge | None = None,
    ) -> Ticket:
        """Note how a request ended, once; `ticket` is what `open` gave for `opening`."""
        filling = self._filling
        filling.ended.append((opening, settlement))
        filling.tickets.append(ticket)
        if charge is not None:
            filling.charges.append(charge)
        if len(filling) == 1:  # nobody waits for it: it goes with the next request, if one comes
            self._loop.call_later(_LATER, self._wake)
        return filling

    async def close(self, patience: float = GRACE) -> int:
        """Write what is left, and stop. Returns how many entries are lost: none, unless the
        database has not worked for so many seconds."""
        if self._close_by is None:
            self._close_by = self._loop.time() + patience
            if self._idle is not None:
                self._wake()
        await asyncio.shield(self._task)
        self._timer.cancel()
        left = [self._filling] if self._writing is None else [self._writing, self._filling]
        lost = sum(map(len, left))
        if lost:
            _log.error("the journal was closed with %d entries unwritten: %s", lost, self.trouble)
        for batch in left:
            while batch.waiting:
                _call(batch.waiting.popleft()[1], False)
        self.healthy, self.trouble = False, "it is closed"
        return lost

    # --- batch after batch ---

    def _wake(self) -> None:
        if self._idle is not None:
            self._idle.set_result(None)
            self._idle = None

    async def _run(self) -> None:
        loop = self._loop
        while True:
            if self._unfolded and (self._fold_due or self._ended >= _FOLDED_AT_ONCE):
                self._fold_due = False
                self._slow_at = loop.time() + _SLOW
                await self._fold()
                await self._check_point()
                self._slow_at = math.inf
            if not self._filling:
                if not self.healthy:  # and yet all is written
                    self._well()
                if self._close_by is None:
                    self._idle = loop.create_future()
                    await self._idle
                else:
                    if self._unfolded:
                        await self._fold()
                    if not self._filling:  # even now
                        return
                continue
            batch, self._filling = self._filling, Ticket()
            self._number += 1
            batch.number = self._number
            batch.buckets = self._told()
            self._writing = batch
            self._slow_at = loop.time() + _SLOW
            if not await self._commit(batch):
                return
            self._writing, self._slow_at = None, math.inf
            if not self.healthy:
                self._well()
            batch.durable = True
            while batch.waiting:
                _call(batch.waiting.popleft()[1], True)
            self._gather(batch)

    def _told(self) -> list[BucketRow]:
        try:
            return [row for row in self._changes() if row[2] != MONEY]
        except Exception:  # nothing may end the journal
            _log.exception("what is left of some limits was not journalled")
            return []

    def _gather(self, batch: Ticket) -> None:
        """A batch is written: keep what is to be folded, and no more."""
        if not self._unfolded:
            self._unfolded = True
            self._fold_after(_FOLD)
        self._ended += len(batch.ended)
        for row in batch.buckets:
            self._changed[row[:4]] = row
        for ticket in batch.tickets:
            ticket.running -= 1
            if not ticket.running:
                self._closed.append(ticket.number)
        if not batch.opened:
            self._closed.append(batch.number)
        batch.forget()

    async def _fold(self) -> None:
        """Bring what is journalled to where it is read."""
        buckets = list(self._changed.values())
        work = partial(fold, upto=self._number, closed=self._closed, buckets=buckets)
        try:
            more = await self._database.write(work)
        except Exception as error:  # it is on disk, and is tried again
            if not isinstance(error, StoreError):
                _log.exception("what was journalled is not summed up yet")
            self._ended = 0
            self._fold_after(_BACK_OFF[1])
        else:
            self._since_checkpoint += self._ended
            self._ended, self._changed, self._closed = 0, {}, []
            self._unfolded = more
            if more:
                self._fold_after(_BUSY)

    def _fold_after(self, seconds: float) -> None:
        self._loop.call_later(seconds, self._time_to_fold)

    def _time_to_fold(self) -> None:
        self._fold_due = True
        self._wake()

    async def _check_point(self) -> None:
        """Bring SQLite's own log into the database."""
        now = self._loop.time()
        if self._since_checkpoint < _CHECKPOINT[0] and now < self._next_checkpoint:
            return
        self._since_checkpoint, self._next_checkpoint = 0, now + _CHECKPOINT[1]
        with contextlib.suppress(StoreError):  # it grows on, and is tried again
            await self._database.checkpoint()

    async def _commit(self, batch: Ticket) -> bool:
        """Try until it is written; False when the journal is closed before it is."""
        delay, longest = _BACK_OFF
        work = write
        while True:
            pause = delay
            try:
                if self._at_once:
                    self._database.at_once(partial(work, entries=batch))
                else:
                    await self._database.read(partial(work, entries=batch))
            except BusyError:
                pause = _BUSY
            except Exception as error:  # nothing may end the journal
                if work is write and _is_of_the_data(error):
                    work = write_what_can_be
                    continue
                if not isinstance(error, StoreError):
                    _log.exception("the journal failed in a way that it should not")
                self._ill(str(error))
                delay = min(delay * 2, longest)
            else:
                return True
            if self._close_by is not None and self._loop.time() >= self._close_by:
                return False
            await asyncio.sleep(pause)

    def _ill(self, trouble: str) -> None:
        if self.healthy:
            _log.error("new work is refused, for the journal cannot be written: %s", trouble)
        self.healthy = False
        self.trouble = trouble

    def _well(self) -> None:
        if len(self._filling.opened) < MOST:
            self.healthy = True
            self.trouble = ""
            _log.warning("the journal is written again")

    def _look(self) -> None:
        """Now and then: has somebody waited too long?"""
        self._timer = self._loop.call_later(_PACE, self._look)
        now = self._loop.time()
        if now >= self._slow_at and self.healthy:
            self._ill(f"a batch takes longer than {_SLOW:.0f} s")
        for batch in (self._writing, self._filling):
            while batch is not None and batch.waiting and batch.waiting[0][0] <= now:
                _call(batch.waiting.popleft()[1], False)


def _call(callback: Callback, durable: bool) -> None:
    try:
        callback(durable)
    except Exception:
        _log.exception("an answer could not be ended")


def _is_of_the_data(error: Exception) -> bool:
    """Whether it is an entry that cannot be written, rather than the file."""
    cause = error.__cause__ if isinstance(error, StoreError) else error
    if isinstance(cause, sqlite3.OperationalError):  # abs() of the least integer, for one
        return cause.sqlite_errorcode == sqlite3.SQLITE_ERROR
    return isinstance(cause, OF_THE_DATA)


def _prepare(connection: sqlite3.Connection, synchronous: str) -> None:
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
