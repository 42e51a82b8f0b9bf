"""Paths: slips of a base URL are served, other APIs are refused clearly, in the caller's shape."""

import json
from typing import Any

import pytest

from relay.api.paths import NOT_OFFERED, canonical
from tests.fakes.caller import BODY, connected, read_answer, request
from tests.fakes.live import Live

JSON = dict[str, Any]
CHAT: JSON = {"model": "claude-sonnet-4-7", "messages": BODY["messages"]}
RESPONSES: JSON = {"model": "claude-sonnet-4-7", "input": "hi"}
SERVED: dict[str, tuple[str, JSON | None]] = {
    "/messages": ("POST", BODY),
    "/messages/count_tokens": ("POST", CHAT),
    "/chat/completions": ("POST", CHAT),
    "/responses": ("POST", RESPONSES),
    "/responses/input_tokens": ("POST", RESPONSES),
    "/responses/compact": ("POST", RESPONSES),
    "/models": ("GET", None),
    "/models/claude-haiku-4-5": ("GET", None),
}
SLIPS = ["{}", "/v1/v1{}", "/v1/v1/v1{}", "/v1{}/", "//v1{}", "/v1/{}", "{}//"]


async def ask(
    live: Live, method: str, target: str, body: JSON | None = None, *, fields: str = ""
) -> tuple[int, dict[bytes, bytes], bytes]:
    octets = b"" if body is None else json.dumps(body).encode()
    async with connected(live.port) as (reader, writer):
        writer.write(request(live.key, octets, target=target, method=method, fields=fields))
        status, answered, payload = (
            (await read_answer(reader)) if method != "HEAD" else (0, {}, b"")
        )
        return status, answered, payload


@pytest.mark.parametrize("query", ["", "?beta=true&limit=2"])
@pytest.mark.parametrize("path", SERVED)
async def test_a_slip_of_the_base_url_is_served_as_if_right(
    live: Live, path: str, query: str
) -> None:
    method, body = SERVED[path]
    for slip in SLIPS:
        status, fields, payload = await ask(live, method, slip.format(path) + query, body)
        assert status == 200, (slip, payload)
        assert b"location" not in fields


async def test_a_slip_goes_upstream_and_into_the_log_as_the_right_path(live: Live) -> None:
    assert (await ask(live, "POST", "/v1/v1/messages/?beta=true", BODY))[0] == 200
    assert live.simulator is not None
    assert [line["path"] for line in live.log()] == ["/v1/messages"]


def test_any_path_is_read_in_linear_time() -> None:
    for path in (b"/v1" * 100_000, b"/" * 300_000, b"/v1/" * 75_000 + b"x"):
        assert len(canonical(path)) < 10
    for path in (b"*", b"/", b"/docs/x", b"/v1x", b"/v1beta/models", b"/modelsx", b"/chat"):
        assert canonical(path) == path


@pytest.mark.parametrize("one", NOT_OFFERED, ids=lambda one: one.prefix.decode())
@pytest.mark.parametrize("rest", ["", "/x/y"])
async def test_what_is_not_offered_is_refused_clearly(live: Live, one: Any, rest: str) -> None:
    status, fields, payload = await ask(live, "POST", one.prefix.decode() + rest, {})
    error = json.loads(payload)["error"]
    assert status == 404
    assert error["message"].endswith(one.words)
    assert (
        "Use POST /v1/" in one.words or "to POST /v1/" in one.words or "of POST /v1/" in one.words
    )
    assert fields[b"content-type"] == b"application/json"


async def test_each_refusal_has_the_shape_of_its_api(live: Live) -> None:
    batches = json.loads((await ask(live, "POST", "/v1/messages/batches", {}))[2])
    assert batches["error"]["type"] == "not_found_error"
    embeddings = json.loads((await ask(live, "POST", "/embeddings", {}))[2])
    assert embeddings["error"]["code"] == "not_found"
    gemini = json.loads((await ask(live, "POST", "/v1beta/models/m:generateContent", {}))[2])
    assert (gemini["error"]["code"], gemini["error"]["status"]) == (404, "NOT_FOUND")


async def test_an_unknown_path_lists_all_that_are_served(live: Live) -> None:
    message = json.loads((await ask(live, "GET", "/v1/unheard-of"))[2])["error"]["message"]
    for path, (method, _) in SERVED.items():
        if path.startswith("/models/"):
            path = "/models/{id}"
        assert f"{method} /v1{path}" in message
    assert "GET and DELETE /v1/responses/{id}" in message
    assert "trickle" not in message


@pytest.mark.parametrize("target", ["/v1/responses", "/responses", "/v1/responses/"])
async def test_a_websocket_is_answered_with_426(live: Live, target: str) -> None:
    fields = "connection: upgrade\r\nupgrade: websocket\r\n"
    status, answered, payload = await ask(live, "GET", target, fields=fields)
    assert status == 426
    assert answered[b"upgrade"] == b"HTTP/1.1"
    assert json.loads(payload)["error"]["code"] == "upgrade_required"
    assert (await ask(live, "GET", target))[0] == 405


@pytest.mark.parametrize(
    "target", ["/api/event_logging/batch", "/api/event_logging/v2/batch", "/api/eval/sdk-x"]
)
async def test_reports_of_a_client_are_taken_and_dropped(live: Live, target: str) -> None:
    async with connected(live.port) as (reader, writer):
        writer.write(request(None, {"events": [1]}, target=target))
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 204 ")
        writer.write(request(None, b"", target="/healthz", method="GET"))
        assert (await read_answer(reader))[0] == 200
    assert live.simulator is not None
    assert live.simulator.journal.requests == 0
