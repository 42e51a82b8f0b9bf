"""The Responses dialect: `POST /v1/responses` and its two relatives, translated both ways.

A request may go on from a response that is kept here; whether and where answers are kept is the
operator's choice (`gateway.history`).
"""

import dataclasses
import time
from collections.abc import Mapping
from functools import partial
from typing import ClassVar, Final

import msgspec

from relay.errors import ErrorShape, RelayError
from relay.gateway.attempt import Answer
from relay.gateway.context import RequestContext
from relay.gateway.counted_fields import CountedFields
from relay.gateway.dialect import Dialect, Received
from relay.gateway.history import ConversationHistory
from relay.gateway.large_requests import LARGE_OCTETS, in_turns
from relay.gateway.translated import StreamTranslator, TranslatedRequest
from relay.quota.rate_limit_fields import codex_lines
from relay.quota.state import KeyState
from relay.store.responses import StoredResponse
from relay.translate.messages.usage import Usage
from relay.translate.pacing import free, paced
from relay.translate.request.builder import MessagesBuilder, TargetModel
from relay.translate.responses import answer, request
from relay.translate.responses.answer import EmptySummaryError
from relay.translate.responses.render import AnswerMetadata
from relay.translate.responses.seal import Seal
from relay.translate.responses.stream import ResponsesStream

_ITEM_OVERHEAD_OCTETS: Final = 64  # of an object of its own
_TURN_STATE: Final = b"x-codex-turn-state"


_counted: Final = msgspec.json.Decoder(CountedFields).decode


def _octets_of(item: msgspec.Raw) -> int:
    return _ITEM_OVERHEAD_OCTETS + len(memoryview(item))


class _Kept:
    """The kept parts of a request's conversation: the turns before it, and the items, by id, that
    its input refers to."""

    __slots__ = ("history", "items", "octets")

    def __init__(self, history: list[msgspec.Raw], items: Mapping[str, msgspec.Raw]) -> None:
        self.history = history
        self.items = items
        self.octets = sum(map(_octets_of, (*history, *items.values()))) if history or items else 0


