"""Listening sockets of several processes: https, renewed certificates, HTTP/2, Unix, passed."""

import asyncio
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from tests.durability.process import serving
from tests.fakes.caller import read_answer, request
from tests.fakes.http2 import body as http2_body
from tests.fakes.http2 import http2_caller, post
from tests.net.pems import trusting, write_pair

from .everywhere import Everywhere, everywhere
from .shared import UNIX_SOCKET, Shared, body, settings
from .test_everywhere import kept_for_all

START = (
    "import os, sys; os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1');"
    "fd = int(sys.argv[1]); os.dup2(os.dup(fd) if fd == 3 else fd, 3);"
    "os.execv(sys.executable, [sys.executable, '-m', 'relay', sys.argv[2]])"
)


@dataclass
class Secured:
    """A relay with https, and its authority."""

    shared: Shared
    authority: trustme.CA
    key: str

    def trusting(self, *protocols: str) -> ssl.SSLContext:
        context = trusting(self.authority)
        if protocols:
            context.set_alpn_protocols(list(protocols))
        return context


@pytest.fixture(scope="module")
def secured(simulator: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """A relay of three processes with https; responses in the database."""
    folder = tmp_path_factory.mktemp("secured")
    authority = trustme.CA()
    write_pair(folder, authority, "localhost", "127.0.0.1")
    text = settings(simulator)
    text = text.replace("[server]", '[server]\ntls = { cert = "relay.pem", key = "relay.key" }\n'
                        'public_url = "https://localhost"')  # fmt: skip
    text = text.replace('store = "memory"', f'store = "database"\nkey = "{"k" * 64}"')
    (folder / "relay.toml").write_text(text)
    with serving(folder) as running:
        shared = Shared(running, folder, simulator)
        yield Secured(shared, authority, asyncio.run(shared.key()))


async def test_all_processes_serve_https(secured: Secured) -> None:
    async with everywhere(secured.shared.running, tls=secured.trusting()) as all_three:
        await all_three.knows(secured.key)
        assert await all_three.statuses(secured.key, body("main")) == [200] * 3
        await kept_for_all(secured.key, "main", all_three)


async def test_http2_is_served_by_all_processes(secured: Secured) -> None:
    async with everywhere(secured.shared.running, tls=secured.trusting()) as all_three:
        await all_three.knows(secured.key)

    async def ask() -> int:
        tls = secured.trusting("h2")
        async with http2_caller(secured.shared.running.port, tls=tls) as caller:
            stream = caller.request(post(secured.key), http2_body(model="main"))
            return (await caller.answer(stream)).status

    assert await asyncio.gather(*(ask() for _ in range(12))) == [200] * 12


async def test_a_renewed_certificate_is_served_by_all(secured: Secured) -> None:
    def certificates(all_three: Everywhere) -> set[bytes]:
        return {
            one.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            for one in all_three.callers
        }

    running = secured.shared.running
    async with everywhere(running, tls=secured.trusting()) as all_three:
        [old] = certificates(all_three)
    write_pair(secured.shared.folder, secured.authority, "localhost", "127.0.0.1", days=60)
    async with asyncio.timeout(10):
        served = {old}
        while old in served:
            async with everywhere(running, tls=secured.trusting()) as all_three:
                served = certificates(all_three)
    assert len(served) == 1


async def test_a_unix_socket_is_served(shared: Shared, all_three: Everywhere) -> None:
    key = await shared.key()
    await all_three.knows(key)
    path = str(shared.folder / UNIX_SOCKET)

    async def ask() -> int:
        reader, writer = await asyncio.open_unix_connection(path)
        try:
            writer.write(request(key, body("main")))
            return (await read_answer(reader))[0]
        finally:
            writer.transport.abort()

    assert await asyncio.gather(*(ask() for _ in range(12))) == [200] * 12


async def test_a_passed_socket_is_served_by_all(simulator: str, tmp_path: Path) -> None:
    """As systemd passes it: the third descriptor of a process that it has started."""
    (tmp_path / "relay.toml").write_text(settings(simulator))
    with socket.create_server(("127.0.0.1", 0)) as passed:
        port = passed.getsockname()[1]
        program = ("-c", START, str(passed.fileno()))
        with serving(tmp_path, program=program, pass_fds=[passed.fileno()]) as running:
            assert running.port == port
            shared = Shared(running, tmp_path, simulator)
            key = await shared.key()
            async with everywhere(running) as all_three:
                await all_three.knows(key)
                assert await all_three.statuses(key, body("main")) == [200] * 3
            running.signal()
            assert await running.exited(10) == 0
        passed.settimeout(0.2)
        with socket.create_connection(("127.0.0.1", port)):
            passed.accept()[0].close()  # no process of the relay holds it any more
