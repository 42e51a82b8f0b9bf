"""Translated dialects over real sockets: fields, framing, metering and errors.

The translation of bodies is tested in `tests/translate`.
"""

import json
import re
from typing import Any

import pytest

from tests.fakes import answers
from tests.fakes.caller import connected, read_answer, request
from tests.fakes.live import UPSTREAM_KEY, Live, RelayWith
from tests.fakes.pool import PoolWith
from tests.fakes.upstream import OK, Upstream, UpstreamWith, always
from tests.gateway.metering import plan, settled

JSON = dict[str, Any]
Reply = tuple[int, dict[bytes, bytes], bytes]

CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
MODEL = "claude-sonnet-4-7"
SAID: list[JSON] = [{"role": "user", "content": "hi"}]
BODIES: dict[str, JSON] = {
    CHAT: {"model": MODEL, "messages": SAID},
    RESPONSES: {"model": MODEL, "input": SAID},
}
BODY = BODIES[CHAT]
BOTH = pytest.mark.parametrize("target", BODIES, ids=["chat", "responses"])
SDK = (  # header fields of OpenAI's SDKs
    "accept: application/json\r\n"
    "openai-organization: org-canary\r\n"
    "openai-project: proj-canary\r\n"
    "OpenAI-Beta: canary=v1\r\n"
    "X-Stainless-Lang: python\r\n"
    "x-stainless-retry-count: 0\r\n"
    "session-id: canary\r\n"
    "x-client-request-id: canary\r\n"
    "x-codex-window-id: canary\r\n"
    "x-openai-subagent: canary\r\n"
    "originator: canary\r\n"
    "user-agent: AsyncOpenAI/Python 3.54.0\r\n"
)


async def ask(
    relay: Live,
    body: bytes | JSON | None = None,
    *,
    key: str | None = None,
    target: str = CHAT,
    method: str = "POST",
    fields: str = "",
) -> Reply:
    """One request with a Bearer key, on a connection of its own."""
    fields += f"authorization: Bearer {key or relay.key}\r\n"
    async with connected(relay.port) as (reader, writer):
        body = BODIES.get(target, BODY) if body is None else body
        writer.write(request(None, body, target=target, method=method, fields=fields))
        return await read_answer(reader)


def error(reply: Reply) -> JSON:
    """The error of an answer, checked for OpenAI's shape."""
    document = json.loads(reply[2])
    assert document.keys() == {"error"}
    assert document["error"].keys() == {"message", "type", "param", "code"}
    assert reply[1][b"content-type"] == b"application/json"
    assert reply[1][b"x-request-id"] == reply[1][b"request-id"]
    found: JSON = document["error"]
    return found


# --- the head of an answer ----------------------------------------------------------


@BOTH
@pytest.mark.parametrize("stream", [False, True], ids=["document", "stream"])
async def test_an_answer_has_id_model_timing_and_limit_fields(
    relay_with: RelayWith, stream: bool, target: str
) -> None:
    free = plan({"requests": 40, "per": "5h"}, {"requests": 600, "per": "1m"})
    relay = await relay_with(plan=free)
    status, fields, _ = await ask(relay, {**BODIES[target], "stream": stream}, target=target)
    [line] = relay.log()
    assert status == 200
    kind = b"text/event-stream; charset=utf-8" if stream else b"application/json"
    assert fields[b"content-type"] == kind
    assert fields[b"x-request-id"] == fields[b"request-id"] == line["id"].encode()
    assert re.fullmatch(rb"relay;dur=[\d.]+, upstream;dur=[\d.]+", fields[b"server-timing"])
    assert fields[b"x-relay-model"] == MODEL.encode()
    assert fields[b"x-ratelimit-limit"] == b"40"
    assert fields[b"x-ratelimit-remaining"] == b"39"
    assert (b"x-accel-buffering" in fields) is stream
    foreign = [b"set-cookie", b"cf-ray", b"server", b"anthropic-organization-id"]
    assert fields.keys().isdisjoint(foreign)
    assert (line["path"], line["outcome"], line["rule"]) == (target, "whole", "reported")


# --- the head and body of a request -------------------------------------------------


