"""The schema is brought up to date once, by one program, and never used by one that is too old."""

import asyncio
from pathlib import Path

import psycopg
import pytest

from relay.cluster.schema import (
    MIGRATIONS,
    Migration,
    SchemaError,
    check,
    known_migrations,
    migrate,
    read_migrations,
)
from tests.cluster.postgres import Postgres

Connection = psycopg.AsyncConnection[tuple[object, ...]]

LATER = Migration(len(known_migrations()) + 1, "later", 1, "CREATE TABLE relay.later (a int)")


async def opened(postgres: Postgres, database: str) -> Connection:
    return await psycopg.AsyncConnection.connect(postgres.url(database), autocommit=True)


async def test_of_several_programs_one_migrates(postgres: Postgres) -> None:
    database = postgres.new_database()
    connections = [await opened(postgres, database) for _ in range(4)]
    done = await asyncio.gather(*[migrate(one, known_migrations()) for one in connections])
    assert sorted(done) == [0, 0, 0, len(known_migrations())]
    await check(connections[0], known_migrations())
    for one in connections:
        await one.close()


async def test_a_database_of_a_newer_program_is_refused(connection: Connection) -> None:
    breaking = LATER._replace(needs=LATER.number)
    assert await migrate(connection, [*known_migrations(), breaking]) == 1
    for use in (migrate, check):
        with pytest.raises(SchemaError, match=f"newer relay \\(it needs schema {LATER.number}, "):
            await use(connection, known_migrations())


async def test_an_addition_lets_the_earlier_program_go_on(connection: Connection) -> None:
    assert await migrate(connection, [*known_migrations(), LATER]) == 1
    await check(connection, known_migrations())
    assert await migrate(connection, known_migrations()) == 0


async def test_a_failed_migration_changes_nothing(postgres: Postgres) -> None:
    connection = await opened(postgres, postgres.new_database())
    broken = LATER._replace(script="CREATE TABLE relay.half (a int); SELECT 1 / 0")
    with pytest.raises(psycopg.errors.DivisionByZero):
        await migrate(connection, [*known_migrations(), broken])
    with pytest.raises(SchemaError, match="the database is empty: no relay has shared it yet"):
        await check(connection, known_migrations())
    await connection.close()


async def test_a_schema_of_another_program_is_left_alone(postgres: Postgres) -> None:
    connection = await opened(postgres, postgres.new_database())
    await connection.execute("CREATE SCHEMA relay")
    with pytest.raises(SchemaError, match="belongs to another program"):
        await migrate(connection, known_migrations())
    await connection.close()


async def test_a_schema_of_an_unreleased_relay_is_refused(connection: Connection) -> None:
    # It had these numbers under other names, and more of them.
    await connection.execute("UPDATE relay.migration SET name = '0003_earlier' WHERE number = 3")
    await connection.execute("INSERT INTO relay.migration VALUES (99, '0099_earlier', 99)")
    for use in (migrate, check):
        with pytest.raises(SchemaError, match="made by an unreleased relay; drop the schema relay"):
            await use(connection, known_migrations())


def test_a_missing_migration_is_a_damaged_installation(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="migrations are missing"):
        read_migrations(tmp_path)
    for number, script in ((1, "-- needs: 1\n"), (3, "-- needs: 3\n")):
        (tmp_path / f"{number:04}_some.sql").write_text(script)
    with pytest.raises(SchemaError, match="0003_some"):
        read_migrations(tmp_path)
    (tmp_path / "0003_some.sql").rename(tmp_path / "0002_some.sql")
    assert [one.needs for one in read_migrations(tmp_path)] == [1, 3]
    (tmp_path / "0002_some.sql").write_text("SELECT 1")
    with pytest.raises(SchemaError, match="0002_some"):
        read_migrations(tmp_path)


def test_each_migration_says_what_it_needs() -> None:
    for one in read_migrations(MIGRATIONS):
        assert 1 <= one.needs <= one.number
