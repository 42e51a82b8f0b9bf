"""The extra `cluster`: the same words and pins wherever it is named."""

import re
import tomllib
from pathlib import Path

from relay.config import CLIENT

ROOT = Path(__file__).parents[2]


def pins(name: str) -> set[str]:
    """The packages of a lock file, with their versions."""
    return set(re.findall(r"^[a-z0-9-]+==\S+", (ROOT / name).read_text(), re.MULTILINE))


def test_the_command_names_the_client_of_the_extra() -> None:
    tree = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert tree["project"]["optional-dependencies"]["cluster"] == [CLIENT]


def test_its_lock_adds_the_client_alone() -> None:
    cluster, plain = pins("requirements-cluster.lock"), pins("requirements.lock")
    assert plain < cluster
    assert {one.split("==")[0] for one in cluster - plain} == {"psycopg", "psycopg-binary"}
    assert cluster - plain < pins("requirements-dev.lock")  # which the tests use
