"""`relay check` and `relay doctor` say why PostgreSQL cannot be used, and what to do."""

import asyncio
import contextlib
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest
import trustme

from relay import config
from relay.cli.doctor.ledger import examine
from relay.cluster.joining import join, replicate
from relay.cluster.node import ClusterSettings, migrated
from relay.cluster.probe import LedgerFault, find_fault
from relay.cluster.schema import SchemaError
from relay.store.database import Database
from tests.cli.command import SETTINGS, done, refused
from tests.cluster.postgres import Postgres
from tests.fakes.listening import listening
from tests.fakes.until import until

CANARY = "canary"


@pytest.fixture
def away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, whose relay.toml names a port where nothing listens."""
    url = f"postgresql://relay:{CANARY}@127.0.0.1:1/relay"
    (tmp_path / "relay.toml").write_text(f'{SETTINGS}\n[ledger]\nurl = "{url}"\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("away")
def test_a_server_that_cannot_be_reached_is_named() -> None:
    line = refused(1, "check")
    assert line.startswith("relay.toml: ledger.url: PostgreSQL cannot be reached: ")
    assert "127.0.0.1" in line
    assert line.endswith("; start it, or correct its host and port")
    assert CANARY not in line
    [found] = [one for one in examine(config.load("relay.toml")) if one.level == "fault"]
    assert "cannot be reached" in found.found
    assert done("check", "--offline").startswith("ok: relay.toml")


@pytest.mark.parametrize("is_broken", [False, True])
def test_a_missing_client_is_named_with_its_command(away: Path, is_broken: bool) -> None:
    """The client is not there, or has no library of PostgreSQL."""
    hidden = away / "hidden"
    hidden.mkdir()
    if is_broken:
        (hidden / "psycopg.py").write_text("raise ImportError('no pq wrapper available')")
    else:
        (hidden / "sitecustomize.py").write_text("import sys; sys.modules['psycopg'] = None")
    path = os.pathsep.join([str(hidden), *sys.path])
    result = subprocess.run(
        [sys.executable, "-m", "relay", "check"],
        cwd=away, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 1 + (not is_broken)
    assert f"{sys.executable} -m pip install 'psycopg[binary]" in result.stderr
    assert result.stderr.count("\n") == 1


async def fault_at(url: str) -> LedgerFault:
    """Why a URL cannot be used."""
    found = await find_fault(url)
    assert found is not None
    assert CANARY not in str(found)
    return found


async def test_a_wrong_user_password_or_database_is_named(
    postgres: Postgres, connection: psycopg.AsyncConnection[tuple[object, ...]], database: str
) -> None:
    assert await find_fault(postgres.url(database)) is None
    found = await fault_at(postgres.url("lost"))
    assert found.found == 'PostgreSQL has no database "lost"'
    assert 'CREATE DATABASE "lost"' in found.remedy
    place = f"127.0.0.1:{postgres.port}/{database}"
    assert "refuses the user" in (await fault_at(f"postgresql://nobody@{place}")).found
    async with guarded(postgres, connection, f"postgresql://guarded@{place}"):
        found = await fault_at(f"postgresql://guarded:{CANARY}@{place}")
        assert found.found.startswith("PostgreSQL refuses the user or the password: ")
        assert "correct them" in found.remedy
        found = await fault_at(f"postgresql://guarded:right@{place}")
        assert found.remedy == "name the user that owns the schema relay"
        await connection.execute("DROP SCHEMA relay CASCADE")
        found = await fault_at(f"postgresql://guarded:right@{place}")
        assert found.found.startswith('the user "guarded" may not make its tables')
        assert found.remedy.endswith(f'GRANT CREATE ON DATABASE "{database}" TO "guarded"')
        grant = f"GRANT CREATE ON DATABASE {database} TO guarded"
        await connection.execute(grant.encode())
        assert await find_fault(f"postgresql://guarded:right@{place}") is None
    assert "guarded" not in (postgres.folder / "data/pg_hba.conf").read_text()


async def test_a_server_without_tls_is_named(postgres: Postgres, database: str) -> None:
    found = await fault_at(f"{postgres.url(database)}?sslmode=require")
    assert found.found.startswith("PostgreSQL has no TLS, and the URL asks for it: ")
    assert found.remedy.endswith("or take sslmode out of the URL")


async def test_a_wrong_certificate_is_named(own_postgres: Postgres, tmp_path: Path) -> None:
    own_postgres.stop()
    data, authority = own_postgres.folder / "data", trustme.CA()
    certificate = authority.issue_cert("elsewhere.example")
    for name, pem in (
        ("server.crt", certificate.cert_chain_pems[0]),
        ("server.key", certificate.private_key_pem),
    ):
        pem.write_to_path(data / name)
        (data / name).chmod(0o600)
        if own_postgres.user:
            shutil.chown(data / name, own_postgres.user)
    rules = data / "pg_hba.conf"
    rules.write_text(
        "hostssl all all 127.0.0.1/32 trust\nhostnossl postgres all 127.0.0.1/32 trust\n"
    )
    await asyncio.to_thread(own_postgres.start, ssl="on")
    url = own_postgres.url("postgres")
    issuer, other = tmp_path / "issuer.pem", tmp_path / "other.pem"
    authority.cert_pem.write_to_path(issuer)
    trustme.CA().cert_pem.write_to_path(other)
    assert await find_fault(f"{url}?sslmode=verify-ca&sslrootcert={issuer}") is None
    for query in (
        f"sslmode=verify-full&sslrootcert={issuer}",
        f"sslmode=verify-ca&sslrootcert={other}",
        "sslmode=verify-ca&sslrootcert=/nowhere",
    ):
        found = await fault_at(f"{url}?{query}")
        assert found.found.startswith("the certificate of PostgreSQL cannot be verified: ")
        assert "sslrootcert" in found.remedy
    found = await fault_at(f"{url}?sslmode=require&sslcert={issuer}&sslkey=/nowhere")
    assert found.remedy == "correct sslcert and sslkey in the URL"
    found = await fault_at(
        f"{url}?sslmode=require&ssl_min_protocol_version=TLSv1&ssl_max_protocol_version=TLSv1"
    )
    assert found.found.startswith("TLS with PostgreSQL failed: ")
    found = await fault_at(f"{own_postgres.url('other')}?sslmode=disable")
    assert found.found.startswith("PostgreSQL refuses the user without TLS: ")


@contextlib.asynccontextmanager
async def guarded(
    postgres: Postgres, connection: psycopg.AsyncConnection[tuple[object, ...]], url: str
) -> AsyncIterator[None]:
    """For the block the server has the user `guarded`, and asks it for its password, `right`."""

    def is_guarded() -> bool:
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError:
            return True
        return False

    rules = postgres.folder / "data/pg_hba.conf"
    earlier = rules.read_text()
    await connection.execute("CREATE ROLE guarded LOGIN PASSWORD 'right'")
    try:
        rules.write_text(f"host all guarded 127.0.0.1/32 scram-sha-256\n{earlier}")
        await connection.execute("SELECT pg_reload_conf()")
        await until(is_guarded)
        yield
    finally:
        rules.write_text(earlier)
        await connection.execute("SELECT pg_reload_conf()")
        await connection.execute("DROP OWNED BY guarded")
        await connection.execute("DROP ROLE guarded")


async def test_a_database_of_another_program_is_named(
    postgres: Postgres, connection: psycopg.AsyncConnection[tuple[object, ...]], database: str
) -> None:
    await connection.execute("INSERT INTO relay.migration (number, name, needs) VALUES (99, '', 9)")
    await connection.execute("UPDATE relay.migration SET needs = 99 WHERE number = 99")
    found = await fault_at(postgres.url(database))
    assert "was changed by a newer relay" in found.found
    assert found.remedy == "install that version"
    await connection.execute("DROP TABLE relay.migration")
    assert (await fault_at(postgres.url(database))).remedy == "use another database"


async def test_a_standby_is_named(
    postgres: Postgres, connection: psycopg.AsyncConnection[tuple[object, ...]], database: str
) -> None:
    await connection.execute(
        f"ALTER DATABASE {database} SET default_transaction_read_only = on".encode()
    )
    assert "can only be read" in (await fault_at(postgres.url(database))).found


async def test_an_old_postgresql_is_named() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A server of version 13, as far as a client sees when it connects."""
        while True:
            length, code = struct.unpack(">II", await reader.readexactly(8))
            await reader.readexactly(length - 8)
            if code >> 16 == 3:  # not TLS or GSSAPI, which are asked for first
                break
            writer.write(b"N")
        for kind, body in [
            (b"R", struct.pack(">I", 0)),
            (b"S", b"server_version\x0013.23\0"),
            (b"S", b"client_encoding\0UTF8\0"),
            (b"Z", b"I"),
        ]:
            writer.write(kind + struct.pack(">I", len(body) + 4) + body)
        await reader.read()

    async with listening(serve) as port:
        url = f"postgresql://relay:{CANARY}@127.0.0.1:{port}/relay"
        found = await fault_at(url)
        with pytest.raises(SchemaError, match=r"PostgreSQL 13\.23 is too old"):  # a relay starts
            await migrated(ClusterSettings(url, "a"))
    assert found == LedgerFault("PostgreSQL 13.23 is too old", "upgrade it to version 14 or later")


