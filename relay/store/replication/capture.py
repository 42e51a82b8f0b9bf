"""Triggers that note each change of a shared table in the outbox, in the change's transaction.

Decides which changes are noted: all that this node makes, by whichever program, and none that
comes from other nodes. A change of columns is noted with these columns, so that two nodes that
change different ones at once lose neither. Requests have no trigger, since there are so many: they
are noted by their numbers when they are sent. Must not know when the outbox is read.
"""

import sqlite3
from collections.abc import Iterator

from relay.store.replication.shape import Table

_PREFIX = "shared_"
_IS_OWN = "NOT EXISTS (SELECT 1 FROM replica WHERE is_applying)"


def install(connection: sqlite3.Connection, tables: dict[str, Table]) -> None:
    """Make the triggers as this program has them, within a transaction."""
    has_noted = "SELECT 1 FROM sqlite_schema WHERE type = 'trigger' AND name = ?"
    if connection.execute(has_noted, (f"{_PREFIX}usage_insert",)).fetchone() is not None:
        note_all_numbers(connection)  # an earlier program has noted each of them
    remove(connection)
    for table in tables.values():
        for statement in _triggers(table):
            connection.execute(statement)


def note_all_numbers(connection: sqlite3.Connection) -> None:
    """All present requests are noted, within a transaction."""
    connection.execute("UPDATE replica SET noted = (SELECT coalesce(max(number), 0) FROM usage)")


def remove(connection: sqlite3.Connection) -> None:
    """Remove all triggers, within a transaction."""
    found = connection.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'trigger' AND substr(name, 1, ?) = ?",
        (len(_PREFIX), _PREFIX),
    ).fetchall()
    for (name,) in found:
        connection.execute(f"DROP TRIGGER {name}")


def key_sql(table: Table, row: str) -> str:
    """SQL for the key of a row, as the outbox has it. `row`: the row's name."""
    parts = [
        f"hex({row}.{name})" if table.columns[name] == "BLOB" else f"{row}.{name}"
        for name in table.key
    ]
    return f"json_array({', '.join(parts)})"


def _triggers(table: Table) -> Iterator[str]:
    if table.sharing == "requests":
        return
    name, new, old = table.name, key_sql(table, "NEW"), key_sql(table, "OLD")
    yield f"""CREATE TRIGGER {_PREFIX}{name}_insert AFTER INSERT ON {name} WHEN {_IS_OWN} BEGIN
        INSERT INTO outbox (tbl, pk, op) VALUES ('{name}', {new}, 'insert'); END"""  # noqa: S608
    if table.sharing != "rows":
        return  # never changed, and pruned by each node for itself
    yield f"""CREATE TRIGGER {_PREFIX}{name}_delete AFTER DELETE ON {name} WHEN {_IS_OWN} BEGIN
        INSERT INTO outbox (tbl, pk, op) VALUES ('{name}', {old}, 'delete'); END"""  # noqa: S608
    others = [column for column in table.columns if column not in table.key]
    if others:
        has_changed = " OR ".join(f"OLD.{it} IS NOT NEW.{it}" for it in others)
        changed = " || ".join(f"iif(OLD.{it} IS NOT NEW.{it}, ',\"{it}\"', '')" for it in others)
        yield f"""CREATE TRIGGER {_PREFIX}{name}_update AFTER UPDATE ON {name}
            WHEN ({has_changed}) AND {_IS_OWN} BEGIN
            INSERT INTO outbox (tbl, pk, op, columns)
            VALUES ('{name}', {new}, 'update', '[' || substr({changed}, 2) || ']'); END"""  # noqa: S608
    is_moved = " OR ".join(f"OLD.{it} IS NOT NEW.{it}" for it in table.key)
    yield f"""CREATE TRIGGER {_PREFIX}{name}_move AFTER UPDATE ON {name}
        WHEN ({is_moved}) AND {_IS_OWN} BEGIN
        INSERT INTO outbox (tbl, pk, op) VALUES ('{name}', {old}, 'delete');
        INSERT INTO outbox (tbl, pk, op) VALUES ('{name}', {new}, 'insert'); END"""  # noqa: S608
