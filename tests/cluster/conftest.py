"""A PostgreSQL server for the session, and a migrated database for each test."""

import asyncio
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


@pytest.fixture(scope="session")
def template(postgres: Postgres) -> str:
    """The name of a database with all migrations, to be copied."""
    return new_template(postgres)


def new_template(server: Postgres) -> str:
    """See `template`."""

    async def migrated() -> str:
        name = server.new_database()
        async with await psycopg.AsyncConnection.connect(
            server.url(name), autocommit=True
        ) as connection:
            await migrate(connection, known_migrations())
        return name

    return asyncio.run(migrated())


@pytest.fixture
def database(postgres: Postgres, template: str) -> str:
    """The name of a database with all migrations."""
    return postgres.new_database(template)


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A server for one test, which may stop it."""
    with running_postgres() as server:
        yield server


@pytest.fixture
async def connection(
    postgres: Postgres, database: str
) -> AsyncIterator[psycopg.AsyncConnection[tuple[object, ...]]]:
    """A connection to `database`."""
    async with await psycopg.AsyncConnection.connect(
        postgres.socket_url(database), autocommit=True
    ) as opened:
        yield opened
