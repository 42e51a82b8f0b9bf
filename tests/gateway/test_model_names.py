"""The names of a model: requested, sent upstream, answered, logged."""

import asyncio
import contextlib
import gzip
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.translate.messages.peek import with_model
from tests.fakes import answers
from tests.fakes.caller import BODY, connected, exchange, read_answer, request
from tests.fakes.live import Live, RelayWith, running_relay, upstream_row
from tests.fakes.upstream import OK, Answer, Seen, Upstream, UpstreamWith, always, raw_upstream
from tests.wire.feeding import split_at

ASKED, ALIAS, SENT = "claude-sonnet-4-7", "claude-sonnet-4-6", "vendors/own-name"
STREAM = {**BODY, "stream": True}
EVENTS = [event.replace(ASKED.encode(), SENT.encode()) for event in answers.stream()]
WHOLE = b"".join(EVENTS)
RENAMED = WHOLE.replace(SENT.encode(), ASKED.encode())
DOCUMENT = (
    b'{ "id":"msg_1", "type":"message","role":"assistant",\n"content":[{"type":"tool_use","id":"t",'
    b'"name":"n","input":{"model":"vendors/own-name","n":1.0e3}}],"model" : "vendors/own-name",'
    b'"stop_reason":"tool_use","usage":{"input_tokens":11,"output_tokens":7}}\n'
)
DOCUMENT_RENAMED = DOCUMENT.replace(
    b'"model" : "vendors/own-name"', b'"model" : "%s"' % ASKED.encode()
)


@contextlib.asynccontextmanager
async def renaming(
    folder: Path, answer: Answer, *, answer_model: str = "served", **sections: Any
) -> AsyncIterator[tuple[Upstream, Live]]:
    """A relay with one model, which its upstream serves under another name."""
    async with raw_upstream(answer) as upstream:
        model = {
            "id": ASKED,
            "aliases": [ALIAS],
            "routes": [{"upstream": "main", "model": SENT}],
            "answer_model": answer_model,
        }
        async with running_relay(folder, upstream.url, model=[model], **sections) as relay:
            yield upstream, relay


RenamingWith = Callable[..., Awaitable[tuple[Upstream, Live]]]


@pytest.fixture
def renaming_with(tmp_path: Path, stack: contextlib.AsyncExitStack) -> RenamingWith:
    """Opens upstream and relay as `renaming` does; closed at the test's end."""

    async def open_relay(answer: Answer, **sections: Any) -> tuple[Upstream, Live]:
        return await stack.enter_async_context(renaming(tmp_path, answer, **sections))

    return open_relay


async def ask(
    relay: Live, body: bytes | dict[str, Any] | None = None
) -> tuple[int, dict[bytes, bytes], bytes]:
    async with connected(relay.port) as (reader, writer):
        writer.write(request(relay.key, body))
        return await read_answer(reader)


def pieces(parts: list[bytes]) -> Answer:
    """Write each part on its own."""

    async def answer(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Seen
    ) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)

    return answer


# --- requests ---

BODIES = [
    b'{"model":"claude-sonnet-4-7","max_tokens":1,"messages":[]}',
    b'{ "max_tokens" : 1.0e1 ,\n"messages":[{"role":"user","content":'
    b'"\\"model\\": \\u00e4 \xc3\xa4"}],'
    b'"model"\t: "claude-sonnet-4-7" }\n',
    b'{"messages":[],"tools":[{"input_schema":{"properties":{"model":{"const":"claude-sonnet-4-7"}}'
    b'}}],"model":"claude-sonnet-4-7","metadata":{"model":"claude-sonnet-4-7"},"max_tokens":1}',
    b'{"model":"claude-sonnet-4-6","max_tokens":1,"messages":[]}',
    b'{"model":"claude-sonnet-4-7","max_tokens":1,"messages":[],"x":"' + b"y" * 200_000 + b'"}',
]


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
async def test_only_the_model_name_of_a_request_changes(
    renaming_with: RenamingWith, body: bytes
) -> None:
    upstream, relay = await renaming_with(always(OK))
    status, fields, _ = await ask(relay, body)
    [seen] = upstream.requests
    assert status == 200
    assert fields[b"x-relay-model"] == SENT.encode()
    assert seen.body == with_model(body, SENT)
    name = json.loads(body)["model"].encode()
    front, back = seen.body.split(b'"%s"' % SENT.encode())
    assert body == front + b'"%s"' % name + back
    assert seen.fields[b"content-length"] == b"%d" % len(seen.body)


