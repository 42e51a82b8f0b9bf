"""What the provisioning API does."""

import asyncio
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.provisioning.call import cursor_of, place_of
from relay.store import audit
from tests.fakes.live import EMAIL, Live
from tests.gateway import metering

from .conftest import Caller


async def ada(api: Caller) -> dict[str, Any]:
    [person] = (await api.get(f"/api/v1/people?search={EMAIL}"))["data"]
    return dict(person)


async def test_a_person_is_made_found_suspended_and_resumed(relay: Live, api: Caller) -> None:
    made = await api.post("/api/v1/people", {"email": "bob@example.com"}, status=201)
    path = f"/api/v1/people/{made['id']}"
    assert await api.get(path) == made
    assert (await api.post("/api/v1/people", {"email": "BOB@example.com"}, status=409))["detail"]
    suspended = await api.post(f"{path}/suspend", {"reason": "unpaid"})
    assert suspended["suspended_reason"] == "unpaid"
    assert (await api.post(f"{path}/resume"))["suspended_at"] is None
    [entry] = await audit.entries(relay.app.database, limit=1)
    assert (entry.action, entry.actor[:4], entry.address) == ("user.resume", "adm_", "127.0.0.1")


async def test_people_are_listed_part_by_part(api: Caller) -> None:
    for number in range(5):
        await api.post("/api/v1/people", {"email": f"p{number}@example.com"}, status=201)
    found, path = [], "/api/v1/people?limit=2"
    while True:
        part = await api.get(path)
        found += [one["email"] for one in part["data"]]
        if part["next_cursor"] is None:
            break
        path = f"/api/v1/people?limit=2&cursor={part['next_cursor']}"
    assert found == [EMAIL, *(f"p{number}@example.com" for number in range(5))]
    assert (await api.call("GET", "/api/v1/people?cursor=abc")).status == 400


@given(st.text(max_size=80).filter(bool))
def test_a_cursor_leads_to_its_place(place: str) -> None:
    try:
        place.encode()
    except UnicodeEncodeError:
        return
    assert place_of(cursor_of(place)) == place


async def test_a_key_works_at_once_and_ends_at_once(relay: Live, api: Caller) -> None:
    person = await ada(api)
    issued = await api.post(f"/api/v1/people/{person['id']}/keys", {"name": "ci"}, status=201)
    assert (await metering.ask(relay, issued["key"]))[0] == 200
    path = f"/api/v1/keys/{issued['record']['id']}"
    changed = await api.call("PATCH", path, {"rules": {"models": ["claude-opus-*"]}, "name": "x"})
    assert (changed.value["models"], changed.value["name"]) == (["claude-opus-*"], "x")
    assert (await metering.ask(relay, issued["key"]))[0] == 403
    await api.call("PATCH", path, {"rules": {}, "disabled": True})
    assert (await metering.ask(relay, issued["key"]))[0] == 403
    await api.call("PATCH", path, {"disabled": False})
    rotated = await api.post(f"{path}/rotate", {"grace": "0"})
    assert (await metering.ask(relay, issued["key"]))[0] == 401
    assert (await metering.ask(relay, rotated["key"]))[0] == 200
    assert (await api.call("DELETE", path)).status == 200
    assert (await metering.ask(relay, rotated["key"]))[0] == 401
    assert (await api.call("GET", path)).status == 404


async def test_plans_and_windows_change_at_once(relay: Live, api: Caller) -> None:
    person = await ada(api)
    path = f"/api/v1/people/{person['id']}"
    for _ in range(3):
        await metering.ask(relay)
    await api.post(f"{path}/window", {"action": "reset", "window": "5h"})
    _, fields, _ = await metering.ask(relay)
    assert metering.left(fields) == 4
    await api.post(f"{path}/window", {"action": "bonus", "window": "5h", "amount": 7})
    _, fields, _ = await metering.ask(relay)
    assert metering.left(fields) == 10
    began = await api.post(f"{path}/plan", {"action": "start", "plan": "paid", "days": 30})
    assert (began["plan"], began["plan_then"]) == ("paid", "free")
    longer = await api.post(f"{path}/plan", {"action": "extend", "days": 1})
    assert longer["plan_until"] > began["plan_until"]
    assert (await metering.ask(relay))[0] == 402
    assert (await api.post(f"{path}/plan", {"action": "start", "plan": "x"}, status=400))["detail"]
    await api.post(f"{path}/plan", {"action": "set", "plan": "none"}, status=422)
    await api.post(f"{path}/window", {"action": "reset", "window": "9h"}, status=422)


