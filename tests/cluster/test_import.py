"""`relay import relay`: a relay that was alone brings all it has to those that share a ledger."""

import asyncio
import contextlib
import json
import shutil
import sqlite3
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from relay.cluster.importing import import_database
from relay.cluster.link import EngineRefusalError, Link
from relay.cluster.node import ClusterSettings, migrated
from relay.cluster.nodes import forget_node
from relay.cluster.replication import calls
from relay.cluster.replication.joining import join_with_rows
from relay.cluster.replication.replication import Replication
from relay.store import balance, users
from relay.store.database import Database
from relay.store.replication.joining import JoinError
from tests.cli.command import SETTINGS, refused, run
from tests.cluster.postgres import Postgres
from tests.cluster.relays import Fleet, all_serving, ask_all
from tests.cluster.replication.members import member
from tests.cluster.replication.rows import ROWS, USAGE
from tests.durability.process import relay, serving
from tests.fakes.until import until


@pytest.fixture
def url(postgres: Postgres) -> str:
    """Of a database without tables."""
    return postgres.url(postgres.new_database())


@pytest.fixture
def folder(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a relay.toml that shares the ledger at `url`."""
    found = tmp_path / "there"
    found.mkdir()
    (found / "relay.toml").write_text(f'{SETTINGS}\n[ledger]\nurl = "{url}"\nnode = "there"\n')
    monkeypatch.chdir(found)
    return found


def filled(path: Path, *emails: str) -> Path:
    """The database of a relay that was alone: accounts with credit and a request."""

    async def fill() -> None:
        database = await Database.open(path)
        for email in emails:
            user = await users.create_user(
                database, email=email, plan="free", is_admin=False, now=1.0
            )
            assert user is not None
            await balance.credit(database, user.id, 5, "", 2.0)
            values = (f"req_{email}", 1.0, user.id)
            await database.write(lambda it, values=values: it.execute(USAGE, values))  # type: ignore[misc]
        await database.close()

    asyncio.run(fill())
    return path


def imported(file: Path, *options: str) -> Any:
    """The JSON of an import that succeeds."""
    result = run("import", "relay", str(file), "--json", *options)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def run_sql(file: Path, statement: str, *values: object) -> list[Any]:
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        return connection.execute(statement, values).fetchall()


def in_postgres(url: str, query: str) -> list[Any]:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(query.encode()).fetchall()


async def test_all_of_a_relay_comes_along_once(fleet: Fleet, url: str, tmp_path: Path) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    text = (fleet.home / "relay.toml").read_text()
    (folder / "relay.toml").write_text(f'{text}\n[ledger]\nurl = "{url}"\nnode = "there"\n')

    def imported(*options: str) -> Any:
        done = relay(folder, "import", "relay", str(source), "--json", *options)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    [key] = fleet.new_keys("forty", credit="5")
    source = fleet.home / "relay.db"
    with serving(fleet.home) as alone:  # killed at the end: its journal has the last requests
        assert await ask_all([alone], [key], connections=5, each=2) == {200: 10}
        assert "another relay serves" in relay(folder, "import", "relay", str(source)).stderr
    trial = imported("--dry-run")
    assert not trial["imported"]
    assert in_postgres(url, "SELECT * FROM relay.replicated_row") == []
    assert in_postgres(url, "SELECT * FROM relay.replica") == []
    done = imported()
    assert done["imported"]
    assert done["rows"] == trial["rows"]
    assert done["rows"]["users"] == 2
    assert done["rows"]["usage"] == 10
    assert done["windows"] > 0
    again = imported()
    assert not again["imported"]
    assert again["imported_before"]
    with all_serving([folder]) as [there]:
        await until(lambda: len(run_sql(folder / "relay.db", "SELECT 1 FROM usage")) == 10)
        # 40 requests in five hours: ten were used before.
        assert await ask_all([there], [key], connections=5, each=10) == {200: 30, 429: 20}
    assert run_sql(source, "SELECT * FROM replica") == []
    assert [it.name for it in fleet.home.iterdir() if "import" in it.name] == []


def test_an_import_that_was_cut_off_goes_on(folder: Path, url: str, tmp_path: Path) -> None:
    source = filled(tmp_path / "alone.db", "a@x", "b@x")
    assert imported(source)["rows"]["users"] == 2
    with psycopg.connect(url, autocommit=True) as connection:
        # As if PostgreSQL had gone before the last rows, and an administrator had changed one.
        connection.execute(
            """DELETE FROM relay.replicated_row
               WHERE tbl = 'usage' AND image ->> 'id' = 'req_b@x' OR tbl = 'statement'"""
        )
        connection.execute("UPDATE relay.origin SET is_complete = false")
        connection.execute(
            """UPDATE relay.replicated_row SET image = image || '{"plan": "pro"}'
               WHERE tbl = 'users' AND image ->> 'email' = 'a@x'"""
        )
    assert imported(source)["rows"] == {"statement": 2, "usage": 1}
    requests = "SELECT image ->> 'id' FROM relay.replicated_row WHERE tbl = 'usage' ORDER BY 1"
    assert in_postgres(url, requests) == [("req_a@x",), ("req_b@x",)]
    plans = "SELECT image ->> 'plan' FROM relay.replicated_row WHERE tbl = 'users' ORDER BY 1"
    assert in_postgres(url, plans) == [("free",), ("pro",)]


def test_rows_that_contradict_refuse_an_import(
    folder: Path, url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = ROWS["keys"].replace("'usr_1'", "(SELECT id FROM users)")
    files = [filled(tmp_path / f"{name}.db", "a@x") for name in ("one", "two")]
    for file, id in zip(files, ("key_1", "key_2"), strict=True):
        run_sql(file, key.replace("key_1", id))
    imported(files[0])
    before = in_postgres(url, "SELECT count(*), max(seq) FROM relay.replicated_row")
    for options in ((), ("--dry-run",)):
        result = run("import", "relay", str(files[1]), "--json", *options)
        assert result.exit_code == 1
        assert "2 rows of" in result.stderr
        conflicts = json.loads(result.stdout)["conflicts"]
        assert [(it["what"], it["name"]) for it in conflicts] == [
            ("accounts", "a@x"),
            ("keys", "n"),
        ]
        assert "`relay user link`" in conflicts[0]["advice"]
        assert "is held" not in caplog.text
    assert in_postgres(url, "SELECT count(*), max(seq) FROM relay.replicated_row") == before
    assert len(in_postgres(url, "SELECT * FROM relay.replica")) == 1
    assert "revoke and delete it on one" in run("import", "relay", str(files[1])).stdout
    run_sql(files[1], "UPDATE users SET plan = 'gone'")
    result = run("import", "relay", str(files[1]))
    assert "accounts with the plan gone, which relay.toml lacks" in result.stdout
    assert "gone (1 account)" in result.stderr
    assert "2 rows of" in result.stderr
    found = json.loads(run("import", "relay", str(files[1]), "--json").stdout)
    assert (len(found["conflicts"]), found["missing_plans"]) == (2, {"gone": 1})


def test_accounts_with_missing_plans_are_refused(folder: Path, url: str, tmp_path: Path) -> None:
    """One has such a plan, one will have it, and one has had it."""
    source = filled(tmp_path / "alone.db", "a@x", "b@x", "c@x")
    for email, plan, ends_at, then in (
        ("a@x", "gone", None, None),
        ("b@x", "pro", 2e10, "gone"),
        ("c@x", "gone", 1.0, "pro"),
    ):
        update = "UPDATE users SET plan = ?, plan_until = ?, plan_then = ? WHERE email = ?"
        run_sql(source, update, plan, ends_at, then, email)
    for options in ((), ("--dry-run",)):
        result = run("import", "relay", str(source), *options)
        assert result.exit_code == 1
        assert "accounts with the plan gone, which relay.toml lacks" in result.stdout
        assert "gone (2 accounts)" in result.stderr
        assert "--any-plan; nothing was changed" in result.stderr
        result = run("import", "relay", str(source), "--json", *options)
        assert result.exit_code == 1
        assert json.loads(result.stdout)["missing_plans"] == {"gone": 2}
        assert not json.loads(result.stdout)["imported"]
    assert in_postgres(url, "SELECT * FROM relay.replicated_row") == []
    result = run("import", "relay", str(source), "--any-plan", "--dry-run")
    assert "can be imported; nothing was changed" in result.stdout
    assert in_postgres(url, "SELECT * FROM relay.replicated_row") == []
    result = run("import", "relay", str(source), "--any-plan")
    assert result.exit_code == 0
    assert "is imported" in result.stdout
    assert "gone (2 accounts)" in result.stderr


def test_codes_with_missing_plans_are_named(folder: Path, url: str, tmp_path: Path) -> None:
    """Those that can be redeemed: their plan is missing, or the plan that follows."""
    source = filled(tmp_path / "alone.db", "a@x")
    for number, (kind, plan, then, used, expires, revoked) in enumerate(
        (
            ("plan", "gone", None, 0, None, None),
            ("plan", "gone", "gone", 0, 2e10, None),
            ("plan", "pro", "later", 0, None, None),
            ("invite", "gone", None, 0, None, None),
            ("plan", "gone", None, 1, None, None),
            ("plan", "gone", None, 0, 1.0, None),
            ("plan", "gone", None, 0, None, 1.0),
            ("credit", None, None, 0, None, None),
        )
    ):
        run_sql(
            source,
            """INSERT INTO code (id, batch, digest, hint, kind, plan, plan_then, uses, used,
                created_at, expires_at, revoked_at)
                VALUES (?1, 'batch_1', randomblob(32), 'h', ?2, ?3, ?4, 1, ?5, 1.0, ?6, ?7)""",
            f"code_{number}", kind, plan, then, used, expires, revoked,
        )  # fmt: skip
    found = run("import", "relay", str(source), "--dry-run")
    assert "codes with the plan gone, which relay.toml lacks" in found.stdout
    assert "gone (3 codes), later (1 code)" in found.stderr
    assert "can be imported; nothing was changed" in found.stdout
    done = imported(source)
    assert done["imported"]
    assert done["missing_code_plans"] == {"gone": 3, "later": 1}
    assert done["rows"]["code"] == 8


def test_a_copy_joins_no_second_time(folder: Path, url: str, tmp_path: Path) -> None:
    source = filled(tmp_path / "alone.db", "a@x")
    imported(source)

    async def join(name: str) -> None:
        async with member(url, name, tmp_path / f"{name}.db"):
            pass

    shutil.copy(source, tmp_path / "a.db")
    with pytest.raises(JoinError, match="came with node relay-import-usr_"):
        asyncio.run(join("a"))
    filled(tmp_path / "b.db", "b@x")
    shutil.copy(tmp_path / "b.db", tmp_path / "copy.db")
    asyncio.run(join("b"))
    assert "has joined as node b" in refused(1, "import", "relay", str(tmp_path / "b.db"))
    assert "came with node b" in refused(1, "import", "relay", str(tmp_path / "copy.db"))
    # A relay of an earlier version joined without a note; so does one after which PostgreSQL was
    # put back to the state before. Its first account is here.
    in_postgres(url, "DELETE FROM relay.origin RETURNING 1")
    assert "came with node b" in refused(1, "import", "relay", str(tmp_path / "copy.db"))


def copies(folder: Path, *names: str) -> list[Path]:
    """The same database under several names."""
    first, *others = [folder / f"{name}.db" for name in names]
    filled(first, "a@x")
    for other in others:
        shutil.copy(first, other)
    return [first, *others]


@pytest.mark.parametrize("ways", ["join join", "join import"])
async def test_of_copies_at_once_one_comes(
    folder: Path, url: str, tmp_path: Path, ways: str
) -> None:
    await migrated(ClusterSettings(url, "test"))
    paths = await asyncio.to_thread(copies, tmp_path, "a", "b")
    databases = [await Database.open(path) for path in paths]
    replications: list[Replication] = []

    async def come(way: str, database: Database, node: str) -> str:
        try:
            if way == "import":
                await import_database(url, database, dry_run=False)
            else:
                replications.append(await Replication.open(database, url, node))
        except JoinError as error:
            return "refused" if "already" in str(error) else str(error)
        return "done"

    coming = zip(ways.split(), databases, "ab", strict=True)
    assert sorted(await asyncio.gather(*[come(*one) for one in coming])) == ["done", "refused"]
    for one in replications:
        await one.close()
    for database in databases:
        await database.close()
    rows = "SELECT count(*) FROM relay.replicated_row WHERE tbl = 'statement'"
    assert in_postgres(url, rows) == [(1,)]


async def test_a_copy_is_known_by_any_account(folder: Path, url: str, tmp_path: Path) -> None:
    await migrated(ClusterSettings(url, "test"))
    [first, copy] = await asyncio.to_thread(copies, tmp_path, "a", "b")
    await asyncio.to_thread(filled, first, "b@x")
    run_sql(first, "UPDATE users SET created_at = 0 WHERE email = 'a@x'")
    await asyncio.to_thread(shutil.copy, first, copy)
    run_sql(first, "DELETE FROM users WHERE email = 'a@x'")
    async with member(url, "a", first) as a:
        await a.sync()
    for come in (Replication.open, import_of):
        database = await Database.open(copy)
        with pytest.raises(JoinError, match="came with node a already"):
            await come(database, url, "b")
        await database.close()


async def import_of(database: Database, url: str, _: str) -> None:
    """Import a database itself."""
    await import_database(url, database, dry_run=False)


async def test_a_join_that_was_refused_claims_nothing(
    folder: Path, url: str, tmp_path: Path
) -> None:
    await migrated(ClusterSettings(url, "test"))
    for name in "ab":
        await asyncio.to_thread(filled, tmp_path / f"{name}.db", "a@x")
    async with member(url, "a", tmp_path / "a.db"):
        with pytest.raises(JoinError, match="both it and the cluster have users"):
            async with member(url, "b", tmp_path / "b.db"):
                pass
    run_sql(tmp_path / "b.db", "UPDATE users SET email = 'b@x'")
    async with member(url, "c", tmp_path / "b.db") as c:
        assert len(await c.rows("SELECT 1 FROM users")) == 2


async def test_a_join_that_was_cut_off_can_be_forgotten(
    folder: Path, url: str, tmp_path: Path
) -> None:
    """Nobody has rows of it."""
    await migrated(ClusterSettings(url, "test"))
    [first, copy] = await asyncio.to_thread(copies, tmp_path, "a", "b")
    database, link = await Database.open(first), Link(url, "a")
    await join_with_rows(database, link, "a")
    await link.close()
    with pytest.raises(JoinError, match="came with node a"):
        async with member(url, "b", copy):
            pass
    assert await forget_node(url, "a") == 0
    async with member(url, "b", copy) as b:
        await b.sync()
    with pytest.raises(EngineRefusalError, match="was declared gone"):
        await Replication.open(database, url, "a")
    await database.close()


async def test_an_import_that_died_holds_no_row_back(
    folder: Path, url: str, tmp_path: Path
) -> None:
    await migrated(ClusterSettings(url, "test"))
    link = Link(url, "import")
    await link.call(partial(calls.join_import, node="relay-import-usr_1"))
    await link.close()
    async with member(url, "a", tmp_path / "a.db") as a:
        await a.run(ROWS["pause"])
        await a.sync()
        await a.run("DELETE FROM pause")
        await a.sync()
        seen = (
            "SELECT seen = (SELECT seq FROM relay.replication) FROM relay.replica WHERE number = 2"
        )
        await until(lambda: in_postgres(url, seen) == [(True,)])
    old = "UPDATE relay.replicated_row SET at = 0 RETURNING 1"
    assert in_postgres(url, old) == [(1,)]
    assert in_postgres(url, "SELECT relay.tidy_rows(0)") == [(1,)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no such file"),
        (b"text that is long enough to be no header of a database" * 20, "is no SQLite database"),
        ("CREATE TABLE other (id)", "is not the relay's"),
        ("PRAGMA user_version = 999", "written by a newer relay (schema 999"),
    ],
)
def test_a_file_that_is_no_database_of_ours(
    folder: Path, url: str, tmp_path: Path, content: bytes | str | None, message: str
) -> None:
    file = tmp_path / "given.db"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        if "version" in content:
            filled(file)
        run_sql(file, content)
    assert message in refused(1, "import", "relay", str(file))
    assert not (tmp_path / "given.db.lock").exists()
    assert in_postgres(url, "SELECT to_regnamespace('relay')") == [(None,)]


def test_a_folder_is_no_database(folder: Path, tmp_path: Path) -> None:
    assert "is no database file" in refused(1, "import", "relay", str(tmp_path))
    assert not Path(f"{tmp_path}.lock").exists()


def test_a_relay_is_imported_as_one(folder: Path, tmp_path: Path) -> None:
    file = str(filled(tmp_path / "alone.db", "a@x"))
    assert "see `relay import relay`" in refused(1, "import", "new-api", file)


def test_an_import_needs_a_shared_ledger(folder: Path, tmp_path: Path) -> None:
    file = str(filled(tmp_path / "alone.db", "a@x"))
    own = str(filled(folder / "relay.db"))
    assert "is the database of this relay.toml" in refused(2, "import", "relay", own)
    assert "takes no option but" in refused(2, "import", "relay", file, "--plan", "free")
    (folder / "relay.toml").write_text(SETTINGS)
    assert "has no [ledger] url" in refused(2, "import", "relay", file)
    nowhere = "postgresql://relay@127.0.0.1:1/none"
    (folder / "relay.toml").write_text(f'{SETTINGS}\n[ledger]\nurl = "{nowhere}"\n')
    assert "PostgreSQL is away" in refused(1, "import", "relay", file)


def test_a_database_without_accounts_brings_nothing(folder: Path, tmp_path: Path) -> None:
    result = run("import", "relay", str(filled(tmp_path / "empty.db")))
    assert (result.exit_code, result.stderr) == (0, "")
    assert "has no account" in result.stdout
