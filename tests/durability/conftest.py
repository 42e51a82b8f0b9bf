"""A server shared by the tests that leave it running; the others start their own."""

import asyncio
import contextlib
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.store import balance
from relay.store.database import Database
from relay.store.keys import live_keys

from .metered import CREDIT_MICRO, LIMITS, PRICE
from .process import Running, data, serving, write_settings

EMAIL = "ada@example.com"


@pytest.fixture(scope="session")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A simulated upstream in a process of its own; its URL."""
    folder = tmp_path_factory.mktemp("simulator")
    with serving(folder, ("simulate", "--port", "0")) as running:
        yield f"http://127.0.0.1:{running.port}"


@pytest.fixture(scope="session")
def template(simulator: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with a relay.toml and an account, and its key."""
    folder = tmp_path_factory.mktemp("home")
    write_settings(folder, simulator)
    data(folder, "user", "create", EMAIL)
    return folder, data(folder, "key", "create", "--user", EMAIL)["key"]


@pytest.fixture(scope="session")
def server(template: tuple[Path, str]) -> Iterator[Running]:
    """A relay that runs during all of these tests."""
    with serving(template[0]) as running:
        yield running


@pytest.fixture
def home(template: tuple[Path, str], tmp_path: Path) -> tuple[Path, str]:
    """A copy of the template with its own database, since only one server may use one."""
    folder, key = template
    shutil.copy(folder / "relay.toml", tmp_path)
    with (
        contextlib.closing(sqlite3.connect(folder / "relay.db")) as source,
        contextlib.closing(sqlite3.connect(tmp_path / "relay.db")) as target,
    ):
        source.backup(target)
    return tmp_path, key


@pytest.fixture
def metered(simulator: str, tmp_path: Path) -> tuple[Path, str]:
    """A folder with a plan that counts and bills, and the key of an account with credit."""
    write_settings(tmp_path, simulator)
    text = (tmp_path / "relay.toml").read_text()
    text = text.replace('id = "claude-sonnet-4-7"\n', f'id = "claude-sonnet-4-7"\n{PRICE}\n')
    (tmp_path / "relay.toml").write_text(text + LIMITS)
    data(tmp_path, "user", "create", EMAIL)
    key = data(tmp_path, "key", "create", "--user", EMAIL)["key"]

    async def pay() -> None:
        database = await Database.open(tmp_path / "relay.db")
        [account] = await live_keys(database)
        await balance.credit(database, account.user_id, CREDIT_MICRO, "cash", time.time())
        await database.close()

    asyncio.run(pay())
    return tmp_path, key
