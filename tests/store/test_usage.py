import asyncio
import random
from collections.abc import Sequence
from typing import Any, Literal

from relay.store import usage
from relay.store.database import Database
from relay.store.journal import Journal
from relay.store.keys import NewKey, create_key
from relay.store.records import AdmissionRow
from relay.store.recovery import restore
from relay.store.usage import Filter, Hour, Sums
from relay.store.users import create_user
from tests.store.entries import (
    NOON,
    Changes,
    admission,
    bucket,
    journalled,
    outcome,
    rows,
    serve,
    settle,
)  # fmt: skip

HOUR, DAY = 3_600.0, 86_400.0
GROUPS: tuple[Literal["user", "key", "model", "day"], ...] = ("user", "key", "model", "day")


async def request(database: Database, **changes: object) -> AdmissionRow:
    one = admission(**changes)
    await journalled(database, one)
    return one


async def test_sums_are_by_user_key_model_and_day(database: Database) -> None:
    user = await create_user(database, email="a@b.c", plan="p", is_admin=False, now=1.0)
    assert user is not None
    key = await create_key(database, NewKey(user, "laptop", b"d" * 32, ""), max_keys=1, now=1.0)
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
    unknown: dict[str, Any] = dict.fromkeys(("input", "output", "cache_read", "cache_write"))
    await journalled(database, admission(), rule="partial", output=5)
    await journalled(database, admission(), rule="reserved", **unknown)
    await journalled(database, admission(), rule="refunded", cost_micro=0, **unknown)
    [found] = await usage.sums(database, "user")
    assert (found.requests, found.refunded, found.input, found.output) == (3, 1, 10, 5)
    assert found.estimated == 1000


async def test_sums_equal_those_of_the_requests_to_the_token(database: Database) -> None:
    """Before all is folded, while it is, and after."""
    dice = random.Random(7)
    names = ("input", "output", "cache_read", "cache_write", "cost_micro")
    journal = await Journal.start(database, Changes())
    charged = 0
    for number in range(2_000):
        request = admission(
            time=NOON + dice.randrange(5 * 3600),
            key_id=f"key_{dice.randrange(5)}",
            user_id=f"usr_{dice.randrange(3)}",
            billed_micro=dice.choice([0, 500]),
        )
        ticket = journal.open(request)
        if dice.random() < 0.9:
            counts = {name: dice.choice([None, 0, dice.randrange(100_000)]) for name in names[:4]}
            cost = dice.randrange(5_000)
            ticket = settle(journal, request, cost_micro=cost, **counts)
            charged += cost if request.billed_micro else 0
        if number % 100 == 50:
            assert await outcome(ticket)
    columns = ", ".join(f"total({name})" for name in names)

    async def add_up() -> None:
        [one_by_one] = await rows(database, f"SELECT count(*), {columns} FROM usage")
        hours = await usage.hours(database)
        assert [hour.time for hour in hours] == [NOON + HOUR * number for number in range(5)]
        tables: list[Sequence[Hour | Sums]] = [hours]
        for found in tables + [await usage.sums(database, by) for by in GROUPS]:
            assert one_by_one == tuple(
                sum(getattr(one, name) for one in found) for name in ("requests", *names)
            )

    assert await outcome(ticket)
    assert await rows(database, "SELECT * FROM usage_lately LIMIT 1")
    await add_up()
    assert await journal.close() == 0
    assert not await rows(database, "SELECT * FROM usage_lately LIMIT 1")
    await add_up()
    assert await rows(database, "SELECT sum(charged) FROM balance") == [(charged,)]


async def test_requests_are_listed_by_their_ends_page_by_page(database: Database) -> None:
    made = [admission(time=NOON + number) for number in (3, 1, 2, 0, 4)]
    await journalled(database, *made, running=[admission(time=NOON + 9)])
    first = await usage.requests(database, limit=3)
    assert [one.id for one in first] == [made[4].id, made[3].id, made[2].id]
    assert (first[0].rule, first[0].upstream, first[0].output) == ("reported", "main", 20)
    rest = await usage.requests(database, before=first[-1].number)
    assert [one.id for one in rest] == [made[1].id, made[0].id]
    [one] = await usage.requests(database, Filter(since=NOON + 1, until=NOON + 2))
    assert one.id == made[1].id
    assert await usage.requests(database, Filter(user_id="usr_2")) == []


