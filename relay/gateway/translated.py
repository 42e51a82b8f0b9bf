"""An answer written anew in another dialect than the one it came in, and its request likewise.

Chat and Responses share this: their requests are read once into a `MessagesBuilder`, which writes
the Messages request for each upstream; their answers are decoded and written event by event, or as
one document. The octets that end an answer go out once it is known to be complete, and on disk.
"""

import re
from abc import abstractmethod
from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b
from typing import ClassVar, Final, Protocol

from relay.errors import BAD_UPSTREAM, RelayError
from relay.gateway.attempt import Answer
from relay.gateway.context import RequestContext
from relay.gateway.dialect import (
    History,
    InboundRequest,
    Received,
    UpstreamRefusal,
    UpstreamRequest,
)
from relay.gateway.error_words import ErrorWords
from relay.gateway.keepalive import UNBUFFERED, UNCACHED, KeepAlive
from relay.gateway.respond import (
    StreamResponder,
    answer_fields,
    end_failed,
    note_end,
    note_usage,
    pass_stream,
    respond_events,
)
from relay.net.upstream.body import ResponseBody
from relay.net.upstream.transcode import Transcode
from relay.pool.affinity import Binding
from relay.pool.routes import Target
from relay.translate.messages.conversation_key import conversation_key, uses_one_hour_cache
from relay.translate.messages.error_document import caller_error
from relay.translate.messages.usage import NoTap, Usage
from relay.translate.request.builder import MessagesBuilder, TargetModel

# Field lines of a caller's head that mean nothing to the Messages API, or something else. All
# others go on, as they do for Messages.
_CALLERS_FIELDS: Final = re.compile(
    rb"^(?:accept|content-type|content-encoding|anthropic-version|originator|session-id|thread-id"
    rb"|x-client-request-id|(?:openai|x-openai|x-codex|x-stainless)-[^:\r\n]*):[^\n]*\n",
    re.IGNORECASE | re.MULTILINE,
)
_FIELDS: Final = b"content-type: application/json\r\nanthropic-version: %b\r\n"
_MAX_KNOWN: Final = 256  # heads without those lines: a client sends the same ones again and again
_MAX_KNOWN_OCTETS: Final = 4096  # of each
_VERSION: Final = b"2023-06-01"
_VERSION_WITH_SYSTEM_TURNS: Final = b"2026-10-21"  # the first that has them without a beta
_RETRY_FIELDS: Final = re.compile(
    rb"^(?:retry-after(?:-ms)?|x-should-retry):[^\n]*\n", re.MULTILINE
)
_DOCUMENT: Final = b"content-type: application/json\r\nx-request-id: %b\r\n"
_STREAM: Final = (
    b"content-type: text/event-stream; charset=utf-8\r\nx-request-id: %b\r\n"
    + UNBUFFERED
    + UNCACHED
)
_UNTRANSLATABLE: Final = "The model's upstream sent an answer that cannot be translated. Try again."


class StreamTranslator(Protocol):
    """Makes the caller's stream of the upstream's; see `translate.chat.stream`."""

    usage: Usage
    error_of: Callable[[bytes], RelayError]

    def feed(self, data: bytes) -> bytes: ...
    def finish(self) -> bytes: ...


