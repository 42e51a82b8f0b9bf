"""A database becomes a node's, or is one no more.

Decides what a node brings with it: the use of its limits and all its shared rows, once it is
certain that none contradicts a row of the others. One transaction checks that, takes the others'
rows, gives new ids to the node's own entries, and notes the rows for the others, but for requests
that they have. Must not know how rows travel.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from relay.store.database import StoreError, transaction
from relay.store.ids import STEP
from relay.store.replication import capture, outbox, recovery, use
from relay.store.replication.applying import Applier, Incoming, parse
from relay.store.replication.images import decode_key, decode_row
from relay.store.replication.shape import Table, read_tables

_REPORTED: Final = 20  # conflicts that a refusal names
_DROP_KNOWN_ROWS: Final = """DELETE FROM outbox WHERE EXISTS (
    SELECT 1 FROM temp.received AS other
    WHERE other.tbl = outbox.tbl AND other.pk = outbox.pk)"""
# Each node numbers requests in its own way: they are known by their ids.
_DROP_KNOWN_REQUESTS: Final = """DELETE FROM outbox WHERE tbl = 'usage' AND pk IN (
    SELECT json_array(number) FROM usage WHERE id IN (
        SELECT json_extract(image, '$.id') FROM temp.received WHERE tbl = 'usage'))"""
_IS_HERE: Final = "tbl = 'usage' AND json_extract(image, '$.id') IN (SELECT id FROM usage)"
_RECEIVED: Final = f"""SELECT json_extract(pk, '$[0]'), max(json_extract(pk, '$[1]'))
    FROM temp.received WHERE {_IS_HERE} GROUP BY 1"""  # noqa: S608
_NOTE_RECEIVED: Final = """INSERT INTO usage_received VALUES (?, ?)
    ON CONFLICT DO UPDATE SET entry = max(entry, excluded.entry)"""
# No two databases make an account with one id.
_COPIED: Final = """SELECT other.node FROM temp.received AS other JOIN outbox
    ON outbox.tbl = other.tbl AND outbox.pk = other.pk WHERE other.tbl = 'users' LIMIT 1"""
_NAMES: Final = ("email", "name", "subject", "id")  # columns that name a row to people


class Conflict(NamedTuple):
    """A row that both sides have, and that is not the same. `name`: as people know it."""

    table: str
    name: str

    def __str__(self) -> str:
        return self.name if self.table == "value" else f"{self.table} {self.name}"


class JoinError(StoreError):
    """The database cannot become this node's; nothing was changed."""

    def __init__(self, message: str, conflicts: Sequence[Conflict] = ()) -> None:
        super().__init__(message)
        self.conflicts = conflicts


def came_already(node: str) -> JoinError:
    """The error of a database whose rows came with another node, or with a copy."""
    return JoinError(
        f"the rows of this database, or of a copy of it, came with node {node} already: begin with "
        "an empty database"
    )


class Membership(NamedTuple):
    """This database as a node's. `seen`: the number of the last row of others that is here."""

    node: str
    number: int
    seen: int
    schema: int
    has_left: bool


def membership(connection: sqlite3.Connection) -> Membership | None:
    """None: the database is no node's."""
    row = connection.execute("SELECT node, number, seen, schema, has_left FROM replica").fetchone()
    if row is None:
        return None
    node, number, seen, schema, has_left = row
    return Membership(node, number, seen, schema, bool(has_left))


def origin(connection: sqlite3.Connection) -> str | None:
    """The first account, by which a database is known among others; None: it has no account."""
    row = connection.execute("SELECT id FROM users ORDER BY created_at, id LIMIT 1").fetchone()
    return None if row is None else str(row[0])


def begin_to_receive(connection: sqlite3.Connection) -> None:
    """Have room for rows of the other nodes, for `join`."""
    connection.execute("DROP TABLE IF EXISTS temp.received")
    connection.execute("CREATE TEMP TABLE received (seq PRIMARY KEY, node, tbl, pk, image)")


