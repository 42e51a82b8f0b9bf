"""Answers that the relay gives by itself: their fields, their log lines, and what these hide."""

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from relay import config
from relay.app import App
from tests.fakes import answers
from tests.fakes.caller import BODY, connected, exchange, read_answer, request
from tests.fakes.live import MODELS, PLANS, Live, RelayWith, running_relay
from tests.fakes.upstream import JSON_ANSWER, UpstreamWith, always

KEY_LIKE = "sk-ant-api03-Canary_0123456789abcdef-0123456789ABCDEF-canary"


# --- what is no request -------------------------------------------------------------

NO_REQUESTS = [
    (b"hello\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n\r\n", 400),
    (b"GET /%b HTTP/1.1\r\nhost: a\r\n\r\n" % (b"a" * 20_000), 414),
    (b"GET / HTTP/1.1\r\nhost: a\r\nx: %b\r\n\r\n" % (b"a" * 200_000), 431),
    (b"GET / HTTP/2.0\r\nhost: a\r\n\r\n", 505),
]


@pytest.mark.parametrize(
    ("octets", "status"), NO_REQUESTS, ids=[str(row[1]) for row in NO_REQUESTS]
)
async def test_a_refused_head_is_found_in_the_log_by_its_id(
    live: Live, octets: bytes, status: int
) -> None:
    async with connected(live.port) as (reader, writer):
        writer.write(octets)
        told, fields, body = await read_answer(reader)
        assert await reader.read(-1) == b""
    assert told == status
    assert json.loads(body)["request_id"].encode() == fields[b"request-id"]
    [line] = live.log()
    assert (line["id"].encode(), line["status"]) == (fields[b"request-id"], status)
    assert line["peer"] == "127.0.0.1"
    assert line["outcome"].startswith("refused: ")


@pytest.mark.parametrize(
    ("octets", "status"), NO_REQUESTS, ids=[str(row[1]) for row in NO_REQUESTS]
)
async def test_a_refused_head_is_told_with_the_reason_of_its_status(
    live: Live, octets: bytes, status: int
) -> None:
    line = (await exchange(live.port, octets)).partition(b"\r\n")[0]
    assert line.startswith(b"HTTP/1.1 %d " % status)
    assert b"Refused" not in line


# --- their fields -------------------------------------------------------------------


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
async def test_an_answer_of_the_relay_tells_how_long_it_took(
    live: Live, method: str, target: str, status: int
) -> None:
    async with connected(live.port) as (reader, writer):
        writer.write(request(live.key, b"", target=target, method=method))
        told, fields, _ = await read_answer(reader)
        assert told == status
        assert fields[b"server-timing"].startswith(b"relay;dur=")
        assert fields[b"request-id"].startswith(b"req_")


async def test_a_refused_caller_and_a_failed_upstream_are_timed_too(relay_with: RelayWith) -> None:
    relay = await relay_with("http://127.0.0.1:9")
    async with connected(relay.port) as (reader, writer):
        for key, status in ((None, 401), (relay.key, 503)):
            writer.write(request(key))
            told, fields, _ = await read_answer(reader)
            assert told == status
            assert fields[b"server-timing"].startswith(b"relay;dur=")


@pytest.mark.parametrize("name", ["Date", "DATE", "date"])
@pytest.mark.parametrize("other", ["", "vary: a", "vary: a\r\nvary: b"])
@pytest.mark.parametrize("first", [False, True])
async def test_an_answer_has_one_date_however_it_is_written(
    upstream_with: UpstreamWith, relay_with: RelayWith, name: str, other: str, first: bool
) -> None:
    """Also where the head takes the slow way, as one with a field given twice does."""
    lines = [f"{name}: Mon, 01 Jan 2024 00:00:00 GMT".encode(), other.encode()]
    fields = b"".join(line + b"\r\n" for line in (lines if first else lines[::-1]) if line)
    octets = answers.sized(JSON_ANSWER).replace(b"content-type", fields + b"content-type", 1)
    upstream = await upstream_with(always(octets))
    relay = await relay_with(upstream)
    received = await exchange(relay.port, request(relay.key, fields="connection: close\r\n"))
    assert received.endswith(JSON_ANSWER)
    dates = [line for line in received.split(b"\r\n") if line.lower().startswith(b"date:")]
    assert [line[5:].strip() for line in dates] == [b"Mon, 01 Jan 2024 00:00:00 GMT"]


