"""The simulator as a process, relays of several processes, and a worker beside a relay."""

import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.durability.conftest import metered, simulator
from tests.fakes.live import Live, RelayWith
from tests.web.visitor import WEB
from tests.workers.forwarding import Front, running_front

__all__ = ["metered", "simulator"]

FrontWith = Callable[..., Awaitable[Front]]


@pytest.fixture
def front_with(
    relay_with: RelayWith, tmp_path: Path, stack: contextlib.AsyncExitStack
) -> FrontWith:
    """Opens a relay and a worker: `await front_with(server={…})`, as `relay_with`."""

    async def open_front(**sections: Any) -> Front:
        relay: Live = await relay_with(**{"web": WEB, **sections})
        return await stack.enter_async_context(running_front(relay, tmp_path))

    return open_front


@pytest.fixture
async def front(front_with: FrontWith) -> Front:
    """A relay with pages, and its worker."""
    return await front_with()


@pytest.fixture
def several(metered: tuple[Path, str]) -> tuple[Path, str]:
    """A folder with a relay of three processes that counts and bills, and a key."""
    folder, key = metered
    path = folder / "relay.toml"
    path.write_text(path.read_text().replace("[server]\n", "[server]\nworkers = 3\n"))
    return folder, key
