"""Connections are counted by address: a cap for each, none for this machine's own."""

import asyncio
import contextlib

import pytest

from relay.net.addresses import AddressCounts, is_loopback
from relay.net.deadlines import Deadlines
from relay.net.exchange import Exchange
from relay.net.listener import listen
from relay.net.server import Bounds, Server
from tests.fakes.until import until


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("unix", True),
        ("10.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("2001:db8::1", False),
        ("fe80::1%eth0", False),
    ],
)
def test_this_machines_own_addresses_are_known(address: str, expected: bool) -> None:
    assert is_loopback(address) is expected


@pytest.mark.parametrize(
    ("addresses", "entered"),
    [
        (["10.0.0.1"] * 3, 2),
        (["10.0.0.1", "10.0.0.1", "10.0.0.2"], 3),
        (["2001:db8::1", "2001:db8::2", "2001:db8::3"], 2),
        (["2001:db8::1", "2001:db8::2", "2001:db8:0:1::3"], 3),
        (["10.0.0.1", "::ffff:10.0.0.1", "10.0.0.1"], 2),
        (["127.0.0.1"] * 5, 5),
    ],
    ids=["same", "other", "same-64", "other-64", "mapped", "exempt"],
)
def test_an_address_has_at_most_its_cap(addresses: list[str], entered: int) -> None:
    counts = AddressCounts(2, is_loopback)
    connections = [object() for _ in addresses]
    pairs = zip(connections, addresses, strict=True)
    assert sum(counts.enter(one, address) for one, address in pairs) == entered
    assert counts.refused == len(addresses) - entered
    for connection in connections:
        counts.leave(connection)
    assert counts.enter(object(), addresses[0])


async def test_a_connection_above_the_cap_is_cut_and_room_returns() -> None:
    async def respond(exchange: Exchange) -> None:
        exchange.respond(200, [], b"ok")

    timers = Deadlines(asyncio.get_running_loop())
    server = Server(respond, timers, Bounds(per_address=3, is_exempt=lambda address: False))
    port = await listen(server)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(timers.stop)
        stack.push_async_callback(server.drain, 0)
        opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(4)]
        with contextlib.suppress(ConnectionError):
            assert await opened[3][0].read(1) == b""
        other = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0))
        await until(lambda: len(server.connections) == 4)
        opened[0][1].close()
        await until(lambda: len(server.connections) == 3)
        again = await asyncio.open_connection("127.0.0.1", port)
        again[1].write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        assert (await again[0].readline()).startswith(b"HTTP/1.1 200")
        assert server.addresses.refused == 1
        for _, writer in (*opened, other, again):
            writer.close()