# --- what their log lines hide ------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "target", "shown"),
    [
        ("GET", f"/{KEY_LIKE}", "/…"),
        ("GET", f"/v1/{KEY_LIKE}/x", "/v1/…/x"),
        ("GET", f"/v1/models/{KEY_LIKE}", "/v1/models/…"),
        ("POST", f"/v1/models/{KEY_LIKE}", "/v1/models/…"),
        ("GET", f"/v1/models?after_id={KEY_LIKE}", "/v1/models"),
        ("GET", f"/v1/models?limit={KEY_LIKE}", "/v1/models"),
    ],
)
async def test_a_key_in_the_wrong_place_is_not_written_to_the_log(
    live: Live, method: str, target: str, shown: str
) -> None:
    async with connected(live.port) as (reader, writer):
        writer.write(request(live.key, b"", target=target, method=method))
        assert (await read_answer(reader))[0] in (400, 404, 405)
    [line] = live.log()
    assert line["path"] == shown
    assert "0123456789" not in live.log_path.read_text()


async def test_a_key_in_the_place_of_a_model_is_not_written_to_the_log(live: Live) -> None:
    async with connected(live.port) as (reader, writer):
        writer.write(request(live.key, {**BODY, "model": KEY_LIKE}))
        assert (await read_answer(reader))[0] == 404
    [line] = live.log()
    assert line["status"] == 404
    assert "0123456789" not in live.log_path.read_text()


async def test_a_long_path_is_short_in_the_log(live: Live) -> None:
    async with connected(live.port) as (reader, writer):
        writer.write(request(live.key, b"", target="/a.b" * 1000, method="GET"))
        assert (await read_answer(reader))[0] == 404
    [line] = live.log()
    assert len(line["path"]) <= 96
    assert len(line["outcome"]) < 400


# --- with nothing to relay to -------------------------------------------------------


@contextlib.asynccontextmanager
async def unsettled_relay(folder: Path, **tree: Any) -> AsyncIterator[Live]:
    """A relay whose relay.toml is not finished yet, with a key."""
    async with running_relay(folder, "http://127.0.0.1:9") as complete:
        key = complete.key
    settings = config.parse(
        {
            "server": {"listen": ["127.0.0.1:0"]},
            "database": {"path": str(folder / "relay.db")},
            "plan": PLANS,
            **tree,
        }
    )
    log_path = folder / "unsettled.log"
    with log_path.open("ab", buffering=0) as log:
        app = App(settings, log_fd=log.fileno())
        await app.start()
        try:
            yield Live(app, app.addresses[0], key, log_path, None)
        finally:
            await app.stop(0)


async def readiness(relay: Live) -> tuple[int, bytes]:
    async with connected(relay.port) as (reader, writer):
        writer.write(b"GET /readyz HTTP/1.1\r\nhost: a\r\n\r\n")
        status, _, body = await read_answer(reader)
        return status, body


@pytest.mark.parametrize("model", ["claude-sonnet-4-7", "claude-sonnet-4-6"])
async def test_without_an_upstream_a_caller_is_told_what_is_missing(
    tmp_path: Path, model: str
) -> None:
    """By whatever name the model is asked for."""
    async with unsettled_relay(tmp_path, model=MODELS) as relay:
        async with connected(relay.port) as (reader, writer):
            writer.write(request(relay.key, {**BODY, "model": model}))
            status, _, body = await read_answer(reader)
        error = json.loads(body)["error"]
        assert (status, error["type"]) == (503, "overloaded_error"), error
        assert "no upstream" in error["message"]
        assert "relay.toml" in error["message"]


@pytest.mark.parametrize("tree", [{}, {"model": MODELS}], ids=["nothing", "models"])
async def test_a_relay_that_can_serve_nothing_is_alive_but_not_ready(
    tmp_path: Path, tree: dict[str, Any]
) -> None:
    async with unsettled_relay(tmp_path, **tree) as relay:
        assert await readiness(relay) == (503, b"not ready\n")
        assert (await exchange(relay.port, b"GET /healthz HTTP/1.0\r\nhost: a\r\n\r\n")).startswith(
            b"HTTP/1.1 200 "
        )


async def test_a_relay_with_an_upstream_is_ready(relay_with: RelayWith) -> None:
    relay = await relay_with("http://127.0.0.1:9")
    assert await readiness(relay) == (200, b"ready\n")
