"""Bodies that end with a TLS connection, and servers that end it without close_notify."""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme

from tests.fakes import answers
from tests.fakes.caller import BODY, connected, read_answer, read_head, request
from tests.fakes.listening import listening
from tests.fakes.live import Live, RelayWith
from tests.fakes.until import until

EVENTS = answers.stream()
LARGE = answers.stream(["x"] * 400)  # 50 KB: one read, which is worked on in parts
HEAD = answers.head(b"200 OK", kind=b"text/event-stream")
STREAM = {**BODY, "stream": True}
DIALECTS = {
    "messages": ("/v1/messages", STREAM, b'data: {"type":"message_stop"}\n\n'),
    "chat": ("/v1/chat/completions", STREAM, b"data: [DONE]\n\n"),
    "responses": (
        "/v1/responses",
        {"model": BODY["model"], "input": "hi", "stream": True},
        b"response.completed",
    ),
}


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@contextlib.asynccontextmanager
async def ending(authority: trustme.CA, pieces: list[bytes], how: str) -> AsyncIterator[str]:
    """An upstream that sends these pieces over TLS and ends the connection; its URL."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.02)
        if how == "reset":
            writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
        if how == "close_notify":
            writer.close()
        else:
            writer.transport.abort()

    async with listening(serve, context) as port:
        yield f"https://localhost:{port}"


async def streamed(relay: Live, dialect: str) -> tuple[int, bytes]:
    target, body, _ = DIALECTS[dialect]
    async with connected(relay.port) as (reader, writer):
        writer.write(request(relay.key, body, target=target))
        status, fields = await read_head(reader)
        octets = b""
        with contextlib.suppress(asyncio.IncompleteReadError):
            while size := int((await reader.readuntil(b"\r\n")).strip(), 16):
                octets += (await reader.readexactly(size + 2))[:-2]
        assert fields[b"transfer-encoding"] == b"chunked"
        return status, octets


@pytest.mark.parametrize("how", ["close_notify", "no close_notify", "reset"])
@pytest.mark.parametrize("pieces", ["one", "many", "large", "large after the head"])
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_stream_with_its_last_event_is_complete(
    relay_with: RelayWith,
    tmp_path: Path,
    authority: trustme.CA,
    dialect: str,
    pieces: str,
    how: str,
) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    octets = {
        "one": [HEAD + b"".join(EVENTS)],
        "many": [HEAD, *EVENTS],
        "large": [HEAD + b"".join(LARGE)],
        "large after the head": [HEAD, b"".join(LARGE)],
    }[pieces]
    async with ending(authority, octets, how) as url:
        relay = await relay_with(url, upstream_options={"ca": str(tmp_path / "ca.pem")})
        status, payload = await streamed(relay, dialect)
        assert status == 200
        if dialect == "messages":
            assert payload == b"".join(octets).removeprefix(HEAD)
        assert DIALECTS[dialect][2] in payload[-2000:]
        assert b'"error":{' not in payload
        assert b"event: error" not in payload
        await until(relay.log)
        assert [line["outcome"] for line in relay.log()] == ["whole"]
        assert relay.app.upstreams[0].health.failures == 0


@pytest.mark.parametrize(
    ("how", "missing"),
    [("close_notify", 2), ("no close_notify", 1), ("no close_notify", 2), ("reset", 1)],
)
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_stream_without_its_last_event_is_cut(
    relay_with: RelayWith,
    tmp_path: Path,
    authority: trustme.CA,
    dialect: str,
    how: str,
    missing: int,
) -> None:
    """Unless it ends cleanly behind its stop reason."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with ending(authority, [HEAD, *EVENTS[:-missing]], how) as url:
        relay = await relay_with(url, upstream_options={"ca": str(tmp_path / "ca.pem")})
        status, payload = await streamed(relay, dialect)
        assert status == 200
        assert b"broke off its answer" in payload
        for end in (b"message_stop", b"[DONE]", b"response.completed"):
            assert end not in payload
        await until(relay.log)
        assert [line["outcome"][:4] for line in relay.log()] == ["cut:"]
        assert relay.app.upstreams[0].health.failures == 1


@pytest.mark.parametrize("how", ["no close_notify", "reset"])
async def test_a_document_without_a_clean_end_is_a_failure(
    relay_with: RelayWith, tmp_path: Path, authority: trustme.CA, how: str
) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    document = b'{"type":"message","model":"claude-sonnet-4-7","content":[]}'
    async with ending(authority, [answers.head() + document], how) as url:
        relay = await relay_with(url, upstream_options={"ca": str(tmp_path / "ca.pem")})
        async with connected(relay.port) as (reader, writer):
            writer.write(request(relay.key))
            assert (await read_answer(reader))[0] == 502
