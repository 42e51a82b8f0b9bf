"""A node admits at once from its leases, and what it does not use comes back to the others."""

import asyncio
import sqlite3
import time

import psycopg
import pytest

from relay.cluster.node import ClusterNode, engine_figures
from relay.cluster.waiting import LimitReachedError
from relay.cluster.windows import Held, SharedLimit, window_name
from tests.cluster.nodes import FIVE_HOURS, HOUR, burst, outcome, running_node
from tests.cluster.postgres import Postgres
from tests.fakes.pool import PoolWith
from tests.fakes.until import until
from tests.gateway.metering import PRICED
from tests.scoreboard import RecordProperty

TOKENS = (SharedLimit("key", "tokens", 5 * HOUR, 1_000),)
BALANCE = (SharedLimit("account", "money", 0, 1_000_000),)


async def hold(node: ClusterNode, plan: tuple[SharedLimit, ...], amount: int = 0) -> Held:
    """A request that was admitted."""
    return await node.limits.reserve("a", "k", plan, amount, amount)


async def known(node: ClusterNode, plan: tuple[SharedLimit, ...]) -> None:
    """Wait until the engine knows what the node has used."""
    window = node.limits.windows[window_name(plan[0], "a", "k")]
    await until(lambda: window.reported == window.leased.used and not window.claimed)


async def test_a_lease_with_room_admits_without_a_wait(postgres: Postgres, database: str) -> None:
    plan = (SharedLimit("key", "requests", 5 * HOUR, 4000),)
    async with running_node(postgres.url(database)) as node:
        assert node.limits.try_reserve("a", "k", plan) is None
        for _ in range(300):  # the demand grows, and so do the leases
            await hold(node, plan)
        calls = node.figures.calls
        admitted = 0
        while node.limits.try_reserve("a", "k", plan) is not None:
            admitted += 1
        assert admitted >= 10
        assert node.figures.calls == calls


async def test_a_refusal_names_the_limit_that_resets_last(
    postgres: Postgres, database: str
) -> None:
    week = SharedLimit("key", "requests", 168 * HOUR, 2)
    plan = (SharedLimit("key", "requests", 5 * HOUR, 2), week)
    async with running_node(postgres.url(database)) as node:
        assert await burst(node.limits, plan, 2) == {"admitted": 2}
        for _ in range(2):  # after a claim, and at once
            with pytest.raises(LimitReachedError) as refused:
                await hold(node, plan)
            assert refused.value.limit == week
            assert 0 <= 168 * HOUR * 1000 - refused.value.reset_in < 10_000


async def test_a_refunded_request_is_free_on_every_node(postgres: Postgres, database: str) -> None:
    url = postgres.url(database)
    async with running_node(url, "a") as a, running_node(url, "b") as b:
        held = [await hold(a, FIVE_HOURS) for _ in range(40)]
        assert await outcome(b.limits, FIVE_HOURS) == "refused"
        for one in held[:3]:
            assert a.limits.refund(one)
            assert not a.limits.refund(one)
        await known(a, FIVE_HOURS)
        await asyncio.sleep(0.25)  # a refusal holds so long
        assert await burst(b.limits, FIVE_HOURS, 10) == {"admitted": 3, "refused": 7}


async def test_tokens_are_settled_with_the_difference(postgres: Postgres, database: str) -> None:
    async with running_node(postgres.url(database)) as node:
        held = await hold(node, TOKENS, 600)
        node.limits.settle(held, tokens=100)
        held = await hold(node, TOKENS, 900)  # 900 of them are left
        node.limits.settle(held, tokens=1_400)  # more than there was: a debt
        assert await outcome(node.limits, TOKENS, tokens=1) == "refused"
        [state] = node.limits.view("a", "k", TOKENS)
        assert state.remaining == 0


async def test_a_balance_pays_for_what_it_covers(postgres: Postgres, database: str) -> None:
    url = postgres.url(database)
    async with running_node(url, "a") as a, running_node(url, "b") as b:
        one, two = await hold(a, BALANCE, 700_000), await hold(b, BALANCE, 300_000)
        assert await outcome(b.limits, BALANCE, cost=1) == "refused"
        a.limits.settle(one, cost=650_000)
        b.limits.settle(two, cost=0)
        await asyncio.sleep(0.25)
        assert await outcome(b.limits, BALANCE, cost=350_001) == "refused"
        await hold(a, BALANCE, 350_000)
        more = (BALANCE[0]._replace(size=1_200_000),)  # paid in
        await asyncio.sleep(0.25)
        await hold(b, more, 200_000)
        assert await outcome(b.limits, more) == "refused"  # nothing is left, for nothing at all


async def test_a_recall_brings_back_what_is_unused(
    postgres: Postgres, database: str, record_property: RecordProperty
) -> None:
    url = postgres.url(database)
    times = []
    async with running_node(url, "a") as a, running_node(url, "b") as b:
        for number in range(10):
            asker, holder = (a, b) if number % 2 else (b, a)
            holder.limits.refund(await holder.limits.reserve("a", "k", TOKENS, 1_000))
            await known(holder, TOKENS)
            started = time.monotonic()
            held = await asker.limits.reserve("a", "k", TOKENS, 1_000)
            times.append((time.monotonic() - started) * 1000)
            asker.limits.refund(held)
        assert a.figures.recalled + b.figures.recalled >= 9
    times.sort()
    record_property("figure", f"recall p50 {times[5]:.0f} ms, longest {times[-1]:.0f} ms")
    assert times[5] <= 250


