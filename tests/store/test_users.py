from relay.store import users
from relay.store.database import Database
from relay.store.users import User


async def new_user(database: Database, email: str = "ann@example.com", plan: str = "free") -> User:
    user = await users.create_user(database, email=email, plan=plan, is_admin=False, now=1.5)
    assert user is not None
    return user


async def test_a_user_is_found_by_the_address_in_any_case(database: Database) -> None:
    user = await new_user(database, "Ann@Example.com")
    assert await users.find_user(database, "aNN@eXAMPLE.COM") == user
    assert await users.find_user(database, "bob@example.com") is None
    assert user.email == "Ann@Example.com"
    assert user.id.startswith("usr_")


async def test_an_address_has_one_account(database: Database) -> None:
    await new_user(database, "ann@example.com")
    again = await users.create_user(
        database, email="ANN@example.com", plan="pro", is_admin=True, now=2.0
    )
    assert again is None
    assert [user.plan for user in await users.list_users(database)] == ["free"]


async def test_changes_to_a_user_are_kept(database: Database) -> None:
    user = await new_user(database)
    changed = await users.set_plan(database, user.email.upper(), "pro")
    assert changed is not None
    assert changed.plan == "pro"
    suspended = await users.suspend(database, user.email, 7.0)
    assert suspended is not None
    assert suspended.suspended_at == 7.0
    again = await users.suspend(database, user.email, 8.0)
    assert again is not None
    assert again.suspended_at == 7.0  # since when, not when it was last asked for
    resumed = await users.resume(database, user.email)
    assert resumed is not None
    assert resumed.suspended_at is None
    assert await users.find_user(database, user.email) == resumed


async def test_changing_an_unknown_user_changes_nothing(database: Database) -> None:
    user = await new_user(database)
    assert await users.set_plan(database, "nobody@x.y", "pro") is None
    assert await users.suspend(database, "nobody@x.y", 1.0) is None
    assert await users.resume(database, "nobody@x.y") is None
    assert await users.list_users(database) == [user]
