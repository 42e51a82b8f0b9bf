"""A relay as its users have it, on this test's own loop: real sockets, database and log."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relay import config
from relay.accounts import keys, users
from relay.app import App
from relay.net.deadlines import Deadlines
from relay.net.http1 import Server
from relay.simulator.app import Simulator
from relay.store.keys import live_keys

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


@dataclass
class Live:
    """A running relay and what a test needs of it."""

    app: App
    url: str
    key: str
    log_path: Path
    simulator: Simulator | None

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def headers(self) -> dict[str, str]:
        return {"x-api-key": self.key, "anthropic-version": "2023-06-01"}

    def log(self) -> list[dict[str, Any]]:
        """The access log so far."""
        assert self.app.log is not None
        assert self.app.log.drain(2)
        return [json.loads(line) for line in self.log_path.read_text().splitlines()]


@contextlib.asynccontextmanager
async def running_simulator() -> AsyncIterator[tuple[Simulator, str]]:
    """The simulated upstream, and its URL."""
    timers = Deadlines(asyncio.get_running_loop())
    simulator = Simulator()
    server = Server(simulator.handle, timers)
    port = await server.listen()
    timers.start()
    try:
        yield simulator, f"http://127.0.0.1:{port}"
    finally:
        await server.drain(0)
        timers.stop()


@contextlib.asynccontextmanager
async def running_relay(
    folder: Path, upstream: str | None = None, /, **sections: Any
) -> AsyncIterator[Live]:
    """A relay in front of the simulator, or of the `upstream` URL.

    `sections` override parts of relay.toml (`server={…}`, `model=[…]`, `upstream_options={…}`).
    """
    async with contextlib.AsyncExitStack() as stack:
        simulator = None
        if upstream is None:
            simulator, upstream = await stack.enter_async_context(running_simulator())
        options = sections.pop("upstream_options", {})
        tree: dict[str, Any] = {
            "database": {"path": str(folder / "relay.db")},
            "upstream": [
                {"name": "main", "base_url": upstream, "api_key": UPSTREAM_KEY, **options}
            ],
            "model": MODELS,
            "plan": PLANS,
            **sections,
        }
        tree["server"] = {"listen": ["127.0.0.1:0"], "admin_listen": "", **tree.get("server", {})}
        settings = config.parse(tree)
        log_path = folder / "access.log"
        log = stack.enter_context(log_path.open("ab", buffering=0))
        app = App(settings, log_fd=log.fileno())
        await app.start()
        stack.push_async_callback(app.stop, 0)
        now = time.time()
        await users.create(app.database, settings, EMAIL, plan=None, is_admin=False, now=now)
        issued = await keys.create(app.database, settings, EMAIL, keys.KeyOptions("test"), now=now)
        app.callers.replace(await live_keys(app.database))
        yield Live(app, app.addresses[0], issued.key.reveal(), log_path, simulator)
