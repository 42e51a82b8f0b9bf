"""What the last process left behind, as a new one needs it.

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


async def restore(database: Database, now: float) -> State:
    """Settle the requests of a crash and return the state. Call it before the journal starts.

    Raises:
        StoreError: the database cannot be used.
    """

    def work(connection: sqlite3.Connection) -> State:
        crashed = recover(connection, now)
        rows: list[BucketRow] = connection.execute(
            "SELECT scope, owner, kind, per, refill, size, used, moment FROM bucket"
        ).fetchall()
        rows += [
            ("account", user_id, MONEY, 0, "charged", 0, charged, 0)
            for user_id, charged in connection.execute("SELECT user_id, charged FROM balance")
        ]
        return State(rows, crashed)

    return await database.write(work)
