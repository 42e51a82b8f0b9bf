"""`relay restore`: tested first, refused beside a server, and nothing is lost."""

import asyncio
import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from relay.process import lock_database
from relay.secret import Secret, derived
from relay.store.database import Database, migrations
from relay.store.responses import DatabaseResponseStore, StoredResponse
from tests.cli.command import SETTINGS, data, done, refused, run

pytestmark = pytest.mark.usefixtures("folder")


def execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def accounts() -> list[str]:
    return [row["email"] for row in data("user", "list")]


@pytest.fixture
def saved(ann: str, folder: Path) -> Path:
    """A backup with ann; the database has bob too."""
    done("backup", "saved.db")
    done("user", "create", "bob@example.com")
    return folder / "saved.db"


def test_a_backup_takes_the_place_of_the_database(saved: Path, folder: Path) -> None:
    result = data("restore", "saved.db")
    assert result["restored"]
    assert (result["backup"]["accounts"], result["database"]["accounts"]) == (1, 2)
    assert accounts() == ["ann@example.com"]
    replaced = Path(result["replaced"])
    assert replaced.parent == folder
    assert replaced.name.startswith("relay.db.replaced-")
    done("restore", str(replaced))
    assert accounts() == ["ann@example.com", "bob@example.com"]
    assert not list(folder.glob(".*"))
    assert (folder / "relay.db").stat().st_mode & 0o777 == 0o600


def test_a_dry_run_changes_nothing(saved: Path, folder: Path) -> None:
    before = {file.name: file.stat().st_mtime_ns for file in folder.glob("relay.db")}
    text = done("restore", "--dry-run", "saved.db")
    assert "saved.db can be restored; nothing was changed." in text
    assert {file.name: file.stat().st_mtime_ns for file in folder.glob("relay.db")} == before
    assert accounts() == ["ann@example.com", "bob@example.com"]
    assert not [*folder.glob(".*"), *folder.glob("*replaced*")]


def test_nothing_is_restored_beside_a_server(saved: Path, folder: Path) -> None:
    lock = lock_database(str(folder / "relay.db"))
    assert "another relay serves from the database" in refused(1, "restore", "saved.db")
    assert "stop it first" in refused(1, "restore", "--dry-run", "saved.db")
    os.close(lock)
    assert accounts() == ["ann@example.com", "bob@example.com"]


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20_000])


def _no_database(path: Path) -> None:
    path.write_text("not a database " * 100)


def _flipped(path: Path) -> None:
    execute(path, "PRAGMA ignore_check_constraints = ON", "UPDATE users SET is_admin = 7")


def _loose(path: Path) -> None:
    execute(
        path,
        "INSERT INTO keys (id, user_id, name, digest, hint, created_at)"
        " VALUES ('key_1', 'usr_gone', '', zeroblob(32), '', 1)",
    )


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        pytest.param(_truncated, "is damaged; try an older backup", id="truncated"),
        pytest.param(_no_database, "is no SQLite database, or is damaged; try", id="text"),
        pytest.param(_flipped, "is damaged: CHECK constraint failed in users", id="flipped"),
        pytest.param(_loose, "table keys refers to a row of users that is missing", id="loose"),
        pytest.param(
            lambda path: execute(path, f"PRAGMA user_version = {len(migrations()) + 1}"),
            "made by a newer relay",
            id="newer",
        ),
        pytest.param(
            lambda path: execute(path, "PRAGMA application_id = 7"), "is not a relay's", id="other"
        ),
        pytest.param(Path.unlink, "there is no such file", id="missing"),
    ],
)  # fmt: skip
def test_a_backup_that_fails_a_test_is_refused(
    saved: Path, folder: Path, damage: object, text: str
) -> None:
    assert callable(damage)
    damage(saved)
    message = refused(1, "restore", "saved.db")
    assert text in message
    assert "saved.db" in message
    assert accounts() == ["ann@example.com", "bob@example.com"]
    assert not [*folder.glob(".*"), *folder.glob("*replaced*")]


@pytest.mark.parametrize("version", range(1, len(migrations())))
def test_a_backup_of_every_older_version_is_upgraded(folder: Path, version: int) -> None:
    execute(folder / "old.db", "PRAGMA application_id = 0x524C4159")
    with closing(sqlite3.connect(folder / "old.db")) as connection:
        for script in migrations()[:version]:
            connection.executescript(script)
        connection.execute(
            "INSERT INTO users (id, email, plan, created_at) VALUES ('usr_1', 'o@x.y', 'free', 1)"
        )
        connection.execute(f"PRAGMA user_version = {version}")
        connection.commit()
    result = data("restore", "old.db")
    assert result["backup"]["schema"] == version
    assert result["database"] is None
    assert accounts() == ["o@x.y"]


def test_a_damaged_database_is_kept_with_its_log(saved: Path, folder: Path) -> None:
    (folder / "relay.db").write_bytes(b"damaged" * 1000)
    (folder / "relay.db-wal").write_bytes(b"log")
    result = data("restore", "saved.db")
    assert result["database"] is None
    replaced = Path(result["replaced"])
    assert replaced.read_bytes() == b"damaged" * 1000
    assert Path(f"{replaced}-wal").read_bytes() == b"log"
    assert accounts() == ["ann@example.com"]


def test_changes_in_the_log_of_the_replaced_database_are_kept(saved: Path, folder: Path) -> None:
    with closing(sqlite3.connect(folder / "relay.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("UPDATE users SET email = 'rob@example.com' WHERE email LIKE 'bob%'")
        assert (folder / "relay.db-wal").stat().st_size
        replaced = data("restore", "saved.db")["replaced"]
    (folder / "relay.toml").write_text(SETTINGS + f'[database]\npath = "{replaced}"\n')
    assert accounts() == ["ann@example.com", "rob@example.com"]


def test_a_warning_says_that_stored_responses_cannot_be_read(ann: str, folder: Path) -> None:
    user = data("user", "list")[0]["id"]
    key, other = "k" * 32, "o" * 32

    async def put() -> None:
        database = await Database.open(folder / "relay.db")
        store = DatabaseResponseStore(database, derived(Secret(key), b"relay storing"), 1e6)
        turn = StoredResponse("resp_1", user, None, time.time(), b"{}", [], [])
        assert await store.put(turn, time.time())
        await database.close()

    asyncio.run(put())
    done("backup", "saved.db")
    settings = SETTINGS + '[responses]\nstore = "database"\nkey = '
    (folder / "relay.toml").write_text(f'{settings}"{key}"\n')
    assert run("restore", "--dry-run", "saved.db").stderr == ""
    (folder / "relay.toml").write_text(f'{settings}"{other}"\n')
    assert "cannot be read with this responses.key" in run("restore", "saved.db").stderr
