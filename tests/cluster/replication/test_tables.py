"""Each table is shared or not, for a reason; each shared one comes to the other nodes."""

from pathlib import Path

from relay.store.database import Database
from relay.store.replication.tables import LOCAL, SHARED
from tests.cluster.replication.members import Member, assert_equal, settle, shared_rows
from tests.cluster.replication.rows import ROWS


async def test_each_table_is_shared_or_local(tmp_path: Path) -> None:
    database = await Database.open(tmp_path / "relay.db")
    found = await database.select(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    )
    await database.close()
    assert {name for (name,) in found} == {*SHARED, *LOCAL}
    assert not {*SHARED} & {*LOCAL}


async def test_each_shared_table_comes_to_the_others(trio: list[Member]) -> None:
    assert set(ROWS) == set(SHARED)
    for statement in ROWS.values():
        await trio[0].run(statement)
    await settle(*trio)
    await assert_equal(*trio)
    there = await trio[2].database.run(shared_rows)
    assert [table for table, rows in there.items() if not rows] == []


async def test_changes_and_deletions_come_to_the_others(trio: list[Member]) -> None:
    a, b, c = trio
    for statement in ROWS.values():
        await a.run(statement)
    await settle(*trio)
    await b.run("UPDATE users SET plan = 'other'")
    await c.run("UPDATE response SET expires = 99.0")
    await a.run("DELETE FROM pause")
    await b.run("DELETE FROM link")
    await settle(*trio)
    await assert_equal(*trio)
    assert await a.rows("SELECT plan FROM users") == [("other",)]
    assert await a.rows("SELECT expires, length(sealed) FROM response") == [(99.0, 5000)]
    assert await c.rows("SELECT * FROM pause UNION ALL SELECT digest, 1 FROM link") == []


async def test_a_deleted_account_goes_with_its_rows(trio: list[Member]) -> None:
    a, b, c = trio
    for statement in ROWS.values():
        await a.run(statement)
    await settle(*trio)
    await b.run("DELETE FROM keys")
    await b.run("DELETE FROM users")
    await settle(*trio)
    await assert_equal(*trio)
    for table in ("session", "response", "passkey", "totp", "identity"):
        assert await c.rows(f"SELECT * FROM {table}") == []


async def test_changes_of_two_columns_at_once_both_hold(trio: list[Member]) -> None:
    a, b, _ = trio
    await a.run(ROWS["users"])
    await settle(*trio)
    await a.run("UPDATE users SET plan = 'bought'")
    await b.run("UPDATE users SET password_hash = 'new'")
    await settle(*trio)
    await assert_equal(*trio)
    assert await a.rows("SELECT plan, password_hash FROM users") == [("bought", "new")]


async def test_a_key_of_an_account_deleted_meanwhile_goes(trio: list[Member]) -> None:
    a, b, _ = trio
    await a.run(ROWS["users"])
    await settle(*trio)
    await a.run("DELETE FROM users")
    await b.run(ROWS["keys"])
    await settle(*trio)
    await assert_equal(*trio)
    assert await b.rows("SELECT id FROM keys") == []
