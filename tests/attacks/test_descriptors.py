"""Idle strangers use up no descriptor that callers, upstreams or the database need."""

import asyncio
import contextlib
import resource
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import trustme

from relay.net.deadlines import Deadlines
from relay.net.exchange import Exchange
from relay.net.listener import listen
from relay.net.server import Bounds, Handler, Server
from tests.durability.process import Running, data, relay, serving, write_settings
from tests.fakes.caller import BODY, connected, read_answer, request
from tests.fakes.until import until

LIMIT = 256
STRANGERS = 400
GET = b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n"


def few_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, LIMIT))


def proc(running: Running, name: str) -> Path:
    return Path(f"/proc/{running.process.pid}/{name}")


def strangers(stack: contextlib.ExitStack, port: int, count: int, octets: bytes) -> None:
    for _ in range(count):
        stranger = stack.enter_context(socket.socket())
        stranger.setblocking(False)
        stranger.connect_ex(("127.0.0.1", port))
        with contextlib.suppress(OSError):
            stranger.send(octets)


@pytest.mark.parametrize("octets", [(b"", b"POST /v1/mess"), (GET, GET + b"GET /")])
async def test_callers_are_served_beside_idle_strangers(
    tmp_path: Path, octets: tuple[bytes, bytes]
) -> None:
    with contextlib.ExitStack() as stack:
        simulator = stack.enter_context(serving(tmp_path, ("simulate", "--port", "0")))
        write_settings(tmp_path, f"http://127.0.0.1:{simulator.port}")
        await asyncio.to_thread(relay, tmp_path, "user", "create", "ada@example.com")
        made = await asyncio.to_thread(data, tmp_path, "key", "create", "--user", "ada@example.com")
        running = stack.enter_context(serving(tmp_path, preexec_fn=few_descriptors))
        ask = request(made["key"], BODY)
        async with (
            connected(running.port) as (reader, writer),
            connected(running.port) as (idle_reader, idle_writer),
        ):
            idle_writer.write(ask)
            assert (await read_answer(idle_reader))[0] == 200
            writer.write(ask)  # its upstream connection is open, and idle
            assert (await read_answer(reader))[0] == 200
            slow = request(made["key"], BODY, fields="x-simulate: delay=1\r\n")
            writer.write(slow)
            await asyncio.sleep(0.1)
            for part in octets:
                strangers(stack, running.port, STRANGERS // 2, part)
            async with asyncio.timeout(3):
                assert (await read_answer(reader))[0] == 200  # it was at work, and stays
            async with asyncio.timeout(1):
                answers = await asyncio.gather(*(served(running.port, ask) for _ in range(20)))
            assert answers == [200] * 20
            if GET not in octets:  # else it may be the one that idled longest
                idle_writer.write(ask)
                assert (await read_answer(idle_reader))[0] == 200
        running.signal()
        assert await running.exited(within=6) == 0


async def served(port: int, octets: bytes) -> int:
    async with connected(port) as (reader, writer):
        writer.write(octets)
        return (await read_answer(reader))[0]


def test_the_soft_limit_is_raised_at_the_start(tmp_path: Path) -> None:
    def soft_limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 4000))

    write_settings(tmp_path, "http://127.0.0.1:9")
    with serving(tmp_path, preexec_fn=soft_limit) as running:
        limits = proc(running, "limits").read_text()
    line = next(line for line in limits.splitlines() if line.startswith("Max open files"))
    assert line.split()[3:5] == ["4000", "4000"]


def test_the_databases_files_are_open_at_the_start(tmp_path: Path) -> None:
    """Three connections, each with the database and its log."""
    write_settings(tmp_path, "http://127.0.0.1:9")
    with serving(tmp_path) as running:
        time.sleep(0.5)
        opened = [path.readlink().name for path in proc(running, "fd").iterdir()]
    assert opened.count("relay.db") >= 3
    assert opened.count("relay.db-wal") >= 3


# --- which connection makes room ---


