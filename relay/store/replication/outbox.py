"""The changes that the other nodes have yet to get.

Decides which of them travel together and as what: of several changes of one row, the row as it is
now goes once. A change that was shared stays noted until this node has read past it, so that an
older image of the row from another node does not undo it here. Requests come into the outbox only
when it is their turn, some hundred at a time: it does not grow with them while none are sent. Must
not know how changes travel.
"""

import sqlite3
from typing import Final, NamedTuple

import msgspec

from relay.store.replication.images import decode_columns, decode_key, encode_row
from relay.store.replication.shape import Table, adds_only

_encode: Final = msgspec.json.Encoder().encode

MAX_ENTRIES: Final = 500
_MAX_OCTETS: Final = 1_000_000  # of images in a batch, unless one row alone has more


_UNNOTED: Final = """SELECT coalesce((SELECT max(number) FROM usage), 0) > noted,
    (SELECT count(*) FROM (SELECT 1 FROM outbox WHERE sent IS NULL LIMIT ?)) FROM replica"""
_NEXT_NUMBER: Final = """SELECT max(number) FROM (SELECT number FROM usage
    WHERE number > (SELECT noted FROM replica) ORDER BY number LIMIT ?)"""
_NOTE_REQUESTS: Final = """INSERT INTO outbox (tbl, pk, op)
    SELECT 'usage', json_array(number), 'insert' FROM usage
    WHERE number > (SELECT noted FROM replica) AND number <= ?
        AND number > coalesce((SELECT last FROM usage_foreign WHERE first <= number
            ORDER BY first DESC LIMIT 1), 0)
    ORDER BY number"""
# The number of changes and requests that were not shared, about; no row: the database is no node's.
# Entries are counted by their ids, which is quick.
UNSENT: Final = """SELECT
    coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'outbox')
        - (SELECT id FROM outbox WHERE sent IS NULL ORDER BY id LIMIT 1) + 1, 0)
    + max(0, coalesce((SELECT max(number) FROM usage), 0) - noted
        - (SELECT coalesce(sum(last - max(first - 1, noted)), 0) FROM usage_foreign))
    FROM replica"""


class Outgoing(NamedTuple):
    """A row to be shared. `op`: insert, update or delete; `image`: None: it is gone."""

    tbl: str
    pk: str
    op: str
    image: msgspec.Raw | None
    octets: int


class Outbatch(NamedTuple):
    """The entries of the outbox from `first` up to `upto`. `rows`: JSON, a list of [table, key,
    operation, image or null, octets of the image], made here since that takes milliseconds."""

    first: int
    upto: int
    number: int  # of rows
    rows: str


class _Noted(NamedTuple):
    """All that the entries of a batch say of one row."""

    first: int
    is_new: bool
    columns: set[str]


def take(connection: sqlite3.Connection, tables: dict[str, Table], node: str) -> Outbatch | None:
    """The next changes to share; None: there are none. Changes nothing."""
    noted: dict[tuple[str, str], _Noted] = {}
    upto = 0
    for id, tbl, pk, op, columns in connection.execute(
        "SELECT id, tbl, pk, op, columns FROM outbox WHERE sent IS NULL ORDER BY id LIMIT ?",
        (MAX_ENTRIES,),
    ):
        upto = id
        before = noted.get((tbl, pk), _Noted(id, False, set()))
        changed = before.columns | (decode_columns(columns) or frozenset())
        noted[tbl, pk] = _Noted(before.first, before.is_new or op == "insert", changed)
    if not noted:
        return None
    rows: list[Outgoing] = []
    octets = 0
    for (tbl, pk), one in noted.items():
        table = tables.get(tbl)
        row = None if table is None else _read(connection, table, node, pk, one)
        size = 0 if row is None else row.octets
        if rows and octets + size > _MAX_OCTETS:
            upto = one.first - 1
            break
        octets += size
        if row is not None:
            rows.append(row)
    first = next(iter(noted.values())).first
    return Outbatch(first, upto, len(rows), _encode(rows).decode())


