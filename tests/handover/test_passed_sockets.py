"""Sockets of a service manager: for https and for plain HTTP, and handed over."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

from tests.fakes.until import until
from tests.net.acme.issued import certificate_of
from tests.net.pems import write_pair

from .relays import Relays
from .test_certificates import get

SETTINGS = """
[server]
listen = ["127.0.0.1:1"]
redirect_listen = ["127.0.0.1:{redirect}"]
public_url = "https://handed.example"
admin_listen = ""
tls = {{ cert = "relay.pem", key = "relay.key" }}

[[upstream]]
name = "a"
base_url = "http://127.0.0.1:9"
api_key = "k"
"""
START = (
    "import os, sys; os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='2');"
    "fds = [os.dup(os.dup(int(a))) for a in sys.argv[1:]];"
    "[os.dup2(os.dup(os.dup(fd)), 3 + n) for n, fd in enumerate(fds)];"
    "os.execv(sys.executable, [sys.executable, '-m', 'relay', 'serve', '--takeover'])"
)


@pytest.mark.parametrize("known_by", ["port", pytest.param("name", marks=pytest.mark.long)])
async def test_plain_http_has_a_passed_socket_too(tmp_path: Path, known_by: str) -> None:
    """It is known by the name `redirect`, or by a port of `redirect_listen`."""
    authority = trustme.CA()
    write_pair(tmp_path, authority, "handed.example")
    relays = Relays(tmp_path)
    with (
        socket.create_server(("127.0.0.1", 0)) as https,
        socket.create_server(("127.0.0.1", 0)) as plain,
        (tmp_path / "err0").open("wb") as err,
    ):
        tls_port, http_port = https.getsockname()[1], plain.getsockname()[1]
        redirect = http_port if known_by == "port" else 2
        (tmp_path / "relay.toml").write_text(SETTINGS.format(redirect=redirect))
        names = "listen:listen" if known_by == "port" else "listen:redirect"
        relays.processes.append(
            subprocess.Popen(  # noqa: ASYNC220 - it returns at once
                [sys.executable, "-c", START, str(https.fileno()), str(plain.fileno())],
                cwd=tmp_path,
                env={**os.environ, "LISTEN_FDNAMES": names},
                pass_fds=[https.fileno(), plain.fileno()],
                stdout=subprocess.DEVNULL,
                stderr=err,
            )
        )
    try:
        await until(lambda: "listens on" in relays.said(), within=30)
        assert str(http_port) not in relays.said()
        certificate = await certificate_of(tls_port, "handed.example")
        assert (await get(http_port, "/")).startswith(b"HTTP/1.1 308 ")
        relays.spawn()
        await until(lambda: "listens on" in relays.said(), within=30)
        assert await certificate_of(tls_port, "handed.example") == certificate
        assert (await get(http_port, "/")).startswith(b"HTTP/1.1 308 ")
    finally:
        relays.kill()
