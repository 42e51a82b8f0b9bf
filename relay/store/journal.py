"""The journal: what was admitted and what it used, on disk within a moment.

Decides when entries are written (group commit: all that came while the last batch was being
written go into the next, at once, in one transaction and one call on the database's thread)
and what happens while that fails. Knows nothing of quotas, prices or answers.

The promise (DESIGN, Durability): no answer that a caller saw whole is missing after a crash.
So whoever ends an answer asks the ticket of its `open` entry: if it is `durable`, which it
nearly always is, the last octets go out; if not, `when_durable` calls back.

A disk that is full, failing, read-only, locked or slow: `healthy` is False and new work is to
be refused; entries are kept, in order, and tried again until it works. Answers in flight go
on, for theirs were written before. One whose entry was not is held for up to `GRACE`
seconds and must then be cut: to end it would break the promise, and to hold it longer would
leave its caller in front of an answer that never ends. Its entry is written later all the same.

What is kept meanwhile is bounded: twice `MOST` admitted requests, and one settlement for each
request in flight; about 1 KiB apiece.

Without SQLite's `synchronous = full` "on disk" means: out of this process, in the operating
system's hands. No crash of ours can undo that; a loss of power may take the last moments.
"""

import asyncio
import logging
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable
from functools import cache, partial
from itertools import chain
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from relay.store.database import Database, StoreError

GRACE: Final = 10.0  # seconds; the longest that a client sees nothing before it worries is 20
MOST: Final = 10_000  # admitted requests that wait; about 1 s of full load
_SLOW: Final = 3.0  # seconds for one batch; a healthy disk takes milliseconds
_PACE: Final = 0.5  # seconds between two looks at the clock
_BACK_OFF: Final = (0.05, 1.0)  # seconds: the first, and the longest; space returns, we do too

_log = logging.getLogger(__name__)

# scope, owner, kind, per (seconds), refill, size, used, moment (ms): as the ledger tells them.
BucketRow: TypeAlias = tuple[str, str, str, int, str, int, int, int]
MONEY: Final = "money"  # the kind of a row that tells charges; here the settlements do

# How a request was settled: by what the upstream reported; by what it had reported when the
# answer was cut; by the reservation, for nothing was reported; not at all, for it does not
# count; by the reservation, for the relay ended first.
Rule: TypeAlias = Literal["reported", "partial", "reserved", "refunded", "crashed"]


class Opening(NamedTuple):
    """A request that was admitted."""

    id: str
    time: float
    key_id: str
    user_id: str
    model: str
    dialect: str
    path: str
    reserved_tokens: int
    reserved_micro: int
    billed: bool  # by the token: what it costs is drawn from the balance


class Settlement(NamedTuple):
    """How it ended. Only the first of a request counts, and only if it was opened."""

    id: str
    settled_at: float
    status: int | None
    served: str | None
    upstream: str | None
    input: int | None
    output: int | None
    cache_read: int | None
    cache_write: int | None
    cost_micro: int
    ttfb_us: int | None
    duration_us: int
    outcome: str
    rule: Rule


