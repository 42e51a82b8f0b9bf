"""Stored responses over real sockets: continued, shown, listed, deleted, private."""

import json
from typing import Any

import pytest

from tests.fakes.caller import connected, read_answer, request
from tests.fakes.live import Live, RelayWith
from tests.fakes.upstream import Upstream
from tests.gateway.test_translated import BODIES, RESPONSES

JSON = dict[str, Any]
BODY = BODIES[RESPONSES]
WHERE = {
    "memory": {"store": "memory"},
    "database": {"store": "database", "key": "k" * 32},
}


async def ask(
    relay: Live, body: JSON | None = None, *, path: str = "", method: str = "POST", key: str = ""
) -> tuple[int, JSON]:
    """Send a request; return the answer's status and document."""
    fields = f"authorization: Bearer {key or relay.key}\r\n"
    octets = b"" if body is None else json.dumps(body).encode()
    async with connected(relay.port) as (reader, writer):
        writer.write(request(None, octets, target=RESPONSES + path, method=method, fields=fields))
        status, head, payload = await read_answer(reader)
    if head[b"content-type"].startswith(b"text/event-stream"):
        payload = payload[payload.rindex(b"data: ") + 6 :]
        return status, json.loads(payload)["response"]
    return status, json.loads(payload)


async def other_account(relay: Live) -> str:
    """A key of another account."""
    await relay.create_user("ben@example.com")
    return await relay.new_key("ben@example.com")


@pytest.fixture(params=WHERE)
async def storing_relay(
    request: pytest.FixtureRequest, relay_with: RelayWith, recorder: Upstream
) -> Live:
    """A relay that stores responses."""
    return await relay_with(recorder, responses=WHERE[request.param])


@pytest.mark.parametrize("stream", [False, True])
async def test_a_conversation_continues_across_responses(
    storing_relay: Live, recorder: Upstream, stream: bool
) -> None:
    previous = None
    texts: list[str] = []
    for number in range(3):
        text = f"What did I say, {number}?"
        texts.append(text)
        status, answer = await ask(
            storing_relay,
            {**BODY, "input": text, "stream": stream, "previous_response_id": previous},
        )
        assert (status, answer["status"], answer["store"]) == (200, "completed", True)
        assert answer["previous_response_id"] == previous
        previous = answer["id"]
    last = json.loads(recorder.requests[-1].body)
    turns = [turn for turn in last["messages"] if turn["role"] == "user"]
    assert [turn["content"][-1]["text"] for turn in turns] == texts


async def test_a_stored_response_is_shown_unchanged_and_deleted(storing_relay: Live) -> None:
    _, answer = await ask(storing_relay, BODY)
    path = f"/{answer['id']}"
    assert await ask(storing_relay, path=path, method="GET") == (200, answer)
    status, items = await ask(storing_relay, path=f"{path}/input_items", method="GET")
    assert status == 200
    [item] = items["data"]
    assert (item["type"], item["role"], item["content"][0]["text"]) == ("message", "user", "hi")
    assert items["first_id"] == items["last_id"] == item["id"]
    assert (await ask(storing_relay, path=f"{path}/cancel"))[0] == 400
    deletion = {"id": answer["id"], "object": "response", "deleted": True}
    assert await ask(storing_relay, path=path, method="DELETE") == (200, deletion)
    for method in ("GET", "DELETE"):
        status, missing = await ask(storing_relay, path=path, method=method)
        assert (status, missing["error"]["code"]) == (404, "response_not_found")


async def test_items_are_listed_in_pages(storing_relay: Live) -> None:
    inputs = [{"role": "user", "content": f"{number}"} for number in range(5)]
    _, answer = await ask(storing_relay, {**BODY, "input": inputs})
    path = f"/{answer['id']}/input_items"
    _, first = await ask(storing_relay, path=f"{path}?limit=2&order=asc", method="GET")
    assert [item["content"][0]["text"] for item in first["data"]] == ["0", "1"]
    assert first["has_more"] is True
    after = f"{path}?order=asc&after={first['last_id']}"
    _, rest = await ask(storing_relay, path=after, method="GET")
    assert [item["content"][0]["text"] for item in rest["data"]] == ["2", "3", "4"]
    assert rest["has_more"] is False
    for wrong in ("limit=0", "limit=x", "order=up", "after=nobody"):
        status, refused = await ask(storing_relay, path=f"{path}?{wrong}", method="GET")
        assert (status, refused["error"]["param"]) == (400, wrong.partition("=")[0])


async def test_store_false_keeps_no_response(storing_relay: Live) -> None:
    _, answer = await ask(storing_relay, {**BODY, "store": False})
    assert answer["store"] is False
    assert (await ask(storing_relay, path=f"/{answer['id']}", method="GET"))[0] == 404


async def test_another_accounts_response_is_not_found(storing_relay: Live) -> None:
    _, answer = await ask(storing_relay, BODY)
    key = await other_account(storing_relay)
    path = f"/{answer['id']}"
    for method, tail in (("GET", ""), ("DELETE", ""), ("GET", "/input_items"), ("POST", "/cancel")):
        assert (await ask(storing_relay, path=path + tail, method=method, key=key))[0] == 404
    status, refused = await ask(
        storing_relay, {**BODY, "previous_response_id": answer["id"]}, key=key
    )
    assert (status, refused["error"]["code"]) == (400, "previous_response_not_found")
    assert (await ask(storing_relay, path=path, method="GET"))[0] == 200


async def test_an_incomplete_response_is_stored_as_incomplete(storing_relay: Live) -> None:
    status, answer = await ask(storing_relay, {**BODY, "stream": True, "max_output_tokens": 3})
    assert (status, answer["status"]) == (200, "incomplete")
    assert await ask(storing_relay, path=f"/{answer['id']}", method="GET") == (200, answer)


async def test_a_relay_without_storage_says_so(live: Live) -> None:
    _, answer = await ask(live, {**BODY, "store": True})
    assert answer["store"] is False
    for method, tail in (("GET", ""), ("DELETE", ""), ("GET", "/input_items"), ("POST", "/cancel")):
        status, refused = await ask(live, path=f"/{answer['id']}{tail}", method=method)
        assert (status, refused["error"]["code"]) == (404, "response_not_found")
        assert "keeps no responses" in refused["error"]["message"]
    status, refused = await ask(live, {**BODY, "previous_response_id": answer["id"]})
    assert status == 400
    found = refused["error"]
    assert (found["code"], found["param"]) == (
        "previous_response_not_found",
        "previous_response_id",
    )
    assert "store: false" in found["message"]
