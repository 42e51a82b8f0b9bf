"""The link between the owner and one worker: messages both ways over a connected Unix socket.

All that one turn of the loop sends goes in one write. A message is a list in MessagePack: its kind,
then its values. Beside these there is one frame for the traffic of requests, which `on_batch` gets
as octets and `batch` gives; it goes before the messages of the same turn.

Decides how messages are framed, and when a peer is too slow. Must not know their meaning.
"""

import asyncio
import logging
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias, cast

import msgspec

from relay.net.runner import CoroutineRunner

_HEAD: Final = struct.Struct("<IB")  # octets of the payload, kind of the frame
_MESSAGES, _BATCH = 0, 1
_MAX_FRAME_OCTETS: Final = 256 * 1024 * 1024
_MAX_UNSENT_OCTETS: Final = 64 * 1024 * 1024  # the peer is stuck: it is given up
_LATER_SECONDS: Final = 0.002  # the longest wait of what can go with something else
_QUESTION: Final = "?"
_REPLY: Final = "="

_log = logging.getLogger("relay.workers")
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[list[Any]]).decode


# Called with whether there is an answer, and the answer as builtins.
OnReply: TypeAlias = Callable[[bool, Any], None]


class LinkClosedError(Exception):
    """The other process is gone, or is given up."""


