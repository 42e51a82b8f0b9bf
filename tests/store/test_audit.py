import json
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.store import audit, balance, imports, keys, pauses, users
from relay.store.audit import Actor, AuditFilter, Change
from relay.store.database import Database, StoreError
from tests.store.entries import NOON, rows

ADMIN = Actor("usr_admin", "192.0.2.7")
JSON = st.dictionaries(st.text(max_size=4), st.one_of(st.none(), st.integers(0, 3), st.text()))


async def actions(database: Database) -> list[str]:
    return [entry.action for entry in reversed(await audit.entries(database))]


async def test_a_change_of_anything_leaves_an_entry(database: Database) -> None:
    mine = database.by(ADMIN)
    user = await users.create_user(mine, email="a@b.c", plan="free", is_admin=False, now=1.0)
    assert user is not None
    await users.set_plan(mine, "a@b.c", "pro", 2.0)
    await users.suspend(mine, "a@b.c", 3.0, "shared key")
    await users.resume(mine, "a@b.c", 4.0)
    await users.set_admin(mine, "a@b.c", True, 5.0)
    key = await keys.create_key(
        mine, keys.NewKey(user, "k", b"d" * 32, "sk-…abcd"), max_keys=1, now=6.0
    )
    assert key is not None
    await keys.rename_key(mine, key.id, "laptop", 7.0)
    await keys.disable_key(mine, key.id, 8.0)
    await keys.enable_key(mine, key.id, 9.0)
    await keys.set_rules(mine, key.id, keys.KeyRules(models=("m*",)), 10.0)
    await keys.rotate_key(mine, key.id, keys.NewSecret(b"e" * 32, "sk-…efgh", 99.0), 11.0)
    await keys.revoke_key(mine, key.id, 12.0)
    await keys.delete_key(mine, key.id, 13.0)
    await balance.credit(mine, user.id, 5, "cash", 14.0)
    await pauses.pause(mine, "main", 15.0)
    await pauses.resume(mine, "main", 16.0)
    account = imports.ImportedAccount("b@b.c", "free", False, 1.0, (), 0, "")
    await imports.add_accounts(mine, [account], 17.0)
    assert await actions(database) == [
        "user.create", "user.plan", "user.suspend", "user.resume", "user.admin", "key.create",
        "key.rename", "key.disable", "key.enable", "key.rules", "key.rotate", "key.revoke",
        "key.delete", "balance.credit", "upstream.pause", "upstream.resume", "user.import",
    ]  # fmt: skip
    found = await audit.entries(database, limit=99)
    assert {(entry.actor, entry.address) for entry in found} == {("usr_admin", "192.0.2.7")}
    assert [entry.time for entry in found] == [float(number) for number in range(17, 0, -1)]
    suspended = next(entry for entry in found if entry.action == "user.suspend")
    assert suspended.before == {"suspended_at": None, "suspended_reason": ""}
    assert suspended.after == {"suspended_at": 3.0, "suspended_reason": "shared key"}


async def test_an_entry_has_no_digest_of_a_key(database: Database) -> None:
    user = await users.create_user(database, email="a@b.c", plan="free", is_admin=False, now=1.0)
    assert user is not None
    digest = bytes(range(32))
    key = await keys.create_key(
        database, keys.NewKey(user, "k", digest, "sk-…abcd"), max_keys=1, now=6.0
    )
    assert key is not None
    await keys.rotate_key(database, key.id, keys.NewSecret(b"e" * 32, "sk-…efgh", 99.0), 11.0)
    text = str(await rows(database, "SELECT * FROM audit"))
    assert "digest" not in text
    assert digest.hex() not in text


async def test_a_change_that_changes_nothing_leaves_none(database: Database) -> None:
    await users.create_user(database, email="a@b.c", plan="free", is_admin=False, now=1.0)
    for _ in range(2):
        await users.suspend(database, "a@b.c", 3.0)
        await pauses.pause(database, "main", 15.0)
    await users.set_plan(database, "a@b.c", "free")
    await users.set_plan(database, "nobody@b.c", "pro")
    account = imports.ImportedAccount("a@b.c", "free", False, 1.0, (), 0, "")
    await imports.add_accounts(database, [account], 17.0)
    assert await actions(database) == ["user.create", "user.suspend", "upstream.pause"]


async def test_an_import_that_is_tried_leaves_none(database: Database) -> None:
    account = imports.ImportedAccount("a@b.c", "free", False, 1.0, (), 5, "old")
    await imports.add_accounts(database, [account], 17.0, dry_run=True)
    assert await actions(database) == []


async def test_a_change_that_fails_leaves_none(database: Database) -> None:
    def work(connection: object) -> None:
        audit.record(connection, ADMIN, 1.0, Change("x", "y"))  # type: ignore[arg-type]
        raise LookupError

    with pytest.raises(LookupError):
        await database.write(work)
    assert await actions(database) == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET actor = 'nobody'",
        "DELETE FROM audit",
        "REPLACE INTO audit VALUES (1, 0.0, 'nobody', '', 'x', 'y', NULL, NULL)",
    ],
)
async def test_the_database_refuses_to_forge_an_entry(database: Database, statement: str) -> None:
    await audit.note(database, NOON, Change("x", "y"))
    before = await rows(database, "SELECT * FROM audit")
    with pytest.raises(StoreError, match="audit log is never"):
        await database.write(lambda c: c.execute(statement))
    assert await rows(database, "SELECT * FROM audit") == before


async def test_entries_are_read_page_by_page_and_by_filter(database: Database) -> None:
    for number in range(5):
        await audit.note(database.by(ADMIN), NOON, Change("key.x", f"key_{number}"))
    await audit.note(database, NOON, Change("user.x", "usr_1"))
    first = await audit.entries(database, limit=2)
    rest = await audit.entries(database, AuditFilter(before=first[-1].id))
    assert [entry.subject for entry in (*first, *rest)] == [
        "usr_1", "key_4", "key_3", "key_2", "key_1", "key_0",
    ]  # fmt: skip
    assert len(await audit.entries(database, AuditFilter(actor="usr_admin"))) == 5
    assert len(await audit.entries(database, AuditFilter(action="user."))) == 1
    assert len(await audit.entries(database, AuditFilter(subject="key_3", action="key"))) == 1


@given(before=JSON, after=JSON)
def test_an_entry_has_what_differs_and_no_more(
    before: dict[str, object], after: dict[str, object]
) -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute(
        "CREATE TABLE audit (id INTEGER PRIMARY KEY AUTOINCREMENT, time, actor, address, action,"
        " subject, before, after)"
    )
    connection.execute("CREATE TABLE replica (number)")
    audit.record(connection, ADMIN, 1.0, Change("x", "y", before, after))
    found = connection.execute("SELECT before, after FROM audit").fetchall()
    differing = {name for name in {**before, **after} if before.get(name) != after.get(name)}
    assert len(found) == bool(differing)
    for side, text in zip((before, after), found[0] if found else (), strict=False):
        assert json.loads(text) == {name: side.get(name) for name in differing}
    connection.close()
