"""One server for the tests that only look at it; those that end it start their own."""

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

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
    """A relay that runs while all of these tests do."""
    with serving(template[0]) as running:
        yield running


@pytest.fixture
def home(template: tuple[Path, str], tmp_path: Path) -> tuple[Path, str]:
    """The same with a database of its own, since one server at a time may have one."""
    folder, key = template
    shutil.copy(folder / "relay.toml", tmp_path)
    with (
        contextlib.closing(sqlite3.connect(folder / "relay.db")) as source,
        contextlib.closing(sqlite3.connect(tmp_path / "relay.db")) as target,
    ):
        source.backup(target)
    return tmp_path, key