@pytest.mark.parametrize(
    "password", ["can@canary", "can/canary", "12/canary", "/canary", "5%canary", "5%xy"]
)
async def test_an_unreadable_url_shows_no_password(password: str, tmp_path: Path) -> None:
    url = f"postgresql://relay:{password}@127.0.0.1:1/relay"
    found = await fault_at(url)
    assert found.found == "it is no URL that PostgreSQL's client can read"
    assert "%40 for @" in found.remedy
    assert await refusals(url, tmp_path) == {f"ledger.url: {found.found}; {found.remedy}"}


@pytest.mark.parametrize("host", ["a..b", "a" * 64, "127.0.0.1,a..b"])
async def test_a_host_that_is_no_name_is_named(host: str, tmp_path: Path) -> None:
    url = f"postgresql://relay:{CANARY}@{host}/relay"
    found = await fault_at(url)
    assert found.found.startswith("its host is no name: ")
    assert found.remedy == "correct the host"
    assert await refusals(url, tmp_path) == {f"ledger.url: {found.found}; {found.remedy}"}


@pytest.mark.usefixtures("away")
def test_a_host_of_the_environment_that_is_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "a..b")
    monkeypatch.setenv("LEDGER", f"postgresql://relay:{CANARY}@/relay")
    Path("relay.toml").write_text(f'{SETTINGS}\n[ledger]\nurl = "env:LEDGER"\n')
    assert "ledger.url: its host is no name: " in refused(1, "check")
    monkeypatch.setenv("LEDGER", f"postgresql://relay:{CANARY}@a..b/relay")
    assert "ledger.url: its host is no name: " in refused(2, "ledger", "nodes")


