"""Requests that were refused before their admission: counts by minute, key and reason.

Decides how many are kept. Must not know what refuses a request.
"""

import sqlite3
from typing import Final

import msgspec

from relay.store.database import Database
from relay.store.request_log import RequestFilter

_RETENTION_SECONDS: Final = 7 * 86_400
_MAX_ROWS: Final = 200_000
_COLUMNS: Final = "user_id, minute, key_id, reason, number, status, model, words, last_id"


class Refusals(msgspec.Struct):
    """The refusals of one key in one minute for one reason; `status`, `model`, `words` and
    `last_id` are of the last one. `minute` is epoch seconds."""

    user_id: str
    minute: int
    key_id: str
    reason: str
    number: int
    status: int
    model: str
    words: str
    last_id: str


async def add_refusals(database: Database, counts: list[Refusals]) -> None:
    """Add to the counts. Raises StoreError: SQLite failed, and nothing was added."""
    rows = [msgspec.structs.astuple(one) for one in counts]
    statement = f"""INSERT INTO refusal ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT DO UPDATE SET number = number + excluded.number, status = excluded.status,
            model = excluded.model, words = excluded.words, last_id = excluded.last_id"""  # noqa: S608
    await database.write(lambda connection: connection.executemany(statement, rows))


async def refusals_of(
    database: Database, user_id: str, which: RequestFilter, limit: int = 50
) -> list[Refusals]:
    """The latest counts of an account under a filter."""
    rows = await database.select(
        f"""SELECT {_COLUMNS} FROM refusal WHERE user_id = ? AND minute >= ? AND minute < ?
            AND ? IN ('', key_id) AND ? IN ('', model)
            ORDER BY minute DESC, key_id, reason LIMIT ?""",  # noqa: S608
        (user_id, which.since - 60, which.until, which.key_id, which.model, limit),
    )
    return [Refusals(*row) for row in rows]


async def prune_refusals(database: Database, now: float) -> None:
    """Delete the counts of more than a week ago, and the oldest where there are very many."""

    def work(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM refusal WHERE minute < ?", (now - _RETENTION_SECONDS,))
        number = connection.execute("SELECT count(*) FROM refusal").fetchone()[0]
        if number > _MAX_ROWS:
            connection.execute(
                """DELETE FROM refusal WHERE minute <= (SELECT minute FROM refusal
                   ORDER BY minute LIMIT 1 OFFSET ?)""",
                (number - _MAX_ROWS,),
            )

    await database.write(work)
