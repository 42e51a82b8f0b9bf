"""A PostgreSQL server for the session, and a migrated database for each test."""

from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest

from relay.cluster.schema import known_migrations, migrate
from tests.cluster.postgres import Postgres, running_postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """The server that tests share, which none may stop."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A server for one test, which may stop it."""
    with running_postgres() as server:
        yield server


@pytest.fixture
async def database(postgres: Postgres) -> str:
    """The name of a database with all migrations."""
    return await migrated(postgres)


async def migrated(postgres: Postgres) -> str:
    """The name of a new database with all migrations."""
    name = postgres.new_database()
    async with await psycopg.AsyncConnection.connect(
        postgres.url(name), autocommit=True
    ) as connection:
        await migrate(connection, known_migrations())
    return name


@pytest.fixture
async def connection(
    postgres: Postgres, database: str
) -> AsyncIterator[psycopg.AsyncConnection[tuple[object, ...]]]:
    """A connection to `database`."""
    async with await psycopg.AsyncConnection.connect(
        postgres.socket_url(database), autocommit=True
    ) as opened:
        yield opened
