"""A copy of the database as it is at one moment, taken while it is in use.

Decides what the copy is named while it is not yet whole, and that no file is ever
overwritten. Has a connection of its own: readers do not hold up the journal.
"""

import os
import secrets
import sqlite3
from pathlib import Path
from urllib.parse import quote

from relay.store.database import APPLICATION_ID, StoreError, _explain


def backup(source: str | Path, target: str | Path) -> int:
    """Copy, check the copy and only then give it its name; returns its size. Blocks.

    The copy is for its owner alone, and is opened like any database.

    Raises:
        StoreError: the database cannot be read, the copy cannot be written, or there is
            a file of that name.
    """
    source, target = Path(source), Path(target)
    if os.path.lexists(target):
        raise StoreError(f"backup {target}: exists; choose another name, or move it away")
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    try:
        # SQLite takes an empty file for a missing one, and leaves it its mode.
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        try:
            _copy(source, partial)
            _check(partial)
            _name(partial, target)
            return target.stat().st_size
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"backup {target}: {error.strerror}") from None


def _copy(source: Path, partial: Path) -> None:
    try:
        connection = sqlite3.connect(
            f"file:{quote(str(source.absolute()))}?mode=rw", uri=True, isolation_level=None
        )
        try:
            if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
                raise StoreError(f"database {source}: is not the relay's")
            connection.execute("VACUUM INTO ?", (str(partial),))
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise StoreError(_explain(source, error)) from None


def _check(partial: Path) -> None:
    connection = sqlite3.connect(partial, isolation_level=None)
    try:
        found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        found = str(error)
    finally:
        connection.close()
    if found != "ok":
        raise StoreError(f"backup: the copy is damaged, as the database may be: {found}")


def _name(partial: Path, target: Path) -> None:
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    try:
        os.link(partial, target)  # never over another file, not even one made meanwhile
    except FileExistsError:
        raise
    except OSError:  # some file systems have no links
        if os.path.lexists(target):
            raise FileExistsError(0, "exists") from None
        partial.rename(target)
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
