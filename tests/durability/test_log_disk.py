"""The disk of the log is full: requests are served, lines are lost and counted, and come again."""

import asyncio
import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.caller import connected, read_answer, request
from tests.fakes.until import until

from .metered import STREAM
from .process import Running, serving

REQUESTS = 40


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    place = folder / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs", str(place)]
    if os.getuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("a small file system can only be mounted by root")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


async def served(running: Running, key: str, number: int) -> None:
    """So many requests, a stream at the end: each is answered as ever."""
    async with connected(running.port, wait=20) as (reader, writer):
        for _ in range(number):
            writer.write(request(key))
            assert (await read_answer(reader))[0] == 200
        writer.write(request(key, STREAM))
        assert b"message_stop" in (await read_answer(reader))[2]


async def test_a_full_disk_of_the_log_costs_lines_alone(home: tuple[Path, str]) -> None:
    folder, key = home
    with small_disk(folder) as place:
        path = folder / "relay.toml"
        path.write_text(path.read_text() + f'\n[log]\nfile = "{place}/access.log"\n')
        with serving(folder) as running:
            await served(running, key, 3)
            log = place / "access.log"
            await until(lambda: log.read_bytes().count(b"\n") == 4)
            with contextlib.suppress(OSError), (place / "other").open("wb") as other:
                other.write(bytes(128 * 1024))
            await served(running, key, REQUESTS)
            await served(running, key, REQUESTS)
            assert running.process.stderr is not None
            warning = await asyncio.to_thread(running.process.stderr.readline)
            assert b"lines of the access log are lost: No space left on device" in warning
            (place / "other").unlink()
            before = log.read_bytes().count(b"\n")
            await served(running, key, 2)
            await until(lambda: log.read_bytes().count(b"\n") >= before + 3)
            last = [json.loads(line) for line in log.read_text().splitlines()[-3:]]
            assert [line["status"] for line in last] == [200] * 3  # no part of a line before them
            running.signal()
            assert await running.exited(5) == 0


async def test_standard_output_on_a_full_device_costs_lines_alone(home: tuple[Path, str]) -> None:
    folder, key = home
    (folder / "out").symlink_to("/dev/full")
    with serving(folder) as running:
        await served(running, key, REQUESTS)
        assert running.process.stderr is not None
        warning = await asyncio.to_thread(running.process.stderr.readline)
        assert b"lines of the access log are lost: No space left on device" in warning
        await served(running, key, 1)
        running.signal()
        assert await running.exited(5) == 0
