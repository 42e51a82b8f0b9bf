"""The server process: changes by commands, start, end, memory."""

import asyncio
import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import cast

import psutil
import pytest

from tests.fakes.caller import BODY, connected, read_answer, read_head, request
from tests.scoreboard import RecordProperty

from .conftest import EMAIL
from .process import Running, data, relay, serving, write_settings

IN_FORCE_SECONDS = 1.0  # after a command changed something


async def status_of(port: int, key: str) -> int:
    async with connected(port) as (reader, writer):
        writer.write(request(key))
        return (await read_answer(reader))[0]


async def becomes(port: int, key: str, status: int) -> float:
    """Seconds until a request with the key gets this status."""
    started = time.monotonic()
    async with asyncio.timeout(5):
        while await status_of(port, key) != status:  # noqa: ASYNC110 - each asks anew
            await asyncio.sleep(0.01)
    return time.monotonic() - started


# --- the command line ---------------------------------------------------------------


async def test_a_change_by_a_command_is_in_force_within_a_second(
    server: Running,
) -> None:
    made = await asyncio.to_thread(data, server.folder, "key", "create", "--user", EMAIL)
    assert await becomes(server.port, made["key"], 200) < IN_FORCE_SECONDS
    await asyncio.to_thread(data, server.folder, "key", "revoke", made["id"])
    assert await becomes(server.port, made["key"], 401) < IN_FORCE_SECONDS


async def test_a_suspended_account_is_refused_by_a_running_server(server: Running) -> None:
    email = "eve@example.com"
    await asyncio.to_thread(data, server.folder, "user", "create", email)
    made = await asyncio.to_thread(data, server.folder, "key", "create", "--user", email)
    assert await becomes(server.port, made["key"], 200) < IN_FORCE_SECONDS
    await asyncio.to_thread(data, server.folder, "user", "suspend", email)
    assert await becomes(server.port, made["key"], 403) < IN_FORCE_SECONDS
    await asyncio.to_thread(data, server.folder, "user", "resume", email)
    assert await becomes(server.port, made["key"], 200) < IN_FORCE_SECONDS


# --- starting -----------------------------------------------------------------------


@pytest.mark.alone
async def test_a_server_is_ready_half_a_second_after_its_start(home: tuple[Path, str]) -> None:
    taken = []
    for _ in range(2):
        with serving(home[0]) as running:
            taken.append(running.ready_after)
            async with connected(running.port) as (reader, writer):
                writer.write(b"GET /readyz HTTP/1.1\r\nhost: a\r\n\r\n")
                assert (await read_answer(reader))[2] == b"ready\n"
            memory = psutil.Process(running.process.pid).memory_info().rss / 2**20
    print(f"ready after {min(taken):.2f} s; {memory:.1f} MiB")
    assert min(taken) < 3 * 0.5  # three times as much, as the machine may be busy
    assert memory < 50


