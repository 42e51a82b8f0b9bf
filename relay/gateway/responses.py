"""A Responses request on its way through the gateway, and its two relatives.

A request may go on from a response that is kept here; what it says of itself, and where answers
are kept, is the operator's choice (`stored`).
"""

import time
from dataclasses import replace
from typing import Final

import msgspec

from relay.api.stored_responses import StoredResponses
from relay.errors import Dialect, RelayError
from relay.gateway.dialect import InboundRequest, StreamTranslator, Translation
from relay.quota.rate_limit_fields import codex_lines
from relay.quota.state import KeyState
from relay.translate.messages.usage import Usage
from relay.translate.request.builder import TargetModel
from relay.translate.responses import answer, request
from relay.translate.responses.render import AnswerMetadata
from relay.translate.responses.seal import Seal
from relay.translate.responses.stream import ResponsesStream

_TURN_STATE: Final = b"x-codex-turn-state"


class _Counted(msgspec.Struct, frozen=True):
    input_tokens: int


_counted = msgspec.json.Decoder(_Counted).decode


class Responses(Translation):
    """One request, `POST /v1/responses`."""

    name = "responses"
    dialect = Dialect.RESPONSES
    ends_failed = True

    def __init__(
        self,
        asking: InboundRequest,
        asked: request.ResponsesRequest,
        seal: Seal,
        before: list[msgspec.Raw],
        stored: StoredResponses | None = None,
    ) -> None:
        """`before`: the conversation that it goes on from; `stored`: where its answer is kept."""
        super().__init__(asking, asked.user)
        self._owner = asking.caller.user_id
        self._asked = asked
        self._draft = asked.builder
        self.stream = asked.stream
        self._stored = stored
        self.keeps = asked.stored and stored is not None
        self._turn_state = asking.head.headers.get(_TURN_STATE)
        id = "resp_" + asking.request_id.removeprefix("req_")
        self._told = AnswerMetadata(
            id,
            int(time.time()),
            time.time,
            asked.echo,
            asked.tools,
            asked.summarizes_thinking,
            seal,
            refusal_as_text=asking.head.headers.get(b"originator", b"").startswith(b"codex"),
        )
        self._before = before
        self._stream: ResponsesStream | None = None
        self._answer = b""
        self._output: list[bytes] = []

    @property
    def _spoken(self) -> ResponsesStream:
        """The one stream of this request, whoever speaks in it first."""
        if self._stream is None:
            self._stream = ResponsesStream(self._told)
        return self._stream

    def whole(self, payload: bytes, fit: TargetModel, usage: Usage) -> bytes:
        self._answer, self._output = answer.translate(payload, self._told, fit.family, usage)
        return self._answer

    def machine(self, fit: TargetModel) -> StreamTranslator:
        self._spoken.family = fit.family
        return self._spoken

    def keep_alive(self) -> bytes:
        return self._spoken.keep_alive()

    def failed(self, error: RelayError) -> bytes:
        return self._spoken.fail(error)

    def lines(self, holder: KeyState, now: float) -> bytes:
        told = codex_lines(holder, now)
        if self._turn_state is not None:  # Codex sends the same within a turn, and wants it back
            told += b"%b: %b\r\n" % (_TURN_STATE, self._turn_state)
        return told

    @property
    def before(self) -> list[msgspec.Raw]:
        return self._before

    async def keep(self) -> None:
        assert self._stored is not None
        if self._stream is not None:
            self._answer, self._output = self._stream.answer, self._stream.output
        asked = self._asked
        await self._stored.keep(
            self._told.id,
            self._owner,
            asked.previous_response_id,
            self._answer,
            asked.items,
            self._output,
        )


class InputTokens(Responses):
    """`POST /v1/responses/input_tokens`: how many tokens a request has."""

    def octets(self, fit: TargetModel) -> bytes:
        return self._draft.octets(fit, breakpoints=self._breakpoints, user=None, counting=True)

    def whole(self, payload: bytes, fit: TargetModel, usage: Usage) -> bytes:
        try:
            count = _counted(payload).input_tokens
        except msgspec.MsgspecError as failed:
            raise ValueError(str(failed)) from None
        return b'{"object":"response.input_tokens","input_tokens":%d}' % count


class Compaction(Responses):
    """`POST /v1/responses/compact`: a conversation made short enough to go on from."""

    def whole(self, payload: bytes, fit: TargetModel, usage: Usage) -> bytes:
        return answer.compacted(payload, self._told, self._asked.items, usage)


class ResponsesReader:
    """Reads requests of this dialect."""

    def __init__(self, key: bytes, stored: StoredResponses) -> None:
        """`key` seals what callers carry from turn to turn: 32 octets, the same for good."""
        self._key = key
        self._stored = stored

    async def responses(self, asking: InboundRequest) -> Responses:
        """Read a request.

        Raises:
            RelayError: 400, something cannot be honoured, or what it goes on from is not here.
        """
        seal, before = self._seal(asking), await self._before(asking)
        storing = self._stored.on
        asked = request.read(asking.body, seal, before=before, storing=storing)
        return Responses(asking, asked, seal, before, self._stored if storing else None)

    async def input_tokens(self, asking: InboundRequest) -> InputTokens:
        """The same for one that asks how many tokens it has."""
        seal, before = self._seal(asking), await self._before(asking)
        asked = request.read(asking.body, seal, before=before)
        asked = replace(asked, stream=False)
        return InputTokens(asking, asked, seal, before)

    async def compaction(self, asking: InboundRequest) -> Compaction:
        """The same for one that wants its conversation compacted."""
        seal, before = self._seal(asking), await self._before(asking)
        asked = request.read_compaction(asking.body, seal, before=before)
        return Compaction(asking, asked, seal, before)

    def _seal(self, asking: InboundRequest) -> Seal:
        return Seal(self._key, asking.caller.user_id)

    async def _before(self, asking: InboundRequest) -> list[msgspec.Raw]:
        """The conversation that a request goes on from."""
        previous = request.previous_response_id(asking.body)
        if previous is None:
            return []
        return await self._stored.before(asking.caller.user_id, previous)
