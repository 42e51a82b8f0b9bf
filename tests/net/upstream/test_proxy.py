"""Upstreams behind a proxy: requests to it, names of failures, and credentials that stay secret."""

import asyncio
import contextlib
import gc
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import trustme

from relay.config import ProxyUrl
from relay.net.deadlines import Deadlines
from relay.net.runner import CoroutineRunner
from relay.net.upstream.connection import FailureKind, Origin, UpstreamConnection, UpstreamError
from relay.net.upstream.connection_pool import ConnectionPool
from relay.wire.events import Response
from tests.fakes.caller import connected, read_answer, request
from tests.fakes.listening import listening
from tests.fakes.live import running_relay
from tests.fakes.proxy import GRANTED, Asked, Kind, Proxy, running_proxy
from tests.fakes.until import until
from tests.fakes.upstream import OK, always, raw_upstream

NAME = "upstream.invalid"  # no resolver knows it; the fake proxies do
USER, PASSWORD = "canary-user", "canary/pass@word:%"
CREDENTIALS = f"{USER}:{quote(PASSWORD, safe='')}@"
ASK = b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"


@pytest.fixture(autouse=True)
def no_socket_is_forgotten() -> Iterator[None]:
    """A socket that nobody closed says so here, and fails the test."""
    gc.freeze()  # what was there before need not be looked at
    yield
    gc.collect()
    gc.unfreeze()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
async def timers() -> AsyncIterator[Deadlines]:
    timers = Deadlines(asyncio.get_running_loop())
    timers.start()
    yield timers
    timers.stop()