def _read(
    connection: sqlite3.Connection, table: Table, node: str, pk: str, noted: _Noted
) -> Outgoing | None:
    """A row as it is now; None: there is nothing to share."""
    names = [it for it in table.columns if noted.is_new or it in noted.columns]
    if table.sharing == "requests":
        names = [it for it in names if it not in table.key]  # each node numbers them itself
    found = connection.execute(
        f"SELECT {', '.join(names) or 1} FROM {table.name} WHERE "  # noqa: S608
        + " AND ".join(f"{it} = ?" for it in table.key),
        decode_key(table, pk),
    ).fetchone()
    if table.sharing == "requests":
        if found is None:  # it was pruned before it could be shared
            return None
        pk = msgspec.json.encode([node, noted.first]).decode()
    if found is None:
        return Outgoing(table.name, pk, "delete", None, 0)
    image = encode_row(dict(zip(names, found, strict=False)))
    op = "insert" if noted.is_new else "update"
    return Outgoing(table.name, pk, op, msgspec.Raw(image), len(image))


def note_sent(
    connection: sqlite3.Connection, tables: dict[str, Table], upto: int, seq: int
) -> None:
    """Note that all entries up to `upto` were shared, under numbers up to `seq`; within a
    transaction. Entries about rows that no other node changes are not needed any more."""
    # `+` keeps SQLite from the index by row, which has all entries of these tables.
    own = adds_only(tables)
    connection.execute(
        f"DELETE FROM outbox WHERE id <= ? AND sent IS NULL AND +tbl IN ({_marks(own)})",  # noqa: S608
        (upto, *own),
    )
    connection.execute("UPDATE outbox SET sent = ? WHERE id <= ? AND sent IS NULL", (seq, upto))


def has_unnoted(connection: sqlite3.Connection) -> bool:
    """Whether there are requests to be noted, and room for them."""
    [(has_new, waiting)] = connection.execute(_UNNOTED, (MAX_ENTRIES,)).fetchall()
    return bool(has_new) and int(waiting) < MAX_ENTRIES


def note_requests(connection: sqlite3.Connection) -> None:
    """Note the next requests that this node has served, within a transaction."""
    [(upto,)] = connection.execute(_NEXT_NUMBER, (MAX_ENTRIES,)).fetchall()
    if upto is not None:
        connection.execute(_NOTE_REQUESTS, (upto,))
        connection.execute("UPDATE replica SET noted = ?", (upto,))
        connection.execute("DELETE FROM usage_foreign WHERE last <= ?", (upto,))


def last_entry(connection: sqlite3.Connection) -> int:
    """The id of the last entry that there ever was."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'").fetchone()
    return 0 if row is None else int(row[0])


def close_gaps(connection: sqlite3.Connection, after: int) -> None:
    """Number all entries from `after` + 1 on, in their order, while none was sent; within a
    transaction. A missing entry before the first one would look like one that was sent."""
    # A quarter of the time that it takes to change the ids.
    connection.execute(
        "CREATE TEMP TABLE kept AS SELECT tbl, pk, op, columns FROM outbox ORDER BY id"
    )
    connection.execute("DELETE FROM outbox")
    connection.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = 'outbox'", (after,))
    connection.execute(
        "INSERT INTO outbox (tbl, pk, op, columns) SELECT * FROM temp.kept ORDER BY rowid"
    )
    connection.execute("DROP TABLE temp.kept")


def unsent_by_table(connection: sqlite3.Connection) -> dict[str, int]:
    """The number of entries that were not shared, by table."""
    return dict(
        connection.execute("SELECT tbl, count(*) FROM outbox WHERE sent IS NULL GROUP BY tbl")
    )


def _marks(values: list[str]) -> str:
    return ", ".join("?" * len(values))
