"""Everything that can be wrong with a request or an upstream: status, type, and what to do."""

import asyncio
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import anthropic
import pytest

from relay.accounts import keys, users
from relay.store.keys import live_keys
from tests.fakes import answers
from tests.fakes.caller import BODY, connected, read_answer, request
from tests.fakes.live import EMAIL, UPSTREAM_KEY, Live, running_relay
from tests.fakes.upstream import JSON_ANSWER, OK, always, raw_upstream

BAD = "invalid_request_error"
LIMIT = 4096  # octets of body, in the tests of that limit


@dataclasses.dataclass(frozen=True)
class Told:
    """What a caller was told; `usable` says whether the connection took another request."""

    status: int
    fields: dict[bytes, bytes]
    error: dict[str, Any]
    usable: bool

    @property
    def final(self) -> bool:
        return self.fields.get(b"x-should-retry") == b"false"


async def ask(live: Live, octets: bytes) -> Told:
    """Send, and then ask for something that always works on the same connection."""
    async with connected(live.port) as (reader, writer):
        writer.write(octets)
        status, fields, body = await read_answer(reader)
        assert fields[b"content-type"] == b"application/json"
        document = json.loads(body)
        if "request_id" in document:
            assert document["request_id"].encode() == fields[b"request-id"]
        usable = b"connection" not in fields
        if usable:
            writer.write(b"HEAD / HTTP/1.1\r\nhost: relay\r\n\r\n")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        else:
            assert fields[b"connection"] == b"close"
            assert await reader.read(-1) == b""
        return Told(status, fields, document, usable)


def is_refusal(told: Told, status: int, kind: str, *words: str) -> bool:
    """Whether it is this error in Anthropic's shape, with these words in its message."""
    assert set(told.error) == {"type", "error", "request_id"}
    assert told.error["type"] == "error"
    assert set(told.error["error"]) == {"type", "message"}
    assert (told.status, told.error["error"]["type"]) == (status, kind)
    message = told.error["error"]["message"]
    assert all(word in message for word in words), message
    assert message.endswith(".")
    assert UPSTREAM_KEY not in message
    return told.final == (status in (401, 403))


# --- who asks -----------------------------------------------------------------------


@pytest.mark.parametrize("key", ["sk-llmapi-wrong", "", "x" * 5000, "\u00fc"])
async def test_a_wrong_key_is_refused_for_good(live: Live, key: str) -> None:
    told = await ask(live, request(key))
    assert is_refusal(told, 401, "authentication_error", "x-api-key", "Authorization: Bearer")
    assert told.usable
    assert live.simulator is not None
    assert live.simulator.journal.requests == 0


@pytest.mark.parametrize("field", ["", "authorization: Basic abc\r\n", "authorization: Bearer\r\n"])
async def test_a_request_without_a_key_is_told_how_to_send_one(live: Live, field: str) -> None:
    told = await ask(live, request(None, fields=field))
    assert is_refusal(told, 401, "authentication_error", "x-api-key: KEY", "Authorization: Bearer")


async def reload(live: Live) -> None:
    live.app.callers.replace(await live_keys(live.app.database))


async def test_an_expired_key_is_refused_from_its_very_second_on(live: Live) -> None:
    app = live.app
    now = time.time()
    issued = await keys.create(
        app.database, app._settings, EMAIL, keys.KeyOptions("short", lifetime="1m"), now=now - 59.7
    )
    await reload(live)
    octets = request(issued.key.reveal())
    async with connected(live.port) as (reader, writer):
        writer.write(octets)
        assert (await read_answer(reader))[0] == 200
    await asyncio.sleep(max(0.0, now + 0.31 - time.time()))
    told = await ask(live, octets)
    assert is_refusal(told, 401, "authentication_error", "expired", "new one")


async def test_a_revoked_key_is_refused(live: Live) -> None:
    (key,) = await live_keys(live.app.database)
    await keys.revoke(live.app.database, key.key_id, now=time.time())
    await reload(live)
    assert is_refusal(await ask(live, request(live.key)), 401, "authentication_error", "revoked")


async def test_a_suspended_account_is_refused_for_good_until_it_is_resumed(live: Live) -> None:
    await users.suspend(live.app.database, EMAIL, now=time.time())
    await reload(live)
    told = await ask(live, request(live.key))
    assert is_refusal(told, 403, "permission_error", "suspended", "operator")
    await users.resume(live.app.database, EMAIL)
    await reload(live)
    async with connected(live.port) as (reader, writer):
        writer.write(request(live.key))
        assert (await read_answer(reader))[0] == 200


