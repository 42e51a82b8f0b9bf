"""Who may call the provisioning API, and how often."""

import time

import pytest

from relay.accounts import InvalidError, admin_keys
from relay.provisioning import access
from relay.provisioning.problems import Problem
from relay.provisioning.routes import ROUTES
from relay.store.admin_keys import list_admin_keys
from tests.fakes.live import Live
from tests.gateway import metering

from .conftest import Caller, caller_with

CONCRETE = [(route, route.path.replace("{id}", "x").replace("{name}", "x")) for route in ROUTES]


@pytest.mark.parametrize("key", ["", "sk-llmapi-wrong", "sk-llmapi-admin-wrong"])
async def test_no_path_is_served_without_a_key(relay: Live, key: str) -> None:
    caller = Caller(relay, key)
    for route, path in CONCRETE[:20]:
        answer = await caller.call(route.method, path, {})
        assert answer.status == 401
        assert answer.fields[b"www-authenticate"] == b"Bearer"


async def test_each_path_needs_its_scope(relay: Live) -> None:
    for route, path in CONCRETE:
        others = [scope for scope in admin_keys.SCOPES if scope != route.scope]
        caller = await caller_with(relay, *others)
        answer = await caller.call(route.method, path, {})
        assert (answer.status, route.scope in answer.value["detail"]) == (403, True), path


async def test_a_callers_key_is_no_admin_key_nor_the_other_way(relay: Live, api: Caller) -> None:
    answer = await api.call("GET", "/api/v1/people", key=relay.key)
    assert (answer.status, "no admin key" in answer.value["detail"]) == (401, True)
    assert (await metering.ask(relay, api.key))[0] == 401


async def test_a_revoked_or_expired_key_ends_at_once(relay: Live, api: Caller) -> None:
    database, settings = relay.app.database, relay.settings
    [record] = await list_admin_keys(database)
    await admin_keys.revoke(database, record.id, time.time())
    assert (await api.call("GET", "/api/v1/people")).status == 401
    old = await admin_keys.create(
        database, settings, ["people:read"], lifetime="1m", now=time.time() - 61
    )
    assert (await api.call("GET", "/api/v1/people", key=old.key.reveal())).status == 401


async def test_wrong_keys_and_calls_have_a_rate(
    relay: Live, api: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "_CALLS_PER_MINUTE", 3)
    monkeypatch.setattr(access, "_FAILURES_PER_MINUTE", 2)
    statuses = [(await api.call("GET", "/api/v1/plans")).status for _ in range(4)]
    assert statuses == [200, 200, 200, 429]
    wrong = [await api.call("GET", "/api/v1/plans", key="x") for _ in range(3)]
    assert [one.status for one in wrong] == [401, 401, 429]
    assert wrong[-1].fields[b"retry-after"].isdigit()
    other = await caller_with(relay, "plans:read")
    assert (await other.call("GET", "/api/v1/plans")).status == 429  # has never been good


@pytest.mark.parametrize(
    ("scopes", "more"),
    [([], {}), (["people:all"], {}), (["people:read"], {"name": "\n"}),
     (["people:read"], {"lifetime": "soon"})],
)  # fmt: skip
async def test_a_wrong_key_is_not_made(
    relay: Live, scopes: list[str], more: dict[str, str]
) -> None:
    with pytest.raises(InvalidError):
        await admin_keys.create(relay.app.database, relay.settings, scopes, now=1.0, **more)


async def test_an_admin_key_is_kept_as_its_digest_only(relay: Live, api: Caller) -> None:
    rows = str(await relay.app.database.select("SELECT * FROM admin_key"))
    audit = str(await relay.app.database.select("SELECT * FROM audit"))
    assert api.key not in rows + audit
    assert api.key[-4:] in rows


async def test_wrong_keys_count_for_their_network(
    relay: Live, api: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A subscriber has a complete IPv6 network, and many others do not make the count forgotten."""
    monkeypatch.setattr(access, "_FAILURES_PER_MINUTE", 2)
    door = access.KeyCheck(relay.app.database)

    async def status(peer: str, key: str = "x") -> int:
        headers = {b"x-api-key": key.encode()}
        try:
            await door.admit(headers, peer, "sk-llmapi-admin-", 1000.0)
        except Problem as problem:
            return problem.status
        return 200

    own = [await status(f"2001:db8:1:2::{number}") for number in range(1, 4)]
    assert own == [401, 401, 429]
    for number in range(5000):
        await status(f"2001:db8:{number:x}:ffff::1")
    assert await status("2001:db8:1:2::9") == 429
    assert await status("2001:db8:1:3::9") == 401
    assert await status("2001:db8:1:2::9", api.key) == 429  # has never been good


async def test_wrong_keys_keep_nobody_out_who_has_a_key(
    relay: Live, api: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "_FAILURES_PER_MINUTE", 1)
    assert (await api.call("GET", "/api/v1/plans")).status == 200
    wrong = [(await api.call("GET", "/api/v1/plans", key="x")).status for _ in range(3)]
    assert wrong == [401, 429, 429]
    assert (await api.call("GET", "/api/v1/plans")).status == 200
