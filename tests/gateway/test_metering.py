"""What a request costs, from socket to database: admitted exactly, given back, settled, told."""

import asyncio
import contextlib
import json
import math
import random
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from relay import config
from relay.accounts import keys, users
from relay.app import App
from relay.quota.plans import COUNTS_PER_MINUTE
from relay.store import balance
from relay.store.database import Database
from relay.store.keys import live_keys
from relay.store.usage import sums
from tests.fakes import answers
from tests.fakes.caller import BODY, connected, read_answer, read_head, request
from tests.fakes.live import EMAIL, MODELS, Live, running_relay
from tests.fakes.until import until
from tests.fakes.upstream import Seen, raw_upstream

HOURS = 5 * 3600
FREE = [
    {"requests": 40, "per": "5h"},
    {"requests": 200, "per": "7d"},
    {"requests": 6000, "per": "1m"},
    {"tokens": 80_000_000, "per": "1m"},
]
PRICE = {"input": 3.0, "output": 15.0, "cache_read": 0.3, "cache_write": 3.75}
PRICED = [{**model, "price": PRICE} for model in MODELS]
STREAM = {**BODY, "stream": True}
Answer = tuple[int, dict[bytes, bytes], bytes]


def plan(*limits: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    return [{"id": "free", "name": "Free", "limits": list(limits), "max_keys": 100, **more}]


async def new_key(relay: Live, email: str = EMAIL) -> str:
    app = relay.app
    issued = await keys.create(
        app.database, app._settings, email, keys.KeyOptions("more"), now=time.time()
    )
    app.callers.replace(await live_keys(app.database))
    return issued.key.reveal()


async def ask(
    relay: Live,
    key: str | None = None,
    script: str = "",
    body: bytes | dict[str, Any] = BODY,
    **how: Any,
) -> Answer:
    """One request on a connection of its own."""
    fields = f"x-simulate: {script}\r\n" if script else ""
    async with connected(relay.port) as (reader, writer):
        writer.write(request(key or relay.key, body, fields=fields, **how))
        return await read_answer(reader)


def moment(text: bytes) -> float:
    """A reset, which is RFC 3339 in UTC with milliseconds."""
    told = text.decode()
    assert len(told) == len("2026-04-08T12:01:00.000Z")
    assert (told[10], told[19], told[23]) == ("T", ".", "Z")
    return datetime.fromisoformat(told).timestamp()


def left(fields: dict[bytes, bytes], group: bytes = b"x-ratelimit") -> int:
    return int(fields[group + b"-remaining"])


PACE = b"anthropic-ratelimit-requests"


@contextlib.contextmanager
def beside(relay: Live) -> Iterator[sqlite3.Connection]:
    """The database as another process sees it."""
    path = relay.app._settings.database.path
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.row_factory = sqlite3.Row
        yield connection


async def settled(relay: Live, count: int) -> list[sqlite3.Row]:
    """The requests on disk, once so many have ended and none runs."""
    with beside(relay) as connection:

        def there() -> bool:
            ended = connection.execute("SELECT count(*) FROM usage").fetchone()[0]
            return bool(ended == count)

        await until(there)
        return list(connection.execute("SELECT * FROM usage ORDER BY number"))


def refusal(answer: Answer) -> tuple[float, str]:
    """Reset and words of a refusal that only waiting cures, which is checked to be one."""
    status, fields, body = answer
    assert status == 429
    assert fields[b"x-should-retry"] == b"false"
    assert fields[b"retry-after"].isdigit()
    assert fields[b"anthropic-ratelimit-unified-status"] == b"rejected"
    error = json.loads(body)
    assert error["error"]["type"] == "rate_limit_error"
    assert error["request_id"] == fields[b"request-id"].decode()
    reset = time.time() + int(fields[b"retry-after"])
    return reset, error["error"]["message"]


# --- exactly so many ----------------------------------------------------------------

CROWD = 1000
Connections = list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]


@contextlib.asynccontextmanager
async def crowd(relay: Live, count: int = CROWD) -> AsyncIterator[Connections]:
    """So many connections to the relay, kept."""
    pairs: Connections = []
    try:
        for _ in range(count):
            pairs.append(await asyncio.open_connection("127.0.0.1", relay.port))
        yield pairs
    finally:
        for _, writer in pairs:
            writer.transport.abort()


async def all_at_once(pairs: Connections, *octets: bytes) -> list[Answer]:
    """A request on each connection, in turn of these, all sent before one answer is read."""
    for number, (_, writer) in enumerate(pairs):
        writer.write(octets[number % len(octets)])
    async with asyncio.timeout(20):
        return await asyncio.gather(*(read_answer(reader) for reader, _ in pairs))