async def test_a_route_without_a_name_sends_the_models_id(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    model = {"id": ASKED, "aliases": [ALIAS], "routes": [{"upstream": "main"}]}
    upstream = await upstream_with(always(OK))
    relay = await relay_with(upstream, model=[model])
    first = await ask(relay, BODIES[1])
    second = await ask(relay, BODIES[3])
    assert upstream.requests[0].body == BODIES[1]  # every octet
    assert json.loads(upstream.requests[1].body)["model"] == ASKED  # the id, not the alias
    assert first[1][b"x-relay-model"] == second[1][b"x-relay-model"] == ASKED.encode()


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"claude-sonnet-4-7","max_tokens":1,"messages":[],"model":"claude-sonnet-4-7"}',
        b'{"mod\\u0065l":"claude-sonnet-4-7","max_tokens":1,"messages":[]}',
    ],
    ids=["twice", "escaped"],
)
async def test_an_ambiguous_model_name_is_refused(renaming_with: RenamingWith, body: bytes) -> None:
    upstream, relay = await renaming_with(always(OK))
    status, _, payload = await ask(relay, body)
    assert status == 400
    assert json.loads(payload)["error"]["message"].startswith("model: ")
    assert upstream.requests == []
    assert (await ask(relay))[0] == 200  # the upstream is not at fault


async def test_counting_tokens_uses_the_upstreams_model_name(renaming_with: RenamingWith) -> None:
    counted = answers.sized(b'{"input_tokens":3}')
    upstream, relay = await renaming_with(always(counted))
    async with connected(relay.port) as (reader, writer):
        writer.write(request(relay.key, BODIES[0], target="/v1/messages/count_tokens"))
        status, fields, payload = await read_answer(reader)
        assert upstream.requests[0].body == with_model(BODIES[0], SENT)
    assert (status, payload) == (200, b'{"input_tokens":3}')
    assert fields[b"x-relay-model"] == SENT.encode()


async def test_each_upstream_gets_its_own_model_name(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    refusal = answers.sized(
        b'{"type":"error","error":{"type":"overloaded_error","message":"busy"}}', b"529 Overloaded"
    )
    one = await upstream_with(always(refusal))
    two = await upstream_with(always(OK))
    upstreams = [upstream_row("one", one), upstream_row("two", two, {"priority": 1})]
    routes = [
        {"upstream": "one", "model": "name/one"},
        {"upstream": "two", "model": "two-name"},
    ]
    models = [{"id": ASKED, "routes": routes}]
    relay = await relay_with(upstreams, model=models)
    status, fields, _ = await ask(relay)
    assert json.loads(one.requests[0].body)["model"] == "name/one"
    assert json.loads(two.requests[0].body)["model"] == "two-name"
    assert (status, fields[b"x-relay-model"]) == (200, b"two-name")


# --- answers ---


def framings(payload: bytes, parts: list[bytes], kind: bytes) -> dict[str, list[bytes]]:
    """An answer in each framing, in these parts."""
    return {
        "sized": [
            answers.head(b"200 OK", b"content-length: %d" % len(payload), kind=kind),
            *parts,
        ],
        "chunked": [answers.chunked_head(kind), *map(answers.chunk, parts), answers.LAST],
    }


@pytest.mark.parametrize("framing", ["sized", "chunked"])
@pytest.mark.parametrize("split", [10**6, 1000, 37, 1])
@pytest.mark.parametrize("kind", ["document", "stream"])
async def test_only_the_model_name_of_an_answer_changes(
    renaming_with: RenamingWith, kind: str, split: int, framing: str
) -> None:
    body, mime = (DOCUMENT, b"application/json")
    wanted = DOCUMENT_RENAMED
    if kind == "stream":
        body, mime, wanted = WHOLE, b"text/event-stream; charset=utf-8", RENAMED
    asked = {**STREAM, "stream": kind == "stream"}
    parts = [body[at : at + split] for at in range(0, len(body), split)]
    script = pieces(framings(body, parts, mime)[framing])
    _, relay = await renaming_with(script, answer_model="asked")
    async with connected(relay.port) as (reader, writer):
        for name in (ASKED, ALIAS):  # on one connection, so wrong framing would show
            writer.write(request(relay.key, {**asked, "model": name}))
            status, fields, payload = await read_answer(reader)
            assert status == 200
            assert payload == wanted.replace(ASKED.encode(), name.encode())
            assert fields[b"x-relay-model"] == SENT.encode()
    first, _ = relay.log()
    assert (first["outcome"], first["model"], "served" in first) == ("whole", ASKED, False)
    assert (first["input"], first["output"]) == ((11, 7) if kind == "document" else (25, 9))


@given(cuts=st.lists(st.integers(0, len(WHOLE) + 400), max_size=12), size=st.integers(1, 500))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_a_renamed_stream_is_the_same_at_any_split(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], size: int
) -> None:
    """Chunks and reads of an answer may end anywhere within its events."""
    wire = answers.chunked([WHOLE[at : at + size] for at in range(0, len(WHOLE), size)])
    script = pieces(split_at(wire, cuts))
    folder = tmp_path_factory.mktemp("relay")
    async with renaming(folder, script, answer_model="asked") as (_, relay):
        status, _, payload = await ask(relay, STREAM)
    assert (status, payload) == (200, RENAMED)


