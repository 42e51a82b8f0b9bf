"""Backups that a server makes by itself: when, under which names, and how many are kept.

Decides the schedule, over restarts too: the names of the files say when the last backup was made.
All work that touches a disk or a network runs on a thread of its own. Must not know the tables.
"""

import asyncio
import logging
import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

from relay.config import BackupSettings
from relay.store.backup import backup
from relay.store.database import StoreError
from relay.store.executor import ThreadExecutor
from relay.store.object_storage import StorageError, upload

_log = logging.getLogger("relay.store")

_NAME: Final = re.compile(r"relay-(\d{8}T\d{6}Z)\.db")
_PARTIAL: Final = re.compile(r"\.relay-\d{8}T\d{6}Z\.db\.[0-9a-f]{8}\.partial")
_MOMENT: Final = "%Y%m%dT%H%M%SZ"
_FIRST_DELAY_SECONDS: Final = 60.0  # after the start: nobody's requests compete with a start
_RETRY_SECONDS: Final = 900.0  # after a failure, or `every` if that is less
_MAX_SLEEP_SECONDS: Final = 600.0  # a clock that is set forward is noticed within this
_FREE_FACTOR: Final = 1.2  # free space that a backup needs, times the size of the database


@dataclass(frozen=True, slots=True)
class Made:
    """A backup that was made; `stored` is its name in the bucket, "" without one."""

    path: Path
    octets: int
    stored: str
    deleted: int  # older backups


@dataclass(frozen=True, slots=True)
class Listed:
    """A scheduled backup in its folder."""

    path: Path
    made_at: float  # epoch seconds
    octets: int


def list_backups(folder: str | Path) -> list[Listed]:
    """The scheduled backups in a folder, oldest first; empty if the folder cannot be read."""
    try:
        names = sorted(name for name in os.listdir(folder) if _NAME.fullmatch(name))
        paths = [Path(folder, name) for name in names]
        return [Listed(path, _moment_of(path.name), path.stat().st_size) for path in paths]
    except OSError:
        return []


class BackupError(Exception):
    """A backup failed; the message is one line for the operator."""


class Backups:
    """The backups of one database. `failure` is for alerts: why there is no recent one."""

    def __init__(
        self,
        database: str | Path,
        settings: BackupSettings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = Path(database)
        self._settings = settings
        self._folder = Path(settings.path)
        self._clock = clock
        self.failure = ""  # of the latest try; "": it succeeded
        self.failed_at: float | None = None  # epoch seconds of the first failure in a row
        self.made_at: float | None = None  # epoch seconds of the latest backup of this process

    async def run(self) -> None:
        """Make backups as they become due, until cancelled. Failures are logged and kept."""
        interval = float(self._settings.every.seconds)
        if not interval:
            return
        executor = ThreadExecutor("backup")
        try:
            made = await executor.call(partial(list_backups, self._folder))
            latest = made[-1].made_at if made else None
            now = self._clock()
            due = now + _FIRST_DELAY_SECONDS
            if latest is not None:
                due = max(due, min(latest, now) + interval)
            while True:
                await self._sleep_until(due, interval)
                started = self._clock()
                succeeded = await self._try(executor)
                due = started + (interval if succeeded else min(interval, _RETRY_SECONDS))
        finally:
            # Not awaited: a copy may take minutes, and the thread ends with the process.
            executor.abandon()

    async def _sleep_until(self, due: float, interval: float) -> None:
        """Sleep by the clock of the names; one that is set back delays by `interval` at most."""
        while (now := self._clock()) < due:
            due = min(due, now + interval)
            await asyncio.sleep(min(due - now, _MAX_SLEEP_SECONDS))

    async def _try(self, executor: ThreadExecutor) -> bool:
        now = self._clock()
        try:
            made = await executor.call(partial(self.make, now))
        except BackupError as error:
            self._note_failure(str(error), now)
            return False
        except Exception as error:  # must not end the schedule
            _log.exception("a scheduled backup failed unexpectedly")
            self._note_failure(f"{type(error).__name__}: {error}", now)
            return False
        self.failure, self.failed_at, self.made_at = "", None, now
        stored = f", and {made.stored} in the bucket" if made.stored else ""
        _log.info("backup %s (%d octets)%s", made.path, made.octets, stored)
        return True

    def _note_failure(self, reason: str, now: float) -> None:
        self.failure = reason
        if self.failed_at is None:
            self.failed_at = now
        _log.error("the scheduled backup failed: %s", reason)

    # --- on a thread ---

    def make(self, now: float) -> Made:
        """Make a backup, copy it to the bucket, and delete the ones that are too many. Blocks.

        If only the copy failed before, the latest backup is copied and no other one is made.

        Raises:
            BackupError: it was not made, or not copied.
        """
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = self._unstored() or self._save(now)
            octets = path.stat().st_size
        except StoreError as error:
            raise BackupError(str(error)) from None
        except OSError as error:
            raise BackupError(f"backup folder {self._folder}: {error.strerror}") from None
        stored = ""
        if self._settings.s3 is not None:
            try:
                stored = upload(path, self._settings.s3)
            except StorageError as error:
                self._mark_unstored(path)
                raise BackupError(f"{path} is made, but not copied: {error}") from None
            self._marker.unlink(missing_ok=True)
        return Made(path, octets, stored, self._delete_surplus())

    def _save(self, now: float) -> Path:
        for entry in self._folder.iterdir():  # of a process that ended meanwhile
            if _PARTIAL.fullmatch(entry.name):
                entry.unlink(missing_ok=True)
        octets = self._database.stat().st_size if self._database.exists() else 0
        free = shutil.disk_usage(self._folder).free
        if free < octets * _FREE_FACTOR:
            raise BackupError(
                f"backup folder {self._folder}: the disk has {free:,} octets left, too few for a "
                f"copy of {octets:,}"
            )
        path = self._named(now)
        while path.exists():  # made in the same second
            now += 1
            path = self._named(now)
        backup(self._database, path)
        return path

    def _named(self, moment: float) -> Path:
        return self._folder / f"relay-{datetime.fromtimestamp(moment, UTC).strftime(_MOMENT)}.db"

    @property
    def _marker(self) -> Path:
        """A file with the name of the backup that is not in the bucket yet."""
        return self._folder / ".not-copied"

    def _mark_unstored(self, path: Path) -> None:
        try:
            self._marker.write_text(path.name)
        except OSError:  # the next try makes a new backup
            pass

    def _unstored(self) -> Path | None:
        if self._settings.s3 is None:
            return None
        try:
            name = self._marker.read_text()
        except (OSError, UnicodeDecodeError):
            return None
        path = self._folder / name
        made = list_backups(self._folder)
        age = self._clock() - _moment_of(name)
        fresh = made and made[-1].path == path and age < self._settings.every.seconds
        return path if fresh else None

    def _delete_surplus(self) -> int:
        surplus = list_backups(self._folder)[: -self._settings.keep]
        for one in surplus:
            one.path.unlink(missing_ok=True)
        return len(surplus)


def _moment_of(name: str) -> float:
    match = _NAME.fullmatch(name)
    if match is None:
        return 0.0
    try:
        return datetime.strptime(match[1], _MOMENT).replace(tzinfo=UTC).timestamp()
    except ValueError:  # such as the 31st of February
        return 0.0