async def test_of_a_thousand_at_once_exactly_those_that_are_left_get_through(
    tmp_path: Path,
) -> None:
    rounds = 20
    async with running_relay(tmp_path, plan=plan(*FREE)) as relay, crowd(relay) as pairs:
        begun = time.monotonic()
        for _ in range(rounds):
            key = await new_key(relay)
            before = time.time()
            given = await all_at_once(pairs, request(key))
            after = time.time()
            assert Counter(status for status, _, _ in given) == {200: 40, 429: 960}
            [reset] = {fields[b"x-ratelimit-reset"] for _, fields, _ in given}
            assert before - 0.002 <= moment(reset) - HOURS <= after
            named = datetime.fromtimestamp(math.ceil(moment(reset)), UTC)
            day, _, hour = f"{named:%Y-%m-%d %H:%M:%S}".partition(" ")
            for answer in given:
                if answer[0] != 429:
                    continue
                _, message = refusal(answer)
                assert f"40 requests per 5 hours. It resets at {day} {hour} UTC, in " in message
                assert answer[1][b"x-ratelimit-remaining"] == b"0"
                wait = int(answer[1][b"retry-after"])
                assert moment(reset) - after <= wait <= moment(reset) - before + 1
        took = time.monotonic() - begun
        await settled(relay, 40 * rounds)  # and nothing of the refused
        assert relay.simulator is not None
        assert relay.simulator.journal.requests == 40 * rounds
    print(f"{rounds} rounds of {CROWD} at once in {took:.1f} s")


async def test_two_limits_at_once_admit_what_the_smaller_has_left(tmp_path: Path) -> None:
    limits = [{"requests": 40, "per": "5h"}, {"requests": 50, "per": "7d"}]
    async with running_relay(tmp_path, plan=plan(*limits)) as relay, crowd(relay, 200) as pairs:
        given = await all_at_once(pairs[:30], request(relay.key))
        assert Counter(status for status, _, _ in given) == {200: 30}
        given = await all_at_once(pairs, request(relay.key))
        assert Counter(status for status, _, _ in given) == {200: 10, 429: 190}
        for answer in given:
            if answer[0] == 429:  # only one of them is in the way
                assert "40 requests per 5 hours" in refusal(answer)[1]
                assert answer[1][b"anthropic-ratelimit-unified-7d-utilization"] == b"0.8"


async def test_of_two_limits_in_the_way_the_one_that_ends_last_is_named(tmp_path: Path) -> None:
    limits = [{"requests": 4, "per": "5h"}, {"requests": 4, "per": "7d"}]
    async with running_relay(tmp_path, plan=plan(*limits)) as relay:
        for _ in range(4):
            assert (await ask(relay))[0] == 200
        answer = await ask(relay)
        reset, message = refusal(answer)
        assert "4 requests per week" in message
        assert answer[1][b"anthropic-ratelimit-unified-representative-claim"] == b"seven_day"
        assert reset == pytest.approx(time.time() + 7 * 86_400, abs=3)


async def test_keys_of_an_account_share_what_is_left_to_the_account(tmp_path: Path) -> None:
    shared = plan({"requests": 40, "per": "5h"}, enforce="account")
    async with running_relay(tmp_path, plan=shared) as relay, crowd(relay, 300) as pairs:
        mine = [request(relay.key), *[request(await new_key(relay)) for _ in range(4)]]
        given = await all_at_once(pairs, *mine)
        assert Counter(status for status, _, _ in given) == {200: 40, 429: 260}
        for answer in given:
            if answer[0] == 429:
                assert "shared by all keys of this account" in refusal(answer)[1]
        app = relay.app
        other = "eve@example.com"
        await users.create(
            app.database, app._settings, other, plan=None, is_admin=False, now=time.time()
        )
        key = await new_key(relay, other)
        assert left((await ask(relay, key))[1]) == 39  # another account has its own


async def test_no_more_run_at_once_than_the_plan_allows(tmp_path: Path) -> None:
    at_once = plan({"requests": 100, "per": "5h"}, max_concurrency=5)
    async with running_relay(tmp_path, plan=at_once) as relay, crowd(relay, 50) as pairs:
        given = await all_at_once(pairs, request(relay.key, fields="x-simulate: delay=0.2\r\n"))
        assert Counter(status for status, _, _ in given) == {200: 5, 429: 45}
        for status, fields, body in given:
            if status == 429:  # a pace to keep, not the end: clients are to try again
                assert b"x-should-retry" not in fields
                assert fields[b"retry-after"] == b"5"
                assert b"5 requests at once per key" in body
                assert fields[b"anthropic-ratelimit-unified-status"] == b"allowed"
        status, fields, _ = await ask(relay)  # and each that ends makes room
        assert (status, left(fields)) == (200, 94)


