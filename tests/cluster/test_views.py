"""Whoever asks a relay how limits stand sees the use on all of them, as of this moment."""

import asyncio
import json
import time
from typing import Any

import psycopg
import pytest

from relay.cluster import views
from relay.cluster.calls import WindowChange
from relay.cluster.joining import shared_ledger
from relay.cluster.ledger import ClusterLedger
from relay.cluster.node import ClusterNode
from relay.cluster.reservations import NoLeaseError
from relay.quota.ledger import Ledger
from relay.quota.plans import Plan
from relay.quota.state import Reservation
from relay.quota.windows import WindowView, windows
from tests.cluster.nodes import Wire, running_node
from tests.cluster.postgres import Postgres
from tests.cluster.relays import Fleet, all_serving, ask_all
from tests.durability.process import Running
from tests.fakes.caller import connected, read_answer, request
from tests.fakes.until import until
from tests.quota.plans import plan as new_plan


def stacked() -> Plan:
    return new_plan({"requests": 400, "per": "5h"}, {"requests": 4000, "per": "7d"})


async def admit(
    ledger: ClusterLedger, plan: Plan, count: int = 1, cost: int = 0, key: str = "k"
) -> list[Reservation]:
    """So many requests, one after the other."""
    found: list[Reservation] = []
    while len(found) < count:
        try:
            found.append(ledger.reserve("usr", key, plan, time.time(), 0, cost))
        except NoLeaseError as missing:
            ledger.grant(missing, await ledger.claim(missing))
            found.append(ledger.reserve("usr", key, plan, time.time(), 0, cost))
    return found


async def seen(ledger: Ledger, plan: Plan, key: str = "k") -> list[WindowView]:
    await ledger.refresh([(plan, key)], time.time())
    return windows(ledger, key, plan, time.time())


async def used(ledger: Ledger, plan: Plan) -> list[int]:
    return [one.used for one in await seen(ledger, plan)]


def ledgers(*nodes: ClusterNode) -> list[ClusterLedger]:
    return [shared_ledger(node) for node in nodes]


async def usage(running: Running, key: str) -> Any:
    """The document of /v1/usage."""
    async with connected(running.port) as (reader, writer):
        writer.write(request(key, b"", target="/v1/usage", method="GET"))
        status, _, body = await read_answer(reader)
    assert status == 200, body
    return json.loads(body)


async def until_paced(running: Running, key: str) -> None:
    """Wait until a relay has its part of the limit per minute."""
    async with asyncio.timeout(10):
        while (await usage(running, key))["limits"][2]["limit"] != 30:  # noqa: ASYNC110 - no event says so
            await asyncio.sleep(0.1)


async def test_each_relay_shows_the_use_of_all(
    fleet: Fleet, postgres: Postgres, database: str
) -> None:
    [key] = fleet.new_keys("mixed", credit="1")
    with all_serving(fleet.spread(postgres.url(database), 2)) as relays:
        await until_paced(relays[1], key)
        statuses = await ask_all(relays[:1], [key], connections=3, each=3)
        async with asyncio.timeout(10):  # the first look may be at figures of a second ago
            while (await usage(relays[1], key))["limits"][0]["used"] != 9:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        hours, week, pace = (await usage(relays[1], key))["limits"]
        assert hours["used"] == week["used"] == statuses[200] == 9
        assert (hours["remaining"], week["remaining"]) == (391, 3991)
        assert pace["name"] == "30 requests per minute"
        assert (pace["used"], pace["limit"], pace["remaining"]) == (0, 30, 30)
        balances = [(await usage(one, key))["balance_usd"] for one in relays]
        assert balances[0] == balances[1] < 1


async def test_parts_are_shown_as_limits(postgres: Postgres, database: str) -> None:
    url, plan = postgres.url(database), new_plan({"requests": 60, "per": "1m"})
    async with running_node(url, "a") as a, running_node(url, "b") as b:
        one, two = ledgers(a, b)
        await until(lambda: a.limits.nodes == b.limits.nodes == 2)
        reservations = await admit(one, plan, 2)
        assert len(reservations) == 2
        [pace] = await seen(two, plan)
        assert (pace.size, pace.used, pace.remaining) == (30, 0, 30)
        [pace] = await seen(one, plan)
        assert (pace.size, pace.used + pace.remaining) == (30, 30)


