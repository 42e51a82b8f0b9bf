"""The SQLite file: opened, brought up to date, and written in whole transactions.

Decides how the file is opened, how long a writer waits for another process, and what
an operator is told when it cannot be used. Knows nothing of what the tables mean.
aiosqlite lends the thread; each transaction is one Python call on it, since every
hand-over between the threads costs more than the SQL does.
"""

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

MIGRATIONS = Path(__file__).parent / "migrations"
APPLICATION_ID = 0x524C4159  # "RLAY": tells our files from another program's
_PATIENCE = 10.0  # seconds that one process waits for another's transaction


class StoreError(Exception):
    """The database cannot be used; the message is one line for the operator."""


class BusyError(StoreError):
    """Another connection is writing; it will not be long."""


class Database:
    """One open SQLite file, and the thread that works on it."""

    def __init__(self, path: Path, connection: aiosqlite.Connection) -> None:
        self._path = path
        self._connection = connection
        self._beside: sqlite3.Connection | None = None

    @classmethod
    async def open(cls, path: str | Path) -> "Database":
        """Open the file, made with mode 0600 where it is missing, and migrate it.

        Raises:
            StoreError: it cannot be opened and written, or is not ours to write.
        """
        path = Path(path)
        connection = aiosqlite.Connection(lambda: _open(path), 64)
        # A thread that a crash left waiting must not keep the process from ending.
        thread: Any = getattr(connection, "_thread", connection)
        thread.daemon = True
        try:
            await connection
        except BaseException:
            # The thread's last word is for this loop, which may close right after.
            await asyncio.to_thread(thread.join)
            raise
        return cls(path, connection)

    async def close(self) -> None:
        """Finish what was asked for, close the file and end the thread."""
        if self._beside is not None:
            self._beside.close()
        await self._connection.close()

    async def read(self, work: Work[T]) -> T:
        """Call `work` on the thread; it runs a single SELECT, which is consistent by itself.

        Raises:
            StoreError: SQLite failed, or the database is closed.
        """
        return await self._call(work)

    async def write(self, work: Work[T]) -> T:
        """Call `work` inside a transaction, kept whole or not at all.

        It takes the write lock before it reads, so what it decides by what it read
        still holds when it writes. A caller that is cancelled meanwhile undoes nothing.

        Raises:
            StoreError: SQLite failed (nothing was written), or the database is closed.
        """
        return await self._call(lambda connection: _transaction(connection, work))

    def at_once(self, work: Work[T]) -> T:
        """Call `work` here and now, instead of on the thread; it runs one short transaction.

        It waits for no lock, and not for the disk either: under `synchronous = NORMAL` a
        commit hands its pages to the system, and `checkpoint` does the rest on the thread.
        Forty requests take a third of a millisecond under full load, a single one 20 to 50 µs.

        Raises:
            BusyError: another connection is writing.
            StoreError: SQLite failed, and nothing was written.
        """
        try:
            if self._beside is None:
                self._beside = _open_beside(self._path)
            return work(self._beside)
        except sqlite3.Error as error:
            failure = BusyError if _is_busy(error) else StoreError
            raise failure(_explain(self._path, error)) from error
        except UnicodeError as error:
            raise StoreError(f"database {self._path}: a value is not valid Unicode") from error

    async def checkpoint(self) -> None:
        """Bring the write-ahead log into the database, if it has become long; this waits for
        the disk. Nobody calls `at_once` meanwhile.

        Raises:
            StoreError: SQLite failed; the log just grows on.
        """
        await self._call(_checkpoint)

    async def _call(self, work: Work[T]) -> T:
        try:
            raw = self._connection._conn
            # aiosqlite has no public call for a function of one's own, only for statements.
            result: T = await self._connection._execute(work, raw)  # type: ignore[no-untyped-call]
        except sqlite3.Error as error:
            raise StoreError(_explain(self._path, error)) from error
        except UnicodeError as error:
            raise StoreError(f"database {self._path}: a value is not valid Unicode") from error
        except ValueError as error:  # aiosqlite's way to say so
            raise StoreError(f"database {self._path}: is closed") from error
        return result


def _open_beside(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=0, isolation_level=None)
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    return connection