class Link:
    """One end. `on_end` is called once, when the other process is gone or given up."""

    def __init__(self) -> None:
        self.closed = False
        self.on_end: Callable[[], None] = lambda: None
        self.on_batch: Callable[[bytes], None] = lambda octets: None
        self.batch: Callable[[], bytes] = lambda: b""  # the frame of requests; b"": none
        self._handlers: dict[str, Callable[..., None]] = {}
        self._answers: dict[str, Callable[..., Awaitable[object]]] = {}
        self._asked: dict[int, OnReply] = {}
        self._numbers = 0
        self._unsent: list[tuple[object, ...]] = []
        self._scheduled = False
        self._later: asyncio.TimerHandle | None = None
        self._flushed: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def open(cls, sock: socket.socket) -> "Link":
        """A link over one end of a socket pair, which is not read before `start`."""
        link = cls()
        sock.setblocking(False)
        protocol = _LinkProtocol(link)
        transport, _ = await link._loop.create_unix_connection(lambda: protocol, sock=sock)
        transport.pause_reading()
        link._transport = transport
        return link

    def start(self) -> None:
        """Read from now on."""
        if self._transport is not None:
            self._transport.resume_reading()

    def on(self, kind: str, handler: Callable[..., None]) -> None:
        """Call `handler` with the values of each message of this kind."""
        self._handlers[kind] = handler

    def answer(self, kind: str, handler: Callable[..., Awaitable[object]]) -> None:
        """Answer each question of this kind with the handler's result. The handler has no task of
        its own, see `net.runner`."""
        self._answers[kind] = handler

    def send(self, kind: str, *values: object) -> None:
        """Send a message at the end of this turn of the loop, after all earlier ones."""
        self._unsent.append((kind, *values))
        if not self._scheduled:
            self.schedule()

    def schedule(self) -> None:
        """Write at the end of this turn of the loop, also if there is only a batch."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.flush)

    def schedule_later(self) -> None:
        """Write with the next message or batch, within two milliseconds."""
        if self._later is None and not self._scheduled:
            self._later = self._loop.call_later(_LATER_SECONDS, self._write_late)

    def _write_late(self) -> None:
        self._later = None
        self.flush()

    def question(self, on_reply: OnReply, kind: str, *values: object) -> None:
        """Ask a question. `on_reply` is called once, also if nobody waits for it any more."""
        if self.closed:
            on_reply(False, kind)
            return
        self._numbers += 1
        self._asked[self._numbers] = on_reply
        self.send(_QUESTION, self._numbers, kind, *values)

    async def ask(self, kind: str, *values: object) -> Any:
        """Ask a question; returns the answer as builtins.

        Raises:
            LinkClosedError: the other process is gone, or failed to answer.
        """
        answered: asyncio.Future[Any] = self._loop.create_future()

        def on_reply(is_answer: bool, value: Any) -> None:
            if answered.done():
                return
            if is_answer:
                answered.set_result(value)
            else:
                answered.set_exception(LinkClosedError(str(value)))

        self.question(on_reply, kind, *values)
        return await answered

    def flush(self) -> None:
        """Write what waits now."""
        self._scheduled = False
        transport = self._transport
        batch = self.batch()
        messages, self._unsent = self._unsent, []
        if transport is None or self.closed:
            return
        octets = b""
        if batch:
            octets = _HEAD.pack(len(batch), _BATCH) + batch
        if messages:
            payload = _encode(messages)
            octets += _HEAD.pack(len(payload), _MESSAGES) + payload
        if octets:
            transport.write(octets)
            if transport.get_write_buffer_size() > _MAX_UNSENT_OCTETS:
                _log.error("a process of this relay reads nothing: it is given up")
                self.close()

    async def flushed(self) -> None:
        """Wait until all messages are with the kernel."""
        self.flush()
        transport = self._transport
        if transport is not None and not self.closed and transport.get_write_buffer_size():
            self._flushed = self._loop.create_future()
            transport.set_write_buffer_limits(0)
            await self._flushed

    def resume_writing(self) -> None:
        """All is with the kernel. Only for the protocol."""
        if self._flushed is not None and not self._flushed.done():
            self._flushed.set_result(None)

    def close(self) -> None:
        """End the link; `on_end` is called."""
        if self.closed:
            return
        self.closed = True
        if self._transport is not None:
            self._transport.abort()
        asked, self._asked = self._asked, {}
        for on_reply in asked.values():
            on_reply(False, "gone")
        self.resume_writing()
        self.on_end()

    # --- incoming ---

    def received(self, kind: int, payload: bytes) -> None:
        """A complete frame has come in. Only for the protocol."""
        if kind == _BATCH:
            try:
                self.on_batch(payload)
            except Exception:  # as with a message
                _log.exception("a batch of requests was not understood")
            return
        for message in _decode(payload):
            self._handle(message)

    def _handle(self, message: list[Any]) -> None:
        kind = message[0]
        try:
            if kind == _REPLY:
                self._take_reply(*message[1:])
            elif kind == _QUESTION:
                CoroutineRunner(self._reply(*message[1:])).step()
            else:
                self._handlers[kind](*message[1:])
        except Exception:  # one wrong message must not end the process
            _log.exception("a message of kind %s was not understood", kind)

    def _take_reply(self, number: int, is_answer: bool, value: Any) -> None:
        on_reply = self._asked.pop(number, None)
        if on_reply is not None:
            on_reply(is_answer, value)

    async def _reply(self, number: int, kind: str, *values: object) -> None:
        try:
            value = await self._answers[kind](*values)
        except (Exception, asyncio.CancelledError) as error:
            _log.exception("a question of kind %s has no answer", kind)
            self.send(_REPLY, number, False, type(error).__name__)
        else:
            self.send(_REPLY, number, True, value)


class _LinkProtocol(asyncio.Protocol):
    """Finds the frames in the octets."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._unread = bytearray()

    def data_received(self, data: bytes) -> None:
        unread = self._unread
        unread += data
        at, end = 0, len(unread)
        while end - at >= _HEAD.size:
            length, kind = _HEAD.unpack_from(unread, at)
            if length > _MAX_FRAME_OCTETS:
                _log.error("a process of this relay sends what no link may carry: it is given up")
                self._link.close()
                return
            stop = at + _HEAD.size + length
            if stop > end:
                break
            payload = bytes(unread[at + _HEAD.size : stop])
            at = stop
            self._link.received(cast(int, kind), payload)
        del unread[:at]

    def resume_writing(self) -> None:
        self._link.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        self._link.close()