class ResponsesRequest(TranslatedRequest):
    """One request, `POST /v1/responses`."""

    __slots__ = (
        "_answer",
        "_conversations",
        "_items",
        "_kept_items",
        "_metadata",
        "_output",
        "_owner",
        "_previous",
        "_referenced",
        "_request_id",
        "_stream",
        "_turn_state",
        "kept_octets",
    )

    dialect: ClassVar[str] = "responses"
    error_shape: ClassVar[ErrorShape] = ErrorShape.RESPONSES
    ends_failed_streams: ClassVar[bool] = True

    def __init__(
        self,
        received: Received,
        parsed: request.ResponsesRequest,
        seal: Seal,
        kept: _Kept,
        conversations: ConversationHistory | None = None,
    ) -> None:
        """`conversations`: where its answer is stored, None for nowhere."""
        super().__init__(
            received, parsed.builder, stream=parsed.stream, user=parsed.user, history=kept.history
        )
        self._referenced = tuple(kept.items.values())
        headers = received.head.headers
        self.stores_answer = parsed.stored and conversations is not None
        self._conversations = conversations
        self._owner = received.caller.user_id
        self._previous = parsed.previous_response_id
        self._items = parsed.items
        self._kept_items: list[bytes] = []
        self._request_id = received.request_id
        self._turn_state = headers.get(_TURN_STATE)
        self._metadata = AnswerMetadata(
            "resp_" + received.request_id.removeprefix("req_"),
            int(time.time()),
            time.time,
            parsed.echo,
            parsed.tools,
            parsed.summarizes_thinking,
            seal,
            refusal_as_text=headers.get(b"originator", b"").startswith(b"codex"),
        )
        self.kept_octets = 0
        self._stream: ResponsesStream | None = None
        self._answer = b""
        self._output: list[bytes] = []

    def request_id(self) -> bytes:
        """See `TranslatedRequest`."""
        return self._request_id.encode()

    def estimated_text(self) -> bytes:
        """See `InboundRequest`. The items that it refers to are a part of the prompt, too."""
        text = super().estimated_text()
        return b"".join((text, *self._referenced)) if self._referenced else text

    def release(self) -> None:
        """See `InboundRequest`. The items stay where the answer is to be kept with them."""
        super().release()
        self._referenced = ()
        items, self._items = self._items, []
        kept = 0
        if self.stores_answer:
            # Copies: an item as it was read refers to the body.
            self._kept_items = [bytes(item) for item in paced(items)]
            kept = sum([_ITEM_OVERHEAD_OCTETS + len(item) for item in paced(self._kept_items)])
        self.kept_octets = len(self._metadata.echo) + kept
        free(items)

    def document(self, payload: bytes, target_model: TargetModel, usage: Usage) -> bytes:
        """See `TranslatedRequest`."""
        self._answer, self._output = answer.translate(
            payload, self._metadata, target_model.family, usage
        )
        return self._answer

    def translator(self, target_model: TargetModel) -> StreamTranslator:
        """See `TranslatedRequest`."""
        stream = self._one_stream()
        stream.family = target_model.family
        return stream

    def keep_alive(self) -> bytes:
        """See `InboundRequest`."""
        return self._one_stream().keep_alive()

    def error_event(self, error: RelayError) -> bytes:
        """See `InboundRequest`."""
        return self._one_stream().fail(error)

    def limit_fields(self, key_state: KeyState, now: float) -> bytes:
        """See `InboundRequest`."""
        shown = codex_lines(key_state, now)
        if self._turn_state is not None:  # Codex sends the same within a turn, and wants it back
            shown += b"%b: %b\r\n" % (_TURN_STATE, self._turn_state)
        return shown

    async def keep(self) -> None:
        """See `TranslatedRequest`."""
        assert self._conversations is not None
        if self._stream is not None:
            self._answer, self._output = self._stream.answer, self._stream.output
        await self._conversations.keep(
            StoredResponse(
                self._metadata.id,
                self._owner,
                self._previous,
                time.time(),
                self._answer,
                self._kept_items,
                [*self._output],
            )
        )

    def _one_stream(self) -> ResponsesStream:
        """The stream of this request: a keep-alive or an answer's head may open it."""
        if self._stream is None:
            self._stream = ResponsesStream(self._metadata)
        return self._stream


class InputTokensRequest(ResponsesRequest):
    """`POST /v1/responses/input_tokens`: how many tokens a request has."""

    __slots__ = ()

    def __init__(
        self, received: Received, parsed: request.ResponsesRequest, seal: Seal, kept: _Kept
    ) -> None:
        super().__init__(received, parsed, seal, kept)
        self.counting = True

    def messages_body(self, builder: MessagesBuilder, target_model: TargetModel) -> bytes:
        """See `TranslatedRequest`."""
        return builder.octets(target_model, breakpoints=self._marks_cache, user=None, counting=True)

    def document(self, payload: bytes, target_model: TargetModel, usage: Usage) -> bytes:
        """See `TranslatedRequest`."""
        try:
            count = _counted(payload).input_tokens
        except msgspec.MsgspecError as failed:
            raise ValueError(str(failed)) from None
        return b'{"object":"response.input_tokens","input_tokens":%d}' % count


