"""The chat dialect: `POST /v1/chat/completions`, translated to Messages and back."""

import time
from functools import partial
from typing import ClassVar

from relay.errors import ErrorShape, RelayError
from relay.gateway.dialect import Dialect, Received
from relay.gateway.large_requests import in_turns
from relay.gateway.translated import StreamTranslator, TranslatedRequest
from relay.translate.chat import answer, request
from relay.translate.chat.answer import AnswerMetadata, ChatStream
from relay.translate.messages.usage import Usage
from relay.translate.request.builder import TargetModel


class ChatRequest(TranslatedRequest):
    """One request."""

    __slots__ = ("_created", "_id", "_include_usage", "_request_id", "_tools")

    dialect: ClassVar[str] = "chat"
    error_shape: ClassVar[ErrorShape] = ErrorShape.OPENAI

    def __init__(self, received: Received, chat: request.ChatRequest) -> None:
        super().__init__(received, chat.builder, stream=chat.stream, user=chat.user)
        self._include_usage = chat.include_usage
        self._request_id = received.request_id
        self._id = "chatcmpl-" + received.request_id.removeprefix("req_")
        self._created = int(time.time())
        self._tools = chat.tools

    def request_id(self) -> bytes:
        """See `TranslatedRequest`."""
        return self._request_id.encode()

    def document(self, payload: bytes, target_model: TargetModel, usage: Usage) -> bytes:
        """See `TranslatedRequest`."""
        return answer.translate(payload, self._metadata(target_model), usage)

    def translator(self, target_model: TargetModel) -> StreamTranslator:
        """See `TranslatedRequest`."""
        return ChatStream(self._metadata(target_model), include_usage=self._include_usage)

    def keep_alive(self) -> bytes:
        """An event stream's comment."""
        return answer.KEEP_ALIVE

    def error_event(self, error: RelayError) -> bytes:
        """See `InboundRequest`."""
        return error.event(ErrorShape.OPENAI)

    def _metadata(self, target_model: TargetModel) -> AnswerMetadata:
        family = target_model.family
        return AnswerMetadata(self._id, self._created, self.model, family, self._tools)


class Chat(Dialect):
    """Reads requests of `POST /v1/chat/completions`."""

    async def read(self, received: Received) -> ChatRequest:
        """See `Dialect`."""
        if received.heavy:
            return await in_turns(received.caller.key_id, partial(_read, received))
        return _read(received)


def _read(received: Received) -> ChatRequest:
    return ChatRequest(received, request.read(received.body))
