"""The state that the last process left behind, as a new one needs it.

A request that a crash interrupted is settled as reserved, in tokens and in money, since its real
usage is unknown. The journal wrote its limits with the reservation included, so nothing is
subtracted again.
"""

import sqlite3

import msgspec

from relay.store.batch import MONEY, AdmissionRow, BucketRow, recover
from relay.store.database import Database


class State(msgspec.Struct, frozen=True):
    """The state of a ledger, and the requests that a crash interrupted."""

    rows: list[BucketRow]
    crashed: list[AdmissionRow]
    running: list[tuple[int, AdmissionRow]] = []  # of a process that is alive, with their batches
    number: int = 0  # of the last batch


async def restore(database: Database, now: float, *, alive: bool = False) -> State:
    """Settle the requests of a crash and return the state. Call it before the journal starts.

    `alive`: the last process is handing over, and its requests are running still.

    Raises:
        StoreError: the database cannot be used.
    """

    def work(connection: sqlite3.Connection) -> State:
        recovered = recover(connection, now, alive=alive)
        rows: list[BucketRow] = connection.execute(
            "SELECT scope, owner, kind, per, refill, size, used, moment FROM bucket"
        ).fetchall()
        rows += [
            ("account", user_id, MONEY, 0, "charged", 0, charged, 0)
            for user_id, charged in connection.execute("SELECT user_id, charged FROM balance")
        ]
        return State(rows, recovered.crashed, recovered.running, recovered.number)

    return await database.write(work)
