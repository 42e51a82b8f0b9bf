"""What upstreams bill is what is charged: whole and streamed, in every dialect."""

import asyncio
import json
from typing import Any

import pytest

from tests.fakes import answers
from tests.fakes.caller import BODY
from tests.fakes.live import MODELS, Live, RelayWith
from tests.fakes.upstream import Seen, UpstreamWith
from tests.gateway.metering import PAID, PRICE, ask, credit, settled

PATHS = {
    "messages": "/v1/messages",
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
}
LARGE = {"input": 5.0, "output": 25.0}
PRICED = [{**MODELS[0], "price": LARGE}, *({**model, "price": PRICE} for model in MODELS[1:])]


def asked(dialect: str, *, stream: bool) -> dict[str, Any]:
    body: dict[str, Any] = {"model": BODY["model"], "stream": stream}
    if dialect == "responses":
        return {**body, "input": "hi", "max_output_tokens": 100}
    return {**body, "messages": BODY["messages"], "max_tokens": 100}


def billing(usage: dict[str, Any], end: dict[str, Any] | None = None) -> Any:
    """An upstream that reports this usage; `end`: what a stream reports last, if not the same."""

    async def answer(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Seen
    ) -> None:
        if json.loads(seen.body).get("stream"):
            last = usage if end is None else end
            writer.write(answers.chunked(answers.stream(start=usage, end=last)))
            return
        message = {
            "id": "msg_1", "type": "message", "role": "assistant", "model": BODY["model"],
            "content": [{"type": "text", "text": "hi"}], "stop_reason": "end_turn",
            "usage": {**usage, **(end or {})},
        }  # fmt: skip
        writer.write(answers.sized(json.dumps(message).encode()))

    return answer


async def priced(upstream_with: UpstreamWith, relay_with: RelayWith, *usage: Any) -> Live:
    upstream = await upstream_with(billing(*usage))
    relay = await relay_with(upstream, plan=PAID, model=PRICED)
    await credit(relay, 100_000_000)
    return relay


def iteration(type: str, input: int, output: int, **more: Any) -> dict[str, Any]:
    return {"type": type, "input_tokens": input, "output_tokens": output, **more}


SHAPES: dict[str, tuple[dict[str, Any], int]] = {
    "plain": ({"input_tokens": 1000, "output_tokens": 100}, 4_500),
    "texts": ({"input_tokens": "1000", "output_tokens": "100"}, 4_500),
    "fractions": ({"input_tokens": 999.5, "output_tokens": 99.1}, 4_500),
    "an hour in the cache": (
        {
            "input_tokens": 0, "output_tokens": 0, "cache_creation_input_tokens": 100_000,
            "cache_creation": {"ephemeral_1h_input_tokens": 100_000},
        },
        600_000,
    ),
    "both caches": (
        {
            "input_tokens": 0, "output_tokens": 0, "cache_creation_input_tokens": 100_000,
            "cache_creation": {
                "ephemeral_1h_input_tokens": 40_000, "ephemeral_5m_input_tokens": 60_000,
            },
        },
        240_000 + 225_000,
    ),
    "searches": (
        {
            "input_tokens": 1000, "output_tokens": 100,
            "server_tool_use": {"web_search_requests": 50},
        },
        504_500,
    ),
    "fast": ({"input_tokens": 1000, "output_tokens": 100, "speed": "fast"}, 27_000),
    "geography": ({"input_tokens": 1000, "output_tokens": 100, "inference_geo": "us"}, 4_950),
    "tier": ({"input_tokens": 1000, "output_tokens": 100, "service_tier": "standard"}, 4_500),
    "compaction": (
        {
            "input_tokens": 23_000, "output_tokens": 1_000,
            "iterations": [
                iteration("compaction", 180_000, 3_500), iteration("message", 23_000, 1_000),
            ],
        },
        3 * 203_000 + 15 * 4_500,
    ),
    "fallback": (
        {
            "input_tokens": 1000, "output_tokens": 100,
            "iterations": [
                iteration("message", 1000, 10, model="claude-sonnet-4-7"),
                iteration("fallback_message", 1000, 100, model="claude-opus-4-8"),
            ],
        },
        3_000 + 150 + 5_000 + 2_500,
    ),
    "a model that has no price": (
        {
            "input_tokens": 0, "output_tokens": 0,
            "iterations": [iteration("advisor_message", 1000, 100, model="unheard-of")],
        },
        5_000 + 2_500,
    ),
}  # fmt: skip


