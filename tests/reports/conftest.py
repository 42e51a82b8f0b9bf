"""The relay of most reports."""

import pytest

from tests.fakes.live import RelayWith
from tests.fakes.upstream import UpstreamWith
from tests.reports.asking import Desk, desk


@pytest.fixture
async def one(relay_with: RelayWith, upstream_with: UpstreamWith) -> Desk:
    """A relay in front of two upstreams that answer."""
    return await desk(relay_with, upstream_with)
