"""Callers behind proxies: the PROXY protocol and X-Forwarded-For, on real sockets."""

import asyncio
import contextlib
import ipaddress
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import trustme

from relay.net.deadlines import Deadlines
from relay.net.exchange import Exchange
from relay.net.listener import listen
from relay.net.server import Bounds, Prelude, Server
from relay.wire.forwarded import TrustedProxies
from tests.fakes.live import RelayWith
from tests.net.pems import trusting, write_pair
from tests.wire.test_proxy_protocol import V4, V6, header

GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
LOOPBACK = TrustedProxies([ipaddress.ip_network("127.0.0.0/8")])
FAR = TrustedProxies([ipaddress.ip_network("192.0.2.0/24")])


@contextlib.asynccontextmanager
async def proxied(proxies: TrustedProxies, seconds: float = 10.0) -> AsyncIterator[int]:
    """A server that answers with the caller's address; its port."""

    async def respond(exchange: Exchange) -> None:
        exchange.respond(200, [], exchange.peer.encode() + b"\n")

    server = Server(respond, Deadlines(asyncio.get_running_loop()), Bounds(handshake_time=seconds))
    server.prelude = Prelude(proxies)
    port = await listen(server)
    try:
        yield port
    finally:
        await server.drain(0)


async def sent(port: int, *pieces: bytes) -> bytes:
    """All that comes back of octets that are sent in pieces."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(5):
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0)
        writer.write_eof()
        try:
            return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.close()


@pytest.mark.parametrize(
    ("octets", "peer"),
    [
        (header(0x21, 0x11, V4), b"192.0.2.1"),
        (header(0x21, 0x21, V6), b"2001:db8::1"),
        (header(0x20, 0x00, b""), b"127.0.0.1"),
    ],
)
async def test_a_proxy_header_names_the_caller(octets: bytes, peer: bytes) -> None:
    async with proxied(LOOPBACK) as port:
        assert (await sent(port, octets + GET)).endswith(b"\r\n\r\n" + peer + b"\n")
        split = [octets[index : index + 1] for index in range(len(octets))]
        assert (await sent(port, *split, GET)).endswith(b"\r\n\r\n" + peer + b"\n")


@pytest.mark.parametrize(
    ("proxies", "octets"),
    [
        (LOOPBACK, b"PROXY TCP4 192.0.2.1 10.0.0.1 1 2\r\n"),
        (LOOPBACK, b""),
        (LOOPBACK, header(0x21, 0x12, V4)),
        (LOOPBACK, header(0x21, 0x11, V4)[:20]),
        (FAR, header(0x21, 0x11, V4)),
    ],
    ids=["version 1", "none", "UDP", "cut", "of a peer that is not trusted"],
)
async def test_a_connection_without_a_valid_header_is_closed(
    proxies: TrustedProxies, octets: bytes
) -> None:
    async with proxied(proxies) as port:
        assert await sent(port, octets + (b"" if len(octets) == 20 else GET)) == b""


async def test_a_header_that_does_not_come_ends_at_the_deadline() -> None:
    async with proxied(LOOPBACK, 0.3) as port:
        since = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(header(0x21, 0x11, V4)[:15])
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        assert 0.2 < time.monotonic() - since < 2
        writer.close()


async def test_a_refused_proxy_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    async with proxied(FAR) as port:
        for _ in range(3):
            await sent(port, header(0x21, 0x11, V4) + GET)
    (line,) = [one.getMessage() for one in caplog.records]
    assert line.startswith("a connection of 127.0.0.1 is closed: it is not in server.trusted")


async def test_tls_follows_a_proxy_header(relay_with: RelayWith, tmp_path: Path) -> None:
    authority = trustme.CA()
    pair = write_pair(tmp_path, authority, "localhost")
    relay = await relay_with(
        server={
            "tls": {"cert": pair.cert, "key": pair.key},
            "trusted_proxies": ["127.0.0.1"],
            "proxy_protocol": True,
        }
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    writer.write(header(0x21, 0x11, V4))
    async with asyncio.timeout(5):
        await writer.start_tls(trusting(authority), server_hostname="localhost")
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
    writer.close()
    assert [line["peer"] for line in relay.log()] == ["192.0.2.1"]


@pytest.mark.parametrize(
    ("trusted", "peer"),
    [(["127.0.0.0/8"], "192.0.2.1"), (["10.0.0.0/8"], "127.0.0.1"), ([], "127.0.0.1")],
    ids=["trusted", "another network", "none"],
)
async def test_the_log_has_the_caller_that_a_trusted_proxy_names(
    relay_with: RelayWith, trusted: list[str], peer: str
) -> None:
    relay = await relay_with(server={"trusted_proxies": trusted})
    async with httpx.AsyncClient() as client:
        fields = {"x-forwarded-for": "8.8.8.8, 192.0.2.1", "forwarded": "for=9.9.9.9"}
        answer = await client.get(f"{relay.url}/healthz", headers=fields)
    assert answer.status_code == 200
    assert [line["peer"] for line in relay.log()] == [peer]


async def test_a_proxy_on_a_unix_socket_may_be_trusted(
    relay_with: RelayWith, tmp_path: Path
) -> None:
    path = tmp_path / "relay.sock"
    relay = await relay_with(server={"listen": [f"unix:{path}"], "trusted_proxies": ["unix"]})
    async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(path))) as client:
        await client.get("http://a/healthz", headers={"x-forwarded-for": "192.0.2.1"})
    assert [line["peer"] for line in relay.log()] == ["192.0.2.1"]
