"""A relay with an admin listener."""

import contextlib
from pathlib import Path
from typing import Any

import pytest

from tests.api.admin_listener import admin_relay
from tests.fakes.live import Live, RelayWith


@pytest.fixture
def admin_relay_with(tmp_path: Path, stack: contextlib.AsyncExitStack) -> RelayWith:
    """Opens a relay as `admin_relay` does; closed at the test's end."""

    async def open_relay(*upstream: list[dict[str, Any]], **sections: Any) -> Live:
        relay = admin_relay(tmp_path, *upstream, **sections)
        return await stack.enter_async_context(relay)

    return open_relay