@contextlib.asynccontextmanager
async def bounded(
    handler: Handler, tls: ssl.SSLContext | None = None, **bounds: float
) -> AsyncIterator[tuple[Server, int]]:
    timers = Deadlines(asyncio.get_running_loop())
    server = Server(handler, timers, Bounds(**{"connections": 4, **bounds}))  # type: ignore[arg-type]
    port = await listen(server, tls=tls)
    timers.start()
    try:
        yield server, port
    finally:
        await server.drain(0)
        timers.stop()


async def respond(exchange: Exchange) -> None:
    exchange.respond(200, [], b"ok")


Connected = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Open = Callable[[bool], Awaitable[Connected]]


@contextlib.asynccontextmanager
async def opening(port: int) -> AsyncIterator[Open]:
    writers: list[asyncio.StreamWriter] = []

    async def open_one(asking: bool) -> Connected:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writers.append(writer)
        if asking:
            writer.write(GET)
            await read_answer(reader)
        return reader, writer

    yield open_one
    for writer in writers:
        writer.close()


async def is_closed(reader: asyncio.StreamReader) -> bool:
    try:
        async with asyncio.timeout(0.3):
            return await reader.read(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


async def test_the_oldest_stranger_makes_room_first() -> None:
    async with bounded(respond) as (server, port), opening(port) as open_one:
        known = await open_one(True)
        old, young = await open_one(False), await open_one(False)
        await asyncio.sleep(0.8)  # longer than a request takes to follow its connection
        for _ in range(2):
            await open_one(True)
        assert [await is_closed(one[0]) for one in (known, old, young)] == [False, True, False]
        assert len(server.connections) == 4


async def test_a_flood_of_strangers_leaves_known_callers_alone() -> None:
    async with bounded(respond, connections=20) as (_, port), opening(port) as open_one:
        known = [await open_one(True) for _ in range(5)]
        with contextlib.ExitStack() as stack:
            strangers(stack, port, 200, b"")
            await asyncio.sleep(0.1)
            async with asyncio.timeout(5):
                for _ in range(5):
                    await open_one(True)
        assert [await is_closed(reader) for reader, _ in known] == [False] * 5


async def test_without_strangers_the_longest_idle_makes_room() -> None:
    async with bounded(respond) as (server, port), opening(port) as open_one:
        first, second = await open_one(True), await open_one(True)
        await asyncio.sleep(0.6)  # deadlines have steps of a quarter second
        first[1].write(GET)
        await read_answer(first[0])
        for _ in range(3):
            await open_one(True)
        assert [await is_closed(one[0]) for one in (first, second)] == [False, True]
        assert len(server.connections) == 4


async def test_where_all_are_at_work_new_ones_wait() -> None:
    gate = asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        await gate.wait()
        exchange.respond(200, [], b"ok")

    async with bounded(answer) as (server, port), opening(port) as open_one:
        busy = [await open_one(False) for _ in range(5)]
        for _, writer in busy:
            writer.write(GET)
        await until(lambda: sum(not one.is_idle for one in server.connections) >= 4)
        waiting = [await open_one(False) for _ in range(10)]
        for _, writer in waiting:
            writer.write(GET)
        await asyncio.sleep(0.4)
        assert len(server.connections) <= 5
        gate.set()
        async with asyncio.timeout(5):
            for reader, writer in busy[-4:] + waiting:
                assert (await read_answer(reader))[0] == 200
                writer.close()


async def test_unfinished_handshakes_end_and_are_counted() -> None:
    """Half of the places at most; the loop's own limit for a handshake is 60 s."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority = trustme.CA()
    authority.issue_cert("localhost").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    with contextlib.ExitStack() as stack:
        async with bounded(respond, context, handshake_time=0.5) as (server, port):
            strangers(stack, port, 20, b"\x16\x03\x01")
            await asyncio.sleep(0.2)
            assert not server.connections
            async with asyncio.timeout(8):
                reader, writer = await asyncio.open_connection("localhost", port, ssl=trusting)
                writer.write(GET)
                assert (await read_answer(reader))[0] == 200
            writer.close()
