"""The relay logs only conditions that an operator can act on, and works without standard output."""

import asyncio
import gc
import logging
import os
import socket
import ssl
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.cli.command import done
from tests.durability.process import write_settings
from tests.fakes import answers
from tests.fakes.caller import BODY, connected, read_answer, read_head, request
from tests.fakes.live import Live, RelayWith
from tests.fakes.until import until
from tests.fakes.upstream import Seen, UpstreamWith

STREAM = {**BODY, "stream": True}
RESET = struct.pack("ii", 1, 0)  # SO_LINGER of 0 seconds: closing sends a reset
PACED = "x-simulate: tokens=500;pace=100\r\n"
BUSY = "x-simulate: bytes=8000000\r\n"


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No record at WARNING or above from any logger, and no unretrieved exception."""
    yield
    gc.collect()
    assert [entry for entry in caplog.records if entry.levelno >= logging.WARNING] == []


def leave(writer: asyncio.StreamWriter, how: str) -> None:
    if how == "reset":
        peer = writer.get_extra_info("socket")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    if how == "close":
        writer.close()
    else:
        writer.transport.abort()


@pytest.mark.matrix(share=2)
@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("how", ["close", "abort", "reset"])
@pytest.mark.parametrize("fields", [PACED, BUSY], ids=["paced", "busy"])
async def test_callers_that_leave_their_streams_are_not_logged(
    live: Live, fields: str, how: str
) -> None:
    async def call_and_leave(number: int) -> None:
        async with connected(live.port) as (reader, writer):
            writer.write(request(live.key, STREAM, fields=fields))
            await read_head(reader)
            await reader.readuntil(b"content_block_delta")
            await asyncio.sleep(0.001 * number)
            leave(writer, how)

    await asyncio.gather(
        *(call_and_leave(number) for number in range(16 if fields == PACED else 4))
    )
    await until(lambda: not live.app.server.connections)
    assert {line["outcome"] for line in live.log()} == {"caller left"}


@pytest.fixture
async def secure(tmp_path: Path, relay_with: RelayWith) -> tuple[Live, ssl.SSLContext]:
    """A relay over TLS, and a context for its callers."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    tls = {"cert": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")}
    return await relay_with(server={"tls": tls}), context


@pytest.mark.matrix(share=2)
@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("how", ["close", "abort"])
@pytest.mark.parametrize("when", ["waiting", "in the stream"])
async def test_callers_that_leave_over_tls_are_not_logged(
    secure: tuple[Live, ssl.SSLContext], how: str, when: str
) -> None:
    relay, context = secure
    fields = "x-simulate: delay=30\r\n" if when == "waiting" else PACED

    async def call_and_leave(number: int) -> None:
        reader, writer = await asyncio.open_connection("localhost", relay.port, ssl=context)
        writer.write(request(relay.key, STREAM, fields=fields))
        if when == "waiting":
            await until(lambda: relay.simulator and relay.simulator.journal.requests >= 10)
        else:
            await reader.readuntil(b"content_block_delta")
        await asyncio.sleep(0.002 * number)
        leave(writer, how)

    async with asyncio.timeout(5):
        await asyncio.gather(*(call_and_leave(number) for number in range(10)))
        await until(lambda: not relay.app.server.connections)
    assert {line["outcome"] for line in relay.log()} == {"caller left"}


@pytest.mark.parametrize("first", ["caller", "upstream"])
async def test_both_sides_leaving_at_once_leaves_no_exception(
    upstream_with: UpstreamWith, relay_with: RelayWith, first: str
) -> None:
    """Both closes arrive in one turn of the loop; `loop_without_warnings` checks the rest."""
    writers: list[asyncio.StreamWriter] = []

    async def answer(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Seen
    ) -> None:
        writers.append(writer)
        writer.write(answers.chunked_head() + b"".join(map(answers.chunk, answers.stream()[:4])))
        assert await reader.read(1) == b""

    loop = asyncio.get_running_loop()
    upstream = await upstream_with(answer)
    relay = await relay_with(upstream)
    for _ in range(8):
        caller = socket.socket()
        caller.setblocking(False)
        await loop.sock_connect(caller, ("127.0.0.1", relay.port))
        await loop.sock_sendall(caller, request(relay.key, STREAM))
        received = b""
        while b"content_block_delta" not in received:
            received += await loop.sock_recv(caller, 65_536)
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        fileno = os.dup(writers[-1].get_extra_info("socket").fileno())
        with socket.socket(fileno=fileno) as upstream_end:
            # Straight to the kernel: a transport would wait for the next turn.
            if first == "caller":
                caller.close()
            upstream_end.shutdown(socket.SHUT_WR)
            caller.close()
        await until(lambda: not relay.app.server.connections)
    gc.collect()


# --- the standard streams -----------------------------------------------------------


async def test_a_relay_serves_without_a_standard_output(tmp_path: Path) -> None:
    """Descriptor 1 must not become a socket: the access log would be written into it."""
    write_settings(tmp_path, "http://127.0.0.1:9")
    # Without an account, the relay says on standard error how to open one.
    account = ("user", "create", "ada@example.com", "--config", str(tmp_path / "relay.toml"))
    await asyncio.to_thread(done, *account)
    process = subprocess.Popen(  # noqa: ASYNC220 - it returns at once
        ["/bin/sh", "-c", 'exec "$0" -m relay serve >&-', sys.executable],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        line = (await asyncio.to_thread(process.stderr.readline)).decode()
        port = int(line.rpartition(":")[2])
        async with connected(port) as first, connected(port) as second:
            for _ in range(2):
                for reader, writer in (first, second):
                    writer.write(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n")
                    assert (await read_answer(reader))[::2] == (200, b"ok\n")
                    writer.write(request("sk-llmapi-unknown"))
                    assert (await read_answer(reader))[0] == 401
                await asyncio.sleep(0.3)  # time for the log to be written
        process.terminate()
        assert await asyncio.to_thread(process.wait, 5) == 0
        assert process.stderr.read() == b""
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
