"""Where the relay connects: to what relay.toml names, to no redirect's target, to no metadata."""

import asyncio
import contextlib
import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme

from relay import config
from relay.alerts import delivery
from relay.alerts.delivery import DeliveryError
from relay.alerts.rules import Alert
from relay.config import AlertSettings
from relay.config.backup import StorageSettings
from relay.forbidden_addresses import guard_connections, is_forbidden
from relay.net.acme import renewal_info
from relay.net.acme.network import Network
from relay.net.deadlines import Deadlines
from relay.net.upstream.connection import Origin, UpstreamError
from relay.net.upstream.connection_pool import ConnectionPool
from relay.net.upstream.resolver import Ages, Resolver
from relay.store.object_storage import StorageError, upload
from tests.attacks.test_canaries import bodies
from tests.fakes.caller import exchange, request
from tests.fakes.live import RelayWith
from tests.fakes.upstream import OK, UpstreamWith, always
from tests.net.upstream.test_resolver import Names

METADATA = (
    "169.254.169.254", "169.254.170.2", "169.254.0.1", "2852039166", "0xa9fea9fe", "0xA9.0xFE.1.1",
    "0251.0376.0251.0376", "025177524776", "169.254.43518", "169.16689662", "0xa9.254.0251.254",
    "::ffff:169.254.169.254", "::ffff:a9fe:a9fe", "0:0:0:0:0:ffff:a9fe:a9fe", "::a9fe:a9fe",
    "64:ff9b::a9fe:a9fe", "64:ff9b::169.254.169.254", "2002:a9fe:a9fe::1", "fd00:ec2::254",
    "fd00:0ec2:0:0:0:0:0:254", "100.100.100.200", "0x646464c8", "::ffff:100.100.100.200",
    "192.0.0.192", "168.63.129.16", "fd20:ce::254", "fe80::a9fe:a9fe",
)  # fmt: skip
OTHERS = (
    "127.0.0.1", "::1", "10.0.0.1", "169.253.255.255", "169.255.0.0", "fe80::1", "::ffff:127.0.0.1",
    "100.100.100.201", "fd00::1", "api.example.com", "", "x.169.254.169.254", "64:ff9b::808:808",
)  # fmt: skip
passed: list[Any] = []  # what sockets were connected to, while somebody records


