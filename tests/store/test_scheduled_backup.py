"""Backups that a server makes by itself: when, how many, and what happens on failure."""

import asyncio
import logging
import os
import shutil
import sqlite3
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from relay.config import BackupSettings, StorageSettings
from relay.config.values import DurationOrOff
from relay.store import scheduled_backup
from relay.store.database import Database
from relay.store.scheduled_backup import BackupError, Backups
from relay.store.users import create_user
from tests.fakes.s3 import Bucket, running_bucket
from tests.fakes.until import until
from tests.store.entries import NOON

HOUR = 3600.0


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    with running_bucket() as bucket:
        yield bucket


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The schedule reads its clock often, and starts without a delay."""
    monkeypatch.setattr(scheduled_backup, "_MAX_SLEEP_SECONDS", 0.005)
    monkeypatch.setattr(scheduled_backup, "_FIRST_DELAY_SECONDS", 0.0)


def backups(folder: Path, clock: Clock, bucket: Bucket | None = None, **options: Any) -> Backups:
    s3 = None if bucket is None else msgspec.convert(bucket.settings(), StorageSettings)
    if "every" in options:
        options["every"] = DurationOrOff(options["every"])
    settings = BackupSettings(path=str(folder / "backups"), s3=s3, **options)
    return Backups(folder / "relay.db", settings, clock)


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder / "backups"))


async def test_a_backup_is_private_and_can_be_opened(
    database: Database, tmp_path: Path, clock: Clock
) -> None:
    await create_user(database, email="a@example.com", plan="free", is_admin=False, now=NOON)
    made = await asyncio.to_thread(backups(tmp_path, clock).make, NOON)
    assert names(tmp_path) == [made.path.name]
    assert stat.S_IMODE((tmp_path / "backups").stat().st_mode) == 0o700
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o600
    copy = await Database.open(made.path)
    assert await copy.select("SELECT email FROM users") == [("a@example.com",)]
    await copy.close()


async def test_only_the_latest_are_kept_and_other_files_stay(
    database: Database, tmp_path: Path, clock: Clock
) -> None:
    schedule = backups(tmp_path, clock, keep=2)
    folder = tmp_path / "backups"
    folder.mkdir()
    (folder / "relay-mine.db").write_text("precious")
    (folder / ".relay-20260101T000000Z.db.0123abcd.partial").write_text("left by a crash")
    made = [schedule.make(NOON + hour * HOUR) for hour in range(4)]
    assert names(tmp_path) == [*(one.path.name for one in made[2:]), "relay-mine.db"]
    assert [one.deleted for one in made] == [0, 0, 1, 1]


@pytest.mark.usefixtures("at_once")
async def test_backups_become_due_over_restarts_too(
    database: Database, tmp_path: Path, clock: Clock
) -> None:
    schedule = backups(tmp_path, clock, every="1h")
    running = asyncio.create_task(schedule.run())
    await until(lambda: schedule.made_at == NOON)
    clock.now += 0.9 * HOUR
    await asyncio.sleep(0.05)
    assert len(names(tmp_path)) == 1
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    again = backups(tmp_path, clock, every="1h")
    running = asyncio.create_task(again.run())
    await asyncio.sleep(0.05)
    assert again.made_at is None  # the last process made one lately
    clock.now = NOON + HOUR
    await until(lambda: again.made_at == NOON + HOUR)
    assert len(names(tmp_path)) == 2
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.usefixtures("at_once")
async def test_a_clock_that_is_set_back_delays_no_backup_for_long(
    database: Database, tmp_path: Path, clock: Clock
) -> None:
    schedule = backups(tmp_path, clock, every="1h")
    running = asyncio.create_task(schedule.run())
    await until(lambda: schedule.made_at == NOON)
    clock.now = NOON - 365 * 24 * HOUR
    await asyncio.sleep(0.05)
    clock.now += HOUR
    await until(lambda: schedule.made_at == clock.now)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.usefixtures("at_once")
async def test_the_loop_goes_on_while_a_backup_is_made_and_copied(
    database: Database, tmp_path: Path, clock: Clock, bucket: Bucket
) -> None:
    def fill(connection: sqlite3.Connection) -> None:
        rows = ((f"filler {number}", bytes(100_000)) for number in range(300))
        connection.executemany("INSERT INTO value VALUES (?, ?)", rows)

    await database.write(fill)
    schedule = backups(tmp_path, clock, bucket)
    running = asyncio.create_task(schedule.run())
    longest, ticks = 0.0, 0
    while schedule.made_at is None:
        started = time.monotonic()
        await asyncio.sleep(0.002)
        longest, ticks = max(longest, time.monotonic() - started), ticks + 1
    assert not schedule.failure
    assert sum(map(len, bucket.objects.values())) > 30_000_000
    assert ticks > 20
    assert longest < 0.5  # 40 ms on a busy machine
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_off_makes_none(database: Database, tmp_path: Path, clock: Clock) -> None:
    await backups(tmp_path, clock, every="off").run()
    assert not (tmp_path / "backups").exists()


@pytest.mark.usefixtures("at_once")
async def test_a_failure_is_logged_kept_and_tried_again(
    database: Database, tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "backups").write_text("in the way")
    schedule = backups(tmp_path, clock)
    running = asyncio.create_task(schedule.run())
    with caplog.at_level(logging.ERROR):
        await until(lambda: schedule.failure)
    assert "File exists" in schedule.failure
    assert schedule.failed_at == NOON
    assert "the scheduled backup failed: backup folder" in caplog.text
    (tmp_path / "backups").unlink()
    clock.now += 900
    await until(lambda: schedule.made_at)
    assert not schedule.failure
    assert schedule.failed_at is None
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_disk_without_room_is_left_alone(
    database: Database, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(BackupError, match="the disk has 1,000 octets left, too few"):
        backups(tmp_path, clock).make(NOON)
    assert names(tmp_path) == []


async def test_a_copy_that_failed_is_repeated_without_a_new_backup(
    database: Database, tmp_path: Path, clock: Clock, bucket: Bucket
) -> None:
    schedule = backups(tmp_path, clock, bucket)
    bucket.fault = "slow down"
    with pytest.raises(BackupError, match=r"is made, but not copied: .*SlowDown"):
        schedule.make(NOON)
    [name, _] = sorted(names(tmp_path), reverse=True)
    bucket.fault = ""
    clock.now += 900
    made = backups(tmp_path, clock, bucket).make(clock.now)  # by the next process
    assert made.path.name == name
    assert made.stored == f"relay/{name}"
    assert names(tmp_path) == [name]
    assert list(bucket.objects) == [f"/b1/relay/{name}"]
    assert bucket.objects[f"/b1/relay/{name}"] == made.path.read_bytes()


async def test_an_old_backup_is_not_copied_in_place_of_a_new_one(
    database: Database, tmp_path: Path, clock: Clock, bucket: Bucket
) -> None:
    schedule = backups(tmp_path, clock, bucket, every="1h")
    bucket.fault = "slow down"
    with pytest.raises(BackupError):
        schedule.make(NOON)
    bucket.fault = ""
    clock.now += 2 * HOUR
    assert schedule.make(clock.now).path.name == "relay-20260408T140000Z.db"


async def test_a_missing_database_is_a_failure_and_no_file(tmp_path: Path, clock: Clock) -> None:
    with pytest.raises(BackupError, match="cannot be opened"):
        backups(tmp_path, clock).make(NOON)
    assert names(tmp_path) == []
