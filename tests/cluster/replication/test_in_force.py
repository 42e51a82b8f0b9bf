"""Rows of another node come into force: a running server sees the account as changed."""

from collections.abc import Awaitable, Callable

import pytest

from relay.store import balance, keys, sessions, spend_limits, users
from relay.store.database import Database
from relay.store.keys import NewKey, changed_since, live_keys, revision
from relay.store.sessions import Session
from tests.cluster.replication.members import Member, settle

NOON = 1_780_000_000.0
DIGEST = b"d" * 32


@pytest.fixture
async def account(trio: list[Member]) -> tuple[str, str]:
    """The ids of an account and its key, which all nodes have."""
    database = trio[0].database
    user = await users.create_user(database, email="a@b.c", plan="p", is_admin=False, now=NOON)
    assert user is not None
    key = await keys.create_key(database, NewKey(user, "k", DIGEST, "…"), max_keys=9, now=NOON)
    assert key is not None
    await settle(*trio)
    return user.id, key.id


Act = Callable[[Database, str, str], Awaitable[object]]
ACTS: dict[str, Act] = {
    "revoked": lambda it, _, key: keys.revoke_key(it, key, NOON),
    "disabled": lambda it, _, key: keys.disable_key(it, key, NOON),
    "suspended": lambda it, _, __: users.suspend(it, "a@b.c", NOON),
    "plan": lambda it, _, __: users.set_plan(it, "a@b.c", "pro"),
    "credit": lambda it, user, _: balance.credit(it, user, 5, "", NOON),
    "deleted": lambda it, user, _: sessions.delete_user(it, user, NOON),
}


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
async def test_a_change_elsewhere_comes_into_force(
    trio: list[Member], account: tuple[str, str], act: Act
) -> None:
    a, _, c = trio
    before = await revision(c.database)
    await act(a.database, *account)
    await settle(*trio)
    assert await changed_since(c.database, before) == [account[0]]
    assert await live_keys(c.database) == await live_keys(a.database)


async def test_a_limit_on_spending_comes_into_force(
    trio: list[Member], account: tuple[str, str]
) -> None:
    a, b, _ = trio
    before = await revision(b.database)
    await a.run("INSERT INTO spend_limit VALUES ('lim', ?, 'daily', 5, 1.0, 1.0)", account[0])
    await settle(*trio)
    assert await changed_since(b.database, before) == [account[0]]
    assert len(await spend_limits.spend_limits(b.database, None)) == 1


async def test_a_session_is_known_on_each_node_until_it_ends(
    trio: list[Member], account: tuple[str, str]
) -> None:
    a, b, _ = trio
    new = Session(DIGEST, account[0], NOON, NOON, "::1", "browser")
    await sessions.add_session(a.database, new, 5)
    await settle(*trio)
    assert await sessions.find_session(b.database, DIGEST) is not None
    await sessions.end_session(b.database, account[0], new.id)
    await settle(*trio)
    assert await sessions.find_session(a.database, DIGEST) is None
