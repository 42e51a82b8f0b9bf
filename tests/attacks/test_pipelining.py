"""A peer that pipelines without end gets all its answers and delays no other caller."""

import asyncio
import json
import re
import socket
import threading
import time

import pytest

from relay.net.deadlines import Deadlines
from relay.net.exchange import Exchange
from relay.net.listener import listen
from relay.net.server import Server
from tests.fakes.caller import BODY, connected, read_answer, request
from tests.fakes.live import Live

MANY = 8000
TURN = 64  # requests of one peer in one turn of the loop, at most
STALL = 0.1  # seconds; twice the promise, for a busy machine


def peer(port: int, octets: bytes, last: bytes) -> bytes:
    """Sends at full speed while it reads; in a thread, so as not to occupy the loop."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        sender = threading.Thread(target=connection.sendall, args=(octets,))
        sender.start()
        received = bytearray()
        while last not in received[-1000:]:
            data = connection.recv(1 << 20)
            if not data:
                break
            received += data
        sender.join()
        return bytes(received)


def pipelined(count: int) -> bytes:
    return b"".join(b"GET /n%d HTTP/1.1\r\nhost: a\r\n\r\n" % number for number in range(count))


async def test_pipelined_requests_are_answered_in_order_and_turns() -> None:
    turn, now = 0, 0
    served: list[tuple[int, bytes]] = []  # turn of the loop, answer

    async def handler(exchange: Exchange) -> None:
        served.append((turn, exchange.request.path))
        exchange.respond(200, [], exchange.request.path + b"\n")

    async def count() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    timers = Deadlines(asyncio.get_running_loop())
    server = Server(handler, timers)
    port = await listen(server)
    timers.start()
    counting = asyncio.create_task(count())
    try:
        last = b"/n%d\n" % (MANY - 1)
        received = await asyncio.to_thread(peer, port, pipelined(MANY), last)
    finally:
        counting.cancel()
        await server.drain(0)
        timers.stop()
    wanted = [b"/n%d" % number for number in range(MANY)]
    assert [path for _, path in served] == wanted
    assert re.findall(rb"^/n\d+$", received, re.MULTILINE) == wanted
    each: dict[int, int] = {}
    for now, _ in served:
        each[now] = each.get(now, 0) + 1
    assert max(each.values()) <= TURN


@pytest.mark.alone
async def test_a_pipelining_peer_stalls_no_other(live: Live) -> None:
    worst = 0.0

    async def tick() -> None:
        nonlocal worst
        before = time.monotonic()
        while True:
            await asyncio.sleep(0)
            worst = max(worst, time.monotonic() - before)
            before = time.monotonic()

    last = b"/n%d" % (MANY - 1)
    ticking = asyncio.create_task(tick())
    attack = asyncio.create_task(asyncio.to_thread(peer, live.port, pipelined(MANY), last))
    async with connected(live.port) as (reader, writer):
        while not attack.done():
            writer.write(request(live.key))
            assert (await read_answer(reader))[0] == 200
    ticking.cancel()
    received = await attack
    assert re.findall(rb"nothing at /n(\d+)", received) == [b"%d" % n for n in range(MANY)]
    assert worst < STALL


@pytest.mark.parametrize("half_closed", [False, True])
async def test_a_request_on_a_paused_connection_is_answered(live: Live, half_closed: bool) -> None:
    """Reading pauses while many requests are queued, and must resume, or end after the last."""
    async with connected(live.port) as (reader, writer):
        writer.write(pipelined(5000))
        if half_closed:
            writer.write_eof()
        for number in range(5000):
            status, _, body = await read_answer(reader)
            assert status == 404
            assert b"/n%d." % number in body
        if half_closed:
            assert await reader.read(-1) == b""
        else:
            writer.write(request(live.key))
            assert (await read_answer(reader))[0] == 200


@pytest.mark.parametrize("size", [20_000, 40_000, 100_000])
async def test_small_chunks_and_a_next_request_are_read_in_turns(live: Live, size: int) -> None:
    """Several turns of the loop read the body; the request behind it comes after it."""
    body = json.dumps({**BODY, "messages": [{"role": "user", "content": "x" * size}]}).encode()
    chunks = b"".join(b"1\r\n%b\r\n" % body[at : at + 1] for at in range(len(body)))
    head, _, _ = request(live.key, b"").partition(b"content-length")
    first = head + b"transfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    async with connected(live.port) as (reader, writer):
        writer.write(first + request(live.key) + first)
        for _ in range(3):
            assert (await read_answer(reader))[0] == 200
