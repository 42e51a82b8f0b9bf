"""An ASGI application on the relay's own server: over HTTP/1.1, HTTP/2 and TLS."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import trustme

from relay.net import asgi
from relay.net.deadlines import Deadlines
from relay.net.exchange import Exchange
from relay.net.listener import listen
from relay.net.server import Server
from tests.fakes.caller import exchange as send_octets
from tests.fakes.until import until
from tests.net.pems import trusting

App = asgi.Application
TRANSPORTS = ("http/1.1", "h2", "tls")


class Echo:
    """Answers with what it was asked; records scopes, and what became of its streams."""

    def __init__(self) -> None:
        self.scopes: list[dict[str, Any]] = []
        self.ended: list[str] = []
        self.sent = 0

    async def __call__(self, scope: Any, receive: asgi.Receive, send: asgi.Send) -> None:
        self.scopes.append(scope)
        body = (await receive())["body"]
        headers = [(b"content-type", b"text/plain"), (b"x-method", scope["method"].encode())]
        if scope["path"] == "/stream":
            await send({"type": "http.response.start", "status": 201, "headers": headers})
            for part in (b"one ", b"two ", b"three"):
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        elif scope["path"] == "/endless":
            await self._endless(send)
        elif scope["path"] == "/wait":
            try:
                await receive()
            except asyncio.CancelledError:
                self.ended.append("left")
                raise
        elif scope["path"] == "/forged":
            headers.append((b"x-name", b"a\r\nset-cookie: b=c"))
            await send({"type": "http.response.start", "status": 200, "headers": headers})
        elif scope["path"] == "/silent":
            return
        else:
            headers.append((b"content-length", b"%d" % len(body)))
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    async def _endless(self, send: asgi.Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})
                self.sent += 65_536
        finally:
            self.ended.append("endless")


@contextlib.asynccontextmanager
async def serving(application: App, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server of an application; its port."""

    async def handle(exchange: Exchange) -> None:
        await asgi.serve(exchange, application, body_limit=1000, secure=False)

    deadlines = Deadlines(asyncio.get_running_loop())
    server = Server(handle, deadlines)
    port = await listen(server, "127.0.0.1", 0, tls=tls)
    deadlines.start()
    try:
        yield port
    finally:
        await server.drain(0)
        deadlines.stop()


@contextlib.asynccontextmanager
async def reached(application: App, transport: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application, over this transport."""
    context, verify = None, False
    trust: ssl.SSLContext | bool = verify
    if transport == "tls":
        authority = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        trust = trusting(authority)
    async with serving(application, context) as port:
        url = f"{'https' if transport == 'tls' else 'http'}://127.0.0.1:{port}"
        is_h2 = transport == "h2"
        async with httpx.AsyncClient(
            base_url=url, verify=trust, http2=is_h2, http1=not is_h2
        ) as client:
            yield client


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_request_arrives_and_is_answered(transport: str) -> None:
    app = Echo()
    async with reached(app, transport) as client:
        answer = await client.post("/caf%C3%A9/a%2Fb?x=1&y=%20", content=b"hello")
    assert (answer.status_code, answer.content) == (200, b"hello")
    assert answer.headers["content-length"] == "5"
    assert answer.headers["x-method"] == "POST"
    [scope] = app.scopes
    assert scope["path"] == "/café/a/b"
    assert scope["raw_path"] == b"/caf%C3%A9/a%2Fb"
    assert scope["query_string"] == b"x=1&y=%20"
    assert scope["scheme"] == ("https" if transport == "tls" else "http")
    assert scope["client"][0] == "127.0.0.1"
    assert (b"content-length", b"5") in scope["headers"]
    assert b"host" in dict(scope["headers"])


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_stream_comes_in_full(transport: str) -> None:
    async with reached(Echo(), transport) as client:
        for _ in range(2):  # on one connection
            answer = await client.get("/stream")
            assert (answer.status_code, answer.content) == (201, b"one two three")


@pytest.mark.parametrize("path", ["/stream", "/plain"])
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_head_is_get_without_its_body(transport: str, path: str) -> None:
    async with reached(Echo(), transport) as client:
        for _ in range(2):
            answer = await client.head(path)
            assert answer.status_code == (201 if path == "/stream" else 200)
            assert answer.content == b""
            assert answer.headers["x-method"] == "HEAD"


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_long_body_is_refused_before_the_application(transport: str) -> None:
    app = Echo()

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b"x" * 100

    async with reached(app, transport) as client:
        assert (await client.post("/", content=b"x" * 1001)).status_code == 413
        assert (await client.post("/", content=chunks())).status_code == 413
        assert (await client.post("/", content=b"x" * 1000)).status_code == 200
    assert len(app.scopes) == 1


async def test_a_caller_who_leaves_ends_the_task() -> None:
    app = Echo()
    async with serving(app) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /wait HTTP/1.1\r\nhost: a\r\n\r\n")
        await until(lambda: app.scopes)
        writer.transport.abort()
        await until(lambda: app.ended == ["left"])


async def test_a_stream_waits_for_a_slow_reader() -> None:
    app = Echo()
    async with serving(app) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /endless HTTP/1.1\r\nhost: a\r\n\r\n")
        await until(lambda: app.sent)
        before = -1
        while app.sent != before:  # until nothing more goes
            before = app.sent
            await asyncio.sleep(0.05)
        assert app.sent < 32 * 1024 * 1024
        writer.transport.abort()
        await until(lambda: app.ended == ["endless"])


@pytest.mark.parametrize("path", ["/forged", "/silent"])
async def test_a_faulty_application_gives_a_500(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(Echo()) as port:
        octets = await send_octets(
            port, b"GET %b HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n" % path.encode()
        )
    assert octets.startswith(b"HTTP/1.1 500 ")
    assert b"set-cookie" not in octets
    assert "failed" in caplog.text
