"""The shared tables as this database has them: columns, primary keys, references.

Decides nothing; reads it from SQLite, so that a migration needs no change here. Must not know rows.
"""

import sqlite3
from dataclasses import dataclass

from relay.store.replication.tables import SHARED, Sharing


@dataclass(frozen=True, slots=True)
class Reference:
    """A column that refers to a row of another shared table, by its key."""

    column: str
    parent: str
    key: str


@dataclass(frozen=True, slots=True)
class Table:
    """One shared table. `columns`: types by name, in order, without those that are computed."""

    name: str
    sharing: Sharing
    columns: dict[str, str]
    key: tuple[str, ...]
    references: tuple[Reference, ...]


def read_tables(connection: sqlite3.Connection) -> dict[str, Table]:
    """The shared tables by name, parents first."""
    return {name: _read(connection, name, sharing) for name, (sharing, _) in SHARED.items()}


def adds_only(tables: dict[str, Table]) -> list[str]:
    """The names of the tables whose rows never change."""
    return [name for name, table in tables.items() if table.sharing != "rows"]


def _read(connection: sqlite3.Connection, name: str, sharing: Sharing) -> Table:
    found = connection.execute(
        "SELECT name, type, pk FROM pragma_table_xinfo(?) WHERE hidden = 0 ORDER BY cid", (name,)
    ).fetchall()
    references = connection.execute(
        """SELECT "from", "table", coalesce("to", 'id') FROM pragma_foreign_key_list(?)""", (name,)
    ).fetchall()
    key = sorted((place, column) for column, _, place in found if place)
    return Table(
        name,
        sharing,
        {column: type for column, type, _ in found},
        tuple(column for _, column in key),
        tuple(Reference(*row) for row in references),
    )