async def test_a_limit_per_minute_says_to_try_again_and_refills(tmp_path: Path) -> None:
    limits = [{"requests": 100, "per": "5h"}, {"requests": 2, "per": "2s"}]
    async with running_relay(tmp_path, plan=plan(*limits)) as relay:
        for _ in range(2):
            assert (await ask(relay))[0] == 200
        status, fields, body = await ask(relay)
        assert (status, fields[b"retry-after"]) == (429, b"1")
        assert b"x-should-retry" not in fields
        assert b"Please try again in 1s" in body
        assert left(fields) == 98
        await asyncio.sleep(1)
        assert (await ask(relay))[0] == 200


# --- given back ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "status"),
    [
        *((f"status={status}", status) for status in (400, 404, 413, 429, 500, 529)),
        ("status=401", 503),
        ("fault=close", 502),
        ("fault=garbage", 502),
        ("fault=empty", 502),
        ("fault=half-head", 502),
    ],
)
async def test_what_failed_is_given_back_but_not_to_limits_against_floods(
    tmp_path: Path, script: str, status: int
) -> None:
    async with running_relay(tmp_path, plan=plan(*FREE)) as relay:
        for count in (1, 2):
            told, fields, _ = await ask(relay, script=script)
            assert told == status
            assert left(fields) == 40  # its own answer says so already
            assert left(fields, PACE) <= 6000 - count + 1
            assert left(fields, b"anthropic-ratelimit-tokens") == 80_000_000
            assert fields[b"anthropic-ratelimit-unified-7d-utilization"] == b"0"
        assert left((await ask(relay))[1]) == 39
        rows = await settled(relay, 3)
        assert [row["rule"] for row in rows] == ["refunded", "refunded", "reported"]
        assert [row["cost_micro"] for row in rows[:2]] == [0, 0]


async def test_a_limit_against_floods_counts_what_failed(tmp_path: Path) -> None:
    limits = [{"requests": 40, "per": "5h"}, {"requests": 5, "per": "1h"}]
    async with running_relay(tmp_path, plan=plan(*limits)) as relay:
        for count in range(5):
            _, fields, _ = await ask(relay, script="status=400")
            assert (left(fields), left(fields, PACE)) == (40, 4 - count)
        status, fields, body = await ask(relay)
        assert status == 429
        assert b"5 requests per hour" in body
        assert left(fields) == 40


async def test_an_upstream_that_is_down_costs_nothing(tmp_path: Path) -> None:
    async with raw_upstream(lambda *_: asyncio.sleep(0)) as upstream:
        url = upstream.url
    async with running_relay(tmp_path, url, plan=plan(*FREE)) as relay:
        status, fields, _ = await ask(relay)
        assert (status, left(fields)) == (503, 40)
        [row] = await settled(relay, 1)
        assert (row["rule"], row["input"], row["cost_micro"]) == ("refunded", None, 0)


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        ("status=400", "refused: the upstream answered 400"),
        ("status=529", "refused: the upstream answered 529"),
        ("fault=close", "refused: The model's upstream broke off its answer. Try again."),
        ("status=401", "refused: No upstream can serve this now. Tell the operator of this relay."),
    ],
)
@pytest.mark.parametrize("body", [BODY, STREAM], ids=["whole", "stream"])
async def test_a_row_does_not_blame_the_caller_for_what_the_upstream_did(
    tmp_path: Path, script: str, outcome: str, body: dict[str, Any]
) -> None:
    async with running_relay(tmp_path, plan=plan(*FREE)) as relay:
        status, _, _ = await ask(relay, script=script, body=body)
        [row] = await settled(relay, 1)
        assert (row["status"], row["outcome"]) == (status, outcome)


async def test_a_caller_who_leaves_before_the_answer_pays_nothing(tmp_path: Path) -> None:
    async with running_relay(tmp_path, plan=plan(*FREE)) as relay:
        async with connected(relay.port) as (_, writer):
            writer.write(request(relay.key, fields="x-simulate: delay=5\r\n"))
            await until(lambda: relay.simulator and relay.simulator.journal.requests)
        [row] = await settled(relay, 1)
        assert (row["rule"], row["outcome"]) == ("refunded", "caller left")
        assert left((await ask(relay))[1]) == 39


async def test_a_stream_that_its_caller_leaves_counts_by_what_was_reported(
    tmp_path: Path,
) -> None:
    async with running_relay(tmp_path, plan=plan(*FREE), model=PRICED) as relay:
        async with connected(relay.port) as (reader, writer):
            writer.write(request(relay.key, STREAM, fields="x-simulate: tokens=50;pace=20\r\n"))
            assert (await read_head(reader))[0] == 200
            seen = await reader.readuntil(b"content_block_delta")
        [row] = await settled(relay, 1)
        assert (row["rule"], row["outcome"], row["status"]) == ("partial", "caller left", 200)
        start = json.loads(seen[seen.index(b'{"type":"message_start"') :].split(b"\n")[0])
        usage = start["message"]["usage"]
        assert (row["input"], row["output"]) == (usage["input_tokens"], usage["output_tokens"])
        assert row["cost_micro"] == 3 * row["input"] + 15 * row["output"] > 0
        assert left((await ask(relay))[1]) == 38


