"""The use of limits from before a database became a node's, on its way to the other nodes.

Decides which rows of `bucket` and `balance` a node brings: all that are in use at the moment of its
join, as they are then. They are the first entries of its outbox, so no other node knows an account
or key before PostgreSQL has its use, and the outbox's numbers let each entry count once. Must not
know how nodes name windows, or how entries travel.
"""

import sqlite3
from typing import Any, Final, NamedTuple

import msgspec

from relay.store.records import CHARGED, MONEY, BucketRow

TABLE: Final = "bucket"  # of these entries; a table that is not shared
_MAX_ENTRIES: Final = 500
_decode: Final = msgspec.json.Decoder(list[Any]).decode


class Batch(NamedTuple):
    """The entries of the outbox from `first` up to `upto`, and the rows in them, as the ledger
    writes them; of a balance the charges, as `recovery.restore` returns them."""

    first: int
    upto: int
    rows: list[BucketRow]


def note(connection: sqlite3.Connection, now: int) -> None:
    """Note what is in use now (epoch ms), within a transaction, before any row."""
    connection.execute(
        f"""INSERT INTO outbox (tbl, pk, op, columns)
            SELECT '{TABLE}', json_array(scope, owner, kind, per), 'insert',
                json_array(refill, size, used, moment)
            FROM (
                SELECT * FROM bucket
                WHERE scope <> 'lease' AND (refill = 'smooth' OR moment > ?)
                    AND (used > 0 OR kind LIKE 'bonus:%')
                UNION ALL
                SELECT 'account', user_id, '{MONEY}', 0, '{CHARGED}', 0, charged, 0
                FROM balance WHERE charged > 0)
            ORDER BY kind LIKE 'bonus:%'""",  # noqa: S608 - a bonus comes after its window
        (now,),
    )


def next_batch(connection: sqlite3.Connection) -> Batch | None:
    """The next entries that PostgreSQL lacks; None: it has all. Changes nothing."""
    found = connection.execute(
        "SELECT id, pk, columns FROM outbox WHERE tbl = ? AND sent IS NULL ORDER BY id LIMIT ?",
        (TABLE, _MAX_ENTRIES),
    ).fetchall()
    if not found:
        return None
    rows = [_row(*_decode(pk), *_decode(columns)) for _, pk, columns in found]
    return Batch(found[0][0], found[-1][0], rows)


def _row(*values: Any) -> BucketRow:
    scope, owner, kind, per, refill, size, used, moment = values
    return scope, owner, kind, per, refill, size, used, moment


def note_brought(connection: sqlite3.Connection, upto: int) -> None:
    """PostgreSQL has these entries up to `upto`. Within a transaction."""
    connection.execute("DELETE FROM outbox WHERE tbl = ? AND id <= ?", (TABLE, upto))
