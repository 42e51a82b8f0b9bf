from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay import config, secret
from relay.accounts import AccountError, InvalidError, keys, users
from relay.config import Settings
from relay.store.database import Database
from relay.store.keys import NewKey, create_key, list_keys, live_keys

SETTINGS = config.parse({"plan": [{"id": "free", "max_keys": 2}, {"id": "solo", "max_keys": 1}]})
EMAIL = "ann@example.com"


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = await Database.open(tmp_path / "relay.db")
    await users.create(database, SETTINGS, EMAIL, plan="free", is_admin=False, now=1.0)
    yield database
    await database.close()


async def issue(
    database: Database,
    *,
    now: float = 100.0,
    name: str = "laptop",
    expires: str | None = None,
    settings: Settings = SETTINGS,
    email: str = EMAIL,
) -> keys.Issued:
    return await keys.create(database, settings, email, keys.KeyOptions(name, expires), now=now)


async def test_a_key_is_kept_as_its_digest_and_hint_only(
    database: Database, tmp_path: Path
) -> None:
    issued = await issue(database)
    key = issued.key.reveal()
    random = key.removeprefix("sk-llmapi-")
    assert len(random) >= 43
    assert issued.record.hint == "sk-llmapi-…" + key[-4:]
    [live] = await live_keys(database)
    assert live.digest == secret.digest(key.encode())
    kept = b"".join(file.read_bytes() for file in sorted(tmp_path.glob("relay.db*")))  # noqa: ASYNC240
    assert live.digest in kept
    for start in range(len(random) - 8):  # no stretch of it, however short of the whole
        assert random[start : start + 8].encode() not in kept
    assert random not in repr(issued)


async def test_a_key_gets_cache_breakpoints_unless_it_opts_out(
    database: Database,
) -> None:
    marked = await issue(database)
    bare = await keys.create(
        database, SETTINGS, EMAIL, keys.KeyOptions(cache_breakpoints=False), now=100.0
    )
    assert (marked.record.cache_breakpoints, bare.record.cache_breakpoints) == (True, False)


async def test_the_prefix_of_the_settings_begins_the_key(database: Database) -> None:
    settings = config.parse({"server": {"key_prefix": "my-"}, "plan": [{"id": "free"}]})
    issued = await issue(database, settings=settings)
    assert issued.key.reveal().startswith("my-")
    assert issued.record.hint.startswith("my-…")


async def test_a_plans_keys_are_counted_while_they_live(database: Database) -> None:
    first = await issue(database, now=100.0)
    await issue(database, now=100.0, expires="60s")
    with pytest.raises(AccountError, match=r"has 2 live keys, all that plan 'free' allows") as full:
        await issue(database, now=159.9)
    assert "relay key revoke" in str(full.value)
    assert not isinstance(full.value, InvalidError)
    await issue(database, now=160.0)
    await keys.revoke(database, first.record.id, 161.0)
    await issue(database, now=162.0)
    with pytest.raises(AccountError, match="2 live keys"):
        await issue(database, now=163.0)


async def test_another_plan_has_its_own_maximum(database: Database) -> None:
    await issue(database)
    await users.set_plan(database, SETTINGS, EMAIL, "solo")
    with pytest.raises(AccountError, match="has 1 live key, all that plan 'solo' allows"):
        await issue(database)


async def test_a_key_expires_after_its_lifetime(database: Database) -> None:
    record = (await issue(database, now=1000.0, expires="30d")).record
    assert record.expires_at == 1000.0 + 30 * 86400
    assert record.state(record.expires_at - 0.001) == "live"
    assert record.state(record.expires_at) == "expired"


@pytest.mark.parametrize("expires", ["", "30", "d", "0d", "-1d", "1.5h", "30 d", "3w", "36501d",
                                     "999999999d"])  # fmt: skip
async def test_an_invalid_lifetime_is_refused(database: Database, expires: str) -> None:
    with pytest.raises(InvalidError, match="lifetime"):
        await issue(database, expires=expires)
    assert await list_keys(database) == []


@pytest.mark.parametrize("name", ["a\nb", "\x1b[31mred", "x" * 101, "\u202eevil", "\udc80"])
async def test_a_name_that_could_upset_a_terminal_is_refused(database: Database, name: str) -> None:
    with pytest.raises(InvalidError, match="name"):
        await issue(database, name=name)


async def test_a_key_for_nobody_is_refused(database: Database) -> None:
    with pytest.raises(AccountError, match=r"no user has the address 'x@y\.z'"):
        await issue(database, email="x@y.z")


async def test_an_error_about_a_missing_plan_says_how_to_move(database: Database) -> None:
    settings = config.parse({"plan": [{"id": "other"}]})
    with pytest.raises(AccountError, match=f"has other; `relay user set-plan {EMAIL} PLAN`"):
        await issue(database, settings=settings)


async def test_a_key_is_revoked_by_its_id_or_a_unique_prefix(
    database: Database,
) -> None:
    first, second = await issue(database), await issue(database)
    assert (await keys.revoke(database, first.record.id, 5.0)).revoked_at == 5.0
    assert (await keys.revoke(database, second.record.id[:15], 6.0)).id == second.record.id
    assert await live_keys(database) == []


async def test_a_prefix_of_several_ids_revokes_none(database: Database) -> None:
    user = await users.find(database, EMAIL)
    shared = 0
    while not shared:  # ids are random: make keys until two begin alike
        digest = secret.digest(secret.new_key("").encode())
        await create_key(database, NewKey(user, "", digest, ""), max_keys=99, now=1.0)
        starts = [key.id[:5] for key in await list_keys(database)]
        shared = len(starts) - len(set(starts))
    start = next(start for start in starts if starts.count(start) > 1)
    with pytest.raises(AccountError, match=f"2 keys have ids that begin with {start}"):
        await keys.revoke(database, start, 2.0)
    assert all(key.revoked_at is None for key in await list_keys(database))


async def test_an_error_about_an_unknown_id_says_what_to_do(database: Database) -> None:
    with pytest.raises(AccountError, match="no key has the id key_00; `relay key list` shows"):
        await keys.revoke(database, "key_00", 1.0)


async def test_a_key_pasted_instead_of_its_id_is_not_repeated(database: Database) -> None:
    key = (await issue(database)).key.reveal()
    for wrong in (key, "", "key_", "usr_00", "%"):
        with pytest.raises(InvalidError, match="no key id; one looks like") as caught:
            await keys.revoke(database, wrong, 1.0)
        assert key not in str(caught.value)
    assert len(await live_keys(database)) == 1
