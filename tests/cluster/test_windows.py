"""Windows that end with the calendar or a plan, or that an administrator changes."""

import time

import pytest

from relay.cluster.calls import WindowChange
from relay.cluster.windows import SharedLimit
from relay.quota.bucket import calendar_period
from tests.cluster.nodes import FIVE_HOURS, burst, outcome, running_node
from tests.cluster.postgres import Postgres

NAME = "key/k/requests/18000"
LENGTH = 18_000_000


@pytest.mark.parametrize("unit", ["day", "week", "month"])
async def test_a_window_ends_with_the_calendar(
    postgres: Postgres, database: str, unit: str
) -> None:
    limits = (SharedLimit("spending", "money", 31 * 86400, 1000, unit),)  # type: ignore[arg-type]
    async with running_node(postgres.url(database)) as node:
        await node.limits.reserve("a", "k", limits, 0, 10)
        [state] = node.limits.view("a", "k", limits)
    now = int(time.time() * 1000)
    assert abs(now + state.reset_in - calendar_period(unit, now)[1]) < 2_000
    assert state.remaining <= 990


async def test_no_window_outlasts_a_plan(postgres: Postgres, database: str) -> None:
    until = int(time.time() * 1000) + 60_000
    limits = (FIVE_HOURS[0]._replace(until=until),)
    async with running_node(postgres.url(database)) as node:
        await node.limits.reserve("a", "k", limits)
        [state] = node.limits.view("a", "k", limits)
        assert 50_000 < state.reset_in <= 60_000
        # A renewal leaves the window that is open as it is.
        later = (FIVE_HOURS[0]._replace(until=until + 10**9),)
        assert node.limits.view("a", "k", later)[0].reset_in <= 60_000


async def test_a_window_begins_with_its_earlier_use(postgres: Postgres, database: str) -> None:
    ends = int(time.time() * 1000) + 60_000
    limits = (FIVE_HOURS[0]._replace(seed=30, seed_ends=ends),)
    async with (
        running_node(postgres.url(database), "a") as first,
        running_node(postgres.url(database), "b") as second,
    ):
        done = await burst(first.limits, limits, 8)
        done += await burst(second.limits, limits, 8)
        assert done == {"admitted": 10, "refused": 6}
        assert first.limits.view("a", "k", limits)[0].reset_in <= 60_000


async def test_a_change_of_a_window_counts_once(postgres: Postgres, database: str) -> None:
    async with (
        running_node(postgres.url(database), "a") as first,
        running_node(postgres.url(database), "b") as second,
    ):
        assert await burst(first.limits, FIVE_HOURS, 45) == {"admitted": 40, "refused": 5}
        bonus = WindowChange("1", "bonus", [(NAME, LENGTH)], 5, 1)
        await first.adjust(bonus)
        await second.adjust(bonus)
        assert await burst(second.limits, FIVE_HOURS, 10) == {"admitted": 5, "refused": 5}
        reset = WindowChange("2", "reset", [(NAME, LENGTH)])
        await first.adjust(reset)
        assert await burst(first.limits, FIVE_HOURS, 45) == {"admitted": 40, "refused": 5}
        await second.adjust(reset)
        assert await outcome(second.limits, FIVE_HOURS) == "refused"
        await second.adjust(WindowChange("3", "renew", [("key/k/", 0)]))
        while await outcome(second.limits, FIVE_HOURS) == "refused":  # for a quarter of a second
            pass
        assert await burst(second.limits, FIVE_HOURS, 45) == {"admitted": 39, "refused": 6}
