"""Resets and bonuses of windows, as a running relay applies them."""

import time

import pytest

from relay.accounts import InvalidError, windows
from relay.store.database import Database
from tests.fakes.live import EMAIL, Live, RelayWith
from tests.fakes.until import until
from tests.gateway import metering
from tests.gateway.metering import left

LIMITS = ({"requests": 4, "per": "5h"}, {"requests": 9, "per": "7d"}, {"requests": 60, "per": "1m"})
PLANS = [metering.plan(*LIMITS), metering.plan(*LIMITS, enforce="account")]
RESET = b"x-ratelimit-reset"
WEEK = b"anthropic-ratelimit-unified-7d-utilization"


async def reset(relay: Live, window: str = "5h") -> None:
    """As the command line does: over another connection."""
    other = await Database.open(relay.settings.database.path)
    try:
        await windows.reset_window(other, relay.settings, EMAIL, window, time.time())
    finally:
        await other.close()


def pending(relay: Live) -> int:
    with metering.beside(relay) as connection:
        query = "SELECT count(*) FROM adjustment WHERE applied_at IS NULL"
        return int(connection.execute(query).fetchone()[0])


@pytest.mark.parametrize("plan", PLANS, ids=["key", "account"])
async def test_a_reset_takes_effect_within_a_second(relay_with: RelayWith, plan: object) -> None:
    relay = await relay_with(plan=plan)
    before = [await metering.ask(relay) for _ in range(5)]
    assert [status for status, _, _ in before] == [200] * 4 + [429]
    await reset(relay)
    await until(lambda: not pending(relay), within=1)
    status, fields, _ = await metering.ask(relay)
    assert (status, left(fields)) == (200, 3)
    assert fields[RESET] == before[0][1][RESET]  # the anchor stays
    assert fields[WEEK] == b"0.555"  # five of nine: the other window is untouched


async def test_a_bonus_is_shown_and_granted(relay_with: RelayWith) -> None:
    relay = await relay_with(plan=PLANS[1])
    await metering.ask(relay)
    await windows.give_bonus(
        relay.app.database, relay.settings, EMAIL, bonus=("5h", 2, 1), now=time.time()
    )
    await relay.app.refresh()
    answers = [await metering.ask(relay) for _ in range(6)]
    assert [status for status, _, _ in answers] == [200] * 5 + [429]
    assert [left(fields) for _, fields, _ in answers] == [4, 3, 2, 1, 0, 0]
    assert answers[0][1][b"x-ratelimit-limit"] == b"6"


async def test_a_wrong_window_is_refused_with_those_that_exist(relay_with: RelayWith) -> None:
    relay = await relay_with(plan=PLANS[1])
    database, settings = relay.app.database, relay.settings
    with pytest.raises(InvalidError, match="it has 4 requests per 5 hours, 9 requests per week"):
        await windows.reset_window(database, settings, EMAIL, "6h", 1.0)
    with pytest.raises(InvalidError, match="no duration"):
        await windows.reset_window(database, settings, EMAIL, "requests", 1.0)
    for bonus, words in ((("1m", 5, 1), "no windows"), (("5h", 0, 1), "from 1 to")):
        with pytest.raises(InvalidError, match=words):
            await windows.give_bonus(database, settings, EMAIL, bonus=bonus, now=1.0)
