"""Rows of other nodes, brought into the tables.

Decides what a row does to the one that is here:
- a change that this node has yet to share, or whose place in the order it has yet to reach, stays:
  it is the later one for all;
- a deletion prevails over changes, and takes the rows that refer to the deleted one with it;
- a row that a constraint refuses is held, and tried again with the next rows; but an entry that two
  nodes have made of the same thing is the one that came first, on each node;
- a request is counted once, whatever comes twice.

All is one transaction, with the number of the last row. Must not know how rows travel.
"""

import logging
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from relay.store.database import transaction
from relay.store.replication.images import decode_columns, decode_key, decode_row
from relay.store.replication.shape import Reference, Table

_log = logging.getLogger("relay.store")


class Incoming(NamedTuple):
    """A shared row. `seq`: its place in the order of all; `image`: JSON, None: it is gone."""

    seq: int
    node: str
    tbl: str
    pk: str
    image: str | None


_decode: Final = msgspec.json.Decoder(list[tuple[int, str, str, str, msgspec.Raw]]).decode


def parse(rows: str) -> list[Incoming]:
    """Rows of a list of [seq, node, table, key, image or null]."""
    images = ((row, bytes(row[4]).decode()) for row in _decode(rows))
    return [Incoming(*row[:4], None if image == "null" else image) for row, image in images]


class _Pending(NamedTuple):
    """Changes of this node to a row since: these columns stay as they are here."""

    is_new: bool
    is_gone: bool
    columns: frozenset[str]


_NOTHING_PENDING = _Pending(False, False, frozenset())