# A batch is one statement: rows inserted into a view, whose triggers put each where it
# belongs. Every statement hands the GIL over twice, and gets it back late from a busy loop.
# Measured at 10,000 requests/s without a disk, until 99 % were durable: `executemany` 100 ms,
# a statement a table 8 to 36 ms, this 7 to 11 ms. A loop that never sleeps lets the thread
# wait for 0.5 s and more: it gives the GIL up so often and so shortly that the thread never
# sees `sys.setswitchinterval` run out. With 0.1 ms instead of 5, half are durable in 5 ms.
_WIDTH: Final = 14  # values a row, besides the kind
_NOTHING: Final = (None,) * (_WIDTH + 1)
_LONGEST: Final = 2048  # rows; 15 values each stay below the 32,766 that SQLite takes
_VIEW: Final = (
    "CREATE TEMP VIEW entry AS SELECT 0 AS kind, "
    + ", ".join(f"0 AS v{number}" for number in range(1, _WIDTH + 1)),
    """CREATE TEMP TRIGGER opening INSTEAD OF INSERT ON entry WHEN NEW.kind = 1 BEGIN
        INSERT INTO usage (id, time, key_id, user_id, model, dialect, path,
            reserved_tokens, reserved_micro, billed)
        VALUES (NEW.v1, NEW.v2, NEW.v3, NEW.v4, NEW.v5, NEW.v6, NEW.v7, NEW.v8, NEW.v9, NEW.v10);
    END""",
    """CREATE TEMP TRIGGER settlement INSTEAD OF INSERT ON entry WHEN NEW.kind = 2 BEGIN
        UPDATE usage SET settled_at = NEW.v2, status = NEW.v3, served = NEW.v4,
            upstream = NEW.v5, input = NEW.v6, output = NEW.v7, cache_read = NEW.v8,
            cache_write = NEW.v9, cost_micro = NEW.v10, ttfb_us = NEW.v11,
            duration_us = NEW.v12, outcome = NEW.v13, rule = NEW.v14
        WHERE id = NEW.v1 AND settled_at IS NULL;
    END""",
    """CREATE TEMP TRIGGER bucket INSTEAD OF INSERT ON entry WHEN NEW.kind = 3 BEGIN
        INSERT INTO bucket (scope, owner, kind, per, refill, size, used, moment)
        VALUES (NEW.v1, NEW.v2, NEW.v3, NEW.v4, NEW.v5, NEW.v6, NEW.v7, NEW.v8)
        ON CONFLICT DO UPDATE SET refill = excluded.refill, size = excluded.size,
            used = excluded.used, moment = excluded.moment;
    END""",
)

Callback: TypeAlias = Callable[[bool], None]


class Ticket:
    """A batch, as those see it who wait for it: is it on disk?"""

    __slots__ = ("buckets", "durable", "opened", "settled", "waiting")

    def __init__(self) -> None:
        self.durable = False
        self.opened: list[Opening] = []
        self.settled: list[Settlement] = []
        self.buckets: list[BucketRow] = []
        self.waiting: deque[tuple[float, Callback]] = deque()  # until when, whom to call

    def when_durable(self, callback: Callback) -> None:
        """Call back on the loop: with True once it is on disk, or with False when it still is
        not after `GRACE` seconds."""
        if self.durable:
            callback(True)
        else:
            self.waiting.append((asyncio.get_running_loop().time() + GRACE, callback))

    def rows(self) -> list[tuple[Any, ...]]:
        """The rows to be inserted into the view, in this order."""
        return [
            *((1, *row, *_NOTHING[: _WIDTH - 10]) for row in self.opened),
            *((2, *row) for row in self.settled),
            *((3, *row, *_NOTHING[: _WIDTH - 8]) for row in self.buckets),
        ]

    def __len__(self) -> int:
        return len(self.opened) + len(self.settled)

    def __bool__(self) -> bool:
        return bool(self.opened or self.settled)


