from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay import config
from relay.accounts import AccountError, InvalidError, users
from relay.config import Settings
from relay.store.database import Database
from relay.store.users import User, list_users

SETTINGS = config.parse({"plan": [{"id": "free"}, {"id": "pro"}]})


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = await Database.open(tmp_path / "relay.db")
    yield database
    await database.close()


async def create(
    database: Database, email: str, plan: str | None = None, settings: Settings = SETTINGS
) -> User:
    return await users.create(database, settings, email, plan=plan, is_admin=False, now=1.0)


@pytest.mark.parametrize(
    "email",
    ["a@b.c", "Ann.Smith+relay@mail.example.com", "me@localhost", "o'hara@x.ie", "1@2.3",
     "a" * 64 + "@" + "b" * 63 + ".example"],
)  # fmt: skip
async def test_a_valid_address_is_accepted(database: Database, email: str) -> None:
    assert (await create(database, email)).email == email


@pytest.mark.parametrize(
    "email",
    ["", "ann", "@", "ann@", "@example.com", "a b@example.com", "ann@exam ple.com", "a@b@c",
     "ann@-example.com", "ann@example..com", "ann@example.com.", "ann@example.com\n", "ann\x00@b.c",
     "änn@example.com", "ann@exämple.com", "ann@[127.0.0.1]", "<ann@example.com>", "a@b.c, d@e.f",
     "a" * 251 + "@b.c", "ann@" + "b" * 64 + ".com", "\udcff@b.c"],
)  # fmt: skip
async def test_an_invalid_address_is_refused(database: Database, email: str) -> None:
    with pytest.raises(InvalidError, match="no e-mail address; write") as caught:
        await create(database, email)
    assert str(caught.value).isprintable()
    assert await list_users(database) == []


async def test_the_first_plan_is_the_default(database: Database) -> None:
    assert (await create(database, "a@b.c")).plan == "free"
    assert (await create(database, "b@b.c", "pro")).plan == "pro"


async def test_an_unknown_plan_is_refused_with_a_list_of_plans(database: Database) -> None:
    with pytest.raises(InvalidError, match=r"no plan is named 'gold'; relay\.toml has free, pro"):
        await create(database, "a@b.c", "gold")
    await create(database, "a@b.c")
    with pytest.raises(InvalidError, match=r"no plan is named 'gold'; relay\.toml has free, pro"):
        await users.set_plan(database, SETTINGS, "a@b.c", "gold")
    assert (await users.find(database, "a@b.c")).plan == "free"


async def test_without_any_plan_the_error_says_to_add_one(database: Database) -> None:
    for plan in (None, "free"):
        with pytest.raises(InvalidError, match=r"add a \[\[plan\]\]"):
            await create(database, "a@b.c", plan, settings=Settings())


async def test_a_taken_address_is_refused_and_its_account_kept(database: Database) -> None:
    first = await create(database, "a@b.c")
    with pytest.raises(AccountError, match="has an account already"):
        await create(database, "A@B.c", "pro")
    assert await users.find(database, "a@b.c") == first


async def test_an_error_about_an_unknown_user_says_what_to_do(database: Database) -> None:
    for change in (
        users.find(database, "x@y.z"),
        users.set_plan(database, SETTINGS, "x@y.z", "pro"),
        users.suspend(database, "x@y.z", 1.0),
        users.resume(database, "x@y.z"),
    ):
        with pytest.raises(AccountError, match=r"'x@y\.z'; `relay user list` shows"):
            await change


async def test_a_suspended_user_can_be_resumed(database: Database) -> None:
    await create(database, "a@b.c")
    assert (await users.suspend(database, "A@b.c", 5.0)).suspended_at == 5.0
    assert (await users.resume(database, "a@B.c")).suspended_at is None
