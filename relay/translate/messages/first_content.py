"""Finds the first event of a stream that has content.

Decides which events are content. Until the first of them the answer can still come from another
upstream, without the caller noticing. `message_start`, pings and the start of an empty text or
thinking block are not content: an overloaded upstream sends them, and an error a moment later.
Must not know upstreams.
"""

import re
from enum import Enum
from typing import Any, Final

import msgspec

from relay.wire.sse import EventReader

_WITHOUT_CONTENT: Final = frozenset({b"message_start", b"ping"})
_TEXT_TYPE: Final = re.compile(rb'"type"[ ]*:[ ]*"(text|thinking)"')
_MODEL: Final = re.compile(rb'("model"[ ]*:[ ]*)"(?:[^"\\]++|\\.)*+"')


class _TypeAndError(msgspec.Struct):
    type: Any = None
    error: Any = None


_decode: Final = msgspec.json.Decoder(_TypeAndError).decode


class FirstEvent(Enum):
    """The kind of the first event that matters."""

    CONTENT = "content"
    ERROR = "error"  # an error event, before any content


class FirstContent:
    """Takes the octets of an event stream until `kind` is known.

    `error` is the error event's data if `kind` is ERROR.
    """

    __slots__ = ("_events", "error", "kind")

    def __init__(self) -> None:
        self._events = EventReader()
        self.kind: FirstEvent | None = None
        self.error = b""

    def feed(self, octets: bytes) -> bool:
        """Take the next octets; whether `kind` is known."""
        for name, data in self._events.feed(octets):
            kind = name or _kind(data)
            if kind in _WITHOUT_CONTENT or (kind == b"content_block_start" and _is_empty(data)):
                continue
            if kind == b"error":
                self.kind, self.error = FirstEvent.ERROR, data
            else:
                self.kind = FirstEvent.CONTENT
            return True
        return False


def _kind(data: bytes) -> bytes:
    """The type of an event without an `event:` line; empty if it has none."""
    try:
        event = _decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return b""
    if event.error is not None:
        return b"error"
    return event.type.encode() if isinstance(event.type, str) else b""


def _is_empty(data: bytes) -> bool:
    """Whether a `content_block_start` begins an empty text or thinking block."""
    match = _TEXT_TYPE.search(data)
    return match is not None and b'"%b":""' % match[1] in data.replace(b" ", b"")


def rename_model(opening: bytes, name: bytes) -> bytes:
    """The beginning of a stream, with `name` as the model in its `message_start`."""
    start = opening.find(b'"message_start"')
    if start < 0:
        return opening
    # `message_start` has no content yet, so its only "model" is the model. Its `type` may be the
    # last member (some vendors sort them): search from the beginning of the line.
    start = opening.rfind(b"\n", 0, start) + 1
    head, tail = opening[:start], opening[start:]
    return head + _MODEL.sub(lambda match: match[1] + b'"' + name + b'"', tail, count=1)
