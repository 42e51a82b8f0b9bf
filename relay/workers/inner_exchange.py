"""A request that a worker forwards, as the owner's endpoints see it.

Its answer goes to the worker in frames, which the worker writes to its caller in the framing that
the caller's HTTP has. The caller's address, scheme and request id are those that the worker gives.

Decides the frames of an answer. Must not know the connection that they go over.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

from relay.errors import RelayError
from relay.net.exchange import Exchange
from relay.net.http2_stream import StreamBody
from relay.net.memory_budget import MemoryBudget
from relay.wire.events import CHUNKED, UNTIL_CLOSE, Request, Response
from relay.wire.forwarded import TrustedProxies
from relay.workers import inner_frames as frames

_AT_ONCE: Final = 64 * 1024  # octets of a complete answer that goes in one frame


class Output(Protocol):
    """The connection to the worker."""

    def send(self, octets: bytes) -> None: ...
    def want_body(self, limit: int, owner: str) -> None: ...
    def abort(self) -> None: ...
    @property
    def is_closing(self) -> bool: ...
    @property
    def unsent_octets(self) -> int: ...


class Channel:
    """The transport of one forwarded request's exchange: what is written is payload."""

    __slots__ = ("budget", "output", "peer", "proxies")

    def __init__(self, output: Output, peer: str, budget: MemoryBudget) -> None:
        self.output = output
        self.peer = peer
        self.proxies: TrustedProxies | None = None  # `peer` is the caller
        self.budget = budget

    @property
    def transport(self) -> asyncio.Transport:
        """Itself."""
        return cast(asyncio.Transport, self)

    def closes_after_answer(self) -> bool:
        """Never: the worker decides about its caller's connection."""
        return False

    def write(self, data: bytes) -> None:
        """Send payload."""
        self.output.send(frames.frame(frames.DATA, data))

    def is_closing(self) -> bool:
        """Whether nothing more can be sent."""
        return self.output.is_closing

    def get_write_buffer_size(self) -> int:
        """The octets that wait for the worker."""
        return self.output.unsent_octets

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Nothing is known of the caller's socket here."""
        return default

    def close(self) -> None:
        """Cut the answer behind the octets written."""
        self.output.send(frames.frame(frames.CLOSE))

    def abort(self) -> None:
        """Cut the answer at once."""
        self.output.abort()


class ForwardedExchange(Exchange):
    """See the module."""

    __slots__ = ("_is_secure", "_output", "_wants_body")

    def __init__(self, channel: Channel, head: frames.RequestHead, body_limit: int) -> None:
        """`body_limit` is in octets."""
        request = Request(head.method, head.target, head.path, head.headers, b"", head.length)
        request.http11 = head.http11
        super().__init__(channel, request, body_limit, head.early)
        self.id = head.id
        self.arrived = head.arrived
        self._output: Output = channel.output
        self._is_secure = head.is_secure
        self._wants_body = False
        if self.request_body is not None:
            self.request_body = StreamBody(request.length, body_limit)

    @property
    def is_secure(self) -> bool:
        """As in `Exchange`, of the worker's connection."""
        return self._is_secure

    # --- the request's body ---------------------------------------------------------

    def _ask_for_body(self, owner: str) -> None:
        """The worker collects it, within the same limit."""
        if self.request_body is not None and not self._wants_body:
            self._wants_body = True
            self._output.want_body(self._body_limit, owner)

    def take_body(self, data: bytes) -> None:
        """Take the next octets of the body."""
        if self.request_body is not None:
            self.request_body.feed(data)

    def end_body(self) -> None:
        """The last octet has come."""
        body = self.request_body
        if isinstance(body, StreamBody):
            body.end()

    def fail_body(self, error: RelayError) -> None:
        """The worker cannot collect the body."""
        if self.request_body is not None:
            self.request_body.fail(error)

    # --- the response ---------------------------------------------------------------

    def respond_with(self, status: int, fields: bytes, body: bytes) -> None:
        """As in `Exchange`."""
        self.started = self.ended = True
        self.status = status
        if self.request.method == b"HEAD":
            octets = frames.answer_head(frames.RESPOND_HEAD, status, len(body), fields)
        elif len(body) <= _AT_ONCE:
            octets = frames.response(status, fields, body)
        else:
            octets = frames.answer_head(frames.BEGIN, status, len(body), fields)
            octets += frames.frame(frames.DATA, body) + frames.frame(frames.END)
        self._output.send(octets)

    def respond_head(self, status: int, fields: bytes, length: int) -> None:
        """As in `Exchange`."""
        self.started = self.ended = True
        self.status = status
        self._output.send(frames.answer_head(frames.RESPOND_HEAD, status, length, fields))

    def respond_as_received(self, response: Response, fields: bytes, octets: bytes) -> None:
        """As in `Exchange`."""
        self.respond_with(response.status, fields, octets)

    def begin_stream(self, status: int, fields: bytes, payload: bytes) -> None:
        """As in `Exchange`."""
        self.begin_raw(status, fields, UNTIL_CLOSE, payload)

    def begin_raw(self, status: int, fields: bytes, length: int, octets: bytes = b"") -> None:
        """As in `Exchange`."""
        self.started = True
        self.status = status
        head = frames.answer_head(frames.BEGIN, status, length, fields)
        self._output.send(head + frames.frame(frames.DATA, octets) if octets else head)

    def write(self, data: bytes) -> None:
        """As in `Exchange`."""
        if data:
            self._output.send(frames.frame(frames.DATA, data))

    def payload_writer(self) -> Callable[[bytes], None]:
        """As in `Exchange`."""
        return self.write

    def write_raw(self, data: bytes) -> None:
        """As in `Exchange`."""
        self.write(data)

    def end(self, payload: bytes = b"") -> None:
        """As in `Exchange`."""
        if not self.ended:
            self.ended = True
            last = frames.frame(frames.DATA, payload) if payload else b""
            self._output.send(last + frames.frame(frames.END))

    def end_raw(self, octets: bytes) -> None:
        """As in `Exchange`."""
        self.end(octets)

    def cut(self) -> None:
        """As in `Exchange`."""
        self.ended = self.closing = True
        self._output.send(frames.frame(frames.CUT))

    def passes_framing(self, response: Response) -> bool:
        """As in `Exchange`: frames carry payload."""
        return response.length != CHUNKED

    def still_read(self) -> bool:
        """As in `Exchange`: the worker notices a caller that has left."""
        return True
