"""No answer of an upstream shows the operator's credential to a caller, in whatever spelling."""

import asyncio
import json
import re
from typing import Any

import pytest

from tests.fakes import answers
from tests.fakes.live import UPSTREAM_KEY, RelayWith, upstream_row
from tests.fakes.upstream import JSON_ANSWER, OK, Seen, UpstreamWith, always
from tests.gateway.test_answers import DIALECTS, PLAN, ask, everything

KEY = UPSTREAM_KEY.replace("-", "/", 1)  # so that one octet has a short escape
OPTIONS = {"api_key": KEY}


def unicode(text: str, upper: bool = False) -> str:
    return "".join(f"\\u{ord(one):04{'X' if upper else 'x'}}" for one in text)


SPELLINGS = {
    "plain": KEY,
    "slash": KEY.replace("/", "\\/"),
    "dash": KEY.replace("-", "\\u002d"),
    "capital-dash": KEY.replace("-", "\\u002D"),
    "letter": KEY.replace("a", "\\u0061"),
    "all": unicode(KEY),
    "all-capitals": unicode(KEY, True),
    "nested": KEY.replace("-", "\\\\u002d").replace("/", "\\\\\\/"),
}


def shows(payload: bytes) -> bool:
    """Whether octets show the credential to a reader who undoes all escapes."""
    text = re.sub(rb"\\+u00([0-9a-fA-F]{2})", lambda one: bytes([int(one[1], 16)]), payload)
    return KEY.encode() in re.sub(rb"\\+/", b"/", text)


def test_every_spelling_shows_it() -> None:
    assert all(shows(spelling.encode()) for spelling in SPELLINGS.values())


@pytest.mark.matrix(share=16)
@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize("streamed", [False, True], ids=["json", "sse"])
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("status", [200, 400, 429, 500, 529])
async def test_no_error_quotes_it(
    upstream_with: UpstreamWith,
    relay_with: RelayWith,
    dialect: str,
    streamed: bool,
    status: int,
    spelling: str,
) -> None:
    error = f'{{"type":"error","error":{{"type":"api_error","message":"odd {spelling} here"}}}}'
    fields = [b"x-should-retry: " + KEY.encode()]
    octets = answers.sized(error.encode(), b"%d Status" % status, *fields)
    upstream = await upstream_with(always(octets))
    relay = await relay_with([upstream_row("a", upstream, OPTIONS)], plan=PLAN)
    got, head, payload = await ask(relay, dialect, streamed)
    assert got >= 400
    assert not shows(payload)
    assert KEY.encode() not in b"".join(head.values())
    assert KEY not in relay.log_path.read_text()


@pytest.mark.matrix(share=4)
@pytest.mark.parametrize("place", ["head", "document"])
@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_an_answer_that_quotes_it_goes_to_another_upstream(
    upstream_with: UpstreamWith, relay_with: RelayWith, dialect: str, spelling: str, place: str
) -> None:
    document, fields = JSON_ANSWER, [b"request-id: " + KEY.encode()]
    if place == "document":
        document = document[:-1] + b',"debug":{"headers":"%b"}}' % spelling.encode()
        fields = []
    leaky = await upstream_with(always(answers.sized(document, b"200 OK", *fields)))
    well = await upstream_with(always(OK))
    rows = [
        upstream_row("leaky", leaky, {**OPTIONS, "priority": 0}),
        upstream_row("well", well, {**OPTIONS, "priority": 1}),
    ]
    relay = await relay_with(rows, plan=PLAN)
    status, head, payload = await ask(relay, dialect, False)
    assert status == 200
    assert not shows(payload)
    assert KEY.encode() not in b"".join(head.values())
    translated = place == "document" and dialect != "messages"  # which takes the content alone
    assert len(well.requests) == (not translated)
    assert KEY not in relay.log_path.read_text()


EVENTS = {
    "detail": 'data: {"detail":"%s"}',
    "named": 'event: exception\ndata: {"reason":"%s"}',
    "message": 'data: {"message":"%s","code":500}',
    "error": 'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"%s"}}',
    "no-space": 'event:error\ndata:{"type":"error","error":{"type":"api_error","message":"%s"}}',
    "ping": 'event: ping\ndata: {"type":"ping","debug":"%s"}',
    "text": "data: oh no, %s",
    "lines": 'event: error\ndata: {"type":"error",\ndata: "error":{"message":"%s"}}',
}
CUTS = ["whole", "word", "middle", "octets", "chunks"]


