"""A dialect: how one endpoint's requests are read, sent and answered.

Messages passes a request on as the octets that came; chat and Responses are translated to it and
back. The path of a request (`gateway.relay`) is the same for each: a `Dialect` reads a received
body into an `InboundRequest`, which from then on answers every question that depends on the
dialect.
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from relay.errors import ErrorShape, RelayError
from relay.gateway.large_requests import unfolded
from relay.pool.affinity import Binding
from relay.pool.routes import Target
from relay.quota.plans import Plan
from relay.quota.state import KeyState
from relay.store.keys import LiveKey
from relay.translate.messages.request_summary import RequestSummary
from relay.translate.raw_json import NOTHING
from relay.wire.events import Request

if TYPE_CHECKING:
    from relay.gateway.attempt import Answer
    from relay.gateway.context import RequestContext
    from relay.gateway.keepalive import KeepAlive

UpstreamRequest = tuple[bytes | memoryview, ...]
"""A request as it goes to an upstream, in pieces: its head, and its body in one or more."""


class Received:
    """A request as it was received: head, complete body, caller and their plan.

    `original`: the body as it came, where `body` is its mended form (`translate.halves`); else
    empty.
    """

    __slots__ = (
        "body",
        "caller",
        "exchange",
        "head",
        "heavy",
        "original",
        "plan",
        "request_id",
        "summary",
    )

    def __init__(
        self,
        ctx: "RequestContext",
        body: bytes,
        summary: RequestSummary,
        caller: LiveKey,
        plan: Plan,
    ) -> None:
        """Raises RelayError: there is no room for a mended body."""
        self.exchange = ctx.exchange
        self.head: Request = ctx.exchange.request
        self.request_id = ctx.id
        self.heavy = ctx.heavy
        self.body = body
        self.original = b""
        if summary.mended:
            self.body, self.original = summary.mended, body
            ctx.exchange.replace_body(caller.key_id, 2 * len(body))
        self.summary = summary
        self.caller = caller
        self.plan = plan

    @property
    def marks_cache(self) -> bool:
        """Whether prompt-cache marks are set where the caller has set none."""
        return self.plan.cache_breakpoints and self.caller.cache_breakpoints


class UpstreamRefusal(Exception):  # noqa: N818 - an answer, not an error of ours
    """An upstream's own error, for the caller to see: `status`, field lines, document."""

    def __init__(self, status: int, fields: bytes, payload: bytes) -> None:
        super().__init__(f"the upstream answered {status}")
        self.status = status
        self.fields = fields
        self.payload = payload


class InboundRequest(ABC):
    """One request as its dialect has read it.

    `dialect` is the name in the journal. `counting`: it only counts tokens. `reads_answers`: the
    answer is decoded and written anew, so it must come unencoded and in the form asked for.
    `ends_failed_streams`: an error is a regular end of a stream; where it is not, the connection
    is cut after the error. `kept_octets`: of the request, in memory after `release`.
    `thread`: of the Messages API, where the request has one.
    """

    dialect: ClassVar[str]
    error_shape: ClassVar[ErrorShape]
    counting: bool = False
    kept_octets: int = 0
    thread: msgspec.Raw = NOTHING
    reads_answers: ClassVar[bool] = True
    ends_failed_streams: ClassVar[bool] = False

    model: str
    stream: bool
    max_tokens: Any  # Messages passes on whatever the caller wrote

    # --- the request ---

    @abstractmethod
    def estimated_text(self) -> bytes:
        """The octets that the estimate of a prompt is made from, kept turns included."""

    @abstractmethod
    def conversation_key(self) -> bytes | None:
        """Which conversation of its caller it belongs to, if that can be seen."""

    @abstractmethod
    def caches_for_an_hour(self) -> bool:
        """Whether its prompt cache lives for an hour, not five minutes."""

    @abstractmethod
    def upstream_request(self, target: Target, binding: Binding | None) -> UpstreamRequest:
        """The Messages request for one upstream.

        `binding`: whose thinking is in the conversation's history.

        Raises:
            RelayError: 400, the model cannot do what is asked.
        """

    @abstractmethod
    def release(self) -> None:
        """Let everything go that only another attempt would need: the answer has content.

        For a large request it is called on a thread.
        """

    # --- the answer ---

    @abstractmethod
    def read_document(self, ctx: "RequestContext", answer: "Answer") -> None:
        """Read a complete answer, where `reads_answers`, so that another upstream can still give
        it.

        Raises:
            ValueError: it cannot be read.
        """

    @abstractmethod
    def respond(
        self, ctx: "RequestContext", answer: "Answer", keep_alive: "KeepAlive | None"
    ) -> Awaitable[None]:
        """Pass an answer on that has begun; note its usage and how it ended.

        Raises:
            RelayError: it came to nothing before the caller had an octet of it.
        """

    def limit_fields(self, key_state: KeyState, now: float) -> bytes:
        """Field lines that only the clients of this dialect read."""
        return b""

    @abstractmethod
    def keep_alive(self) -> bytes:
        """An event that shows life in a silent stream."""

    @abstractmethod
    def error_event(self, error: RelayError) -> bytes:
        """The event that ends a stream which has begun, with an error."""

    @abstractmethod
    def refusal_event(self, refusal: UpstreamRefusal) -> bytes:
        """The same for an upstream's own error."""

    @abstractmethod
    def refusal_response(self, refusal: UpstreamRefusal) -> tuple[int, bytes, bytes]:
        """Status, field lines and body of the answer to an upstream's own error."""


class Dialect(ABC):
    """How the requests of one endpoint are read.

    `counting`: they only count tokens. `reads_bodies`: more is read of each body than `peek` has.
    """

    reads_bodies: ClassVar[bool] = True

    def __init__(self, *, counting: bool = False) -> None:
        self.counting = counting

    def limit_fields(self, key_state: KeyState, now: float) -> bytes:
        """Field lines for a request that is refused before it is read, for clients of this
        dialect alone."""
        return b""

    async def decoded(self, head: Request, body: bytes, limit: int, key: str) -> bytes:
        """The body of a key's request that came with a content-encoding, at most `limit` octets.

        Raises:
            RelayError: 400, 413 or 415.
        """
        return await unfolded(key, body, head.headers[b"content-encoding"], limit)

    @abstractmethod
    async def read(self, received: Received) -> InboundRequest:
        """Read a request whose model is known.

        Raises:
            RelayError: 400, something in it cannot be honoured; its `param` names the field.
        """


History = Sequence[msgspec.Raw]
"""The items of a conversation that a request goes on from, the oldest first."""