async def test_a_stream_that_its_upstream_cuts_counts_by_what_was_reported(
    tmp_path: Path,
) -> None:
    async with running_relay(tmp_path, plan=plan(*FREE)) as relay:
        async with connected(relay.port) as (reader, writer):
            writer.write(request(relay.key, STREAM, fields="x-simulate: fault=cut;at=6\r\n"))
            assert b"event: error" in await reader.read(-1)
        [row] = await settled(relay, 1)
        assert row["rule"] == "partial"
        assert row["outcome"].startswith("cut: the upstream")
        assert left((await ask(relay))[1]) == 38


@pytest.mark.parametrize(
    ("script", "body"),
    [
        ("fault=cut;at=0", STREAM),  # a head, and no more
        ("fault=cut;at=1", STREAM),  # a beginning that tells what the prompt cost, and no more
        ("fault=cut;at=3", STREAM),  # the start of a text that never came
        ("fault=clean-end;at=3", STREAM),
        ("fault=error;at=0", STREAM),  # overloaded, but with status 200
        ("fault=cut;at=50", BODY),
        ("fault=cut;at=20000;bytes=100000", BODY),
        ("fault=cut;at=1500000;bytes=3000000", BODY),  # too long to be kept back, so begun
        ("fault=truncated-chunk;at=20", BODY),
    ],
)
async def test_an_answer_that_brought_nothing_is_given_back(
    tmp_path: Path, script: str, body: dict[str, Any]
) -> None:
    prepaid = plan(*FREE, billing="per-token")
    async with running_relay(tmp_path, plan=prepaid, model=PRICED) as relay:
        await pay(relay, 1_000_000)
        await until_paid(relay, 1_000_000)
        async with connected(relay.port) as (reader, writer):
            fields = f"x-simulate: {script}\r\nconnection: close\r\n"
            writer.write(request(relay.key, body, fields=fields))
            with contextlib.suppress(ConnectionError):
                await reader.read(-1)
        [row] = await settled(relay, 1)
        assert (row["rule"], row["cost_micro"]) == ("refunded", 0)
        assert left((await ask(relay))[1]) == 39


async def test_a_caller_who_leaves_before_the_last_octet_of_a_document_pays(
    tmp_path: Path,
) -> None:
    async with running_relay(tmp_path, plan=plan(*FREE), model=PRICED) as relay:
        async with connected(relay.port) as (reader, writer):
            script = "x-simulate: bytes=20000000\r\n"
            writer.write(request(relay.key, fields=script))
            assert (await read_head(reader))[0] == 200
            await reader.readexactly(1_000_000)
        [row] = await settled(relay, 1)
        assert (row["rule"], row["outcome"]) == ("reserved", "caller left")
        assert left((await ask(relay))[1]) == 38


async def test_a_stream_that_reports_nothing_counts_as_it_was_reserved(tmp_path: Path) -> None:
    async def silent(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Seen
    ) -> None:
        events = answers.stream(start={"input_tokens": 0}, end={})
        writer.write(answers.chunked(events))

    async with (
        raw_upstream(silent) as upstream,
        running_relay(tmp_path, upstream.url, plan=plan(*FREE), model=PRICED) as relay,
    ):
        status, fields, _ = await ask(relay, body=STREAM)
        assert (status, left(fields)) == (200, 39)
        [row] = await settled(relay, 1)
        assert (row["rule"], row["input"], row["output"]) == ("reserved", None, None)
        assert row["outcome"] == "whole"


async def test_input_that_is_told_at_the_end_only_is_counted(tmp_path: Path) -> None:
    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Seen) -> None:
        usage = {"input_tokens": 321, "output_tokens": 12, "cache_read_input_tokens": 7}
        events = answers.stream(start={"input_tokens": 0, "output_tokens": 0}, end=usage)
        writer.write(answers.chunked(events))

    async with (
        raw_upstream(late) as upstream,
        running_relay(tmp_path, upstream.url, plan=plan(*FREE)) as relay,
    ):
        await ask(relay, body=STREAM)
        [row] = await settled(relay, 1)
        assert (row["input"], row["output"], row["cache_read"]) == (321, 12, 7)
        assert row["rule"] == "reported"


# --- counting tokens ----------------------------------------------------------------

COUNT = {key: value for key, value in BODY.items() if key != "max_tokens"}


