"""Caps on the cost of an upstream."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay import config
from relay.app import App
from relay.config import ConfigError
from relay.pool import clock
from relay.pool.spending import Spending
from tests.fakes.pool import PoolWith
from tests.fakes.until import until
from tests.gateway import metering
from tests.gateway.metering import PRICED

NOON = 1_775_649_600.0  # 2026-04-08
MIDNIGHT = 1_775_692_800.0
MAY = 1_777_593_600.0
DAY = 86_400.0


@given(
    costs=st.lists(st.tuples(st.floats(0, 5 * DAY), st.integers(1, 100)), max_size=20),
    day_cap=st.integers(0, 150),
    month_cap=st.integers(0, 300),
)
def test_a_cap_counts_its_own_day_and_month(
    costs: list[tuple[float, int]], day_cap: int, month_cap: int
) -> None:
    spending, now = Spending(), NOON
    spending.day_cap, spending.month_cap = day_cap, month_cap
    spent: list[tuple[float, int]] = []
    for pause, cost in costs:
        now += pause
        spending.add(cost, now)
        spent.append((now, cost))
        day = sum(one for at, one in spent if at // DAY == now // DAY)
        month = sum(one for at, one in spent if time.gmtime(at)[:2] == time.gmtime(now)[:2])
        view = spending.view(now)
        assert (view["day_micro"], view["month_micro"]) == (day, month)
        is_capped = 0 < day_cap <= day or 0 < month_cap <= month
        assert (spending.ready_at(now) > now) == is_capped


def test_costs_of_all_machines_are_no_less_than_ones_own() -> None:
    spending = Spending()
    spending.begin(9, 20, NOON)
    spending.reach(15, 26, NOON, NOON + 1)  # with those of others
    spending.add(2, NOON + 2)
    spending.reach(15, 26, NOON + 2, NOON + 2)  # the last one is not in the database yet
    assert (spending.day, spending.month) == (17, 28)
    spending.reach(18, 29, NOON + 3, NOON + 3)
    assert (spending.day, spending.month) == (18, 29)
    spending.reach(19, 30, MIDNIGHT - 1, MIDNIGHT)  # read before the day was over
    assert (spending.day, spending.month) == (0, 30)


def test_a_cap_says_when_it_has_room() -> None:
    spending = Spending()
    spending.day_cap, spending.month_cap = 10, 25
    spending.begin(9, 9, NOON)
    assert spending.ready_at(NOON) == NOON
    spending.add(3, NOON)
    assert spending.ready_at(NOON) == MIDNIGHT
    assert spending.ready_at(MIDNIGHT) == MIDNIGHT
    spending.add(13, MIDNIGHT)
    assert spending.ready_at(MIDNIGHT) == MAY


CAP = {"cost_cap": {"day": 0.000001}}


async def test_a_capped_upstream_leaves_its_requests_to_others(pool_with: PoolWith) -> None:
    pool = await pool_with({"a": {"priority": 0, **CAP}, "b": {"priority": 1}}, model=PRICED)
    relay = pool.relay
    assert (await metering.ask(relay))[0] == 200
    assert (await metering.ask(relay))[0] == 200
    rows = await metering.settled(relay, 2)
    assert [row["upstream"] for row in rows] == ["a", "b"]
    assert "its cost cap is reached until" in json.dumps(relay.log()[-1])
    view: dict[str, Any] = {str(row["name"]): row["cost"] for row in relay.app.upstreams.view()}
    assert view["a"] == {
        "day_micro": rows[0]["cost_micro"], "day_cap_micro": 1,
        "month_micro": rows[0]["cost_micro"], "month_cap_micro": 0,
    }  # fmt: skip
    assert view["b"]["day_micro"] == rows[1]["cost_micro"]


async def test_a_cap_on_the_only_upstream_says_until_when(pool_with: PoolWith) -> None:
    pool = await pool_with({"a": CAP}, model=PRICED)
    assert (await metering.ask(pool.relay))[0] == 200
    status, fields, body = await metering.ask(pool.relay)
    assert status == 503
    assert b"No upstream can serve this model before" in body
    wait = clock.now() // DAY * DAY + DAY - clock.now()
    assert abs(int(fields[b"retry-after"]) - wait) < 3


async def test_what_was_spent_is_known_after_a_restart(pool_with: PoolWith) -> None:
    pool = await pool_with({"a": {"cost_cap": {"month": 0.000001}}}, model=PRICED)
    relay = pool.relay
    await metering.ask(relay)
    [row] = await metering.settled(relay, 1)

    def summed() -> bool:
        with metering.beside(relay) as connection:
            found = connection.execute("SELECT cost_micro FROM upstream_day").fetchall()
            return [one["cost_micro"] for one in found] == [row["cost_micro"]]

    await until(summed)
    again = await App.start(relay.settings, log_fd=1)
    try:
        assert again.upstreams[0].spending.month == row["cost_micro"]
        assert again.upstreams[0].spending.ready_at(clock.now()) > clock.now()
    finally:
        await again.stop(0)


def test_a_capped_upstream_needs_prices() -> None:
    tree: dict[str, Any] = {
        "upstream": [{"name": "a", "base_url": "https://a.example", "api_key": "k", **CAP}],
        "model": [{"id": "m"}],
    }
    with pytest.raises(ConfigError, match=r"model\[0\].price: upstream 'a' has a cost_cap"):
        config.parse(tree)
    for wrong in ({}, {"day": 0}, {"month": -1}):
        tree["upstream"][0]["cost_cap"] = wrong
        with pytest.raises(ConfigError, match="cost_cap"):
            config.parse(tree)
