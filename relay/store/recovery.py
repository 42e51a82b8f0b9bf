"""What the last process left behind, for the next one to go on with.

Requests that a crash interrupted count, and are settled as reserved, in tokens and in money,
for nobody knows any more what they used. What their limits had used was written with them,
reservation included, so nothing is to be taken again.
"""

import sqlite3

import msgspec

from relay.store.batch import MONEY, AdmissionRow, BucketRow, take_over
from relay.store.database import Database


class State(msgspec.Struct, frozen=True):
    """What a ledger goes on with: `rows` as it told them, and what each account paid in."""

    rows: list[BucketRow]
    credited: dict[str, int]
    crashed: list[AdmissionRow]


async def restore(database: Database, now: float) -> State:
    """Close what a crash left open, and tell the state; before anything is journalled.

    Raises:
        StoreError: the database cannot be used.
    """

    def work(connection: sqlite3.Connection) -> State:
        crashed = take_over(connection, now)
        rows: list[BucketRow] = connection.execute(
            "SELECT scope, owner, kind, per, refill, size, used, moment FROM bucket"
        ).fetchall()
        credited = {}
        for user_id, paid, charged in connection.execute(
            "SELECT user_id, credited, charged FROM balance"
        ):
            credited[user_id] = paid
            rows.append(("account", user_id, MONEY, 0, "charged", 0, charged, 0))
        return State(rows, credited, crashed)

    return await database.write(work)
