"""TLS on both sides, and a listener on a Unix socket."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import trustme

from relay.net import tls
from relay.net.deadlines import Deadlines
from relay.net.exchange import Exchange
from relay.net.listener import listen
from relay.net.server import Bounds, Server
from relay.net.upstream.connection import Origin
from tests.fakes.caller import BODY, connected, read_answer, request
from tests.fakes.listening import listening
from tests.fakes.live import RelayWith
from tests.fakes.until import until
from tests.fakes.upstream import OK


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@contextlib.asynccontextmanager
async def tls_upstream(certificate: trustme.LeafCert) -> AsyncIterator[int]:
    """An upstream that answers OK over TLS; its port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            writer.write(OK)

    async with listening(serve, context) as port:
        yield port


async def status_over_tls(
    relay_with: RelayWith, port: int, ca: str | None, host: str = "localhost"
) -> int:
    """The status of the second of two requests to `port`; both must share one connection."""
    options = {} if ca is None else {"ca": ca}
    relay = await relay_with(f"https://{host}:{port}", upstream_options=options)
    async with connected(relay.port) as (reader, writer):
        status = 0
        for _ in range(2):
            writer.write(request(relay.key))
            status, _, body = await read_answer(reader)
        pool = relay.app.upstreams[0].pool
        assert pool.opened == (1 if status == 200 else 0)
        if status != 200:
            assert b"cannot be reached safely" in body
            assert b"operator" in body
        return status


async def test_an_upstream_with_a_good_certificate_is_reached(
    relay_with: RelayWith, tmp_path: Path, authority: trustme.CA
) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with tls_upstream(authority.issue_cert("localhost")) as port:
        assert await status_over_tls(relay_with, port, str(tmp_path / "ca.pem")) == 200


@pytest.mark.parametrize("wrong", ["host", "authority", "untrusted", "address"])
async def test_an_upstream_with_a_wrong_certificate_gets_nothing(
    relay_with: RelayWith, tmp_path: Path, authority: trustme.CA, wrong: str
) -> None:
    names = {"host": "other.example", "address": "localhost"}
    certificate = authority.issue_cert(names.get(wrong, "localhost"))
    trusted = trustme.CA() if wrong == "authority" else authority
    trusted.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    ca = None if wrong == "untrusted" else str(tmp_path / "ca.pem")
    host = "127.0.0.1" if wrong == "address" else "localhost"
    async with tls_upstream(certificate) as port:
        assert await status_over_tls(relay_with, port, ca, host) == 503


async def test_an_upstream_without_tls_is_a_503(relay_with: RelayWith) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with listening(serve) as port:
        assert await status_over_tls(relay_with, port, None) == 503


def test_an_origin_over_tls_checks_names_and_certificates(tmp_path: Path) -> None:
    context = tls.upstream(None)
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert str(Origin("a", 443, tls=context)) == "https://a:443"


async def test_the_listener_speaks_tls(
    relay_with: RelayWith, tmp_path: Path, authority: trustme.CA
) -> None:
    certificate = authority.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    for pem in certificate.cert_chain_pems:
        pem.write_to_path(str(tmp_path / "cert.pem"), append=True)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    files = {"cert": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")}
    relay = await relay_with(server={"tls": files})
    async with httpx.AsyncClient(verify=context, timeout=10) as client:
        url = f"https://localhost:{relay.port}/v1/messages"
        for body, script in (
            (BODY, ""),
            ({**BODY, "stream": True}, "tokens=20;split=7"),
            (BODY, "bytes=3000000"),
            ({**BODY, "stream": True}, "bytes=3000000"),
        ):
            answer = await client.post(
                url, json=body, headers={**relay.headers, "x-simulate": script}
            )
            assert answer.status_code == 200
            if "stream" in body:
                assert answer.text.endswith('data: {"type":"message_stop"}\n\n')
            else:
                assert answer.json()["type"] == "message"
        assert len(relay.app.server.connections) == 1
        refused = await client.post(url, content=b" " * 40_000_000, headers=relay.headers)
        assert refused.status_code == 413


@pytest.mark.parametrize("octets", [b"", b"\x16\x03\x01", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"])
async def test_a_handshake_that_does_not_go_on_ends(authority: trustme.CA, octets: bytes) -> None:
    """After 10 s; the loop's own limit is 60 s."""
    assert Bounds().handshake_time == 10
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    timers = Deadlines(asyncio.get_running_loop())

    async def never(exchange: Exchange) -> None:
        raise AssertionError

    server = Server(never, timers, Bounds(handshake_time=0.3))
    port = await listen(server, tls=context)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    since = time.monotonic()
    writer.write(octets)
    async with asyncio.timeout(5):
        with contextlib.suppress(ConnectionError):
            assert await reader.read(1) == b""
    assert 0.2 < time.monotonic() - since < 2
    writer.close()
    await server.drain(0)


async def test_a_caller_that_leaves_over_tls_is_noticed(
    relay_with: RelayWith, tmp_path: Path, authority: trustme.CA
) -> None:
    certificate = authority.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    files = {"cert": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")}
    relay = await relay_with(server={"tls": files})
    async with asyncio.timeout(5):
        assert relay.simulator is not None
        journal = relay.simulator.journal
        _, writer = await asyncio.open_connection("localhost", relay.port, ssl=context)
        writer.write(request(relay.key, fields="x-simulate: delay=30\r\n"))
        await until(lambda: journal.requests)
        writer.close()
        await until(lambda: journal.aborted)
        assert relay.app.server.connections == set()


async def test_a_listener_may_be_a_unix_socket(relay_with: RelayWith, tmp_path: Path) -> None:
    path = tmp_path / "relay.sock"
    relay = await relay_with(server={"listen": [f"unix:{path}"]})
    transport = httpx.AsyncHTTPTransport(uds=str(path))
    async with httpx.AsyncClient(transport=transport) as client:
        for stream in (False, True):
            answer = await client.post(
                "http://relay/v1/messages",
                json={**BODY, "stream": stream},
                headers=relay.headers,
            )
            assert answer.status_code == 200
    assert [line["peer"] for line in relay.log()] == ["unix", "unix"]


async def test_a_relay_may_listen_in_several_places(relay_with: RelayWith, tmp_path: Path) -> None:
    places = ["127.0.0.1:0", "[::1]:0", f"unix:{tmp_path / 'a.sock'}"]
    relay = await relay_with(server={"listen": places})
    async with httpx.AsyncClient() as client:
        for url in relay.app.addresses[:2]:
            assert (await client.get(f"{url}/readyz")).status_code == 200
