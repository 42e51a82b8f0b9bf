"""The SQLite file: opening it, migrating it, and running statements and transactions.

Decides which connection does what, how long a writer waits for another process, and the text
that an operator reads when the file cannot be used. Must not know what the tables mean.

One process has up to three connections, which SQLite's write-ahead log lets work side by side:

- the writer, on a thread of its own. A transaction is one Python function, since every change
  of thread costs more than its SQL does.
- the reader, aiosqlite's. `select` takes one change of thread and sees every transaction that
  was committed before. It refuses to write.
- the inline one, on the loop's thread, for the journal's transactions; opened when first used.
"""

import os
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import aiosqlite

from relay.store.audit import RELAY, Actor
from relay.store.binding import bind_as_they_are
from relay.store.claims import Claims, NoClaims
from relay.store.errors import LOCK_TIMEOUT_SECONDS, failure_of, is_busy
from relay.store.errors import BusyError as BusyError
from relay.store.errors import StoreError as StoreError
from relay.store.errors import describe_error as describe_error
from relay.store.executor import ExecutorClosedError, ThreadExecutor
from relay.store.turns import Turns

T = TypeVar("T")
Connection: TypeAlias = sqlite3.Connection
Work = Callable[[Connection], T]

MIGRATIONS = Path(__file__).parent / "migrations"
APPLICATION_ID: Final = 0x524C4159  # "RLAY", in the file's header


class _State:
    """The state that changes while a file is open, for all views of it."""

    __slots__ = ("before_select", "claims", "closed", "inline")

    def __init__(self) -> None:
        self.closed = False
        self.claims: Claims = NoClaims()
        self.inline: sqlite3.Connection | None = None
        self.before_select: Callable[[], Awaitable[None]] | None = None


