"""Fixtures of automatic certificates."""

import time
import types

import acme.client
import pytest


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library polls ten times as often."""
    real = time.sleep
    quick = types.SimpleNamespace(sleep=lambda seconds: real(seconds / 10))
    monkeypatch.setattr(acme.client, "time", quick)
