"""The changes that the other nodes have yet to get.

Decides which of them travel together and as what: of several changes of one row, the row as it is
now goes once. A change that was shared stays noted until this node has read past it, so that an
older image of the row from another node does not undo it here. Must not know how changes travel.
"""

import sqlite3
from typing import Final, NamedTuple

import msgspec

from relay.store.replication.images import decode_columns, decode_key, encode_row
from relay.store.replication.shape import Table

_encode: Final = msgspec.json.Encoder().encode

MAX_ENTRIES: Final = 500
_MAX_OCTETS: Final = 1_000_000  # of images in a batch, unless one row alone has more


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
    own = [name for name, table in tables.items() if table.sharing != "rows"]
    connection.execute(
        f"DELETE FROM outbox WHERE id <= ? AND sent IS NULL AND +tbl IN ({_marks(own)})",  # noqa: S608
        (upto, *own),
    )
    connection.execute("UPDATE outbox SET sent = ? WHERE id <= ? AND sent IS NULL", (seq, upto))


def last_entry(connection: sqlite3.Connection) -> int:
    """The id of the last entry that there ever was."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'").fetchone()
    return 0 if row is None else int(row[0])


def unsent(connection: sqlite3.Connection) -> int:
    """The number of entries that were not shared."""
    row = connection.execute("SELECT count(*) FROM outbox WHERE sent IS NULL").fetchone()
    return int(row[0])


def unsent_by_table(connection: sqlite3.Connection) -> dict[str, int]:
    """The number of entries that were not shared, by table."""
    return dict(
        connection.execute("SELECT tbl, count(*) FROM outbox WHERE sent IS NULL GROUP BY tbl")
    )


def _marks(values: list[str]) -> str:
    return ", ".join("?" * len(values))
