"""Requests that are refused before their admission are counted for their person."""

import asyncio
import time
from typing import Any

import pytest

from relay.gateway import refusal_counts
from relay.store.keys import KeyRules, disable_key, set_rules
from relay.store.refusals import Refusals, add_refusals, prune_refusals, refusals_of
from relay.store.request_log import RequestFilter
from tests.fakes.live import Live, RelayWith
from tests.web.administration import MODELS
from tests.web.conftest import NewVisitor
from tests.web.visitor import WEB, Visitor, ask, cells, owner

PLANS: list[dict[str, Any]] = [
    {"id": "free", "max_keys": 9, "limits": [{"requests": 3, "per": "5h"}]},
]


async def counts(live: Live, user_id: str, total: int) -> list[Refusals]:
    """The counts of an account, once so many refusals are written."""
    async with asyncio.timeout(20):
        while True:
            found = await refusals_of(live.app.database, user_id, RequestFilter())
            if sum(one.number for one in found) >= total:
                return found
            await asyncio.sleep(0.01)


def by_reason(found: list[Refusals]) -> dict[tuple[str, int], int]:
    """Numbers by reason and status, whichever minutes they are in."""
    sums: dict[tuple[str, int], int] = {}
    for one in found:
        sums[one.reason, one.status] = sums.get((one.reason, one.status), 0) + one.number
    return sums


@pytest.fixture
async def shop(relay_with: RelayWith, monkeypatch: pytest.MonkeyPatch) -> Live:
    monkeypatch.setattr(refusal_counts, "_WRITE_AFTER_SECONDS", 0.02)
    limits = {"limits": {"body": 1_000_000}}
    return await relay_with(web=WEB, plan=PLANS, model=MODELS, server=limits)


@pytest.fixture
async def person(shop: Live, another: NewVisitor) -> Visitor:
    visitor = another(shop)
    await visitor.sign_up()
    return visitor


async def test_each_reason_is_shown_with_its_number(shop: Live, person: Visitor) -> None:
    key = await person.new_key("laptop")
    user_id, _ = await owner(shop, person)
    assert await ask(shop, key, 2, model="no-such-model") == [404, 404]
    assert await ask(shop, key, 1, filler="x" * 1_100_000) == [413]
    assert await ask(shop, key, 5) == [200, 200, 200, 429, 429]
    assert by_reason(await counts(shop, user_id, 5)) == {
        ("model_not_found", 404): 2,
        ("request_too_large", 413): 1,
        ("requests/18000", 429): 2,
    }
    page = (await person.get("/dashboard/requests")).text
    rows = "\n".join(cells(page))
    for words in ("laptop", "Refused 404", "no-such-model", "Refused 413", "Refused 429"):
        assert words in rows
    assert "x" * 50 not in page
    other = (await person.get("/dashboard/requests?key=key_none")).text
    assert "Refused 404" not in other


async def test_forbidden_requests_are_counted(shop: Live, person: Visitor) -> None:
    """By the address that they come from, and by a key that is disabled."""
    key = await person.new_key("laptop")
    user_id, key_id = await owner(shop, person)
    database, now = shop.app.database, time.time()
    await set_rules(database, key_id, KeyRules(addresses=("192.0.2.1/32",)), now)
    await shop.reload_keys()
    assert await ask(shop, key) == [403]
    await disable_key(database, key_id, now)
    await shop.reload_keys()
    assert await ask(shop, key, 2) == [403, 403]
    found = await counts(shop, user_id, 3)
    assert by_reason(found) == {("permission_denied", 403): 3}
    assert all(one.last_id.startswith("req_") for one in found)


async def test_an_unknown_key_is_counted_for_nobody(shop: Live, person: Visitor) -> None:
    key = await person.new_key()
    assert await ask(shop, "sk-llmapi-unknown") == [401]
    assert await ask(shop, key, model="no-such-model") == [404]
    user_id, _ = await owner(shop, person)
    [only] = await counts(shop, user_id, 1)
    rows = await shop.app.database.select("SELECT count(*) FROM refusal")
    assert (only.status, rows) == (404, [(1,)])


async def test_an_answered_request_is_not_counted(shop: Live, person: Visitor) -> None:
    key = await person.new_key()
    assert await ask(shop, key) == [200]
    assert await ask(shop, key, model="no-such-model") == [404]
    user_id, _ = await owner(shop, person)
    assert [one.number for one in await counts(shop, user_id, 1)] == [1]


async def test_counts_of_a_key_are_bounded(
    shop: Live, person: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A further reason between two writes is not counted, and takes no place of another key."""
    monkeypatch.setattr(refusal_counts, "_MAX_OF_KEY", 0)
    key, other = await person.new_key("one"), await person.new_key("two")
    assert await ask(shop, key, 2, model="no-such-model") == [404, 404]
    monkeypatch.setattr(refusal_counts, "_MAX_OF_KEY", 1)
    assert await ask(shop, other, model="no-such-model") == [404]
    user_id, _ = await owner(shop, person)
    assert by_reason(await counts(shop, user_id, 1)) == {("model_not_found", 404): 1}


async def test_old_counts_go_and_many_go_earlier(
    shop: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = int(time.time())
    made = [Refusals("usr_1", now - 60 * n, "key_1", "x", 1, 404, "", "", "") for n in range(30)]
    old = Refusals("usr_1", now - 8 * 86_400, "key_1", "x", 1, 404, "", "", "")
    database = shop.app.database
    await add_refusals(database, [*made, old])
    await prune_refusals(database, now)
    assert len(await refusals_of(database, "usr_1", RequestFilter(), 99)) == 30
    monkeypatch.setattr("relay.store.refusals._MAX_ROWS", 20)
    await prune_refusals(database, now)
    left = await refusals_of(database, "usr_1", RequestFilter(), 99)
    assert [one.minute for one in left] == [one.minute for one in made[:19]]
