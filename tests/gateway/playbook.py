"""A player for transcripts of one request: octets in on both sides, octets out on both sides.

    caller asks for a stream  → request to one#1
    one#1 529                 → request to two#1
    two#1 head
    two#1 opening text        → 200, message_start, content_block_start, ping, text
    clock +10.25              → ping

The relay is real from the caller's connection to the upstream's: dialects, dispatch, attempt,
keep-alive, pool, HTTP/1.1. The loop has scripted connections in place of sockets, and a clock
that only the transcript moves. `one#1` is the first connection to the upstream `one`. Events:

    caller asks for a stream|document|chat|response|count
    caller leaves | shuts | pauses | resumes          the caller's connection
    UPSTREAM refuses                                  connecting fails from now on
    CONNECTION STEP …                                 see `STEPS`, or a status
    CONNECTION closes | resets
    clock +SECONDS                                    time passes, deadlines are checked

Decisions: a connection that gets a request or an `own probe`, or is closed; status, events and
end that the caller gets. An event by its type, an error with its own type, a comment of a
keep-alive as `comment`, one of a probe as `probe`; `…` is a part of an event, `cut` the end of the
connection.
"""

import asyncio
import itertools
import json
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from relay import config
from relay.api.endpoints import dialects
from relay.api.handler import Handler
from relay.api.router import Endpoints
from relay.gateway.admission import UNMETERED, Admission
from relay.gateway.authentication import KeyIndex
from relay.gateway.catalog import Catalog
from relay.gateway.context import RequestContext
from relay.gateway.dialect import Dialect
from relay.gateway.history import ConversationHistory
from relay.gateway.load import Load
from relay.gateway.metering import Metering
from relay.gateway.relay import Relay
from relay.gateway.request_metrics import RequestMetrics
from relay.net.deadlines import TICK, Deadlines
from relay.net.http1 import ServerConnection
from relay.net.server import Server
from relay.net.upstream.resolver import Resolver
from relay.pool.affinity import Bindings
from relay.pool.leases import Upstreams
from relay.pool.probing import Prober
from relay.pool.upstream import Upstream
from relay.quota.ledger import Ledger
from relay.secret import digest
from relay.store.journal import Journal
from relay.store.keys import LiveKey
from relay.wire.chunked import ChunkReader
from tests.fakes import answers
from tests.fakes.caller import BODY, request
from tests.fakes.live import MODELS, PLANS
from tests.pool.transcript import Options, line, lines_of

KEY = "caller-key"
EVENTS = answers.stream()
TEXT = EVENTS[3]
DOCUMENT = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": BODY["model"],
    "content": [{"type": "text", "text": "Hello"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 25, "output_tokens": 9},
}
JSON = json.dumps(DOCUMENT).encode()
OVERLOADED = {"type": "overloaded_error", "message": "Overloaded"}

# What an upstream sends, by name.
STEPS: dict[str, bytes] = {
    "half-head": b"HTTP/1.1 200 OK\r\ncontent-ty",
    "head": answers.chunked_head(),
    "opening": b"".join(map(answers.chunk, EVENTS[:3])),  # no content: the end of it is a ping
    "ping": answers.chunk(EVENTS[2]),
    "text": answers.chunk(TEXT),
    "half-text": answers.chunk(TEXT[:30]),
    "rest-of-text": answers.chunk(TEXT[30:]),
    "stop": b"".join(map(answers.chunk, EVENTS[-3:])) + answers.LAST,
    "error": answers.chunk(answers.event("error", error=OVERLOADED)),
    "last": answers.LAST,
    "document": answers.sized(JSON),
    "half-document": answers.sized(JSON)[:-20],
    "count": answers.sized(b'{"input_tokens":7}'),
    "html": answers.sized(b"<html></html>", kind=b"text/html"),
    "garbage": b"\x16\x03\x01 this is no HTTP\r\n\r\n",
}
TARGETS = {
    "stream": ("/v1/messages", {**BODY, "stream": True}),
    "document": ("/v1/messages", BODY),
    "count": ("/v1/messages/count_tokens", BODY),
    "chat": ("/v1/chat/completions", {**BODY, "stream": True}),
    "response": ("/v1/responses", {"model": BODY["model"], "input": "hi", "stream": True}),
}


class ScriptedLoop(asyncio.SelectorEventLoop):
    """A loop whose time stands still, and whose connections are made by `connect`."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.connect: Callable[[Callable[[], Any], str], Any]
        super().__init__()

    def time(self) -> float:
        return self.now

    async def create_connection(self, factory: Any, *_: Any, sock: Any, **__: Any) -> Any:  # type: ignore[override]
        return self.connect(factory, sock.host)


class ScriptedResolver(Resolver):
    """Connections that are made by the loop's `connect`, which only needs the name."""

    async def connect(self, host: str, port: int, seconds: float) -> Any:
        return SimpleNamespace(host=host, close=lambda: None)


