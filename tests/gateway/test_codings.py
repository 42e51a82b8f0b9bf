"""Answers of an upstream in a coding that was not asked for."""

import gzip
import zlib
from collections.abc import Callable

import pytest
import zstandard

from tests.fakes import answers
from tests.fakes.live import RelayWith
from tests.fakes.upstream import UpstreamWith, always
from tests.gateway.test_answers import (
    DIALECTS,
    DOCUMENT,
    PLAN,
    STREAM,
    ask,
    message_of,
    text_of,
    two,
)

KNOWN: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstandard.compress,
}
# The first octets of a brotli stream may be any, those of a text as well.
BROTLI = [
    b"\x8b\x05\x80",
    b"[\x05\x80\x01",
    b"a\x02\x80\x01",
    b"{\x01\x80\x01",
    b"\x78\x9c\x01\x02",
]


def coded(body: bytes, coding: str, status: bytes = b"200 OK", *, streamed: bool) -> bytes:
    kind = b"text/event-stream" if streamed else b"application/json"
    return answers.sized(body, status, b"content-encoding: " + coding.encode(), kind=kind)


@pytest.mark.matrix(share=2)
@pytest.mark.parametrize("streamed", [False, True], ids=["json", "sse"])
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("coding", KNOWN)
async def test_a_known_coding_is_taken_off(
    upstream_with: UpstreamWith, relay_with: RelayWith, dialect: str, streamed: bool, coding: str
) -> None:
    body = KNOWN[coding](STREAM if streamed else DOCUMENT)
    relay, well = await two(upstream_with, relay_with, coded(body, coding, streamed=streamed))
    status, fields, payload = await ask(relay, dialect, streamed)
    assert (status, text_of(dialect, streamed, fields, payload)) == (200, "Hello!")
    assert not well.requests


@pytest.mark.matrix(share=4)
@pytest.mark.parametrize("start", BROTLI)
@pytest.mark.parametrize("streamed", [False, True], ids=["json", "sse"])
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_brotli_goes_to_another_upstream(
    upstream_with: UpstreamWith, relay_with: RelayWith, dialect: str, streamed: bool, start: bytes
) -> None:
    first = coded(start + bytes(range(200)), "br", streamed=streamed)
    relay, well = await two(upstream_with, relay_with, first)
    status, fields, payload = await ask(relay, dialect, streamed)
    assert (status, text_of(dialect, streamed, fields, payload)) == (200, "Hello!")
    assert len(well.requests) == 1
    assert "content-encoding is 'br'" in relay.log()[0]["tried"]


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_wrong_label_does_no_harm(
    upstream_with: UpstreamWith, relay_with: RelayWith, dialect: str
) -> None:
    relay, well = await two(upstream_with, relay_with, coded(DOCUMENT, "br", streamed=False))
    status, fields, payload = await ask(relay, dialect, False)
    assert (status, text_of(dialect, False, fields, payload)) == (200, "Hello!")
    assert not well.requests


@pytest.mark.parametrize("status", [400, 429, 529])
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_an_error_in_brotli_keeps_its_status(
    upstream_with: UpstreamWith, relay_with: RelayWith, dialect: str, status: int
) -> None:
    octets = coded(b"\x8b\x05\x80" + bytes(99), "br", b"%d No" % status, streamed=False)
    relay = await relay_with(await upstream_with(always(octets)), plan=PLAN)
    got, fields, payload = await ask(relay, dialect, False)
    assert got == (503 if status == 529 and dialect != "messages" else status)
    assert message_of(dialect, fields, payload)
    assert b"content-encoding" not in fields
