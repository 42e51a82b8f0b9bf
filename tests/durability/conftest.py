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
    return copied(template, tmp_path)


def copied(template: tuple[Path, str], folder: Path) -> tuple[Path, str]:
    """A relay.toml and its database in another folder, and the key."""
    shutil.copy(template[0] / "relay.toml", folder)
    with (
        contextlib.closing(sqlite3.connect(template[0] / "relay.db")) as source,
        contextlib.closing(sqlite3.connect(folder / "relay.db")) as target,
    ):
        source.backup(target)
    return folder, template[1]


@pytest.fixture(scope="session")
def metered_template(simulator: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with a plan that counts and bills, and the key of an account with credit."""
    folder = tmp_path_factory.mktemp("metered")
    write_settings(folder, simulator)
    text = (folder / "relay.toml").read_text()
    text = text.replace('id = "claude-sonnet-4-7"\n', f'id = "claude-sonnet-4-7"\n{PRICE}\n')
    (folder / "relay.toml").write_text(text + LIMITS)
    data(folder, "user", "create", EMAIL)
    key = data(folder, "key", "create", "--user", EMAIL)["key"]

    async def pay() -> None:
        database = await Database.open(folder / "relay.db")
        [account] = await live_keys(database)
        await balance.credit(database, account.user_id, CREDIT_MICRO, "cash", time.time())
        await database.close()

    asyncio.run(pay())
    return folder, key


@pytest.fixture
def metered(metered_template: tuple[Path, str], tmp_path: Path) -> tuple[Path, str]:
    """A copy of it."""
    return copied(metered_template, tmp_path)
