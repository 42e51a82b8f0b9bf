"""TLS-ALPN-01 on the listener: an authority is told apart, everybody else is served as ever."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme

from relay.net.acme.challenges import Challenges
from relay.net.acme.folder import AcmeFolder
from relay.net.acme.keys import challenge_context
from relay.net.deadlines import Deadlines
from relay.net.exchange import Exchange
from relay.net.listener import listen
from relay.net.off_loop import off_loop
from relay.net.server import Bounds, Prelude, Server
from relay.net.tls import Certificates, read_certificate
from tests.fakes.listening import listening
from tests.net.pems import trusting, write_pair
from tests.wire.test_client_hello import hello_of

NAME = "a.example"


class Challenged:
    """A TLS server with a challenge for NAME that can be opened and ended."""

    def __init__(self, server: Server, port: int, client: ssl.SSLContext, folder: Path) -> None:
        self.server = server
        self.port = port
        self.client = client
        self.answers = Challenges()
        self.answers.on_change = server.accept_anew
        assert server.prelude is not None
        server.prelude.challenges = self.answers
        folder_of_keys = AcmeFolder(str(folder / "db"), "https://a")
        self._context = challenge_context(folder_of_keys, NAME, "t.proof")
        self._block = self.answers.tls(NAME, self._context)

    async def begin(self) -> None:
        self._block = self.answers.tls(NAME, self._context)
        await off_loop("order", self._block.__enter__)

    async def end(self) -> None:
        await off_loop("order", lambda: self._block.__exit__(None, None, None))

    async def get(self) -> bytes:
        """The answer to a request of a usual client."""
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=self.client, server_hostname=NAME
        )
        writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        answer = await reader.readuntil(b"ok")
        writer.transport.abort()
        return answer

    async def validate(self, name: str, *protocols: str) -> tuple[str | None, bytes]:
        """As an authority: the protocol that was chosen, and the certificate, DER."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(list(protocols))
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=context, server_hostname=name
        )
        connection = writer.get_extra_info("ssl_object")
        chosen, certificate = connection.selected_alpn_protocol(), connection.getpeercert(True)
        assert await reader.read() == b""  # closed without a word
        writer.close()
        return chosen, certificate


@pytest.fixture
async def challenged(tmp_path: Path) -> AsyncIterator[Challenged]:
    authority = trustme.CA()
    pair = write_pair(tmp_path, authority, NAME)
    certificates = Certificates([read_certificate(pair.cert, pair.key)])

    async def respond(exchange: Exchange) -> None:
        exchange.respond(200, [], b"ok")

    timers = Deadlines(asyncio.get_running_loop())
    server = Server(respond, timers, Bounds(handshake_time=0.5))
    server.prelude = Prelude()
    port = await listen(server, tls=certificates.context)
    challenged = Challenged(server, port, trusting(authority), tmp_path)
    await challenged.begin()
    yield challenged
    await server.drain(0)


async def test_an_authority_gets_the_proof_others_their_answer(challenged: Challenged) -> None:
    chosen, certificate = await challenged.validate(NAME, "acme-tls/1")
    assert chosen == "acme-tls/1"
    assert b"\x2b\x06\x01\x05\x05\x07\x01\x1f" in certificate  # id-pe-acmeIdentifier
    assert (await challenged.get()).startswith(b"HTTP/1.1 200 ")
    await challenged.end()
    assert (await challenged.get()).startswith(b"HTTP/1.1 200 ")


async def test_an_authority_asking_for_another_name_is_closed(
    challenged: Challenged, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await challenged.validate("b.example", "acme-tls/1")
    assert "an authority asks for 'b.example', which has no challenge" in caplog.text


async def test_connections_from_before_go_on(challenged: Challenged) -> None:
    await challenged.end()
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", challenged.port, ssl=challenged.client, server_hostname=NAME
    )
    for turn in (challenged.begin, challenged.end):
        await turn()
        writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 ")
    writer.transport.abort()


@pytest.mark.parametrize(
    "pieces",
    [
        [b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"],
        [b""],
        [b"\x16\x03\x01"],
        [b"\x16\x03\x01\x02\x00" + bytes(512)],
        [hello_of(NAME, ["acme-tls/1"])[:60]],
    ],
    ids=["HTTP", "nothing", "three octets", "zeros", "half a hello"],
)
@pytest.mark.parametrize("is_closed", [True, False])
async def test_octets_of_no_handshake_are_closed(
    challenged: Challenged, pieces: list[bytes], is_closed: bool
) -> None:
    """At once, or at the deadline where more could follow."""
    reader, writer = await asyncio.open_connection("127.0.0.1", challenged.port)
    async with asyncio.timeout(3):
        for piece in pieces:
            writer.write(piece)
        if is_closed:
            writer.write_eof()
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    writer.close()
    assert (await challenged.get()).startswith(b"HTTP/1.1 200 ")


async def test_a_hello_in_pieces_is_read(challenged: Challenged) -> None:
    """A client that sends each octet by itself, through a pipe of our own."""

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                for index in range(0, len(data), 97):
                    writer.write(data[index : index + 97])
                    await asyncio.sleep(0.002)
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", direct)
        try:
            await asyncio.gather(forward(reader, inner_writer), forward(inner_reader, writer))
        finally:
            inner_writer.transport.abort()

    direct = challenged.port
    async with listening(relay) as challenged.port:
        assert (await challenged.get()).startswith(b"HTTP/1.1 200 ")
        assert (await challenged.validate(NAME, "acme-tls/1"))[0] == "acme-tls/1"


@pytest.mark.long
@pytest.mark.parametrize("is_pending", [False, True])
async def test_a_thousand_half_handshakes_end_in_time(
    challenged: Challenged, is_pending: bool
) -> None:
    """Within a second of the deadline, whichever way they are accepted."""
    challenged.server.bounds = Bounds(handshake_time=10.0)
    if not is_pending:
        await challenged.end()
    loop = asyncio.get_running_loop()
    hello = hello_of(NAME, [])
    opened: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    for index in range(1000):
        reader, writer = await asyncio.open_connection("127.0.0.1", challenged.port)
        writer.write(hello[: index % 100])
        opened.append((reader, writer))
    since = loop.time()

    async def end(reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""

    async with asyncio.timeout(11):
        await asyncio.gather(*(end(reader) for reader, _ in opened))
    assert loop.time() - since < 11
    for _, writer in opened:
        writer.close()
    assert (await challenged.get()).startswith(b"HTTP/1.1 200 ")
