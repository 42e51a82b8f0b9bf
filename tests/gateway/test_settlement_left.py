"""A caller who leaves pays for what an upstream has done; only failures are free."""

import asyncio
import contextlib
import json
from typing import Any

import pytest

from relay import config
from relay.quota.exceeded import QuotaExceeded
from relay.quota.ledger import Ledger
from relay.quota.plans import compile_plan
from tests.fakes import answers
from tests.fakes.caller import BODY, connected, request
from tests.fakes.live import UPSTREAM_KEY, RelayWith, upstream_row
from tests.fakes.until import until
from tests.fakes.upstream import Seen, UpstreamWith
from tests.gateway.metering import FREE, PAID, PRICED, ask, credit, left, plan, settled
from tests.gateway.streaming import steps
from tests.gateway.test_settlement_prices import PATHS, asked
from tests.quota.rows import balance_of

PROMPT_ONLY = [answers.stream()[0]]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("dialect", PATHS)
@pytest.mark.parametrize("first", [b"", answers.chunked_head()], ids=["nothing", "head"])
async def test_a_caller_who_leaves_an_upstream_pays_the_prompt(
    upstream_with: UpstreamWith, relay_with: RelayWith, first: bytes, dialect: str, stream: bool
) -> None:
    upstream = await upstream_with(steps(first, asyncio.Event()))
    relay = await relay_with(upstream, plan=plan(*FREE, billing="per-token"), model=PRICED)
    await credit(relay, 1_000_000)
    body = asked(dialect, stream=stream)
    async with connected(relay.port) as (_, writer):
        writer.write(request(relay.key, body, target=PATHS[dialect]))
        await until(lambda: upstream.requests)
        await asyncio.sleep(0.05)
    [row] = await settled(relay, 1)
    prompt = len(json.dumps(body)) // 4
    assert (row["rule"], row["outcome"]) == ("left", "caller left")
    assert (row["input"], row["output"], row["cost_micro"]) == (prompt, None, 3 * prompt)
    assert balance_of(relay.app.ledger, row["user_id"]) == 1_000_000 - 3 * prompt
    upstream.requests.clear()
    [state] = relay.app.ledger._key_states.values()
    assert state.counters.request_buckets[0].remaining_and_reset(0)[0] == 39


