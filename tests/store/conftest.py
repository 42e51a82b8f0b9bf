"""A database, and a journal on it, in both modes of durability."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.store import journal as journal_module
from relay.store.database import Database
from relay.store.journal import Journal
from tests.store.entries import Changes, Mode


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = await Database.open(tmp_path / "relay.db")
    yield database
    await database.close()


@pytest.fixture
def changes() -> Changes:
    return Changes()


@pytest.fixture(params=["normal", "full"])
def mode(request: pytest.FixtureRequest) -> Mode:
    mode: Mode = request.param
    return mode


@pytest.fixture
def quick_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal checks its deadlines often enough for a test."""
    monkeypatch.setattr(journal_module, "_CHECK_INTERVAL_SECONDS", 0.02)


@pytest.fixture
async def journal(
    database: Database, changes: Changes, mode: Mode, quick_checks: None
) -> AsyncIterator[Journal]:
    journal = await Journal.start(database, changes, mode)
    yield journal
    await journal.close(0)
