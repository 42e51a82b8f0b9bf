"""Finds the first event of a stream that has content.

Decides which events are content. Until the first of them the answer can still come from another
upstream, without the caller noticing. `message_start`, pings and the start of an empty text or
thinking block are not content: an overloaded upstream sends them, and an error a moment later.
Must not know upstreams.
"""

import re
from enum import Enum
from typing import Final

import msgspec

from relay.translate.messages import event as one_event
from relay.translate.messages.answer_form import is_untyped_error
from relay.translate.messages.first_content_fields import TypeAndError
from relay.wire.sse import EventReader

_WITHOUT_CONTENT: Final = frozenset({b"message_start", b"ping"})
_WITH_CONTENT: Final = frozenset({b"content_block_delta", b"content_block_start"})
_ENDS: Final = frozenset({b"content_block_stop", b"message_delta", b"message_stop"})
_NAMES: Final = _WITHOUT_CONTENT | _WITH_CONTENT | _ENDS | {b"error"}
_NO_NAMES: Final = (b"", b"message")  # the default name (WHATWG HTML §9.2.6)
_NO_DATA: Final = (b"", b"[DONE]")
_TEXT_TYPE: Final = re.compile(rb'"type"[ ]*:[ ]*"(text|thinking)"')
_MODEL: Final = re.compile(rb'("model"[ ]*:[ ]*)"(?:[^"\\]++|\\.)*+"')


_decode: Final = msgspec.json.Decoder(TypeAndError).decode


class FirstEvent(Enum):
    """The kind of the first event that matters."""

    CONTENT = "content"
    ERROR = "error"  # an error event or object, before any content
    UNREADABLE = "unreadable"  # no event of the Messages API, or one that is broken


class FirstContent:
    """Takes the octets of an event stream until `kind` is known.

    `error` is the error event's data if `kind` is ERROR.
    """

    __slots__ = ("_events", "error", "kind")

    def __init__(self) -> None:
        self._events = EventReader()
        self.kind: FirstEvent | None = None
        self.error = b""

    @property
    def pending(self) -> bool:
        """Whether an event has arrived in part."""
        return self._events.pending

    def feed(self, octets: bytes) -> bool:
        """Take the next octets; whether `kind` is known."""
        for name, data in self._events.feed(octets):
            kind = name if name in _NAMES else _kind(data)
            if kind in _WITHOUT_CONTENT:
                if kind == b"message_start" and not (data[:1] == b"{" and data[-1:] == b"}"):
                    self.kind = FirstEvent.UNREADABLE
                    return True
                continue
            if kind == b"content_block_start" and _is_empty(data):
                continue
            first = _first(name, kind, data)
            if first is None:
                continue
            self.kind = first
            if first is FirstEvent.ERROR:
                self.error = data
            return True
        return False


def _first(name: bytes, kind: bytes, data: bytes) -> FirstEvent | None:
    """What an event shows; None if it has no meaning in the Messages API."""
    if kind == b"error":
        return FirstEvent.ERROR
    if kind in _WITH_CONTENT:
        return _content(name, data)
    if kind in _ENDS:
        return FirstEvent.CONTENT
    if data.strip() in _NO_DATA:
        return None
    if is_untyped_error(data):
        return FirstEvent.ERROR
    return None if kind or name not in _NO_NAMES else FirstEvent.UNREADABLE


def _content(name: bytes, data: bytes) -> FirstEvent:
    """Whether an event that should be content can be read."""
    try:
        event = one_event.read(name, data)
    except ValueError:
        return FirstEvent.UNREADABLE
    kind = event.type
    if (kind == "content_block_delta" and event.delta is None) or (
        kind == "content_block_start" and event.content_block is None
    ):
        return FirstEvent.ERROR if is_untyped_error(data) else FirstEvent.UNREADABLE
    return FirstEvent.ERROR if kind == "error" else FirstEvent.CONTENT


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
    return match is not None and data.replace(b" ", b"").find(b'"%b":""' % match[1]) >= 0


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
