"""A consistent copy of the database, taken while a server uses it.

Decides the copy's name until it is complete, how it is checked, and that no file is ever
overwritten. Opens its own connection: readers do not block the journal.
"""

import os
import secrets
import sqlite3
from pathlib import Path
from typing import Final
from urllib.parse import quote

from relay.store.database import APPLICATION_ID, StoreError, describe_error


def backup(source: str | Path, target: str | Path) -> int:
    """Copy the database, check the copy, then give it its name; returns its size in octets.

    Blocks. Only the file's owner can read the copy. It is opened like any database.

    Raises:
        StoreError: the database cannot be read, the copy cannot be written, or a file of that
            name exists.
    """
    source, target = Path(source), Path(target)
    if os.path.lexists(target):
        raise StoreError(f"backup {target}: exists; choose another name, or move it away")
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    try:
        # SQLite treats an empty file as a missing one, and keeps its mode.
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        try:
            before = _copy(source, partial)
            _check(partial, before)
            _publish(partial, target)
            return target.stat().st_size
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"backup {target}: {error.strerror}") from None


# Numbers that only grow, so that a copy has at least those of the moment before it was made.
# Requests are pruned, but not the last one.
_GROWING: Final = {
    "users": "SELECT count(*) FROM users",
    "keys": "SELECT count(*) FROM keys",
    "statement": "SELECT coalesce(max(id), 0) FROM statement",
    "usage": "SELECT coalesce(max(number), 0) FROM usage",
}


def _numbers(connection: sqlite3.Connection) -> dict[str, int]:
    """By table. A database that has yet to be migrated may lack some."""
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema")}
    return {
        table: int(connection.execute(query).fetchone()[0])
        for table, query in _GROWING.items()
        if table in tables
    }


def _copy(source: Path, partial: Path) -> dict[str, int]:
    """Returns the numbers of `_GROWING` before the copy was made."""
    try:
        connection = sqlite3.connect(
            f"file:{quote(str(source.absolute()))}?mode=rw", uri=True, isolation_level=None
        )
        try:
            if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
                raise StoreError(f"database {source}: is not the relay's")
            before = _numbers(connection)
            connection.execute("VACUUM INTO ?", (str(partial),))
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise StoreError(describe_error(source, error)) from None
    return before


def _check(partial: Path, before: dict[str, int]) -> None:
    connection = sqlite3.connect(partial, isolation_level=None)
    try:
        result = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if result == "ok":
            copied = _numbers(connection)
            short = [name for name, number in before.items() if copied.get(name, 0) < number]
            result = f"table {short[0]} is not complete" if short else "ok"
    except sqlite3.Error as error:
        result = str(error)
    finally:
        connection.close()
    if result != "ok":
        raise StoreError(f"backup: the copy is damaged, as the database may be: {result}")


def _publish(partial: Path, target: Path) -> None:
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    try:
        os.link(partial, target)  # never overwrites, not even a file created meanwhile
    except FileExistsError:
        raise
    except OSError:  # some file systems have no hard links
        if os.path.lexists(target):
            raise FileExistsError(0, "exists") from None
        partial.rename(target)
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
