"""Reads one event of a Messages stream, as far as a translation needs it.

Decides which unreadable events may be skipped and which are an error: an event of an unknown type
may have any shape, but a gap in an answer must be noticed. Must not know what becomes of an event.
"""

import json
from typing import Final

import msgspec

from relay.translate.messages.event_fields import Delta, EventType, StreamEvent

_EMPTY_DATA: Final = (b"", b"[DONE]")
_KNOWN_TYPES: Final = frozenset(
    {
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
        "error",
    }
)


_decode: Final = msgspec.json.Decoder(StreamEvent).decode
_decode_loosely: Final = msgspec.json.Decoder(StreamEvent, strict=False).decode
_decode_type: Final = msgspec.json.Decoder(EventType).decode


def read(name: bytes, data: bytes) -> StreamEvent:
    """An event from its `event:` line (`name`, may be empty) and its data.

    The data's `type` counts before `name`.

    Raises:
        ValueError: the event cannot be read and must not be skipped.
    """
    if not data.isascii():
        data.decode()  # must be UTF-8: texts are copied into the output unread
    try:
        event = _decode(data)
    except (msgspec.DecodeError, RecursionError) as failure:
        return _skip_or_raise(name, data, failure)
    if event.type is not None:
        return event
    is_error = not name and bytes(event.error) not in (b"", b"null")
    return msgspec.structs.replace(event, type="error" if is_error else name.decode("latin-1"))


def _skip_or_raise(
    name: bytes, data: bytes, failure: msgspec.DecodeError | RecursionError
) -> StreamEvent:
    """A second reading of an event that did not decode; without its data if it may be skipped."""
    if data.strip() in _EMPTY_DATA:
        return StreamEvent(name.decode("latin-1"))
    if isinstance(failure, msgspec.ValidationError):
        try:
            stated = _decode_type(data).type
        except msgspec.ValidationError:
            raise ValueError("an event that is no object") from None
        kind = stated if isinstance(stated, str) else name.decode("latin-1")
        if kind and kind not in _KNOWN_TYPES:
            return StreamEvent(kind)
        return _read_loosely(name, data, failure)
    if b"\\ud" in data.lower():
        return _read_surrogates(data)
    raise ValueError(f"an event that cannot be read: {failure}")


def _read_loosely(name: bytes, data: bytes, failure: Exception) -> StreamEvent:
    """An event whose index is a text, a fraction of zero or null, as some vendors have it."""
    try:
        event = _decode_loosely(data)
    except msgspec.ValidationError:
        try:
            document = msgspec.json.decode(data)
            if document.get("index", 0) is not None:
                raise ValueError(f"an event that cannot be read: {failure}") from None
            event = _decode_loosely(msgspec.json.encode({**document, "index": 0}))
        except (msgspec.DecodeError, AttributeError, RecursionError):
            raise ValueError(f"an event that cannot be read: {failure}") from None
    if event.type is None:
        return msgspec.structs.replace(event, type=name.decode("latin-1"))
    return event


def _read_surrogates(data: bytes) -> StreamEvent:
    """A delta with a lone surrogate, which msgspec refuses to decode.

    An upstream that counts in UTF-16 may cut a text between the two (`\\ud83d`, `\\ude00`). They
    are passed on as they came; the caller joins them.
    """
    try:
        document = json.loads(data)
        index, delta = int(document.get("index") or 0), document["delta"]
        if document["type"] != "content_block_delta":
            raise ValueError("half a character where there is no piece of text")
        pieces = {
            piece: msgspec.Raw(json.dumps(delta[piece]).encode())
            for piece in ("text", "thinking", "partial_json")
            if piece in delta
        }
        return StreamEvent(document["type"], index, Delta(delta["type"], **pieces))
    except (AttributeError, KeyError, TypeError, RecursionError):
        raise ValueError("an event that cannot be read") from None