class CompactionRequest(ResponsesRequest):
    """`POST /v1/responses/compact`: a conversation made short enough to go on from."""

    __slots__ = ("_user_messages",)

    def __init__(
        self,
        received: Received,
        parsed: request.ResponsesRequest,
        seal: Seal,
        kept: _Kept,
    ) -> None:
        super().__init__(received, parsed, seal, kept)
        # They are part of the answer. To read them takes long, which must not be on the loop.
        self._user_messages = answer.user_messages(self._items, self._metadata)

    def release(self) -> None:
        """See `InboundRequest`."""
        super().release()
        self.kept_octets = sum(map(len, self._user_messages))

    def read_document(self, ctx: RequestContext, answer: Answer) -> None:
        """See `InboundRequest`. An answer without a text is no failure of its upstream: a prompt
        can ask for it, so it is charged, whether or not another upstream gives a better one."""
        try:
            super().read_document(ctx, answer)
        except EmptySummaryError:
            ctx.admission.count_unusable(answer.usage)
            raise

    def document(self, payload: bytes, target_model: TargetModel, usage: Usage) -> bytes:
        """See `TranslatedRequest`."""
        return answer.compacted(payload, self._metadata, self._user_messages, usage)


class Responses(Dialect):
    """Reads requests of `POST /v1/responses`."""

    def __init__(self, key: bytes, history: ConversationHistory) -> None:
        """`key` seals state that callers carry from turn to turn: 32 octets, the same for good."""
        super().__init__()
        self._key = key
        self._conversations = history

    def limit_fields(self, key_state: KeyState, now: float) -> bytes:
        """See `Dialect`: Codex CLI shows the windows of the plan."""
        return codex_lines(key_state, now)

    async def read(self, received: Received) -> ResponsesRequest:
        """See `Dialect`. Raises RelayError as well where a response it goes on from is gone."""
        kept = _Kept(await self._history(received), await self._referenced(received))
        received.heavy = received.heavy or kept.octets > LARGE_OCTETS
        work = partial(self._read, received, Seal(self._key, received.caller.user_id), kept)
        return await in_turns(received.caller.key_id, work) if received.heavy else work()

    def _read(self, received: Received, seal: Seal, kept: _Kept) -> ResponsesRequest:
        """The request, with what is kept of its conversation."""
        storing = self._conversations.keeps(len(received.body) + kept.octets)
        parsed = request.read(
            received.body, seal, before=kept.history, kept=kept.items, storing=storing
        )
        conversations = self._conversations if storing else None
        return ResponsesRequest(received, parsed, seal, kept, conversations)

    async def _referenced(self, received: Received) -> Mapping[str, msgspec.Raw]:
        """The kept items that a request refers to, by id."""
        find = partial(request.referenced_items, received.body)
        ids = await in_turns(received.caller.key_id, find) if received.heavy else find()
        if not ids:
            return {}
        items = await self._conversations.items(received.caller.user_id, ids)
        received.exchange.hold(received.caller.key_id, sum(map(_octets_of, items.values())))
        return items

    async def _history(self, received: Received) -> list[msgspec.Raw]:
        """The conversation that a request goes on from."""
        find = partial(request.previous_response_id, received.body)
        previous = await in_turns(received.caller.key_id, find) if received.heavy else find()
        if previous is None:
            return []
        items = await self._conversations.conversation_up_to(received.caller.user_id, previous)
        received.exchange.hold(received.caller.key_id, sum(map(_octets_of, items)))
        return items


class InputTokens(Responses):
    """Reads requests of `POST /v1/responses/input_tokens`."""

    def __init__(self, key: bytes, history: ConversationHistory) -> None:
        super().__init__(key, history)
        self.counting = True

    def _read(self, received: Received, seal: Seal, kept: _Kept) -> ResponsesRequest:
        """See `Responses`."""
        parsed = request.read(received.body, seal, before=kept.history, kept=kept.items)
        parsed = dataclasses.replace(parsed, stream=False)
        return InputTokensRequest(received, parsed, seal, kept)


class Compaction(Responses):
    """Reads requests of `POST /v1/responses/compact`."""

    def _read(self, received: Received, seal: Seal, kept: _Kept) -> ResponsesRequest:
        """See `Responses`."""
        parsed = request.read_compaction(received.body, seal, before=kept.history, kept=kept.items)
        return CompactionRequest(received, parsed, seal, kept)
