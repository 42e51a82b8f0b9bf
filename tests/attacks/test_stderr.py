"""A terminal, a pipe or a disk behind standard error never stops the relay; nor do signals."""

import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.durability.process import data, relay, serving, write_settings
from tests.fakes.caller import BODY, connected, read_answer, request
from tests.fakes.ports import free_port
from tests.fakes.until import until

EMAIL = "ada@example.com"


def prepare(folder: Path, *listen: str) -> str:
    """A relay.toml whose upstream refuses every connection; returns a key."""
    write_settings(folder, "http://127.0.0.1:9", *listen)
    assert relay(folder, "user", "create", EMAIL).returncode == 0
    return str(data(folder, "key", "create", "--user", EMAIL)["key"])


async def statuses(port: int, key: str, count: int) -> set[int]:
    seen = set()
    async with connected(port) as (reader, writer):
        for _ in range(count):
            writer.write(request(key, BODY))
            seen.add((await read_answer(reader))[0])
    return seen


@contextlib.asynccontextmanager
async def started(folder: Path, port: int, stderr: int) -> AsyncIterator[subprocess.Popen[bytes]]:
    """A server with this standard error, once its port answers."""
    process = subprocess.Popen(  # noqa: ASYNC220 - it returns at once
        [sys.executable, "-m", "relay", "serve"],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
    )
    try:
        async with asyncio.timeout(10):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                await asyncio.sleep(0.02)
                assert process.poll() is None, "the relay did not start"
        yield process
    finally:
        process.kill()
        process.wait()


async def test_an_unread_pipe_stops_nothing(tmp_path: Path) -> None:
    key = await asyncio.to_thread(prepare, tmp_path)
    with serving(tmp_path) as running:
        assert running.process.stderr is not None
        fcntl.fcntl(running.process.stderr.fileno(), fcntl.F_SETPIPE_SZ, 4096)
        # Each failure is a warning of more than 100 octets.
        assert await statuses(running.port, key, 1500) == {503}
        running.signal()
        assert await running.exited(within=6) == 0


@pytest.mark.matrix(share=2)
@pytest.mark.parametrize("how", ["full disk", "closed pipe"])
async def test_an_unwritable_stderr_stops_nothing(tmp_path: Path, how: str) -> None:
    port = free_port()
    key = await asyncio.to_thread(prepare, tmp_path, f"127.0.0.1:{port}")
    reading, writing = os.pipe()
    os.close(reading)
    full = os.open("/dev/full", os.O_WRONLY)
    async with started(tmp_path, port, full if how == "full disk" else writing) as process:
        assert await statuses(port, key, 50) == {503}
        process.terminate()
        since = time.monotonic()
        await until(lambda: process.poll() is not None, within=6)
        assert process.returncode == 0
        assert time.monotonic() - since < 4
    os.close(full)
    os.close(writing)


async def test_a_stderr_that_is_full_at_the_start_stops_nothing(tmp_path: Path) -> None:
    port = free_port()
    key = await asyncio.to_thread(prepare, tmp_path, f"127.0.0.1:{port}")
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    async with started(tmp_path, port, writing) as process:
        assert await statuses(port, key, 50) == {503}
        process.terminate()
        await until(lambda: process.poll() is not None, within=6)
        assert process.returncode == 0
    os.close(reading)
    os.close(writing)


async def test_reload_signals_leave_streams_alone(tmp_path: Path) -> None:
    """A closed ssh session sends SIGHUP; log rotation sends SIGUSR1."""
    port = free_port()
    simulate = ["simulate", "--port", str(port)]
    with serving(tmp_path, simulate), contextlib.ExitStack() as stack:
        write_settings(tmp_path, f"http://127.0.0.1:{port}")
        await asyncio.to_thread(relay, tmp_path, "user", "create", EMAIL)
        made = await asyncio.to_thread(data, tmp_path, "key", "create", "--user", EMAIL)
        running = stack.enter_context(serving(tmp_path))
        async with connected(running.port) as (reader, writer):
            script = "x-simulate: tokens=20;pace=20\r\n"
            writer.write(request(made["key"], {**BODY, "stream": True}, fields=script))
            await reader.readuntil(b"content_block_delta")
            for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2) * 3:
                running.signal(number)
                await asyncio.sleep(0.02)
            assert b"message_stop" in await reader.readuntil(b"0\r\n\r\n")
        running.signal()
        assert await running.exited(within=6) == 0
        assert running.process.stderr is not None
        said = running.process.stderr.read().decode()
        for name in ("SIGUSR1", "SIGUSR2"):
            assert said.count(f"{name} has no effect") == 1
        assert said.count("reload: nothing has changed") == 3
