from relay.store import keys, users
from relay.store.database import Database
from relay.store.keys import Key, NewKey
from relay.store.users import User


async def new_user(database: Database, email: str = "ann@example.com", plan: str = "free") -> User:
    user = await users.create_user(database, email=email, plan=plan, is_admin=False, now=1.5)
    assert user is not None
    return user


async def new_key(
    database: Database,
    user: User,
    number: int,
    *,
    expires_at: float | None = None,
    max_keys: int = 99,
    cache_breakpoints: bool = True,
) -> Key | None:
    digest = bytes([number]) * 32
    new = NewKey(user, "laptop", digest, "sk-…abcd", expires_at, cache_breakpoints)
    return await keys.create_key(database, new, max_keys=max_keys, now=100.0 + number)


async def test_records_come_back_as_they_were_returned(database: Database) -> None:
    admin = await users.create_user(
        database, email="boss@example.com", plan="pro", is_admin=True, now=3.25
    )
    user = await new_user(database)
    key = await new_key(database, user, 1, expires_at=9.75)
    assert await users.list_users(database) == [user, admin]
    assert await keys.list_keys(database) == [key]


async def test_only_live_keys_count_towards_the_maximum(database: Database) -> None:
    user, other = await new_user(database), await new_user(database, "bob@example.com")
    await new_key(database, other, 1)
    first = await new_key(database, user, 2, max_keys=2)
    assert first is not None
    assert await new_key(database, user, 3, expires_at=105.0, max_keys=2) is not None
    assert await new_key(database, user, 4, max_keys=2) is None  # at 104 both live
    assert await new_key(database, user, 5, max_keys=2) is not None  # at 105 one has expired
    assert await new_key(database, user, 6, max_keys=2) is None
    await keys.revoke_key(database, first.id, 106.0)
    assert await new_key(database, user, 7, max_keys=2) is not None


async def test_a_key_is_revoked_once_and_for_good(database: Database) -> None:
    key = await new_key(database, await new_user(database), 1)
    assert key is not None
    assert key.state(0) == "live"
    revoked = await keys.revoke_key(database, key.id, 200.0)
    assert revoked is not None
    assert (revoked.revoked_at, revoked.state(0)) == (200.0, "revoked")
    again = await keys.revoke_key(database, key.id, 300.0)
    assert again == revoked
    assert await keys.revoke_key(database, "key_none", 1.0) is None


async def test_live_keys_have_everything_that_a_server_needs(database: Database) -> None:
    ann, bob = await new_user(database), await new_user(database, "bob@example.com", "pro")
    kept = await new_key(database, ann, 1, expires_at=500.0)
    gone = await new_key(database, ann, 2)
    bobs = await new_key(database, bob, 3, cache_breakpoints=False)
    assert kept is not None
    assert gone is not None
    assert bobs is not None
    await keys.revoke_key(database, gone.id, 5.0)
    await users.suspend(database, bob.email, 5.0)
    live = {key.key_id: key for key in await keys.live_keys(database)}
    assert set(live) == {kept.id, bobs.id}
    assert live[kept.id] == keys.LiveKey(
        b"\x01" * 32, kept.id, ann.id, ann.email, "free", False, 500.0, cache_breakpoints=True
    )
    assert live[bobs.id] == keys.LiveKey(
        b"\x03" * 32, bobs.id, bob.id, bob.email, "pro", True, None, cache_breakpoints=False
    )


async def test_keys_are_found_by_a_literal_prefix_of_their_id(
    database: Database,
) -> None:
    key = await new_key(database, await new_user(database), 1)
    assert key is not None
    assert await keys.find_keys(database, key.id[:8]) == [key]
    for pattern in ("key%", "%", "key_*", "KEY_", key.id + "0"):
        assert await keys.find_keys(database, pattern) == []


async def test_one_users_keys_can_be_listed_alone(database: Database) -> None:
    ann, bob = await new_user(database), await new_user(database, "bob@example.com")
    first, second = await new_key(database, ann, 1), await new_key(database, ann, 2)
    other = await new_key(database, bob, 3, cache_breakpoints=False)
    assert await keys.list_keys(database, "ANN@example.com") == [first, second]
    assert await keys.list_keys(database) == [first, second, other]
    assert await keys.list_keys(database, "nobody@x.y") == []
