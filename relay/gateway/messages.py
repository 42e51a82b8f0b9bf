"""The Messages dialect, which upstreams speak themselves: octets in, the same octets out.

Decides which octets of a request must differ for one upstream: the model's name, and thinking that
another family of models has signed.
"""

from collections.abc import Awaitable
from typing import TYPE_CHECKING, ClassVar

import orjson

from relay.errors import BAD_UPSTREAM, UNKNOWN_ENCODING, ErrorShape, RelayError
from relay.gateway.dialect import (
    Dialect,
    InboundRequest,
    Received,
    UpstreamRefusal,
    UpstreamRequest,
)
from relay.gateway.passthrough import pass_on
from relay.pool.affinity import Binding
from relay.pool.routes import Target
from relay.translate.messages.conversation_key import conversation_key, uses_one_hour_cache
from relay.translate.messages.peek import around_model
from relay.translate.messages.thinking_filter import without_thinking
from relay.wire.events import Request

if TYPE_CHECKING:
    from relay.gateway.attempt import Answer
    from relay.gateway.context import RequestContext
    from relay.gateway.keepalive import KeepAlive

PING = b'event: ping\ndata: {"type": "ping"}\n\n'


class MessagesRequest(InboundRequest):
    """`POST /v1/messages`, or `count_tokens`."""

    __slots__ = (
        "_received",
        "_without_thinking",
        "counting",
        "max_tokens",
        "model",
        "stream",
        "thread",
    )

    dialect: ClassVar[str] = "messages"
    error_shape: ClassVar[ErrorShape] = ErrorShape.MESSAGES
    reads_answers: ClassVar[bool] = False

    def __init__(self, received: Received, *, counting: bool) -> None:
        summary = received.summary
        self.model = summary.model
        self.stream = summary.stream is True
        self.max_tokens = summary.max_tokens
        self.counting = counting
        self.thread = summary.thread
        self._received = received
        self._without_thinking: bytes | None = None

    def estimated_text(self) -> bytes:
        """See `InboundRequest`."""
        return self._received.body

    def conversation_key(self) -> bytes | None:
        """See `InboundRequest`."""
        return conversation_key(self._received.head.headers, self._received.body)

    def caches_for_an_hour(self) -> bool:
        """See `InboundRequest`."""
        return uses_one_hour_cache(self._received.body)

    def upstream_request(self, target: Target, binding: Binding | None) -> UpstreamRequest:
        """The caller's own octets, but for those that must differ."""
        body, original = self._received.body, self._received.original
        family = target.upstream.vendor.thinking
        if binding is not None and (binding.mixed or binding.family != family):
            if self._without_thinking is None:  # this family would refuse the signatures
                self._without_thinking = without_thinking(body)
            body = self._without_thinking
        # Where the price depends on the name, no second spelling of it may go upstream.
        if target.model is not None or self._received.plan.prepaid:
            source = original if body is self._received.body else b""
            beginning, rest = around_model(body, target.model or self.model, source)
            head = target.upstream.head(self._received.head, len(beginning) + len(rest))
            return head, beginning, rest
        if original and body is self._received.body:
            body = original
        return target.upstream.head(self._received.head, len(body)), body

    def release(self) -> None:
        """See `InboundRequest`."""
        self._received.body = self._received.original = b""
        self._without_thinking = None

    def read_document(self, ctx: "RequestContext", answer: "Answer") -> None:
        """Nothing: the octets are passed on."""

    def respond(
        self, ctx: "RequestContext", answer: "Answer", keep_alive: "KeepAlive | None"
    ) -> Awaitable[None]:
        """See `InboundRequest`."""
        return pass_on(ctx, answer, keep_alive)

    def keep_alive(self) -> bytes:
        """`event: ping`, which the Messages API sends itself and SDKs skip anywhere."""
        return PING

    def error_event(self, error: RelayError) -> bytes:
        """See `InboundRequest`."""
        return error.event(ErrorShape.MESSAGES, self._received.request_id)

    def refusal_event(self, refusal: UpstreamRefusal) -> bytes:
        """The upstream's own document as an event, word for word."""
        try:
            document = orjson.loads(refusal.payload)
        except orjson.JSONDecodeError:
            document = None
        if not isinstance(document, dict) or not isinstance(document.get("error"), dict):
            error = RelayError(BAD_UPSTREAM, f"The model's upstream answered {refusal.status}.")
            return self.error_event(error)
        document.setdefault("type", "error")
        return b"event: error\ndata: " + orjson.dumps(document) + b"\n\n"

    def refusal_response(self, refusal: UpstreamRefusal) -> tuple[int, bytes, bytes]:
        """The upstream's own answer, word for word."""
        return refusal.status, refusal.fields, refusal.payload


class Messages(Dialect):
    """Reads requests of `POST /v1/messages` and `POST /v1/messages/count_tokens`."""

    reads_bodies: ClassVar[bool] = False

    async def decoded(self, head: Request, body: bytes, limit: int, key: str) -> bytes:
        """Only `identity`: a body that goes upstream as it came is not unfolded."""
        if head.headers[b"content-encoding"].lower() != b"identity":
            raise RelayError(
                UNKNOWN_ENCODING,
                "Bodies go upstream as they come, and the Messages API takes no "
                "content-encoding: send the body as it is.",
            )
        return body

    async def read(self, received: Received) -> MessagesRequest:
        """Nothing more is read than `peek` has."""
        return MessagesRequest(received, counting=self.counting)