class Applier:
    """Applies rows to one database. All methods are for the thread of its connection."""

    def __init__(self, tables: dict[str, Table], *, is_joining: bool = False) -> None:
        """`is_joining`: rows that a constraint refuses contradict each other: all are held."""
        self._tables = tables
        self._is_joining = is_joining
        self._children: dict[str, list[tuple[Table, Reference]]] = {}
        for table in tables.values():
            for one in table.references:
                self._children.setdefault(one.parent, []).append((table, one))
        # Rows that refer to one which is not here: it may be on its way.
        self._orphans: set[tuple[str, Reference, Any]] = set()
        self._has_swept = False  # rows that an earlier process left

    def apply(
        self, connection: sqlite3.Connection, rows: Sequence[Incoming], upto: int, *, is_last: bool
    ) -> None:
        """Apply rows in their order, and note that all up to number `upto` were. `is_last`: there
        were no further ones. Opens its own transaction."""
        # The order of rows is not that of their references.
        connection.execute("PRAGMA foreign_keys = OFF")
        try:
            with transaction(connection):
                self.apply_within(connection, rows, is_last=is_last)
                connection.execute("UPDATE replica SET seen = ?", (upto,))
                connection.execute("DELETE FROM outbox WHERE sent <= ?", (upto,))
        finally:
            connection.execute("PRAGMA foreign_keys = ON")

    def apply_within(
        self, connection: sqlite3.Connection, rows: Iterable[Incoming], *, is_last: bool
    ) -> None:
        """As `apply`, in a transaction without foreign keys."""
        connection.execute("UPDATE replica SET is_applying = 1")
        requests: list[Incoming] = []
        has_rows = False
        for row in rows:
            table = self._tables.get(row.tbl)
            if table is None:  # of a newer program; this one reads all again once it knows it
                continue
            if table.sharing == "requests":
                requests.append(row)
            else:
                has_rows = True
                self._take(connection, table, row)
        self._add_requests(connection, requests)
        if has_rows:
            self._retry_held(connection)
        if is_last:
            self._sweep(connection)
        connection.execute("UPDATE replica SET is_applying = 0")

    def _take(self, connection: sqlite3.Connection, table: Table, row: Incoming) -> None:
        """Apply one row, or hold it."""
        try:
            self._apply(connection, table, row)
        except sqlite3.IntegrityError as error:
            if table.sharing == "entries" and not self._is_joining and _is_repeated(error):
                _log.warning("an entry of %s from %s is here already: %s", row.tbl, row.node, error)
                return
            if not self._is_joining:  # else the row is reported with all that contradict others
                _log.error("a row of %s from %s is held: %s", row.tbl, row.node, error)
            connection.execute(
                "INSERT OR REPLACE INTO held_row VALUES (?, ?, ?, ?, ?)",
                (row.tbl, row.pk, row.seq, row.image, str(error)),
            )
        else:
            connection.execute("DELETE FROM held_row WHERE tbl = ? AND pk = ?", (row.tbl, row.pk))

    def _apply(self, connection: sqlite3.Connection, table: Table, row: Incoming) -> None:
        key = decode_key(table, row.pk)
        if table.sharing == "entries":
            if row.image is not None and not _exists(connection, table, key):
                _insert(connection, table, decode_row(table, row.image))
            return
        pending = _pending(connection, row)
        if pending.is_new:
            return
        if row.image is None:
            self._delete(connection, table, key)
        elif not pending.is_gone:
            values = decode_row(table, row.image)
            if not pending.columns:
                _upsert(connection, table, values)
            else:
                _update(connection, table, key, values, pending.columns)
            for one in table.references:
                value = values.get(one.column)
                if value is not None and not self._is_there(connection, one, value):
                    self._orphans.add((table.name, one, value))

    def _delete(self, connection: sqlite3.Connection, table: Table, key: tuple[Any, ...]) -> None:
        """Delete a row, and those that refer to it."""
        by_name = dict(zip(table.key, key, strict=True))
        for child, reference in self._children.get(table.name, ()):
            connection.execute(
                f"DELETE FROM {child.name} WHERE {reference.column} = ?",  # noqa: S608
                (by_name[reference.key],),
            )
        connection.execute(f"DELETE FROM {table.name} WHERE {_is_key(table)}", key)  # noqa: S608

    def _add_requests(self, connection: sqlite3.Connection, rows: Sequence[Incoming]) -> None:
        """Add requests that other nodes served, in the order in which they came."""
        table = next(it for it in self._tables.values() if it.sharing == "requests")
        if not rows:
            return
        received = dict(connection.execute("SELECT node, entry FROM usage_received"))
        here = _unnoted_by_id(connection, rows)
        last = _last_number(connection)
        new: dict[str, int] = {}
        for row in rows:
            node, entry = msgspec.json.decode(row.pk, type=tuple[str, int])
            if row.image is None or entry <= received.get(node, 0):
                continue
            received[node] = new[node] = entry
            values = decode_row(table, row.image)
            if values["id"] in here:
                number = here[values["id"]]
                connection.execute("INSERT INTO usage_foreign VALUES (?, ?)", (number, number))
                continue
            try:
                _insert(connection, table, values)
            except sqlite3.IntegrityError as error:  # it was checked where it was made
                _log.error("a request of %s was dropped: %s", node, error)
        connection.executemany(
            "INSERT INTO usage_received VALUES (?, ?)"
            " ON CONFLICT DO UPDATE SET entry = excluded.entry",
            list(new.items()),
        )

        _note_foreign(connection, last)

    def _retry_held(self, connection: sqlite3.Connection) -> None:
        held = connection.execute(
            "SELECT seq, tbl, pk, image FROM held_row ORDER BY seq"
        ).fetchall()
        for seq, tbl, pk, image in held:
            table = self._tables.get(tbl)
            if table is None:
                continue
            try:
                self._apply(connection, table, Incoming(seq, "", tbl, pk, image))
            except sqlite3.IntegrityError:
                continue
            connection.execute("DELETE FROM held_row WHERE tbl = ? AND pk = ?", (tbl, pk))

    def _sweep(self, connection: sqlite3.Connection) -> None:
        """All rows are here: delete those whose parent was deleted by another node meanwhile. Each
        node does so by itself."""
        if not self._has_swept:
            for children in self._children.values():
                for table, one in children:
                    connection.execute(
                        f"DELETE FROM {table.name} WHERE {one.column} NOT IN"  # noqa: S608
                        f" (SELECT {one.key} FROM {one.parent})"
                    )
            self._has_swept = True
        for name, one, value in self._orphans:
            if not self._is_there(connection, one, value):
                connection.execute(f"DELETE FROM {name} WHERE {one.column} = ?", (value,))  # noqa: S608
        self._orphans.clear()

    def _is_there(self, connection: sqlite3.Connection, one: Reference, value: Any) -> bool:
        query = f"SELECT 1 FROM {one.parent} WHERE {one.key} = ?"  # noqa: S608
        return connection.execute(query, (value,)).fetchone() is not None


