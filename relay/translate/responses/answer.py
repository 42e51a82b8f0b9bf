"""A complete Messages answer as a response, or as a compacted conversation.

Decides how the parts of a compacted conversation are written. A response comes from the stream
translator, whose events are dropped, so that both forms agree. Must not know sockets or time.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from relay.translate.invalid import UNREADABLE
from relay.translate.messages import message
from relay.translate.messages.content import string
from relay.translate.messages.usage import Usage, message_usage
from relay.translate.pacing import paced
from relay.translate.responses import render
from relay.translate.responses.fields import AnswerItem
from relay.translate.responses.render import AnswerMetadata
from relay.translate.responses.stream import ResponsesStream

# The id of an output item, or of an input item as a list of them shows it.
_ITEM_ID: Final = re.compile(r"([a-z]{2,4})_([0-9a-zA-Z]{1,64})_([0-9]{1,6})")
_INPUT_TYPES: Final = {"text": "input_text"}
_decode_any: Final = msgspec.json.Decoder().decode


class EmptySummaryError(ValueError):
    """An answer that can be read, without a text to go on from."""


def translate(
    payload: bytes, metadata: AnswerMetadata, family: str, usage: Usage | None = None
) -> tuple[bytes, list[bytes]]:
    """A Messages answer as a response object, and the items of its output.

    Args:
        payload: the answer's body.
        metadata: the members that the answer itself does not have.
        family: of the upstream's thinking blocks.
        usage: replaces the usage in `payload`, where the caller knows better.

    Raises:
        ValueError: `payload` is not an answer, or cannot be read.
    """
    blocks, details = message.read(payload)
    stream = ResponsesStream(metadata)
    stream.family = family
    stream.replay(blocks, usage or message_usage(payload), details)
    return stream.answer, stream.output


def compacted(
    payload: bytes,
    metadata: AnswerMetadata,
    messages: Sequence[bytes],
    usage: Usage | None = None,
) -> bytes:
    """A compacted conversation: the user's messages and the answer's text as a sealed summary.

    Args:
        payload: the answer's body.
        metadata: the members that the answer itself does not have.
        messages: the user's, see `user_messages`.
        usage: replaces the usage in `payload`, where the caller knows better.

    Raises:
        EmptySummaryError: the answer has no text.
        ValueError: `payload` is not an answer.
    """
    blocks, _ = message.read(payload)
    text = b'"%b"' % b"".join([string(block.text)[1:-1] for block in blocks])
    if text == b'""':
        raise EmptySummaryError("a summary without a word")
    output = (
        *messages,
        b'{"id":"cmp_%b","type":"compaction","encrypted_content":%b}'
        % (metadata.id_suffix.encode(), metadata.seal.summary(text)),
    )
    usage = usage or message_usage(payload)
    return (
        b'{"id":"%b","object":"response.compaction","created_at":%d,"output":[%b],"usage":%b}'
        % (
            metadata.id.encode(),
            metadata.created,
            b",".join(output),
            render.usage_object(usage),
        )
    )


def user_messages(items: Iterable[msgspec.Raw], metadata: AnswerMetadata) -> list[bytes]:
    """The user's messages of a conversation, each with all members that such an item must have."""
    messages: list[bytes] = []
    for item in paced(items):
        try:
            members: Any = _decode_any(item)
        except UNREADABLE:  # no UTF-8, or a number out of range: it went upstream as it came
            continue
        if not isinstance(members, dict) or members.get("role") != "user":
            continue
        content = members.get("content")
        if isinstance(content, str):
            content = [{"type": "input_text", "text": content}]
        if not isinstance(content, list):
            continue
        parts = [_input_part(part) for part in content if isinstance(part, dict)]
        id = members.get("id")
        complete = {
            "id": id if isinstance(id, str) else f"msg_{metadata.id_suffix}_{len(messages)}",
            "type": "message",
            "status": "completed",
            "role": "user",
            "content": parts,
        }
        messages.append(msgspec.json.encode(complete))
    return messages


def _input_part(part: dict[str, Any]) -> dict[str, Any]:
    type = part.get("type")
    if type == "input_image":
        return {**part, "image_url": part.get("image_url"), "detail": part.get("detail") or "auto"}
    return {**part, "type": _INPUT_TYPES.get(str(type), type)}


class ItemPlace(NamedTuple):
    """The place of an item, as its id tells: the response, input or output, the number in it."""

    response: str
    is_input: bool
    number: int


_decode_item: Final = msgspec.json.Decoder(AnswerItem).decode


def item_id(item: bytes) -> str:
    """The id of an output item."""
    return _decode_item(item).id


def place_of_item(id: str) -> ItemPlace | None:
    """The place of an item; None for an id that is not of ours."""
    match = _ITEM_ID.fullmatch(id)
    if match is None:
        return None
    return ItemPlace(f"resp_{match[2]}", match[1] == "in", int(match[3]))
