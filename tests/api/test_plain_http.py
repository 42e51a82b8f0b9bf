"""Plain HTTP beside https: challenges are answered, people redirected, API clients refused."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest

from relay.api.plain_http import PlainHttp, open_plain_http
from relay.config import Address, ServerSettings
from relay.net.deadlines import Deadlines
from relay.net.listener import listen
from relay.net.server import Server

Ask = Callable[..., Awaitable[httpx.Response]]


class Answers:
    """HTTP-01 answers."""

    def key_authorization(self, token: str) -> str | None:
        return "token.thumbprint" if token == "token" else None


@pytest.fixture
async def ask() -> AsyncIterator[Ask]:
    """Asks a listener of https://relay.example and b.example."""
    handler = PlainHttp("relay.example", ["relay.example", "b.example"], Answers())
    server = Server(handler.handle, Deadlines(asyncio.get_running_loop()))
    port = await listen(server)

    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:

        async def send(method: str, path: str, **options: object) -> httpx.Response:
            return await client.request(method, path, **options)  # type: ignore[arg-type]

        yield send
    await server.drain(0)


@pytest.mark.parametrize(
    ("path", "host", "location"),
    [
        ("/", "relay.example", "https://relay.example/"),
        ("/a%20b?c=d&e", "B.example:80", "https://b.example/a%20b?c=d&e"),
        ("/", "evil.example", "https://relay.example/"),  # never to a name of the caller's choice
        ("/a//b", "relay.example", "https://relay.example/a//b"),
        ("/v1x", "relay.example", "https://relay.example/v1x"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_people_are_redirected_to_the_same_page(
    ask: Ask, method: str, path: str, host: str, location: str
) -> None:
    answer = await ask(method, path, headers={"host": host})
    assert answer.status_code == 308
    assert answer.headers["location"] == location
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize(
    ("method", "path", "headers", "has_key"),
    [
        ("POST", "/v1/messages", {"x-api-key": "sk-llmapi-canary"}, True),
        ("GET", "/", {"authorization": "Bearer sk-llmapi-canary"}, True),
        ("GET", "/v1/models", {}, False),
        ("GET", "/v1", {}, False),
        ("POST", "/", {}, False),
        ("OPTIONS", "/a", {}, False),
    ],
)
async def test_an_api_client_gets_an_error_and_no_redirect(
    ask: Ask, method: str, path: str, headers: dict[str, str], has_key: bool
) -> None:
    answer = await ask(method, path, headers={**headers, "host": "relay.example"})
    assert answer.status_code == 403
    assert "location" not in answer.headers
    message = answer.json()["error"]["message"]
    assert message.startswith("This is plain HTTP. Use https://relay.example as the base URL.")
    assert ("revoke it, and make a new one" in message) is has_key
    assert "canary" not in answer.text


async def test_an_error_has_the_shape_of_its_api(ask: Ask) -> None:
    answer = await ask("POST", "/v1/chat/completions", json={})
    assert answer.json()["error"]["type"] == "invalid_request_error"
    answer = await ask("POST", "/v1/messages", json={})
    assert answer.json()["type"] == "error"


async def test_a_challenge_is_answered_with_its_text(ask: Ask) -> None:
    answer = await ask("GET", "/.well-known/acme-challenge/token")
    assert (answer.status_code, answer.text) == (200, "token.thumbprint")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert (await ask("GET", "/.well-known/acme-challenge/other")).status_code == 404
    assert (await ask("GET", "/.well-known/acme-challenge/")).status_code == 404


async def test_the_port_of_the_https_address_is_kept() -> None:
    handler = PlainHttp("relay.example:8443", ["b.example"], None)
    server = Server(handler.handle, Deadlines(asyncio.get_running_loop()))
    port = await listen(server)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        answer = await client.get("/a", headers={"host": "b.example"})
        assert answer.headers["location"] == "https://b.example:8443/a"
        answer = await client.get("/.well-known/acme-challenge/token")  # nobody asks for it
        assert answer.headers["location"].startswith("https://relay.example:8443/.well-known")
    await server.drain(0)


async def test_an_address_that_cannot_be_used_is_named(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    timers = Deadlines(asyncio.get_running_loop())
    taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    address = Address.tcp("127.0.0.1", taken.sockets[0].getsockname()[1])
    settings = ServerSettings(tls="auto", domains=["a.example"], redirect_listen=[address])
    with pytest.raises(OSError, match=f"cannot listen on {address}: Address already in use"):
        await open_plain_http(settings, Answers(), timers)
    monkeypatch.setattr("relay.config.schema._WITH_AUTHORITY", (address,))
    settings = ServerSettings(tls="auto", domains=["a.example"])
    _, is_open = await open_plain_http(settings, Answers(), timers)
    assert not is_open
    assert f"no redirects to https from {address}: Address already in use" in caplog.text
    taken.close()


async def test_without_an_authority_there_is_no_redirect_by_default() -> None:
    _, is_open = await open_plain_http(
        ServerSettings(), None, Deadlines(asyncio.get_running_loop())
    )
    assert not is_open
