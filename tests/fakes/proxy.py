"""Proxies of raw octets, CONNECT and SOCKS5: they record each target and tunnel to it."""

import asyncio
import base64
import contextlib
import ipaddress
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["http", "socks5"]
Mode = Literal[
    "pass",
    "refuse",  # with `code`
    "hang",  # never answer
    "mute",  # agree, then forward nothing
    "midway",  # close within the answer
    "garbage",  # answer with `octets`
    "slowly",  # answer octet by octet
]

GRANTED = b"HTTP/1.1 200 Connection established\r\nproxy-agent: fake\r\n\r\n"


@dataclass(frozen=True)
class Asked:
    """The target that a client asked for. `named`: a host name, not an address."""

    host: str
    port: int
    named: bool
    credentials: tuple[str, str] | None = None


@dataclass
class Proxy:
    """One proxy and its record. `places`: the names that it can resolve."""

    kind: Kind
    mode: Mode = "pass"
    code: int = 0
    octets: bytes = b""
    wants: tuple[str, str] | None = None
    places: Mapping[str, str] = field(default_factory=dict)
    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)
    connections: int = 0
    open: int = 0
    came: asyncio.Event = field(default_factory=asyncio.Event)

    def url(self, credentials: str = "", *, scheme: str = "") -> str:
        """The value of `egress` for this proxy; `credentials` end in an @."""
        return f"{scheme or self.kind}://{credentials}127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client, until it has left."""
        self.connections += 1
        self.open += 1
        self.came.set()
        try:
            speak = self._http if self.kind == "http" else self._socks
            target = await speak(reader, writer)
            if target is not None:
                await self._pass(target, reader, writer)
            elif self.mode != "midway":
                writer.write_eof()
                await reader.read(-1)
        except (asyncio.IncompleteReadError, OSError, RuntimeError):
            pass
        finally:
            self.open -= 1
            writer.transport.abort()

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, octets: bytes
    ) -> bool:
        """Agree, in the way of `mode`; return whether there is a tunnel."""
        if self.mode == "midway":
            writer.write(octets[: len(octets) // 2])
            await writer.drain()
            writer.close()
            return False
        if self.mode == "slowly":
            for number in range(len(octets)):
                writer.write(octets[number : number + 1])
                await writer.drain()
                await asyncio.sleep(0)
            return True
        writer.write(octets)
        if self.mode == "mute":
            await reader.read(-1)
            return False
        return True

    async def _http(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[str, int] | None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        lines = head.decode().split("\r\n")
        host, _, port = lines[0].split(" ")[1].rpartition(":")
        credentials = None
        for line in lines[1:]:
            name, _, value = line.partition(": ")
            if name.lower() == "proxy-authorization":
                known = base64.b64decode(value.removeprefix("Basic ")).decode()
                user, _, password = known.partition(":")
                credentials = (user, password)
        self.asked.append(Asked(host.strip("[]"), int(port), _named(host), credentials))
        if self.mode == "hang":
            await reader.read(-1)
        elif self.mode == "garbage":
            writer.write(self.octets)
        elif self.wants != credentials and self.wants is not None:
            # Some proxies quote the credentials.
            writer.write(f"HTTP/1.1 407 {credentials} is wrong\r\n\r\n".encode())
        elif self.mode == "refuse":
            writer.write(b"HTTP/1.1 %d No\r\ncontent-length: 0\r\n\r\n" % self.code)
        elif await self._answer(reader, writer, GRANTED):
            return host.strip("[]"), int(port)
        return None

    async def _socks(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[str, int] | None:
        _, count = await reader.readexactly(2)
        methods = await reader.readexactly(count)
        if self.mode == "garbage":
            writer.write(self.octets)
            return None
        credentials = None
        if 2 in methods:
            writer.write(b"\5\2")
            user = await reader.readexactly((await reader.readexactly(2))[1])
            password = await reader.readexactly((await reader.readexactly(1))[0])
            credentials = (user.decode(), password.decode())
            if self.wants not in (None, credentials):
                writer.write(b"\1\1")
                return None
            writer.write(b"\1\0")
        elif self.wants is not None:
            writer.write(b"\5\xff")
            return None
        else:
            writer.write(b"\5\0")
        kind = (await reader.readexactly(4))[3]
        if kind == 3:
            host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        else:
            size = 4 if kind == 1 else 16
            host = str(ipaddress.ip_address(await reader.readexactly(size)))
        port = int.from_bytes(await reader.readexactly(2), "big")
        self.asked.append(Asked(host, port, kind == 3, credentials))
        if self.mode == "hang":
            await reader.read(-1)
        elif self.mode == "refuse":
            writer.write(bytes([5, self.code, 0, 1, 0, 0, 0, 0, 0, 0]))
        elif await self._answer(reader, writer, b"\5\0\0\1\0\0\0\0\0\0"):
            return host, port
        return None

    async def _pass(
        self,
        target: tuple[str, int],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        host, port = target
        far_reader, far_writer = await asyncio.open_connection(self.places.get(host, host), port)
        back = asyncio.create_task(_pour(far_reader, writer))
        try:
            await _pour(reader, far_writer)
        finally:
            far_writer.transport.abort()
            await back


def _named(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return True
    return False


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(
        OSError, RuntimeError
    ):  # RuntimeError: uvloop's for a closed transport
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


@contextlib.asynccontextmanager
async def running_proxy(proxy: Proxy) -> AsyncIterator[Proxy]:
    """Listen on loopback. At the end every client must have left."""
    tasks: set[asyncio.Task[None]] = set()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(proxy.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(begin, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
        async with asyncio.timeout(5):
            await asyncio.gather(*tasks)
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
