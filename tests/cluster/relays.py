"""Relays in processes of their own, each with its SQLite, that share a ledger."""

import asyncio
import contextlib
import itertools
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.durability.process import Running, data, relay, serving
from tests.fakes.caller import connected, read_answer, request
from tests.fakes.forty import FORTY
from tests.workers.processes import ask

# These tests count what the limits admit: the load of the machine is not to refuse anything.
SETTINGS = """
[server.limits]
loop_lag = 0

[[plan]]
id = "hourly"
limits = [{ requests = 40, per = "1h" }]

[[plan]]
id = "tokens"
limits = [{ tokens = 60000, per = "5h" }]

[[plan]]
id = "paced"
max_concurrency = 30
limits = [{ requests = 30, per = "1m" }]

[[plan]]
id = "mixed"
billing = "per-token"
limits = [
    { requests = 400, per = "5h" },
    { requests = 4000, per = "7d" },
    { requests = 60, per = "1m" },
]
"""


class Fleet:
    """The folders of some relays. Accounts and keys are made before `spread`, or while the first of
    them runs."""

    def __init__(self, home: Path, root: Path) -> None:
        self.home = home
        self._root = root
        self._numbers = itertools.count()
        self.folders: list[Path] = []
        path = home / "relay.toml"
        path.write_text(path.read_text() + SETTINGS + FORTY)

    def new_keys(self, plan: str, count: int = 1, *, credit: str = "") -> list[str]:
        """The keys of a new account, with so many dollars."""
        home = self.folders[0] if self.folders else self.home
        email = f"{plan}{next(self._numbers) or ''}@example.com"
        data(home, "user", "create", email, "--plan", plan)
        if credit:
            done = relay(home, "user", "credit", email, credit)
            assert done.returncode == 0, done.stderr
        return [data(home, "key", "create", "--user", email)["key"] for _ in range(count)]

    def spread(
        self, url: str, count: int, *, on_outage: str = "refuse", workers: int = 1
    ) -> list[Path]:
        """The folders of so many relays that share the ledger at `url`. The first has what was made
        so far, and is to start first."""
        text = (self.home / "relay.toml").read_text()
        if workers > 1:
            text = text.replace("[server]\n", f"[server]\nworkers = {workers}\n")
        for number in range(count):
            folder = self._root / f"node-{number}"
            folder.mkdir()
            ledger = f'[ledger]\nurl = "{url}"\non_outage = "{on_outage}"\nnode = "n{number}"\n'
            (folder / "relay.toml").write_text(f"{text}\n{ledger}")
            self.folders.append(folder)
        with (  # the others get its rows when they join
            contextlib.closing(sqlite3.connect(self.home / "relay.db")) as source,
            contextlib.closing(sqlite3.connect(self.folders[0] / "relay.db")) as target,
        ):
            source.backup(target)
        return self.folders


@dataclass(frozen=True)
class Three:
    """Three relays of one process each that run during many tests."""

    fleet: Fleet
    relays: list[Running]

    async def new_keys(self, plan: str, count: int = 1, *, credit: str = "") -> list[str]:
        """The keys of a new account, once every relay knows them; asking uses nothing."""
        keys = self.fleet.new_keys(plan, count, credit=credit)
        async with asyncio.timeout(20):
            for one in self.relays:
                for key in keys:
                    while await _listed(one, key) != 200:  # noqa: ASYNC110 - no event
                        await asyncio.sleep(0.02)
        return keys


async def _listed(running: Running, key: str) -> int:
    async with connected(running.port) as (reader, writer):
        writer.write(request(key, b"", method="GET", target="/v1/models"))
        return (await read_answer(reader))[0]


@contextlib.contextmanager
def all_serving(folders: Sequence[Path]) -> Iterator[list[Running]]:
    """All of them, until the end of the block."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(serving(folder)) for folder in folders]


async def ask_all(
    relays: Sequence[Running], keys: Sequence[str], *, connections: int = 20, each: int = 50
) -> Counter[int]:
    """Many callers at once at each relay, its connections divided among the keys."""
    statuses: Counter[int] = Counter()
    async with asyncio.TaskGroup() as group:
        for one in relays:
            for number in range(connections):
                group.create_task(ask(one.port, keys[number % len(keys)], each, statuses))
    return statuses


async def ask_until(
    relays: Sequence[Running], keys: Sequence[str], size: int, *, each: int = 50
) -> Counter[int]:
    """As `ask_all`, then on until so many were admitted, and a little more. While a relay is slow
    to give back its unused leases, others refuse for up to a second."""
    statuses = await ask_all(relays, keys, each=each)
    async with asyncio.timeout(20):
        while statuses[200] < size:
            statuses += await ask_all(relays, keys, connections=1, each=1)
    return statuses + await ask_all(relays, keys, connections=4, each=2)


async def ask_once(
    running: Running, key: str, *, fields: str = ""
) -> tuple[int, dict[bytes, bytes], bytes]:
    """One request, with these field lines: status, header fields and body."""
    async with connected(running.port) as (reader, writer):
        writer.write(request(key, fields=fields))
        return await read_answer(reader)