async def test_counting_tokens_is_free_and_has_a_pace_of_its_own(tmp_path: Path) -> None:
    octets = request(None, COUNT, target="/v1/messages/count_tokens")
    async with running_relay(tmp_path, plan=plan({"requests": 1, "per": "5h"})) as relay:
        octets = request(relay.key, COUNT, target="/v1/messages/count_tokens")
        assert (await ask(relay))[0] == 200  # the only one there is
        async with crowd(relay, COUNTS_PER_MINUTE + 100) as pairs:
            given = await all_at_once(pairs, octets)
        count = Counter(status for status, _, _ in given)
        assert COUNTS_PER_MINUTE <= count[200] < COUNTS_PER_MINUTE + 60
        assert count[200] + count[429] == len(given)
        for status, fields, body in given:
            assert left(fields) == 0  # no more and no less
            if status == 429:
                assert b"Too many requests to count tokens" in body
                assert 1 <= int(fields[b"retry-after"]) <= 2
                assert b"x-should-retry" not in fields
        assert len(await settled(relay, 1)) == 1


# --- told on every answer -----------------------------------------------------------

GROUPS = (b"x-ratelimit", b"anthropic-ratelimit-requests", b"anthropic-ratelimit-tokens")
TOLD = {group + part for group in GROUPS for part in (b"-limit", b"-remaining", b"-reset")}


def told(fields: dict[bytes, bytes]) -> set[bytes]:
    """The names of the limits' header fields, the client's own meters aside."""
    return {
        name for name in fields if b"ratelimit" in name and not name.count(b"ratelimit-unified")
    }


UNSERVED = {**BODY, "model": "gpt-unheard-of"}
EVERY_ANSWER = [
    pytest.param(200, {}, id="whole"),
    pytest.param(200, {"body": STREAM}, id="stream"),
    pytest.param(200, {"body": COUNT, "target": "/v1/messages/count_tokens"}, id="count"),
    pytest.param(200, {"method": "GET", "target": "/v1/models", "body": b""}, id="models"),
    pytest.param(
        200, {"method": "GET", "target": "/v1/models/claude-opus-4-8", "body": b""}, id="model"
    ),
    pytest.param(
        404, {"method": "GET", "target": "/v1/models/no-such", "body": b""}, id="no-such-model"
    ),
    pytest.param(400, {"body": b"{"}, id="no-json"),
    pytest.param(400, {"body": {"model": "claude-opus-4-8"}}, id="refused-upstream"),
    pytest.param(404, {"body": UNSERVED}, id="unserved"),
    pytest.param(404, {"target": "/v1/embeddings"}, id="no-such-path"),
    pytest.param(405, {"method": "PUT"}, id="wrong-method"),
    pytest.param(413, {"body": b" " * 5000}, id="too-large"),
    *(
        pytest.param(status, {"script": f"status={status}"}, id=f"upstream-{status}")
        for status in (400, 404, 429, 500, 529)
    ),
    pytest.param(503, {"script": "status=401"}, id="upstream-401"),
    pytest.param(502, {"script": "fault=close"}, id="upstream-closes"),
    pytest.param(502, {"script": "fault=html;status=200"}, id="upstream-html"),
]


@pytest.mark.parametrize(("status", "how"), EVERY_ANSWER)
async def test_every_answer_to_a_known_key_tells_what_is_left(
    tmp_path: Path, status: int, how: dict[str, Any]
) -> None:
    server = {"limits": {"body": 4096}}
    async with running_relay(tmp_path, plan=plan(*FREE), server=server) as relay:
        before = time.time()
        got, fields, _ = await ask(relay, **how)
        if how.get("script") == "fault=html;status=200":
            status = got  # whatever becomes of it
        assert got == status
        assert told(fields) == TOLD
        assert fields[b"request-id"]
        assert b"relay;dur=" in fields[b"server-timing"]
        sizes = [int(fields[group + b"-limit"]) for group in GROUPS]
        assert sizes == [40, 6000, 80_000_000]
        for group, size, longest in zip(GROUPS, sizes, (HOURS, 60, 60), strict=True):
            assert 0 <= left(fields, group) <= size
            assert before - 0.002 <= moment(fields[group + b"-reset"]) <= time.time() + longest


async def test_a_refused_request_is_told_the_same(tmp_path: Path) -> None:
    limits = [{"requests": 1, "per": "5h"}, *FREE[1:]]
    async with running_relay(tmp_path, plan=plan(*limits)) as relay:
        await ask(relay)
        status, fields, _ = await ask(relay)
        assert (status, told(fields)) == (429, TOLD)


async def test_a_suspended_account_is_told_the_same(tmp_path: Path) -> None:
    async with running_relay(tmp_path, plan=plan(*FREE)) as relay:
        await users.suspend(relay.app.database, EMAIL, time.time())
        relay.app.callers.replace(await live_keys(relay.app.database))
        status, fields, _ = await ask(relay)
        assert (status, told(fields)) == (403, TOLD)


