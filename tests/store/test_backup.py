# ruff: noqa: ASYNC240 - small files, and nothing else on the loop waits for them
import asyncio
import os
import sqlite3
import stat
from pathlib import Path

import pytest

from relay.store import balance
from relay.store.backup import backup
from relay.store.database import Database, StoreError
from relay.store.journal import Journal
from relay.store.recovery import restore
from tests.store.entries import NOON, Changes, admission, bucket, outcome, rows, serve


async def test_a_backup_under_load_has_every_acknowledged_entry(
    database: Database, tmp_path: Path
) -> None:
    await balance.credit(database, "usr_1", 10_000_000, "", NOON)
    changes = Changes()
    journal = await Journal.start(database, changes)
    written = 0
    enough = False

    async def load() -> None:
        nonlocal written
        while not enough:
            for _ in range(20):
                request = admission(billed_micro=500)
                ticket = serve(journal, request)
            changes.rows = [bucket(written + 20)]
            assert await outcome(ticket)
            written += 20

    loading = asyncio.create_task(load())
    copies = []
    for number in range(3):
        await asyncio.sleep(0.1)
        acknowledged = written
        target = tmp_path / f"backup{number}.db"
        size = await asyncio.to_thread(backup, tmp_path / "relay.db", target)
        assert size == target.stat().st_size
        copies.append((acknowledged, target, written))
    enough = True
    await loading
    assert await journal.close() == 0
    for least, target, most in copies:
        assert stat.S_IMODE(target.stat().st_mode) == 0o600
        copy = await Database.open(target)
        sums = "SELECT sum(requests), sum(cost_micro) FROM {}"
        [(at_once,)] = await rows(copy, "SELECT total(requests) FROM usage_sums")
        assert (await restore(copy, NOON)).crashed == []
        [(number, charged)] = await rows(copy, "SELECT count(*), sum(cost_micro) FROM usage")
        assert least <= number <= most + 20
        assert await rows(copy, "SELECT used FROM bucket") == [(number,)]
        assert at_once <= number
        assert await rows(copy, sums.format("usage_hour")) == [(number, charged)]
        assert await rows(copy, "SELECT credited, charged FROM balance") == [(10_000_000, charged)]
        assert await rows(copy, "SELECT sum(amount_micro) FROM statement") == [
            (10_000_000 - charged,)
        ]
        assert await rows(copy, "PRAGMA integrity_check") == [("ok",)]
        await copy.close()


async def test_a_backup_overwrites_nothing_and_leaves_no_partial_file(
    database: Database, tmp_path: Path
) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    for name in ("file", "link", "folder"):
        target = folder / name
        if name == "folder":
            target.mkdir()
        elif name == "link":
            target.symlink_to(folder / "nowhere")
        else:
            target.write_text("precious")
        with pytest.raises(StoreError, match="exists"):
            backup(tmp_path / "relay.db", target)
    assert (folder / "file").read_text() == "precious"
    with pytest.raises(StoreError, match="exists"):
        backup(tmp_path / "relay.db", tmp_path / "relay.db")
    assert sorted(os.listdir(folder)) == ["file", "folder", "link"]


async def test_a_backup_of_a_damaged_database_is_refused(
    database: Database, tmp_path: Path
) -> None:
    def damage(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute(
            "INSERT INTO users (id,email,plan,is_admin,created_at) VALUES ('usr_1','a','p',7,1)"
        )

    await database.run(damage)
    with pytest.raises(StoreError, match="the copy is damaged, as the database may be: CHECK"):
        backup(tmp_path / "relay.db", tmp_path / "backup")
    assert not list(tmp_path.glob("*backup*"))


async def test_a_backup_that_cannot_be_made_is_refused_in_one_line(
    database: Database, tmp_path: Path
) -> None:
    (tmp_path / "text").write_text("not a database " * 100)
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE bookmarks (a)")
    other.close()
    for source, target in [
        ("missing.db", "backup"), ("text", "backup"), ("other.db", "backup"),
        ("relay.db", "missing/backup"),
    ]:  # fmt: skip
        with pytest.raises(StoreError) as caught:
            backup(tmp_path / source, tmp_path / target)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / target).exists()
        assert not (tmp_path / "missing.db").exists()
    assert not list(tmp_path.glob(".*"))