async def test_credit_is_given_charged_and_given_back(relay: Live, api: Caller) -> None:
    person = await ada(api)
    path = f"/api/v1/people/{person['id']}"
    await api.post(f"{path}/plan", {"action": "set", "plan": "paid"})
    entry = await api.post(f"{path}/credit", {"amount_micro": 5_000_000}, status=201)
    assert entry["balance_micro"] == 5_000_000
    _, fields, _ = await metering.ask(relay)
    request = fields[b"request-id"].decode()
    [row] = await metering.settled(relay, 1)
    given = await api.post("/api/v1/refunds", {"request": request}, status=201)
    assert (given["amount_micro"], given["kind"]) == (row["cost_micro"], "refund")
    await api.post("/api/v1/refunds", {"request": request}, status=409)
    statement = await api.get(f"{path}/statement?limit=2")
    assert [one["kind"] for one in statement["data"]] == ["refund", "charge"]
    rest = await api.get(f"{path}/statement?cursor={statement['next_cursor']}")
    assert [one["kind"] for one in rest["data"]] == ["credit"]
    assert (await api.get(path))["balance_micro"] == 5_000_000
    usage = await api.get(f"/api/v1/usage?person={person['id']}")
    assert usage["data"][0]["cost_micro"] == row["cost_micro"]


async def test_an_upstream_is_paused_and_resumed(relay: Live, api: Caller) -> None:
    assert (await api.post("/api/v1/upstreams/main/pause"))["state"] == "paused"
    assert (await metering.ask(relay))[0] == 503
    assert (await api.post("/api/v1/upstreams/main/resume"))["state"] == "ok"
    await api.post("/api/v1/upstreams/main/clear")
    assert (await metering.ask(relay))[0] == 200
    await api.post("/api/v1/upstreams/none/pause", status=404)
    [shown] = (await api.get("/api/v1/upstreams"))["data"]
    assert shown["cost"]["day_micro"] > 0
    assert "data" in await api.get("/api/v1/upstreams/days")


async def test_a_spend_limit_stops_a_person_and_is_raised(relay: Live, api: Caller) -> None:
    person, path = await ada(api), "/v1/organizations/spend_limits"
    _, _, _ = await metering.ask(relay)
    [row] = await metering.settled(relay, 1)
    body = {"scope": {"type": "user", "user_id": person["id"]}, "amount": "0"}
    first = await api.post(path, body)
    assert (first["period"], first["type"], first["currency"]) == ("monthly", "spend_limit", "USD")
    status, _, octets = await metering.ask(relay)
    assert status == 429
    assert b"this account" in octets.lower()
    second = await api.post(path, {**body, "amount": "500"})
    assert (second["id"], second["created_at"]) == (first["id"], first["created_at"])
    assert (await metering.ask(relay))[0] == 200
    effective = (await api.get(f"{path}/effective"))["data"][0]
    assert effective["source"] == {"type": "user"}
    assert effective["amount"] == "500"
    assert float(effective["period_to_date_spend"]) >= row["cost_micro"] / 10_000
    assert (await api.get(f"{path}/{first['id']}"))["amount"] == "500"
    gone = await api.call("DELETE", f"{path}/{first['id']}")
    assert gone.value == {"id": first["id"], "type": "spend_limit_deleted"}
    unlimited = (await api.get(f"{path}/effective?user_ids[]={person['id']}&period[]=daily"))[
        "data"
    ]
    assert [(one["amount"], one["period"]) for one in unlimited] == [(None, "daily")]


async def test_what_was_spent_before_a_limit_counts(relay: Live, api: Caller) -> None:
    person = await ada(api)
    for _ in range(2):
        await metering.ask(relay)
    spent = sum(row["cost_micro"] for row in await metering.settled(relay, 2))
    body = {"scope": {"type": "user", "user_id": person["id"]}, "amount": "100", "period": "daily"}
    await api.post("/v1/organizations/spend_limits", body)
    [bucket] = relay.app.ledger.counters_of("spending", person["id"]).buckets
    assert bucket.used_units(int(time.time() * 1000)) == spent


# --- a call that comes again ---