class TranslatedRequest(InboundRequest):
    """A request that is written anew for each upstream.

    `stores_answer`: its answer is stored before its end is sent.
    """

    __slots__ = (
        "_body",
        "_builder",
        "_head",
        "_history",
        "_marks_cache",
        "_user",
        "max_tokens",
        "model",
        "stores_answer",
        "stream",
    )

    reads_answers: ClassVar[bool] = True

    def __init__(
        self,
        received: Received,
        builder: MessagesBuilder,
        *,
        stream: bool,
        user: str | None,
        history: History = (),
    ) -> None:
        """`user`: the caller's own user, by the caller's name; `history`: kept turns."""
        self.model: str = received.summary.model
        self.stream = stream
        self.max_tokens = builder.max_tokens
        self.stores_answer = False
        self._head = received.head
        self._body = received.body
        self._history = history
        self._builder: MessagesBuilder | None = builder
        self._marks_cache = received.marks_cache
        self._user: str | None = None
        if user is not None:
            # Upstreams want an id that stays the same; the person is no business of theirs.
            key = received.caller.key_id.encode()[:64]
            digest = blake2b(user.encode("utf-8", "surrogatepass"), key=key)
            self._user = digest.hexdigest()[:32]

    # --- the request ---

    def estimated_text(self) -> bytes:
        """See `InboundRequest`."""
        return b"".join((self._body, *self._history)) if self._history else self._body

    def conversation_key(self) -> bytes | None:
        """See `InboundRequest`."""
        return conversation_key(self._head.headers, self._body, self._history)

    def caches_for_an_hour(self) -> bool:
        """See `InboundRequest`."""
        return uses_one_hour_cache(self._body)

    def upstream_request(self, target: Target, binding: Binding | None) -> UpstreamRequest:
        """See `InboundRequest`."""
        builder = self._builder
        assert builder is not None
        body = self.messages_body(builder, target.target_model)
        version = _VERSION_WITH_SYSTEM_TURNS if builder.system_turns else _VERSION
        onward = self._head.onward
        known = len(onward) <= _MAX_KNOWN_OCTETS
        fields = _known_fields(onward, version) if known else _fields(onward, version)
        return target.upstream.messages_head(fields, len(body), counting=self.counting), body

    def messages_body(self, builder: MessagesBuilder, target_model: TargetModel) -> bytes:
        """The body of the Messages request for a model as one upstream has it.

        Raises:
            RelayError: 400, that model cannot do what is asked.
        """
        return builder.octets(target_model, breakpoints=self._marks_cache, user=self._user)

    def release(self) -> None:
        """See `InboundRequest`."""
        builder, self._builder = self._builder, None
        if builder is not None:
            builder.free()
        self._body = b""
        self._history = ()

    # --- the answer ---

    async def respond(
        self, ctx: RequestContext, answer: Answer, keep_alive: KeepAlive | None
    ) -> None:
        """See `InboundRequest`."""
        if answer.body is not None:
            responder = TranslatedStream(ctx, self, answer, answer.body, keep_alive)
            await pass_stream(ctx, answer, responder)
        elif answer.events:
            await self._respond_events(ctx, answer, keep_alive)
        else:
            await self._respond_document(ctx, answer)

    def read_document(self, ctx: RequestContext, answer: Answer) -> None:
        """See `InboundRequest`. The document takes the place of the answer's octets."""
        target = answer.lease.target
        note_usage(ctx, target, answer.usage)
        try:
            answer.octets = self.document(answer.payload, target.target_model, answer.usage)
        except ValueError:
            ctx.reported, ctx.served_model = None, ""
            raise

    async def _respond_document(self, ctx: RequestContext, answer: Answer) -> None:
        exchange, target = ctx.exchange, answer.lease.target
        if self.stores_answer:
            await self.keep()
        ctx.admission.count(answer.usage)
        await ctx.admission.durable()
        fields = answer_fields(ctx, answer, _DOCUMENT % exchange.id)
        exchange.respond_with(200, fields, answer.octets)
        note_end(ctx, target, error=False)

    async def _respond_events(
        self, ctx: RequestContext, answer: Answer, keep_alive: KeepAlive | None
    ) -> None:
        """Answer with a stream that is here as a whole."""
        if keep_alive is not None:
            keep_alive.stop()
        target = answer.lease.target
        translator = self.translator(target.target_model)
        try:
            octets = translator.feed(answer.events)
        except ValueError:
            raise RelayError(BAD_UPSTREAM, _UNTRANSLATABLE) from None
        note_usage(ctx, target, translator.usage)
        octets += translator.finish()
        if self.stores_answer:
            await self.keep()
        ctx.admission.count(translator.usage)
        await ctx.admission.durable()
        respond_events(ctx, answer_fields(ctx, answer, _STREAM % ctx.exchange.id), octets)
        note_end(ctx, target, error=False)

    @abstractmethod
    def document(self, payload: bytes, target_model: TargetModel, usage: Usage) -> bytes:
        """A complete answer in the caller's dialect; `usage` is what it used.

        Raises:
            ValueError: `payload` is none.
        """

    @abstractmethod
    def translator(self, target_model: TargetModel) -> StreamTranslator:
        """The translator of the upstream's stream."""

    async def keep(self) -> None:
        """Keep the answer, which is complete. Most have nothing to keep.

        Raises:
            RelayError: that could not be done.
        """

    def refusal_event(self, refusal: UpstreamRefusal) -> bytes:
        """See `InboundRequest`."""
        return self.error_event(caller_error(refusal.status, refusal.payload)[1])

    def refusal_response(self, refusal: UpstreamRefusal) -> tuple[int, bytes, bytes]:
        """See `InboundRequest`."""
        status, error = caller_error(refusal.status, refusal.payload)
        retry = b"".join(_RETRY_FIELDS.findall(refusal.fields))
        fields = retry + _DOCUMENT % self.request_id()
        return status, fields, error.body(self.error_shape)

    @abstractmethod
    def request_id(self) -> bytes:
        """The id of this request, as `x-request-id` has it."""


