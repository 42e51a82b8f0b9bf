"""Fixtures that every part of the suite may use."""

import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import settings

from tests.fakes.live import Live, running_relay


def pytest_asyncio_loop_factories(config: Any, item: Any) -> Mapping[str, Callable[[], Any]]:
    """Test on the loop that the relay runs on."""
    return {"uvloop": uvloop.new_event_loop}


# Tests run beside each other: how long an example takes says nothing of it.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    """A relay in front of the simulator."""
    async with running_relay(tmp_path) as relay:
        yield relay


class _Complaints(logging.Handler):
    """What the loop says of the relay; the tests' own upstreams are made of streams."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        said = self.format(record)
        if "StreamReaderProtocol" not in said and "client_connected_cb" not in said:
            self.heard.append(said)


@pytest.fixture(autouse=True)
def loop_without_complaint() -> Iterator[None]:
    """A transport written to after its end, or an exception that nobody took, fails the test."""
    complaints = _Complaints()
    logger = logging.getLogger("asyncio")
    logger.addHandler(complaints)
    try:
        yield
    finally:
        logger.removeHandler(complaints)
    assert complaints.heard == []
