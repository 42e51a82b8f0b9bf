"""Commands beside a server: an unusable database, backups, changes that a server sees."""

import asyncio
import json
import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from relay import secret
from relay.process import lock_database
from relay.store import usage
from relay.store.change_watch import watch
from relay.store.database import Database
from relay.store.journal import Journal
from relay.store.keys import LiveKey, live_keys
from tests.cli.command import SETTINGS, data, done, refused, relay
from tests.fakes.s3 import running_bucket
from tests.store.entries import Changes, admission, outcome, serve

pytestmark = pytest.mark.usefixtures("folder")


def test_a_database_that_cannot_be_used_is_one_line(folder: Path) -> None:
    (folder / "relay.toml").write_text(SETTINGS + '[database]\npath = "none/relay.db"\n')
    assert "there is no folder" in refused(1, "user", "list")
    (folder / "relay.db").write_bytes(b"not a database" * 100)
    (folder / "relay.toml").write_text(SETTINGS)
    assert "damaged" in refused(1, "key", "list")


def test_a_backup_is_a_usable_database_and_overwrites_nothing(ann: str, folder: Path) -> None:
    done("user", "credit", ann, "3")
    assert "is saved whole in copy.db" in done("backup", "copy.db")
    again = data("backup", "again.db")
    assert again == {"path": "again.db", "bytes": (folder / "again.db").stat().st_size}
    done("user", "credit", ann, "4")
    before = (folder / "copy.db").read_bytes()
    assert refused(1, "backup", "copy.db") == (
        "relay: backup copy.db: exists; choose another name, or move it away"
    )
    assert "exists" in refused(1, "backup", "relay.db")
    assert "No such file" in refused(1, "backup", "none/copy.db")
    assert (folder / "copy.db").read_bytes() == before
    (folder / "relay.toml").write_text(SETTINGS + '[database]\npath = "copy.db"\n')
    assert data("user", "statement", ann)["balance_micro"] == 3_000_000


def test_a_backup_of_a_missing_database_creates_no_file(folder: Path) -> None:
    assert "relay.db: cannot be opened" in refused(1, "backup", "copy.db")
    assert [file.name for file in folder.iterdir()] == ["relay.toml"]


async def test_a_backup_taken_while_requests_are_written_balances(folder: Path) -> None:
    database = await Database.open(folder / "relay.db")
    journal = await Journal.start(database, Changes())
    copying = asyncio.create_task(asyncio.to_thread(relay, "backup", "copy.db", "--json"))
    written = 0
    while not copying.done():
        for _ in range(20):
            request = admission(billed_micro=500)
            ticket = serve(journal, request)
        assert await outcome(ticket)
        written += 20
    result = await copying
    assert (result.returncode, result.stderr) == (0, "")
    assert await journal.close() == 0
    await database.close()
    copy = await Database.open(folder / "copy.db")
    [sums] = await usage.sums(copy, "user")
    await copy.close()
    assert 0 < sums.requests < written
    other = sqlite3.connect(folder / "copy.db")
    assert other.execute("SELECT charged FROM balance").fetchall() == [(sums.cost_micro,)]
    assert other.execute("SELECT count(*) FROM usage").fetchall() == [(sums.requests,)]
    assert other.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    other.close()


async def test_a_change_on_the_command_line_is_seen_within_a_second(folder: Path) -> None:
    database = await Database.open(folder / "relay.db")
    changes: asyncio.Queue[list[LiveKey]] = asyncio.Queue()

    async def read() -> None:
        changes.put_nowait(await live_keys(database))

    watching = asyncio.create_task(watch(database, 0.25, read))

    async def command(*arguments: str) -> Any:
        result = await asyncio.to_thread(relay, *arguments, "--json")
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    async def seen(wanted: list[tuple[str, bool]]) -> None:
        async with asyncio.timeout(1):
            while [(key.key_id, key.suspended) for key in await changes.get()] != wanted:
                pass

    await command("user", "create", "ann@example.com")
    made = await command("key", "create", "--user", "ann@example.com", "--no-cache-breakpoints")
    await seen([(made["id"], False)])
    [live] = await live_keys(database)
    assert live.digest == secret.digest(made["key"].encode())
    assert not live.cache_breakpoints
    await command("user", "suspend", "ann@example.com")
    await seen([(made["id"], True)])
    await command("key", "revoke", made["id"])
    await seen([])
    watching.cancel()
    await asyncio.wait([watching])
    await database.close()


def test_a_backup_without_a_path_goes_where_scheduled_ones_go(ann: str, folder: Path) -> None:
    with running_bucket() as bucket:
        s3 = "".join(f"{name} = {json.dumps(text)}\n" for name, text in bucket.settings().items())
        (folder / "relay.toml").write_text(f"{SETTINGS}\n[backup]\nkeep = 1\n[backup.s3]\n{s3}")
        made = data("backup")
        [name] = [file.name for file in (folder / "backups").iterdir()]
        assert made == {
            "path": str(folder / "backups" / name),
            "bytes": (folder / "backups" / name).stat().st_size,
            "stored": f"relay/{name}",
            "deleted": 0,
        }
        bucket.fault = "slow down"
        assert "is made, but not copied" in refused(1, "backup")
        assert "canary" not in done("check")
    (folder / "relay.toml").write_text(
        f"{SETTINGS}\n[backup.s3]\n{s3.replace('AKIATEST', 'env:NO_SUCH_NAME')}"
    )
    assert refused(2, "check") == (
        "relay.toml: backup.s3.access_key: the environment variable NO_SUCH_NAME is not set"
    )


def test_the_status_of_the_database_is_in_figures(ann: str, folder: Path) -> None:
    done("key", "create", "--user", ann)
    done("backup")
    status = data("database", "status")
    assert (status["accounts"], status["keys"], status["requests"]) == (1, 1, 0)
    assert status["bytes"] == (folder / "relay.db").stat().st_size
    assert (status["backups"], status["retention_days"]) == (1, 90)
    assert status["shrinks_by_itself"]
    assert status["backup_bytes"] == data("backup")["bytes"]
    text = done("database", "status")
    assert re.search(r"backup bytes +[\d,]+\n", text)


def test_space_is_given_back_on_demand(ann: str, folder: Path) -> None:
    with closing(sqlite3.connect(folder / "relay.db", isolation_level=None)) as connection:
        connection.execute("INSERT INTO value VALUES ('filler', zeroblob(4000000))")
        connection.execute("DELETE FROM value")
    given = data("database", "shrink")["bytes"]
    assert given > 3_900_000
    assert data("database", "shrink") == {"bytes": 0}


def test_an_older_database_is_rewritten_without_a_server(ann: str, folder: Path) -> None:
    with closing(sqlite3.connect(folder / "relay.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("PRAGMA auto_vacuum = NONE")
        connection.execute("VACUUM")
    assert "stop the server first" in done("database", "status")
    lock = lock_database(str(folder / "relay.db"))
    assert "stop it first" in refused(1, "database", "shrink")
    os.close(lock)
    done("database", "shrink")
    assert data("database", "status")["shrinks_by_itself"]
