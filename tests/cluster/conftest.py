"""A PostgreSQL server for the session, and a migrated database for each test."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest

from relay.cluster.schema import known_migrations, migrate
from tests.cluster.postgres import Postgres, new_postgres
from tests.cluster.relays import Fleet, Three, all_serving
from tests.durability.conftest import copied, metered, metered_template, simulator

__all__ = ["metered", "metered_template", "simulator"]

TEMPLATE = "template_relay"  # a database with all migrations, to be copied


@pytest.fixture(scope="package")
def pristine() -> Iterator[Path]:
    """The disk of a server that was stopped: it has `TEMPLATE`."""
    with new_postgres() as server:
        server.create()
        server.start()

        async def prepare() -> None:
            url = server.url(server.new_database(name=TEMPLATE))
            async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
                await migrate(connection, known_migrations())

        asyncio.run(prepare())
        server.stop()
        yield server.folder


@pytest.fixture(scope="package")
def postgres(pristine: Path) -> Iterator[Postgres]:
    """The server that tests share, which none may stop."""
    with new_postgres() as server:
        server.copy_from(pristine)
        server.start()
        yield server


@pytest.fixture
def own_postgres(pristine: Path) -> Iterator[Postgres]:
    """A server for one test, which may stop it."""
    with new_postgres() as server:
        server.copy_from(pristine)
        server.start()
        yield server


@pytest.fixture
def database(postgres: Postgres) -> Iterator[str]:
    """The name of a database with all migrations."""
    name = postgres.new_database(TEMPLATE)
    yield name
    postgres.drop_database(name)


@pytest.fixture
async def connection(
    postgres: Postgres, database: str
) -> AsyncIterator[psycopg.AsyncConnection[tuple[object, ...]]]:
    """A connection to `database`."""
    async with await psycopg.AsyncConnection.connect(
        postgres.socket_url(database), autocommit=True
    ) as opened:
        yield opened


@pytest.fixture(scope="package")
def three(
    metered_template: tuple[Path, str],
    postgres: Postgres,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Three]:
    """Three relays that run during all tests that leave them running."""
    root = tmp_path_factory.mktemp("three")
    home = copied(metered_template, root)[0]
    fleet = Fleet(home, root)
    name = postgres.new_database(TEMPLATE)
    with all_serving(fleet.spread(postgres.url(name), 3)) as relays:
        yield Three(fleet, relays)
    postgres.drop_database(name)


@pytest.fixture
def fleet(metered: tuple[Path, str], tmp_path: Path) -> Fleet:
    """Relays that count and bill, to be spread over folders below."""
    return Fleet(metered[0], tmp_path)