@pytest.mark.parametrize(
    "target", ["/v1/messages", "/v1/models", "/v1/messages/count_tokens", "/v1/embeddings"]
)
async def test_an_unknown_key_is_told_nothing_but_its_request_id(
    tmp_path: Path, target: str
) -> None:
    method = "GET" if target == "/v1/models" else "POST"
    async with running_relay(tmp_path, plan=plan(*FREE)) as relay:
        _, fields, _ = await ask(relay, "sk-llmapi-" + "0" * 43, target=target, method=method)
        openai = target == "/v1/embeddings"  # its SDKs look for another name of the same id
        assert set(fields) == {
            *(b"content-type", b"content-length", b"date", b"request-id", b"server-timing"),
            b"x-request-id" if openai else b"x-should-retry",
        }


async def test_what_is_left_never_grows_within_a_window(tmp_path: Path) -> None:
    async with running_relay(tmp_path, plan=plan(*FREE)) as relay:
        seen, ends = [], set()
        async with connected(relay.port) as (reader, writer):
            for number in range(45):
                body = STREAM if number % 3 else BODY
                writer.write(request(relay.key, body))
                _, fields, _ = await read_answer(reader)
                seen.append(left(fields))
                ends.add(fields[b"x-ratelimit-reset"])
        assert seen == [*range(39, -1, -1), 0, 0, 0, 0, 0]
        assert len(ends) == 1


# --- to the token -------------------------------------------------------------------

TOOLS = [
    {
        "name": "get_weather",
        "description": "The weather of a city.",
        "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
    }
]
CACHED = {
    **BODY,
    "system": [
        {"type": "text", "text": "All of it. " * 900, "cache_control": {"type": "ephemeral"}}
    ],
}
THINKING = {**BODY, "max_tokens": 4000, "thinking": {"type": "adaptive"}}
CORPUS: list[tuple[str, dict[str, Any]]] = [
    ("", BODY),
    ("tokens=300", BODY),
    ("tokens=40;split=7", BODY),
    ("tokens=1", BODY),
    ("thinking=1", BODY),
    ("", THINKING),
    ("thinking=1;tokens=30;split=7", THINKING),
    ("tool=get_weather", {**BODY, "tools": TOOLS}),
    ("tool=get_weather;tools=3;split=7", {**BODY, "tools": TOOLS}),
    ("", CACHED),
    ("tokens=12", CACHED),
    ("split=7", CACHED),
    ("bytes=200000", BODY),
    ("tokens=20;pace=400", BODY),
    ("fault=drip", BODY),
]
# After content: what is cut before that is no answer, and costs nothing.
CUT = ["fault=cut;at=4", "fault=cut;at=9", "fault=reset;at=7", "fault=truncated-chunk;at=6"]


def reported(payload: bytes) -> dict[str, int]:
    """What a stream, or a part of it, has said of its usage by the documented rules."""
    usage: dict[str, int] = {}
    for line in payload.split(b"\n"):
        if line.startswith(b"data: ") and b'"usage"' in line:
            event = json.loads(line[6:])
            said = event.get("usage") or event["message"]["usage"]
            usage |= {name: value for name, value in said.items() if isinstance(value, int)}
    return usage


