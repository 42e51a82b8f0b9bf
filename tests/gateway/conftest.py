"""Fixtures of the gateway's tests."""

import pytest

from tests.fakes.live import Live, RelayWith
from tests.fakes.upstream import Answer, Upstream, UpstreamWith
from tests.gateway.streaming import LIVELY, LivelyWith


@pytest.fixture
def quick_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at deadlines every 20 ms instead of four times a second, for short tests."""
    monkeypatch.setattr("relay.net.deadlines.TICK", 0.02)


@pytest.fixture
def lively_with(upstream_with: UpstreamWith, relay_with: RelayWith) -> LivelyWith:
    """Start an upstream that gives this answer, and a relay that soon pings in its silence."""

    async def start(answer: Answer) -> tuple[Live, Upstream]:
        upstream = await upstream_with(answer)
        return await relay_with(upstream, pool=LIVELY), upstream

    return start
