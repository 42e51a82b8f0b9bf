"""Translated dialects over real sockets: what goes up and down beside the words, and what counts.

What the words become is `tests/translate`'s matter.
"""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from relay.accounts import keys
from relay.store.keys import live_keys
from tests.fakes import answers
from tests.fakes.caller import connected, read_answer, request
from tests.fakes.live import EMAIL, UPSTREAM_KEY, Live, running_relay
from tests.fakes.pool import running_pool
from tests.fakes.upstream import OK, Upstream, always, raw_upstream
from tests.gateway.test_metering import plan, settled

JSON = dict[str, Any]
Told = tuple[int, dict[bytes, bytes], bytes]

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
SDK = (  # what an SDK of OpenAI's sends beside the body
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
) -> Told:
    """One request with a Bearer key, on a connection of its own."""
    fields += f"authorization: Bearer {key or relay.key}\r\n"
    async with connected(relay.port) as (reader, writer):
        body = BODIES.get(target, BODY) if body is None else body
        writer.write(request(None, body, target=target, method=method, fields=fields))
        return await read_answer(reader)


def error(told: Told) -> JSON:
    """The error of an answer, which has the shape that OpenAI's API gives one."""
    document = json.loads(told[2])
    assert document.keys() == {"error"}
    assert document["error"].keys() == {"message", "type", "param", "code"}
    assert told[1][b"content-type"] == b"application/json"
    assert told[1][b"x-request-id"] == told[1][b"request-id"]
    found: JSON = document["error"]
    return found


# --- the head of an answer ----------------------------------------------------------


@BOTH
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_an_answer_tells_its_id_its_model_its_times_and_what_is_left(
    tmp_path: Path, stream: bool, target: str
) -> None:
    free = plan({"requests": 40, "per": "5h"}, {"requests": 600, "per": "1m"})
    async with running_relay(tmp_path, plan=free) as relay:
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


async def other_key(relay: Live) -> str:
    app = relay.app
    issued = await keys.create(
        app.database, app._settings, EMAIL, keys.KeyOptions("more"), now=time.time()
    )
    app.callers.replace(await live_keys(app.database))
    return issued.key.reveal()


@BOTH
async def test_the_upstream_gets_a_messages_request_and_nothing_of_the_callers_own(
    tmp_path: Path, target: str
) -> None:
    async with (
        raw_upstream(always(OK)) as upstream,
        running_relay(tmp_path, upstream.url) as relay,
    ):
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
async def test_a_user_goes_upstream_as_a_digest_that_is_the_keys_own(
    tmp_path: Path, target: str
) -> None:
    def user(upstream: Upstream) -> str:
        return str(json.loads(upstream.requests[-1].body)["metadata"]["user_id"])

    async with (
        raw_upstream(always(OK)) as upstream,
        running_relay(tmp_path, upstream.url) as relay,
    ):
        seen = []
        for key in (None, None, await other_key(relay)):
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
async def test_a_session_is_told_by_its_cache_key_which_stays_here(
    tmp_path: Path, target: str
) -> None:
    async with running_pool(tmp_path, {"a": {}, "b": {}}) as pool:
        for turn in range(3):
            for number in range(6):
                said = [{"role": "user", "content": f"{number}, {turn}"}]
                name = "messages" if target == CHAT else "input"
                key = {"prompt_cache_key": f"conversation {number}"}
                told = await pool.ask({**BODIES[target], name: said, **key}, target=target)
                assert told.status == 200
        asked = [line["upstream"] for line in pool.relay.log()]
    assert asked[:6] == asked[6:12] == asked[12:]
    assert set(asked) == {"a", "b"}


# --- what is counted ----------------------------------------------------------------


async def test_all_dialects_are_counted_alike_and_together(tmp_path: Path) -> None:
    async with running_relay(tmp_path, plan=plan({"requests": 3, "per": "5h"})) as relay:
        left = []
        for target in (CHAT, "/v1/messages", RESPONSES):
            body = {**BODIES.get(target, BODY), "max_tokens": 100}
            _, fields, _ = await ask(relay, body, target=target)
            left.append(int(fields[b"x-ratelimit-remaining"]))
        assert left == [2, 1, 0]
        told = await ask(relay)
        assert told[0] == 429
        assert told[1][b"x-should-retry"] == b"false"
        assert (error(told)["type"], error(told)["code"]) == ("insufficient_quota",) * 2
        rows = await settled(relay, 3)
    assert [row["dialect"] for row in rows] == ["chat", "messages", "responses"]
    counts = [(row["input"], row["output"], row["cache_read"] or 0) for row in rows]
    assert sum(counts[0]) == sum(counts[2]) > 2


