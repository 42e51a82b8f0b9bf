"""Claims on the same windows at once end in no deadlock and leave no window exceeded."""

import asyncio
import random
from typing import Any

import psycopg
import pytest

from relay.cluster.calls import WindowClaim, acquire
from relay.quota.share.claims import Claim
from relay.quota.share.leased_window import LeasedWindow
from tests.cluster.postgres import Postgres

NAMES = [f"key/k{number}/requests/18000" for number in range(6)]
SIZE = 60
PER = 18_000_000


class Caller:
    """A node that claims for random sets of windows, in a random order, and admits what it may."""

    def __init__(self, name: str, connection: psycopg.AsyncConnection[Any]) -> None:
        self.random = random.Random(name)
        self.connection = connection
        self.windows = {it: LeasedWindow(f"{name}/1", SIZE) for it in NAMES}
        self.admitted = dict.fromkeys(NAMES, 0)

    async def call(self) -> None:
        chosen = self.random.sample(NAMES, 4)
        claims = {name: self.windows[name].claim(0, need=1) for name in chosen}
        requests = [
            [WindowClaim(name, SIZE, PER, claims[name]) for name in part]
            for part in (chosen[:1], chosen[1:3], chosen[3:])
        ]
        answers = await acquire(self.connection, "n", 0, requests)
        for request, grants in zip(requests, answers.grants, strict=True):
            for claim, grant in zip(request, grants, strict=True):
                self.windows[claim.window].granted(grant)
        for name, window in self.windows.items():
            while window.take(1, 0):
                self.admitted[name] += 1


@pytest.mark.parametrize("calls", [40, pytest.param(1_000, marks=pytest.mark.thorough)])
async def test_crossing_claims_neither_block_nor_exceed(
    postgres: Postgres, database: str, calls: int
) -> None:
    url = postgres.socket_url(database)
    opened = [await psycopg.AsyncConnection.connect(url, autocommit=True) for _ in range(9)]
    *connections, watch = opened
    callers = [Caller(f"n{number}", it) for number, it in enumerate(connections)]

    async def work(caller: Caller) -> None:
        for _ in range(calls):
            await caller.call()

    async def look() -> None:
        while True:
            cursor = await watch.execute(
                "SELECT window_name, sum(greatest(used, ceiling)) FROM relay.lease GROUP BY 1"
            )
            assert all(total <= SIZE for _, total in await cursor.fetchall())
            await asyncio.sleep(0.001)

    looking = asyncio.create_task(look())
    async with asyncio.timeout(60):
        await asyncio.gather(*[work(caller) for caller in callers])
    assert not looking.done()  # in every committed state
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)
    for name in NAMES:
        assert sum(caller.admitted[name] for caller in callers) == SIZE
    for one in opened:
        await one.close()


async def test_no_claims_are_a_call_too(postgres: Postgres, database: str) -> None:
    async with await psycopg.AsyncConnection.connect(
        postgres.socket_url(database), autocommit=True
    ) as connection:
        assert (await acquire(connection, "n", 0, [])).grants == []


async def test_a_request_is_granted_in_all_windows_or_none(
    postgres: Postgres, database: str
) -> None:
    async with await psycopg.AsyncConnection.connect(
        postgres.socket_url(database), autocommit=True
    ) as connection:
        full = WindowClaim("b", 5, PER, Claim("n/1", 1, 0, 0, 0, 0, 5))
        await acquire(connection, "n", 0, [[full]])
        both = [WindowClaim(name, 5, PER, Claim("m/1", 1, 0, 0, 0, 1, 1)) for name in "ab"]
        answers = await acquire(connection, "m", 0, [both, both[:1]])
        assert [[it.ceiling for it in one] for one in answers.grants] == [[0, 0], [1]]
