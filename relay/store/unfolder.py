"""Has the journal's batches unfolded on the database's thread, and knows which slots are free.

Decides how many at a time, and when: as soon as there are some hundred entries, a second after the
first, or before somebody reads (`flush`). The states of limits, the sums and SQLite's checkpoint
come each second, since there is less to write for many requests at once. All of it is done in short
steps of a millisecond or two, for which a batch waits. A turn of the loop sees one step begin, so
the steps are longer where turns bring more requests than that. Must not know how entries become
rows (`unfold`), nor when batches are written.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Sequence
from functools import partial
from heapq import heappop, heappush
from typing import Final

from relay.store.batch import KEPT_SLOTS, Batch, encode, write
from relay.store.database import BusyError, Connection, Database, StoreError
from relay.store.records import BucketRow
from relay.store.unfold import free_slots, sum_up, unfold, unfolded, write_limits

MAX_BEHIND: Final = 25_000  # requests that are on disk and not unfolded; about 30 MB
_INTERVAL_SECONDS: Final = 1.0
_STEP_WEIGHT: Final = 256  # of requests, with a charge twice as much: a millisecond or two
_LONGEST_STEP_WEIGHT: Final = 4_096  # while a turn of the loop takes longer than this step
_LIMITS_BATCHES: Final = 256  # on disk, so that the states of limits are written earlier
_LIMITS_ROWS: Final = 256  # at a time
_PATIENCE_SECONDS: Final = 1.0  # of those who read
_CHECKPOINT_WEIGHT: Final = 20_000
_CHECKPOINT_INTERVAL_SECONDS: Final = 60.0
_RETRY_SECONDS: Final = 1.0
_BUSY_RETRY_SECONDS: Final = 0.01

_log = logging.getLogger(__name__)


class Written:
    """A batch that is on disk, or will be."""

    __slots__ = ("batch", "number", "parts", "slots", "weight")

    def __init__(self, number: int, batch: Batch, parts: list[bytes], slots: list[int]) -> None:
        self.number = number
        self.batch = batch
        self.parts = parts
        self.slots = slots
        self.weight = max(1, len(batch.opened), len(batch.ended)) + len(batch.charges)

    def write(self, connection: Connection) -> None:
        """Write it, in a transaction."""
        write(connection, self.slots, self.number, self.parts)


def _unfold(connection: Connection, step: Sequence[Written]) -> None:
    done = unfolded(connection)  # during a hand-over that fails, another process may go further
    batches = [one.batch for one in step if one.number > done]
    if batches:
        unfold(connection, batches, step[-1].number)


def _write_last(connection: Connection, rows: Sequence[BucketRow], upto: int) -> None:
    write_limits(connection, rows)
    free_slots(connection, upto)


class Unfolder:
    """The batches that were written and not unfolded. All methods are for the loop's thread."""

    def __init__(self, database: Database, slots: int) -> None:
        """`slots`: how many are in use already."""
        self._database = database
        self._loop = asyncio.get_running_loop()
        self.behind = 0  # number of entries that are not unfolded
        self._written: deque[Written] = deque()  # those batches
        self._unfolded = 0  # number of the last batch that is
        self._limits: dict[tuple[str, str, str, int], BucketRow] = {}  # changed since written
        self._occupied: deque[tuple[int, list[int]]] = deque()  # number and slots of batches
        self._free: list[int] = []  # a heap: the lowest is the next, so that few pages are used
        self._slots = slots
        self._wanted = 0  # number of the batch up to which somebody waits for the tables
        self._waiting: list[asyncio.Future[None]] = []
        self._due = False  # whether everything is to be unfolded and summed up
        self._failing = False  # until `_timer` ends
        self._has_warned = False
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._done = 0  # entries since the last checkpoint
        self._next_checkpoint = self._loop.time() + _CHECKPOINT_INTERVAL_SECONDS

    def place(self, number: int, batch: Batch) -> Written:
        """The next batch, with the slots that it is to be written into."""
        parts = encode(batch)
        slots: list[int] = []
        for _ in parts:
            if self._free:
                slots.append(heappop(self._free))
            else:
                self._slots += 1
                slots.append(self._slots)
        return Written(number, batch, parts, slots)

    def add(self, written: Written) -> None:
        """Take over a batch that is on disk. It must not change any more."""
        written.parts = []
        self._written.append(written)
        self._occupied.append((written.number, written.slots))
        self.behind += written.weight
        for row in written.batch.buckets:
            self._limits[row[:4]] = row
        if self._is_wanted():
            if not self._failing:
                self._start()
        elif self._timer is None:
            self._timer = self._loop.call_later(_INTERVAL_SECONDS, self._be_due)

    async def flush(self) -> None:
        """Wait until all batches of this moment are in the tables, or cannot be for now."""
        if not self._written:
            return
        done = self._loop.create_future()
        self._waiting.append(done)
        self._wanted = self._written[-1].number
        self._start()
        await asyncio.wait([done], timeout=_PATIENCE_SECONDS)

    async def finish(self) -> None:
        """Unfold and sum up everything, if it can be done now."""
        if self._task is not None:
            await self._task
        if self._occupied or self._timer is not None:
            self._be_due()
        if self._task is not None:
            await self._task
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _be_due(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._due, self._failing = True, False
        self._start()

    def _start(self) -> None:
        if self._task is None:
            self._task = self._loop.create_task(self._run())

    async def _run(self) -> None:
        while self._due or self._is_wanted():
            due, self._due = self._due, False
            if due and self._written:
                self._wanted = self._written[-1].number
            try:
                await self._unfold()
            except Exception as error:  # the entries are on disk; try again
                self._note_failure(error)
                break
            try:
                if due or len(self._occupied) >= _LIMITS_BATCHES:
                    await self._write_limits()
                if due:
                    while await self._database.run_beside(sum_up):
                        await self._unfold()
                    await self._checkpoint()
                elif self._timer is None:
                    self._timer = self._loop.call_later(_INTERVAL_SECONDS, self._be_due)
            except Exception as error:
                self._note_failure(error)
                if not self._must_unfold():
                    break
        self._task = None
        self._release()

    def _note_failure(self, error: Exception) -> None:
        self._failing = True
        delay = _RETRY_SECONDS
        if isinstance(error, BusyError):
            delay = _BUSY_RETRY_SECONDS
        elif not isinstance(error, StoreError):
            _log.error("journalled requests are not in their tables yet", exc_info=error)
        elif not self._has_warned:
            self._has_warned = True
            _log.warning("journalled requests are not in their tables yet: %s", error)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(delay, self._be_due)

    def _is_wanted(self) -> bool:
        """Whether something is to be done before it is due."""
        return self._must_unfold() or len(self._occupied) >= _LIMITS_BATCHES

    def _must_unfold(self) -> bool:
        return self.behind >= _STEP_WEIGHT or self._unfolded < self._wanted

    async def _unfold(self) -> None:
        while self._must_unfold():
            step: list[Written] = []
            weight = 0
            most = max(_STEP_WEIGHT, min(self.behind // 2, _LONGEST_STEP_WEIGHT))
            for one in self._written:
                if step and weight + one.weight > most:
                    break
                step.append(one)
                weight += one.weight
            await self._database.run_beside(partial(_unfold, step=step))
            self._has_warned = False
            for _ in step:
                self._written.popleft()
            self.behind -= weight
            self._done += weight
            self._unfolded = step[-1].number
            if self._unfolded >= self._wanted:
                self._release()

    async def _write_limits(self) -> None:
        """Write the states of limits, and free the slots of batches that are unfolded."""
        upto, limits, self._limits = self._unfolded, self._limits, {}
        rows = list(limits.values())
        try:
            while len(rows) > _LIMITS_ROWS:
                part, rows = rows[:_LIMITS_ROWS], rows[_LIMITS_ROWS:]
                await self._database.run_beside(partial(write_limits, rows=part))
            await self._database.run_beside(partial(_write_last, rows=rows, upto=upto))
        except BaseException:
            self._limits = {**limits, **self._limits}
            raise
        while self._occupied and self._occupied[0][0] <= upto:
            for slot in self._occupied.popleft()[1]:
                if slot <= KEPT_SLOTS:
                    heappush(self._free, slot)

    def _release(self) -> None:
        for done in self._waiting:
            if not done.done():
                done.set_result(None)
        self._waiting.clear()

    async def _checkpoint(self) -> None:
        """Bring SQLite's own log into the database file, if it is time."""
        now = self._loop.time()
        if self._done < _CHECKPOINT_WEIGHT and now < self._next_checkpoint:
            return
        self._done, self._next_checkpoint = 0, now + _CHECKPOINT_INTERVAL_SECONDS
        with contextlib.suppress(StoreError):  # the log grows on until the next try
            await self._database.checkpoint()