class Journal:
    """Writes entries through a database. All methods are for the loop's thread."""

    def __init__(self, database: Database, changes: Callable[[], Iterable[BucketRow]]) -> None:
        self._database = database
        self._changes = changes
        self._loop = asyncio.get_running_loop()
        self._filling = Ticket()
        self._writing: Ticket | None = None
        self._slow_at = 0.0
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
        """Begin to write.

        `changes` tells the buckets that changed since it was last asked; it is asked once a
        batch, so who changes them makes the entry in the same step.

        Raises:
            StoreError: the database cannot be used.
        """
        journal = cls(database, changes)
        await database.read(partial(_prepare, synchronous=synchronous))
        journal._task = journal._loop.create_task(journal._run())
        journal._timer = journal._loop.call_later(_PACE, journal._look)
        return journal

    _task: asyncio.Task[None]
    _timer: asyncio.TimerHandle

    def open(self, opening: Opening) -> Ticket:
        """Note that a request was admitted."""
        filling = self._filling
        filling.opened.append(opening)
        if self._idle is not None:
            self._wake()
        elif len(filling.opened) >= MOST and self.healthy:
            self._ill("it is too slow for what is asked of it")
        return filling

    def settle(self, settlement: Settlement) -> Ticket:
        """Note how a request ended."""
        filling = self._filling
        filling.settled.append(settlement)
        if self._idle is not None:
            self._wake()
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
        while True:
            if not self._filling:
                if self._close_by is not None:
                    return
                self._idle = self._loop.create_future()
                await self._idle
                continue
            batch, self._filling = self._filling, Ticket()
            batch.buckets = self._changed()
            self._writing = batch
            if not await self._commit(batch):
                return
            self._writing = None
            if not self.healthy:
                self._well()
            batch.durable = True
            while batch.waiting:
                _call(batch.waiting.popleft()[1], True)

    def _changed(self) -> list[BucketRow]:
        try:
            return [row for row in self._changes() if row[2] != MONEY]
        except Exception:  # nothing may end the journal
            _log.exception("what is left of some limits was not journalled")
            return []

    async def _commit(self, batch: Ticket) -> bool:
        """Try until it is written; False when the journal is closed before it is."""
        delay, longest = _BACK_OFF
        rows = batch.rows()
        # A single statement is a transaction by itself; two more would be BEGIN and COMMIT.
        call, write = self._database.write, _write
        if len(rows) <= _LONGEST:
            call = self._database.read
        while True:
            self._slow_at = self._loop.time() + _SLOW
            try:
                await call(partial(write, rows=rows))
            except Exception as error:  # nothing may end the journal
                if write is _write and _is_of_the_data(error):
                    call, write = self._database.write, _write_what_can_be
                    continue
                if not isinstance(error, StoreError):
                    _log.exception("the journal failed in a way that it should not")
                self._ill(str(error))
            else:
                return True
            if self._close_by is not None and self._loop.time() >= self._close_by:
                return False
            await asyncio.sleep(delay)
            delay = min(delay * 2, longest)

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
        writing = self._writing
        if writing is None:
            return
        if now >= self._slow_at and self.healthy:
            self._ill(f"a batch takes longer than {_SLOW:.0f} s")
        for batch in (writing, self._filling):
            while batch.waiting and batch.waiting[0][0] <= now:
                _call(batch.waiting.popleft()[1], False)


def _call(callback: Callback, durable: bool) -> None:
    try:
        callback(durable)
    except Exception:
        _log.exception("an answer could not be ended")


# --- on the database's thread ---


def _prepare(connection: sqlite3.Connection, synchronous: str) -> None:
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    if not connection.execute("SELECT 1 FROM temp.sqlite_schema WHERE name = 'entry'").fetchone():
        for statement in _VIEW:
            connection.execute(statement)


def _write(connection: sqlite3.Connection, rows: list[tuple[Any, ...]]) -> None:
    for begin in range(0, len(rows), _LONGEST):
        part = rows[begin : begin + _LONGEST]
        # Filled up to a power of two, so that there are few statements to prepare.
        size = 1 << (len(part) - 1).bit_length()
        values = list(chain(chain.from_iterable(part), _NOTHING * (size - len(part))))
        connection.execute(_insert(size), values)


@cache
def _insert(rows: int) -> str:
    row = "(" + ", ".join("?" * (_WIDTH + 1)) + ")"
    return "INSERT INTO entry VALUES " + ", ".join([row] * rows)  # noqa: S608


_OF_THE_DATA = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.ProgrammingError,
    sqlite3.InterfaceError,
    OverflowError,
    UnicodeError,
)


def _is_of_the_data(error: Exception) -> bool:
    """Whether it is an entry that cannot be written, rather than the file."""
    return isinstance(error.__cause__ if isinstance(error, StoreError) else error, _OF_THE_DATA)


def _write_what_can_be(connection: sqlite3.Connection, rows: list[tuple[Any, ...]]) -> None:
    """Row by row, so that one which SQLite will not have takes no other with it."""
    for row in rows:
        try:
            connection.execute(_insert(1), row)
        except _OF_THE_DATA:
            try:
                connection.execute(_insert(1), [_bounded(value) for value in row])
            except _OF_THE_DATA as error:
                _log.error("the journal dropped an entry (%s): %s", row[1], error)


def _bounded(value: object) -> object:
    """The nearest value that SQLite can hold, and sum up: upstreams say all sorts of things."""
    if isinstance(value, str):  # a lone surrogate has no UTF-8
        return value.encode(errors="replace").decode()
    if isinstance(value, int):
        return max(-(10**12), min(value, 10**12))
    return value
