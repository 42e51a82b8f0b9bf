"""Pages in browsers may ask: preflights are answered, and every answer below /v1 can be read."""

import json
from typing import Any

import pytest

from tests.fakes.caller import BODY, connected, read_head, request
from tests.fakes.live import Live, RelayWith

PAGE = "https://app.example"
ORIGIN = b"access-control-allow-origin"
CHAT = {"model": BODY["model"], "messages": BODY["messages"]}
RESPONSES = {"model": BODY["model"], "input": "hi"}
ANSWERS: dict[str, tuple[str, str, Any, int]] = {
    "messages": ("POST", "/v1/messages", BODY, 200),
    "messages, streamed": ("POST", "/v1/messages", {**BODY, "stream": True}, 200),
    "chat": ("POST", "/v1/chat/completions", CHAT, 200),
    "chat, streamed": ("POST", "/v1/chat/completions", {**CHAT, "stream": True}, 200),
    "responses": ("POST", "/v1/responses", RESPONSES, 200),
    "responses, streamed": ("POST", "/v1/responses", {**RESPONSES, "stream": True}, 200),
    "models": ("GET", "/v1/models", None, 200),
    "no such model": ("POST", "/v1/messages", {**BODY, "model": "gpt-6"}, 404),
    "a bad field": ("POST", "/v1/chat/completions", {**CHAT, "n": 2}, 400),
    "a wrong method": ("PUT", "/v1/messages", None, 405),
    "an unknown path": ("GET", "/v1/unheard-of", None, 404),
    "not offered": ("POST", "/v1/embeddings", {}, 404),
    "a slip": ("GET", "/models", None, 200),
    "upstream's error": ("POST", "/v1/messages", {**BODY, "max_tokens": -1}, 400),
}


async def ask(
    relay: Live, method: str, target: str, body: Any = None, fields: str = "", key: str | None = ""
) -> tuple[int, dict[bytes, bytes]]:
    octets = b"" if body is None else json.dumps(body).encode()
    key = relay.key if key == "" else key
    async with connected(relay.port) as (reader, writer):
        writer.write(request(key, octets, target=target, method=method, fields=fields))
        return await read_head(reader)


@pytest.mark.parametrize(("method", "target", "body", "status"), ANSWERS.values(), ids=ANSWERS)
async def test_every_answer_can_be_read_by_any_page(
    live: Live, method: str, target: str, body: Any, status: int
) -> None:
    answered, fields = await ask(live, method, target, body, f"origin: {PAGE}\r\n")
    assert (answered, fields[ORIGIN]) == (status, b"*")
    assert fields[b"access-control-expose-headers"] == b"*"


async def test_an_unknown_keys_refusal_can_be_read(live: Live) -> None:
    status, fields = await ask(live, "POST", "/v1/messages", BODY, key="sk-llmapi-nobody")
    assert (status, fields[ORIGIN]) == (401, b"*")


@pytest.mark.parametrize("target", ["/v1/messages", "/v1/models/x", "/v1", "/responses", "/v1/x"])
async def test_a_preflight_is_answered_without_a_key(live: Live, target: str) -> None:
    asked = f"origin: {PAGE}\r\naccess-control-request-headers: authorization,x-new\r\n"
    fields = f"{asked}access-control-request-method: POST\r\n"
    status, answered = await ask(live, "OPTIONS", target, fields=fields, key=None)
    assert status == 204
    assert answered[ORIGIN] == b"*"
    assert answered[b"access-control-allow-headers"] == b"authorization,x-new"
    assert b"POST" in answered[b"access-control-allow-methods"]


async def test_odd_names_of_fields_are_not_repeated(live: Live) -> None:
    fields = 'access-control-request-headers: a"b\r\n'
    _, answered = await ask(live, "OPTIONS", "/v1/messages", fields=fields, key=None)
    assert b"x-api-key" in answered[b"access-control-allow-headers"]


@pytest.mark.parametrize(
    ("origins", "page", "allowed"),
    [
        ([PAGE], PAGE, PAGE.encode()),
        ([PAGE], "https://other.example", None),
        ([PAGE, "*"], "https://other.example", b"*"),
        ([], PAGE, None),
    ],
)
@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
async def test_the_operator_chooses_the_pages(
    relay_with: RelayWith, origins: list[str], page: str, allowed: bytes | None, method: str
) -> None:
    relay = await relay_with(server={"cors_origins": origins})
    _, fields = await ask(relay, method, "/v1/models", fields=f"origin: {page}\r\n")
    assert fields.get(ORIGIN) == allowed
    assert fields.get(b"vary") == (b"origin" if origins == [PAGE] else None)


async def test_the_error_of_a_broken_head_can_be_read(live: Live) -> None:
    async with connected(live.port) as (reader, writer):
        writer.write(b"POST /v1/responses HTTP/1.1\r\nhost: a\r\nexpect: coffee\r\n\r\n")
        status, fields = await read_head(reader)
    assert (status, fields[ORIGIN]) == (417, b"*")
