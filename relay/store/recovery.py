"""The state that the last process left behind, as a new one needs it.

A request that a crash interrupted is settled as reserved, in tokens and in money, since its real
usage is unknown. The journal wrote its limits with the reservation included, so nothing is
subtracted again.
"""

import sqlite3
from typing import Final

import msgspec

from relay.store.batch import Batch, read
from relay.store.database import Database
from relay.store.records import (
    MONEY,
    AdmissionRow,
    BucketRow,
    crash_charge,
    crash_settlement,
)
from relay.store.unfold import free_slots, prepare, sum_up, unfold, unfolded, write_limits

_STEP_BATCHES: Final = 1_000


class State(msgspec.Struct, frozen=True):
    """The state of a ledger, and the requests that a crash interrupted."""

    rows: list[BucketRow]
    crashed: list[AdmissionRow]
    running: list[AdmissionRow] = []  # of a process that is alive


async def restore(database: Database, now: float, *, alive: bool = False) -> State:
    """Settle the requests of a crash and return the state. Call it before the journal starts.

    `alive`: the last process is handing over, and its requests are running still.

    Raises:
        StoreError: the database cannot be used.
    """

    def work(connection: sqlite3.Connection) -> State:
        prepare(connection)
        running = _recover(connection, now, alive)
        rows: list[BucketRow] = connection.execute(
            "SELECT scope, owner, kind, per, refill, size, used, moment FROM bucket"
        ).fetchall()
        rows += [
            ("account", user_id, MONEY, 0, "charged", 0, charged, 0)
            for user_id, charged in connection.execute("SELECT user_id, charged FROM balance")
        ]
        return State(rows, [], running) if alive else State(rows, running)

    return await database.run_beside(work)


def _recover(connection: sqlite3.Connection, now: float, alive: bool) -> list[AdmissionRow]:
    """Unfold what an earlier process left in its journal, in transactions of their own; returns
    the requests that had not ended. Without `alive`, they end now."""
    upto = unfolded(connection)
    limits: dict[tuple[str, str, str, int], BucketRow] = {}
    batches: list[Batch] = []
    last = upto
    for number, batch in read(connection):
        limits.update((row[:4], row) for row in batch.buckets)
        if number > upto:
            batches.append(batch)
        last = number
        if len(batches) >= _STEP_BATCHES:
            unfold(connection, batches, last)
            batches = []
    unfold(connection, batches, last)
    write_limits(connection, list(limits.values()))
    free_slots(connection, last)
    found = connection.execute("SELECT * FROM running ORDER BY time, id")
    running = [AdmissionRow(*row) for row in found]
    if running and not alive:
        crashed = Batch()
        crashed.ended = [crash_settlement(request) for request in running]
        charges = [crash_charge(request, now) for request in running]
        crashed.charges = [charge for charge in charges if charge is not None]
        unfold(connection, [crashed], last)
    while sum_up(connection):
        pass
    return running
