import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.store import queries, usage
from relay.store.database import Database
from relay.store.journal import Journal, Opening, Settlement
from relay.store.usage import Filter
from tests.store.entries import (
    NOON,
    Changes,
    bucket,
    journalled,
    opening,
    outcome,
    rows,
    settlement,
)  # fmt: skip

HOUR, DAY = 3_600.0, 86_400.0


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = await Database.open(tmp_path / "relay.db")
    yield database
    await database.close()


async def request(database: Database, **changes: object) -> Opening:
    one = opening(**changes)
    await journalled(database, one, settlement(one.id))
    return one


async def test_sums_are_by_user_key_model_and_day(database: Database) -> None:
    user = await queries.create_user(database, email="a@b.c", plan="p", is_admin=False, now=1.0)
    assert user is not None
    key = await queries.create_key(
        database, user=user, name="laptop", digest=b"d" * 32, hint="", now=1.0, expires_at=None,
        most=1,
    )  # fmt: skip
    assert key is not None
    mine = {"user_id": user.id, "key_id": key.id}
    await request(database, **mine)
    await request(database, **mine, time=NOON + DAY, model="claude-haiku-4-5")
    await request(database, time=NOON + 2 * DAY)

    async def table(by: str, which: Filter = Filter()) -> list[tuple[str, int, int, int]]:  # noqa: B008
        found = await usage.sums(database, by, which)  # type: ignore[arg-type]
        return [(s.name, s.requests, s.output, s.cost_micro) for s in found]

    assert await table("user") == [("a@b.c", 2, 40, 154), ("usr_1", 1, 20, 77)]
    assert await table("key") == [("laptop", 2, 40, 154), ("key_1", 1, 20, 77)]
    assert await table("model") == [
        ("claude-sonnet-4-7", 2, 40, 154),
        ("claude-haiku-4-5", 1, 20, 77),
    ]
    assert await table("day") == [(f"2026-04-{day:02}", 1, 20, 77) for day in (8, 9, 10)]
    assert await table("day", Filter(since=NOON + DAY - HOUR, until=NOON + DAY + HOUR)) == [
        ("2026-04-09", 1, 20, 77)
    ]
    assert await table("model", Filter(user_id=user.id, model="claude-haiku-4-5")) == [
        ("claude-haiku-4-5", 1, 20, 77)
    ]
    assert await table("day", Filter(key_id="key_1")) == [("2026-04-10", 1, 20, 77)]


async def test_estimates_are_in_no_count_that_an_upstream_reported(database: Database) -> None:
    one, two, three = opening(), opening(), opening()
    unknown = {"input": None, "output": None, "cache_read": None, "cache_write": None}
    await journalled(
        database, one, two, three,
        settlement(one.id, rule="partial", output=5),
        settlement(two.id, rule="reserved", **unknown),
        settlement(three.id, rule="refunded", cost_micro=0, **unknown),
    )  # fmt: skip
    [found] = await usage.sums(database, "user")
    assert (found.requests, found.refunded, found.input, found.output) == (3, 1, 10, 5)
    assert found.estimated == 1000


async def test_the_sums_are_those_of_the_requests_to_the_token(database: Database) -> None:
    dice = random.Random(7)
    entries: list[Opening | Settlement] = []
    for _ in range(2_000):
        one = opening(
            time=NOON + dice.randrange(5 * 3600),
            key_id=f"key_{dice.randrange(5)}",
            user_id=f"usr_{dice.randrange(3)}",
            billed=dice.random() < 0.5,
        )
        entries.append(one)
        if dice.random() < 0.9:
            counts = {
                name: dice.choice([None, 0, dice.randrange(100_000)])
                for name in ("input", "output", "cache_read", "cache_write")
            }
            entries.append(settlement(one.id, cost_micro=dice.randrange(5_000), **counts))
    await journalled(database, *entries)
    columns = "total(input), total(output), total(cache_read), total(cache_write), sum(cost_micro)"
    [one_by_one] = await rows(
        database, f"SELECT count(*), {columns} FROM usage WHERE settled_at IS NOT NULL"
    )
    hours = await usage.hours(database)
    assert [hour.time for hour in hours] == [NOON + HOUR * number for number in range(5)]
    assert one_by_one == tuple(
        sum(getattr(hour, name) for hour in hours)
        for name in ("requests", "input", "output", "cache_read", "cache_write", "cost_micro")
    )
    [charged] = await rows(
        database, "SELECT sum(cost_micro) FROM usage WHERE billed AND settled_at IS NOT NULL"
    )
    assert [charged] == await rows(database, "SELECT sum(charged) FROM balance")


