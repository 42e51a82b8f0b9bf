"""Fixtures for every part of the suite."""

import contextlib
import gc
import inspect
import logging
import pkgutil
import re
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import uvloop
from hypothesis import settings
from pytest_rerunfailures import SocketDB, StatusDB

from relay.compiled import is_compiled
from relay.memory import map_large_blocks
from tests.fakes.live import Live, RelayWith, running_relay, running_simulator
from tests.fakes.pool import Pool, PoolWith, running_pool
from tests.fakes.upstream import Answer, Upstream, UpstreamWith, forwarding, raw_upstream
from tests.scoreboard import Scoreboard


def pytest_asyncio_loop_factories(config: Any, item: Any) -> Mapping[str, Callable[[], Any]]:
    """Test on the loop that the relay runs on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.hookimpl(trylast=True)
def pytest_configure(config: Any) -> None:
    """Print the scoreboard, but not in the workers of a parallel run.

    There, pytest-rerunfailures asks the first process about each test, lest it tries one again that
    ended a worker: two short messages, so 40 ms of waiting, since TCP holds the second one back.
    """
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Scoreboard())
    elif isinstance(found := getattr(config, "failures_db", None), SocketDB):
        found.sock.close()
        config.failures_db = StatusDB()  # knows nothing: such a test is not tried again


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a large matrix, `make test` runs the share that its marker names: `matrix(share=4)` is
    every fourth cell, always the same ones; the others are `thorough`.

    A test gets a second try, since a busy machine can spoil one that real sockets and clocks
    decide; the summary names it. A property gets none: the example that failed stays a failure.
    """
    for item in items:
        if item.get_closest_marker("hypothesis") is None:
            item.add_marker(pytest.mark.flaky(reruns=1))
        marker = item.get_closest_marker("matrix")
        if marker is not None and zlib.crc32(item.nodeid.encode()) % marker.kwargs["share"]:
            item.add_marker("thorough")


def pytest_collection_finish() -> None:
    """Let collections of garbage pass over the many thousand tests, which stay to the end."""
    gc.collect()
    gc.freeze()


map_large_blocks()  # as `relay serve` does: what is freed is no part of the process any more

# Tests run in parallel: the duration of an example says nothing about it.
settings.register_profile("tests", deadline=None, max_examples=40, database=None)
settings.register_profile("thorough", deadline=None, max_examples=400, database=None)
# For `make coverage`: the same few examples each time, so that it reaches the same branches.
settings.register_profile("coverage", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("tests")


class _Patch(pytest.MonkeyPatch):  # type: ignore[misc]
    """A `monkeypatch` that skips a test whose patch would have no effect: a compiled module has its
    functions and `Final` constants, and a compiled class its methods, in the place of each use."""

    def setattr(self, target: Any, *arguments: Any, **options: Any) -> None:
        """See `pytest.MonkeyPatch.setattr`."""
        if is_compiled() and _is_fixed(target, str(arguments[0])):
            pytest.skip(f"it replaces a part of {target}, which is compiled")
        super().setattr(target, *arguments, **options)


def _is_fixed(target: Any, name: str) -> bool:
    """Whether a compiled module keeps what it had under this name."""
    if isinstance(target, str):
        path, _, name = target.rpartition(".")
        target = pkgutil.resolve_name(path)
    is_module = isinstance(target, ModuleType)
    owner = target if is_module else inspect.getmodule(target) or inspect.getmodule(type(target))
    file = Path(getattr(owner, "__file__", None) or "")
    if file.suffix != ".so":
        return False
    source = file.with_name(file.name.partition(".")[0] + ".py").read_text()
    return not (is_module and re.search(rf"^{name}: (?!Final)", source, re.MULTILINE))


@pytest.fixture
def monkeypatch() -> Iterator[pytest.MonkeyPatch]:
    """See pytest; see `_Patch`."""
    patch = _Patch()
    yield patch
    patch.undo()


@pytest.fixture
async def stack() -> AsyncIterator[contextlib.AsyncExitStack]:
    """Closed at the test's end, in reverse order."""
    async with contextlib.AsyncExitStack() as opened:
        yield opened


@pytest.fixture
def relay_with(tmp_path: Path, stack: contextlib.AsyncExitStack) -> RelayWith:
    """Opens a relay: `await relay_with(upstream, plan=[…])`, with `running_relay`'s arguments."""

    async def open_relay(upstream: Any = None, **sections: Any) -> Live:
        relay = running_relay(tmp_path, upstream, **sections)
        return await stack.enter_async_context(relay)

    return open_relay


@pytest.fixture
def upstream_with(stack: contextlib.AsyncExitStack) -> UpstreamWith:
    """Opens an upstream of raw octets: `await upstream_with(always(OK))`."""

    async def open_upstream(answer: Answer) -> Upstream:
        return await stack.enter_async_context(raw_upstream(answer))

    return open_upstream


@pytest.fixture
async def recorder(stack: contextlib.AsyncExitStack, upstream_with: UpstreamWith) -> Upstream:
    """The simulator, behind an upstream that records the requests that it forwards."""
    _, url = await stack.enter_async_context(running_simulator())
    return await upstream_with(forwarding(url))


@pytest.fixture
def pool_with(tmp_path: Path, stack: contextlib.AsyncExitStack) -> PoolWith:
    """Opens a relay and its simulated upstreams: `await pool_with({"a": {}}, plan=[…])`."""

    async def open_pool(options: dict[str, dict[str, Any]], **sections: Any) -> Pool:
        return await stack.enter_async_context(running_pool(tmp_path, options, **sections))

    return open_pool


@pytest.fixture
async def live(relay_with: RelayWith) -> Live:
    """A relay in front of the simulator."""
    return await relay_with()


class _LoopWarnings(logging.Handler):
    """Collects the loop's warnings about the relay; asyncio streams are the tests' own."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        message = self.format(record)
        if "StreamReaderProtocol" not in message and "client_connected_cb" not in message:
            self.messages.append(message)


@pytest.fixture(autouse=True)
def loop_without_warnings() -> Iterator[None]:
    """Fails a test that writes to a closed transport or leaves an exception unretrieved."""
    warnings = _LoopWarnings()
    logger = logging.getLogger("asyncio")
    logger.addHandler(warnings)
    try:
        yield
    finally:
        logger.removeHandler(warnings)
    assert warnings.messages == []
