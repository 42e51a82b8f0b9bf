"""The errors of a request: status, type and advice."""

import asyncio
import json
import time

import pytest

from relay.accounts import keys, users
from relay.store.keys import live_keys
from tests.fakes import answers
from tests.fakes.caller import BODY, connected, read_answer, request
from tests.fakes.live import EMAIL, Live, RelayWith
from tests.fakes.upstream import OK, UpstreamWith, always
from tests.gateway.refused import BAD, ask, is_refusal

LIMIT = 4096  # octets of body, in the tests of that limit


# --- authentication ---


@pytest.mark.parametrize("key", ["sk-llmapi-wrong", "", "x" * 5000, "\u00fc"])
async def test_a_wrong_key_is_refused_for_good(live: Live, key: str) -> None:
    reply = await ask(live, request(key))
    assert is_refusal(reply, 401, "authentication_error", "x-api-key", "Authorization: Bearer")
    assert reply.usable
    assert live.simulator is not None
    assert live.simulator.journal.requests == 0


@pytest.mark.parametrize("field", ["", "authorization: Basic abc\r\n", "authorization: Bearer\r\n"])
async def test_a_request_without_a_key_learns_how_to_send_one(live: Live, field: str) -> None:
    reply = await ask(live, request(None, fields=field))
    assert is_refusal(reply, 401, "authentication_error", "x-api-key: KEY", "Authorization: Bearer")


async def test_a_key_is_refused_from_its_second_of_expiry(live: Live) -> None:
    now = time.time()
    octets = request(await live.new_key(expires="1m", now=now - 59.7))
    async with connected(live.port) as (reader, writer):
        writer.write(octets)
        assert (await read_answer(reader))[0] == 200
    await asyncio.sleep(max(0.0, now + 0.31 - time.time()))
    reply = await ask(live, octets)
    assert is_refusal(reply, 401, "authentication_error", "expired", "new one")


async def test_a_revoked_key_is_refused(live: Live) -> None:
    (key,) = await live_keys(live.app.database)
    await keys.revoke(live.app.database, key.key_id, now=time.time())
    await live.reload_keys()
    assert is_refusal(await ask(live, request(live.key)), 401, "authentication_error", "revoked")


async def test_a_suspended_account_is_refused_until_it_is_resumed(live: Live) -> None:
    await users.suspend(live.app.database, EMAIL, now=time.time())
    await live.reload_keys()
    reply = await ask(live, request(live.key))
    assert is_refusal(reply, 403, "permission_error", "suspended", "operator")
    await users.resume(live.app.database, EMAIL)
    await live.reload_keys()
    async with connected(live.port) as (reader, writer):
        writer.write(request(live.key))
        assert (await read_answer(reader))[0] == 200


# --- the request ---


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
    reply = await ask(live, request(live.key, body, target=path))
    assert is_refusal(reply, 400, BAD, *words)
    assert reply.usable


async def test_an_unknown_models_refusal_lists_the_known_models(live: Live) -> None:
    reply = await ask(live, request(live.key, {**BODY, "model": "gpt-2"}))
    names = ("claude-opus-4-8", "claude-sonnet-4-7", "claude-haiku-4-5")
    assert is_refusal(reply, 404, "not_found_error", "'gpt-2'", *names)
    assert reply.usable


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
async def test_only_a_body_above_the_limit_is_refused(
    upstream_with: UpstreamWith, relay_with: RelayWith, size: int, coding: str
) -> None:
    plain = json.dumps(BODY).encode()
    body = plain + b" " * (size - len(plain))
    upstream = await upstream_with(always(OK))
    relay = await relay_with(upstream, server={"limits": {"body": LIMIT}})
    make = chunked_request if coding == "chunks" else request
    if size <= LIMIT:
        async with connected(relay.port) as (reader, writer):
            writer.write(make(relay.key, body))
            assert (await read_answer(reader))[0] == 200
        assert upstream.requests[0].body == body
    else:
        reply = await ask(relay, make(relay.key, body))
        assert is_refusal(reply, 413, "request_too_large", str(LIMIT), "Shorten")
        assert upstream.requests == []


async def test_a_body_over_the_limit_is_refused_before_it_is_sent(relay_with: RelayWith) -> None:
    relay = await relay_with("http://127.0.0.1:9", server={"limits": {"body": LIMIT}})
    async with connected(relay.port) as (reader, writer):
        fields = f"x-api-key: {relay.key}\r\nexpect: 100-continue\r\ncontent-length: 99999999\r\n"
        writer.write(f"POST /v1/messages HTTP/1.1\r\nhost: a\r\n{fields}\r\n".encode())
        assert (await read_answer(reader))[0] == 413


async def test_a_caller_still_sending_reads_the_refusal_of_its_body(relay_with: RelayWith) -> None:
    """A reset while it sends would hide the answer from it."""
    relay = await relay_with("http://127.0.0.1:9", server={"limits": {"body": LIMIT}})
    async with connected(relay.port) as (reader, writer):
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
async def test_a_wrong_methods_refusal_names_the_right_one(
    live: Live, method: str, path: str, allowed: bytes
) -> None:
    reply = await ask(live, request(live.key, target=path, method=method))
    assert is_refusal(reply, 405, BAD, allowed.decode(), path)
    assert reply.fields[b"allow"] == allowed


@pytest.mark.parametrize("path", ["/v1/unheard-of", "/v2/messages", "/v1"])
async def test_an_unknown_paths_refusal_lists_the_known_paths(live: Live, path: str) -> None:
    reply = await ask(live, request(live.key, target=path))
    assert is_refusal(reply, 404, "not_found_error", path, "POST /v1/messages", "GET /v1/models")
    assert reply.usable


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/embeddings"])
async def test_openai_paths_are_refused_in_openais_shape(live: Live, path: str) -> None:
    reply = await ask(live, request(live.key, target=path))
    assert reply.status == 404
    assert set(reply.error) == {"error"}
    assert set(reply.error["error"]) == {"message", "type", "param", "code"}
    assert path in reply.error["error"]["message"]
    assert reply.error["error"]["code"] == "not_found"


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
async def test_a_malformed_head_is_refused_and_ends_the_connection(
    live: Live, octets: bytes, status: int
) -> None:
    reply = await ask(live, octets)
    assert is_refusal(reply, status, BAD)
    assert not reply.usable


async def test_a_broken_chunked_body_is_refused(live: Live) -> None:
    octets = chunked_request(live.key, json.dumps(BODY).encode(), 20).replace(
        b"\r\n14\r\n", b"\r\n0x14\r\n", 1
    )
    reply = await ask(live, octets)
    assert is_refusal(reply, 400, BAD, "chunk")
    assert not reply.usable


# --- the access log -----------------------------------------------------------------


@pytest.mark.parametrize("script", ["", "split=7", "split=1"])
@pytest.mark.parametrize("stream", [False, True])
async def test_the_access_log_has_the_usage(live: Live, stream: bool, script: str) -> None:
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
