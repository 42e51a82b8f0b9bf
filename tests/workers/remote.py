"""A store in one process, as another one uses it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from relay.net.deadlines import Deadlines
from relay.net.exchange import Exchange
from relay.net.server import Server
from relay.store.responses import MemoryResponseStore
from relay.workers.inner_server import InnerServer
from relay.workers.owner_connections import OwnerConnections
from relay.workers.remote_responses import RemoteResponseStore, share_responses_as_owner
from tests.workers.forwarding import linked


@contextlib.asynccontextmanager
async def remote_store(
    store: MemoryResponseStore, folder: Path
) -> AsyncIterator[tuple[RemoteResponseStore, InnerServer]]:
    """The store of a worker, and the server of the owner, which has `store`."""

    async def handle(exchange: Exchange) -> None:
        raise AssertionError("nothing is forwarded")

    inner = InnerServer(Server(handle, Deadlines(asyncio.get_running_loop())))
    share_responses_as_owner(store, inner)
    await inner.open(str(folder / "relay.db"))
    async with linked() as (_, link):
        owner = OwnerConnections(link)
        owner.name(inner.path)
        try:
            yield RemoteResponseStore(owner, store.bounds), inner
        finally:
            owner.close()
            inner.close()