def _record(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect":
        passed.append(arguments[1])


@pytest.fixture(scope="module", autouse=True)
def recording() -> None:
    guard_connections()
    sys.addaudithook(_record)  # behind the guard: sees what it lets pass


@pytest.mark.parametrize("address", METADATA)
def test_a_metadata_address_is_known_in_each_spelling(address: str) -> None:
    assert is_forbidden(address)


@pytest.mark.parametrize("address", OTHERS)
def test_any_other_address_may_be_used(address: str) -> None:
    assert not is_forbidden(address)


@pytest.mark.parametrize("address", METADATA)
def test_no_socket_connects_to_metadata(address: str) -> None:
    """As the libraries connect: by the addresses that the system finds for a spelling."""
    passed.clear()
    with pytest.raises(OSError, match=r"metadata service|not known|resolution|No address"):
        socket.create_connection((address, 80), timeout=1)
    assert passed == []


@pytest.mark.parametrize("address", METADATA)
def test_relay_toml_names_no_metadata_address(address: str) -> None:
    host = f"[{address}]" if ":" in address else address
    for end in ("", "."):
        url = f"http://{host}{end if host == address else ''}/x"
        row = {"name": "a", "base_url": url, "api_key": "k"}
        with pytest.raises(config.ConfigError, match="metadata service"):
            config.parse({"upstream": [row]})
        with pytest.raises(config.ConfigError, match="metadata service"):
            config.parse({"alert": [{"name": "a", "kind": "webhook", "url": url}]})


async def test_a_name_that_turns_to_metadata_is_refused() -> None:
    """A name server that gives another address at the second look-up."""
    names = Names()
    names.addresses["a.example"] = ["127.0.0.1"]
    resolver = Resolver(names, Ages(renew=-1, fresh=-1, retry=-1))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (await resolver.connect("a.example", port, 5)).close()
        passed.clear()
        names.addresses["a.example"] = ["169.254.169.254"]
        pool = ConnectionPool(
            Origin("a.example", port), Deadlines(asyncio.get_running_loop()), resolver
        )
        with pytest.raises(UpstreamError, match="metadata service"):
            await pool.connect()
    assert passed == []


# --- what callers send ---


def spellings(port: int) -> list[str]:
    """One place of this machine in thirty ways."""
    hosts = (
        "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "017700000001", "0x7f.1",
        "localhost", "LOCALHOST", "localhost.", "127.0.0.1.", "0", "0.0.0.0", "[::1]", "[::]",
        "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:7f00:1]", "[64:ff9b::7f00:1]",
        "user@127.0.0.1", "api.anthropic.com@127.0.0.1", "user:pw@127.1", "127.0.0.1%2f",
        "127。0。0。1", "①②⑦.0.0.1", "127.0.0.1.nip.io", "localtest.me", "169.254.169.254",
        "2852039166", "0251.0376.0251.0376",
    )  # fmt: skip
    return [f"http://{host}:{port}/x.png" for host in hosts]


async def test_addresses_in_requests_are_passed_on_never_fetched(
    relay_with: RelayWith, upstream_with: UpstreamWith
) -> None:
    upstream = await upstream_with(always(OK))
    relay = await relay_with(upstream)
    with trap() as port:
        passed.clear()
        urls = spellings(port)
        place = f"127.0.0.1:{port}"
        fields = f"x-forwarded-host: {place}\r\nforwarded: host={place}\r\nconnection: close\r\n"
        for url in urls:
            for path, body in bodies(stream=False).items():
                octets = request(relay.key, with_address(body, url), target=path, fields=fields)
                answer = await exchange(relay.port, octets)
                assert answer.split()[1] in (b"200", b"400"), answer
        for target in (f"http://127.0.0.1:{port}/v1/messages", f"//127.0.0.1:{port}/v1/messages"):
            octets = request(relay.key, target=target, fields="connection: close\r\n")
            await exchange(relay.port, octets)
    assert len(urls) == 30
    assert {one[1] for one in passed} == {int(upstream.url.rpartition(":")[2])}
    assert sum(b"x.png" in seen.body for seen in upstream.requests) >= len(urls)


def with_address(body: dict[str, Any], url: str) -> dict[str, Any]:
    """The request with an image by this URL."""
    if "max_tokens" in body:
        block = {"type": "image", "source": {"type": "url", "url": url}}
        return {**body, "tools": [], "messages": [{"role": "user", "content": [block]}]}
    if "input" in body:
        block = {"type": "input_image", "image_url": url}
        return {**body, "tools": [], "input": [{"role": "user", "content": [block]}]}
    picture = {"type": "image_url", "image_url": {"url": url}}
    return {**body, "messages": [{"role": "user", "content": [picture]}]}


@contextlib.contextmanager
def trap() -> Iterator[int]:
    """A port that nobody may connect to."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server.getsockname()[1]
        with pytest.raises(BlockingIOError):
            server.accept()


# --- redirects ---


class _Redirecting(BaseHTTPRequestHandler):
    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(302 if self.command == "GET" else 307)
        self.send_header("location", f"http://127.0.0.1:{self.server.target}/x")  # type: ignore[attr-defined]
        self.send_header("content-length", "0")
        self.end_headers()

    do_GET = do_POST = do_PUT = do_HEAD = answer  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def redirecting(target: int, context: ssl.SSLContext | None = None) -> Iterator[str]:
    """A server that sends everybody to a port of this machine; its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Redirecting)
    server.target = target  # type: ignore[attr-defined]
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http{'s' if context else ''}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_webhooks_and_buckets_follow_no_redirect(tmp_path: Path) -> None:
    file = tmp_path / "copy.db"
    file.write_bytes(b"x")
    with trap() as port, redirecting(port) as url:
        receiver = AlertSettings(name="a", kind="webhook", url=url, secret="s")
        with pytest.raises(DeliveryError, match="307"):
            delivery.send(
                receiver, Alert("backup", "relay", "firing", "text", 1.0, 1.0), "http://a"
            )
        bucket = StorageSettings(endpoint=url, bucket="abc", access_key="a", secret_key="b")
        with pytest.raises(StorageError, match="307"):
            upload(file, bucket)


def test_authorities_follow_no_redirect_and_no_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca)
    with trap() as port, trap() as proxy, redirecting(port, context) as url:
        for name in ("https_proxy", "HTTPS_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy}")
        with pytest.raises(OSError, match="302"):
            renewal_info._get(url, str(ca))
        network = Network(None, str(ca))
        assert network._send_request("GET", url).status_code == 302
