"""The tables and functions in PostgreSQL: applied in order, checked at each connection.

Decides which migrations are missing and whether this program understands a database. Must not know
what the tables mean.

A migration begins with `-- needs: N`: programs that know up to migration N or later can use the
database once it is applied. So nodes of the earlier release go on while the first one of the next
release migrates, unless a migration changes what they rely on.
"""

import re
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

from psycopg import AsyncConnection

MIGRATIONS: Final = Path(__file__).parent / "migrations"
_OLDEST: Final = 14  # of PostgreSQL
_LOCK: Final = 0x52454C4159  # "RELAY", the advisory lock of a program that migrates
_NEEDS: Final = re.compile(r"-- needs: (\d+)\n")


class SchemaError(Exception):
    """The database cannot be used by this program; the message is one line for the operator."""


class NoSchemaError(SchemaError):
    """The database has no table of a relay yet, or no longer."""


class Migration(NamedTuple):
    """One script. `needs`: the last migration that a program must know to use its result."""

    number: int
    name: str
    needs: int
    script: str


def read_migrations(folder: Path) -> list[Migration]:
    """The migrations of a folder in order; their numbers count from 1.

    Raises:
        SchemaError: there are none, one is missing, or one does not say what it needs.
    """
    found = []
    for number, file in enumerate(sorted(folder.glob("[0-9][0-9][0-9][0-9]_*.sql")), start=1):
        script = file.read_text(encoding="utf-8")
        needs = _NEEDS.match(script)
        if int(file.name[:4]) != number or needs is None:
            raise SchemaError(f"the installation is damaged: see {file}")
        found.append(Migration(number, file.stem, int(needs[1]), script))
    if not found:
        raise SchemaError(f"the installation is damaged: migrations are missing in {folder}")
    return found


@cache
def known_migrations() -> list[Migration]:
    """Those of this program; raises as `read_migrations` does."""
    return read_migrations(MIGRATIONS)


async def migrate(
    connection: AsyncConnection[tuple[object, ...]], migrations: list[Migration]
) -> int:
    """Apply the migrations that are missing, in one transaction; returns their number.

    Of programs that start at once, one migrates and the others wait for it.

    Raises:
        SchemaError: the database needs a newer program, or has a schema `relay` of another one,
            or its server is too old.
        psycopg.Error: the database failed; nothing was changed.
    """
    check_version(connection)
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        applied = await applied_migrations(connection, migrations)
        if applied is None:
            await connection.execute("CREATE SCHEMA relay")
            await connection.execute(
                "CREATE TABLE relay.migration (number int PRIMARY KEY, name text NOT NULL,"
                " needs int NOT NULL, applied timestamptz NOT NULL DEFAULT now())"
            )
        missing = migrations[applied or 0 :]
        for one in missing:
            await connection.execute(one.script.encode())
            await connection.execute(
                "INSERT INTO relay.migration (number, name, needs) VALUES (%s, %s, %s)",
                [one.number, one.name, one.needs],
            )
        return len(missing)


def check_version(connection: AsyncConnection[tuple[object, ...]]) -> None:
    """Raises SchemaError: this PostgreSQL is too old."""
    info = connection.info
    if info.server_version < _OLDEST * 10_000:
        version = info.parameter_status("server_version") or info.server_version
        raise SchemaError(
            f"PostgreSQL {version} is too old; upgrade it to version {_OLDEST} or later"
        )


async def check(
    connection: AsyncConnection[tuple[object, ...]], migrations: list[Migration]
) -> None:
    """Check that this program can use the database.

    Raises:
        NoSchemaError: no relay has migrated it.
        SchemaError: it cannot: a migration is missing, or the database needs a newer program.
        psycopg.Error: the database failed.
    """
    applied = await applied_migrations(connection, migrations)
    if not applied:
        raise NoSchemaError(
            "the database is empty: no relay has shared it yet, or its tables were deleted; start "
            "a relay that shares it, which makes them"
        )
    if applied < len(migrations):
        raise SchemaError(
            f"the database has schema {applied} of {len(migrations)}: it was put back to an "
            "earlier state; start a relay to bring it up to date"
        )


async def applied_migrations(
    connection: AsyncConnection[tuple[object, ...]], migrations: list[Migration]
) -> int | None:
    """The number of the last migration that was applied; None: the schema is missing.

    Raises:
        SchemaError: the database needs a newer program, or has a schema `relay` of another one or
            of an unreleased relay.
        psycopg.Error: the database failed.
    """
    cursor = await connection.execute(
        "SELECT to_regnamespace('relay') IS NULL, to_regclass('relay.migration') IS NULL"
    )
    no_schema, no_table = await cursor.fetchone() or (True, True)
    if no_schema:
        return None
    if no_table:
        raise SchemaError(
            "the database has a schema relay that belongs to another program; use another database"
        )
    cursor = await connection.execute(
        """SELECT coalesce(max(number), 0), coalesce(max(needs), 0),
            coalesce(array_agg(name ORDER BY number) FILTER (WHERE number <= %s), '{}')
        FROM relay.migration""",
        [len(migrations)],
    )
    applied, needs, names = await cursor.fetchone() or (0, 0, [])
    assert isinstance(applied, int)
    assert isinstance(needs, int)
    assert isinstance(names, list)
    # First: such a relay may have had more migrations than there are now.
    if names != [one.name for one in migrations[: len(names)]]:
        raise SchemaError(
            "the database was made by an unreleased relay; drop the schema relay in it (its rows "
            "are in each relay's own database), then start a relay"
        )
    if needs > len(migrations):
        raise SchemaError(
            f"the database was changed by a newer relay (it needs schema {needs}, this program "
            f"knows up to {len(migrations)}); install that version"
        )
    return applied
