"""A complete relay on the test's own loop: real sockets, database and log."""

import asyncio
import contextlib
import json
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec

from relay import config
from relay.accounts import keys, users
from relay.app import App
from relay.net.deadlines import Deadlines
from relay.net.listener import listen
from relay.net.server import Server
from relay.simulator.app import Simulator
from relay.store.database import Database
from tests.fakes.upstream import Upstream

EMAIL = "ada@example.com"
UPSTREAM_KEY = "upstream-credential-canary"
MODELS: list[dict[str, Any]] = [
    {"id": "claude-opus-4-8", "context_window": 1_000_000, "max_output_tokens": 128_000},
    {
        "id": "claude-sonnet-4-7",
        "display_name": "Claude Sonnet 4.7",
        "aliases": ["claude-sonnet-4-6"],
    },
    {"id": "claude-haiku-4-5"},
]
PLANS: list[dict[str, Any]] = [{"id": "free", "limits": [], "max_keys": 10}]


# Opens a relay that the test's end closes: the fixture `relay_with` of tests/conftest.py.
RelayWith = Callable[..., Awaitable["Live"]]


class _Mark(msgspec.Struct):
    """A line in the access log; once it is in the file, so are all lines before it."""

    mark: int


@dataclass
class Live:
    """A running relay and its first user's key."""

    app: App
    settings: config.Settings
    url: str
    key: str
    log_path: Path
    simulator: Simulator | None
    _marks: int = 0

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def upstream_url(self) -> str:
        """The first upstream's URL."""
        return self.settings.upstream[0].base_url

    @property
    def headers(self) -> dict[str, str]:
        return {"x-api-key": self.key, "anthropic-version": "2023-06-01"}

    def log(self) -> list[dict[str, Any]]:
        """The access log so far."""
        assert self.app.log is not None
        self._marks += 1
        self.app.log.line(_Mark(self._marks))
        self.app.log.flush()
        deadline = time.monotonic() + 2
        while True:
            lines = [
                json.loads(line)
                for line in self.log_path.read_bytes().splitlines(True)
                if line.endswith(b"\n")
            ]
            if {"mark": self._marks} in lines:
                return [line for line in lines if "mark" not in line]
            assert time.monotonic() < deadline, "the access log is not written"
            time.sleep(0.001)

    def keeps_idle(self, number: int) -> bool:
        """Whether the first upstream's pool holds exactly `number` idle connections."""
        pool = self.app.upstreams[0].pool
        return repr(pool) == f"<Pool {pool.origin} idle={number} opened={pool.opened}>"

    async def create_user(self, email: str) -> None:
        """Another account, on the default plan."""
        await users.create(
            self.app.database, self.settings, email, plan=None, is_admin=False, now=time.time()
        )

    async def new_key(
        self,
        email: str = EMAIL,
        *,
        name: str = "more",
        expires: str | None = None,
        now: float | None = None,
    ) -> str:
        """A further key of this user's, in force at once. `now` is its time of creation."""
        now = time.time() if now is None else now
        issued = await keys.create(
            self.app.database, self.settings, email, keys.KeyOptions(name, expires), now=now
        )
        await self.reload_keys()
        return issued.key.reveal()

    async def reload_keys(self) -> None:
        """Put changes of users and keys into force now: the relay looks four times a second."""
        await self.app.refresh()


@contextlib.asynccontextmanager
async def running_simulator(seed: str = "relay") -> AsyncIterator[tuple[Simulator, str]]:
    """A simulated upstream whose signatures derive from `seed`, and its URL."""
    timers = Deadlines(asyncio.get_running_loop())
    simulator = Simulator(seed)
    server = Server(simulator.handle, timers)
    port = await listen(server)
    timers.start()
    try:
        yield simulator, f"http://127.0.0.1:{port}"
    finally:
        await server.drain(0)
        timers.stop()


class Beside(Protocol):
    """Somebody beside each relay that a test starts."""

    def extend(self, tree: dict[str, Any]) -> None:
        """Change what is in relay.toml."""

    def run(self, relay: Live) -> contextlib.AbstractAsyncContextManager[None]:
        """Is entered once the relay runs."""


beside: list[Beside] = []  # nobody, but for `tests.attacks.suite`


@contextlib.asynccontextmanager
async def running_relay(
    folder: Path, upstream: Upstream | str | list[dict[str, Any]] | None = None, /, **sections: Any
) -> AsyncIterator[Live]:
    """A relay in front of the simulator, of a fake upstream or its URL, or of `[[upstream]]` rows.

    `sections` override parts of relay.toml (`server={…}`, `model=[…]`, `upstream_options={…}`);
    `resolver` resolves the upstreams' names.
    """
    async with contextlib.AsyncExitStack() as stack:
        simulator = None
        options = sections.pop("upstream_options", {})
        resolver = sections.pop("resolver", None)
        if isinstance(upstream, list):
            rows = upstream
        elif upstream is not None:
            rows = [upstream_row("main", upstream, options)]
        else:
            simulator, url = await stack.enter_async_context(running_simulator())
            rows = [upstream_row("main", url, options)]
        tree: dict[str, Any] = {
            "database": {"path": str(folder / "relay.db")},
            "upstream": rows,
            "model": MODELS,
            "plan": PLANS,
            **sections,
        }
        tree["server"] = {"listen": ["127.0.0.1:0"], "admin_listen": "", **tree.get("server", {})}
        for one in beside:
            one.extend(tree)
        settings = config.parse(tree)
        await _copy_migrated(folder / "relay.db")
        log_path = folder / "access.log"
        log = stack.enter_context(log_path.open("ab", buffering=0))
        app = await App.start(settings, log_fd=log.fileno(), resolver=resolver)
        stack.push_async_callback(app.stop, 0)
        relay = Live(app, settings, app.addresses[0], "", log_path, simulator)
        await relay.create_user(EMAIL)
        relay.key = await relay.new_key(name="test")
        for one in beside:
            await stack.enter_async_context(one.run(relay))
        yield relay


async def _copy_migrated(path: Path) -> None:
    """A database as `Database.open` makes it, without its many statements."""
    if not _migrated:
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder, "relay.db")
            await (await Database.open(made)).close()
            _migrated.append(_octets(made))
    _place(path, _migrated[0])


_migrated: list[bytes] = []  # at most one


def _octets(path: Path) -> bytes:
    return path.read_bytes()


def _place(path: Path, octets: bytes) -> None:
    """Write a file that is not there yet."""
    with contextlib.suppress(FileExistsError), path.open("xb") as file:
        path.chmod(0o600)
        file.write(octets)


def upstream_row(
    name: str, upstream: Upstream | str, options: dict[str, Any] | None = None
) -> dict[str, Any]:
    """One `[[upstream]]`; `options` are its further settings."""
    url = upstream.url if isinstance(upstream, Upstream) else upstream
    return {"name": name, "base_url": url, "api_key": UPSTREAM_KEY, **(options or {})}
