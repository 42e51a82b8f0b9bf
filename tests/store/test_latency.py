"""Histograms of durations: what is in them, and quantiles from them."""

import sqlite3
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.store import latency
from relay.store.database import Database
from relay.store.usage import Filter
from tests.web.seed import seed_usage

HOUR = 3600


EVERYTHING = Filter()


async def histogram_of(
    database: Database, part: latency.Part, which: Filter = EVERYTHING
) -> dict[int, int]:
    found = await latency.histograms(database, which, part, 10**10)
    return found.get(0, {})


async def test_complete_answers_are_counted_once(tmp_path: Path) -> None:
    database = await Database.open(tmp_path / "relay.db")
    await seed_usage(database, [("usr_1", "key_1"), ("usr_2", "key_2")], 9_000)
    await latency.sum_up(database)
    await latency.sum_up(database)
    await seed_usage(database, [("usr_1", "key_1")], 10, days=0.01)
    await latency.sum_up(database)
    parts: tuple[tuple[latency.Part, str], ...] = (("first", "ttfb_us"), ("whole", "duration_us"))
    for part, column in parts:
        for user in ("usr_1", "usr_2"):
            rows = await database.select(
                f"SELECT {column} / 1000.0 FROM usage WHERE user_id = ? AND outcome = 'whole'",
                (user,),
            )
            expected: dict[int, int] = {}
            for (ms,) in rows:
                bound = min(one for one in latency.BOUNDS if ms <= one)
                expected[bound] = expected.get(bound, 0) + 1
            assert await histogram_of(database, part, Filter(user_id=user)) == expected
    await database.close()


async def test_histograms_are_by_key_model_and_hour(tmp_path: Path) -> None:
    database = await Database.open(tmp_path / "relay.db")
    await seed_usage(database, [("usr_1", "key_1"), ("usr_1", "key_2")], 500, days=2)
    await latency.sum_up(database)
    everything = await histogram_of(database, "first", Filter(user_id="usr_1"))
    of_keys = [
        await histogram_of(database, "first", Filter(user_id="usr_1", key_id=key))
        for key in ("key_1", "key_2")
    ]
    assert sum(everything.values()) == sum(sum(one.values()) for one in of_keys)
    assert await histogram_of(database, "first", Filter(user_id="usr_1", model="none")) == {}
    by_hour = await latency.histograms(database, Filter(user_id="usr_1"), "first", HOUR)
    assert len(by_hour) >= 47
    assert all(start % HOUR == 0 for start in by_hour)
    await database.close()


async def test_requests_that_were_pruned_leave_no_work(tmp_path: Path) -> None:
    database = await Database.open(tmp_path / "relay.db")
    await seed_usage(database, [("usr_1", "key_1")], 100)

    def move(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE usage SET number = number + 1000000000")

    await database.write(move)
    await latency.sum_up(database)  # 500 rows at a time would take for ever
    assert sum((await histogram_of(database, "whole")).values()) > 50
    await database.close()


async def test_old_hours_are_pruned(tmp_path: Path) -> None:
    database = await Database.open(tmp_path / "relay.db")
    await seed_usage(database, [("usr_1", "key_1"), ("usr_2", "key_2")], 400, days=10)
    await latency.sum_up(database)
    now = time.time()
    await latency.prune(database, 4, now)
    hours = [row[0] for row in await database.select("SELECT hour FROM latency_hour")]
    assert now - 4 * 86_400 <= min(hours) < now - 3.8 * 86_400
    await database.close()


@given(st.lists(st.integers(1, 900_000), min_size=1, max_size=200), st.sampled_from([0.5, 0.95]))
def test_a_quantile_is_in_the_right_range(durations: list[int], share: float) -> None:
    histogram: dict[int, int] = {}
    for ms in durations:
        bound = min(one for one in latency.BOUNDS if ms <= one)
        histogram[bound] = histogram.get(bound, 0) + 1
    rank = -(-share * len(durations) // 1)
    exact = sorted(durations)[int(rank) - 1]
    upper = min(one for one in latency.BOUNDS if exact <= one)
    lower = max((one for one in latency.BOUNDS if one < upper), default=0)
    assert lower <= latency.quantile(histogram, share) * 1000 <= upper + 1e-6


@pytest.mark.parametrize("microseconds", [0, 10_000, 10_001, 700_000_000, 10**10])
async def test_every_duration_has_a_bound(tmp_path: Path, microseconds: int) -> None:
    database = await Database.open(tmp_path / "relay.db")
    await seed_usage(database, [("usr_1", "key_1")], 1)
    await database.write(
        lambda connection: connection.execute(
            "UPDATE usage SET outcome = 'whole', ttfb_us = ?", (microseconds,)
        )
    )
    await latency.sum_up(database)
    [(bound, number)] = (await histogram_of(database, "first")).items()
    fitting = [one for one in latency.BOUNDS if microseconds <= one * 1000]
    assert (bound, number) == (fitting[0] if fitting else latency.BOUNDS[-1], 1)
    await database.close()
