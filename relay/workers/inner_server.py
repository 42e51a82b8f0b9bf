"""The owner's server for its workers alone: it answers what they forward, and what they ask.

A forwarded request says who called and how; that counts on this socket only, which nobody but this
user can reach. The endpoints are those of the owner's own callers, so each request is counted and
logged here, once.

Decides where the socket is, and what a connection does. Must not know what is forwarded.
"""

import asyncio
import contextlib
import glob
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, cast

import msgspec

from relay.app import App
from relay.net.listener import bind_path
from relay.net.runner import CoroutineRunner
from relay.net.server import Server
from relay.workers import inner_frames as frames
from relay.workers.inner_exchange import Channel, ForwardedExchange
from relay.workers.link import Link
from relay.workers.owner_connections import ADDRESS

_SUFFIX: Final = ".workers."  # and the process: one that takes over has a socket of its own
_BACKLOG_CONNECTIONS: Final = 1024

_log = logging.getLogger("relay.workers")
_decode_head: Final = msgspec.msgpack.Decoder(frames.RequestHead).decode
_decode_refusal: Final = msgspec.msgpack.Decoder(frames.Refusal).decode

Call = Callable[[list[bytes]], Awaitable[list[bytes]]]


class Joining(Protocol):
    """The workers, of which each gets the socket's path when it joins."""

    on_joined: list[Callable[[Link], None]]