def receive(connection: sqlite3.Connection, rows: str) -> None:
    """Put rows of the other nodes aside. See `applying.parse`."""
    connection.executemany("INSERT INTO temp.received VALUES (?, ?, ?, ?, ?)", parse(rows))


def join(
    connection: sqlite3.Connection,
    node: str,
    place: tuple[int, int],
    seen: int,
    now: int,
    *,
    again: bool = False,
) -> None:
    """Take the rows that were received, up to number `seen`, and note all own rows for the others,
    after what their limits have used. `place`: the node's number, and the last entry of its outbox
    that the others have, of an earlier database. `now`: epoch ms. `again`: the others have rows of
    this database, and may have changed them since; of these, theirs hold.

    Opens its own transaction.

    Raises:
        JoinError: rows of both sides contradict each other, or the others have an account of this
            database although the node has shared nothing: it is a copy.
    """
    tables = read_tables(connection)
    number, entry = place
    connection.execute("PRAGMA foreign_keys = OFF")
    try:
        with transaction(connection):
            [[schema]] = connection.execute("PRAGMA user_version")
            connection.execute(
                "INSERT INTO replica (one, node, number, seen, schema) VALUES (1, ?, ?, ?, ?)",
                (node, number, seen, schema),
            )
            recovery.go_on_after(connection, entry)
            use.note(connection, now)
            for table in tables.values():
                if table.sharing == "entries":
                    _renumber(connection, table, number)
                _note_all(connection, table)
            capture.note_all_numbers(connection)
            copied = connection.execute(_COPIED).fetchone()
            if copied is not None and not again and not entry:
                raise came_already(copied[0])
            conflicts = [] if again else list(_differing(connection, tables))
            # The others' rows come over this node's equal ones, which need not be sent then.
            connection.execute(_DROP_KNOWN_ROWS)
            connection.execute(_DROP_KNOWN_REQUESTS)
            outbox.close_gaps(connection, entry)
            _apply_received(connection, tables)
            conflicts += _held(connection, tables)
            if conflicts:
                raise JoinError(_report(node, conflicts), conflicts)
            capture.install(connection, tables)
    finally:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("DROP TABLE IF EXISTS temp.received")


def resume(connection: sqlite3.Connection, node: str) -> Membership:
    """Go on as this node: the triggers are made anew, since a program of another version may have
    others. With new tables or columns, all rows are read once more. Opens its own transaction.

    Raises:
        JoinError: the database is another node's, or has left.
    """
    found = membership(connection)
    assert found is not None
    if found.node != node:
        raise JoinError(
            f"the database is that of node {found.node}, and this one is {node}: each node needs "
            "a database of its own"
        )
    if found.has_left:
        raise JoinError(
            "the database has left its cluster and missed changes since; begin with an empty one"
        )
    with transaction(connection):
        [[schema]] = connection.execute("PRAGMA user_version")
        if schema != found.schema:
            connection.execute("UPDATE replica SET seen = 0, schema = ?", (schema,))
        capture.install(connection, read_tables(connection))
    again = membership(connection)
    assert again is not None
    return again


def leave(connection: sqlite3.Connection) -> None:
    """Be no node any more: nothing is noted from now on. Within a transaction. A database that was
    none stays as it is."""
    capture.remove(connection)
    connection.execute("UPDATE replica SET has_left = 1 WHERE NOT has_left")
    connection.execute("DELETE FROM outbox")
    connection.execute("DELETE FROM held_row")


def note_all(connection: sqlite3.Connection) -> None:
    """Note all rows once more: the others have lost some. Within a transaction."""
    for table in read_tables(connection).values():
        if table.sharing != "requests":
            _note_all(connection, table)


def _note_all(connection: sqlite3.Connection, table: Table) -> None:
    key = capture.key_sql(table, table.name)
    connection.execute(
        f"""INSERT INTO outbox (tbl, pk, op) SELECT '{table.name}', {key}, 'insert'
            FROM {table.name} ORDER BY {", ".join(table.key)}"""  # noqa: S608
    )


