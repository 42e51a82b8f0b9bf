"""The idle connections of a pool: how many are kept."""

import asyncio
import resource

import pytest

from relay.net.deadlines import Deadlines
from relay.net.descriptors import max_idle_connections
from relay.net.upstream.connection import Origin
from relay.net.upstream.connection_pool import ConnectionPool
from tests.fakes.until import until

_MANY = 600  # requests that end in one turn of the loop, and begin anew in the next


class _Peer(asyncio.Protocol):
    """An upstream's side of a connection, which it holds open."""

    connected: set["_Peer"] = set()  # noqa: RUF012 - of the one test here

    def connection_made(self, _: asyncio.BaseTransport) -> None:
        self.connected.add(self)

    def connection_lost(self, _: Exception | None) -> None:
        self.connected.discard(self)


async def test_connections_of_many_requests_at_once_are_kept() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Peer, "127.0.0.1", 0)
    pool = ConnectionPool(Origin("127.0.0.1", server.sockets[0].getsockname()[1]), Deadlines(loop))
    try:
        for _ in range(2):
            taken = [pool.take() or await pool.connect() for _ in range(_MANY)]
            for connection in taken:
                pool.put(connection, reusable=True)
        assert (pool.opened, pool.idle) == (_MANY, _MANY)
    finally:
        pool.close()
        await until(lambda: not _Peer.connected)
        server.close()


@pytest.mark.parametrize(("limit", "idle"), [(1024, 256), (4096, 512), (16_384, 2048)])
def test_few_descriptors_leave_few_idle_connections(limit: int, idle: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < limit:
        pytest.skip(f"the hard limit of descriptors is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        assert max_idle_connections() == idle
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