@pytest.mark.matrix(share=4)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("dialect", PATHS)
@pytest.mark.parametrize("shape", SHAPES)
async def test_what_an_upstream_bills_is_charged(
    upstream_with: UpstreamWith, relay_with: RelayWith, shape: str, dialect: str, stream: bool
) -> None:
    usage, cost = SHAPES[shape]
    relay = await priced(upstream_with, relay_with, usage)
    status, _, _ = await ask(relay, body=asked(dialect, stream=stream), target=PATHS[dialect])
    assert status == 200
    [row] = await settled(relay, 1)
    assert (row["rule"], row["cost_micro"]) == ("reported", cost)


@pytest.mark.parametrize("dialect", PATHS)
async def test_counts_never_fall_within_a_stream(
    upstream_with: UpstreamWith, relay_with: RelayWith, dialect: str
) -> None:
    start = {
        "input_tokens": 1000, "cache_read_input_tokens": 5000,
        "cache_creation_input_tokens": 2000, "output_tokens": 1,
    }  # fmt: skip
    end = {**dict.fromkeys(start, 0), "output_tokens": 100}
    relay = await priced(upstream_with, relay_with, start, end)
    body = asked(dialect, stream=True)
    if dialect == "chat":
        body["stream_options"] = {"include_usage": True}
    _, _, payload = await ask(relay, body=body, target=PATHS[dialect])
    [row] = await settled(relay, 1)
    assert row["cost_micro"] == 13_500
    if dialect == "chat":
        assert b'"prompt_tokens":8000' in payload
    elif dialect == "responses":
        assert b'"input_tokens":8000' in payload


# --- what a plan excludes ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("feature", "more", "field"),
    [
        ("fast", {"speed": "fast"}, "speed"),
        ("inference_geo", {"inference_geo": "us"}, "inference_geo"),
        ("threads", {"thread": {"type": "continue"}}, "thread"),
        ("web_search", {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools"),
        ("files", {"system": [{"type": "x", "file_id": "file_1"}]}, "file_id"),
    ],
)
@pytest.mark.parametrize("billing", ["subscription", "per-token"])
async def test_a_plan_refuses_what_it_excludes(
    relay_with: RelayWith, billing: str, feature: str, more: dict[str, Any], field: str
) -> None:
    plan = [{**PAID[0], "billing": billing, "exclude": [feature]}]
    relay = await relay_with(plan=plan, model=PRICED)
    await credit(relay, 10_000_000) if billing == "per-token" else None
    octets = json.dumps({**BODY, **more}).encode()
    hidden = octets.replace(b"e", b"\\u0065")
    for name in (b"model", b"max_tokens", b"messages", b"thread"):  # not taken with escapes
        hidden = hidden.replace(name.replace(b"e", b"\\u0065"), name)
    for body in (octets, hidden):
        status, _, payload = await ask(relay, body=body)
        error = json.loads(payload)["error"]
        assert (status, error["type"]) == (400, "invalid_request_error")
        assert error["message"].startswith(f"{field}: this account's plan does not include")
    assert (await ask(relay))[0] == 200


async def test_an_excluded_feature_is_refused_in_every_dialect(relay_with: RelayWith) -> None:
    relay = await relay_with(
        plan=[{**PAID[0], "billing": "subscription", "exclude": ["web_search"]}]
    )
    fields: dict[str, dict[str, Any]] = {
        "chat": {"web_search_options": {}},
        "responses": {"tools": [{"type": "web_search"}]},
    }
    for dialect, more in fields.items():
        body = {**asked(dialect, stream=False), **more}
        status, _, payload = await ask(relay, body=body, target=PATHS[dialect])
        assert status == 400, payload
        assert b"does not include web_search" in payload
        body = asked(dialect, stream=False)
        assert (await ask(relay, body=body, target=PATHS[dialect]))[0] == 200
