"""The clients of JSON answers: a closed loop over keep-alive connections.

Decides when a client sends its next request, and whether an answer is right. Must not know which
proxy answers, nor read /proc. Every answer is checked: a status other than 200 or a JSON body
that is cut is a `LoadError`, never a figure. The clients share a core with the upstream, so they
have to be cheap: bare protocols on uvloop and one scan per answer.
"""

import asyncio
import re
import ssl
from array import array
from collections.abc import Callable, Sequence
from time import perf_counter_ns
from typing import Protocol, cast

import orjson

from bench.dialects import HOST, MESSAGES, Dialect

_LENGTH = re.compile(rb"\r\n(content-length: *)(\d+)\r\n", re.IGNORECASE)
OK = b"HTTP/1.1 200 "
HEAD_END = b"\r\n\r\n"


class LoadError(Exception):
    """An answer was wrong, so the figures of this round mean nothing."""


class Client(Protocol):
    """One request at a time."""

    def send(self, due: int = 0) -> None:
        """Send it; its time counts from `due`, in nanoseconds, or else from now."""

    def leave(self) -> None:
        """Close the connection."""


class JsonLoad:
    """Keep-alive connections that each have one request in flight.

    After `saturate()` each connection sends its next request as soon as an answer is in. Many
    connections keep the proxy busy; a single one shows its latency.
    """

    def __init__(
        self,
        port: int,
        payload: bytes,
        dialect: Dialect = MESSAGES,
        new_client: "Callable[[JsonLoad], asyncio.Protocol] | None" = None,
    ) -> None:
        self.port = port
        self.payload = payload
        self.dialect = dialect
        self.tls: ssl.SSLContext | None = None
        self._new_client = new_client or _JsonClient
        self.completed = 0
        self.answer_bytes = 0
        self.recording = False
        self.latencies = array("Q")
        self.saturated = False
        self.idle: list[Client] = []
        self.answer = b""
        self.text = ""
        self.failure: LoadError | None = None
        self._clients: list[Client] = []
        self._failed = asyncio.Event()

    async def open(self, connections: int) -> None:
        """Connect, and fetch one answer on each connection."""
        loop = asyncio.get_running_loop()
        opened = []
        for _ in range(connections):
            _, client = await loop.create_connection(
                lambda: self._new_client(self), HOST, self.port, ssl=self.tls
            )
            opened.append(cast(Client, client))
        self.join(opened)
        await self.settled()

    def join(self, clients: Sequence["Client"]) -> None:
        """Add clients, and let each send a first request."""
        self._clients += clients
        for client in clients:
            client.send()

    def saturate(self) -> None:
        self.saturated = True
        idle, self.idle = self.idle, []
        for client in idle:
            client.send()

    async def run(self, seconds: float) -> None:
        """Let the load go on; raises at once when an answer was wrong."""
        try:
            async with asyncio.timeout(seconds):
                await self._failed.wait()
        except TimeoutError:
            pass
        if self.failure is not None:
            raise self.failure

    async def settled(self, within: float = 10.0) -> None:
        """Stop sending, and wait for the answers that are still missing."""
        self.saturated = False
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within
        while len(self.idle) < len(self._clients):
            if loop.time() > deadline:
                missing = len(self._clients) - len(self.idle)
                raise LoadError(f"{missing} requests were not answered within {within:g} s")
            await self.run(0.005)

    def close(self) -> None:
        for client in self._clients:
            client.leave()
        self._clients.clear()
        self.idle.clear()

    def fail(self, error: LoadError) -> None:
        if self.failure is None:
            self.failure = error
            self.saturated = False
            self._failed.set()


class KeepAliveClient(asyncio.Protocol):
    """One keep-alive connection; a subclass reads its answers."""

    __slots__ = ("buffer", "leaving", "load", "sent", "transport")

    def __init__(self, load: JsonLoad) -> None:
        self.load = load
        self.buffer = b""
        self.sent = 0  # nanoseconds
        self.leaving = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self.transport = cast(asyncio.Transport, transport)

    def send(self, due: int = 0) -> None:
        self.sent = due or perf_counter_ns()
        self.transport.write(self.load.payload)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.leaving:
            self.load.fail(LoadError(f"a keep-alive connection was closed: {exc or 'FIN'}"))

    def leave(self) -> None:
        self.leaving = True
        self.transport.abort()


class _JsonClient(KeepAliveClient):
    """A request out, its answer in."""

    __slots__ = ("checked", "end", "needle")

    def __init__(self, load: JsonLoad) -> None:
        super().__init__(load)
        self.checked = False
        self.end = 0
        self.needle = b""

    def data_received(self, data: bytes) -> None:
        if self.buffer:
            data = self.buffer + data
        if not self.end:
            try:
                self.end = self._answer_end(data)
            except LoadError as error:
                self.load.fail(error)
                self.leave()
                return
        size = len(data)
        if not self.end or size < self.end:
            self.buffer = data
            return
        if not self.checked and not self._check(data[: self.end]):
            return
        load = self.load
        # Go's encoder ends a document with a newline.
        if size != self.end or (data[-1:] != b"}" and data[-2:] != b"}\n"):
            load.fail(LoadError(f"an answer does not end where its length says: {data[-80:]!r}"))
            return
        self.buffer = b""
        self.end = 0
        load.completed += 1
        load.answer_bytes += size
        if load.recording:
            load.latencies.append(perf_counter_ns() - self.sent)
        if load.saturated:
            self.sent = perf_counter_ns()
            self.transport.write(load.payload)
        else:
            load.idle.append(self)

    def _answer_end(self, data: bytes) -> int:
        """Where the answer ends in `data`; 0 while its head is incomplete."""
        head_end = data.find(HEAD_END)
        if head_end < 0:
            return 0
        if not data.startswith(OK):
            raise LoadError(f"instead of 200 came {data[:600].decode(errors='replace')!r}")
        needle = self.needle
        at = data.find(needle, 0, head_end) if needle else -1
        if at >= 0:
            at += len(needle)
            return head_end + 4 + int(data[at : data.find(b"\r\n", at)])
        # The first answer shows how this proxy spells the field.
        found = _LENGTH.search(data, 0, head_end + 2)
        if found is None:
            raise LoadError(f"an answer without content-length: {data[:head_end]!r}")
        self.needle = b"\r\n" + found[1]
        return head_end + 4 + int(found[2])

    def _check(self, answer: bytes) -> bool:
        """Parse the first answer of a connection; whether it is one of the dialect."""
        try:
            self.load.text = read_answer(answer.partition(HEAD_END)[2], self.load.dialect)
        except LoadError as error:
            self.load.fail(error)
            self.leave()
            return False
        self.load.answer = answer
        self.checked = True
        return True


def read_answer(body: bytes, dialect: Dialect) -> str:
    """The text of a JSON answer."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise LoadError(f"an answer is no JSON ({error}): {body[:200]!r}") from None
    name, value = dialect.mark
    if not isinstance(document, dict) or document.get(name) != value:
        raise LoadError(f"an answer is no {value}: {body[:200]!r}")
    try:
        return dialect.text(document)
    except (KeyError, IndexError, TypeError, AttributeError):
        raise LoadError(f"an answer has no content: {body[:200]!r}") from None


def quantile(samples: Sequence[int], share: float) -> float:
    """The value below which this share of the samples lies; 0 without samples."""
    if not samples:
        return 0.0
    ordered = sorted(samples)
    return float(ordered[min(len(ordered) - 1, int(share * len(ordered)))])
