"""Whether PostgreSQL can be used, as `relay check` and `relay doctor` say it before a relay starts.

Decides the words for what is in the way, and what to do about it. None of them has the password.
Must not know who asks.
"""

import asyncio
import re
from typing import Final, NamedTuple

import psycopg
from psycopg.conninfo import conninfo_to_dict

from relay.cluster.link import Connection, first_line
from relay.cluster.schema import (
    SchemaError,
    applied_migrations,
    check_version,
    known_migrations,
)

_CONNECT_SECONDS: Final = 3  # for each address of the server
_SECONDS: Final = 5.0  # for all of it
_WRONG_USER: Final = re.compile(
    r"authentication failed|no password supplied|role \".*\" does not exist|no pg_hba\.conf entry"
)
_NO_DATABASE: Final = re.compile(r"database (\".*\") does not exist")


class LedgerFault(NamedTuple):
    """One line each: what is `found`, and the `remedy`."""

    found: str
    remedy: str


async def find_fault(url: str) -> LedgerFault | None:
    """Connect, and see whether a relay can use the database; None: it can. Takes some seconds at
    most, and changes nothing."""
    try:
        parts = conninfo_to_dict(url)
    # Its message may have a part of the password; undecodable octets raise UnicodeDecodeError.
    except (psycopg.ProgrammingError, UnicodeDecodeError):
        parts = {"port": "none"}
    hosts, ports = str(parts.get("host", "")), str(parts.get("port", "0"))
    if "@" in hosts or not ports.replace(",", "").isdigit():
        return LedgerFault(
            "it is no URL that PostgreSQL's client can read",
            "write it as postgresql://USER:PASSWORD@HOST:PORT/DATABASE, and in the password "
            "%40 for @, %2F for / and %25 for %",
        )
    try:
        async with asyncio.timeout(_SECONDS):
            async with await psycopg.AsyncConnection.connect(
                url,
                autocommit=True,
                connect_timeout=_CONNECT_SECONDS,
                application_name="relay check",
            ) as connection:
                return await _examined(connection)
    except TimeoutError:
        return _unreachable(f"no answer within {_SECONDS:.0f} s")
    except psycopg.Error as error:
        return _explained(error, str(parts.get("password") or ""))


async def _examined(connection: Connection) -> LedgerFault | None:
    """See whether the server and the database are such as a relay needs."""
    try:
        check_version(connection)
        cursor = await connection.execute(
            "SELECT current_setting('transaction_read_only') = 'on',"
            " has_database_privilege(current_database(), 'CREATE')"
        )
        is_read_only, may_create = await cursor.fetchone() or (True, False)
        if is_read_only:
            return LedgerFault(
                "the server can only be read, as a standby", "name its primary server"
            )
        applied = await applied_migrations(connection, known_migrations())
    except SchemaError as error:
        found, _, remedy = str(error).partition("; ")
        return LedgerFault(found, remedy or "install the relay again")
    info = connection.info
    if applied is None and not may_create:
        return LedgerFault(
            f'the user "{info.user}" may not make its tables in the database "{info.dbname}"',
            f'as its owner: GRANT CREATE ON DATABASE "{info.dbname}" TO "{info.user}"',
        )
    return None


def _explained(error: psycopg.Error, password: str) -> LedgerFault:
    """The words for an error. A connection that fails has no code, so its text decides."""
    text = str(error)
    reason = first_line(error)
    if password:
        reason = reason.replace(password, "***")
    if _WRONG_USER.search(text):
        return LedgerFault(
            f"PostgreSQL refuses the user or the password: {reason}",
            "correct them, or the rules in the server's pg_hba.conf",
        )
    if (missing := _NO_DATABASE.search(text)) is not None:
        return LedgerFault(
            f"PostgreSQL has no database {missing[1]}",
            f"make it (CREATE DATABASE {missing[1]}), or correct its name",
        )
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return LedgerFault(
            f"the user has no rights there: {reason}", "name the user that owns the schema relay"
        )
    if "FATAL: " in text or error.sqlstate:
        return LedgerFault(f"PostgreSQL refuses: {reason}", "see the server's log")
    return _unreachable(reason)


def _unreachable(reason: str) -> LedgerFault:
    return LedgerFault(
        f"PostgreSQL cannot be reached: {reason}", "start it, or correct its host and port"
    )