class Wire(asyncio.Transport):
    """One scripted connection, on the relay's side. Written octets go to `on_write`."""

    def __init__(self, on_write: Callable[[bytes], None], on_close: Callable[[], None]) -> None:
        super().__init__({"socket": SimpleNamespace(setsockopt=lambda *_: None)})
        self.protocol: Any = None
        self._on_write = on_write
        self._on_close = on_close
        self._closing = False

    def open(self, protocol: Any) -> None:
        self.protocol = protocol
        protocol.connection_made(self)

    def write(self, data: Any) -> None:
        if not self._closing:
            self._on_write(bytes(data))

    def close(self) -> None:
        if not self._closing:
            self._on_close()
            self.lose(None)

    abort = close

    def lose(self, error: Exception | None) -> None:
        """The connection ends: by either side."""
        self._closing = True
        asyncio.get_running_loop().call_soon(self.protocol.connection_lost, error)

    def is_closing(self) -> bool:
        return self._closing

    def can_write_eof(self) -> bool:
        return True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is buffered."""

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        """The script decides when octets come."""

    resume_reading = pause_reading

    def is_reading(self) -> bool:
        return True


class Answer:
    """Reads the octets that the caller gets."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._octets = b""
        self._payload = b""
        self._length: int | None = None  # of a document
        self._chunks: ChunkReader | None = None  # of a stream

    def feed(self, octets: bytes) -> None:
        self._octets += octets
        if self._length is None and self._chunks is None:
            self._read_head()
        if self._chunks is not None:
            self._payload += self._chunks.feed(self._octets)
            self._octets = b""
            *events, self._payload = self._payload.split(b"\n\n")
            for event in events:
                self._note(event_name(event))
            if self._payload:
                self._note("…")
            if self._chunks.done:
                self._chunks = None
                self._note("end")
        elif self._length is not None and len(self._octets) >= self._length:
            self._note(document_name(self._octets[: self._length]))
            self._octets, self._length = self._octets[self._length :], None

    def _read_head(self) -> None:
        head, end, rest = self._octets.partition(b"\r\n\r\n")
        if not end:
            return
        self._octets = rest
        status = head.split()[1].decode()
        self._note(status)
        if b"transfer-encoding: chunked" in head:
            self._chunks = ChunkReader()
        elif status != "100":
            self._length = int(head.lower().partition(b"content-length: ")[2].split()[0])


def event_name(event: bytes) -> str:
    """An event's type, or the kind of a comment."""
    if event.startswith(b":"):
        return "comment" if event[1:] else "probe"
    name, _, data = event.rpartition(b"data: ")
    kind = name.partition(b"event: ")[2].strip().decode()
    if data == b"[DONE]":
        return "DONE"
    document = json.loads(data)
    if "error" in document:
        return f"error {document['error']['type']}"
    if kind == "response.failed":
        return f"{kind} {document['response']['error']['code']}"
    delta = document.get("delta")
    return "text" if isinstance(delta, dict) and "text" in delta else kind or "chunk"


def document_name(payload: bytes) -> str:
    """`document` for an answer, the type of an error, `html`."""
    if payload.startswith(b"<"):
        return "html"
    document = json.loads(payload)
    error = document.get("error")
    return str(error["type"]) if error else "document"


class NoDatabase:
    """What a journal is opened with that nothing is written to."""

    def attach(self, *_: Any) -> None:
        """See `Database`."""


class Unmetered:
    """Admits every request, so a transcript needs no journal on a disk."""

    admits_again = False

    async def check(self, ctx: RequestContext, *_: Any, counting: bool) -> None:
        pass

    async def admit(self, ctx: RequestContext, *_: Any) -> Admission:
        return UNMETERED


