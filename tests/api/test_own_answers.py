"""The relay's own answers: their fields, and log lines that hide keys."""

import json
from typing import Any

import pytest

from tests.fakes import answers
from tests.fakes.caller import BODY, connected, exchange, read_answer, request
from tests.fakes.live import MODELS, Live, RelayWith
from tests.fakes.upstream import JSON_ANSWER, UpstreamWith, always

KEY_LIKE = "sk-ant-api03-Canary_0123456789abcdef-0123456789ABCDEF-canary"


# --- malformed heads ---

MALFORMED = [
    (b"hello\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n\r\n", 400),
    (b"GET /%b HTTP/1.1\r\nhost: a\r\n\r\n" % (b"a" * 20_000), 414),
    (b"GET / HTTP/1.1\r\nhost: a\r\nx: %b\r\n\r\n" % (b"a" * 200_000), 431),
    (b"GET / HTTP/2.0\r\nhost: a\r\n\r\n", 505),
]


@pytest.mark.parametrize(("octets", "status"), MALFORMED, ids=[str(row[1]) for row in MALFORMED])
async def test_a_refused_head_is_found_in_the_log_by_its_id(
    live: Live, octets: bytes, status: int
) -> None:
    async with connected(live.port) as (reader, writer):
        writer.write(octets)
        answer_status, fields, body = await read_answer(reader)
        assert await reader.read(-1) == b""
    assert answer_status == status
    assert json.loads(body)["request_id"].encode() == fields[b"request-id"]
    [line] = live.log()
    assert (line["id"].encode(), line["status"]) == (fields[b"request-id"], status)
    assert line["peer"] == "127.0.0.1"
    assert line["outcome"].startswith("refused: ")


@pytest.mark.parametrize(("octets", "status"), MALFORMED, ids=[str(row[1]) for row in MALFORMED])
async def test_a_refused_heads_status_has_its_standard_reason(
    live: Live, octets: bytes, status: int
) -> None:
    line = (await exchange(live.port, octets)).partition(b"\r\n")[0]
    assert line.startswith(b"HTTP/1.1 %d " % status)
    assert b"Refused" not in line


# --- fields of the relay's own answers ---


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/v1/models", 200),
        ("GET", "/v1/models/claude-haiku-4-5", 200),
        ("GET", "/v1/models/unheard-of", 404),
        ("GET", "/unheard-of", 404),
        ("PUT", "/v1/messages", 405),
        ("POST", "/v1/messages", 400),
    ],
)
async def test_the_relays_own_answers_have_server_timing(
    live: Live, method: str, target: str, status: int
) -> None:
    async with connected(live.port) as (reader, writer):
        writer.write(request(live.key, b"", target=target, method=method))
        answer_status, fields, _ = await read_answer(reader)
        assert answer_status == status
        assert fields[b"server-timing"].startswith(b"relay;dur=")
        assert fields[b"request-id"].startswith(b"req_")


async def test_error_answers_have_server_timing(relay_with: RelayWith) -> None:
    relay = await relay_with("http://127.0.0.1:9")
    async with connected(relay.port) as (reader, writer):
        for key, status in ((None, 401), (relay.key, 503)):
            writer.write(request(key))
            answer_status, fields, _ = await read_answer(reader)
            assert answer_status == status
            assert fields[b"server-timing"].startswith(b"relay;dur=")


@pytest.mark.parametrize("name", ["Date", "DATE", "date"])
@pytest.mark.parametrize("other", ["", "vary: a", "vary: a\r\nvary: b"])
@pytest.mark.parametrize("first", [False, True])
async def test_an_answer_has_exactly_one_date(
    upstream_with: UpstreamWith, relay_with: RelayWith, name: str, other: str, first: bool
) -> None:
    """Also on the slow path, which a head with a repeated field takes."""
    lines = [f"{name}: Mon, 01 Jan 2024 00:00:00 GMT".encode(), other.encode()]
    fields = b"".join(line + b"\r\n" for line in (lines if first else lines[::-1]) if line)
    octets = answers.sized(JSON_ANSWER).replace(b"content-type", fields + b"content-type", 1)
    upstream = await upstream_with(always(octets))
    relay = await relay_with(upstream)
    received = await exchange(relay.port, request(relay.key, fields="connection: close\r\n"))
    assert received.endswith(JSON_ANSWER)
    dates = [line for line in received.split(b"\r\n") if line.lower().startswith(b"date:")]
    assert [line[5:].strip() for line in dates] == [b"Mon, 01 Jan 2024 00:00:00 GMT"]