@BOTH
async def test_what_is_refused_is_given_back(tmp_path: Path, target: str) -> None:
    param = "n" if target == CHAT else "background"
    async with running_relay(tmp_path, plan=plan({"requests": 3, "per": "5h"})) as relay:
        refused = [
            await ask(relay, {**BODIES[target], "n": 2, "background": True}, target=target),
            await ask(relay, fields="x-simulate: status=400\r\n", target=target),
            await ask(relay, fields="x-simulate: status=529\r\n", target=target),
        ]
        assert [told[0] for told in refused] == [400, 400, 503]
        assert error(refused[0])["param"] == param
        for told in refused:
            assert told[1][b"x-ratelimit-remaining"] == b"3"


# --- what is refused ----------------------------------------------------------------

REFUSED: dict[str, tuple[JSON, int, str | None, str]] = {
    "responses-get": ({"target": RESPONSES, "method": "GET"}, 405, "method_not_allowed", "POST"),
    "responses-model": (
        {"target": RESPONSES, "body": {**BODIES[RESPONSES], "model": "gpt-6"}},
        404,
        "model_not_found",
        "claude-haiku-4-5",
    ),
    "responses-no-v1": ({"target": "/responses"}, 404, "not_found", "ends with /v1"),
    "legacy": ({"target": "/v1/completions"}, 404, "not_found", "POST /v1/chat/completions"),
    "no-v1": ({"target": "/chat/completions"}, 404, "not_found", "ends with /v1"),
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
async def test_a_refusal_has_openais_shape_and_says_what_to_do(tmp_path: Path, name: str) -> None:
    how, status, code, message = REFUSED[name]
    async with raw_upstream(always(OK)) as upstream:
        limits = {"limits": {"body": 10_000}}
        async with running_relay(tmp_path, upstream.url, server=limits) as relay:
            told = await ask(relay, **how)
        assert upstream.requests == []
    found = error(told)
    assert (told[0], found["code"], found["type"]) == (status, code, "invalid_request_error")
    assert message in found["message"]
    assert told[1].get(b"x-should-retry") == (b"false" if status == 401 else None)


async def test_an_error_event_after_content_ends_the_stream_with_its_own_code(
    tmp_path: Path,
) -> None:
    events = answers.stream()[:4]
    limit = {"type": "rate_limit_error", "message": "Slow down, please."}
    events.append(answers.event("error", error=limit))
    async with (
        raw_upstream(always(answers.chunked(events))) as upstream,
        running_relay(tmp_path, upstream.url) as relay,
        connected(relay.port) as (reader, writer),
    ):
        body = {**BODY, "stream": True}
        writer.write(request(relay.key, body, target=CHAT))
        received = await reader.read(-1)
    assert not received.endswith(answers.LAST)
    assert b"[DONE]" not in received
    assert b'finish_reason":"' not in received
    last = received[received.rindex(b"data: ") + 6 :].strip()
    told = json.loads(last)["error"]
    assert (told["code"], told["message"]) == ("rate_limit_exceeded", "Slow down, please.")


@BOTH
@pytest.mark.parametrize("streamed", [False, True])
async def test_what_a_vendor_counts_among_its_input_is_told_once(
    tmp_path: Path, streamed: bool, target: str
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
    async with (
        raw_upstream(always(octets)) as upstream,
        running_relay(
            tmp_path,
            upstream.url,
            vendor=[{"name": "odd", "usage": "inclusive"}],
            upstream_options={"vendor": "odd"},
        ) as relay,
    ):
        options = {"stream": True, "stream_options": {"include_usage": True}} if streamed else {}
        _, _, told = await ask(relay, {**BODIES[target], **options}, target=target)
    name = b"prompt" if target == CHAT else b"input"
    assert b'"%b_tokens":100' % name in told
    assert b'"cached_tokens":60' in told
