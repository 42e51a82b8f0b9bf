"""A relay of three processes for many tests, with a model, a plan and an upstream for each."""

import asyncio
import contextlib
import itertools
import json
import time
import urllib.request
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from relay import config
from relay.accounts import keys, users
from relay.store.database import Database
from tests.durability.process import Running
from tests.fakes.caller import BODY

SETTINGS = """
[server]
workers = 3
listen = ["127.0.0.1:0"]
timeouts = { drain = 30 }

[web]
sign_up = "open"
sign_up_work = 8

[responses]
store = "memory"

[pool]
wait = 10
"""
UNIX_SOCKET = "callers.sock"  # in its folder, beside the port
PLANS = """
[[plan]]
id = "open"
max_keys = 50

[[plan]]
id = "two"
limits = [{ requests = 2, per = "5h", refill = "window" }]

[[plan]]
id = "minute"
limits = [{ requests = 60, per = "1m", refill = "window" }]

[[plan]]
id = "three-at-once"
max_concurrency = 3
"""
# Each upstream's further settings; its model has its name.
UPSTREAMS: dict[str, str] = {
    "main": "",
    "spare": "priority = 1",
    "bounded": "max_concurrency = 4",
    "limited": 'limits = [{ requests = 20, per = "5h" }]',
    "used-up": 'limits = [{ requests = 20, per = "5h" }]',
    "cooling": "",
    "left": "",
    "right": "",
    "paused": "",
}
ROUTES: dict[str, list[str]] = {"both": ["left", "right"], "cool": ["cooling", "spare"]}
_SERVED = "claude-sonnet-4-7"

T = TypeVar("T")


def settings(simulator: str) -> str:
    """The text of relay.toml."""
    parts = [SETTINGS]
    for name, options in UPSTREAMS.items():
        parts.append(
            f'[[upstream]]\nname = "{name}"\nbase_url = "{simulator}"\n'
            f'api_key = "{name}"\n{options}'
        )
    for name, upstreams in {**{one: [one] for one in UPSTREAMS}, **ROUTES}.items():
        routes = ", ".join(f'{{ upstream = "{one}", model = "{_SERVED}" }}' for one in upstreams)
        parts.append(f'[[model]]\nid = "{name}"\nroutes = [{routes}]\n')
    return "\n".join([*parts, PLANS])


def body(model: str, text: str = "hi", **fields: Any) -> dict[str, Any]:
    """A request for a model."""
    return {**BODY, "model": model, "messages": [{"role": "user", "content": text}], **fields}


@dataclass
class Shared:
    """The relay, its folder, and the simulator behind all of its upstreams."""

    running: Running
    folder: Path
    simulator: str
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.running.port}"

    async def account(self, plan: str, count: int = 1) -> tuple[str, list[str]]:
        """The address and the keys of a new account."""
        email = f"caller{next(self._numbers)}@example.com"
        found = config.load(str(self.folder / "relay.toml"))
        database = await Database.open(self.folder / "relay.db")
        try:
            await users.create(database, found, email, plan=plan, is_admin=False, now=time.time())
            issued = [
                await keys.create(database, found, email, keys.KeyOptions(), now=time.time())
                for _ in range(count)
            ]
        finally:
            await database.close()
        return email, [one.key.reveal() for one in issued]

    async def key(self, plan: str = "open") -> str:
        """The key of a new account."""
        return (await self.account(plan))[1][0]

    # --- the simulator ---

    async def forget(self) -> None:
        """Let the simulator forget the requests that it has seen."""
        await self._control("DELETE", "requests")

    async def script(self, *scripts: str) -> None:
        """Have the simulator answer the next requests so."""
        await self._control("PUT", "script", json.dumps(scripts).encode())

    async def report(self) -> dict[str, Any]:
        """What the simulator has seen."""
        found: dict[str, Any] = json.loads(await self._control("GET", "requests"))
        return found

    async def reached(self) -> list[str]:
        """The upstreams that requests went to, one for each, in order."""
        return [dict(one["headers"])["x-api-key"] for one in (await self.report())["requests"]]

    async def _control(self, method: str, name: str, data: bytes | None = None) -> bytes:
        asked = urllib.request.Request(
            f"{self.simulator}/simulate/{name}", data=data, method=method
        )

        def ask() -> bytes:
            with contextlib.closing(urllib.request.urlopen(asked, timeout=10)) as answer:
                return bytes(answer.read())

        return await asyncio.to_thread(ask)


async def together(*work: Coroutine[Any, Any, T]) -> list[T]:
    """The results of all, at once."""
    return list(await asyncio.gather(*work))