@BOTH
async def test_the_upstream_gets_a_plain_messages_request(
    upstream_with: UpstreamWith, relay_with: RelayWith, target: str
) -> None:
    upstream = await upstream_with(always(OK))
    relay = await relay_with(upstream)
    status, _, _ = await ask(relay, fields=SDK, target=target)
    assert status == 200
    [seen] = upstream.requests
    assert relay.key.encode() not in bytes(upstream.received)
    assert seen.head.startswith(b"POST /v1/messages HTTP/1.1\r\n")
    fields = seen.fields
    assert fields[b"x-api-key"] == UPSTREAM_KEY.encode()
    assert fields[b"anthropic-version"] == b"2023-06-01"
    assert fields[b"content-type"] == b"application/json"
    assert fields[b"user-agent"] == b"AsyncOpenAI/Python 3.54.0"
    assert b"authorization" not in fields
    assert not [name for name in fields if name.startswith((b"openai-", b"x-stainless-"))]
    assert b"canary" not in seen.head.replace(UPSTREAM_KEY.encode(), b"")
    assert json.loads(seen.body).keys() <= {"model", "messages", "max_tokens", "stream"}


@BOTH
async def test_a_user_goes_upstream_as_a_digest_of_its_key(
    upstream_with: UpstreamWith, relay_with: RelayWith, target: str
) -> None:
    def user(upstream: Upstream) -> str:
        return str(json.loads(upstream.requests[-1].body)["metadata"]["user_id"])

    upstream = await upstream_with(always(OK))
    relay = await relay_with(upstream)
    seen = []
    for key in (None, None, await relay.new_key()):
        for name in ("user", "safety_identifier"):
            body = {**BODIES[target], name: "ada@example.com"}
            assert (await ask(relay, body, key=key, target=target))[0] == 200
            seen.append(user(upstream))
    assert b"ada@" not in bytes(upstream.received)
    assert re.fullmatch(r"[0-9a-f]{32}", seen[0])
    assert len(set(seen[:4])) == 1
    assert len(set(seen[4:])) == 1
    assert seen[0] != seen[4]


@BOTH
async def test_a_prompt_cache_key_binds_a_session(pool_with: PoolWith, target: str) -> None:
    pool = await pool_with({"a": {}, "b": {}})
    for turn in range(3):
        for number in range(6):
            said = [{"role": "user", "content": f"{number}, {turn}"}]
            name = "messages" if target == CHAT else "input"
            key = {"prompt_cache_key": f"conversation {number}"}
            reply = await pool.ask({**BODIES[target], name: said, **key}, target=target)
            assert reply.status == 200
    asked = [line["upstream"] for line in pool.relay.log()]
    assert asked[:6] == asked[6:12] == asked[12:]
    assert set(asked) == {"a", "b"}


# --- metering -----------------------------------------------------------------------


async def test_all_dialects_share_one_count(relay_with: RelayWith) -> None:
    relay = await relay_with(plan=plan({"requests": 3, "per": "5h"}))
    left = []
    for target in (CHAT, "/v1/messages", RESPONSES):
        body = BODIES.get(target, {**BODY, "max_tokens": 100})
        _, fields, _ = await ask(relay, body, target=target)
        left.append(int(fields[b"x-ratelimit-remaining"]))
    assert left == [2, 1, 0]
    reply = await ask(relay)
    assert reply[0] == 429
    assert reply[1][b"x-should-retry"] == b"false"
    assert (error(reply)["type"], error(reply)["code"]) == ("insufficient_quota",) * 2
    rows = await settled(relay, 3)
    assert [row["dialect"] for row in rows] == ["chat", "messages", "responses"]
    counts = [(row["input"], row["output"], row["cache_read"] or 0) for row in rows]
    assert sum(counts[0]) == sum(counts[2]) > 2


@BOTH
async def test_octets_that_are_not_utf8_reach_no_upstream(
    relay_with: RelayWith, target: str
) -> None:
    relay = await relay_with(plan=plan({"requests": 3, "per": "5h"}))
    body = json.dumps(BODIES[target]).encode().replace(b'"hi', b'"caf\xe9', 1)
    assert b"\xe9" in body
    async with connected(relay.port) as (reader, writer):
        writer.write(request(relay.key, body, target=target))
        status, fields, payload = await read_answer(reader)
    assert (status, fields[b"x-ratelimit-remaining"]) == (400, b"3")
    assert "UTF-8" in json.loads(payload)["error"]["message"]
    assert relay.simulator is not None
    assert relay.simulator.journal.requests == 0


