"""Another program's SQLite file, read as rows. Must not know what its tables mean."""

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from relay.store.database import APPLICATION_ID, StoreError

Rows = list[dict[str, Any]]


def is_sqlite(path: Path) -> bool:
    """Whether a file begins as every SQLite database does. Raises OSError."""
    with path.open("rb") as file:
        return file.read(16) == b"SQLite format 3\0"


def is_of_relay(path: Path) -> bool:
    """Whether a SQLite file is a relay's database. Raises OSError."""
    with path.open("rb") as file:
        return file.read(72)[68:] == APPLICATION_ID.to_bytes(4, "big")


def read_tables(path: Path, names: Iterable[str]) -> dict[str, Rows]:
    """All rows of those of the tables that exist. The file is only read.

    Raises:
        StoreError: it cannot be read.
    """
    try:
        connection = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True)
        try:
            connection.row_factory = sqlite3.Row
            connection.text_factory = lambda octets: octets.decode("utf-8", "replace")
            existing = {
                row[0]
                for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
            }
            return {
                name: [dict(row) for row in connection.execute(f'SELECT * FROM "{name}"')]  # noqa: S608
                for name in names
                if name in existing
            }
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise StoreError(f"{path}: cannot be read: {error}") from None
