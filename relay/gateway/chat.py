"""A chat completions request on its way through the gateway."""

import time

from relay.errors import Dialect, RelayError
from relay.gateway.dialect import InboundRequest, Translation
from relay.translate.chat import answer as completion
from relay.translate.chat import request as chat
from relay.translate.chat.answer import AnswerMetadata, ChatStream
from relay.translate.messages.usage import Usage
from relay.translate.request.builder import TargetModel


class Chat(Translation):
    """One request."""

    name = "chat"
    dialect = Dialect.OPENAI

    def __init__(self, asking: InboundRequest, asked: chat.ChatRequest) -> None:
        super().__init__(asking, asked.user)
        self._draft = asked.builder
        self.stream = asked.stream
        self._include_usage = asked.include_usage
        self._id = "chatcmpl-" + asking.request_id.removeprefix("req_")
        self._model = asking.model
        self._created = int(time.time())

    def whole(self, payload: bytes, fit: TargetModel, usage: Usage) -> bytes:
        return completion.translate(payload, self._told(fit), usage)

    def machine(self, fit: TargetModel) -> ChatStream:
        return ChatStream(self._told(fit), include_usage=self._include_usage)

    def keep_alive(self) -> bytes:
        return completion.KEEP_ALIVE

    def failed(self, error: RelayError) -> bytes:
        return error.event(Dialect.OPENAI)

    def _told(self, fit: TargetModel) -> AnswerMetadata:
        return AnswerMetadata(self._id, self._created, self._model, fit.family)


async def read(asking: InboundRequest) -> Chat:
    """Read a request.

    Raises:
        RelayError: 400, something cannot be honoured; its `param` says what.
    """
    return Chat(asking, chat.read(asking.body))