def test_a_port_in_use_is_reported_in_one_line(simulator: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        write_settings(tmp_path, simulator, address)
        done = relay(tmp_path, "serve")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert address.rpartition(":")[2] in done.stderr
    assert "in use" in done.stderr


async def test_a_server_uses_a_socket_that_was_passed_to_it(home: tuple[Path, str]) -> None:
    """As from systemd: descriptor 3 listens already, and LISTEN_PID is the process's."""
    folder, key = home
    code = (
        "import os, sys; os.environ['LISTEN_PID'] = str(os.getpid());"
        "os.environ['LISTEN_FDS'] = '1'; os.dup2(int(sys.argv[1]), 3); os.set_inheritable(3, True);"
        "os.execv(sys.executable, [sys.executable, '-m', 'relay', 'serve'])"
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        process = subprocess.Popen(  # noqa: ASYNC220 - it returns at once
            [sys.executable, "-c", code, str(listener.fileno())],
            cwd=folder,
            pass_fds=[listener.fileno()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert process.stderr is not None
        try:
            assert str(port) in process.stderr.readline().decode()
            assert await status_of(port, key) == 200
            process.terminate()
            assert await asyncio.to_thread(process.wait, 5) == 0
        finally:
            process.kill()
            process.wait()
            process.stderr.close()


# --- ending -------------------------------------------------------------------------


async def stream(port: int, key: str, started: asyncio.Semaphore) -> bytes:
    """Read one paced stream to its end; `started` is released after its head."""
    body = {**BODY, "stream": True}
    async with connected(port, wait=20) as (reader, writer):
        writer.write(request(key, body, fields="x-simulate: tokens=20;pace=25;seed=same\r\n"))
        status, _ = await read_head(reader)
        assert status == 200
        started.release()
        return await reader.read(-1)


def same(stream: bytes) -> str:
    """A digest of a stream without its ids: equal for streams of one seed."""
    return hashlib.sha256(stream[stream.index(b"content_block_start") :]).hexdigest()


async def test_streams_in_flight_finish_before_the_process_ends(home: tuple[Path, str]) -> None:
    folder, key = home
    with serving(folder) as running:
        port = running.port
        started = asyncio.Semaphore(0)
        async with connected(port) as (idle, _), asyncio.TaskGroup() as group:
            tasks = [group.create_task(stream(port, key, started)) for _ in range(50)]
            for _ in range(50):
                await started.acquire()
            running.signal()
            assert await idle.read(-1) == b""  # an idle connection is closed at once
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", port)
            assert running.process.poll() is None
        last = time.monotonic()
        assert await running.exited(5) == 0
        took = time.monotonic() - last
        assert took < 1, took
    streams = [task.result() for task in tasks]
    assert all(one.endswith(b"}\n\n\r\n0\r\n\r\n") for one in streams)
    assert len({same(one) for one in streams}) == 1
    assert all(one.count(b"content_block_delta") == 2 * 20 for one in streams)
    outcomes = [line["outcome"] for line in running.log()[-50:]]
    assert outcomes == ["whole"] * 50
    print(f"ended {took:.2f} s after the last stream")


async def test_a_draining_server_announces_the_last_answer(
    home: tuple[Path, str],
) -> None:
    folder, key = home
    with serving(folder) as running:
        async with connected(running.port) as (reader, writer):
            writer.write(request(key, fields="x-simulate: delay=0.3\r\n"))
            await asyncio.sleep(0.1)
            running.signal()
            status, fields, _ = await read_answer(reader)
            assert (status, fields[b"connection"]) == (200, b"close")
            assert await reader.read(-1) == b""
        assert await running.exited(1.5) == 0


async def test_a_second_signal_cuts_and_every_request_is_logged(
    home: tuple[Path, str],
) -> None:
    folder, key = home
    with serving(folder) as running:
        started = asyncio.Semaphore(0)
        tasks = [asyncio.create_task(stream(running.port, key, started)) for _ in range(5)]
        for _ in range(5):
            await started.acquire()
        running.signal()
        await asyncio.sleep(0.1)
        again = time.monotonic()
        running.signal()
        assert await running.exited(3) == 0
        assert time.monotonic() - again < 1
        streams = await asyncio.gather(*tasks, return_exceptions=True)
        assert not [one for one in streams if isinstance(one, bytes) and one.endswith(b"0\r\n\r\n")]
    assert [line["outcome"] for line in running.log()[-5:]] == ["caller left"] * 5


async def test_control_c_ends_the_process_in_order(home: tuple[Path, str]) -> None:
    with serving(home[0]) as running:
        assert await status_of(running.port, home[1]) == 200
        running.signal(signal.SIGINT)
        assert await running.exited(2) == 0
        assert running.process.stderr is not None
        assert b"Traceback" not in running.process.stderr.read()


@pytest.mark.alone
async def test_a_killed_server_can_start_again(home: tuple[Path, str]) -> None:
    folder, key = home
    with serving(folder) as running:
        assert await status_of(running.port, key) == 200
        os.kill(running.process.pid, signal.SIGKILL)
        await running.exited(2)
    with serving(folder) as running:
        assert await status_of(running.port, key) == 200


# --- memory -------------------------------------------------------------------------


@pytest.mark.alone
async def test_a_slow_reader_costs_at_most_256_kib(
    server: Running, home: tuple[Path, str], record_property: RecordProperty
) -> None:
    key = home[1]
    process = psutil.Process(server.process.pid)
    body = {**BODY, "stream": True}
    octets = request(key, body, fields="x-simulate: bytes=5000000\r\n")
    assert await status_of(server.port, key) == 200
    before = process.memory_info().rss
    count = 20
    pairs = []
    for _ in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        writer.write(octets)
        pairs.append((reader, writer))
    for reader, writer in pairs:
        await reader.readuntil(b"\r\n\r\n")
        cast(asyncio.Transport, writer.transport).pause_reading()
    await asyncio.sleep(0.5)
    each = (process.memory_info().rss - before) / count / 1024
    for _, writer in pairs:
        writer.transport.abort()
    record_property("figure", f"{each:.0f} KiB a slow reader")
    assert each <= 256