@BOTH
async def test_a_refused_request_is_refunded(relay_with: RelayWith, target: str) -> None:
    param = "n" if target == CHAT else "background"
    relay = await relay_with(plan=plan({"requests": 3, "per": "5h"}))
    refused = [
        await ask(relay, {**BODIES[target], "n": 2, "background": True}, target=target),
        await ask(relay, fields="x-simulate: status=400\r\n", target=target),
        await ask(relay, fields="x-simulate: status=529\r\n", target=target),
    ]
    assert [reply[0] for reply in refused] == [400, 400, 503]
    assert error(refused[0])["param"] == param
    for reply in refused:
        assert reply[1][b"x-ratelimit-remaining"] == b"3"


# --- errors -------------------------------------------------------------------------

REFUSED: dict[str, tuple[JSON, int, str | None, str]] = {
    "responses-get": ({"target": RESPONSES, "method": "GET"}, 405, "method_not_allowed", "POST"),
    "responses-model": (
        {"target": RESPONSES, "body": {**BODIES[RESPONSES], "model": "gpt-6"}},
        404,
        "model_not_found",
        "claude-haiku-4-5",
    ),
    "legacy": ({"target": "/v1/completions"}, 404, "not_found", "POST /v1/chat/completions"),
    "embeddings": ({"target": "/v1/embeddings"}, 404, "not_found", "/v1/chat/completions"),
    "get": ({"method": "GET"}, 405, "method_not_allowed", "POST"),
    "no-json": ({"body": b'{"model": '}, 400, None, "JSON"),
    "no-object": ({"body": b"[]"}, 400, None, "object"),
    "no-model": ({"body": {"messages": BODY["messages"]}}, 400, None, "model"),
    "too-large": ({"body": {**BODY, "x": "x" * 20_000}}, 413, "request_too_large", "10000"),
    "wrong-key": ({"key": "sk-llmapi-nobody"}, 401, "invalid_api_key", "key"),
    "model": ({"body": {**BODY, "model": "gpt-6"}}, 404, "model_not_found", "claude-haiku-4-5"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_refusal_has_openais_shape_and_advice(
    upstream_with: UpstreamWith, relay_with: RelayWith, name: str
) -> None:
    how, status, code, message = REFUSED[name]
    upstream = await upstream_with(always(OK))
    limits = {"limits": {"body": 10_000}}
    relay = await relay_with(upstream, server=limits)
    reply = await ask(relay, **how)
    assert upstream.requests == []
    found = error(reply)
    assert (reply[0], found["code"], found["type"]) == (status, code, "invalid_request_error")
    assert message in found["message"]
    assert reply[1].get(b"x-should-retry") == (b"false" if status == 401 else None)


async def test_an_error_event_after_content_keeps_its_code(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    events = answers.stream()[:4]
    limit = {"type": "rate_limit_error", "message": "Slow down, please."}
    events.append(answers.event("error", error=limit))
    upstream = await upstream_with(always(answers.chunked(events)))
    relay = await relay_with(upstream)
    async with connected(relay.port) as (reader, writer):
        body = {**BODY, "stream": True}
        writer.write(request(relay.key, body, target=CHAT))
        received = await reader.read(-1)
    assert not received.endswith(answers.LAST)
    assert b"[DONE]" not in received
    assert b'finish_reason":"' not in received
    last = received[received.rindex(b"data: ") + 6 :].strip()
    document = json.loads(last)["error"]
    assert (document["code"], document["message"]) == ("rate_limit_exceeded", "Slow down, please.")


@BOTH
@pytest.mark.parametrize("streamed", [False, True])
async def test_inclusive_cache_reads_are_counted_once(
    upstream_with: UpstreamWith, relay_with: RelayWith, streamed: bool, target: str
) -> None:
    used = {"input_tokens": 100, "cache_read_input_tokens": 60, "output_tokens": 9}
    if streamed:
        octets = answers.chunked(answers.stream(start=used, end=used))
    else:
        message = {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": MODEL,
            "content": [{"type": "text", "text": "hi"}],
            "stop_reason": "end_turn",
        }
        octets = answers.sized(json.dumps({**message, "usage": used}).encode())
    upstream = await upstream_with(always(octets))
    relay = await relay_with(
        upstream, vendor=[{"name": "odd", "usage": "inclusive"}], upstream_options={"vendor": "odd"}
    )
    options = {"stream": True, "stream_options": {"include_usage": True}} if streamed else {}
    _, _, payload = await ask(relay, {**BODIES[target], **options}, target=target)
    name = b"prompt" if target == CHAT else b"input"
    assert b'"%b_tokens":100' % name in payload
    assert b'"cached_tokens":60' in payload