# --- secrets in log lines ---


@pytest.mark.parametrize(
    ("method", "target", "logged"),
    [
        ("GET", f"/{KEY_LIKE}", "/…"),
        ("GET", f"/v1/{KEY_LIKE}/x", "/v1/…/x"),
        ("GET", f"/v1/models/{KEY_LIKE}", "/v1/models/…"),
        ("POST", f"/v1/models/{KEY_LIKE}", "/v1/models/…"),
        ("GET", f"/v1/models?after_id={KEY_LIKE}", "/v1/models"),
        ("GET", f"/v1/models?limit={KEY_LIKE}", "/v1/models"),
    ],
)
async def test_a_key_in_the_path_is_not_logged(
    live: Live, method: str, target: str, logged: str
) -> None:
    async with connected(live.port) as (reader, writer):
        writer.write(request(live.key, b"", target=target, method=method))
        assert (await read_answer(reader))[0] in (400, 401, 404, 405)
    [line] = live.log()
    assert line["path"] == logged
    assert "0123456789" not in live.log_path.read_text()


async def test_a_key_given_as_a_model_is_not_logged(live: Live) -> None:
    async with connected(live.port) as (reader, writer):
        writer.write(request(live.key, {**BODY, "model": KEY_LIKE}))
        assert (await read_answer(reader))[0] == 404
    [line] = live.log()
    assert line["status"] == 404
    assert "0123456789" not in live.log_path.read_text()


async def test_a_long_path_is_shortened_in_the_log(live: Live) -> None:
    async with connected(live.port) as (reader, writer):
        writer.write(request(live.key, b"", target="/a.b" * 1000, method="GET"))
        assert (await read_answer(reader))[0] == 404
    [line] = live.log()
    assert len(line["path"]) <= 96
    assert len(line["outcome"]) < 700


# --- an incomplete relay.toml ---


async def readiness(relay: Live) -> tuple[int, bytes]:
    async with connected(relay.port) as (reader, writer):
        writer.write(b"GET /readyz HTTP/1.1\r\nhost: a\r\n\r\n")
        status, _, body = await read_answer(reader)
        return status, body


@pytest.mark.parametrize("model", ["claude-sonnet-4-7", "claude-sonnet-4-6"])
async def test_a_missing_upstream_is_named_to_the_caller(relay_with: RelayWith, model: str) -> None:
    """Under the model's id and under its alias."""
    relay = await relay_with([])
    async with connected(relay.port) as (reader, writer):
        writer.write(request(relay.key, {**BODY, "model": model}))
        status, _, body = await read_answer(reader)
    error = json.loads(body)["error"]
    assert (status, error["type"]) == (503, "overloaded_error"), error
    assert "no upstream" in error["message"]
    assert "relay.toml" in error["message"]


@pytest.mark.parametrize("models", [[], MODELS], ids=["nothing", "models"])
async def test_a_relay_without_upstreams_is_alive_but_not_ready(
    relay_with: RelayWith, models: list[dict[str, Any]]
) -> None:
    relay = await relay_with([], model=models)
    assert await readiness(relay) == (503, b"not ready: no model has an upstream\n")
    alive = await exchange(relay.port, b"GET /healthz HTTP/1.0\r\nhost: a\r\n\r\n")
    assert alive.startswith(b"HTTP/1.1 200 ")


async def test_a_relay_with_an_upstream_is_ready(relay_with: RelayWith) -> None:
    relay = await relay_with("http://127.0.0.1:9")
    assert await readiness(relay) == (200, b"ready\n")
