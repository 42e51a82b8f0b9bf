"""`relay upgrade` and `relay rollback` of an install from relay.pyz."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.until import until

from .test_upgrade import opt, run, serving, status_of
from .wheels import BROKEN, HANGING, archive

__all__ = ["opt"]

pytestmark = pytest.mark.long  # each version is unpacked and compiled


async def upgraded(folder: Path, opt: Path, package: Path) -> str:
    """What `relay upgrade` prints, without the line about the saved database."""
    done = await asyncio.to_thread(run, folder, opt, "upgrade", str(package))
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


async def test_an_archive_replaces_a_running_one_and_back(
    metered: tuple[Path, str], opt: Path
) -> None:
    folder, key = metered
    made = archive(folder, "0.1.1")
    assert await upgraded(folder, opt, made) == "relay 0.1.1 is installed; none is running."
    assert await upgraded(folder, opt, made) == "relay 0.1.1 is in use already."
    with serving(folder, opt) as said:
        await until(lambda: "relay 0.1.1 listens" in said.read_text(), within=30)
        assert await upgraded(folder, opt, archive(folder, "0.1.2")) == "relay 0.1.2 serves."
        assert "relay 0.1.2 has taken over" in said.read_text()
        assert await status_of(said, key) == 200
        assert len(list((opt / "saved").glob("*-0.1.2.db"))) == 1
        done = await asyncio.to_thread(run, folder, opt, "rollback")
        assert done.stdout == "relay 0.1.1 serves.\n", done.stderr
        assert await status_of(said, key) == 200
        assert os.readlink(opt / "previous") == "versions/0.1.2"


@contextlib.asynccontextmanager
async def running(folder: Path, opt: Path) -> AsyncIterator[Path]:
    """Version 0.1.1, as a process that others replace; its standard error."""
    await upgraded(folder, opt, archive(folder, "0.1.1"))
    with serving(folder, opt) as said:
        await until(lambda: "relay 0.1.1 listens" in said.read_text(), within=30)
        yield said


async def test_an_archive_that_does_not_serve_is_taken_back(
    metered: tuple[Path, str], opt: Path
) -> None:
    folder, key = metered
    async with running(folder, opt) as said:
        done = await asyncio.to_thread(
            run, folder, opt, "upgrade", str(archive(folder, "0.1.2", more=BROKEN))
        )
        assert done.returncode == 1
        assert "The new process does not serve" in done.stderr
        assert os.readlink(opt / "current") == "versions/0.1.1"
        assert await status_of(said, key) == 200


async def test_a_version_that_is_never_ready_is_given_10_s(
    metered: tuple[Path, str], opt: Path
) -> None:
    """A request that comes meanwhile waits, and is served by the old version."""
    folder, key = metered
    made = archive(folder, "0.1.2", more=HANGING)
    async with running(folder, opt) as said:
        upgrade = asyncio.create_task(asyncio.to_thread(run, folder, opt, "upgrade", str(made)))
        began, slowest = time.monotonic(), 0.0
        while not upgrade.done():
            asked = time.monotonic()
            assert await status_of(said, key, 30) == 200
            slowest = max(slowest, time.monotonic() - asked)
            await asyncio.sleep(0.05)
        done = upgrade.result()
        print(f"back after {time.monotonic() - began:.1f} s; a request waited {slowest:.1f} s")
        assert done.returncode == 1
        assert "it was not ready within 10 s. This one goes on." in done.stderr
        assert os.readlink(opt / "current") == "versions/0.1.1"
        assert not (opt / "previous").exists()
        assert 9 < slowest < 12
        assert await status_of(said, key) == 200


async def test_what_is_no_archive_changes_nothing(metered: tuple[Path, str], opt: Path) -> None:
    folder, _ = metered
    await upgraded(folder, opt, archive(folder, "0.1.1"))
    (folder / "other.pyz").write_bytes(b"no archive")
    for arguments, error in (
        (["none.pyz"], "No such file"),
        (["other.pyz"], "relay: "),
        ([], "name the new relay.pyz"),
    ):
        done = await asyncio.to_thread(run, folder, opt, "upgrade", *arguments)
        assert done.returncode in (1, 2)
        assert error in done.stderr
        assert done.stderr.count("\n") == 1
    assert sorted(os.listdir(opt / "versions")) == ["0.1.1"]


async def test_another_build_of_a_version_stands_beside(
    metered: tuple[Path, str], opt: Path
) -> None:
    folder, _ = metered
    await upgraded(folder, opt, archive(folder, "0.1.1"))
    await upgraded(folder, opt, archive(folder, "0.1.1", more="\n# other\n"))
    now = os.readlink(opt / "current")
    assert now.startswith("versions/0.1.1-")
    assert os.readlink(opt / "previous") == "versions/0.1.1"
    assert len(list((opt / "saved").glob(f"*-{now[9:]}.db"))) == 1
