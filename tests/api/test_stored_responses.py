"""Kept responses over real sockets: gone on from, shown, listed, deleted, and nobody else's."""

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from relay.accounts import keys, users
from relay.store.keys import live_keys
from tests.fakes.caller import connected, read_answer, request
from tests.fakes.live import Live, running_relay
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
    """An answer's status and document."""
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
    """A key of somebody else's."""
    app, now = relay.app, time.time()
    settings, email = app._settings, "ben@example.com"
    await users.create(app.database, settings, email, plan=None, is_admin=False, now=now)
    issued = await keys.create(app.database, settings, email, keys.KeyOptions("k"), now=now)
    app.callers.replace(await live_keys(app.database))
    return issued.key.reveal()


@pytest.fixture(params=WHERE)
async def keeping(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Live]:
    """A relay that keeps responses."""
    async with running_relay(tmp_path, responses=WHERE[request.param]) as relay:
        yield relay


@pytest.mark.parametrize("stream", [False, True])
async def test_a_conversation_goes_on_from_response_to_response(
    keeping: Live, stream: bool
) -> None:
    previous, said = None, []
    for number in range(3):
        text = f"What did I say, {number}?"
        said.append(text)
        status, told = await ask(
            keeping, {**BODY, "input": text, "stream": stream, "previous_response_id": previous}
        )
        assert (status, told["status"], told["store"]) == (200, "completed", True)
        assert told["previous_response_id"] == previous
        previous = told["id"]
    assert keeping.simulator is not None
    last = json.loads(keeping.simulator.journal._entries[-1]._body)  # what went upstream
    turns = [turn for turn in last["messages"] if turn["role"] == "user"]
    assert [turn["content"][-1]["text"] for turn in turns] == said


async def test_a_response_is_shown_as_it_was_and_can_be_deleted(keeping: Live) -> None:
    _, told = await ask(keeping, BODY)
    path = f"/{told['id']}"
    assert await ask(keeping, path=path, method="GET") == (200, told)
    status, items = await ask(keeping, path=f"{path}/input_items", method="GET")
    assert status == 200
    [item] = items["data"]
    assert (item["type"], item["role"], item["content"][0]["text"]) == ("message", "user", "hi")
    assert items["first_id"] == items["last_id"] == item["id"]
    assert (await ask(keeping, path=f"{path}/cancel"))[0] == 400
    gone = {"id": told["id"], "object": "response", "deleted": True}
    assert await ask(keeping, path=path, method="DELETE") == (200, gone)
    for method in ("GET", "DELETE"):
        status, told = await ask(keeping, path=path, method=method)
        assert (status, told["error"]["code"]) == (404, "response_not_found")


async def test_items_are_listed_in_pages(keeping: Live) -> None:
    given = [{"role": "user", "content": f"{number}"} for number in range(5)]
    _, told = await ask(keeping, {**BODY, "input": given})
    path = f"/{told['id']}/input_items"
    _, first = await ask(keeping, path=f"{path}?limit=2&order=asc", method="GET")
    assert [item["content"][0]["text"] for item in first["data"]] == ["0", "1"]
    assert first["has_more"] is True
    after = f"{path}?order=asc&after={first['last_id']}"
    _, rest = await ask(keeping, path=after, method="GET")
    assert [item["content"][0]["text"] for item in rest["data"]] == ["2", "3", "4"]
    assert rest["has_more"] is False
    for wrong in ("limit=0", "limit=x", "order=up", "after=nobody"):
        status, refused = await ask(keeping, path=f"{path}?{wrong}", method="GET")
        assert (status, refused["error"]["param"]) == (400, wrong.partition("=")[0])


async def test_a_response_that_is_not_to_be_kept_is_not(keeping: Live) -> None:
    _, told = await ask(keeping, {**BODY, "store": False})
    assert told["store"] is False
    assert (await ask(keeping, path=f"/{told['id']}", method="GET"))[0] == 404


async def test_nobody_elses_response_can_be_had(keeping: Live) -> None:
    _, told = await ask(keeping, BODY)
    key = await other_account(keeping)
    path = f"/{told['id']}"
    for method, tail in (("GET", ""), ("DELETE", ""), ("GET", "/input_items"), ("POST", "/cancel")):
        assert (await ask(keeping, path=path + tail, method=method, key=key))[0] == 404
    status, refused = await ask(keeping, {**BODY, "previous_response_id": told["id"]}, key=key)
    assert (status, refused["error"]["code"]) == (400, "previous_response_not_found")
    assert (await ask(keeping, path=path, method="GET"))[0] == 200


async def test_an_answer_that_was_cut_at_its_limit_is_kept_as_such(keeping: Live) -> None:
    status, told = await ask(keeping, {**BODY, "stream": True, "max_output_tokens": 3})
    assert (status, told["status"]) == (200, "incomplete")
    assert await ask(keeping, path=f"/{told['id']}", method="GET") == (200, told)


async def test_without_a_shelf_everybody_is_told_so(live: Live) -> None:
    _, told = await ask(live, {**BODY, "store": True})
    assert told["store"] is False
    for method, tail in (("GET", ""), ("DELETE", ""), ("GET", "/input_items"), ("POST", "/cancel")):
        status, refused = await ask(live, path=f"/{told['id']}{tail}", method=method)
        assert (status, refused["error"]["code"]) == (404, "response_not_found")
        assert "keeps no responses" in refused["error"]["message"]
    status, refused = await ask(live, {**BODY, "previous_response_id": told["id"]})
    assert status == 400
    found = refused["error"]
    assert (found["code"], found["param"]) == (
        "previous_response_not_found",
        "previous_response_id",
    )
    assert "store: false" in found["message"]
