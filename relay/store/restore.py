"""Puts a backup in the place of the database, after it was tested.

Decides which tests a backup must pass, and that nothing is lost: the replaced database stays, with
a name of its own. Must not know whether a server runs: the caller holds its lock.
"""

import os
import secrets
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import quote

import msgspec

from relay.store.database import (
    APPLICATION_ID,
    Database,
    StoreError,
    describe_error,
    migrations,
)
from relay.store.responses import DatabaseResponseStore

_LOGS: Final = ("-wal", "-shm")  # parts of a database, after its name


class Contents(msgspec.Struct, frozen=True):
    """Numbers by which an operator recognises a database."""

    octets: int
    schema: int
    accounts: int
    keys: int
    requests: int  # single ones, not yet pruned
    latest: float | None  # epoch second of the latest request


async def prepare(source: str | Path, target: str | Path) -> tuple[Path, Contents]:
    """Copy a backup beside `target`, and test the copy; returns it with its contents.

    It is tested as a server would use it: integrity, references between tables, and the
    migrations up to this version. The caller removes or installs the copy.

    Raises:
        StoreError: it is no backup of a relay, is damaged, is of a newer version, or cannot be
            copied.
    """
    source, target = Path(source), Path(target)
    if not source.is_file():
        raise StoreError(f"backup {source}: there is no such file")
    copy = target.with_name(f".{target.name}.{secrets.token_hex(4)}.restored")
    try:
        os.close(os.open(copy, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        _copy(source, copy)
        contents = _test(source, copy)
        database = await Database.open(copy)  # migrates it
        await database.close()
    except BaseException as error:
        discard(copy)
        if isinstance(error, OSError):
            raise StoreError(f"database {target}: {error.strerror}") from None
        raise
    return copy, contents


def discard(copy: Path) -> None:
    """Remove a copy that `prepare` made."""
    for suffix in ("", *_LOGS):
        copy.with_name(copy.name + suffix).unlink(missing_ok=True)


def contents(path: str | Path) -> Contents | None:
    """The contents of the database at `path`; None if it is missing or cannot be read."""
    path = Path(path)
    if not path.is_file():
        return None
    try:
        with _opened(path) as connection:
            return _contents(path, connection)
    except (StoreError, sqlite3.Error):
        return None


def install(copy: Path, target: str | Path, now: float) -> Path | None:
    """Put a tested copy in the place of the database; the caller holds the server's lock.

    Returns where the replaced database is now; None: there was none. At every moment the file
    at `target` is one of the two, complete.

    Raises:
        StoreError: the files cannot be renamed.
    """
    target = Path(os.path.realpath(target))
    try:
        replaced = _keep_aside(target, now) if target.exists() else None
        _sync(copy)
        copy.replace(target)
        _sync(target.parent)
    except OSError as error:
        raise StoreError(f"database {target}: {error.strerror}") from None
    return replaced


def _keep_aside(target: Path, now: float) -> Path:
    """Give the database a second name, and its write-ahead log the name that goes with it."""
    while True:
        moment = datetime.fromtimestamp(now, UTC)
        replaced = target.with_name(f"{target.name}.replaced-{moment:%Y%m%dT%H%M%SZ}")
        if not replaced.exists():
            break
        now += 1
    log, kept = (path.with_name(path.name + "-wal") for path in (target, replaced))
    if log.exists():  # a copy: SQLite deletes the log of a damaged database
        shutil.copyfile(log, kept)
        kept.chmod(0o600)
    if _fold_log(target):
        kept.unlink(missing_ok=True)
    for suffix in _LOGS:
        target.with_name(target.name + suffix).unlink(missing_ok=True)
    os.link(target, replaced)
    return replaced


def _fold_log(path: Path) -> bool:
    """Bring the write-ahead log into the file; False: it may hold something still."""
    try:
        connection = sqlite3.connect(path, timeout=5, isolation_level=None)
        try:
            busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            return not busy
        finally:
            connection.close()
    except sqlite3.Error:
        return False


async def reads_responses(path: Path, key: bytes) -> bool:
    """Whether `key` decrypts the latest stored response of the database at `path`, if any.

    Raises:
        StoreError: the database cannot be used.
    """
    database = await Database.open(path)
    try:
        latest = await database.select(
            "SELECT owner, id FROM response ORDER BY created DESC LIMIT 1"
        )
        store = DatabaseResponseStore(database, key, 1.0)
        if not latest:
            return True
        owner, response_id = latest[0]
        return await store.get(owner, response_id, 0.0) is not None
    finally:
        await database.close()


@contextmanager
def _opened(path: Path, mode: str = "ro") -> Iterator[sqlite3.Connection]:
    """A connection. Raises StoreError: the file is not the relay's."""
    uri = f"file:{quote(str(path.absolute()))}?mode={mode}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None)
    try:
        if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise StoreError(f"backup {path}: is not a relay's")
        yield connection
    finally:
        connection.close()


def _copy(source: Path, copy: Path) -> None:
    try:
        with _opened(source) as connection:
            connection.execute("VACUUM INTO ?", (str(copy),))
    except sqlite3.Error as error:
        raise StoreError(_describe(source, error)) from None


def _describe(source: Path, error: sqlite3.Error) -> str:
    text = describe_error(source, error).replace("; restore a backup", "; try an older backup")
    return text.replace(f"database {source}", f"backup {source}", 1)


def _test(source: Path, copy: Path) -> Contents:
    newest = len(migrations())
    try:
        with _opened(copy, "rw") as connection:  # read-only, SQLite checks no constraints
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version > newest:
                raise StoreError(
                    f"backup {source}: made by a newer relay (schema {version}, this one knows up "
                    f"to {newest}); install that version, then restore"
                )
            result = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
            if result != "ok":
                raise StoreError(f"backup {source}: is damaged: {result}; try an older backup")
            loose = connection.execute("PRAGMA foreign_key_check").fetchone()
            if loose is not None:
                raise StoreError(
                    f"backup {source}: is damaged: table {loose[0]} refers to a row of {loose[2]} "
                    "that is missing; try an older backup"
                )
            return _contents(copy, connection)
    except sqlite3.Error as error:
        raise StoreError(_describe(source, error)) from None


def _contents(path: Path, connection: sqlite3.Connection) -> Contents:
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema")}

    def first(query: str, table: str) -> int:
        return int(connection.execute(query).fetchone()[0]) if table in tables else 0

    latest = None
    if "usage" in tables:
        row = connection.execute("SELECT time FROM usage ORDER BY number DESC LIMIT 1").fetchone()
        latest = None if row is None else float(row[0])
    return Contents(
        octets=path.stat().st_size,
        schema=int(connection.execute("PRAGMA user_version").fetchone()[0]),
        accounts=first("SELECT count(*) FROM users", "users"),
        keys=first("SELECT count(*) FROM keys WHERE revoked_at IS NULL", "keys"),
        requests=first("SELECT count(*) FROM usage", "usage"),
        latest=latest,
    )


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