async def test_all_nodes_show_the_use_of_all(postgres: Postgres, database: str) -> None:
    url, plan = postgres.url(database), stacked()
    async with running_node(url, "a") as a, running_node(url, "b") as b:
        one, two = ledgers(a, b)
        await admit(one, plan, 7)
        assert await used(two, plan) == [7, 7]  # it has served none of them
        hours, week = await seen(two, plan)
        assert (hours.remaining, week.remaining) == (393, 3993)
        assert hours.reset is not None
        assert 0 < hours.reset - time.time() <= 5 * 3600
        await admit(two, plan, 3)
        assert await used(one, plan) == [10, 10]
        assert await used(two, plan) == [10, 10]  # within a second: with its own use since


async def test_views_of_a_second_ask_once(
    postgres: Postgres, database: str, connection: psycopg.AsyncConnection[Any]
) -> None:
    url, plan = postgres.url(database), stacked()
    async with running_node(url, "a") as a, running_node(url, "b") as b:
        one, two = ledgers(a, b)
        await admit(one, plan, 2)
        assert await used(two, plan) == [2, 2]
        await connection.execute("DELETE FROM relay.quota_window")
        assert await used(two, plan) == [2, 2]


async def test_a_view_without_postgres_shows_what_is_known(
    postgres: Postgres, database: str
) -> None:
    plan = stacked()
    async with (
        Wire(postgres.port) as wire,
        running_node(postgres.url(database, wire.port)) as node,
    ):
        [ledger] = ledgers(node)
        await admit(ledger, plan, 2)
        wire.drop()
        started = time.monotonic()
        assert [one.used >= 2 for one in await seen(ledger, plan)] == [True, True]
        assert time.monotonic() - started < 5  # half a second, on a machine that has time
        wire.restore()


async def test_a_bonus_and_a_reset_are_shown_everywhere(postgres: Postgres, database: str) -> None:
    url, plan = postgres.url(database), stacked()
    window = [("key/k/requests/18000", 18_000_000)]
    async with running_node(url, "a") as a, running_node(url, "b") as b:
        one, two = ledgers(a, b)
        await admit(one, plan, 2)
        await a.adjust(WindowChange("1", "bonus", window, 5, 1))
        hours, _ = await seen(two, plan)
        assert (hours.size, hours.remaining) == (405, 403)
        await a.adjust(WindowChange("2", "reset", window))
        hours, week = await seen(one, plan)
        assert (hours.used, week.used) == (0, 2)


async def test_a_balance_is_shown_less_all_charges(postgres: Postgres, database: str) -> None:
    url, plan = (
        postgres.url(database),
        new_plan({"requests": 400, "per": "5h"}, billing="per-token"),
    )
    async with running_node(url, "a") as a, running_node(url, "b") as b:
        one, two = ledgers(a, b)
        for ledger in (one, two):
            ledger.fund("usr", 1_000_000)
        for ledger, cost in ((one, 200), (one, 40), (two, 7)):
            [reservation] = await admit(ledger, plan, cost=cost)
            ledger.settle(reservation, time.time(), 0, cost)
        await admit(two, plan, cost=500)  # in flight
        for ledger in (one, two):
            await ledger.refresh([(plan, "k")], time.time(), "usr")
        assert two.amount(two.balance("usr")) == 1_000_000 - 247
        assert one.amount(one.balance("usr")) == 1_000_000 - 747


async def test_views_of_many_keys_at_once_are_bounded(
    postgres: Postgres, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of windows that nobody has room for, this relay's own use is shown."""
    monkeypatch.setattr(views, "_MAX_HELD", 4)
    url, plan, keys = postgres.url(database), stacked(), ["k1", "k2", "k3", "k4", "k5"]
    async with running_node(url, "a") as a, running_node(url, "b") as b:
        one, two = ledgers(a, b)
        for key in keys:
            await admit(one, plan, 2, key=key)
        at_once = await asyncio.gather(*(seen(two, plan, key) for key in keys))
        uses = sorted([window.used for window in found] for found in at_once)
        assert uses == [[0, 0]] * 3 + [[2, 2]] * 2
        for key in keys:
            assert [window.used for window in await seen(two, plan, key)] == [2, 2]
            assert len(b.views._known) <= 4