def _unnoted_by_id(connection: sqlite3.Connection, rows: Sequence[Incoming]) -> dict[str, int]:
    """The numbers of this node's requests that were not noted, if its own rows come back: after a
    backup was put back, they were noted and shared by the process before."""
    [(node,)] = connection.execute("SELECT node FROM replica").fetchall()
    if all(row.node != node for row in rows):
        return {}
    return dict(
        connection.execute(
            "SELECT id, number FROM usage WHERE number > (SELECT noted FROM replica)"
        )
    )


def _last_number(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT coalesce(max(number), 0) FROM usage").fetchone()[0])


def _note_foreign(connection: sqlite3.Connection, before: int) -> None:
    """The requests with numbers above `before` are not this node's."""
    last = _last_number(connection)
    if last > before:
        found = connection.execute("UPDATE replica SET noted = ?1 WHERE noted = ?2", (last, before))
        if not found.rowcount:
            connection.execute("INSERT INTO usage_foreign VALUES (?, ?)", (before + 1, last))


def _is_repeated(error: sqlite3.IntegrityError) -> bool:
    """Whether another entry has the same unique values, which a trigger may compare."""
    return error.sqlite_errorname in ("SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_TRIGGER")


def _pending(connection: sqlite3.Connection, row: Incoming) -> _Pending:
    """The changes of this node that come after a row in the order of all."""
    found = connection.execute(
        "SELECT op, columns FROM outbox WHERE tbl = ? AND pk = ? AND (sent IS NULL OR sent > ?)",
        (row.tbl, row.pk, row.seq),
    ).fetchall()
    if not found:
        return _NOTHING_PENDING
    columns: frozenset[str] = frozenset()
    for op, names in found:
        if op == "update":
            columns |= decode_columns(names) or frozenset()
    ops = {op for op, _ in found}
    return _Pending("insert" in ops, "delete" in ops, columns)


def _exists(connection: sqlite3.Connection, table: Table, key: tuple[Any, ...]) -> bool:
    query = f"SELECT 1 FROM {table.name} WHERE {_is_key(table)}"  # noqa: S608
    return connection.execute(query, key).fetchone() is not None


def _insert(connection: sqlite3.Connection, table: Table, values: dict[str, Any]) -> None:
    marks = ", ".join("?" * len(values))
    connection.execute(
        f"INSERT INTO {table.name} ({', '.join(values)}) VALUES ({marks})",  # noqa: S608
        [*values.values()],
    )


def _upsert(connection: sqlite3.Connection, table: Table, values: dict[str, Any]) -> None:
    marks = ", ".join("?" * len(values))
    others = [it for it in values if it not in table.key]
    change = ", ".join(f"{it} = excluded.{it}" for it in others)
    connection.execute(
        f"""INSERT INTO {table.name} ({", ".join(values)}) VALUES ({marks})
            ON CONFLICT ({", ".join(table.key)}) DO {f"UPDATE SET {change}" if change else "NOTHING"}""",  # noqa: S608, E501
        [*values.values()],
    )


def _update(
    connection: sqlite3.Connection, table: Table, key: tuple[Any, ...], values: dict[str, Any],
    kept: frozenset[str],
) -> None:  # fmt: skip
    """Change all columns of a row that is here but the `kept` ones."""
    changed = {it: values[it] for it in values if it not in kept and it not in table.key}
    if changed:
        assignments = ", ".join(f"{it} = ?" for it in changed)
        connection.execute(
            f"UPDATE {table.name} SET {assignments} WHERE {_is_key(table)}",  # noqa: S608
            [*changed.values(), *key],
        )


def _is_key(table: Table) -> str:
    return " AND ".join(f"{it} = ?" for it in table.key)