# --- what is asked ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", ("is empty",)),
        (b'{"model":', ("not valid JSON",)),
        (b'{"model":"\xff"}', ("not valid JSON",)),
        (b"[]", ("must be a JSON object",)),
        (b'{"max_tokens":1}', ("model: Field required", "GET /v1/models")),
        (b'{"model":7}', ("model: ", "GET /v1/models")),
    ],
)
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
async def test_a_body_that_cannot_be_routed_is_refused(
    live: Live, path: str, body: bytes, words: tuple[str, ...]
) -> None:
    told = await ask(live, request(live.key, body, target=path))
    assert is_refusal(told, 400, BAD, *words)
    assert told.usable


async def test_an_unknown_model_is_refused_with_the_names_of_those_that_are_served(
    live: Live,
) -> None:
    told = await ask(live, request(live.key, {**BODY, "model": "gpt-2"}))
    names = ("claude-opus-4-8", "claude-sonnet-4-7", "claude-haiku-4-5")
    assert is_refusal(told, 404, "not_found_error", "'gpt-2'", *names)
    assert told.usable


def chunked_request(key: str, body: bytes, piece: int = 1000) -> bytes:
    pieces = [body[start : start + piece] for start in range(0, len(body), piece)]
    return (
        (
            f"POST /v1/messages HTTP/1.1\r\nhost: relay\r\nx-api-key: {key}\r\n"
            "anthropic-version: 2023-06-01\r\ntransfer-encoding: chunked\r\n\r\n"
        ).encode()
        + b"".join(map(answers.chunk, pieces))
        + answers.LAST
    )


@pytest.mark.parametrize("coding", ["length", "chunks"])
@pytest.mark.parametrize("size", [LIMIT - 1, LIMIT, LIMIT + 1, 100 * LIMIT])
async def test_a_body_over_the_limit_is_refused_and_one_at_the_limit_is_not(
    tmp_path: Path, size: int, coding: str
) -> None:
    plain = json.dumps(BODY).encode()
    body = plain + b" " * (size - len(plain))
    async with (
        raw_upstream(always(OK)) as upstream,
        running_relay(tmp_path, upstream.url, server={"limits": {"body": LIMIT}}) as relay,
    ):
        make = chunked_request if coding == "chunks" else request
        if size <= LIMIT:
            async with connected(relay.port) as (reader, writer):
                writer.write(make(relay.key, body))
                assert (await read_answer(reader))[0] == 200
            assert upstream.requests[0].body == body
        else:
            told = await ask(relay, make(relay.key, body))
            assert is_refusal(told, 413, "request_too_large", str(LIMIT), "Shorten")
            assert upstream.requests == []


async def test_a_body_over_the_limit_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    async with (
        running_relay(tmp_path, "http://127.0.0.1:9", server={"limits": {"body": LIMIT}}) as relay,
        connected(relay.port) as (reader, writer),
    ):
        fields = f"x-api-key: {relay.key}\r\nexpect: 100-continue\r\ncontent-length: 99999999\r\n"
        writer.write(f"POST /v1/messages HTTP/1.1\r\nhost: a\r\n{fields}\r\n".encode())
        assert (await read_answer(reader))[0] == 413


async def test_a_caller_still_sending_a_body_that_is_too_large_reads_the_answer(
    tmp_path: Path,
) -> None:
    """It must not be reset while it sends, or it never sees why."""
    async with (
        running_relay(tmp_path, "http://127.0.0.1:9", server={"limits": {"body": LIMIT}}) as relay,
        connected(relay.port) as (reader, writer),
    ):
        head = f"POST /v1/messages HTTP/1.1\r\nhost: a\r\nx-api-key: {relay.key}\r\n"
        writer.write(f"{head}content-length: 20000000\r\n\r\n".encode())
        for _ in range(100):
            writer.write(b" " * 65_536)
            await writer.drain()
        assert (await read_answer(reader))[0] == 413


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/messages", b"POST"),
        ("PUT", "/v1/messages/count_tokens", b"POST"),
        ("DELETE", "/v1/models", b"GET, HEAD"),
        ("POST", "/v1/models/claude-sonnet-4-7", b"GET, HEAD"),
        ("POST", "/healthz", b"GET, HEAD"),
        ("BREW", "/v1/messages", b"POST"),
    ],
)
async def test_a_wrong_method_is_told_the_right_one(
    live: Live, method: str, path: str, allowed: bytes
) -> None:
    told = await ask(live, request(live.key, target=path, method=method))
    assert is_refusal(told, 405, BAD, allowed.decode(), path)
    assert told.fields[b"allow"] == allowed