def _fields(onward: bytes, version: bytes) -> bytes:
    """The field lines of an upstream's request, made of the caller's."""
    return _FIELDS % version + _CALLERS_FIELDS.sub(b"", onward)


_known_fields: Final = lru_cache(maxsize=_MAX_KNOWN)(_fields)


class TranslatedStream(StreamResponder):
    """A stream translated as it comes."""

    __slots__ = ("_ctx", "_fields", "_flow", "_inbound", "_keep_alive", "_translator")

    def __init__(
        self,
        ctx: RequestContext,
        inbound: TranslatedRequest,
        answer: Answer,
        body: ResponseBody,
        keep_alive: KeepAlive | None,
    ) -> None:
        self._ctx = ctx
        self._inbound = inbound
        self._keep_alive = keep_alive
        target = answer.lease.target
        self._translator = inbound.translator(target.target_model)
        self._translator.error_of = ErrorWords(target).error_of
        self._flow = Transcode(ctx.exchange, body, NoTap(), self._translator.feed)
        if keep_alive is not None:
            keep_alive.follow(self._flow, self._flow)
        self._fields = answer_fields(ctx, answer, _STREAM % ctx.exchange.id)

    async def join(self) -> None:
        """See `StreamResponder`."""
        await self._flow.convert(self._fields)

    def usage(self) -> Usage:
        """See `StreamResponder`."""
        return self._translator.usage

    def supply_end(self) -> None:
        """Nothing: the end is the translator's own."""

    async def end(self, usage: Usage) -> None:
        """See `StreamResponder`."""
        if usage.error:  # the error is written, and nothing may look as if it were complete
            end_failed(self._ctx, b"")
            return
        if self._keep_alive is not None:  # no keep-alive may come between the end and its counts
            self._keep_alive.stop()
        ending = self._translator.finish()
        if self._inbound.stores_answer:
            await self._inbound.keep()
        self._ctx.exchange.end(ending)

    def cut(self, error: RelayError) -> None:
        """See `StreamResponder`."""
        end_failed(self._ctx, self._inbound.error_event(error))

    def fail(self, error: RelayError) -> None:
        """See `StreamResponder`."""
        end_failed(self._ctx, self._inbound.error_event(error))

    def counts(self, usage: Usage, cut: bool) -> bool:
        """It reported usage or a model, and something of it was passed on."""
        if not self._flow.started:
            return False
        return usage.model is not None or usage.stated or usage.passed > 0

    @property
    def reusable(self) -> bool:
        """See `StreamResponder`."""
        return self._flow.reusable