async def test_a_caller_who_hangs_up_each_time_uses_the_plan_up(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    upstream = await upstream_with(steps(asyncio.Event()))
    relay = await relay_with(upstream, plan=plan({"requests": 5, "per": "5h"}))
    for count in range(1, 6):
        async with connected(relay.port) as (_, writer):
            writer.write(request(relay.key))
            await until(lambda count=count: len(upstream.requests) == count)  # type: ignore[misc]
    await settled(relay, 5)
    status, fields, _ = await ask(relay)
    assert (status, left(fields)) == (429, 0)


async def test_a_caller_who_leaves_the_queue_pays_nothing(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    upstream = await upstream_with(steps(asyncio.Event()))
    row = {
        "name": "u", "base_url": upstream.url, "api_key": "k", "max_concurrency": 1,
    }  # fmt: skip
    relay = await relay_with(upstream=[row], plan=plan(*FREE))
    async with connected(relay.port) as (_, first):
        first.write(request(relay.key))
        await until(lambda: upstream.requests)
        async with connected(relay.port) as (_, second):
            second.write(request(relay.key))
            await asyncio.sleep(0.1)
        [line] = await settled(relay, 1)
        assert (line["rule"], line["outcome"]) == ("refunded", "caller left")


WORDS = ["word "] * 800
START = {"input_tokens": 1000, "output_tokens": 1}


def cut_after_words(events: list[bytes], end: Any) -> Any:
    """A stream that says all its words, and then nothing more or ends (`end`)."""
    octets = b"".join(map(answers.chunk, events[:-3]))
    return steps(answers.chunked_head(), octets, end)


@pytest.mark.parametrize("texts", [WORDS, ["".join(WORDS)], ["".join(WORDS[:20])] * 40],
                         ids=["words", "one-event", "lines"])  # fmt: skip
@pytest.mark.parametrize("dialect", PATHS)
async def test_text_that_was_passed_on_is_paid_for(
    upstream_with: UpstreamWith, relay_with: RelayWith, dialect: str, texts: list[str]
) -> None:
    upstream = await upstream_with(
        cut_after_words(answers.stream(texts, start=START), asyncio.Event())
    )
    relay = await relay_with(upstream, plan=PAID, model=PRICED)
    await credit(relay, 10_000_000)
    body = {**asked(dialect, stream=True), "max_output_tokens": 9000, "max_tokens": 9000}
    if dialect == "responses":
        del body["max_tokens"]
    else:
        del body["max_output_tokens"]
    async with connected(relay.port) as (reader, writer):
        writer.write(request(relay.key, body, target=PATHS[dialect]))
        seen = b""
        while seen.count(b"word") < 800:
            seen += await reader.read(65536)
    [row] = await settled(relay, 1)
    assert (row["rule"], row["input"]) == ("partial", 1000)
    assert 900 <= row["output"] <= 1150
    assert row["cost_micro"] == 3000 + 15 * row["output"]


@pytest.mark.parametrize("dialect", PATHS)
async def test_text_of_a_stream_that_its_upstream_cuts_is_paid_for(
    upstream_with: UpstreamWith, relay_with: RelayWith, dialect: str
) -> None:
    async def answer(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Seen
    ) -> None:
        writer.write(answers.chunked_head())
        for event in answers.stream(WORDS[:100], start=START)[:-3]:
            writer.write(answers.chunk(event))
            await writer.drain()
            await asyncio.sleep(0.001)
        writer.transport.abort()

    relay = await relay_with(await upstream_with(answer), plan=PAID, model=PRICED)
    await credit(relay, 10_000_000)
    async with connected(relay.port) as (reader, writer):
        writer.write(request(relay.key, asked(dialect, stream=True), target=PATHS[dialect]))
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(2):
                await reader.read(-1)
    [row] = await settled(relay, 1)
    assert row["rule"] == "partial"
    assert 80 <= row["output"] <= 100  # at most max_tokens


async def test_text_is_paid_for_where_the_input_was_not_stated(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    events = answers.stream(WORDS, start={"input_tokens": 0, "output_tokens": 0})
    upstream = await upstream_with(cut_after_words(events, asyncio.Event()))
    relay = await relay_with(upstream, plan=PAID, model=PRICED)
    await credit(relay, 10_000_000)
    async with connected(relay.port) as (reader, writer):
        writer.write(request(relay.key, asked("messages", stream=True)))
        seen = b""
        while seen.count(b"word") < 800:
            seen += await reader.read(65536)
    [row] = await settled(relay, 1)
    prompt = len(json.dumps(asked("messages", stream=True))) // 4
    assert (row["input"], row["output"]) == (prompt, 100)  # max_tokens
    assert row["cost_micro"] == 3 * prompt + 1500


# --- complete answers that bring nothing -------------------------------------------------


def message(content: Any, **more: Any) -> bytes:
    document = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": BODY["model"],
        "content": content, "stop_reason": "end_turn",
        "usage": {"input_tokens": 1000, "output_tokens": 10}, **more,
    }  # fmt: skip
    return answers.sized(json.dumps(document).encode())


@pytest.mark.matrix(share=2)
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", asked("chat", stream=False)),
        ("/v1/responses", asked("responses", stream=False)),
        ("/v1/responses/compact", {"model": BODY["model"], "input": "hi"}),
    ],
)
@pytest.mark.parametrize("content", ["no list", [7], [{"type": "text", "text": {}}]])
@pytest.mark.parametrize("upstreams", [1, 2])
async def test_an_answer_that_cannot_be_translated_costs_nothing(
    upstream_with: UpstreamWith,
    relay_with: RelayWith,
    path: str,
    body: dict[str, Any],
    content: Any,
    upstreams: int,
) -> None:
    rows = [
        upstream_row(f"u{number}", await upstream_with(steps(message(content))))
        for number in range(upstreams)
    ]
    relay = await relay_with(rows, plan=PAID, model=PRICED)
    await credit(relay, 10_000_000)
    status, _, _ = await ask(relay, body=body, target=path)
    assert status == 502
    [row] = await settled(relay, 1)
    assert (row["rule"], row["input"], row["cost_micro"]) == ("refunded", None, 0)