class Database:
    """One open SQLite file, with its connections and threads."""

    def __init__(
        self,
        path: Path,
        executor: ThreadExecutor,
        writer: sqlite3.Connection,
        reader: aiosqlite.Connection,
    ) -> None:
        self.actor = RELAY  # whose changes the audit log shows
        self.path = path
        self._turns = Turns(executor)
        self._writer = writer
        self._reader = reader
        self._state = _State()

    def by(self, actor: Actor) -> "Database":
        """The same open file, for changes by another actor."""
        view = copy(self)
        view.actor = actor
        return view

    @classmethod
    async def open(cls, path: str | Path) -> "Database":
        """Open the file and migrate it. A missing file is created with mode 0600.

        Raises:
            StoreError: the file cannot be opened or written, or belongs to another program or
                to a newer version.
        """
        path = Path(path)
        executor = ThreadExecutor("database")
        try:
            writer, reader = await executor.call(partial(_open, path))
            await reader
        except BaseException:
            await executor.close()
            raise
        return cls(path, executor, writer, reader)

    async def close(self) -> None:
        """Finish the calls that were made, close the file and end the threads."""
        state = self._state
        if state.closed:
            return
        state.closed = True
        if state.inline is not None:
            state.inline.close()
        await self._reader.close()
        # The last one: it brings the log into the database, and waits for the disk.
        await self._turns.close(self._writer.close)

    async def select(
        self, statement: str, values: Sequence[object] = (), *, latest: bool = True
    ) -> list[tuple[Any, ...]]:
        """All rows of one SELECT, which is consistent by itself.

        `latest`: with the requests that the journal has on disk at this moment. They come into
        their tables within a second, and at once for this.

        Raises:
            StoreError: SQLite failed, or the database is closed.
        """
        before = self._state.before_select
        if latest and before is not None:
            await before()
        with self._errors():
            try:
                rows: Iterable[Any] = await self._reader.execute_fetchall(statement, values)
                return list(rows)
            except UnicodeError:
                raise
            except ValueError as error:  # so aiosqlite says that it is closed
                raise ExecutorClosedError from error

    async def write(self, work: Work[T]) -> T:
        """Call `work` on the writer's thread, in a transaction: all of it is kept, or nothing.

        The transaction takes the write lock before it reads, so a decision based on what it
        read still holds when it writes. Cancelling the caller undoes nothing.

        Raises:
            StoreError: SQLite failed (nothing was written), or the database is closed.
        """
        return await self.run(partial(_transaction, work=work), writes=True)

    async def run(self, work: Work[T], *, writes: bool = False) -> T:
        """Call `work` on the writer's thread; it opens its own transactions. `writes`: it takes
        the write lock, so `run_inline` has to wait for its end.

        Raises:
            StoreError: SQLite failed, or the database is closed.
        """
        with self._errors():
            return await self._turns.call(partial(work, self._writer), writes=writes)

    async def run_beside(self, work: Work[T]) -> T:
        """As `run` that `writes`, on the connection of `run_inline`. So it keeps the pages in
        memory that both write.

        Raises:
            BusyError: another process is writing.
            StoreError: SQLite failed, or the database is closed.
        """
        connection = self._state.inline or self._writer
        with self._errors():
            return await self._turns.call(partial(work, connection), writes=True)

    @property
    def is_writing(self) -> bool:
        """Whether the writer's thread writes now."""
        return self._turns.is_writing

    @property
    def claims(self) -> Claims:
        """For acts that may happen once."""
        return self._state.claims

    def share(self, claims: Claims) -> None:
        """Other nodes have the same rows: ask `claims` from now on."""
        self._state.claims = claims

    def attach(
        self, before_select: Callable[[], Awaitable[None]], on_free: Callable[[], None]
    ) -> None:
        """For the journal: await `before_select` before each `select`, and call `on_free` each
        time the writer's thread has written."""
        self._state.before_select = before_select
        self._turns.on_free = on_free

    def open_inline(self) -> None:
        """Open the connection of `run_inline` and its files now, while there are descriptors.
        Raises StoreError: SQLite failed."""
        self.run_inline(_read_schema)

    def run_inline(self, work: Work[T]) -> T:
        """Call `work` on this thread; it runs one short transaction, unless the writer's thread
        writes now, perhaps on the same connection.

        It waits neither for a lock nor for the disk: under `synchronous = NORMAL` a commit hands
        its pages to the operating system, and `checkpoint` does the rest on the writer's thread.
        A batch takes from 10 to 50 µs.

        Raises:
            BusyError: the writer's thread or another process is writing.
            StoreError: SQLite failed, and nothing was written.
        """
        if self.is_writing:
            raise BusyError(f"database {self.path}: the thread is writing")
        try:
            if self._state.inline is None:
                self._state.inline = _open_inline(self.path)
            return work(self._state.inline)
        except sqlite3.Error as error:
            raise failure_of(error)(describe_error(self.path, error)) from error
        except UnicodeError as error:
            raise StoreError(f"database {self.path}: a value is not valid Unicode") from error

    async def checkpoint(self) -> None:
        """Copy the write-ahead log into the database file, which waits for the disk. The loop
        writes meanwhile, and waits only while that is copied too, so that the log begins anew.

        Raises:
            StoreError: SQLite failed; the log keeps growing.
        """
        if not await self.run(_checkpoint):
            await self.run(_checkpoint, writes=True)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise failure_of(error)(describe_error(self.path, error)) from error
        except UnicodeError as error:
            raise StoreError(f"database {self.path}: a value is not valid Unicode") from error
        except ExecutorClosedError as error:
            raise StoreError(f"database {self.path}: is closed") from error