@contextlib.asynccontextmanager
async def tls_upstream(authority: trustme.CA) -> AsyncIterator[int]:
    """Answers each request over TLS, as localhost and as NAME; its port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost", NAME).configure_cert(context)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(OK)
        writer.transport.abort()

    async with listening(serve, context) as port:
        yield port


async def answer(connection: UpstreamConnection) -> Response:
    """Ask on the connection; the head of the answer."""
    done: asyncio.Future[Response] = asyncio.get_running_loop().create_future()

    async def ask() -> None:
        try:
            done.set_result(await connection.send(ASK, b""))
        except UpstreamError as error:
            done.set_exception(error)

    CoroutineRunner(ask()).step()
    return await done


async def asked(pool: ConnectionPool, times: int = 1) -> None:
    """Ask so often, one after the other, as the gateway does; each must be answered."""
    for _ in range(times):
        connection = pool.take() or await pool.connect()
        response = await answer(connection)
        assert response.status == 200
        assert connection.complete_body(response) is not None
        pool.put(connection, reusable=True)
    pool.close()


def via(url: str) -> ProxyUrl:
    return ProxyUrl.parse(url, "egress")


async def failure(pool: ConnectionPool) -> UpstreamError:
    """The failure to connect; nothing in it tells the credential."""
    with pytest.raises(UpstreamError) as caught:
        await pool.connect()
    for text in (str(caught.value), repr(caught.value), repr(pool)):
        assert "canary" not in text
    assert pool.opened == 0
    return caught.value


SCHEMES: list[tuple[Kind, str]] = [("http", "http"), ("socks5", "socks5"), ("socks5", "socks5h")]


@pytest.mark.parametrize("credentials", [None, (USER, PASSWORD)])
@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize(("kind", "scheme"), SCHEMES)
async def test_an_upstream_is_reached_through_its_proxy(
    timers: Deadlines,
    authority: trustme.CA,
    kind: Kind,
    scheme: str,
    tls: bool,
    credentials: tuple[str, str] | None,
) -> None:
    """socks5 sends an address; socks5h and http send the name, and TLS is held to the name."""
    host = "localhost" if scheme == "socks5" else NAME
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with (
        tls_upstream(authority) as tls_port,
        raw_upstream(always(OK)) as upstream,
        running_proxy(Proxy(kind, wants=credentials, places={NAME: "127.0.0.1"})) as proxy,
    ):
        port = tls_port if tls else int(upstream.url.rpartition(":")[2])
        way = proxy.url(CREDENTIALS if credentials else "", scheme=scheme)
        origin = Origin(host, port, tls=context if tls else None, egress=via(way))
        pool = ConnectionPool(origin, timers)
        await asked(pool, 5)
        assert proxy.connections == pool.opened == 1
        host, is_name = ("127.0.0.1", False) if scheme == "socks5" else (NAME, True)
        assert proxy.asked == [Asked(host, port, is_name, credentials)]


@pytest.mark.parametrize(("kind", "scheme"), SCHEMES)
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_an_address_stays_an_address(
    timers: Deadlines, kind: Kind, scheme: str, host: str
) -> None:
    async with (
        raw_upstream(always(OK)) as upstream,
        running_proxy(Proxy(kind, places={"::1": "127.0.0.1"})) as proxy,
    ):
        port = int(upstream.url.rpartition(":")[2])
        origin = Origin(host, port, egress=via(proxy.url(scheme=scheme)))
        await asked(ConnectionPool(origin, timers))
        assert proxy.asked == [Asked(host, port, named=False)]
        if kind == "http" and host == "::1":
            assert proxy.heads[0].startswith(b"CONNECT [::1]:%d HTTP/1.1\r\nhost: [::1]:" % port)


@pytest.mark.parametrize("kind", ["http", "socks5"])
async def test_a_proxy_may_be_named_and_may_answer_in_pieces(timers: Deadlines, kind: Kind) -> None:
    async with (
        raw_upstream(always(OK)) as upstream,
        running_proxy(Proxy(kind, mode="slowly")) as proxy,
    ):
        port = int(upstream.url.rpartition(":")[2])
        way = proxy.url().replace("127.0.0.1", "localhost")
        await asked(ConnectionPool(Origin("localhost", port, egress=via(way)), timers))
        assert upstream.requests[0].head == ASK


@pytest.mark.parametrize("kind", ["http", "socks5"])
async def test_small_writes_leave_at_once_as_they_do_without_a_proxy(
    timers: Deadlines, kind: Kind
) -> None:
    async with (
        raw_upstream(always(OK)) as upstream,
        running_proxy(Proxy(kind)) as proxy,
    ):
        port = int(upstream.url.rpartition(":")[2])
        for way in (None, via(proxy.url())):
            connection = await ConnectionPool(
                Origin("127.0.0.1", port, egress=way), timers
            ).connect()
            used = connection.transport.get_extra_info("socket")
            assert used.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
            connection.close()


async def test_a_user_of_an_http_proxy_may_have_any_letters(timers: Deadlines) -> None:
    async with (
        raw_upstream(always(OK)) as upstream,
        running_proxy(Proxy("http", wants=("Zoë", "пароль"))) as proxy,
    ):
        port = int(upstream.url.rpartition(":")[2])
        way = proxy.url(f"{quote('Zoë')}:{quote('пароль')}@")
        await asked(ConnectionPool(Origin("127.0.0.1", port, egress=via(way)), timers))


# --- failures -----------------------------------------------------------------------

FAILURES: list[tuple[Proxy, str]] = [
    (Proxy("http", "refuse", code=403), "403 Forbidden"),
    (Proxy("http", "refuse", code=502), "502 Bad Gateway"),
    (Proxy("http", "refuse", code=504), "504 Gateway Timeout"),
    (Proxy("http", "refuse", code=599), "599"),
    (Proxy("http", "refuse", code=302), "302 Found"),
    (Proxy("http", "midway"), "it closed the connection"),
    (Proxy("http", "garbage"), "it closed the connection"),
    (Proxy("http", "garbage", octets=b"SSH-2.0-x\r\n"), "it did not answer in HTTP/1.1"),
    (Proxy("http", "garbage", octets=b"HTTP/1.1 2\r\n\r\n"), "it did not answer in HTTP/1.1"),
    (Proxy("http", "garbage", octets=b"HTTP/1.1 " + b"x" * 20_000), "it did not answer in HTTP/1."),
    (Proxy("http", "garbage", octets=GRANTED + OK), "it sent unexpected octets"),
    (Proxy("socks5", "refuse", code=1), "general failure"),
    (Proxy("socks5", "refuse", code=2), "its rules do not allow this"),
    (Proxy("socks5", "refuse", code=3), "network unreachable"),
    (Proxy("socks5", "refuse", code=4), "host unreachable"),
    (Proxy("socks5", "refuse", code=5), "the upstream refused the connection"),
    (Proxy("socks5", "refuse", code=99), "it did not answer in SOCKS5"),
    (Proxy("socks5", "midway"), "it closed the connection"),
    (Proxy("socks5", "garbage"), "it closed the connection"),
    (Proxy("socks5", "garbage", octets=b"HTTP/1.1 400 No\r\n\r\n"), "it did not answer in SOCKS5"),
    (Proxy("socks5", "garbage", octets=b"\5\1"), "it did not answer in SOCKS5"),
    (
        Proxy("socks5", "garbage", octets=b"\5\2\1\0\5\0\0\3\2\xff\xff\0\0"),
        "it did not answer in SOCKS5",
    ),
]


@pytest.mark.parametrize(
    ("model", "said"),
    FAILURES,
    ids=[f"{m.kind} {m.mode} {m.code or m.octets[:18]!r}" for m, _ in FAILURES],
)
async def test_a_proxys_refusal_is_reported_in_words(
    timers: Deadlines, model: Proxy, said: str
) -> None:
    fresh = Proxy(model.kind, model.mode, model.code, model.octets)
    async with running_proxy(fresh) as proxy:
        pool = ConnectionPool(Origin("127.0.0.1", 9, egress=via(proxy.url(CREDENTIALS))), timers)
        error = await failure(pool)
        assert error.kind is FailureKind.CONNECT
        assert str(error).startswith(f"cannot be reached: proxy 127.0.0.1:{proxy.port}: {said}")
        await until(lambda: proxy.open == 0)


@pytest.mark.parametrize(
    ("kind", "credentials", "said"),
    [
        ("http", "", "407, it wants credentials"),
        ("http", CREDENTIALS, "407, it does not accept the credentials"),
        ("socks5", "", "it wants credentials"),
        ("socks5", CREDENTIALS, "it does not accept the credentials"),
    ],
)
async def test_missing_credentials_are_told_from_wrong_ones(
    timers: Deadlines, kind: Kind, credentials: str, said: str
) -> None:
    async with running_proxy(Proxy(kind, wants=("a", "b"))) as proxy:
        error = await failure(
            ConnectionPool(Origin("127.0.0.1", 9, egress=via(proxy.url(credentials))), timers)
        )
        assert str(error) == f"cannot be reached: proxy 127.0.0.1:{proxy.port}: {said}"


@pytest.mark.parametrize("scheme", ["http", "socks5", "socks5h"])
async def test_a_proxy_that_is_not_there_is_named(timers: Deadlines, scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    way = f"{scheme}://{CREDENTIALS}127.0.0.1:{port}"
    error = await failure(ConnectionPool(Origin("127.0.0.1", 9, egress=via(way)), timers))
    assert error.kind is FailureKind.CONNECT
    assert str(error) == f"cannot be reached: proxy 127.0.0.1:{port}: Connection refused"


@pytest.mark.parametrize("scheme", ["http", "socks5", "socks5h"])
async def test_a_proxy_whose_name_nobody_knows_is_named(timers: Deadlines, scheme: str) -> None:
    way = f"{scheme}://{CREDENTIALS}proxy.invalid:1080"
    error = await failure(ConnectionPool(Origin("127.0.0.1", 9, egress=via(way)), timers))
    assert str(error).startswith("cannot be reached: proxy proxy.invalid:1080: ")


async def test_an_unresolvable_name_never_gets_to_the_proxy(
    timers: Deadlines,
) -> None:
    async with running_proxy(Proxy("socks5")) as proxy:
        origin = Origin(NAME, 9, egress=via(proxy.url(CREDENTIALS)))
        error = await failure(ConnectionPool(origin, timers))
        assert str(error).startswith(f"cannot be reached: {NAME} cannot be resolved: ")
        assert proxy.connections == 0


@pytest.mark.parametrize("scheme", ["http", "socks5", "socks5h"])
@pytest.mark.parametrize("host", ["a..b", "x" * 64])
async def test_a_host_that_is_no_name_is_asked_of_nobody(
    timers: Deadlines, scheme: str, host: str
) -> None:
    async with running_proxy(Proxy("http")) as proxy:
        way = proxy.url(CREDENTIALS, scheme=scheme)
        error = await failure(ConnectionPool(Origin(host, 9, egress=via(way)), timers))
        assert str(error) == "cannot be reached: the upstream's host is no name"
        assert proxy.connections == 0


@pytest.mark.parametrize(("kind", "scheme"), SCHEMES)
async def test_certificates_are_checked_through_a_proxy_too(
    timers: Deadlines, authority: trustme.CA, kind: Kind, scheme: str
) -> None:
    async with tls_upstream(authority) as port, running_proxy(Proxy(kind)) as proxy:
        way = proxy.url(CREDENTIALS, scheme=scheme)
        origin = Origin("localhost", port, tls=ssl.create_default_context(), egress=via(way))
        error = await failure(ConnectionPool(origin, timers))
        assert error.kind is FailureKind.TLS
        await until(lambda: proxy.open == 0)


# --- time and cancellation ----------------------------------------------------------


@pytest.mark.parametrize("mode", ["hang", "mute"])
@pytest.mark.parametrize(("kind", "scheme"), SCHEMES)
async def test_connecting_proxy_and_tls_share_one_time_limit(
    timers: Deadlines, kind: Kind, scheme: str, mode: str
) -> None:
    """A proxy that never answers, and one that agrees and then passes on nothing of TLS."""
    loop = asyncio.get_running_loop()
    async with running_proxy(Proxy(kind, "hang" if mode == "hang" else "mute")) as proxy:
        way = proxy.url(CREDENTIALS, scheme=scheme)
        context = ssl.create_default_context()
        origin = Origin("localhost", 9, tls=context, connect_time=0.1, egress=via(way))
        started_at = loop.time()
        error = await failure(ConnectionPool(origin, timers))
        assert 0.09 < loop.time() - started_at < 1
        assert error.kind is FailureKind.CONNECT
        assert str(error) == (
            f"cannot be reached: proxy 127.0.0.1:{proxy.port}: no connection within 0.1 s"
        )
        await until(lambda: proxy.open == 0)


@pytest.mark.parametrize("mode", ["hang", "mute"])
@pytest.mark.parametrize("kind", ["http", "socks5"])
async def test_a_connection_that_nobody_wants_any_more_is_closed(
    timers: Deadlines, kind: Kind, mode: str
) -> None:
    async with running_proxy(Proxy(kind, "hang" if mode == "hang" else "mute")) as proxy:
        context = ssl.create_default_context()
        pool = ConnectionPool(Origin("127.0.0.1", 9, tls=context, egress=via(proxy.url())), timers)
        wanted = asyncio.create_task(pool.connect())
        await until(lambda: proxy.asked)
        wanted.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wanted
        await until(lambda: proxy.open == 0)


@pytest.mark.parametrize("kind", ["http", "socks5"])
@pytest.mark.parametrize("turns", range(0, 24, 2))
async def test_cancelled_at_any_moment_it_leaves_no_socket(
    timers: Deadlines, kind: Kind, turns: int
) -> None:
    async with (
        raw_upstream(always(OK)) as upstream,
        running_proxy(Proxy(kind)) as proxy,
    ):
        port = int(upstream.url.rpartition(":")[2])
        wanted = asyncio.create_task(
            ConnectionPool(Origin("localhost", port, egress=via(proxy.url())), timers).connect()
        )
        for _ in range(turns):
            await asyncio.sleep(0)
        wanted.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            (await wanted).close()
        await until(lambda: proxy.open == 0)


# --- nothing but what is configured -------------------------------------------------


async def test_the_environment_names_no_proxy(
    timers: Deadlines, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        raw_upstream(always(OK)) as upstream,
        running_proxy(Proxy("http")) as decoy,
        running_proxy(Proxy("http")) as proxy,
    ):
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, decoy.url())
            monkeypatch.setenv(name.lower(), decoy.url())
        monkeypatch.setenv("NO_PROXY", "*")
        port = int(upstream.url.rpartition(":")[2])
        await asked(ConnectionPool(Origin("127.0.0.1", port), timers))
        await asked(ConnectionPool(Origin("127.0.0.1", port, egress=via(proxy.url())), timers))
        assert (decoy.connections, proxy.connections) == (0, 1)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_followed_nowhere(tmp_path: Path, status: int) -> None:
    async with raw_upstream(always(OK)) as elsewhere:
        moved = (
            f"HTTP/1.1 {status} Found\r\nlocation: {elsewhere.url}/v1/messages\r\n"
            "content-length: 0\r\n\r\n"
        )
        async with (
            raw_upstream(always(moved.encode())) as upstream,
            running_relay(tmp_path, upstream.url) as relay,
            connected(relay.port) as (reader, writer),
        ):
            writer.write(request(relay.key))
            answered, fields, _ = await read_answer(reader)
            assert answered >= 500
            assert b"location" not in fields
            assert len(upstream.requests) == 1
            assert elsewhere.connections == 0


async def test_a_proxy_cannot_send_the_relay_elsewhere(timers: Deadlines) -> None:
    async with raw_upstream(always(OK)) as elsewhere:
        moved = f"HTTP/1.1 302 Found\r\nlocation: {elsewhere.url}\r\n\r\n".encode()
        async with running_proxy(Proxy("http", "garbage", octets=moved)) as proxy:
            await failure(ConnectionPool(Origin("127.0.0.1", 9, egress=via(proxy.url())), timers))
            assert elsewhere.connections == 0


def test_a_relay_without_a_proxy_never_loads_the_library() -> None:
    look = "import sys, relay.net.upstream.connection_pool; sys.exit('python_socks' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", look], timeout=20).returncode == 0


def test_an_origin_never_shows_the_credential_of_its_proxy() -> None:
    origin = Origin("upstream", 80, egress=via("socks5h://canary:canary@proxy:1080"))
    assert "canary" not in f"{origin} {origin!r} {[origin]}"
    assert str(origin) == "http://upstream:80"
