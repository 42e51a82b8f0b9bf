"""A name belongs to one relay at a time."""

from pathlib import Path
from typing import Any

import psycopg
import pytest

from relay.cluster.link import EngineRefusalError
from tests.cluster.replication.members import Member, member, until
from tests.cluster.replication.rows import USER

Connection = psycopg.AsyncConnection[tuple[Any, ...]]


async def test_a_name_that_another_relay_has_is_refused(url: str, tmp_path: Path) -> None:
    async with member(url, "a", tmp_path / "a.db") as a:
        with pytest.raises(EngineRefusalError, match=r"node a is the relay of .*a\.db, which"):
            async with member(url, "a", tmp_path / "other.db"):
                pass
        await a.run(USER, "usr_1", "a@b")
        await a.sync()
    # It has stopped, so another one can take its place with a database of its own.
    async with member(url, "a", tmp_path / "other.db") as other:
        await other.sync()
        assert await other.rows("SELECT id FROM users") == [("usr_1",)]


async def test_a_relay_that_was_killed_starts_again_at_once(
    url: str, tmp_path: Path, connection: Connection
) -> None:
    async with member(url, "a", tmp_path / "a.db") as a:
        place = await place_of(connection)
        assert place.endswith("/a.db")
        await a.sync()
    # As if it had been killed.
    await connection.execute("UPDATE relay.replica SET place = %s", [place])
    async with member(url, "a", tmp_path / "a.db"):
        pass


async def test_a_name_of_a_relay_long_silent_can_be_taken(
    url: str, tmp_path: Path, connection: Connection
) -> None:
    async with member(url, "a", tmp_path / "a.db"):
        pass
    await connection.execute("UPDATE relay.replica SET place = 'host:/a.db', at = at - 14000")
    with pytest.raises(EngineRefusalError, match=r"node a is the relay of host:/a\.db"):
        await start(url, tmp_path / "other.db")
    await connection.execute("UPDATE relay.replica SET at = at - 2000")
    await start(url, tmp_path / "other.db")


async def test_a_hand_over_keeps_the_name(url: str, tmp_path: Path, connection: Connection) -> None:
    """The process that ends frees a name that the next one, of the same database, has."""
    async with member(url, "a", tmp_path / "a.db") as a:
        await connection.execute("UPDATE relay.replica SET place = ''")

        async def is_taken() -> bool:
            return await place_of(connection) != ""

        assert isinstance(a, Member)
        await until(is_taken)


async def start(url: str, path: Path) -> None:
    async with member(url, "a", path):
        pass


async def place_of(connection: Connection) -> str:
    [(place,)] = await (await connection.execute("SELECT place FROM relay.replica")).fetchall()
    return str(place)
