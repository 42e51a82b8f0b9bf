"""One server for the tests that only look at it; those that end it start their own."""

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
def home(simulator: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with a relay.toml and an account, and its key."""
    folder = tmp_path_factory.mktemp("home")
    write_settings(folder, simulator)
    data(folder, "user", "create", EMAIL)
    return folder, data(folder, "key", "create", "--user", EMAIL)["key"]


@pytest.fixture(scope="session")
def server(home: tuple[Path, str]) -> Iterator[Running]:
    """A relay that runs while all of these tests do."""
    with serving(home[0]) as running:
        yield running