@pytest.mark.parametrize("path", ["/v1/unheard-of", "/v1/messages/", "/v2/messages", "//", "/v1"])
async def test_an_unknown_path_is_told_what_there_is(live: Live, path: str) -> None:
    told = await ask(live, request(live.key, target=path))
    assert is_refusal(told, 404, "not_found_error", path, "POST /v1/messages", "GET /v1/models")
    assert told.usable


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/embeddings"])
async def test_the_paths_of_the_other_dialect_are_refused_in_its_shape(
    live: Live, path: str
) -> None:
    told = await ask(live, request(live.key, target=path))
    assert told.status == 404
    assert set(told.error) == {"error"}
    assert set(told.error["error"]) == {"message", "type", "param", "code"}
    assert path in told.error["error"]["message"]
    assert told.error["error"]["code"] == "not_found"


@pytest.mark.parametrize(
    ("octets", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS to a plain port
        (b"GARBAGE\r\n\r\n", 400),
        (b"POST /v1/messages HTTP/2.0\r\nhost: a\r\n\r\n", 505),
        (b"POST /v1/messages HTTP/1.1\r\n\r\n", 400),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nhost: a\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nhost: a\r\n" + b"x: y\r\n" * 101 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 40_000 + b"\r\n\r\n", 431),
        (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nhost: a\r\nexpect: coffee\r\ncontent-length: 1\r\n\r\n", 417),
    ],
)
async def test_what_is_no_request_is_refused_and_the_connection_ends(
    live: Live, octets: bytes, status: int
) -> None:
    told = await ask(live, octets)
    assert is_refusal(told, status, BAD)
    assert not told.usable


async def test_a_broken_chunked_body_is_refused(live: Live) -> None:
    octets = chunked_request(live.key, json.dumps(BODY).encode(), 20).replace(
        b"\r\n14\r\n", b"\r\n0x14\r\n", 1
    )
    told = await ask(live, octets)
    assert is_refusal(told, 400, BAD, "chunk")
    assert not told.usable


# --- what the upstream does ---------------------------------------------------------


async def behind(folder: Path, octets: bytes, *, close: bool = True) -> Told:
    async with (
        raw_upstream(always(octets, close=close)) as upstream,
        running_relay(folder, upstream.url) as relay,
    ):
        return await ask(relay, request(relay.key))


async def test_an_upstream_that_is_down_is_a_503_in_no_time(tmp_path: Path) -> None:
    async with running_relay(tmp_path, "http://127.0.0.1:9") as relay:
        begun = time.monotonic()
        told = await ask(relay, request(relay.key))
        assert is_refusal(told, 503, "overloaded_error", "cannot be reached", "Try again")
        assert told.usable
        assert time.monotonic() - begun < 1
        assert relay.log()[0]["outcome"].startswith("refused: ")


async def test_an_upstream_whose_name_is_unknown_is_a_503(tmp_path: Path) -> None:
    async with running_relay(tmp_path, "http://upstream.invalid") as relay:
        told = await ask(relay, request(relay.key))
    assert is_refusal(told, 503, "overloaded_error", "cannot be reached")


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"\x16\x03\x01 garbage \r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\n\r\n",
        answers.sized(b"<html>", kind=b"text/html"),
        answers.sized(b"hello", kind=b"text/plain"),
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        answers.sized(b"", b"302 Found", b"location: http://elsewhere.example/"),
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 17 + OK,
    ],
)
async def test_an_upstream_that_answers_something_else_is_a_502(
    tmp_path: Path, octets: bytes
) -> None:
    told = await behind(tmp_path, octets)
    assert is_refusal(told, 502, "api_error", "upstream", "Try again")
    assert told.usable
    assert "elsewhere" not in str(told)


@pytest.mark.parametrize("status", [401, 402, 403, 407])
async def test_what_concerns_the_operators_account_is_not_for_the_caller(
    tmp_path: Path, status: int
) -> None:
    body = b'{"type":"error","error":{"type":"x","message":"Your credit balance, org-canary"}}'
    told = await behind(tmp_path, answers.sized(body, b"%d Whatever" % status), close=False)
    assert is_refusal(told, 503, "overloaded_error", "operator")
    assert "canary" not in str(told)
    assert told.usable