async def test_queries_use_indexes(database: Database) -> None:
    async def plan(statement: str) -> str:
        return str(await rows(database, f"EXPLAIN QUERY PLAN {statement}"))

    sums = await plan("SELECT sum(requests) FROM usage_sums WHERE hour >= 3600 AND user_id = 'u'")
    assert "usage_hour_by_user" in sums
    assert "SEARCH usage USING INTEGER PRIMARY KEY (rowid>?)" in sums  # what is not folded
    everyone = await plan("SELECT sum(requests) FROM usage_sums WHERE hour >= 3600 GROUP BY model")
    assert "SEARCH usage_hour USING PRIMARY KEY (hour>?)" in everyone
    page = await plan(
        "SELECT * FROM usage WHERE time >= 1 AND number < 9 ORDER BY number DESC LIMIT 5"
    )
    assert "SEARCH usage USING INTEGER PRIMARY KEY (rowid<?)" in page
    assert "TEMP B-TREE" not in page
    assert "statement_by_user" in await plan(
        "SELECT * FROM statement WHERE user_id = 'u' AND id < 5 ORDER BY id DESC"
    )


async def test_old_requests_are_deleted_but_not_their_sums(database: Database) -> None:
    old = [admission(time=NOON - 40 * DAY, billed_micro=500) for _ in range(600)]
    recent = admission(time=NOON - 10 * DAY)
    await journalled(database, *old, recent)
    before = await usage.hours(database)
    assert await usage.prune(database, 30, NOON) == 600
    assert await usage.prune(database, 30, NOON) == 0
    assert [one.id for one in await usage.requests(database)] == [recent.id]
    assert await usage.hours(database) == before
    assert await rows(database, "SELECT count(*) FROM statement") == [(600,)]


async def test_deleted_requests_do_not_seem_interrupted(database: Database) -> None:
    """Else they would be counted and charged again."""
    old = [admission(time=NOON - 40 * DAY, billed_micro=500) for _ in range(3)]
    running = admission(time=NOON - 40 * DAY)
    await journalled(database, *old, running=[running])
    assert await usage.prune(database, 30, NOON) == 2  # the last one stays
    assert (await restore(database, NOON)).crashed == [running]
    assert await usage.prune(database, 30, NOON) == 1
    assert await rows(database, "SELECT sum(requests) FROM usage_sums") == [(4,)]


async def test_requests_after_a_full_prune_are_summed_up(database: Database) -> None:
    for number in (1, 2, 3):
        last = await request(database, time=1.0)
        await usage.prune(database, 30, NOON)
        assert [one.id for one in await usage.requests(database)] == [last.id]
        assert await rows(database, "SELECT sum(requests) FROM usage_hour") == [(number,)]


async def test_requests_that_are_not_summed_up_are_not_deleted(database: Database) -> None:
    journal = await Journal.start(database, Changes())
    for _ in range(3):
        one = admission(time=1.0)
        assert await outcome(serve(journal, one))
    assert await rows(database, "SELECT * FROM usage_hour") == []
    assert await usage.prune(database, 30, NOON) == 0
    await journal.close()
    assert await usage.prune(database, 30, NOON) == 2
    assert await rows(database, "SELECT sum(requests) FROM usage_sums") == [(3,)]


async def test_limits_are_deleted_a_day_after_they_refilled(database: Database) -> None:
    changes = Changes()
    ended = int(NOON * 1000)
    changes.rows = [
        bucket(3),
        ("key", "smooth", "tokens", 60, "smooth", 100, 100 * 60_000, ended - 60_000),
        ("key", "in debt", "tokens", 60, "smooth", 100, 100 * 86_400_000 * 3, ended),
    ]
    journal = await Journal.start(database, changes)
    assert await outcome(journal.open(admission()))
    await journal.close()

    async def owners(now: float) -> list[str]:
        await usage.prune(database, 30, now)
        return [row[0] for row in await rows(database, "SELECT owner FROM bucket ORDER BY owner")]

    assert await owners(NOON + DAY - 1) == ["in debt", "key_1", "smooth"]
    assert await owners(NOON + DAY + 1) == ["in debt", "key_1"]
    assert await owners(NOON + DAY + 5 * HOUR + 1) == ["in debt"]
    assert await owners(NOON + 5 * DAY) == []


async def test_pruning_lets_the_journal_through(database: Database) -> None:
    await journalled(database, *(admission(time=1.0) for _ in range(5_000)), admission())
    await restore(database, NOON)
    journal = await Journal.start(database, Changes())
    pruning = asyncio.create_task(usage.prune(database, 1, NOON))
    written = 0
    while not pruning.done():
        assert await outcome(journal.open(admission()), within=1)
        written += 1
    assert await pruning == 5_000
    assert written >= 20
    await journal.close()
