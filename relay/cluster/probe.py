"""Whether PostgreSQL can be used, as `relay check` and `relay doctor` say it before a relay starts.

Decides the words for what is in the way, and what to do about it. None of them has the password.
Must not know who asks.
"""

import asyncio
import re
from typing import Final, NamedTuple

import psycopg

from relay.cluster.attempts import NO_DATABASE, WRONG_USER, first_line
from relay.cluster.link import Connection
from relay.cluster.schema import (
    SchemaError,
    applied_migrations,
    check_version,
    known_migrations,
)
from relay.cluster.url import NO_NAME, read_url

_ALIVE: Final = "SELECT count(*) FROM relay.node WHERE seen > relay.now_ms() - 15000"
_CONNECT_SECONDS: Final = 3  # for each address of the server
_SECONDS: Final = 5.0  # for all of it
_WRONG_URL: Final = re.compile(  # in words of the client, which are no server's
    r"(?:^|: )(?:invalid (?:integer value|\S+ value:)|definition of service|could not match"
    r"|could not parse network address|invalid SSL protocol)"
)
# In words of the client, too.
_WRONG_CERTIFICATE: Final = re.compile(
    r"(?i)certificate verify failed|server certificate for|host name from the server's certificate"
    r"|root certificate"
)
_WRONG_OWN_CERTIFICATE: Final = re.compile(
    r"certificate present, but not private key|could not load private key|private key file"
    r"|certificate does not match private key|certificate file|requires a valid client certificate"
)
_WRONG_TLS: Final = re.compile(r"SSL error|SSL negotiation|SSL SYSCALL|channel binding")


class LedgerFault(NamedTuple):
    """One line each: what is `found`, and the `remedy`."""

    found: str
    remedy: str


class LedgerState(NamedTuple):
    """A database that relays can share. `postgresql`: the server's version; `relays`: those that
    are alive; None: no relay has shared it yet."""

    postgresql: str
    relays: int | None


async def find_fault(url: str) -> LedgerFault | None:
    """Why a relay cannot use the database; None: it can. See `examine`."""
    found = await examine(url)
    return found if isinstance(found, LedgerFault) else None


async def examine(url: str) -> LedgerState | LedgerFault:
    """Connect, and see whether a relay can use the database. Takes some seconds at most, and
    changes nothing."""
    try:
        parts = read_url(url)
    except ValueError as error:
        return _fault_of(error)
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
    except UnicodeError:  # of a host that the environment or a service file names
        return _fault_of(ValueError(NO_NAME))
    except psycopg.Error as error:
        return _explained(error, parts)


async def _examined(connection: Connection) -> LedgerState | LedgerFault:
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
        return _fault_of(error)
    info = connection.info
    if applied is None and not may_create:
        return LedgerFault(
            f'the user "{info.user}" may not make its tables in the database "{info.dbname}"',
            f'as its owner: GRANT CREATE ON DATABASE "{info.dbname}" TO "{info.user}"',
        )
    relays = None
    if applied:
        [relays] = await (await connection.execute(_ALIVE)).fetchone() or (0,)
    # Distributions add their own to it: "15.14 (Debian 15.14-0+deb12u1)".
    version = (info.parameter_status("server_version") or str(info.server_version)).split()[0]
    return LedgerState(version, relays)


def _fault_of(error: ValueError | SchemaError) -> LedgerFault:
    found, _, remedy = str(error).partition("; ")
    return LedgerFault(found, remedy or "install the relay again")


def _explained(error: psycopg.Error, parts: dict[str, str]) -> LedgerFault:
    """The words for an error. A connection that fails has no code, so its text decides."""
    text = str(error)
    reason = first_line(error)
    password = parts.get("password", "")
    names = [parts.get(name, "") for name in ("user", "host", "dbname")]
    # A password that is in a name, such as `relay`, is not shown by it, but by stars in its place.
    if password and not any(password in name for name in names):
        reason = reason.replace(password, "***")
    if (tls := _tls_fault(text, reason)) is not None:
        return tls
    if WRONG_USER.search(text):
        return LedgerFault(
            f"PostgreSQL refuses the user or the password: {reason}",
            "correct them, or the rules in the server's pg_hba.conf",
        )
    if (missing := NO_DATABASE.search(text)) is not None:
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
    if _WRONG_URL.search(reason):
        return LedgerFault(f"PostgreSQL's client refuses the URL: {reason}", "correct ledger.url")
    return _unreachable(reason)


def _tls_fault(text: str, reason: str) -> LedgerFault | None:
    """The words for an error of TLS; None: it is none."""
    if "server does not support SSL" in text:
        return LedgerFault(
            f"PostgreSQL has no TLS, and the URL asks for it: {reason}",
            "turn it on in the server's postgresql.conf (ssl = on), or take sslmode out of the URL",
        )
    if "no pg_hba.conf entry" in text and text.rstrip().endswith("no encryption"):
        return LedgerFault(
            f"PostgreSQL refuses the user without TLS: {reason}",
            "write sslmode=require into the URL if the server has TLS, or correct the rules in its "
            "pg_hba.conf",
        )
    if _WRONG_CERTIFICATE.search(text):
        return LedgerFault(
            f"the certificate of PostgreSQL cannot be verified: {reason}",
            "let sslrootcert in the URL name the file of the authority that issued it, and its "
            "host be a name in the certificate",
        )
    if _WRONG_OWN_CERTIFICATE.search(text):
        return LedgerFault(
            f"the relay's own certificate for PostgreSQL cannot be used: {reason}",
            "correct sslcert and sslkey in the URL",
        )
    if _WRONG_TLS.search(text):
        return LedgerFault(
            f"TLS with PostgreSQL failed: {reason}",
            "see the server's log, and the options of the URL that begin with ssl",
        )
    return None


def _unreachable(reason: str) -> LedgerFault:
    return LedgerFault(
        f"PostgreSQL cannot be reached: {reason}", "start it, or correct its host and port"
    )
