"""A node whose database has rows joins with all of them, or not at all."""

import shutil
from pathlib import Path

import pytest

from relay.cluster.link import Link
from relay.cluster.replication.joining import join_with_rows
from relay.cluster.replication.replication import Replication, leave
from relay.cluster.replication.use import bring
from relay.store import audit, balance, users
from relay.store.database import Database
from relay.store.replication.joining import JoinError
from tests.cluster.replication.members import assert_equal, member, settle
from tests.cluster.replication.rows import ROWS, USAGE, USER
from tests.cluster.replication.test_use import INSERT, window

ALONE = [it for table, it in ROWS.items() if table not in ("statement", "audit")]


async def execute(database: Database, statement: str, *values: object) -> None:
    """Change rows."""
    await database.write(lambda connection: connection.execute(statement, values))


async def filled(path: Path, email: str, *, with_all: bool = False) -> None:
    """A database of a relay that was alone, with an account that has credit."""
    database = await Database.open(path)
    if with_all:
        for statement in ALONE:
            await execute(database, statement)
    user = await users.create_user(database, email=email, plan="p", is_admin=False, now=1.0)
    assert user is not None
    for number in range(3):
        await balance.credit(database, user.id, 5, f"{email} {number}", 2.0)
    await execute(database, USAGE, f"req_{email}", 1.0, user.id)
    await database.close()


async def test_two_databases_with_rows_become_one_cluster(url: str, tmp_path: Path) -> None:
    await filled(tmp_path / "a.db", "a@x", with_all=True)
    await filled(tmp_path / "b.db", "b@x")
    async with member(url, "a", tmp_path / "a.db") as a, member(url, "b", tmp_path / "b.db") as b:
        await settle(a, b)
        await assert_equal(a, b)
        assert await a.rows("SELECT credited FROM balance ORDER BY 1") == [(15,), (15,)]
        assert await b.rows("SELECT count(*) FROM usage") == [(3,)]
        # New entries are the newest everywhere, whoever makes them.
        for one in (a, b, a, b, b):
            user = (await users.list_users(one.database))[0]
            await balance.credit(one.database, user.id, 1, "later", 9.0)
            await settle(a, b)
        found = await audit.entries(a.database, limit=5)
        assert [entry.time for entry in found] == [9.0] * 5
        assert len({entry.id % 1024 for entry in found}) == 2
        await assert_equal(a, b)


@pytest.mark.parametrize("statement", ["users", "keys", "code", "admin_key"])
async def test_rows_that_contradict_refuse_a_join(url: str, tmp_path: Path, statement: str) -> None:
    async with member(url, "a", tmp_path / "a.db") as a:
        await a.run(ROWS["users"])
        if statement != "users":
            await a.run(ROWS[statement])
        await a.sync()
        database = await Database.open(tmp_path / "b.db")
        other = ROWS["users"].replace("usr_1", "usr_2").replace("a@b", "c@d")
        mine = ROWS[statement].replace("usr_1", "usr_2")
        for name in ("key_1", "code_1", "adm_1"):
            mine = mine.replace(name, f"{name}_b")
        for one in [mine] if statement == "users" else [other, mine]:
            await execute(database, one)
        before = await database.select("SELECT * FROM users")
        with pytest.raises(JoinError, match=f"both it and the cluster have {statement} "):
            await Replication.open(database, url, "b")
        assert await database.select("SELECT * FROM users") == before
        assert await database.select("SELECT 1 FROM replica UNION ALL SELECT 1 FROM outbox") == []
        await database.close()
        await a.sync()
        assert len(await a.rows("SELECT 1 FROM users")) == 1


async def test_a_database_is_one_node_s(url: str, tmp_path: Path) -> None:
    async with member(url, "a", tmp_path / "a.db"):
        pass
    with pytest.raises(JoinError, match="is that of node a, and this one is b"):
        async with member(url, "b", tmp_path / "a.db"):
            pass


async def test_a_database_that_left_is_a_node_no_more(url: str, tmp_path: Path) -> None:
    async with member(url, "a", tmp_path / "a.db") as a:
        await a.run(ROWS["users"])
    database = await Database.open(tmp_path / "a.db")
    await leave(database)
    await execute(database, "UPDATE users SET plan = 'other'")
    assert await database.select("SELECT * FROM outbox") == []
    with pytest.raises(JoinError, match="has left its cluster"):
        await Replication.open(database, url, "a")
    await database.close()


async def test_a_new_database_of_a_node_gets_its_rows_back(url: str, tmp_path: Path) -> None:
    async with member(url, "b", tmp_path / "b.db") as b:
        async with member(url, "a", tmp_path / "a.db") as a:
            for statement in ROWS.values():
                await a.run(statement)
            await a.sync()
        async with member(url, "a", tmp_path / "new.db") as a:
            await a.run(USAGE, "req_2", 1.0, "usr_1")
            await settle(a, b)
            await assert_equal(a, b)
            assert len(await b.rows("SELECT 1 FROM usage")) == 2


async def test_a_database_from_before_a_join_is_put_back(url: str, tmp_path: Path) -> None:
    await filled(tmp_path / "a.db", "a@x")
    shutil.copy(tmp_path / "a.db", tmp_path / "before.db")
    async with member(url, "b", tmp_path / "b.db") as b:
        async with member(url, "a", tmp_path / "a.db") as a:
            await a.run(USAGE, "req_2", 2.0, "usr_1")
            await a.sync()
        async with member(url, "a", tmp_path / "before.db") as a:
            await a.run(USAGE, "req_3", 3.0, "usr_1")
            await settle(a, b)
            await assert_equal(a, b)
            assert await b.rows("SELECT count(*) FROM usage") == [(3,)]
            assert await b.rows("SELECT credited FROM balance") == [(15,)]


async def joined(url: str, path: Path, node: str, *, is_brought: bool) -> None:
    """Let a database join, and end before a row of it is sent. `is_brought`: the use of its limits
    was."""
    database = await Database.open(path)
    link = Link(url, node)
    await join_with_rows(database, link, node)
    if is_brought:
        await bring(database, link, node, {})
    await link.close()
    await database.close()


@pytest.mark.parametrize("is_brought", [False, True], ids=["at once", "after the use"])
async def test_a_join_undoes_no_change_of_another(
    url: str, tmp_path: Path, is_brought: bool
) -> None:
    async with member(url, "a", tmp_path / "a.db") as a:
        for table in ("value", "users", "keys", "usage"):
            await a.run(ROWS[table])
        await a.sync()
        database = await Database.open(tmp_path / "b.db")
        await execute(database, ROWS["value"])
        await execute(database, USER, "usr_2", "c@d")
        await execute(database, USAGE, "req_2", 4.0, "usr_2")
        await execute(database, INSERT, *window())
        await database.close()
        await joined(url, tmp_path / "b.db", "b", is_brought=is_brought)
        await a.run("UPDATE users SET plan = 'closed'")
        await a.run("UPDATE keys SET revoked_at = 9.0")
        await a.sync()
        async with member(url, "b", tmp_path / "b.db") as b:
            await settle(a, b)
            await assert_equal(a, b)
            assert await b.rows("SELECT plan FROM users ORDER BY id") == [("closed",), ("free",)]
            assert await b.rows("SELECT revoked_at FROM keys") == [(9.0,)]
            assert await b.rows("SELECT count(*) FROM usage") == [(2,)]
