"""Certificates from files: by name, exchanged while the relay serves, faults in words."""

import asyncio
import logging
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from relay import config
from relay.net import certificate_files, tls
from relay.net.certificate_files import CertificateFiles
from relay.net.deadlines import Deadlines
from relay.net.exchange import Exchange
from relay.net.listener import listen
from relay.net.server import Server
from relay.net.tls import Certificates
from tests.fakes.live import RelayWith
from tests.fakes.until import until
from tests.net.pems import settings_with, trusting, write_pair


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


class Serving:
    """A server with certificates from files."""

    def __init__(self, port: int, files: CertificateFiles, client: ssl.SSLContext) -> None:
        self.port = port
        self.files = files
        self.client = client

    async def connect(self, name: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=self.client, server_hostname=name
        )

    async def until(self, name: str) -> str:
        """The end of the certificate that `name` gets."""
        _, writer = await self.connect(name)
        end: str = writer.get_extra_info("peercert")["notAfter"]
        writer.transport.abort()
        return end


@pytest.fixture
async def serving(tmp_path: Path, authority: trustme.CA) -> AsyncIterator[Serving]:
    """With certificates for a.example, and for b.example and *.c.example."""

    async def respond(exchange: Exchange) -> None:
        exchange.respond(200, [], b"ok")

    settings = settings_with(
        write_pair(tmp_path, authority, "a.example", stem="a"),
        write_pair(tmp_path, authority, "b.example", "*.c.example", stem="b"),
    )
    certificates = Certificates()
    files = CertificateFiles(certificates, settings)
    server = Server(respond, Deadlines(asyncio.get_running_loop()))
    port = await listen(server, tls=certificates.context)
    yield Serving(port, files, trusting(authority))
    await server.drain(0)


async def subject_names(serving: Serving, name: str, client: ssl.SSLContext) -> set[str]:
    _, writer = await asyncio.open_connection(
        "127.0.0.1", serving.port, ssl=client, server_hostname=name or None
    )
    names = {value for _, value in writer.get_extra_info("peercert")["subjectAltName"]}
    writer.transport.abort()
    return names


async def test_a_name_gets_its_certificate_others_the_first(
    serving: Serving, authority: trustme.CA
) -> None:
    client = trusting(authority)
    client.check_hostname = False
    for name in ("b.example", "B.EXAMPLE", "x.c.example"):
        assert await subject_names(serving, name, client) == {"b.example", "*.c.example"}
    for name in ("a.example", "c.example", "x.y.c.example", "other.example", "127.0.0.1"):
        assert await subject_names(serving, name, client) == {"a.example"}


async def test_no_version_below_1_2_and_no_weak_cipher(serving: Serving) -> None:
    serving.client.minimum_version = ssl.TLSVersion.TLSv1_2
    serving.client.maximum_version = ssl.TLSVersion.TLSv1_2
    _, writer = await serving.connect("a.example")
    assert writer.get_extra_info("cipher")[1] == "TLSv1.2"
    assert writer.get_extra_info("ssl_object").selected_alpn_protocol() is None
    writer.transport.abort()
    for ciphers in ("ECDHE+AES:!AESGCM:!AESCCM:@SECLEVEL=0", "AES128-GCM-SHA256:@SECLEVEL=0"):
        serving.client.set_ciphers(ciphers)  # CBC; without forward secrecy
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await serving.connect("a.example")
    offered = {cipher["name"] for cipher in tls.server_context().get_ciphers()}
    assert not [name for name in offered if "GCM" not in name and "CHACHA20" not in name]
    assert tls.server_context().minimum_version is ssl.TLSVersion.TLSv1_2


async def test_an_exchange_drops_no_connection(
    serving: Serving, tmp_path: Path, authority: trustme.CA
) -> None:
    before = await serving.until("b.example")
    reader, writer = await serving.connect("b.example")
    write_pair(tmp_path, authority, "b.example", "d.example", stem="b", days=50)
    await serving.files.look()
    assert await serving.until("b.example") != before
    assert await serving.until("d.example")
    for _ in range(2):  # on the connection from before
        writer.write(b"GET / HTTP/1.1\r\nhost: b.example\r\n\r\n")
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 ")
    writer.transport.abort()


async def test_a_session_resumes_after_an_exchange(
    serving: Serving, tmp_path: Path, authority: trustme.CA
) -> None:
    """In TLS 1.2, whose ticket comes with the handshake."""

    def connect(session: ssl.SSLSession | None) -> tuple[bool, ssl.SSLSession | None]:
        with (
            socket.create_connection(("127.0.0.1", serving.port)) as plain,
            serving.client.wrap_socket(
                plain, server_hostname="a.example", session=session
            ) as connection,
        ):
            return bool(connection.session_reused), connection.session

    serving.client.maximum_version = ssl.TLSVersion.TLSv1_2
    _, session = await asyncio.to_thread(connect, None)
    write_pair(tmp_path, authority, "a.example", stem="a", days=50)
    await serving.files.look()
    assert (await asyncio.to_thread(connect, session))[0]


