"""Resets and bonuses on the command line, with kill -9 between any two steps."""

import os
import random
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.fakes.caller import connected, read_answer, request
from tests.fakes.until import until

from .conftest import EMAIL
from .process import Running, data, serving, write_settings

LIMIT = '\nenforce = "account"\nlimits = [{ requests = 4, per = "5h" }]\n'


@pytest.fixture
def limited(simulator: str, tmp_path: Path) -> tuple[Path, str]:
    write_settings(tmp_path, simulator)
    with (tmp_path / "relay.toml").open("a") as file:
        file.write(LIMIT)
    data(tmp_path, "user", "create", EMAIL)
    return tmp_path, data(tmp_path, "key", "create", "--user", EMAIL)["key"]


async def remaining(port: int, key: str, *, used: int = 0) -> int:
    """Use so many requests; returns what is left after them."""
    async with connected(port) as (reader, writer):
        for _ in range(used):
            writer.write(request(key))
            status, _, _ = await read_answer(reader)
            assert status == 200
        writer.write(request(key, b"", method="GET", target="/v1/models"))
        _, fields, _ = await read_answer(reader)
        return int(fields[b"x-ratelimit-remaining"])


def kill(running: Running) -> None:
    os.kill(running.process.pid, signal.SIGKILL)
    running.process.wait()


def applied(folder: Path) -> list[bool]:
    with closing(sqlite3.connect(folder / "relay.db")) as connection:
        query = "SELECT applied_at IS NOT NULL FROM adjustment ORDER BY id"
        return [bool(one) for (one,) in connection.execute(query)]


async def test_a_reset_is_applied_once_whatever_kills_the_relay(
    limited: tuple[Path, str],
) -> None:
    folder, key = limited
    with serving(folder) as running:
        assert await remaining(running.port, key, used=3) == 1
        data(folder, "user", "reset-window", EMAIL, "5h")
        if random.random() < 0.5:
            await until(lambda: applied(folder) == [True], within=1)
        kill(running)
    with serving(folder) as running:
        await until(lambda: applied(folder) == [True], within=1)
        assert await remaining(running.port, key, used=2) == 2
        kill(running)
    with serving(folder) as running:
        assert await remaining(running.port, key) == 2  # and never again
        kill(running)


async def test_a_bonus_outlasts_kills_and_is_shown(limited: tuple[Path, str]) -> None:
    folder, key = limited
    data(folder, "user", "bonus", EMAIL, "5h", "3", "--windows", "2")  # nobody serves
    for left in (6, 5):
        with serving(folder) as running:
            await until(lambda: applied(folder) == [True], within=1)
            assert await remaining(running.port, key, used=1) == left
            kill(running)
    entries = data(folder, "audit", "--action", "window.")
    assert [entry["after"] for entry in entries] == [
        {"counts": "requests", "per": 18_000, "amount": 3, "windows": 2}
    ]
