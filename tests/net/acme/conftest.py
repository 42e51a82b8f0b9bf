"""Fixtures of automatic certificates."""

import time
import types
from collections.abc import Iterator

import acme.client
import pytest

from tests.net.acme.pebble import Pebble, running_pebble


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library polls ten times as often."""
    real = time.sleep
    quick = types.SimpleNamespace(sleep=lambda seconds: real(seconds / 10))
    monkeypatch.setattr(acme.client, "time", quick)


@pytest.fixture(scope="session")
def pebble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pebble]:
    """A running authority; only for tests that `needs_pebble`."""
    with running_pebble(tmp_path_factory.mktemp("pebble")) as running:
        yield running