def break_key(folder: Path, authority: trustme.CA) -> None:
    write_pair(folder, authority, "a.example", stem="other")
    os.replace(folder / "other.pem", folder / "a.pem")


def empty(folder: Path, authority: trustme.CA) -> None:
    (folder / "a.pem").write_bytes(b"")


def remove(folder: Path, authority: trustme.CA) -> None:
    (folder / "a.key").unlink()


def expire(folder: Path, authority: trustme.CA) -> None:
    write_pair(folder, authority, "a.example", stem="a", days=-1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (break_key, "a.key is not the key of"),
        (empty, "there is no certificate in"),
        (remove, "a.key: No such file"),
        (expire, "expired on"),
    ],
)
async def test_a_broken_new_pair_is_refused_and_the_old_stays(
    serving: Serving,
    tmp_path: Path,
    authority: trustme.CA,
    caplog: pytest.LogCaptureFixture,
    change: Any,
    words: str,
) -> None:
    before = await serving.until("a.example")
    change(tmp_path, authority)
    for _ in range(3):  # the first look may come between the writing of two files
        await serving.files.look()
        assert await serving.until("a.example") == before
    warnings = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert words in warnings[0]
    assert "the old one stays" in warnings[0]
    write_pair(tmp_path, authority, "a.example", stem="a", days=50)
    await serving.files.look()
    assert await serving.until("a.example") != before


async def test_other_settings_replace_the_certificates(
    serving: Serving, tmp_path: Path, authority: trustme.CA
) -> None:
    await serving.files.reload(settings_with(write_pair(tmp_path, authority, "e.example")))
    assert await serving.until("e.example")
    (tmp_path / "relay.key").unlink()
    with pytest.raises(config.ConfigError, match="cannot read"):
        await serving.files.reload(
            settings_with(config.TlsSettings(cert=str(tmp_path / "relay.pem"), key="/none"))
        )
    assert await serving.until("e.example")


async def test_the_relay_looks_at_its_files_by_itself(
    relay_with: RelayWith, tmp_path: Path, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificate_files, "_INTERVAL_SECONDS", 0.02)
    pair = write_pair(tmp_path, authority, "localhost")
    relay = await relay_with(server={"tls": {"cert": pair.cert, "key": pair.key}})
    certificates = relay.app.certificates
    assert certificates is not None
    ((name, before),) = [(one.name, one.not_after) for one in certificates.dates()]
    assert name == "localhost"
    assert 89 * 86_400 < before - time.time() < 91 * 86_400
    write_pair(tmp_path, authority, "localhost", days=50)
    await until(lambda: certificates.dates()[0].not_after != before)


async def test_without_a_certificate_a_handshake_is_refused() -> None:
    async def never(exchange: Exchange) -> None:
        raise AssertionError

    server = Server(never, Deadlines(asyncio.get_running_loop()))
    port = await listen(server, tls=Certificates().context)
    client = ssl.create_default_context()
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname="a.example")
    await server.drain(0)


# --- faults in words ---


@pytest.mark.parametrize(
    ("days", "domains", "path", "words"),
    [
        (-1, [], "server.tls", "relay.pem expired on 20"),
        (90, ["b.example"], "server.domains", "no certificate in server.tls is for b.example"),
        (90, ["a.example"], "", ""),
    ],
)
def test_a_certificate_that_no_client_accepts_is_a_fault(
    tmp_path: Path, authority: trustme.CA, days: float, domains: list[str], path: str, words: str
) -> None:
    pair = write_pair(tmp_path, authority, "a.example", days=days)
    faults = list(tls.faults(settings_with(pair, domains=domains), time.time()))
    assert [fault.path for fault in faults] == ([path] if path else [])
    assert all(words in fault.reason for fault in faults)


def test_a_certificate_of_the_future_is_a_fault(tmp_path: Path, authority: trustme.CA) -> None:
    settings = settings_with(write_pair(tmp_path, authority, "a.example"))
    (fault,) = tls.faults(settings, time.time() - 30 * 86_400)
    assert "see the clock" in fault.reason


def test_a_key_with_a_password_is_refused_without_asking(
    tmp_path: Path, authority: trustme.CA
) -> None:
    from cryptography.hazmat.primitives import serialization as s

    pair = write_pair(tmp_path, authority, "a.example")
    key = s.load_pem_private_key(Path(pair.key).read_bytes(), None)
    for form in (s.PrivateFormat.PKCS8, s.PrivateFormat.TraditionalOpenSSL):
        sealed = key.private_bytes(s.Encoding.PEM, form, s.BestAvailableEncryption(b"password"))
        Path(pair.key).write_bytes(sealed)
        with pytest.raises(config.ConfigError, match="encrypted; write it without a password"):
            tls.check(settings_with(pair), time.time())
    Path(pair.key).write_bytes(b"no key")
    with pytest.raises(config.ConfigError, match="no private key in"):
        tls.check(settings_with(pair), time.time())