def _checkpoint(connection: sqlite3.Connection) -> None:
    _, pages, done = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    if pages == done:
        # Who writes first after this begins the log anew, and waits for the disk once more
        # (sqlite.org/atomiccommit.html; in wal.c `syncHeader`). That is to happen here.
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        connection.execute(f"PRAGMA user_version = {version}")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """What runs in it is kept whole or not at all."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk may have ended it already
            connection.execute("ROLLBACK")
        raise


def _transaction(connection: sqlite3.Connection, work: Work[T]) -> T:
    with transaction(connection):
        return work(connection)


def _open(path: Path) -> sqlite3.Connection:
    """On the thread: everything between the path and a database that is up to date."""
    try:
        _create(path)
    except OSError as error:
        if not path.parent.is_dir():
            raise StoreError(f"database {path}: there is no folder {path.parent}") from None
        raise StoreError(f"database {path}: {error.strerror}") from None
    try:
        connection = sqlite3.connect(
            path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
        )
    except sqlite3.Error as error:
        raise StoreError(_explain(path, error)) from None
    try:
        _prepare(path, connection)
    except sqlite3.Error as error:
        connection.close()
        raise StoreError(_explain(path, error)) from None
    except BaseException:
        connection.close()
        raise
    return connection


def _create(path: Path) -> None:
    """Make an empty file that only its owner reads; SQLite's own would be open to all.

    An existing file is left unopened: closing any descriptor of it would drop the locks
    that SQLite holds on it in this process (sqlite.org/howtocorrupt.html §2.2).
    """
    if path.is_dir():
        raise IsADirectoryError(0, "is a folder; database.path names a file")
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        pass


def _prepare(path: Path, connection: sqlite3.Connection) -> None:
    _use_wal(path, connection)
    connection.execute("PRAGMA synchronous = NORMAL")  # in WAL: a crash of ours loses nothing
    _migrate(path, connection)
    # Only now: a migration may have to put a table that others refer to in another's place.
    connection.execute("PRAGMA foreign_keys = ON")


def _use_wal(path: Path, connection: sqlite3.Connection) -> None:
    """SQLite does not wait for its turn to change the journal mode, so we do."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        except sqlite3.OperationalError as error:
            if not _is_busy(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
            continue
        if mode != "wal":
            raise StoreError(f"database {path}: its file system cannot hold a write-ahead log")
        return


def _migrate(path: Path, connection: sqlite3.Connection) -> None:
    """Apply what is missing, each migration in its own transaction.

    The first transaction also proves that the file can be written. Two processes may
    start at once: whoever comes second finds the work done once it holds the lock.
    """
    steps = migrations()

    def step(connection: sqlite3.Connection) -> bool:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        _claim(path, connection)
        if version > len(steps):
            raise StoreError(
                f"database {path}: written by a newer relay (schema {version}, this one knows "
                f"up to {len(steps)}); install that version again, or restore a backup"
            )
        if version == len(steps):
            return False
        for statement in _statements(steps[version]):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {version + 1}")
        return True

    while _transaction(connection, step):
        pass


def _claim(path: Path, connection: sqlite3.Connection) -> None:
    """Mark an empty file as ours; refuse one that another program filled."""
    marked = connection.execute("PRAGMA application_id").fetchone()[0]
    if marked == APPLICATION_ID:
        return
    if marked or connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
        raise StoreError(f"database {path}: belongs to another program; choose another path")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")


def migrations() -> list[str]:
    """The scripts in their order; number N brings schema N-1 to N.

    Raises:
        StoreError: the installation has a gap in the numbers, or none.
    """
    found = sorted(MIGRATIONS.glob("[0-9][0-9][0-9][0-9]_*.sql"))
    if not found or [int(file.name[:4]) for file in found] != [*range(1, len(found) + 1)]:
        raise StoreError(f"the installation is damaged: migrations are missing in {MIGRATIONS}")
    return [file.read_text(encoding="utf-8") for file in found]


def _statements(script: str) -> list[str]:
    """`executescript` would commit the transaction that it runs in, so one by one."""
    statements: list[str] = []
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            statements.append(pending)
            pending = ""
    return [*statements, pending]  # what is left over has no semicolon: a comment, or an error


def _is_busy(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


_REASONS = {
    sqlite3.SQLITE_NOTADB: "is no SQLite database, or is damaged; restore a backup",
    sqlite3.SQLITE_CORRUPT: "is damaged; restore a backup",
    sqlite3.SQLITE_READONLY: "cannot be written; the file and its folder must be writable",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened; the file and its folder must be writable",
    sqlite3.SQLITE_BUSY: f"another process has held it locked for {_PATIENCE:.0f} s",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_IOERR: "the disk failed to read or write",
}


def _explain(path: Path, error: sqlite3.Error) -> str:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # extended codes keep it there
    return f"database {path}: {_REASONS.get(code) or error}"