async def refusals(url: str, folder: Path) -> set[str]:
    """The lines with which a relay refuses to start, as a node and for its rows."""
    settings = config.parse({"ledger": {"url": url, "node": "a"}})
    database = await Database.open(folder / "relay.db")
    lines = set()
    for start in (join(settings), replicate(settings, database)):
        with pytest.raises(config.ConfigError) as error:
            await start
        lines.add(str(error.value))
    await database.close()
    return lines


@pytest.mark.parametrize(
    "query",
    [
        "sslmode=bogus",
        "target_session_attrs=foo",
        "ssl_min_protocol_version=x",
        "service=nowhere",
        "keepalives=x",
        "ssl_max_protocol_version=TLSv1",
        "hostaddr=foo",
        "port=1,2,3",
    ],
)
async def test_a_wrong_option_of_the_url_is_named(query: str) -> None:
    found = await fault_at(f"postgresql://relay:{CANARY}@127.0.0.1:1/relay?{query}")
    assert found.found.startswith("PostgreSQL's client refuses the URL: ")
    assert found.remedy == "correct ledger.url"


async def test_a_password_that_is_a_name_hides_none(
    postgres: Postgres, connection: psycopg.AsyncConnection[tuple[object, ...]], database: str
) -> None:
    await connection.execute("CREATE ROLE outside NOLOGIN")
    try:
        for user, password in (("nobody", "nobody"), ("outside", "out")):
            url = f"postgresql://{user}:{password}@127.0.0.1:{postgres.port}/{database}"
            found = (await fault_at(url)).found
            assert found.startswith("PostgreSQL refuses the user or the password: ")
            assert f'role "{user}"' in found
    finally:
        await connection.execute("DROP ROLE outside")
