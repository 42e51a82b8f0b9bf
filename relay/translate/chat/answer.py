"""An answer of the Messages API as a chat completion: the whole document, and the names of the
rest (`ChatStream` for event streams, `error` for what went wrong).

This decides what becomes of each block of a whole answer. It must not know what was asked for,
nor of sockets: time and ids come in with `AnswerMetadata`.
"""

from typing import Final

from relay.translate.chat import render as shape
from relay.translate.chat.render import AnswerMetadata
from relay.translate.chat.stream import KEEP_ALIVE, ChatStream
from relay.translate.messages import content, message
from relay.translate.messages.content import EMPTY, Block
from relay.translate.messages.error_document import error, error_event
from relay.translate.messages.usage import Usage, message_usage

__all__ = ["KEEP_ALIVE", "AnswerMetadata", "ChatStream", "error", "error_event", "translate"]

_CHOICE: Final = b',"choices":[{"index":0,"message":{%b},"logprobs":null,"finish_reason":"%b"}]'


def translate(payload: bytes, told: AnswerMetadata, usage: Usage | None = None) -> bytes:
    """A Messages answer as a `chat.completion` document.

    `usage` is what the answer used, where that is known better than the document tells it.

    Raises:
        ValueError: `payload` is no answer, or one that cannot be read.
    """
    blocks, details = message.read(payload)
    parts = _Parts(told)
    for block in blocks:
        parts.add(block)
    usage = usage or message_usage(payload)
    refused = usage.stop_reason == "refusal"
    members = parts.members(content.refusal(details) if refused else None)
    reason = shape.finish_reason(usage.stop_reason, len(parts.calls))
    return b'%b%b,"usage":%b}' % (
        shape.head(told, "chat.completion"),
        _CHOICE % (members, reason),
        shape.usage_object(usage),
    )


class _Parts:
    """The message's members as they grow, block by block."""

    __slots__ = ("annotations", "calls", "texts", "thoughts", "told", "words", "written")

    def __init__(self, told: AnswerMetadata) -> None:
        self.told = told
        self.texts: list[bytes] = []  # without quotation marks, as are `words`
        self.words: list[bytes] = []
        self.thoughts: list[bytes] = []
        self.calls: list[bytes] = []
        self.annotations: list[bytes] = []
        self.written = 0

    def add(self, block: Block) -> None:
        match block.type:
            case "text":
                self._text(block)
            case "thinking":
                self._thinking(block)
            case "redacted_thinking":
                if (data := content.string(block.data)) != EMPTY:
                    self._thought(b"encrypted", b',"data":%b' % data)
            case "tool_use":
                text = content.arguments(block.input)
                self.calls.append(shape.call(len(self.calls), block, self.told, text))

    def members(self, refusal: bytes | None) -> bytes:
        text = b'"%b"' % b"".join(self.texts)
        if text == EMPTY and (self.calls or refusal is not None):
            text = b"null"
        members = b'"role":"assistant","content":%b,"refusal":%b' % (text, refusal or b"null")
        if self.annotations:
            members += b',"annotations":' + _array(self.annotations)
        if self.words:
            members += b',"reasoning_content":"%b"' % b"".join(self.words)
        if self.thoughts:
            members += b',"reasoning_details":' + _array(self.thoughts)
        if self.calls:
            members += b',"tool_calls":' + _array(self.calls)
        return members

    def _text(self, block: Block) -> None:
        text = content.string(block.text)
        start, self.written = self.written, self.written + content.characters(text)
        self.texts.append(text[1:-1])
        for cited in content.citations(block.citations):
            self.annotations.append(shape.annotation(cited, start, self.written))

    def _thinking(self, block: Block) -> None:
        text, signature = content.string(block.thinking), content.string(block.signature)
        if text != EMPTY:
            self.words.append(text[1:-1])
        elif signature == EMPTY:
            return
        signed = b"" if signature == EMPTY else b',"signature":%b' % signature
        self._thought(b"text", b',"text":%b%b' % (text, signed))

    def _thought(self, kind: bytes, rest: bytes) -> None:
        place = shape.place(self.written, len(self.calls), self.told)
        entry = b'"index":%d,"type":"reasoning.%b",%b%b'
        self.thoughts.append(entry % (len(self.thoughts), kind, place, rest))


def _array(objects: list[bytes]) -> bytes:
    return b"[{%b}]" % b"},{".join(objects)
