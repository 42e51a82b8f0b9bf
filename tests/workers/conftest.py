"""The simulator as a process, relays of several processes, and a worker beside a relay."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.durability.conftest import metered, metered_template, simulator
from tests.durability.process import serving
from tests.fakes.live import Live, RelayWith
from tests.web.visitor import WEB
from tests.workers.everywhere import Everywhere, everywhere
from tests.workers.forwarding import Front, running_front
from tests.workers.shared import UNIX_SOCKET, Shared, settings

__all__ = ["metered", "metered_template", "simulator"]

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


@pytest.fixture(scope="session")
def shared(simulator: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """A relay of three processes that runs during all tests that leave it running."""
    folder = tmp_path_factory.mktemp("shared")
    both = f'"127.0.0.1:0", "unix:{folder / UNIX_SOCKET}"'
    (folder / "relay.toml").write_text(settings(simulator).replace('"127.0.0.1:0"', both))
    with serving(folder) as running:
        yield Shared(running, folder, simulator)


@pytest.fixture
async def all_three(shared: Shared) -> AsyncIterator[Everywhere]:
    """A connection to each of its processes; the simulator has seen nothing yet."""
    await shared.forget()
    async with everywhere(shared.running) as found:
        yield found
