"""A whole answer of the Messages API as a response, or as a conversation made short.

It is told by the machine that tells streams, its events thrown away: so both say the same. It
must not know of sockets or of time.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from relay.translate.invalid import UNREADABLE
from relay.translate.messages import message
from relay.translate.messages.content import string
from relay.translate.messages.usage import Usage, message_usage
from relay.translate.responses import render as shape
from relay.translate.responses.render import AnswerMetadata
from relay.translate.responses.stream import ResponsesStream

_PARTS: Final = {"text": "input_text"}


_any = msgspec.json.Decoder().decode


def translate(
    payload: bytes, told: AnswerMetadata, family: str, usage: Usage | None = None
) -> tuple[bytes, list[bytes]]:
    """The response that a Messages answer is, and the items of its output.

    `usage` is what the answer used, where that is known better than the document tells it.

    Raises:
        ValueError: `payload` is no answer, or one that cannot be read.
    """
    blocks, details = message.read(payload)
    stream = ResponsesStream(told)
    stream.family = family
    stream.replay(blocks, usage or message_usage(payload), details)
    return stream.answer, stream.output


def compacted(
    payload: bytes, told: AnswerMetadata, items: Sequence[msgspec.Raw], usage: Usage | None = None
) -> bytes:
    """What stands for a conversation: what its user said, and the answer's text, sealed.

    Raises:
        ValueError: `payload` is no answer, or has no text.
    """
    blocks, _ = message.read(payload)
    text = b'"%b"' % b"".join([string(block.text)[1:-1] for block in blocks])
    if text == b'""':
        raise ValueError("a summary without a word")
    output = _users(items, told)
    output.append(
        b'{"id":"cmp_%b","type":"compaction","encrypted_content":%b}'
        % (told.number.encode(), told.seal.summary(text))
    )
    used = usage or message_usage(payload)
    return (
        b'{"id":"%b","object":"response.compaction","created_at":%d,"output":[%b],"usage":%b}'
        % (
            told.id.encode(),
            told.created,
            b",".join(output),
            shape.usage_object(used),
        )
    )


def _users(items: Iterable[msgspec.Raw], told: AnswerMetadata) -> list[bytes]:
    """The user's messages, each with all that such an item must have."""
    found: list[bytes] = []
    for item in items:
        try:
            given: Any = _any(item)
        except UNREADABLE:  # half a character somewhere in it: it went upstream as it came
            continue
        if not isinstance(given, dict) or given.get("role") != "user":
            continue
        content = given.get("content")
        if isinstance(content, str):
            content = [{"type": "input_text", "text": content}]
        if not isinstance(content, list):
            continue
        parts = [_part(part) for part in content if isinstance(part, dict)]
        id = given.get("id")
        whole = {
            "id": id if isinstance(id, str) else f"msg_{told.number}_{len(found)}",
            "type": "message",
            "status": "completed",
            "role": "user",
            "content": parts,
        }
        found.append(msgspec.json.encode(whole))
    return found


def _part(part: dict[str, Any]) -> dict[str, Any]:
    kind = part.get("type")
    if kind == "input_image":
        return {**part, "image_url": part.get("image_url"), "detail": part.get("detail") or "auto"}
    return {**part, "type": _PARTS.get(str(kind), kind)}