def cut(event: bytes, how: str) -> list[bytes]:
    """An event as the pieces that an upstream sends."""
    if how == "whole":
        return [answers.chunk(event)]
    if how == "octets":  # of the chunk, framing and all
        octets = answers.chunk(event)
        return [octets[at : at + 7] for at in range(0, len(octets), 7)]
    if how == "chunks":
        return [answers.chunk(event[at : at + 11]) for at in range(0, len(event), 11)]
    at = event.find(b"err") + 3 if how == "word" else len(event) // 2
    octets = answers.chunk(event)
    at += octets.index(b"\r\n") + 2
    return [octets[:at], octets[at:]]


@pytest.mark.matrix(share=8)
@pytest.mark.parametrize("how", CUTS)
@pytest.mark.parametrize("name", EVENTS)
@pytest.mark.parametrize("spelling", ["plain", "slash", "all"])
@pytest.mark.parametrize("together", [False, True], ids=["alone", "behind-content"])
async def test_no_event_of_a_stream_quotes_it(
    upstream_with: UpstreamWith,
    relay_with: RelayWith,
    name: str,
    how: str,
    spelling: str,
    together: bool,
) -> None:
    event = (EVENTS[name] % SPELLINGS[spelling]).encode() + b"\n\n"
    delta = answers.stream(("Hello",))[3]
    start = b"".join(map(answers.chunk, answers.stream(("Hello",))[:4]))
    pieces = cut(event, how)
    if together:
        pieces[0] = answers.chunk(delta) + pieces[0]

    async def answer(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Seen
    ) -> None:
        writer.write(answers.chunked_head() + start)
        for piece in [*pieces, answers.LAST]:
            await writer.drain()
            await asyncio.sleep(0.002)
            writer.write(piece)

    upstream = await upstream_with(answer)
    relay = await relay_with([upstream_row("a", upstream, OPTIONS)], plan=PLAN)
    payload = await everything(relay, "messages")
    assert b"Hello" in payload
    joined = re.sub(rb"\r\n[0-9a-f]+\r\n", b"", payload)  # as a reader of chunks sees it
    assert not shows(joined)
    assert b"event: error" in joined


@pytest.mark.parametrize("size", [60_000, 300_000])
async def test_no_long_error_event_hides_it(
    upstream_with: UpstreamWith, relay_with: RelayWith, size: int
) -> None:
    words = "a" * size + KEY
    event = answers.event("error", error={"type": "api_error", "message": words})
    pieces = [*answers.stream(("Hello",))[:4], event]
    upstream = await upstream_with(always(answers.chunked(pieces)))
    relay = await relay_with([upstream_row("a", upstream, OPTIONS)], plan=PLAN)
    payload = await everything(relay, "messages")
    assert b"Try again" in payload or b"aaa" in payload
    assert not shows(re.sub(rb"\r\n[0-9a-f]+\r\n", b"", payload))


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("content_block_start", 60_000),
        ("content_block_start", 300_000),
        ("content_block_start", 3_000_000),
        ("vendor_event", 300_000),
    ],
)
async def test_a_long_event_of_a_server_tool_passes(
    upstream_with: UpstreamWith, relay_with: RelayWith, name: str, size: int
) -> None:
    found = {"type": "web_fetch_tool_result", "tool_use_id": "srvtoolu_1", "content": "a" * size}
    event = answers.event(name, index=1, content_block=found)
    pieces = answers.stream(("Hello",))
    octets = answers.chunked([*pieces[:4], event, *pieces[4:]])
    upstream = await upstream_with(always(octets))
    relay = await relay_with([upstream_row("a", upstream, OPTIONS)], plan=PLAN)
    payload = await everything(relay, "messages")
    assert octets.partition(b"\r\n\r\n")[2] == payload.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("key", ["ollama", "x", "EMPTY"])
async def test_a_placeholder_is_no_secret(
    upstream_with: UpstreamWith, relay_with: RelayWith, key: str
) -> None:
    document: dict[str, Any] = json.loads(JSON_ANSWER)
    document["content"][0]["text"] = f"{key} is a word"
    upstream = await upstream_with(always(answers.sized(json.dumps(document).encode())))
    relay = await relay_with([upstream_row("a", upstream, {"api_key": key})], plan=PLAN)
    status, _, payload = await ask(relay, "messages", False)
    assert (status, json.loads(payload)) == (200, document)