class InnerServer:
    """See the module. `server` is the one for callers, whose handler and bounds count here too."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.connections: set[InnerConnection] = set()
        self.path = ""  # "": it does not listen
        self._calls: dict[str, Call] = {}
        self._folder = ""  # of the socket, if it has one of its own
        self._accepting: asyncio.Server | None = None

    def answer(self, name: str, call: Call) -> None:
        """Let workers call a function by this name."""
        self._calls[name] = call

    def call(self, name: str) -> Call:
        """The function of this name. Raises KeyError."""
        return self._calls[name]

    async def open(self, database: str) -> None:
        """Listen beside the database.

        Where that path is too long for a socket (107 octets), in a folder of its own.

        Raises:
            OSError: neither can be used.
        """
        bound = self._bind(database)
        self._accepting = await self.server.loop.create_unix_server(
            self._connection, sock=bound, backlog=_BACKLOG_CONNECTIONS
        )

    def close(self) -> None:
        """Accept no more, and cut what is under way: the workers have ended."""
        if self._accepting is None:
            return
        self._accepting.close()
        self._accepting = None
        with contextlib.suppress(OSError):
            os.remove(self.path)
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
        for connection in tuple(self.connections):
            connection.abort()

    def _bind(self, database: str) -> socket.socket:
        beside = os.path.realpath(database) + _SUFFIX
        _remove_left(beside)
        self.path = f"{beside}{os.getpid()}"
        try:
            return bind_path(self.path, private=True)
        except OSError:
            self._folder = tempfile.mkdtemp(prefix="relay-")  # for this user alone
            self.path = os.path.join(self._folder, "workers")
            return bind_path(self.path, private=True)

    def _connection(self) -> asyncio.BaseProtocol:
        # The loop calls a protocol's methods and never checks its base class.
        return cast(asyncio.BaseProtocol, InnerConnection(self))


class InnerConnection:
    """One connection of a worker: one request or call after the other."""

    transport: asyncio.Transport

    def __init__(self, server: InnerServer) -> None:
        self._server = server
        self._reader = frames.FrameReader()
        self._exchange: ForwardedExchange | None = None
        self._call: Call | None = None
        self._values = frames.Values()  # of the call, as far as they have come
        self._calling: asyncio.Task[None] | None = None
        self._is_slow = False  # the worker reads too slowly: its caller does

    # --- as the loop sees it ----------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._server.connections.add(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data, self)
        except (ValueError, KeyError, msgspec.MsgspecError):
            _log.exception("a worker has sent what was not understood")
            self.transport.abort()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The worker is gone, or its caller is: cancel the request."""
        self._server.connections.discard(self)
        exchange = self._exchange
        if exchange is not None:
            exchange.closing = True
            if not exchange.ended and exchange.runner is not None:
                exchange.runner.cancel()
        if self._calling is not None:
            self._calling.cancel()

    def pause_writing(self) -> None:
        self._is_slow = True
        if self._exchange is not None:
            self._exchange.pause()

    def resume_writing(self) -> None:
        self._is_slow = False
        if self._exchange is not None:
            self._exchange.resume()

    # --- as its exchange sees it ------------------------------------------------------

    @property
    def is_closing(self) -> bool:
        """Whether nothing more can be sent."""
        return self.transport.is_closing()

    @property
    def unsent_octets(self) -> int:
        """The octets that wait for the worker."""
        return self.transport.get_write_buffer_size()

    def send(self, octets: bytes) -> None:
        """Send frames."""
        if not self.transport.is_closing():
            self.transport.write(octets)

    def want_body(self, limit: int, owner: str) -> None:
        """Let the worker collect the request's body and send it."""
        wanted = msgspec.msgpack.encode(frames.BodyWanted(limit, owner))
        self.send(frames.frame(frames.BODY_WANTED, wanted))

    def abort(self) -> None:
        """Cut all at once."""
        self.transport.abort()

    # --- frames -----------------------------------------------------------------------

    def take_part(self, data: bytes, ends: bool) -> None:
        """Take octets of a body or of a call's value."""
        if self._exchange is not None:
            self._exchange.take_body(data)
        elif self._call is not None:
            self._values.take_part(data, ends)

    def take_frame(self, kind: int, payload: bytes) -> None:
        """Take another frame. Raises KeyError or MsgspecError: it was not understood."""
        if kind == frames.REQUEST:
            self._begin(_decode_head(payload))
        elif kind == frames.CALL:
            self._call = self._server.call(payload.decode())
        elif kind == frames.BODY_END and self._call is not None:
            answering = self._answer(self._call, self._values.complete)
            self._call, self._values = None, frames.Values()
            self._calling = self._server.server.loop.create_task(answering)
        elif kind == frames.BODY_END and self._exchange is not None:
            self._exchange.end_body()
        elif kind == frames.BODY_FAILED and self._exchange is not None:
            self._exchange.fail_body(_decode_refusal(payload).error)

    def _begin(self, head: frames.RequestHead) -> None:
        server = self._server.server
        channel = Channel(self, head.peer, server.budget)
        exchange = self._exchange = ForwardedExchange(channel, head, server.bounds.body)
        exchange.paused = self._is_slow
        runner = exchange.runner = CoroutineRunner(self._run(exchange))
        runner.step()

    async def _run(self, exchange: ForwardedExchange) -> None:
        try:
            await self._server.server.handler(exchange)
            if not exchange.ended:
                raise RuntimeError("the handler left its exchange unanswered")
        except (Exception, asyncio.CancelledError) as error:
            exchange.fail_by(error)
        finally:
            self._exchange = None
            if exchange.held is not None:
                exchange.held.resize(0)

    async def _answer(self, call: Call, values: list[bytes]) -> None:
        try:
            result = await call(values)
        except Exception:
            _log.exception("a worker's call failed")
            self.send(frames.frame(frames.FAILED))
        else:
            octets = frames.value_frames(frames.DATA, result)
            if not self.transport.is_closing():
                self.transport.writelines([*octets, frames.frame(frames.END)])
        finally:
            self._calling = None


async def serve_forwarded_as_owner(app: App, workers: Joining) -> InnerServer:
    """Answer what workers forward, from now on; `close` the server once they have ended.

    Raises:
        OSError: no socket can be made.
    """
    inner = InnerServer(app.server)
    await inner.open(app.settings.database.path)
    workers.on_joined.append(lambda link: link.send(ADDRESS, inner.path))
    return inner


def _remove_left(prefix: str) -> None:
    """Remove the sockets of processes that were killed. One that listens is left: it hands over."""
    for path in glob.glob(glob.escape(prefix) + "*"):
        with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
            probe.settimeout(0)
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                os.remove(path)