def _open_inline(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA cache_size = -8000")  # KiB
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    return connection


def _read_schema(connection: sqlite3.Connection) -> None:
    """The first read opens the write-ahead log."""
    connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()


def _checkpoint(connection: sqlite3.Connection) -> bool:
    """Returns whether everything was copied: nobody has written meanwhile."""
    _, pages, done = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    if pages == done:
        # The first write after this restarts the log and waits for the disk once more
        # (sqlite.org/atomiccommit.html; in wal.c `syncHeader`). Do that here, not on the loop.
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        connection.execute(f"PRAGMA user_version = {version}")
    return bool(pages == done)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Keep all that is written inside, or on any exception nothing."""
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


def _open(path: Path) -> tuple[sqlite3.Connection, aiosqlite.Connection]:
    """The writer, for this thread, of a migrated database; and the reader, to be awaited."""
    bind_as_they_are()
    try:
        _create(path)
    except OSError as error:
        if not path.parent.is_dir():
            raise StoreError(f"database {path}: there is no folder {path.parent}") from None
        raise StoreError(f"database {path}: {error.strerror}") from None
    writer: sqlite3.Connection | None = None
    try:
        writer = sqlite3.connect(path, timeout=LOCK_TIMEOUT_SECONDS, isolation_level=None)
        _prepare(path, writer)
        return writer, _reader(path)
    except BaseException as error:
        if writer is not None:
            writer.close()
        if isinstance(error, sqlite3.Error):
            raise StoreError(describe_error(path, error)) from None
        raise


def _reader(path: Path) -> aiosqlite.Connection:
    """Opened before aiosqlite has it, so that awaiting it cannot fail.

    Its thread inherits from this one that it is a daemon: a process that forgets to close the
    database ends all the same.
    """
    connection = sqlite3.connect(
        path, timeout=LOCK_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA query_only = ON")
    return aiosqlite.Connection(lambda: connection, 64)


def _create(path: Path) -> None:
    """Create an empty file that only its owner can read; SQLite's own would be open to all.

    An existing file is not opened: closing any descriptor of it would drop the locks that
    SQLite holds on it in this process (sqlite.org/howtocorrupt.html §2.2).
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
    # Only now: a migration may replace a table that others refer to.
    connection.execute("PRAGMA foreign_keys = ON")


def _use_wal(path: Path, connection: sqlite3.Connection) -> None:
    """Switch to the write-ahead log. SQLite does not wait for that lock, so this does."""
    if not connection.execute("PRAGMA page_count").fetchone()[0]:
        # So that free pages can be given back later (`relay.store.space`).
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    deadline = time.monotonic() + LOCK_TIMEOUT_SECONDS
    while True:
        try:
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
            continue
        if mode != "wal":
            raise StoreError(f"database {path}: its file system cannot hold a write-ahead log")
        return


def _migrate(path: Path, connection: sqlite3.Connection) -> None:
    """Apply the migrations that are missing, each in its own transaction.

    The first transaction also proves that the file can be written. If two processes start at
    once, the second one gets the lock when the work is done.
    """
    scripts = migrations()

    def migrate_once(connection: sqlite3.Connection) -> bool:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        _claim(path, connection)
        if version > len(scripts):
            raise StoreError(
                f"database {path}: written by a newer relay (schema {version}, this one knows "
                f"up to {len(scripts)}); install that version again, or restore a backup"
            )
        if version == len(scripts):
            return False
        for statement in _statements(scripts[version]):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {version + 1}")
        return True

    while _transaction(connection, migrate_once):
        pass


def _claim(path: Path, connection: sqlite3.Connection) -> None:
    """Mark an empty file as ours; refuse a file with another program's tables."""
    application_id = connection.execute("PRAGMA application_id").fetchone()[0]
    if application_id == APPLICATION_ID:
        return
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if application_id or tables:
        raise StoreError(f"database {path}: belongs to another program; choose another path")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")


def migrations() -> list[str]:
    """The SQL scripts in order; number N migrates from schema N-1 to N.

    Raises:
        StoreError: the installation has no scripts, or a gap in their numbers.
    """
    files = sorted(MIGRATIONS.glob("[0-9][0-9][0-9][0-9]_*.sql"))
    if not files or [int(file.name[:4]) for file in files] != [*range(1, len(files) + 1)]:
        raise StoreError(f"the installation is damaged: migrations are missing in {MIGRATIONS}")
    return [file.read_text(encoding="utf-8") for file in files]


def schema_of(path: str | Path) -> int:
    """The schema of a database file, without migrating it; 0 if there is none.

    Raises:
        StoreError: the file cannot be read.
    """
    path = Path(path)
    if not path.exists():
        return 0
    try:
        with closing(sqlite3.connect(path)) as connection:
            return int(connection.execute("PRAGMA user_version").fetchone()[0])
    except sqlite3.Error as error:
        raise StoreError(describe_error(path, error)) from None


def _statements(script: str) -> list[str]:
    """The single statements. `executescript` would commit the transaction that it runs in."""
    statements: list[str] = []
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            statements.append(pending)
            pending = ""
    return [*statements, pending]  # the last has no semicolon: a comment, or an error