async def test_what_is_settled_is_what_the_upstream_reports_to_the_token(tmp_path: Path) -> None:
    columns = ("input", "output", "cache_read", "cache_write")
    names = ("input_tokens", "output_tokens", "cache_read_input_tokens")
    names = (*names, "cache_creation_input_tokens")
    wanted = [(script, {**body, "stream": on}) for script, body in CORPUS for on in (False, True)]
    wanted += [("", body) for _, body in wanted[:12]]
    random.Random(3).shuffle(wanted)
    async with running_relay(tmp_path, plan=plan(*FREE[1:]), model=PRICED) as relay:
        simulator = relay.simulator
        assert simulator is not None
        turns = asyncio.Semaphore(8)

        async def one(script: str, body: dict[str, Any]) -> None:
            async with turns:
                status, _, answer = await ask(relay, script=script, body=body)
            assert status == 200, answer

        await asyncio.gather(*(one(script, body) for script, body in wanted))
        whole = len(wanted)
        rows = await settled(relay, whole)
        assert {(row["rule"], row["outcome"]) for row in rows} == {("reported", "whole")}
        totals = simulator.journal.report()["totals"]
        counted = {name: sum(row[column] or 0 for row in rows)
                   for column, name in zip(columns, names, strict=True)}  # fmt: skip
        assert counted == {name: totals[name] for name in names}
        assert min(counted.values()) > 0
        for row in rows:
            cost = 3 * row["input"] + 15 * row["output"]
            cost += 0.3 * (row["cache_read"] or 0) + 3.75 * (row["cache_write"] or 0)
            assert row["cost_micro"] == math.ceil(round(cost, 6))

        async def cut(script: str) -> dict[str, int]:
            async with connected(relay.port) as (reader, writer):
                writer.write(request(relay.key, STREAM, fields=f"x-simulate: {script}\r\n"))
                _, fields = await read_head(reader)
                seen = b""
                with contextlib.suppress(ConnectionError):
                    while data := await reader.read(65536):
                        seen += data
            return {**reported(seen), "id": fields[b"request-id"]}  # type: ignore[dict-item]

        given = await asyncio.gather(*map(cut, CUT))
        rows = (await settled(relay, whole + len(CUT)))[whole:]
        assert {row["rule"] for row in rows} == {"partial"}
        by_id = {row["id"].encode(): row for row in rows}
        for usage in given:
            row = by_id[usage["id"]]  # type: ignore[index]
            assert (row["input"], row["output"]) == (usage["input_tokens"], usage["output_tokens"])
        # the simulator had read the prompts of these as well, but ended no answer
        totals = simulator.journal.report()["totals"]
        [told] = await sums(relay.app.database, "key")
        assert (told.input, told.cache_read, told.cache_write) == (
            totals["input_tokens"],
            totals["cache_read_input_tokens"],
            totals["cache_creation_input_tokens"],
        )
        assert told.output == totals["output_tokens"] + sum(row["output"] for row in rows)
        assert (told.requests, told.refunded, told.estimated) == (whole + len(CUT), 0, 0)


# --- money --------------------------------------------------------------------------

PAID = plan(billing="per-token")
# The most that BODY may cost: all of it written into a cache, and as long as it may be.
COST = math.ceil(3.75 * (len(json.dumps(BODY)) // 2) + 15 * 100)


async def pay(relay: Live, micro: int) -> None:
    """A credit as the command line makes it: from another connection."""
    other = await Database.open(relay.app._settings.database.path)
    try:
        [key] = [key for key in await live_keys(other) if key.email == EMAIL]
        await balance.credit(other, key.user_id, micro, "cash", time.time())
    finally:
        await other.close()


async def until_paid(relay: Live, micro: int) -> None:
    def there() -> bool:
        return sum(purse.credited for purse in relay.app.ledger._purses.values()) == micro

    await until(there, within=1)


async def test_a_credit_is_in_force_within_a_second(tmp_path: Path) -> None:
    async with running_relay(tmp_path, plan=PAID, model=PRICED) as relay:
        status, fields, body = await ask(relay)
        assert status == 402
        assert json.loads(body)["error"]["type"] == "billing_error"
        assert "balance of this account is used up" in json.loads(body)["error"]["message"]
        assert fields[b"x-should-retry"] == b"false"
        assert b"retry-after" not in fields
        await pay(relay, 1_000_000)
        begun = time.monotonic()
        async with asyncio.timeout(1):
            while (await ask(relay))[0] != 200:  # noqa: ASYNC110 - each asks anew
                await asyncio.sleep(0.01)
        print(f"paid in after {time.monotonic() - begun:.2f} s")


async def test_requests_at_once_cannot_overdraw_and_the_statement_adds_up(tmp_path: Path) -> None:
    paid = 10 * COST + COST // 2
    async with running_relay(tmp_path, plan=PAID, model=PRICED) as relay:
        await pay(relay, paid)
        await until_paid(relay, paid)
        octets = request(relay.key, fields="x-simulate: delay=0.3;tokens=100\r\n")
        async with crowd(relay, 100) as pairs:
            given = await all_at_once(pairs, octets)
        assert Counter(status for status, _, _ in given) == {200: 10, 429: 90}
        for status, fields, body in given:
            if status == 429:  # the rest is only held: soon there may be enough
                assert fields[b"retry-after"] == b"5"
                assert b"held for requests that are running" in body
        answered = 10
        while (status := (await ask(relay, script="tokens=100"))[0]) == 200:
            answered += 1
        assert status == 402
        rows = await settled(relay, answered)
        with beside(relay) as connection:
            lines = list(connection.execute("SELECT * FROM statement ORDER BY id"))
            [row] = connection.execute("SELECT credited, charged, micro FROM balance")
        assert tuple(row) == (paid, sum(row["cost_micro"] for row in rows), row["micro"])
        assert row["micro"] == relay.app.ledger.balance(lines[0]["user_id"])
        assert 0 <= row["micro"] < COST
        assert lines[0]["amount_micro"] == paid
        charges = {line["request_id"]: -line["amount_micro"] for line in lines[1:]}
        assert charges == {row["id"]: row["cost_micro"] for row in rows}
        after = 0
        for line in lines:
            after += line["amount_micro"]
            assert line["balance_after"] == after >= 0


async def test_what_fails_is_not_charged(tmp_path: Path) -> None:
    async with running_relay(tmp_path, plan=PAID, model=PRICED) as relay:
        await pay(relay, COST)
        await until_paid(relay, COST)
        for script in ("status=529", "status=400", "fault=close"):
            assert (await ask(relay, script=script))[0] in (529, 400, 502)
        async with connected(relay.port) as (_, writer):
            writer.write(request(relay.key, fields="x-simulate: delay=5\r\n"))
            await until(lambda: relay.simulator and relay.simulator.journal.requests > 3)
        await settled(relay, 4)
        assert (await ask(relay))[0] == 200  # all of it was still there
        with beside(relay) as connection:
            [[charges]] = connection.execute("SELECT count(*) FROM statement WHERE kind='charge'")
        assert charges <= 1


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({**BODY, "max_tokens": 1}, "日本語のとても長い文章です。" * 500),
        (CACHED, "x"),
        ({**BODY, "max_tokens": 1}, "y" * 40_000),
    ],
    ids=["dense", "cached", "long"],
)
async def test_what_is_held_covers_what_it_comes_to(
    tmp_path: Path, body: dict[str, Any], text: str
) -> None:
    body = {**body, "messages": [{"role": "user", "content": text}]}
    octets = json.dumps(body, ensure_ascii=False).encode()
    async with running_relay(tmp_path, plan=PAID, model=PRICED) as relay:
        await pay(relay, 10_000_000)
        await until_paid(relay, 10_000_000)
        async with connected(relay.port) as (reader, writer):
            writer.write(request(relay.key, octets, fields="x-simulate: delay=0.2\r\n"))
            purse = next(iter(relay.app.ledger._purses.values()))
            await until(lambda: purse.held)
            held = purse.held
            assert (await read_answer(reader))[0] == 200
        [row] = await settled(relay, 1)
        assert 0 < row["cost_micro"] <= held
        assert purse.held == 0


