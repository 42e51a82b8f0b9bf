# ruff: noqa: ASYNC240 - small files, and nothing else on the loop waits for them
import asyncio
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
from pathlib import Path

import pytest

from relay.store import database as store
from relay.store.database import BusyError, Database, StoreError, migrations

MANY_USERS = """
    import asyncio, sys, time
    from relay.store import users
    from relay.store.database import Database

    async def main(path, name):
        database = await Database.open(path)
        for number in range(60):
            await users.create_user(
                database, email=f"{name}{number}@x.y", plan="free", is_admin=False, now=time.time()
            )
        await database.close()

    asyncio.run(main(*sys.argv[1:]))
"""


def python(script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, errors = process.communicate(timeout=30)
    return process.returncode, errors


async def refusal(path: Path) -> str:
    with pytest.raises(StoreError) as caught:
        await Database.open(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def raw(path: Path, statement: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    try:
        with connection:
            return connection.execute(statement).fetchall()
    finally:
        connection.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "relay.db"


async def test_a_missing_file_is_created_for_its_owner_and_migrated(
    path: Path,
) -> None:
    before = os.umask(0)
    try:
        database = await Database.open(path)
    finally:
        os.umask(before)
    names = {row[0] for row in await database.select("SELECT name FROM sqlite_schema")}
    assert {"users", "keys"} <= names
    for file in (path, *path.parent.glob("relay.db-*")):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    await database.close()
    assert raw(path, "PRAGMA user_version") == [(len(migrations()),)]


async def test_an_empty_file_is_treated_as_missing(path: Path) -> None:
    path.touch()
    database = await Database.open(path)
    assert await database.select("SELECT * FROM users") == []
    await database.close()


async def test_an_up_to_date_file_is_opened_unchanged(path: Path) -> None:
    first = await Database.open(path)
    await first.write(
        lambda c: c.execute(
            "INSERT INTO users (id,email,plan,created_at) VALUES ('usr_1','a@b.c','p',1)"
        )
    )
    await first.close()
    schema = raw(path, "SELECT sql FROM sqlite_schema ORDER BY name")
    second = await Database.open(path)
    assert await second.select("SELECT id FROM users") == [("usr_1",)]
    await second.close()
    assert raw(path, "SELECT sql FROM sqlite_schema ORDER BY name") == schema


async def test_pragmas_that_durability_needs_are_in_force(path: Path) -> None:
    database = await Database.open(path)

    async def pragma(name: str) -> object:
        return await database.run(lambda c: c.execute(f"PRAGMA {name}").fetchone()[0])

    assert await pragma("journal_mode") == "wal"
    assert await pragma("synchronous") == 1  # NORMAL
    assert await pragma("foreign_keys") == 1
    assert int(str(await pragma("busy_timeout"))) >= 5000
    await database.close()


async def test_every_table_is_strict(path: Path) -> None:
    database = await Database.open(path)
    tables = await database.select("PRAGMA table_list")
    ours = {
        row[1]: row[5] for row in tables if row[2] == "table" and not row[1].startswith("sqlite_")
    }
    assert set(ours) >= {"users", "keys", "usage", "bucket", "balance", "statement", "journal"}
    assert set(ours.values()) == {1}
    await database.close()


async def test_a_newer_database_is_refused_and_left_alone(path: Path) -> None:
    await (await Database.open(path)).close()
    raw(path, "PRAGMA user_version = 999")
    before = path.read_bytes()
    message = await refusal(path)
    assert "newer relay" in message
    assert "999" in message
    assert path.read_bytes() == before


async def test_a_failed_migration_leaves_the_schema_before_it(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "migrations"
    folder.mkdir()
    (folder / "0001_one.sql").write_text("CREATE TABLE one (a INTEGER) STRICT; -- ; not the end\n")
    (folder / "0002_two.sql").write_text("CREATE TABLE two (a INTEGER) STRICT;\nCREATE nonsense;\n")
    monkeypatch.setattr(store, "MIGRATIONS", folder)
    assert "syntax error" in await refusal(path)
    assert raw(path, "PRAGMA user_version") == [(1,)]
    assert raw(path, "SELECT name FROM sqlite_schema") == [("one",)]
    (folder / "0002_two.sql").write_text("CREATE TABLE two (a INTEGER) STRICT;\n")
    await (await Database.open(path)).close()
    assert raw(path, "PRAGMA user_version") == [(2,)]


async def test_keys_from_before_that_setting_get_cache_breakpoints(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        folder = tmp_path / "migrations"
        folder.mkdir()
        for file in store.MIGRATIONS.glob("000[123]_*.sql"):
            shutil.copy(file, folder)
        before.setattr(store, "MIGRATIONS", folder)
        await (await Database.open(path)).close()
    raw(path, "INSERT INTO users (id,email,plan,created_at) VALUES ('usr_1','a@b.c','p',1)")
    raw(path, "INSERT INTO keys VALUES ('key_1','usr_1','',zeroblob(32),'h',1.0,NULL,NULL)")
    await (await Database.open(path)).close()
    assert raw(path, "SELECT id, cache_breakpoints FROM keys") == [("key_1", 1)]


async def test_a_statement_without_a_semicolon_is_not_dropped(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "0001_one.sql").write_text("CREATE TABLE one (a INTEGER);\nCREATE TABLE two (a)\n")
    monkeypatch.setattr(store, "MIGRATIONS", tmp_path)
    await (await Database.open(path)).close()
    assert raw(path, "SELECT name FROM sqlite_schema") == [("one",), ("two",)]


async def test_a_gap_in_migration_numbers_is_a_damaged_installation(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "0002_two.sql").write_text("CREATE TABLE two (a INTEGER);\n")
    monkeypatch.setattr(store, "MIGRATIONS", tmp_path)
    with pytest.raises(StoreError, match="installation is damaged"):
        await Database.open(path)


async def test_a_path_that_cannot_be_a_database_is_refused_in_one_line(tmp_path: Path) -> None:
    assert "there is no folder" in await refusal(tmp_path / "missing" / "relay.db")
    (tmp_path / "file").write_text("")
    assert "there is no folder" in await refusal(tmp_path / "file" / "relay.db")
    (tmp_path / "folder").mkdir()
    assert "is a folder" in await refusal(tmp_path / "folder")
    (tmp_path / "text").write_text("not a database " * 100)
    assert "damaged" in await refusal(tmp_path / "text")


def test_a_refused_open_leaves_no_thread_behind(tmp_path: Path) -> None:
    """A thread left behind would print a traceback, which fails the test."""
    before = set(threading.enumerate())
    for _ in range(20):
        with pytest.raises(StoreError):
            asyncio.run(Database.open(tmp_path))
    assert set(threading.enumerate()) == before


async def test_another_programs_database_is_refused_and_left_alone(path: Path) -> None:
    raw(path, "CREATE TABLE bookmarks (a)")
    assert "another program" in await refusal(path)
    assert raw(path, "SELECT name FROM sqlite_schema") == [("bookmarks",)]


async def test_a_damaged_database_is_refused(path: Path) -> None:
    await (await Database.open(path)).close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * (size - 100))
    assert "damaged" in await refusal(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take another user's place")
async def test_a_database_that_cannot_be_written_is_refused_at_open() -> None:
    folder = Path(tempfile.mkdtemp())  # pytest's own folders are closed to other users
    try:
        folder.chmod(0o755)
        await (await Database.open(folder / "relay.db")).close()
        (folder / "relay.db").chmod(0o644)
        os.seteuid(65534)
        try:
            readable = await refusal(folder / "relay.db")
            missing = await refusal(folder / "other.db")
        finally:
            os.seteuid(0)
    finally:
        shutil.rmtree(folder)
    assert "must be writable" in readable
    assert "Permission denied" in missing


async def test_a_transaction_is_kept_completely_or_not_at_all(path: Path) -> None:
    database = await Database.open(path)

    def work(connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT INTO users (id,email,plan,created_at) VALUES ('usr_1','a@b.c','p',1)"
        )
        raise LookupError("changed my mind")

    with pytest.raises(LookupError):
        await database.write(work)
    assert await database.select("SELECT * FROM users") == []
    with pytest.raises(StoreError, match="FOREIGN KEY"):
        await database.write(
            lambda c: c.execute(
                "INSERT INTO keys (id,user_id,name,digest,hint,created_at)"
                " VALUES ('key_1','usr_9','',zeroblob(32),'h',1.0)"
            )
        )
    await database.write(lambda c: c.execute("DELETE FROM users"))  # and the next one works
    await database.close()


INSERT = "INSERT INTO users (id,email,plan,created_at) VALUES ('usr_1','a@b.c','p',1)"


async def test_an_inline_write_is_seen_by_all_and_waits_for_no_lock(path: Path) -> None:
    database = await Database.open(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(BusyError):
        database.run_inline(lambda c: c.execute(INSERT))
    other.execute("ROLLBACK")
    database.run_inline(lambda c: c.execute(INSERT))
    assert other.execute("SELECT id FROM users").fetchall() == [("usr_1",)]
    other.close()
    assert await database.select("SELECT id FROM users") == [("usr_1",)]
    with pytest.raises(StoreError, match="UNIQUE") as caught:
        database.run_inline(lambda c: c.execute(INSERT))
    assert not isinstance(caught.value, BusyError)
    with pytest.raises(StoreError, match="not valid Unicode"):
        database.run_inline(lambda c: c.execute("SELECT ?", ("\ud800",)))
    with pytest.raises(StoreError, match="not valid Unicode"):
        await database.select("SELECT ?", ("\ud800",))
    await database.close()
    with pytest.raises(StoreError):
        database.run_inline(lambda c: c.execute(INSERT))


async def test_a_select_cannot_write(path: Path) -> None:
    database = await Database.open(path)
    with pytest.raises(StoreError, match="cannot be written"):
        await database.select(INSERT)
    with pytest.raises(StoreError, match="no such table"):
        await database.select("SELECT * FROM nowhere")
    await database.write(lambda c: c.execute(INSERT))
    assert await database.select("SELECT id FROM users") == [("usr_1",)]
    await database.close()


async def test_a_file_that_cannot_have_a_log_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # SQLite opens no file of that name, but memory
    with pytest.raises(StoreError, match="cannot hold a write-ahead log"):
        await Database.open(":memory:")


async def test_a_lock_on_the_journal_mode_is_waited_for(path: Path) -> None:
    raw(path, "VACUUM")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    opening = asyncio.create_task(Database.open(path))
    await asyncio.sleep(0.1)
    assert not opening.done()
    other.execute("COMMIT")
    other.close()
    await (await opening).close()


async def test_a_checkpoint_moves_the_log_into_the_file_and_reuses_it(path: Path) -> None:
    database = await Database.open(path)
    log = path.with_name("relay.db-wal")

    def grow(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM users")
        connection.execute(INSERT)

    for _ in range(50):
        database.run_inline(grow)
    assert b"a@b.c" not in path.read_bytes()
    long = log.stat().st_size
    for _ in range(3):
        await database.checkpoint()
        assert b"a@b.c" in path.read_bytes()
        for _ in range(40):
            database.run_inline(grow)
    assert log.stat().st_size == long
    await database.close()
    assert raw(path, "SELECT id FROM users") == [("usr_1",)]
    assert raw(path, "PRAGMA integrity_check") == [("ok",)]


async def test_processes_that_write_concurrently_wait_for_each_other(path: Path) -> None:
    """From the start: all of them find no file."""
    writers = [python(MANY_USERS, str(path), name) for name in ("one", "two", "three")]
    ended = await asyncio.gather(*(asyncio.to_thread(finish, writer) for writer in writers))
    assert ended == [(0, "")] * 3
    assert raw(path, "SELECT count(*) FROM users") == [(180,)]
    assert raw(path, "PRAGMA integrity_check") == [("ok",)]


async def test_concurrent_opens_and_closes_never_meet_a_lock(path: Path) -> None:
    """The last one to close copies the log into the file, under a lock that others wait for."""

    async def visit() -> None:
        for _ in range(10):
            await (await Database.open(path)).close()

    await asyncio.gather(*(visit() for _ in range(4)))


async def test_closing_ends_the_threads_and_later_calls_are_refused(path: Path) -> None:
    before = set(threading.enumerate())
    database = await Database.open(path)
    threads = set(threading.enumerate()) - before
    assert len(threads) == 2  # the writer's and the reader's
    await database.close()
    await database.close()
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()
    for later in (database.select("SELECT 1"), database.write(id), database.run(id)):
        with pytest.raises(StoreError, match="closed"):
            await later


async def test_cancelling_a_caller_does_not_break_its_transaction(path: Path) -> None:
    database = await Database.open(path)
    started, go_on = threading.Event(), threading.Event()

    def work(connection: sqlite3.Connection) -> None:
        started.set()
        go_on.wait(10)
        connection.execute(
            "INSERT INTO users (id,email,plan,created_at) VALUES ('usr_1','a@b.c','p',1)"
        )

    task = asyncio.create_task(database.write(work))
    await asyncio.to_thread(started.wait, 10)
    task.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    # On the same thread, so after the transaction.
    users = await database.run(lambda c: c.execute("SELECT id FROM users").fetchall())
    assert users == [("usr_1",)]
    await database.close()


def test_a_process_that_forgets_to_close_still_ends(path: Path) -> None:
    process = python(
        """
        import asyncio, sys
        from relay.store.database import Database

        async def main():
            global database
            database = await Database.open(sys.argv[1])

        asyncio.run(main())
        """,
        str(path),
    )
    assert finish(process)[0] == 0


async def test_a_schema_without_metering_is_migrated_with_its_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        folder = tmp_path / "migrations"
        folder.mkdir()
        name = "0001_people_and_keys.sql"
        (folder / name).write_text((store.MIGRATIONS / name).read_text())
        before.setattr(store, "MIGRATIONS", folder)
        old = await Database.open(tmp_path / "relay.db")
        await old.write(
            lambda c: c.execute(
                "INSERT INTO users (id,email,plan,created_at) VALUES ('usr_1','a@b.c','p',1)"
            )
        )
        with pytest.raises(StoreError):
            await old.select("SELECT * FROM usage")
        await old.close()
    new = await Database.open(tmp_path / "relay.db")
    assert await new.select("SELECT email FROM users") == [("a@b.c",)]
    assert await new.select("SELECT * FROM usage") == []
    assert await new.select("PRAGMA integrity_check") == [("ok",)]
    await new.close()