async def test_a_repeated_call_is_carried_out_once(relay: Live, api: Caller) -> None:
    person = await ada(api)
    path, fields = f"/api/v1/people/{person['id']}/credit", "idempotency-key: pay-7\r\n"
    body = {"amount_micro": 1_000}
    answers = await asyncio.gather(*(api.call("POST", path, body, fields) for _ in range(8)))
    assert {one.status for one in answers} <= {201, 409}
    again = await api.call("POST", path, body, fields)
    assert again.status == 201
    assert all(one.value == again.value for one in answers if one.status == 201)
    assert (await ada(api))["balance_micro"] == 1_000
    other = await api.call("POST", path, {"amount_micro": 2_000}, fields)
    assert (other.status, "another call" in other.value["detail"]) == (409, True)
    bad = await api.call("POST", path, body, f"idempotency-key: {'x' * 256}\r\n")
    assert bad.status == 400


async def test_a_refused_call_may_come_again(api: Caller) -> None:
    fields = "idempotency-key: make\r\n"
    assert (await api.call("POST", "/api/v1/people", {"email": "no"}, fields)).status == 400
    bob = {"email": "bob@example.com", "plan": "none"}
    assert (await api.call("POST", "/api/v1/people", bob, fields)).status == 422
    made = await api.call("POST", "/api/v1/people", {"email": "bob@example.com"}, fields)
    assert made.status == 201


async def test_a_new_key_is_kept_in_no_answer(relay: Live, api: Caller) -> None:
    person = await ada(api)
    path, fields = f"/api/v1/people/{person['id']}/keys", "idempotency-key: key\r\n"
    issued = await api.call("POST", path, {}, fields)
    assert issued.status == 201
    again = await api.call("POST", path, {}, fields)
    assert (again.status, "shown in that answer alone" in again.value["detail"]) == (409, True)
    rows = await relay.app.database.select("SELECT body FROM idempotency")
    assert issued.value["key"] not in str(rows)


@pytest.mark.parametrize(
    ("octets", "status"),
    [(b"{", 400), (b"[]", 400), (b'{"x":1}', 400), (b"\xff", 400), (b'{"email":7}', 400),
     (b'{"email":"' + b"x" * 70_000 + b'"}', 413), (b"[" * 60_000, 400)],
)  # fmt: skip
async def test_a_wrong_body_is_refused_with_the_field(
    api: Caller, octets: bytes, status: int
) -> None:
    answer = await api.call("POST", "/api/v1/people", octets=octets)
    assert answer.status == status


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=x", "limit=1&limit=2", "y=1", "limit", "%ff=1"]
)
async def test_a_wrong_query_is_refused(api: Caller, query: str) -> None:
    assert (await api.call("GET", f"/api/v1/people?{query}")).status == 400


async def test_a_caller_who_leaves_is_not_credited_twice(relay: Live, api: Caller) -> None:
    """The call is carried out all the same, and its answer kept for the one that comes again."""
    person = (await api.call("POST", "/api/v1/people", {"email": "left@example.com"})).value
    path, fields = f"/api/v1/people/{person['id']}/credit", "idempotency-key: left-1\r\n"
    body = json.dumps({"amount_micro": 5_000_000}).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: a\r\nx-api-key: {api.key}\r\n{fields}"
    for _ in range(3):
        _, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()
        writer.transport.abort()
    async with asyncio.timeout(10):
        answer = await api.call("POST", path, {"amount_micro": 5_000_000}, fields)
        while answer.status == 409:  # one of them is being carried out
            await asyncio.sleep(0.01)
            answer = await api.call("POST", path, {"amount_micro": 5_000_000}, fields)
    assert answer.status == 201
    assert (await api.call("GET", f"/api/v1/people/{person['id']}")).value["balance_micro"] == 5e6


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"action": "set", "plan": "free", "days": 30}, "takes no days"),
        ({"action": "extend", "days": 30, "plan": "free"}, "takes no plan"),
        ({"action": "start", "plan": "free"}, "needs days"),
    ],
)
async def test_a_change_of_plan_has_no_field_too_many(
    api: Caller, change: dict[str, Any], says: str
) -> None:
    person = (await api.call("POST", "/api/v1/people", {"email": "fields@example.com"})).value
    answer = await api.call("POST", f"/api/v1/people/{person['id']}/plan", change)
    assert (answer.status, says in answer.value["detail"]) == (400, True)


@pytest.mark.parametrize(
    "target",
    [
        "people?cursor=", "people?search=", "usage?person=", "usage?key=", "usage?model=",
        "../../v1/organizations/spend_limits/effective?page=",
        "../../v1/organizations/spend_limits/effective?user_ids[]=",
    ],
)  # fmt: skip
async def test_a_name_without_a_value_is_refused(api: Caller, target: str) -> None:
    path = f"/api/v1/{target}".replace("/api/v1/../..", "")
    assert (await api.call("GET", path)).status == 400