LINKED = {**BODY, "max_tokens": 1, "messages": [{"role": "user", "content": [
    {"type": "document", "source": {"type": "url", "url": "https://example.com/long.pdf"}},
]}]}  # fmt: skip


async def test_what_is_fetched_for_a_prompt_may_fill_the_context(tmp_path: Path) -> None:
    async with running_relay(tmp_path, plan=PAID, model=PRICED) as relay:
        await pay(relay, 100_000)
        await until_paid(relay, 100_000)
        status, _, body = await ask(relay, body=LINKED)
        assert (status, b"which may cost $" in body) == (402, True)


@pytest.mark.parametrize("count", [-1_000_000, 10**15, 2**70])
async def test_counts_that_cannot_be_change_no_balance(tmp_path: Path, count: int) -> None:
    async def odd(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Seen) -> None:
        usage = {"input_tokens": count, "output_tokens": count}
        message = {"type": "message", "model": "m", "content": [], "usage": usage}
        writer.write(answers.sized(json.dumps(message).encode()))

    async with (
        raw_upstream(odd) as upstream,
        running_relay(tmp_path, upstream.url, plan=PAID, model=PRICED) as relay,
    ):
        await pay(relay, 10 * COST)
        await until_paid(relay, 10 * COST)
        assert (await ask(relay))[0] == 200
        [row] = await settled(relay, 1)
        assert (row["rule"], row["input"], row["output"]) == ("reserved", None, None)
        assert 0 < row["cost_micro"] <= COST
        with beside(relay) as connection:
            [[micro]] = connection.execute("SELECT micro FROM balance")
            [[user]] = connection.execute("SELECT id FROM users")
        assert micro == 10 * COST - row["cost_micro"] == relay.app.ledger.balance(user)


async def test_a_database_has_one_server_whatever_links_lead_to_it(tmp_path: Path) -> None:
    async with running_relay(tmp_path, plan=plan(*FREE)) as relay:
        settings = relay.app._settings
        link = tmp_path / "link.db"
        link.symlink_to(settings.database.path)
        database = msgspec.structs.replace(settings.database, path=str(link))
        server = msgspec.structs.replace(settings.server, listen=["127.0.0.1:0"])
        other = App(msgspec.structs.replace(settings, database=database, server=server))
        with pytest.raises(OSError, match="another relay serves from the database"):
            await other.start()


async def test_a_database_in_no_folder_is_refused_in_plain_words(tmp_path: Path) -> None:
    settings = config.Settings(
        database=config.DatabaseSettings(path=str(tmp_path / "no" / "relay.db"))
    )
    with pytest.raises(OSError, match="there is no folder"):
        await App(settings).start()