async def test_a_compaction_without_a_text_is_paid_for(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    """A prompt can ask for it."""
    relay = await relay_with(await upstream_with(steps(message([]))), plan=PAID, model=PRICED)
    await credit(relay, 10_000_000)
    body = {"model": BODY["model"], "input": "hi"}
    status, _, _ = await ask(relay, body=body, target="/v1/responses/compact")
    assert status == 502
    [row] = await settled(relay, 1)
    assert (row["rule"], row["cost_micro"]) == ("partial", 3_150)


UNREADABLE = [
    answers.stream(start=START)[0],
    b'event: content_block_start\ndata: {"type":"content_block_start","index":0,'
    b'"content_block":{"type":"text","text":""}}\n\n',
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
    b'"delta":{"type":"text_delta","text":"x"}}{\n\n',
]


@pytest.mark.parametrize("silent", [False, True], ids=["at-once", "after-keep-alives"])
@pytest.mark.parametrize("passed", [0, 2], ids=["nothing-passed", "text-passed"])
@pytest.mark.parametrize("dialect", ["chat", "responses"])
async def test_an_unreadable_stream_costs_what_was_passed_on(
    upstream_with: UpstreamWith, relay_with: RelayWith, dialect: str, passed: int, silent: bool
) -> None:
    async def answer(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Seen
    ) -> None:
        writer.write(answers.chunked_head())
        await asyncio.sleep(0.4 if silent else 0)
        good = answers.stream(WORDS[:passed], start=START)[: 3 + passed] if passed else []
        bad = UNREADABLE[2:] if passed else UNREADABLE
        for events in (good, bad):
            if events:
                writer.write(answers.chunk(b"".join(events)))
                await asyncio.sleep(0.05)
        writer.write(answers.LAST)

    relay = await relay_with(
        await upstream_with(answer), plan=PAID, model=PRICED, pool={"grace": 0.05}
    )
    await credit(relay, 10_000_000)
    async with connected(relay.port) as (reader, writer):
        octets = request(relay.key, asked(dialect, stream=True), target=PATHS[dialect])
        writer.write(octets.replace(b"x-api-key: ", b"connection: close\r\nx-api-key: "))
        with contextlib.suppress(ConnectionError):
            await reader.read(-1)
    [row] = await settled(relay, 1)
    assert row["rule"] == ("partial" if passed else "refunded")
    assert bool(row["cost_micro"]) is bool(passed)


async def test_a_stream_of_which_nothing_was_passed_costs_nothing(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    """Its first piece has text and the operator's credential in an error: no octet passes."""
    error = answers.event("error", error={"type": "api_error", "message": UPSTREAM_KEY})
    piece = b"".join([*answers.stream(["x"], start=START)[:4], error])

    async def answer(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Seen
    ) -> None:
        await asyncio.sleep(0.6)  # the stream begins with keep-alives
        writer.write(answers.chunked([piece]))

    upstream = await upstream_with(answer)
    relay = await relay_with(upstream, plan=PAID, model=PRICED, pool={"grace": 0.05})
    await credit(relay, 10_000_000)
    async with connected(relay.port) as (reader, writer):
        octets = request(relay.key, asked("messages", stream=True), fields="connection: close\r\n")
        writer.write(octets)
        seen = await reader.read(-1)
    assert b"event: ping" in seen
    assert b"text_delta" not in seen
    assert UPSTREAM_KEY.encode() not in seen
    [row] = await settled(relay, 1)
    assert (row["rule"], row["cost_micro"]) == ("refunded", 0)


ERROR = b'{"type":"error","error":{"type":"x","message":"y"}}'


@pytest.mark.parametrize(
    ("dialect", "document"),
    [
        *((dialect, ERROR) for dialect in PATHS),
        *((dialect, none) for dialect in ("chat", "responses") for none in (b"[]", b"null", b"{}")),
    ],
)
async def test_an_answer_that_is_none_costs_nothing(
    upstream_with: UpstreamWith, relay_with: RelayWith, document: bytes, dialect: str
) -> None:
    relay = await relay_with(
        await upstream_with(steps(answers.sized(document))), plan=PAID, model=PRICED
    )
    await credit(relay, 10_000_000)
    await ask(relay, body=asked(dialect, stream=False), target=PATHS[dialect])
    [row] = await settled(relay, 1)
    assert (row["rule"], row["cost_micro"]) == ("refunded", 0)


# --- estimates that cannot be evaded ------------------------------------------------------

DEAR: dict[str, dict[str, Any]] = {
    "thread": {"thread": {"type": "continue", "previous_message_id": "msg_1"}},
    "container": {"container": "container_1"},
    "mcp": {"mcp_servers": [{"type": "url", "url": "x", "name": "x"}]},
    "search": {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
    "file": {"messages": [{"role": "user", "content": [
        {"type": "document", "source": {"type": "file", "file_id": "file_1"}}]}]},
    "pdf": {"messages": [{"role": "user", "content": [
        {"type": "document", "source": {"type": "base64", "data": "JVBE"}}]}]},
    "link": {"messages": [{"role": "user", "content": [
        {"type": "image", "source": {"type": "url", "url": "https://x"}}]}]},
}  # fmt: skip


@pytest.mark.matrix(share=3)
@pytest.mark.parametrize("dear", DEAR)
@pytest.mark.parametrize("letter", ["", "e", "t", "u", "y"])
async def test_no_request_can_cost_more_than_it_seems(
    relay_with: RelayWith, dear: str, letter: str
) -> None:
    relay = await relay_with(plan=PAID, model=PRICED)
    await credit(relay, 500_000)
    octets = json.dumps({**BODY, **DEAR[dear]}).encode()
    if letter:
        octets = octets.replace(letter.encode(), b"\\u%04x" % ord(letter))
    status, _, payload = await ask(relay, body=octets)
    # "model" and "max_tokens" are taken without escapes only.
    assert status == (400 if letter in ("e", "t") else 402), payload


async def test_twenty_at_once_are_admitted_as_the_balance_covers_them(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    octets = message([{"type": "text", "text": "x"}], usage={"input_tokens": 900_000})
    go_on = asyncio.Event()
    upstream = await upstream_with(steps(go_on, octets))
    relay = await relay_with(upstream, plan=PAID, model=PRICED)
    await credit(relay, 1_000_000)
    body = {**BODY, "tools": [{"type": "web_search_20250305", "name": "web_search"}]}
    waiting = [asyncio.create_task(ask(relay, body=body)) for _ in range(20)]
    await until(lambda: sum(task.done() for task in waiting) == 19)
    go_on.set()
    statuses = [answer[0] for answer in await asyncio.gather(*waiting)]
    assert sorted(statuses) == [200, *[429] * 19]
    [row] = await settled(relay, 1)
    assert balance_of(relay.app.ledger, row["user_id"]) == 1_000_000 - 2_700_000
    assert (await ask(relay))[0] == 402


def test_what_is_held_beyond_an_estimate_is_what_the_balance_has() -> None:
    ledger = Ledger()
    paid = compile_plan(config.PlanSettings(id="p", billing="per-token"))
    ledger.fund("a", 100)
    held = ledger.reserve("a", "k", paid, 0.0, 0, 10)
    ledger.hold_more(held, 50)
    other = ledger.reserve("a", "k", paid, 0.0, 0, 10)
    ledger.hold_more(other, 5)
    assert (held.cost, other.cost) == (50, 10)
    ledger.hold_more(other, 500)
    assert other.cost == 50
    with pytest.raises(QuotaExceeded):
        ledger.reserve("a", "k", paid, 0.0, 0, 1)
    ledger.refund(held, 0.0)
    ledger.settle(other, 0.0, 0, 60)
    assert balance_of(ledger, "a") == 40
    ledger.reserve("a", "k", paid, 0.0, 0, 40)