class Playbook:
    """A relay in front of `upstreams`, by name with their settings."""

    def __init__(self, loop: ScriptedLoop, upstreams: Options, pool: dict[str, Any]) -> None:
        loop.connect = self._connect
        self._loop = loop
        rows = [
            {"name": name, "base_url": f"http://{name}", "api_key": "k", "priority": number, **more}
            for number, (name, more) in enumerate(upstreams.items(), 1)
        ]
        settings = config.parse({"upstream": rows, "model": MODELS, "plan": PLANS, "pool": pool})
        self._deadlines = deadlines = Deadlines(loop)
        resolver = ScriptedResolver()
        made = [Upstream(one, settings, deadlines, resolver) for one in settings.upstream]
        epoch = time.time() - loop.now  # verdicts come by this clock; only the transcript adds any
        keys, ledger, catalog = KeyIndex(), Ledger(), Catalog(settings, made)
        keys.replace([LiveKey(digest(KEY.encode()), "key_1", "usr_1", "", "free", False, None)])
        metering = Metering(ledger, Journal(cast(Any, NoDatabase()), list, True, 0, 0))
        metering.admissions = Unmetered()
        leases = Upstreams(made, settings.pool, ledger, deadlines, lambda: epoch + loop.now)
        Prober(leases, deadlines)
        relay = Relay(keys, metering, leases, Bindings(300.0), deadlines)
        endpoints = Endpoints()
        for path, dialect in dialects(bytes(32), ConversationHistory(None)).items():
            endpoints.post(path, _endpoint(relay, dialect))
        metrics = RequestMetrics(str)
        handler = Handler(endpoints, keys, metering, catalog, None, metrics, Load(100, 0.0))
        self._server = Server(handler.handle, deadlines)
        self._decisions: list[str] = []
        self._refusing: set[str] = set()
        self._numbers = {name: itertools.count(1) for name in upstreams}
        self._wires: dict[str, Wire] = {}
        self._caller = self._new_caller()
        deadlines.start()

    async def play(self, transcript: str) -> list[str]:
        """Play every event of `transcript`; its lines, each with the decisions as they fell."""
        played = []
        try:
            for event, _ in lines_of(transcript):
                self._decisions = []
                name, *words = event.split()
                await self._happen(name, words)
                await self._settle()
                played.append(line(event, ", ".join(counted(self._decisions))))
        finally:  # the caller leaves, so that no request is left under way
            self._caller.close()
            for wire in self._wires.values():
                wire.close()
            await self._settle()
            self._deadlines.stop()
        return played

    async def _happen(self, name: str, words: list[str]) -> None:
        if name == "clock":
            end = self._loop.now + float(words[0])
            while self._loop.now < end:
                self._loop.now = min(self._loop.now + TICK, end)
                await self._settle()
        elif name == "caller":
            self._on_caller(words)
        elif words == ["refuses"]:
            self._refusing.add(name)
        else:
            wire = self._wires[name]
            for word in words:
                if word == "closes":
                    wire.protocol.eof_received()
                elif word == "resets":
                    wire.lose(ConnectionResetError(104, "reset"))
                else:
                    wire.protocol.data_received(STEPS.get(word) or refusal(word))

    def _on_caller(self, words: list[str]) -> None:
        if self._caller.is_closing():
            self._caller = self._new_caller()
        caller = self._caller
        if words[0] == "asks":
            target, body = TARGETS[words[-1]]
            caller.protocol.data_received(request(KEY, body, target=target))
        elif words == ["leaves"]:
            caller.lose(None)
        elif words == ["shuts"]:
            caller.protocol.eof_received()
        elif words == ["pauses"]:
            caller.protocol.pause_writing()
        else:
            assert words == ["resumes"]
            caller.protocol.resume_writing()

    async def _settle(self) -> None:
        """Let the loop run until nothing is due."""
        for _ in range(8):
            await asyncio.sleep(0)

    def _new_caller(self) -> Wire:
        wire = Wire(Answer(self._note).feed, lambda: self._note("cut"))
        wire.open(ServerConnection(self._server))
        return wire

    def _connect(self, factory: Callable[[], Any], host: str) -> Any:
        if host in self._refusing:
            raise ConnectionRefusedError(111, "Connection refused")
        name = f"{host}#{next(self._numbers[host])}"
        wire = self._wires[name] = Wire(
            lambda octets: self._note(f"{sent(octets)} to {name}"),
            lambda: self._note(f"{name} closed"),
        )
        protocol = factory()
        wire.open(protocol)
        return wire, protocol

    def _note(self, decision: str) -> None:
        self._decisions.append(decision)


def _endpoint(relay: Relay, dialect: Dialect) -> Any:
    return lambda ctx: relay.relay(ctx, dialect)


def refusal(status: str) -> bytes:
    """An upstream's own error."""
    error = {"type": "error", "error": {"type": f"upstream_{status}", "message": "Not now."}}
    return answers.sized(json.dumps(error).encode(), f"{status} No".encode())


def sent(octets: bytes) -> str:
    """The kind of a request that an upstream gets: a caller's, or a probe of the relay's own."""
    is_probe = b"/count_tokens" in octets and b"max_tokens" not in octets
    return "own probe" if is_probe else "request"


def counted(decisions: list[str]) -> list[str]:
    """Decisions with repetitions counted: `ping ×3`."""
    groups = ((name, len(list(group))) for name, group in itertools.groupby(decisions))
    return [f"{name} ×{number}" if number > 1 else name for name, number in groups]


def check(transcript: str, upstreams: Options, pool: dict[str, Any] | None = None) -> None:
    """Play a transcript; the decisions must be those it states."""

    async def play() -> list[str]:
        return await Playbook(loop, upstreams, pool or {}).play(transcript)

    loop = ScriptedLoop()
    try:
        played = loop.run_until_complete(play())
    finally:
        loop.close()
    assert played == [line(event, decisions) for event, decisions in lines_of(transcript)]
