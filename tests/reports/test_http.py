"""Section F: HTTP as browsers, proxies and vendors speak it."""

import gzip
import json
import struct
from typing import Any

import pytest
import zstandard

from tests.fakes import answers
from tests.fakes.caller import connected, read_answer, request
from tests.fakes.live import RelayWith
from tests.fakes.upstream import UpstreamWith
from tests.reports.asking import HI, SONNET, desk, message

BODY = {"model": SONNET, "max_tokens": 64, "messages": [HI]}
PAGE = b"<html><h1>413 Request Entity Too Large</h1></html>"


def _body(dialect: str, **more: Any) -> dict[str, Any]:
    return {"input": "Hi", **more} if dialect == "responses" else {"messages": [HI], **more}


async def test_f01_browsers_may_ask(relay_with: RelayWith, upstream_with: UpstreamWith) -> None:
    it = await desk(relay_with, upstream_with)
    names = "x-api-key,anthropic-version,content-type,anthropic-dangerous-direct-browser-access"
    fields = (
        "origin: http://localhost:5173\r\naccess-control-request-method: POST\r\n"
        f"access-control-request-headers: {names}\r\n"
    )
    async with connected(it.relay.port) as (reader, writer):
        writer.write(request(None, b"", method="OPTIONS", fields=fields))
        head = await reader.readuntil(b"\r\n\r\n")
    assert head.split()[1] in (b"200", b"204")
    assert b"access-control-allow-origin: *" in head
    assert names.encode() in head
    for key in ("", "nobody"):
        answer = await it.ask("messages", {}, fields="origin: http://localhost:5173\r\n", key=key)
        assert answer.fields[b"access-control-allow-origin"] == b"*"
        assert answer.fields[b"access-control-expose-headers"]


@pytest.mark.parametrize("path", ["/v1/messages/", "/messages", "/v1/v1/messages", "//v1/messages"])
async def test_f03_slips_of_the_path_are_served(
    relay_with: RelayWith, upstream_with: UpstreamWith, path: str
) -> None:
    it = await desk(relay_with, upstream_with)
    assert (await it.ask(path, BODY)).status == 200


@pytest.mark.parametrize("dialect", ["messages", "chat", "responses"])
@pytest.mark.parametrize("status", [b"413 Too Large", b"400 Bad Request"])
async def test_f08_a_page_becomes_an_error(
    relay_with: RelayWith, upstream_with: UpstreamWith, status: bytes, dialect: str
) -> None:
    page = answers.sized(PAGE, status, kind=b"text/html")
    it = await desk(relay_with, upstream_with, page, page)
    answer = await it.ask(dialect, _body(dialect))
    assert answer.status == int(status[:3])
    assert answer.fields[b"content-type"].startswith(b"application/json")
    assert answer.document["error"]["message"]
    assert b"<h1>" not in answer.payload


async def test_f11_an_empty_line_before_a_request(
    relay_with: RelayWith, upstream_with: UpstreamWith
) -> None:
    it = await desk(relay_with, upstream_with)
    async with connected(it.relay.port) as (reader, writer):
        for lead in (b"", b"\r\n", b"\r\n"):
            writer.write(lead + request(it.relay.key, BODY))
            assert (await read_answer(reader))[0] == 200


def _skippable(octets: bytes) -> bytes:
    return struct.pack("<II", 0x184D2A50, len(octets)) + octets


def _split(coding: str, body: bytes) -> bytes:
    """A body in two members or frames."""
    halves = body[: len(body) // 2], body[len(body) // 2 :]
    if coding == "gzip":
        return b"".join(map(gzip.compress, halves))
    return _skippable(b"note") + b"".join(map(zstandard.compress, halves))


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
@pytest.mark.parametrize("dialect", ["chat", "responses"])
async def test_f12_bodies_of_several_members(
    relay_with: RelayWith, upstream_with: UpstreamWith, dialect: str, coding: str
) -> None:
    it = await desk(relay_with, upstream_with)
    body = json.dumps({"model": SONNET, "max_tokens": 64, **_body(dialect)}).encode()
    if dialect == "responses":
        body = json.dumps({"model": SONNET, **_body(dialect)}).encode()
    fields = f"content-encoding: {coding}\r\n"
    answer = await it.ask(dialect, _split(coding, body), fields=fields)
    assert answer.status == 200, answer.payload


async def test_f14_codex_falls_back_at_once(
    relay_with: RelayWith, upstream_with: UpstreamWith
) -> None:
    it = await desk(relay_with, upstream_with)
    fields = "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
    async with connected(it.relay.port) as (reader, writer):
        octets = request(it.relay.key, b"", target="/v1/responses", method="GET", fields=fields)
        writer.write(octets)
        status, _, payload = await read_answer(reader)
    assert status == 426
    assert json.loads(payload)["error"]["message"]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("dialect", ["messages", "chat", "responses"])
async def test_f15_an_answer_in_gzip_is_unfolded(
    relay_with: RelayWith, upstream_with: UpstreamWith, dialect: str, streamed: bool
) -> None:
    if streamed:
        kind, body = b"text/event-stream", b"".join(answers.stream(["Hello from A."]))
    else:
        kind, body = b"application/json", json.dumps(message()).encode()
    octets = answers.sized(gzip.compress(body), b"200 OK", b"content-encoding: gzip", kind=kind)
    it = await desk(relay_with, upstream_with, octets)
    answer = await it.ask(dialect, _body(dialect, stream=streamed))
    assert answer.status == 200
    assert b"Hello from A." in answer.payload
    assert it.b.requests == []


@pytest.mark.parametrize("fold", [gzip.compress, zstandard.compress])
@pytest.mark.parametrize("dialect", ["messages", "chat", "responses"])
async def test_f19_a_folded_body_without_its_field(
    relay_with: RelayWith, upstream_with: UpstreamWith, dialect: str, fold: Any
) -> None:
    it = await desk(relay_with, upstream_with)
    answer = await it.ask(dialect, fold(json.dumps(BODY).encode()))
    assert answer.status == 400
    assert "content-encoding" in answer.document["error"]["message"]
