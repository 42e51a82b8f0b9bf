"""Which requests a worker serves itself; all others go to the owner, whose answer it passes on.

A worker serves what is relayed to an upstream, and the few paths that need nothing but keys and
settings. The owner's endpoints see a forwarded request as if its caller had come to them. It counts
there, and its line in the access log is there; here it leaves no trace, unless the owner is gone.

Must not know what the other paths are.
"""

from collections.abc import Awaitable
from typing import Final, Protocol

import msgspec

from relay.api.handler import Handler
from relay.api.paths import ALIVE, MODELS, READYZ, RELAYED, REPORTS, V1, below, canonical
from relay.api.router import Endpoint
from relay.errors import OVERLOADED, RelayError
from relay.gateway.context import Outcome, RequestContext
from relay.net.exchange import Exchange
from relay.net.runner import Waiter
from relay.net.server import Server
from relay.wire.events import Request
from relay.workers import inner_frames as frames
from relay.workers.owner_connections import OwnerConnection, OwnerConnections, OwnerGoneError

_GET: Final = (b"GET", b"HEAD")
_POST: Final = (b"POST",)
_OWN: Final = dict.fromkeys(RELAYED, _POST) | dict.fromkeys((MODELS, READYZ, *ALIVE), _GET)
_MAX_EARLY_OCTETS: Final = 64 * 1024  # of a body that goes with its head
_GONE: Final = "The relay cannot answer this now. Try again in a moment."
_RETRY_AFTER: Final = ((b"retry-after", b"1"),)

_encode: Final = msgspec.msgpack.Encoder().encode
_decode_wanted: Final = msgspec.msgpack.Decoder(frames.BodyWanted).decode


class Forwarding:
    """The handler of a worker's server, in front of `handler`."""

    def __init__(
        self, handler: Handler, owner: OwnerConnections, *, shares_ledger: bool = False
    ) -> None:
        """`shares_ledger`: with other machines. The owner knows whether it is there."""
        self._handler = handler
        self._owner = owner
        self._shares_ledger = shares_ledger

    def handle(self, exchange: Exchange) -> Awaitable[None]:
        """Answer one request on every outcome."""
        request = exchange.request
        if self._shares_ledger and request.path == READYZ:
            return self._forward(exchange)
        if request.method in _OWN.get(request.path, ()) or _serves(request):
            return self._handler.handle(exchange)
        return self._forward(exchange)

    async def _forward(self, exchange: Exchange) -> None:
        try:
            await self._pass_on(exchange)
        except OwnerGoneError:
            await self._handler.handle(exchange, _fail)
        except RelayError as error:
            await self._handler.handle(exchange, _refusal(error))

    async def _pass_on(self, exchange: Exchange) -> None:
        """Send the request to the owner, and its answer to the caller.

        Raises:
            OwnerGoneError: the owner is gone; the answer may have begun.
            RelayError: 503, too many requests are forwarded.
        """
        connection = await self._owner.take()
        answer = _Answer(exchange)
        try:
            exchange.source = connection
            if exchange.paused:
                connection.pause()
            connection.begin(answer, frames.frame(frames.REQUEST, _encode(_head(exchange))))
            while (wanted := await answer.next()) is not None:
                await _send_body(exchange, connection, wanted)
        finally:
            exchange.source = None
            self._owner.put(connection, reusable=answer.is_complete)


def _serves(request: Request) -> bool:
    """Whether a worker serves a path with a slip in it, of one object, or with a rare method."""
    path, method = canonical(request.path), request.method
    if method in _OWN.get(path, ()):
        return True
    if method == b"OPTIONS":
        return below(path, V1)
    if method == b"POST":
        return path.startswith(REPORTS)
    return method in _GET and path.startswith(MODELS + b"/")