async def test_of_two_nodes_that_need_each_others_rest_one_wins(
    postgres: Postgres, database: str
) -> None:
    url = postgres.url(database)
    async with running_node(url, "a") as a, running_node(url, "b") as b:
        held = [await it.limits.reserve("a", "k", TOKENS, 490) for it in (a, b)]
        for node, first in zip((a, b), held, strict=True):
            node.limits.refund(first)
            await known(node, TOKENS)
        done = await asyncio.gather(*[outcome(it.limits, TOKENS, tokens=700) for it in (a, b)])
        assert sorted(isinstance(one, Held) for one in done) == [False, True]


async def test_a_refusal_waits_a_quarter_second_at_most(
    postgres: Postgres, database: str, connection: psycopg.AsyncConnection[tuple[object, ...]]
) -> None:
    """A node that holds the rest and does not answer."""
    async with running_node(postgres.url(database)) as node:
        await hold(node, FIVE_HOURS)
        await connection.execute(
            "INSERT INTO relay.lease SELECT name, 'mute/1', 1, 0, 38, relay.now_ms() + 10000, false"
            " FROM relay.quota_window"
        )
        await outcome(node.limits, FIVE_HOURS)
        started = time.monotonic()
        counts = await burst(node.limits, FIVE_HOURS, 100)
        assert counts == {"refused": 100}
        assert 0.2 <= time.monotonic() - started <= 2.0  # of which a busy machine takes the most
        started = time.monotonic()
        assert await outcome(node.limits, FIVE_HOURS) == "refused"
        assert time.monotonic() - started < 0.2  # a moment ago it was asked for all


async def test_a_caller_who_leaves_while_it_waits_uses_nothing(
    postgres: Postgres, database: str
) -> None:
    plan = (SharedLimit("key", "requests", 5 * HOUR, 400),)
    async with running_node(postgres.url(database)) as node:
        waiting = [asyncio.create_task(hold(node, plan)) for _ in range(300)]
        await until(lambda: node.figures.admitted >= 5)
        for task in waiting[::2]:
            task.cancel()
        done = await asyncio.gather(*waiting, return_exceptions=True)
        kept = sum(isinstance(one, Held) for one in done)
        assert 150 <= kept < 300
        assert await burst(node.limits, plan, 400) == {"admitted": 400 - kept, "refused": kept}


async def test_a_changed_limit_holds_at_once(postgres: Postgres, database: str) -> None:
    url = postgres.url(database)
    smaller, larger = ((FIVE_HOURS[0]._replace(size=size),) for size in (20, 50))
    async with running_node(url, "a") as a, running_node(url, "b") as b:
        assert await burst(a.limits, FIVE_HOURS, 30) == {"admitted": 30}
        a.limits.windows["key/k/requests/18000"].leased.release(a.limits.clock())
        # Leases that are out stand: at most a twentieth of the window.
        counts = await burst(b.limits, smaller, 40)
        assert counts["admitted"] <= 2
        counts += await burst(a.limits, larger, 40)
        assert counts["admitted"] == 20


async def test_an_idle_lease_goes_back_by_itself(
    postgres: Postgres, database: str, connection: psycopg.AsyncConnection[tuple[object, ...]]
) -> None:
    """Within ten to twenty seconds without a request, here less by a shorter memory of demand."""
    url = postgres.url(database)
    async with running_node(url) as node:
        node.limits.refund(await hold(node, TOKENS, 1_000))
        assert node.view().unused == 1_000
        window = node.limits.windows["key/k/tokens/18000"]
        window.leased._slot -= 2  # as if the request had come twenty seconds earlier
        await until(lambda: node.view().unused == 0 and not window.claimed)
        assert (await engine_figures(url)).unused == 0
        rows = await (await connection.execute("SELECT ends FROM relay.quota_window")).fetchall()
        assert rows == [(0,)]  # nothing was used, so the window has closed


async def test_a_node_that_stops_gives_all_back(postgres: Postgres, database: str) -> None:
    url = postgres.url(database)
    async with running_node(url, "a") as a:
        await hold(a, TOKENS, 300)
        a.limits.refund(await hold(a, TOKENS, 700))
        assert a.view().unused >= 700
    figures = await engine_figures(url)
    assert (figures.unused, figures.leases) == (0, 0)
    async with running_node(url, "b") as b:
        await hold(b, TOKENS, 700)
        assert await outcome(b.limits, TOKENS, tokens=1) == "refused"


async def test_figures_say_what_is_out(postgres: Postgres, database: str) -> None:
    url = postgres.url(database)
    async with running_node(url, "a") as a, running_node(url, "b"):
        await until(lambda: a.limits.nodes == 2)
        a.limits.refund(await hold(a, TOKENS, 800))
        view = a.view()
        assert (view.leases, view.unused, view.nodes, view.away_for) == (1, 800, 2, 0)
        assert view.counters["admitted"] == view.counters["waited"] == 1
        assert 0 < view.counters["lag"] < 1
        figures = await engine_figures(url)
        assert (figures.nodes, figures.windows, figures.unused) == (2, 1, 800)


async def test_a_cost_cap_counts_what_other_relays_spend(
    pool_with: PoolWith, postgres: Postgres, database: str
) -> None:
    url = postgres.url(database)
    cap = {"a": {"cost_cap": {"day": 1.0}}}
    pool = await pool_with(cap, model=PRICED, ledger={"url": url, "node": "a"})
    app, day = pool.relay.app, int(time.time()) // 86_400 * 86_400
    [upstream] = list(app.upstreams)

    def insert(connection: sqlite3.Connection) -> None:
        """As the rows of another relay are summed up."""
        connection.execute(
            "INSERT INTO upstream_day (day, upstream, requests, tokens, cost_micro)"
            " VALUES (?, 'a', 1, 1, 1000000)",
            (day,),
        )

    await app.database.write(insert)
    now = app.upstreams.now
    await until(lambda: upstream.spending.ready_at(now()) > now(), within=30)
