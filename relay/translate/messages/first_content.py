"""The beginning of an event stream: whether it has brought anything yet.

Until its first event with content a stream can still be taken from another upstream, and nobody
is the wiser. What an upstream says before that promises nothing: `message_start`, pings, and the
start of a text or a thought that is still empty. One that is overloaded says so a moment later.
"""

import re
from enum import Enum
from typing import Any, Final

import msgspec

from relay.wire.sse import EventReader

_EMPTY: Final = frozenset({b"message_start", b"ping"})
_WORDS: Final = re.compile(rb'"type"[ ]*:[ ]*"(text|thinking)"')
_MODEL: Final = re.compile(rb'("model"[ ]*:[ ]*)"(?:[^"\\]|\\.)*"')


class _Unnamed(msgspec.Struct):
    type: Any = None
    error: Any = None


_unnamed = msgspec.json.Decoder(_Unnamed).decode


class FirstEvent(Enum):
    """What a stream turned out to begin with."""

    CONTENT = "content"
    ERROR = "error"  # nothing but an error event


class FirstContent:
    """Octets of an event stream in, until `kind` tells what it begins with.

    `error` is then the error event's data.
    """

    __slots__ = ("_events", "error", "kind")

    def __init__(self) -> None:
        self._events = EventReader()
        self.kind: FirstEvent | None = None
        self.error = b""

    def feed(self, data: bytes) -> bool:
        """Take the next octets; whether it is known what the stream begins with."""
        for name, text in self._events.feed(data):
            kind = name or _kind(text)
            if kind in _EMPTY or (kind == b"content_block_start" and _is_empty(text)):
                continue
            if kind == b"error":
                self.kind, self.error = FirstEvent.ERROR, text
            else:
                self.kind = FirstEvent.CONTENT
            return True
        return False


def _kind(text: bytes) -> bytes:
    """What an event is, where nobody wrote an `event:` line; empty if it does not say."""
    try:
        told = _unnamed(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return b""
    if told.error is not None:
        return b"error"
    return told.type.encode() if isinstance(told.type, str) else b""


def _is_empty(data: bytes) -> bool:
    """Whether the block that begins is a text or a thought without a word in it."""
    match = _WORDS.search(data)
    return match is not None and b'"%b":""' % match[1] in data.replace(b" ", b"")


def rename_model(opening: bytes, name: bytes) -> bytes:
    """The beginning of a stream with another name for the model in its `message_start`."""
    start = opening.find(b'"message_start"')
    if start < 0:
        return opening
    # In `message_start` nothing else can be called "model": its content is still empty. Its
    # `type` may come last, where names are sorted: so from the beginning of its line on.
    start = opening.rfind(b"\n", 0, start) + 1
    head, tail = opening[:start], opening[start:]
    return head + _MODEL.sub(lambda match: match[1] + b'"' + name + b'"', tail, count=1)