def _head(exchange: Exchange) -> frames.RequestHead:
    """What the owner has to know of a request."""
    request = exchange.request
    body = exchange.early_body if exchange.request_body is None else b""
    return frames.RequestHead(
        request.method,
        request.target,
        request.path,
        request.headers,
        request.length,
        request.http11,
        exchange.id,
        exchange.peer,
        exchange.is_secure,
        exchange.arrived,
        body if len(body) <= _MAX_EARLY_OCTETS else b"",
    )


async def _send_body(
    exchange: Exchange, connection: OwnerConnection, wanted: frames.BodyWanted
) -> None:
    """Collect the caller's body for the owner's endpoint, whose limit counts."""
    exchange.narrow_body(wanted.limit)
    try:
        body = await exchange.body(wanted.owner)
    except RelayError as error:
        connection.send(frames.frame(frames.BODY_FAILED, _encode(frames.Refusal.of(error))))
        return
    exchange.release_body()
    head = frames.frame_head(frames.BODY, len(body))
    connection.send(head, body, frames.frame(frames.BODY_END))


class _Answer:
    """The owner's answer on its way to the caller: written as it comes."""

    def __init__(self, exchange: Exchange) -> None:
        self.is_complete = False  # the connection can take another request
        self._exchange = exchange
        self._ended = False
        self._lost = False
        self._wanted: frames.BodyWanted | None = None
        self._waiter: Waiter[None] | None = None

    async def next(self) -> frames.BodyWanted | None:
        """Wait until the owner wants the body; None: the answer has ended.

        Raises:
            OwnerGoneError: the owner is gone.
        """
        if not self._ended and not self._lost and self._wanted is None:
            self._waiter = Waiter()
            await self._waiter
        if self._lost:
            raise OwnerGoneError
        wanted, self._wanted = self._wanted, None
        return wanted

    def take_part(self, data: bytes, ends: bool) -> None:
        """Take payload."""
        self._exchange.write(data)

    def take_frame(self, kind: int, payload: bytes) -> None:
        """Take another frame. Raises struct.error: it is none."""
        exchange = self._exchange
        if kind == frames.BODY_WANTED:
            self._wanted = _decode_wanted(payload)
            self._wake()
        elif kind == frames.BEGIN:
            status, length, fields = frames.read_answer_head(payload)
            exchange.begin_raw(status, fields, length)
        else:
            self._end(kind, payload)

    def _end(self, kind: int, payload: bytes) -> None:
        exchange = self._exchange
        if kind == frames.RESPOND:
            exchange.respond_with(*frames.read_response(payload))
        elif kind == frames.RESPOND_HEAD:
            status, length, fields = frames.read_answer_head(payload)
            exchange.respond_head(status, fields, length)
        elif kind == frames.END:
            exchange.end()
        elif kind == frames.CLOSE:
            exchange.close()
        else:
            exchange.cut()
        self._ended = True
        self.is_complete = kind in (frames.RESPOND, frames.RESPOND_HEAD, frames.END)
        self._wake()

    def lose(self) -> None:
        """The owner is gone."""
        self._lost = not self._ended
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done:
            waiter.set_result(None)


async def _fail(ctx: RequestContext) -> None:
    """The endpoint of a request whose owner is gone.

    Raises:
        RelayError: 503, no answer has begun.
    """
    exchange = ctx.exchange
    if not exchange.started:
        raise RelayError(OVERLOADED, _GONE, headers=_RETRY_AFTER)
    ctx.end(Outcome.CUT, "the relay's first process has ended")
    exchange.cut()


def _refusal(error: RelayError) -> Endpoint:
    """The endpoint of a request that is refused here."""

    async def refuse(ctx: RequestContext) -> None:
        raise error

    return refuse


class Serving(Protocol):
    """The parts of a worker's `App` that are used here."""

    server: Server
    handler: Handler


def forward_as_worker(
    app: Serving, owner: OwnerConnections, *, shares_ledger: bool = False
) -> None:
    """Forward what the owner has to answer, from now on."""
    app.server.handler = Forwarding(app.handler, owner, shares_ledger=shares_ledger).handle
