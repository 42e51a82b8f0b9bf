"""Several simulated upstreams behind one relay. Each can hold requests, refuse, or be killed."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from relay import config
from relay.net.deadlines import Deadlines
from relay.net.exchange import Exchange
from relay.net.listener import listen
from relay.net.server import Server
from relay.pool.routes import Route, Routes
from relay.pool.upstream import Upstream
from relay.simulator.app import Simulator
from tests.fakes.caller import read_head, request
from tests.fakes.live import MODELS, PLANS, Live, running_relay, upstream_row

MODEL = "claude-sonnet-4-7"
Instead = Callable[[Exchange], Awaitable[None]]


def refusing(status: int, **fields: str) -> Instead:
    """Answer with an error; `fields` with _ for -."""
    kind = {429: "rate_limit_error", 529: "overloaded_error"}.get(status, "api_error")
    body = json.dumps({"type": "error", "error": {"type": kind, "message": "Not now."}}).encode()
    lines = [(name.replace("_", "-").encode(), value.encode()) for name, value in fields.items()]

    async def refuse(exchange: Exchange) -> None:
        await exchange.body()
        exchange.respond(status, [(b"content-type", b"application/json"), *lines], body)

    return refuse


def answering(body: bytes) -> Instead:
    """Answer every request with one document, where the simulator is too strict."""

    async def answer(exchange: Exchange) -> None:
        await exchange.body()
        exchange.respond(200, [(b"content-type", b"application/json")], body)

    return answer


class Node:
    """One simulated upstream.

    `hold` keeps requests waiting until `let` admits some; `instead` replaces every answer;
    `came` has the times at which requests arrived.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.simulator = Simulator()
        self.timers = Deadlines(asyncio.get_running_loop())
        self.instead: Instead | None = None
        self.came: list[float] = []
        self.held = 0
        self.most_held = 0
        self.port = 0
        self._door: asyncio.Semaphore | None = None

    @property
    def completed(self) -> int:
        """Number of answers that it completed."""
        return self.simulator.journal.completed

    async def open(self) -> None:
        """Listen, at the same port as before if there was one."""
        self.server = Server(self._handle, self.timers)
        self.port = await listen(self.server, port=self.port)
        self.timers.start()

    def kill(self) -> None:
        """Close the listener and every connection at once, also within an answer."""
        self.server.abort()
        self.timers.stop()

    def hold(self) -> None:
        """Keep requests waiting from now on."""
        self._door = asyncio.Semaphore(0)

    def let(self, number: int = 1) -> None:
        """Admit `number` waiting requests."""
        assert self._door is not None
        for _ in range(number):
            self._door.release()

    async def _handle(self, exchange: Exchange) -> None:
        self.came.append(time.time())
        if self._door is not None:
            self.held += 1
            self.most_held = max(self.most_held, self.held)
            try:
                await self._door.acquire()
            finally:
                self.held -= 1
        if self.instead is not None:
            await self.instead(exchange)
        else:
            await self.simulator.handle(exchange)


# Opens a pool that the test's end closes: the fixture `pool_with` of tests/conftest.py.
PoolWith = Callable[..., Awaitable["Pool"]]


@dataclass
class Pool:
    """A relay and its upstreams, by name."""

    relay: Live
    nodes: dict[str, Node]
    _idle: list["Line"] = field(default_factory=list)

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    def upstream(self, name: str) -> Upstream:
        found = self.relay.app.upstreams.named(name)
        assert found is not None
        return found

    @property
    def account(self) -> str:
        """The account of the relay's first user."""
        caller = self.relay.app.keys.find({b"x-api-key": self.relay.key.encode()})
        assert caller is not None
        return caller.user_id

    async def ask(
        self,
        body: bytes | dict[str, Any] | None = None,
        *,
        key: str | None = None,
        fields: str = "",
        script: str = "",
        target: str = "/v1/messages",
    ) -> "Reply":
        """Send one request, on a connection that is kept for the next one."""
        if script:
            fields += f"x-simulate: {script}\r\n"
        octets = request(key or self.relay.key, body, fields=fields, target=target)
        line = self._idle.pop() if self._idle else await Line.open(self.relay.port)
        try:
            reply = await line.ask(octets)
        except BaseException:
            line.close()
            raise
        if reply.complete:
            self._idle.append(line)
        else:
            line.close()
        return reply

    def close(self) -> None:
        """Close the connections that are kept."""
        while self._idle:
            self._idle.pop().close()


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as its caller receives it. `complete`: its framing ended properly."""

    status: int
    fields: dict[bytes, bytes]
    payload: bytes
    complete: bool

    @property
    def id(self) -> str:
        return self.fields[b"request-id"].decode()

    @property
    def message(self) -> str:
        """The message of an error."""
        return str(json.loads(self.payload)["error"]["message"])


class Line:
    """A caller's connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int) -> "Line":
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    def close(self) -> None:
        self._writer.transport.abort()

    async def ask(self, octets: bytes) -> Reply:
        """Send a request and read its answer, to its end or to the cut."""
        self._writer.write(octets)
        status, fields = await read_head(self._reader)
        payload = b""
        try:
            if fields.get(b"transfer-encoding") != b"chunked":
                payload = await self._reader.readexactly(int(fields[b"content-length"]))
                return Reply(status, fields, payload, True)
            while size := int((await self._reader.readuntil(b"\r\n")).strip(), 16):
                payload += (await self._reader.readexactly(size + 2))[:-2]
            await self._reader.readexactly(2)
        except (asyncio.IncompleteReadError, ConnectionError):
            return Reply(status, fields, payload, False)
        return Reply(status, fields, payload, True)


@contextlib.asynccontextmanager
async def running_pool(
    folder: Path, options: dict[str, dict[str, Any]], **sections: Any
) -> AsyncIterator[Pool]:
    """A relay in front of one simulator for each name in `options`.

    Each value of `options` extends its `[[upstream]]`; `sections` are those of `running_relay`.
    """
    nodes = {name: Node(name) for name in options}
    async with contextlib.AsyncExitStack() as stack:
        for node in nodes.values():
            await node.open()
            stack.callback(node.kill)
        upstreams = [
            upstream_row(name, f"http://127.0.0.1:{nodes[name].port}", more)
            for name, more in options.items()
        ]
        relay = await stack.enter_async_context(running_relay(folder, upstreams, **sections))
        pool = Pool(relay, nodes)
        stack.callback(pool.close)
        yield pool


def made(
    options: dict[str, dict[str, Any]], model: dict[str, Any] | None = None
) -> tuple[list[Upstream], Route]:
    """Upstreams without a listener, and the route to them. Needs a running loop."""
    settings = config.parse(
        {
            "upstream": [
                {"name": name, "base_url": "http://127.0.0.1:9", "api_key": "k", **more}
                for name, more in options.items()
            ],
            "model": [model] if model is not None else MODELS,
            "plan": PLANS,
        }
    )
    timers = Deadlines(asyncio.get_running_loop())
    upstreams = [Upstream(one, settings, timers) for one in settings.upstream]
    asked = model["id"] if model is not None else MODEL
    return upstreams, Routes(settings.model, upstreams, config.ModelNames(settings.model)).find(
        asked
    )
