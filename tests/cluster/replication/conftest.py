"""A cluster of three nodes on one PostgreSQL."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.cluster.postgres import Postgres
from tests.cluster.replication.members import Member, member


@pytest.fixture
def url(postgres: Postgres, database: str) -> str:
    """Of a database with all migrations."""
    return postgres.socket_url(database)


@pytest.fixture
async def trio(url: str, tmp_path: Path) -> AsyncIterator[list[Member]]:
    """Nodes a, b and c."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(member(url, name, tmp_path / f"{name}.db"))
            for name in "abc"
        ]
