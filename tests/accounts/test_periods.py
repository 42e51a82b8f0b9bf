import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay import config
from relay.accounts import AccountError, InvalidError, keys, periods, users
from relay.store import audit
from relay.store.adjustments import pending
from relay.store.database import Database
from relay.store.keys import live_keys
from relay.store.periods import NewPeriod, end_due
from tests.fakes.live import EMAIL, RelayWith
from tests.gateway import metering
from tests.gateway.metering import left, moment

SETTINGS = config.parse(
    {"plan": [{"id": "free", "max_keys": 1}, {"id": "pro", "max_keys": 2}, {"id": "max"}]}
)
DAY = 86_400
NOW = 1_000_000.0


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = await Database.open(tmp_path / "relay.db")
    await users.create(database, SETTINGS, EMAIL, plan="free", is_admin=False, now=1.0)
    yield database
    await database.close()


def month(plan: str = "pro", then: str = "free", seconds: int = 30 * DAY) -> NewPeriod:
    return NewPeriod(plan, seconds, then, "test")


async def test_a_period_ends_with_the_stated_plan(database: Database) -> None:
    user = await periods.start(database, SETTINGS, EMAIL, month(then="max"), NOW)
    end = NOW + 30 * DAY
    assert (user.plan_until, user.plan_at(end - 0.001), user.plan_at(end)) == (end, "pro", "max")
    assert await end_due(database, end - 0.001) == 0
    assert await end_due(database, end) == 1
    after = await users.find(database, EMAIL)
    assert (after.plan, after.plan_until, after.plan_then) == ("max", None, None)
    [entry] = await audit.entries(database, limit=1)
    assert (entry.action, entry.actor) == ("plan.end", "relay")


async def test_an_extension_adds_to_the_end(database: Database) -> None:
    await periods.start(database, SETTINGS, EMAIL, month(), NOW)
    user = await periods.extend(database, SETTINGS, EMAIL, DAY, NOW + 10)
    assert user.plan_until == NOW + 31 * DAY
    with pytest.raises(AccountError, match="relay user start-plan"):
        await periods.extend(database, SETTINGS, EMAIL, DAY, NOW + 31 * DAY)


async def test_two_extensions_at_once_both_count(database: Database) -> None:
    await periods.start(database, SETTINGS, EMAIL, month(), NOW)
    await asyncio.gather(
        *(periods.extend(database, SETTINGS, EMAIL, DAY, NOW + 10) for _ in range(5))
    )
    assert (await users.find(database, EMAIL)).plan_until == NOW + 35 * DAY


async def test_a_new_beginning_replaces_the_period_and_its_windows(database: Database) -> None:
    await periods.start(database, SETTINGS, EMAIL, month(), NOW)
    user = await periods.start(database, SETTINGS, EMAIL, month("max"), NOW + DAY)
    assert (user.plan, user.plan_until) == ("max", NOW + 31 * DAY)
    waiting = await pending(database, NOW)
    assert [one.adjustment.kind for one in waiting] == ["renew", "renew"]


async def test_another_plan_without_a_period_has_no_end(database: Database) -> None:
    await periods.start(database, SETTINGS, EMAIL, month(), NOW)
    user = await users.set_plan(database, SETTINGS, EMAIL, "max")
    assert (user.plan, user.plan_until, user.plan_then) == ("max", None, None)


@pytest.mark.parametrize(
    "new", [month("none"), month(then="none"), month(seconds=0), month(seconds=4000 * DAY)]
)
async def test_a_wrong_period_is_refused(database: Database, new: NewPeriod) -> None:
    with pytest.raises(InvalidError):
        await periods.start(database, SETTINGS, EMAIL, new, NOW)


async def test_the_present_plan_says_how_many_keys_there_may_be(database: Database) -> None:
    await periods.start(database, SETTINGS, EMAIL, month(), NOW)
    for _ in range(2):
        await keys.create(database, SETTINGS, EMAIL, keys.KeyOptions(), now=NOW)
    with pytest.raises(AccountError, match="plan 'free' allows"):
        await keys.create(database, SETTINGS, EMAIL, keys.KeyOptions(), now=NOW + 31 * DAY)


PLANS = [
    {"id": "free", "name": "Free", "limits": [{"requests": 2, "per": "5h"}], "max_keys": 9},
    {"id": "pro", "name": "Pro", "limits": [{"requests": 5, "per": "5h"}], "max_keys": 9},
]


async def test_the_plan_of_requests_changes_at_its_moment(relay_with: RelayWith) -> None:
    """No window outlasts the period, and the plan that follows has windows of its own."""
    relay = await relay_with(plan=PLANS)
    await metering.ask(relay)
    began = time.time()
    await periods.start(relay.app.database, relay.settings, EMAIL, month(seconds=2), began)
    await relay.app.refresh()
    status, fields, _ = await metering.ask(relay)
    assert (status, fields[b"x-ratelimit-limit"], left(fields)) == (200, b"5", 4)
    assert abs(moment(fields[b"x-ratelimit-reset"]) - (began + 2)) < 0.002
    await asyncio.sleep(max(0.0, began + 2.001 - time.time()))
    status, fields, _ = await metering.ask(relay)
    assert (status, fields[b"x-ratelimit-limit"], left(fields)) == (200, b"2", 1)
    assert moment(fields[b"x-ratelimit-reset"]) > time.time() + 17_000
    [live] = await live_keys(relay.app.database)
    assert live.plan_at(time.time()) == "free"
