"""A request whose plan changes while it waits in the queue is admitted once, under the new plan."""

import json
import threading
from typing import Any

import pytest

from relay.accounts import users
from relay.gateway import metering
from relay.translate.messages.features import Features
from tests.attacks.uploads import PATHS, asked, chunk, head, other_key, several
from tests.fakes.caller import connected, read_answer, request
from tests.fakes.live import EMAIL, Live, RelayWith
from tests.fakes.pool import Pool, PoolWith
from tests.fakes.until import until
from tests.gateway.metering import PRICED, beside, credit, settled

FREE = {"id": "free", "max_keys": 10, "limits": [{"requests": 9, "per": "5h"}]}
PAID = {"id": "paid", "max_keys": 10, "billing": "per-token"}
NARROW = {"id": "narrow", "max_keys": 10, "limits": [{"tokens": 1, "per": "5h"}]}
BARE = {"id": "bare", "max_keys": 10, "exclude": ["web_search"]}
PLANS = [FREE, PAID, NARROW, BARE]
COUNT = "SELECT count(*) FROM statement WHERE kind = 'charge' AND request_id = ?"


async def move(relay: Live, plan: str) -> None:
    await users.set_plan(relay.app.database, relay.settings, EMAIL, plan)
    await relay.reload_keys()


async def queued_answer(
    pool: Pool, body: bytes | dict[str, Any], target: str, plan: str
) -> tuple[int, dict[bytes, bytes], bytes]:
    """The answer to a request whose account moves to `plan` while it waits for its place."""
    relay = pool.relay
    other = await other_key(relay)
    pool["a"].hold()
    async with several(relay.port, 2) as (first, second):
        first[1].write(request(other))
        await until(lambda: pool["a"].held)
        second[1].write(request(relay.key, body, target=target))
        await until(lambda: relay.app.upstreams.waiting)
        await move(relay, plan)
        pool["a"].let(2)
        assert (await read_answer(first[0]))[0] == 200
        return await read_answer(second[0])


async def waiting_room(pool_with: PoolWith) -> Pool:
    return await pool_with({"a": {"max_concurrency": 1}}, plan=PLANS, model=PRICED)


@pytest.mark.parametrize("target", PATHS)
async def test_a_request_is_charged_once_under_its_new_plan(
    pool_with: PoolWith, target: str
) -> None:
    pool = await waiting_room(pool_with)
    relay = pool.relay
    await credit(relay, 10_000_000)
    status, fields, _ = await queued_answer(pool, asked(target), target, "paid")
    assert status == 200
    rows = await settled(relay, 2)
    own = [row for row in rows if row["id"] == fields[b"request-id"].decode()]
    assert [row["rule"] for row in own] == ["reported"]
    with beside(relay) as connection:
        assert connection.execute(COUNT, (own[0]["id"],)).fetchone()[0] == 1
    state = relay.app.ledger._key_states[own[0]["key_id"]]
    assert state.in_flight == 0
    assert state.balance is not None
    assert state.balance.held == 0


@pytest.mark.parametrize("target", PATHS)
@pytest.mark.parametrize(("plan", "status"), [("paid", 402), ("narrow", 429)])
async def test_a_request_that_its_new_plan_refuses_has_one_row(
    pool_with: PoolWith, target: str, plan: str, status: int
) -> None:
    pool = await waiting_room(pool_with)
    if plan == "narrow":
        await move(pool.relay, "narrow")
        assert (await pool.ask(asked(target), target=target)).status == 200  # in debt from now on
        await move(pool.relay, "free")
    got, fields, _ = await queued_answer(pool, asked(target), target, plan)
    assert got == (429 if "responses" in target else status)
    rows = await settled(pool.relay, 2 + (plan == "narrow"))
    [own] = [row for row in rows if row["id"] == fields[b"request-id"].decode()]
    assert (own["rule"], own["status"]) == ("refunded", got)
    assert own["outcome"].startswith("refused: ")
    assert pool.upstream("a").in_flight == 0
    assert all(one.in_flight == 0 for one in pool.relay.app.ledger._key_states.values())


# --- features of large requests -----------------------------------------------------

TEXT = {"role": "user", "content": [{"type": "text", "text": "a"}] * 5_000}


def large(target: str) -> bytes:
    """A request that is heavy: of many elements."""
    turns = "input" if "responses" in target else "messages"
    document = {**asked(target), turns: [TEXT]}
    if "responses" in target:
        document[turns] = [{"role": "user", "content": "a"}] * 5_000
    return json.dumps(document).encode()


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The threads on which features were read."""
    names: list[str] = []

    def features(*given: Any, **more: Any) -> Features:
        names.append(threading.current_thread().name)
        return Features(*given, **more)

    monkeypatch.setattr(metering, "Features", features)
    return names


@pytest.mark.matrix(share=3)
@pytest.mark.parametrize("plan", ["paid", "bare"])
@pytest.mark.parametrize("target", PATHS)
@pytest.mark.parametrize("framing", ["length", "chunks"])
async def test_features_of_large_requests_are_read_off_the_loop(
    relay_with: RelayWith, threads: list[str], target: str, plan: str, framing: str
) -> None:
    relay = await relay_with(plan=PLANS, model=PRICED)
    await credit(relay, 10_000_000)
    await move(relay, plan)
    body = large(target)
    octets = request(relay.key, body, target=target)
    if framing == "chunks":
        octets = head(relay.key, target=target) + chunk(body) + b"0\r\n\r\n"
    async with connected(relay.port) as (reader, writer):
        writer.write(octets)
        assert (await read_answer(reader))[0] == 200
        assert threads == ["reading"]
        writer.write(request(relay.key, asked(target), target=target))
        assert (await read_answer(reader))[0] == 200
        assert threads == ["reading", "MainThread"]  # a small one is read faster than handed over


@pytest.mark.parametrize("target", PATHS)
async def test_features_are_read_off_the_loop_after_a_wait_too(
    pool_with: PoolWith, threads: list[str], target: str
) -> None:
    pool = await waiting_room(pool_with)
    await credit(pool.relay, 10_000_000)
    status, fields, _ = await queued_answer(pool, large(target), target, "paid")
    assert status == 200
    assert threads == ["reading"]
    rows = await settled(pool.relay, 2)
    own = [row for row in rows if row["id"] == fields[b"request-id"].decode()]
    assert [row["rule"] for row in own] == ["reported"]