async def test_requests_are_listed_newest_first_and_page_by_page(database: Database) -> None:
    made = [await request(database, time=NOON + number) for number in range(5)]
    running = opening(time=NOON + 9)
    await journalled(database, running)
    first = await usage.requests(database, most=3)
    assert [one.id for one in first] == [running.id, made[4].id, made[3].id]
    assert first[0].settled_at is None
    assert (first[1].rule, first[1].upstream, first[1].output) == ("reported", "main", 20)
    rest = await usage.requests(database, Filter(until=first[-1].time))
    assert [one.id for one in rest] == [made[2].id, made[1].id, made[0].id]
    assert await usage.requests(database, Filter(user_id="usr_2")) == []


async def test_questions_are_answered_from_an_index(database: Database) -> None:
    async def plan(statement: str) -> str:
        return str(await rows(database, f"EXPLAIN QUERY PLAN {statement}"))

    assert "usage_by_user" in await plan(
        "SELECT * FROM usage WHERE time >= 1 AND time < 2 AND user_id = 'u' ORDER BY time DESC"
    )
    assert "usage_by_time" in await plan("SELECT * FROM usage WHERE time >= 1 ORDER BY time DESC")
    assert "usage_open" in await plan("UPDATE usage SET settled_at = 1 WHERE settled_at IS NULL")
    assert "statement_by_user" in await plan(
        "SELECT * FROM statement WHERE user_id = 'u' AND id < 5 ORDER BY id DESC"
    )


async def test_old_requests_are_forgotten_but_not_their_sums_nor_what_still_runs(
    database: Database,
) -> None:
    old = [opening(time=NOON - 40 * DAY, billed=True) for _ in range(600)]
    running = opening(time=NOON - 50 * DAY)
    recent = opening(time=NOON - 10 * DAY)
    await journalled(
        database, *old, running, recent, settlement(recent.id),
        *(settlement(one.id) for one in old),
    )  # fmt: skip
    before = await usage.hours(database)
    assert await usage.prune(database, 30, NOON) == 600
    assert await usage.prune(database, 30, NOON) == 0
    assert {one.id for one in await usage.requests(database)} == {running.id, recent.id}
    assert await usage.hours(database) == before
    assert await rows(database, "SELECT count(*) FROM statement") == [(600,)]


async def test_limits_are_forgotten_a_day_after_they_are_whole(database: Database) -> None:
    changes = Changes()
    ended = int(NOON * 1000)
    changes.rows = [
        bucket(3),
        ("key", "smooth", "tokens", 60, "smooth", 100, 100 * 60_000, ended - 60_000),
        ("key", "in debt", "tokens", 60, "smooth", 100, 100 * 86_400_000 * 3, ended),
    ]
    journal = await Journal.start(database, changes)
    assert await outcome(journal.open(opening()))
    await journal.close()

    async def owners(now: float) -> list[str]:
        await usage.prune(database, 30, now)
        return [row[0] for row in await rows(database, "SELECT owner FROM bucket ORDER BY owner")]

    assert await owners(NOON + DAY - 1) == ["in debt", "key_1", "smooth"]
    assert await owners(NOON + DAY + 1) == ["in debt", "key_1"]
    assert await owners(NOON + DAY + 5 * HOUR + 1) == ["in debt"]
    assert await owners(NOON + 5 * DAY) == []


async def test_pruning_lets_the_journal_through(database: Database) -> None:
    await journalled(
        database,
        *(opening(id=f"old_{number}", time=1.0) for number in range(5_000)),
        *(settlement(f"old_{number}") for number in range(5_000)),
    )
    journal = await Journal.start(database, Changes())
    pruning = asyncio.create_task(usage.prune(database, 1, NOON))
    written = 0
    while not pruning.done():
        assert await outcome(journal.open(opening()), within=1)
        written += 1
    assert await pruning == 5_000
    assert written >= 20
    await journal.close()
