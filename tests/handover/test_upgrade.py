"""`relay upgrade` and `relay rollback`, with versions that are built here."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.fakes.caller import connected, read_answer, request
from tests.fakes.until import until

from .wheels import BROKEN, wheel

pytestmark = pytest.mark.long  # each version is a virtual environment of its own


@pytest.fixture
def opt(metered: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the versions; nothing is fetched."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_NO_DEPS", "1")
    folder, _ = metered
    path = folder / "relay.toml"
    path.write_text(path.read_text().replace('admin_listen = ""\n', ""))
    return folder / "opt"


@contextlib.contextmanager
def serving(folder: Path, opt: Path) -> Iterator[Path]:
    """The version in use, as a process that others replace; its standard error."""
    said = folder / "err"
    with said.open("wb") as err, (folder / "out").open("wb") as out:
        process = subprocess.Popen(
            [str(opt / "current/bin/relay"), "serve", "--takeover"],
            cwd=folder,
            stdout=out,
            stderr=err,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        )
    try:
        yield said
    finally:
        for one in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if str(opt) in " ".join(one.cmdline()):
                    one.kill()
        process.wait()


def port_of(said: Path) -> int:
    return int(said.read_text().split("listens on http://")[1].split()[0].rpartition(":")[2])


async def status_of(said: Path, key: str, wait: float = 10.0) -> int:
    async with connected(port_of(said), wait=wait) as (reader, writer):
        writer.write(request(key))
        return (await read_answer(reader))[0]


def run(folder: Path, opt: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "relay", *arguments, "--folder", str(opt)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )


async def test_a_running_relay_goes_to_new_versions_and_back(
    metered: tuple[Path, str], opt: Path
) -> None:
    folder, key = metered
    done = await asyncio.to_thread(run, folder, opt, "upgrade", str(wheel(folder, "0.1.1")))
    assert done.stdout.endswith("relay 0.1.1 is installed; none is running.\n"), done.stderr
    with serving(folder, opt) as said:
        await until(lambda: "relay 0.1.1 listens" in said.read_text(), within=30)
        assert await status_of(said, key) == 200
        made = wheel(folder, "0.1.2")
        done = await asyncio.to_thread(run, folder, opt, "upgrade", str(made))
        assert done.stdout.endswith("relay 0.1.2 serves.\n"), done.stderr
        assert "relay 0.1.2 has taken over" in said.read_text()
        assert await status_of(said, key) == 200
        assert len(list((opt / "saved").glob("*-0.1.2.db"))) == 1

        made = wheel(folder, "0.1.3", more=BROKEN)
        done = await asyncio.to_thread(run, folder, opt, "upgrade", str(made))
        assert done.returncode == 1
        assert "The new process does not serve" in done.stderr
        assert os.readlink(opt / "current") == "versions/0.1.2"
        assert await status_of(said, key) == 200

        done = await asyncio.to_thread(run, folder, opt, "rollback")
        assert done.stdout.endswith("relay 0.1.1 serves.\n"), done.stderr
        assert await status_of(said, key) == 200


async def test_a_database_that_is_too_new_is_replaced_once_stopped(
    metered: tuple[Path, str], opt: Path
) -> None:
    folder, key = metered
    for made in (wheel(folder, "0.1.1"), wheel(folder, "0.1.2", schema=1)):
        await asyncio.to_thread(run, folder, opt, "upgrade", str(made))
    with serving(folder, opt) as said:
        await until(lambda: "relay 0.1.2 listens" in said.read_text(), within=30)
        assert await status_of(said, key) == 200
        done = await asyncio.to_thread(run, folder, opt, "rollback")
        assert done.returncode == 1
        assert "Stop the relay, then repeat this" in done.stderr
        assert os.readlink(opt / "current") == "versions/0.1.2"
    done = await asyncio.to_thread(run, folder, opt, "rollback")
    assert done.returncode == 0, done.stderr
    assert "is in place; the newer database is" in done.stdout
    with serving(folder, opt) as said:
        await until(lambda: "relay 0.1.1 listens" in said.read_text(), within=30)
        assert await status_of(said, key) == 200


async def test_another_build_of_a_wheel_stands_beside(metered: tuple[Path, str], opt: Path) -> None:
    """As the compiled wheel does, after the one that is not: both have the same number."""
    folder, _ = metered
    for more in ("", "\n# another build\n"):
        made = wheel(folder, "0.1.1", more=more)
        done = await asyncio.to_thread(run, folder, opt, "upgrade", str(made))
        assert done.stdout.endswith("relay 0.1.1 is installed; none is running.\n"), done.stderr
    now = os.readlink(opt / "current")
    assert now.startswith("versions/0.1.1-")
    assert os.readlink(opt / "previous") == "versions/0.1.1"
    done = await asyncio.to_thread(run, folder, opt, "upgrade", str(made))
    assert done.stdout == "relay 0.1.1 is in use already.\n", done.stderr
    done = await asyncio.to_thread(run, folder, opt, "rollback")
    assert done.stdout == "relay 0.1.1 is in use; none is running.\n", done.stderr
    assert os.readlink(opt / "current") == "versions/0.1.1"