def _renumber(connection: sqlite3.Connection, table: Table, number: int) -> None:
    """Give entries the ids that this node's have. They stay in their order."""
    [id] = table.key
    guards = connection.execute(
        "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = ?",
        (table.name,),
    ).fetchall()
    for name, _ in guards:
        connection.execute(f"DROP TRIGGER {name}")
    # By way of ids below zero, since some new ones are taken by entries that come later.
    connection.execute(f"UPDATE {table.name} SET {id} = -({id} * {STEP} + ?)", (number,))  # noqa: S608
    connection.execute(f"UPDATE {table.name} SET {id} = -{id}")  # noqa: S608
    connection.execute(
        f"""UPDATE sqlite_sequence SET seq = (SELECT coalesce(max({id}), 0) FROM {table.name})
            WHERE name = ?""",  # noqa: S608
        (table.name,),
    )
    for _, sql in guards:
        connection.execute(sql)


def _apply_received(connection: sqlite3.Connection, tables: dict[str, Table]) -> None:
    """Apply the rows of the others, but for requests that are here."""
    received = connection.execute(_RECEIVED).fetchall()
    connection.execute(f"DELETE FROM temp.received WHERE {_IS_HERE}")  # noqa: S608
    rows = connection.execute("SELECT seq, node, tbl, pk, image FROM temp.received ORDER BY seq")
    applier = Applier(tables, is_joining=True)
    applier.apply_within(connection, _incoming(rows), is_last=False)
    connection.executemany(_NOTE_RECEIVED, received)


def _incoming(rows: Iterable[tuple[Any, ...]]) -> Iterator[Incoming]:
    return (Incoming(*row) for row in rows)


def _differing(connection: sqlite3.Connection, tables: dict[str, Table]) -> Iterator[Conflict]:
    """Rows that both sides have under one key, and with other values."""
    has_apps = connection.execute("SELECT 1 FROM totp LIMIT 1").fetchone() is not None
    for tbl, pk, image in connection.execute(
        """SELECT other.tbl, other.pk, image FROM temp.received AS other JOIN outbox
           ON outbox.tbl = other.tbl AND outbox.pk = other.pk"""
    ).fetchall():
        table = tables[tbl]
        if tbl == "value":
            # The others' secret holds. What this node sealed for good could not be opened.
            if has_apps and _differs(connection, table, pk, image):
                yield Conflict(
                    tbl, "authenticator apps, which are sealed with this node's own secret"
                )
        elif _differs(connection, table, pk, image):
            yield Conflict(tbl, _label(decode_row(table, image) if image else {}, pk))


def _differs(connection: sqlite3.Connection, table: Table, pk: str, image: str | None) -> bool:
    if image is None:
        return True
    values = decode_row(table, image)
    row = connection.execute(
        f"SELECT {', '.join(values)} FROM {table.name} WHERE "  # noqa: S608
        + " AND ".join(f"{it} = ?" for it in table.key),
        decode_key(table, pk),
    ).fetchone()
    return row is not None and list(row) != list(values.values())


def _held(connection: sqlite3.Connection, tables: dict[str, Table]) -> list[Conflict]:
    found = connection.execute("SELECT tbl, pk, image FROM held_row ORDER BY seq").fetchall()
    return [Conflict(tbl, _label(decode_row(tables[tbl], image), pk)) for tbl, pk, image in found]


def _label(values: dict[str, Any], pk: str) -> str:
    found = next((values[it] for it in _NAMES if isinstance(values.get(it), str)), None)
    return str(found or pk)


def _report(node: str, conflicts: Sequence[Conflict]) -> str:
    listed = "; ".join(map(str, conflicts[:_REPORTED]))
    more = len(conflicts) - _REPORTED
    return (
        f"node {node} cannot join: both it and the cluster have {listed}"
        + (f" and {more} more" if more > 0 else "")
        + "; nothing was changed. Delete or rename these on one side"
    )
