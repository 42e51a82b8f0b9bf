"""One hand-over in steps: limits, uploads, a successor that fails, an old process that dies."""

import asyncio
import contextlib
import os
import signal
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path

from relay.handover.channel import KIND
from tests.fakes.caller import BODY, connected, read_answer, read_head, request
from tests.fakes.until import until

from .relays import Relays


@contextlib.asynccontextmanager
async def relays_of(home: tuple[Path, str], requests: int = 1_000_000) -> AsyncIterator[Relays]:
    """A relay that serves, with so many requests per five hours."""
    folder, _ = home
    path = folder / "relay.toml"
    path.write_text(path.read_text().replace("requests = 1000000", f"requests = {requests}"))
    relays = Relays(folder)
    try:
        await relays.start()
        yield relays
    finally:
        relays.kill()


async def status_of(port: int, key: str) -> tuple[int, dict[bytes, bytes]]:
    async with connected(port) as (reader, writer):
        writer.write(request(key))
        status, fields, _ = await read_answer(reader)
    return status, fields


async def test_what_the_old_process_holds_counts_in_the_new_one(metered: tuple[Path, str]) -> None:
    key = metered[1]
    async with (
        relays_of(metered, requests=3) as relays,
        connected(relays.port, wait=30) as (reader, writer),
    ):
        writer.write(request(key, fields="x-simulate: delay=8\r\n"))
        await until(lambda: relays.rows("SELECT * FROM running"))
        await relays.start()
        assert (await status_of(relays.port, key))[1][b"x-ratelimit-remaining"] == b"1"
        assert (await status_of(relays.port, key))[0] == 200
        assert (await status_of(relays.port, key))[0] == 429
        assert (await read_answer(reader))[0] == 200
        assert await relays.ended(0) == 0


async def test_an_upload_goes_on_and_is_admitted_by_the_new_process(
    metered: tuple[Path, str],
) -> None:
    key = metered[1]
    octets = request(key)
    async with relays_of(metered, requests=2) as relays:
        async with (
            connected(relays.port, wait=30) as (reader, writer),
            connected(relays.port, wait=30) as (other_reader, other_writer),
        ):
            for one in (writer, other_writer):
                one.write(octets[:-10])
            await writer.drain()
            await asyncio.sleep(0.1)
            await relays.start()
            assert (await status_of(relays.port, key))[0] == 200
            writer.write(octets[-10:])
            status, fields, _ = await read_answer(reader)
            assert (status, fields[b"connection"]) == (200, b"close")
            other_writer.write(octets[-10:])  # the limit is used up, in the new process
            status, fields, _ = await read_answer(other_reader)
            assert (status, fields[b"connection"]) == (429, b"close")
        assert await relays.ended(0) == 0
        relays.last.terminate()
        assert await relays.ended(-1) == 0
        assert relays.rows("SELECT rule, count(*) FROM usage GROUP BY 1") == [("reported", 2)]


async def test_an_old_process_that_dies_is_settled_as_a_crash(metered: tuple[Path, str]) -> None:
    key = metered[1]
    async with relays_of(metered) as relays, connected(relays.port, wait=30) as (reader, writer):
        body = {**BODY, "stream": True}
        writer.write(request(key, body, fields="x-simulate: tokens=200;pace=5\r\n"))
        assert (await read_head(reader))[0] == 200
        await relays.start()
        relays.processes[0].send_signal(signal.SIGKILL)
        await until(lambda: "gone with 1 requests in flight" in relays.said())
        await until(lambda: relays.rows("SELECT rule FROM usage") == [("crashed",)])
        assert (await status_of(relays.port, key))[0] == 200
        relays.last.terminate()
        assert await relays.ended(-1) == 0
        [(cost,)] = relays.rows("SELECT sum(cost_micro) FROM usage")
        assert relays.rows("SELECT charged FROM balance") == [(cost,)]
        assert relays.rows("SELECT * FROM running") == []


async def test_a_successor_that_dies_is_no_loss(metered: tuple[Path, str]) -> None:
    """It has let the old process stop, and ends: that one goes on, and what came waits for it."""
    key = metered[1]
    async with relays_of(metered) as relays, connected(relays.port, wait=30) as (reader, writer):
        writer.write(request(key, fields="x-simulate: delay=1\r\n"))
        await until(lambda: relays.rows("SELECT * FROM running"))
        path = relays.folder / "relay.db.handover"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX, KIND) as successor:
            successor.setblocking(False)
            successor.connect(str(path))
            for message in (b'.["take",1,"9.9"]', b'.["freeze"]'):
                await loop.sock_sendall(successor, message)
                assert await loop.sock_recv(successor, 1 << 17)
            waiting = asyncio.ensure_future(status_of(relays.port, key))
            await asyncio.sleep(0.2)
            assert not waiting.done()
            second = await asyncio.to_thread(_refusal, path)
            assert b"another process is about to take over" in second
        assert (await waiting)[0] == 200
        assert (await read_answer(reader))[0] == 200
        assert "this one serves on" in relays.said()
        await relays.start()  # a sound one takes over all the same
        assert (await status_of(relays.port, key))[0] == 200
        assert await relays.ended(0) == 0
        relays.last.terminate()
        assert await relays.ended(-1) == 0
        assert relays.rows("SELECT rule, count(*) FROM usage GROUP BY 1") == [("reported", 3)]


def _refusal(path: Path) -> bytes:
    """What a second process is answered that wants to take over."""
    with socket.socket(socket.AF_UNIX, KIND) as other:
        other.settimeout(5)
        other.connect(str(path))
        return other.recv(1000)


async def test_without_a_relay_takeover_is_a_plain_start(metered: tuple[Path, str]) -> None:
    async with relays_of(metered) as relays:
        assert (await status_of(relays.port, metered[1]))[0] == 200
        relays.last.terminate()
        assert await relays.ended(-1) == 0
        assert "relay.db.handover" not in os.listdir(relays.folder)
