"""How models have answered, by day: failures, and the time to the first octet."""

from typing import Any

import pytest

from relay.store import answers, usage
from relay.store.answers import TOTAL, Answers
from relay.store.database import Database, migrations
from tests.store.entries import NOON, admission, journalled, rows

DAY = 86_400
TODAY = int(NOON) // DAY * DAY
MODEL = "claude-sonnet-4-7"
NAMES = {MODEL: MODEL, "house": MODEL, "claude-haiku-4-5": "claude-haiku-4-5"}


async def request(database: Database, **changes: Any) -> None:
    """A request; `time` and `model` are its admission's, the rest is its settlement's."""
    of_admission = {name: changes.pop(name) for name in ("time", "model") if name in changes}
    await journalled(database, admission(**of_admission), **changes)


@pytest.mark.parametrize(
    ("changes", "counted"),
    [
        ({}, (1, 0)),
        ({"outcome": "caller left"}, None),
        ({"outcome": "caller left", "status": None}, None),
        ({"outcome": "refused: prompt is too long", "status": 400}, None),
        ({"outcome": "refused: no such tool", "status": 413}, None),
        ({"outcome": "refused: the upstream is at its limit", "status": 429}, (0, 1)),
        ({"outcome": "refused: overloaded", "status": 529}, (0, 1)),
        ({"outcome": "refused: overloaded", "status": 200}, (0, 1)),
        ({"outcome": "cut: the upstream closed the connection"}, (0, 1)),
        ({"outcome": "failed", "status": 500}, (0, 1)),
        ({"outcome": "failed: the relay was ended", "status": None, "rule": "crashed"}, (0, 1)),
    ],
)
async def test_a_failure_counts_unless_it_is_the_callers(
    database: Database, changes: dict[str, Any], counted: tuple[int, int] | None
) -> None:
    await request(database, **changes)
    found = await answers.by_day(database, NAMES, 0)
    assert [(one.day, one.answered, one.failed) for one in found] == (
        [] if counted is None else [(TOTAL, *counted), (TODAY, *counted)]
    )
    lately = await answers.lately(database, NAMES, NOON - 1)
    assert lately == ({} if counted is None else {MODEL: counted})


async def test_days_have_their_median_and_their_slowest(database: Database) -> None:
    for ms in range(1, 101):  # 10 to 1,000 ms
        await request(database, ttfb_us=ms * 10_000 - 1)
    for _ in range(3):
        await request(database, time=NOON + DAY, ttfb_us=2_300_000, model="house")
    await request(database, time=NOON + DAY, outcome="failed", status=500)
    total, first, second = await answers.by_day(database, NAMES, TODAY)
    assert first == Answers(MODEL, TODAY, 100, 0, 500, 950)
    assert first.availability == 1.0
    assert second == Answers(MODEL, TODAY + DAY, 3, 1, 2_500, 2_500)
    assert second.availability == 0.75
    assert (total.day, total.answered, total.failed) == (TOTAL, 103, 1)
    assert [one.day for one in await answers.by_day(database, NAMES, TODAY + 1)] == [
        TOTAL, TODAY + DAY,
    ]  # fmt: skip
    assert await answers.by_day(database, {"other": "other"}, 0) == []


@pytest.mark.parametrize("ms", [0, 7, 99, 100, 499, 500, 999, 1_000, 4_999, 19_999, 119_999])
async def test_a_time_is_rounded_up_by_a_quarter_at_most(database: Database, ms: int) -> None:
    await request(database, ttfb_us=ms * 1000)
    [total, _] = await answers.by_day(database, NAMES, 0)
    assert total.median_ms is not None
    assert ms < total.median_ms <= max(ms * 1.25, ms + 10)


async def test_days_outlive_requests_and_end_some_day(database: Database) -> None:
    await request(database)
    await request(database, outcome="failed", status=500)
    await request(database, time=NOON + 50 * DAY)
    await usage.prune(database, 30, NOON + 60 * DAY)
    assert await rows(database, "SELECT count(*) FROM usage") == [(1,)]
    assert len(await answers.by_day(database, NAMES, 0)) == 3
    await usage.prune(database, 30, NOON + 102 * DAY)
    assert [one.day for one in await answers.by_day(database, NAMES, 0)] == [
        TOTAL,
        TODAY + 50 * DAY,
    ]


async def test_a_database_of_before_knows_its_days(database: Database) -> None:
    """The migration counts the requests that are summed up already."""
    await request(database)
    await request(database, outcome="failed", status=500)
    before = await rows(database, "SELECT * FROM answer_day")
    await database.write(lambda connection: connection.execute("DELETE FROM answer_day"))
    [script] = [one for one in migrations() if "INSERT INTO answer_day" in one]
    statement = script[script.index("INSERT INTO answer_day") :].partition(";")[0]
    await database.write(lambda connection: connection.execute(statement))
    assert await rows(database, "SELECT * FROM answer_day") == before
    assert len(before) == 2
