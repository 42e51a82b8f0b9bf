"""Fixtures of the gateway's tests."""

import pytest


@pytest.fixture
def quick_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at deadlines every 20 ms instead of four times a second, for short tests."""
    monkeypatch.setattr("relay.net.deadlines.TICK", 0.02)
