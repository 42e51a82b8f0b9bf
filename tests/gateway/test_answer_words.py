"""Words of an upstream that no caller may see: its credential, and its operator's account."""

import asyncio
import json
from typing import Any

import pytest

from tests.fakes import answers
from tests.fakes.live import UPSTREAM_KEY, RelayWith
from tests.fakes.upstream import UpstreamWith, always
from tests.gateway.test_answers import DIALECTS, PLAN, ask, everything, message_of

SECRET = UPSTREAM_KEY.encode()
ABOUT_OPERATOR = [
    ("rate_limit_error", "organization ORG-1234 over its limit"),
    ("rate_limit_error", "You have reached your specified API usage limits. Regain ORG-1234."),
    ("api_error", "The workspace ORG-1234 is gone"),
    ("billing_error", "ORG-1234 has to pay"),
]


@pytest.mark.parametrize("streamed", [False, True], ids=["json", "sse"])
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("status", [400, 404, 429, 500, 529, 200])
async def test_no_error_repeats_the_credential(
    upstream_with: UpstreamWith, relay_with: RelayWith, dialect: str, streamed: bool, status: int
) -> None:
    error = b'{"type":"error","error":{"type":"api_error","message":"odd key %b here"}}' % SECRET
    octets = answers.sized(error, b"%d Status" % status)
    relay = await relay_with(await upstream_with(always(octets)), plan=PLAN)
    got, fields, payload = await ask(relay, dialect, streamed)
    assert got == {200: 500, 529: 529 if dialect == "messages" else 503}.get(status, status)
    assert SECRET not in payload
    assert "odd key" in message_of(dialect, fields, payload)


@pytest.mark.matrix(share=3)
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("status", [429, 500, 503, 529, 200])
@pytest.mark.parametrize(("kind", "words"), ABOUT_OPERATOR)
async def test_no_error_speaks_of_the_operators_account(
    upstream_with: UpstreamWith,
    relay_with: RelayWith,
    dialect: str,
    status: int,
    kind: str,
    words: str,
) -> None:
    error = {"type": "error", "error": {"type": kind, "message": words}}
    octets = answers.sized(json.dumps(error).encode(), b"%d Status" % status)
    relay = await relay_with(await upstream_with(always(octets)), plan=PLAN)
    got, fields, payload = await ask(relay, dialect, False)
    assert got >= 429
    assert b"ORG-1234" not in payload
    assert message_of(dialect, fields, payload)


@pytest.mark.matrix(share=3)
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("cut", [0, 30, 75])
@pytest.mark.parametrize("named", [False, True], ids=["data-only", "named"])
@pytest.mark.parametrize(("kind", "words"), [*ABOUT_OPERATOR, ("api_error", "odd " + UPSTREAM_KEY)])
async def test_no_stream_says_what_errors_do_not(
    upstream_with: UpstreamWith,
    relay_with: RelayWith,
    dialect: str,
    kind: str,
    words: str,
    named: bool,
    cut: int,
) -> None:
    event = answers.event("error", error={"type": kind, "message": words})
    if not named:
        event = event.partition(b"\n")[2]
    start = answers.chunked_head() + b"".join(map(answers.chunk, answers.stream(("Hello",))[:4]))
    last = answers.chunk(event)

    async def answer(reader: Any, writer: Any, seen: Any) -> None:
        for piece in (start, last[:cut], last[cut:] + answers.LAST):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)

    relay = await relay_with(await upstream_with(answer))
    payload = await everything(relay, dialect)
    assert b"Hello" in payload
    assert SECRET not in payload
    assert b"ORG-1234" not in payload
    assert b'"error":{"' in payload.partition(b"Hello")[2]


DELTA = answers.event("content_block_delta", index=0, delta={"type": "text_delta", "text": "x"})


@pytest.mark.parametrize(
    "piece",
    [
        DELTA + answers.event("error", error={"type": "api_error", "message": SECRET.decode()}),
        b'data: {"code":500,"error":{"message":"%b"}}\n\n' % SECRET,
        b'data: {"object":"error","message":"%b"}\n\n' % SECRET,
    ],
    ids=["behind content", "code first", "object first"],
)
async def test_no_shape_of_an_error_in_a_stream_leaks(
    upstream_with: UpstreamWith, relay_with: RelayWith, piece: bytes
) -> None:
    pieces = [*answers.stream(("Hello",))[:4], DELTA, DELTA, piece]

    async def answer(reader: Any, writer: Any, seen: Any) -> None:
        writer.write(answers.chunked_head())
        for one in pieces:
            writer.write(answers.chunk(one))
            await writer.drain()
            await asyncio.sleep(0.01)
        writer.write(answers.LAST)

    relay = await relay_with(await upstream_with(answer))
    payload = await everything(relay, "messages")
    assert b"Hello" in payload
    assert SECRET not in payload


async def test_a_harmless_error_event_passes_word_for_word(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    event = answers.event("error", error={"type": "overloaded_error", "message": "Overloaded"})
    pieces = [*answers.stream(("an error: ",))[:4], event]
    relay = await relay_with(await upstream_with(always(answers.chunked(pieces))))
    payload = await everything(relay, "messages")
    assert payload.endswith(b"".join(map(answers.chunk, pieces)) + answers.LAST)
