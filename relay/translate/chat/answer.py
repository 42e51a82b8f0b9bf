"""A Messages answer as a chat completion document.

Decides how each block of a complete answer is written, and offers the dialect's other names:
`ChatStream` for event streams. Must not know the request or
sockets: time and ids come in with `AnswerMetadata`.
"""

from typing import Final

from relay.translate.chat import render
from relay.translate.chat.render import AnswerMetadata
from relay.translate.chat.stream import KEEP_ALIVE, ChatStream
from relay.translate.free_text import free_text
from relay.translate.messages import content, message
from relay.translate.messages.content import EMPTY
from relay.translate.messages.content_fields import Block
from relay.translate.messages.usage import Usage, message_usage

__all__ = ["KEEP_ALIVE", "AnswerMetadata", "ChatStream", "translate"]

_CHOICES: Final = b',"choices":[{"index":0,"message":{%b},"logprobs":null,"finish_reason":"%b"}]'


def translate(payload: bytes, metadata: AnswerMetadata, usage: Usage | None = None) -> bytes:
    """A Messages answer as a `chat.completion` document.

    Args:
        payload: the answer's body.
        metadata: the members that the answer itself does not have.
        usage: replaces the usage in `payload`, where the caller knows better.

    Raises:
        ValueError: `payload` is not an answer, or cannot be read.
    """
    blocks, details = message.read(payload)
    completion = _CompletionMessage(metadata)
    for block in blocks:
        completion.add(block)
    usage = usage or message_usage(payload)
    refusal = content.refusal(details) if usage.stop_reason == "refusal" else None
    members = completion.members(refusal)
    legacy = completion.function_call != b""
    reason = render.finish_reason(
        usage.stop_reason, len(completion.tool_calls) + legacy, legacy=legacy
    )
    return b'%b%b,"usage":%b}' % (
        render.head(metadata, "chat.completion"),
        _CHOICES % (members, reason),
        render.usage_object(usage),
    )


class _CompletionMessage:
    """The `message` of a completion, built block by block.

    `texts` and `reasoning` hold the insides of JSON strings, without quotation marks.
    """

    __slots__ = (
        "annotations",
        "call_ids",
        "characters",
        "function_call",
        "metadata",
        "reasoning",
        "reasoning_details",
        "texts",
        "tool_calls",
    )

    def __init__(self, metadata: AnswerMetadata) -> None:
        self.metadata = metadata
        self.texts: list[bytes] = []
        self.reasoning: list[bytes] = []
        self.reasoning_details: list[bytes] = []
        self.tool_calls: list[bytes] = []
        self.call_ids: set[bytes] = set()
        self.function_call = b""  # in the old form, which has one at most
        self.annotations: list[bytes] = []
        self.characters = 0  # of the texts so far

    def add(self, block: Block) -> None:
        match block.type:
            case "text":
                self._add_text(block)
            case "thinking":
                self._add_thinking(block)
            case "redacted_thinking":
                if (data := content.string(block.data)) != EMPTY:
                    self._add_detail(b"encrypted", b',"data":%b' % data)
            case "tool_use":
                self._add_call(block)

    def _add_call(self, block: Block) -> None:
        arguments = content.arguments(block.input)
        call = render.Call(block, self.metadata, self.call_ids)
        if call.kind == "legacy_function":
            self.function_call = self.function_call or call.function_call(arguments)
        else:
            text = free_text(arguments) if call.kind == "custom" else arguments
            self.tool_calls.append(call.members(text))

    def members(self, refusal: bytes | None) -> bytes:
        """The message's members; `refusal` is a JSON string."""
        text = b'"%b"' % b"".join(self.texts)
        if text == EMPTY and (self.tool_calls or self.function_call or refusal is not None):
            text = b"null"
        members = b'"role":"assistant","content":%b,"refusal":%b' % (text, refusal or b"null")
        if self.annotations:
            members += b',"annotations":' + _array(self.annotations)
        if self.reasoning:
            members += b',"reasoning_content":"%b"' % b"".join(self.reasoning)
        if self.reasoning_details:
            members += b',"reasoning_details":' + _array(self.reasoning_details)
        if self.tool_calls:
            members += b',"tool_calls":' + _array(self.tool_calls)
        if self.function_call:
            members += b"," + self.function_call
        return members

    def _add_text(self, block: Block) -> None:
        text = content.string(block.text)
        start, self.characters = self.characters, self.characters + content.count_characters(text)
        self.texts.append(text[1:-1])
        for citation in content.citations(block.citations):
            self.annotations.append(render.annotation(citation, start, self.characters))

    def _add_thinking(self, block: Block) -> None:
        text, signature = content.string(block.thinking), content.string(block.signature)
        if text != EMPTY:
            self.reasoning.append(text[1:-1])
        elif signature == EMPTY:
            return
        signature_member = b"" if signature == EMPTY else b',"signature":%b' % signature
        self._add_detail(b"text", b',"text":%b%b' % (text, signature_member))

    def _add_detail(self, kind: bytes, members: bytes) -> None:
        position = render.thinking_position(self.characters, len(self.tool_calls), self.metadata)
        detail = b'"index":%d,"type":"reasoning.%b",%b%b'
        index = len(self.reasoning_details)
        self.reasoning_details.append(detail % (index, kind, position, members))


def _array(objects: list[bytes]) -> bytes:
    return b"[{%b}]" % b"},{".join(objects)