@pytest.mark.parametrize("status", [400, 404, 405, 413, 422, 429, 500, 502, 503, 504, 529])
async def test_an_upstreams_error_is_passed_word_for_word(tmp_path: Path, status: int) -> None:
    body = (
        b'{ "type":"error","error":{"type":"overloaded_error","message":"w\\u00f6rd f\xc3\xbcr '
        b'word"}, "request_id":"req_upstream" }'
    )
    # Told until when it is busy, the relay would keep the second request back until then.
    octets = answers.sized(
        body, b"%d Odd Phrase" % status, b"retry-after: 0", b"x-should-retry: true"
    )
    async with (
        raw_upstream(always(octets)) as upstream,
        running_relay(tmp_path, upstream.url) as relay,
        connected(relay.port) as (reader, writer),
    ):
        for _ in range(2):
            writer.write(request(relay.key))
            told, fields, received = await read_answer(reader)
            assert (told, received) == (status, body)
            assert fields[b"retry-after"] == b"0"
            assert fields[b"x-should-retry"] == b"true"
        assert upstream.connections == 1  # an error is no reason to drop a good connection
        assert [line["status"] for line in relay.log()] == [status, status]


async def test_an_html_error_of_something_before_the_upstream_is_passed_as_it_is(
    tmp_path: Path,
) -> None:
    octets = answers.sized(b"<h1>Bad gateway</h1>", b"502 Bad Gateway", kind=b"text/html")
    async with (
        raw_upstream(always(octets)) as upstream,
        running_relay(tmp_path, upstream.url) as relay,
        connected(relay.port) as (reader, writer),
    ):
        writer.write(request(relay.key))
        status, fields, body = await read_answer(reader)
    assert (status, body) == (502, b"<h1>Bad gateway</h1>")
    assert fields[b"content-type"] == b"text/html"


async def test_an_error_without_a_body_is_passed_and_the_next_answer_is_its_own(
    tmp_path: Path,
) -> None:
    """What follows an empty answer on its connection is not the answer to the next request."""
    poison = answers.sized(b"", b"529 Overloaded") + answers.sized(b'{"poison":true}')
    turns = iter([poison, OK])

    async def answer(reader: Any, writer: Any, seen: Any) -> None:
        writer.write(next(turns))
        await writer.drain()

    async with (
        raw_upstream(answer) as upstream,
        running_relay(tmp_path, upstream.url) as relay,
        connected(relay.port) as (reader, writer),
    ):
        writer.write(request(relay.key))
        assert (await read_answer(reader))[::2] == (529, b"")
        writer.write(request(relay.key))
        assert (await read_answer(reader))[::2] == (200, JSON_ANSWER)
        assert upstream.connections == 2


async def test_the_sdk_raises_what_each_status_means(live: Live) -> None:
    table: dict[int, type[anthropic.APIStatusError]] = {
        400: anthropic.BadRequestError,
        404: anthropic.NotFoundError,
        413: anthropic.APIStatusError,
        429: anthropic.RateLimitError,
        500: anthropic.InternalServerError,
        529: anthropic.InternalServerError,
    }
    async with anthropic.AsyncAnthropic(
        base_url=live.url, api_key=live.key, max_retries=0
    ) as client:
        for status, kind in table.items():
            with pytest.raises(kind) as raised:
                await client.messages.create(
                    **BODY, extra_headers={"x-simulate": f"fault=status;status={status}"}
                )
            assert raised.value.status_code == status
            assert raised.value.request_id is not None


# --- the access log -----------------------------------------------------------------


@pytest.mark.parametrize("script", ["", "split=7", "split=1"])
@pytest.mark.parametrize("stream", [False, True])
async def test_the_access_log_tells_what_was_used(live: Live, stream: bool, script: str) -> None:
    octets = request(
        live.key, {**BODY, "stream": stream}, fields=f"x-simulate: tokens=7;{script}\r\n"
    )
    async with connected(live.port) as (reader, writer):
        writer.write(octets)
        status, fields, _ = await read_answer(reader)
    assert status == 200
    assert live.simulator is not None
    (line,) = live.log()
    totals = live.simulator.journal
    assert (line["input"], line["output"]) == (totals.input_tokens, totals.output_tokens)
    assert line["output"] > 0
    assert line["stop"] in ("end_turn", "max_tokens")
    assert line["id"] == fields[b"request-id"].decode()
    assert line["outcome"] == "whole"
    assert (line["user"], line["model"], line["upstream"]) == (EMAIL, "claude-sonnet-4-7", "main")
    assert line["upstream_id"].startswith("req_01")
    assert line["peer"] == "127.0.0.1"
    assert (line["method"], line["path"]) == ("POST", "/v1/messages")
    assert 0 < line["relay_us"] < line["us"]
