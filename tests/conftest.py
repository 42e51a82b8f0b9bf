"""Fixtures that every part of the suite may use."""

from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.fakes.live import Live, running_relay


def pytest_asyncio_loop_factories(config: Any, item: Any) -> Mapping[str, Callable[[], Any]]:
    """Test on the loop that the relay runs on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    """A relay in front of the simulator."""
    async with running_relay(tmp_path) as relay:
        yield relay
