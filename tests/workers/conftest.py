"""The simulator as a process, and a folder with a relay of several processes."""

from pathlib import Path

import pytest

from tests.durability.conftest import metered, simulator

__all__ = ["metered", "simulator"]


@pytest.fixture
def several(metered: tuple[Path, str]) -> tuple[Path, str]:
    """A folder with a relay of three processes that counts and bills, and a key."""
    folder, key = metered
    path = folder / "relay.toml"
    path.write_text(path.read_text().replace("[server]\n", "[server]\nworkers = 3\n"))
    return folder, key
