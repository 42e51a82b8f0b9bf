"""Limits are exact over all processes of a relay: what is left is admitted, and no more."""

import time
from pathlib import Path

import pytest

from tests.durability.metered import opened
from tests.durability.process import data, relay, serving
from tests.fakes.forty import FORTY
from tests.scoreboard import RecordProperty

from .everywhere import in_force
from .processes import ask_at_once, workers_of

PLANS = (
    FORTY
    + """
[[plan]]
id = "short"
limits = [{ requests = 40, per = "3s", refill = "window" }]
"""
)


def add_plans(folder: Path) -> None:
    path = folder / "relay.toml"
    path.write_text(path.read_text() + PLANS)


def new_keys(folder: Path, plan: str, count: int = 1, *, credit: str = "") -> list[str]:
    """The keys of a new account, with so many dollars."""
    email = f"{plan}{time.monotonic_ns()}@example.com"
    data(folder, "user", "create", email, "--plan", plan)
    if credit:
        done = relay(folder, "user", "credit", email, credit)
        assert done.returncode == 0, done.stderr
    return [data(folder, "key", "create", "--user", email)["key"] for _ in range(count)]


async def exactly_forty(
    folder: Path, plan: str, rounds: int, keys: int = 1, *, connections: int = 60, each: int = 50
) -> None:
    """Ask 3,000 times at once; 40 requests are admitted, each time."""
    add_plans(folder)
    with serving(folder) as running:
        assert len(workers_of(running)) == 2
        for _ in range(rounds):
            found = new_keys(folder, plan, keys)
            await in_force(running, found)
            statuses = await ask_at_once(running.port, found, connections // keys, each)
            assert statuses == {200: 40, 429: connections * each - 40}


@pytest.mark.parametrize("plan", ["forty", "stacked"])
async def test_forty_left_is_forty(
    several: tuple[Path, str], plan: str, record_property: RecordProperty
) -> None:
    await exactly_forty(several[0], plan, 1)
    record_property("figure", "3,000 requests, 3 processes, 40 left: exactly 40")


async def test_keys_of_an_account_share_forty(several: tuple[Path, str]) -> None:
    await exactly_forty(several[0], "shared", 1, keys=4)


@pytest.mark.long
@pytest.mark.parametrize("plan", ["forty", "stacked", "shared"])
async def test_forty_left_is_forty_twenty_times(several: tuple[Path, str], plan: str) -> None:
    await exactly_forty(several[0], plan, 20, keys=4 if plan == "shared" else 1)


async def test_windows_that_end_meanwhile_stay_exact(several: tuple[Path, str]) -> None:
    folder, _ = several
    add_plans(folder)
    with serving(folder) as running:
        [key] = new_keys(folder, "short")
        await in_force(running, [key])
        started = time.monotonic()
        admitted = 0
        while time.monotonic() - started < 7:
            statuses = await ask_at_once(running.port, [key], 30, 10)
            admitted += statuses[200]
        seconds = time.monotonic() - started
    windows = int(seconds // 3) + 1
    assert 40 < admitted <= 40 * windows


async def test_a_balance_is_never_overdrawn(several: tuple[Path, str]) -> None:
    folder, _ = several
    with serving(folder) as running:
        [key] = new_keys(folder, "free", credit="0.02")
        await in_force(running, [key])
        statuses = await ask_at_once(running.port, [key], 30, 20)
        while one := (await ask_at_once(running.port, [key], 1, 1))[200]:  # the rest
            statuses[200] += one
        running.signal()
        assert await running.exited(10) == 0
    assert statuses[200] > 10
    assert set(statuses) <= {200, 402, 429}
    with opened(folder) as connection:
        [row] = connection.execute("SELECT * FROM balance WHERE credited = 20000")
        assert 0 <= row["micro"] < 2_000
        assert row["credited"] - row["charged"] == row["micro"]