@pytest.mark.parametrize("kind", ["document", "stream"])
async def test_an_answer_framed_by_close_is_renamed(renaming_with: RenamingWith, kind: str) -> None:
    body, mime, wanted = DOCUMENT, b"application/json", DOCUMENT_RENAMED
    if kind == "stream":
        body, mime, wanted = WHOLE, b"text/event-stream", RENAMED
    script = always(answers.head(kind=mime) + body, close=True)
    _, relay = await renaming_with(script, answer_model="asked")
    status, _, payload = await ask(relay, STREAM if kind == "stream" else None)
    assert (status, payload) == (200, wanted)


@pytest.mark.parametrize("kind", ["document", "stream"])
async def test_an_answer_to_http_1_0_is_renamed(renaming_with: RenamingWith, kind: str) -> None:
    octets, wanted = answers.sized(DOCUMENT), DOCUMENT_RENAMED
    if kind == "stream":
        octets, wanted = answers.chunked(EVENTS), RENAMED
    _, relay = await renaming_with(always(octets), answer_model="asked")
    asked = request(relay.key, STREAM if kind == "stream" else None)
    raw = await exchange(relay.port, asked.replace(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", 1))
    assert raw.partition(b"\r\n\r\n")[2] == wanted


async def test_a_stream_is_renamed_after_pings(
    renaming_with: RenamingWith, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.net.deadlines.TICK", 0.02)
    go_on = asyncio.Event()

    async def answer(reader: object, writer: asyncio.StreamWriter, seen: Seen) -> None:
        await go_on.wait()
        writer.write(answers.chunked(EVENTS))

    pool = {"grace": 0.05, "keep_alive": 5}
    _, relay = await renaming_with(answer, answer_model="asked", pool=pool)
    async with connected(relay.port) as (reader, writer):
        writer.write(request(relay.key, STREAM, fields="connection: close\r\n"))
        raw = await reader.readuntil(b'ping"}\n\n')
        go_on.set()
        raw += await reader.read(-1)
    assert raw.endswith(answers.LAST)
    assert b'"model":"%s"' % ASKED.encode() in raw
    assert SENT.encode() not in raw


async def test_an_answer_above_the_buffer_limit_keeps_its_name(renaming_with: RenamingWith) -> None:
    long = DOCUMENT[:-2] + b',"x":"' + b"y" * 2_000_000 + b'"}\n'
    _, relay = await renaming_with(always(answers.sized(long)), answer_model="asked")
    status, _, payload = await ask(relay)
    assert (status, payload) == (200, long)


LONG = DOCUMENT[:-2] + b',"x":"' + b"y" * 1_500_000 + b'"}\n'
JSON, SSE, GZIP = b"application/json", b"text/event-stream", b"content-encoding: gzip"
FRAMINGS: dict[str, Callable[..., bytes]] = {
    "sized": lambda body, kind, *fields: answers.sized(body, b"200 OK", *fields, kind=kind),
    "chunked": lambda body, kind, *fields: (
        answers.chunked_head(kind, *fields) + answers.chunk(body) + answers.LAST
    ),
}


class Octets:
    """A received answer, as `http.client` reads one from a socket."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets

    def makefile(self, *_: Any) -> io.BytesIO:
        return io.BytesIO(self._octets)


@pytest.mark.parametrize("http", [b"1.0", b"1.1"])
@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize(
    ("answer", "streamed", "expected"),
    [
        pytest.param((LONG, JSON), False, LONG, id="long document"),
        pytest.param((gzip.compress(WHOLE), SSE, GZIP), True, RENAMED, id="encoded stream"),
        pytest.param(
            (gzip.compress(DOCUMENT), JSON, GZIP), False, DOCUMENT_RENAMED, id="encoded document"
        ),
    ],
)
async def test_an_answer_read_by_the_relay_has_a_true_framing(
    renaming_with: RenamingWith,
    answer: tuple[bytes, ...],
    streamed: bool,
    expected: bytes,
    framing: str,
    http: bytes,
) -> None:
    _, relay = await renaming_with(always(FRAMINGS[framing](*answer)), answer_model="asked")
    octets = request(relay.key, STREAM if streamed else BODY, fields="connection: close\r\n")
    octets = octets.replace(b" HTTP/1.1", b" HTTP/" + http, 1)
    response = HTTPResponse(Octets(await exchange(relay.port, octets)))  # type: ignore[arg-type]
    response.begin()
    assert (response.status, response.read()) == (200, expected)


@pytest.mark.parametrize("kind", ["document", "stream"])
async def test_answers_as_served_keep_every_octet(renaming_with: RenamingWith, kind: str) -> None:
    octets, wanted = answers.sized(DOCUMENT), DOCUMENT
    if kind == "stream":
        octets, wanted = answers.chunked(EVENTS), WHOLE
    _, relay = await renaming_with(always(octets))
    status, _, payload = await ask(relay, STREAM if kind == "stream" else None)
    assert (status, payload) == (200, wanted)


async def test_an_answer_without_a_model_is_unchanged(renaming_with: RenamingWith) -> None:
    document = b'{"type":"message","content":[],"usage":{"input_tokens":1,"output_tokens":1}}'
    script = always(answers.sized(document))
    _, relay = await renaming_with(script, answer_model="asked")
    status, _, payload = await ask(relay)
    assert (status, payload) == (200, document)


@pytest.mark.parametrize("answer_model", ["served", "asked"])
@pytest.mark.parametrize(
    ("named", "served"),
    [
        (SENT, None),
        (SENT + "-20260101", None),  # a dated snapshot of the same model
        ("a-cheaper-one", "a-cheaper-one"),
        ("x" * 300, "x" * 128),
    ],
)
@pytest.mark.parametrize("kind", ["document", "stream"])
async def test_another_models_answer_is_logged(
    renaming_with: RenamingWith, kind: str, named: str, served: str | None, answer_model: str
) -> None:
    source = DOCUMENT if kind == "document" else WHOLE
    body = source.replace(SENT.encode(), named.encode())
    octets = answers.sized(body) if kind == "document" else answers.chunked([body])
    _, relay = await renaming_with(always(octets), answer_model=answer_model)
    status, fields, _ = await ask(relay, STREAM if kind == "stream" else None)
    [line] = relay.log()
    [view] = relay.app.upstreams.view()
    assert status == 200
    assert fields[b"x-relay-model"] == SENT.encode()
    assert (line["model"], line.get("served")) == (ASKED, served)
    assert view["other_model"] == (served is not None)
