"""What an answer used, read from its octets as they pass by.

Rules (docs: build/streaming, and vendors that differ): counts in `message_delta` are
cumulative and overwrite; the last non-null value of either event wins; zero input in
`message_start` means unknown. Taps never change, hold back or copy what passes.
"""

import re
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from relay.wire.chunked import ChunkReader, ChunkScanner
from relay.wire.sse import EventReader

_USAGE: Final = b'"usage"'
_MOST: Final = 10**9  # tokens of one answer; sums and prices must hold
_MAX_JSON: Final = 32 * 1024 * 1024
_ENDING: Final = re.compile(rb'"message_stop"|^event: ?error', re.MULTILINE)


@dataclass(slots=True)
class Usage:
    """Token counts of one answer; None where the upstream did not say.

    `complete` tells whether the answer came to its own end: a JSON document that decodes, or a
    stream with its `message_stop` (or an `error` event, which ends one as well).
    """

    input: int | None = None
    output: int | None = None
    cache_read: int | None = None
    cache_write: int | None = None
    model: str | None = None
    stop_reason: str | None = None
    complete: bool = False
    error: bool = False  # it is a stream that an error event ended
    thinking: int | None = None  # those of `output` that were thought


class _Counts(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    output_tokens_details: Any = None


class _Message(msgspec.Struct):
    model: str | None = None
    stop_reason: str | None = None
    usage: _Counts | None = None


class _StreamEvent(msgspec.Struct):
    type: str = ""
    message: _Message | None = None
    usage: _Counts | None = None
    delta: Any = None


_decode_message = msgspec.json.Decoder(_Message).decode
_decode_event = msgspec.json.Decoder(_StreamEvent).decode


def _count(usage: Usage, counts: _Counts | None, *, start: bool = False) -> None:
    """Take over what is said. What cannot be a count is as good as not said."""
    if counts is None:
        return
    said = counts.input_tokens
    if said is not None and 0 <= said <= _MOST and (said or not start):
        usage.input = said
    said = counts.output_tokens
    if said is not None and 0 <= said <= _MOST:
        usage.output = said
    said = counts.cache_read_input_tokens
    if said is not None and 0 <= said <= _MOST:
        usage.cache_read = said
    said = counts.cache_creation_input_tokens
    if said is not None and 0 <= said <= _MOST:
        usage.cache_write = said
    if isinstance(counts.output_tokens_details, dict):
        said = counts.output_tokens_details.get("thinking_tokens")
        if type(said) is int and 0 <= said <= _MOST:  # no bool, which is an int as well
            usage.thinking = said


def record_event(usage: Usage, data: bytes) -> bool:
    """Take over what the data of an event says of usage; whether it is a `message_delta`."""
    try:
        event = _decode_event(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    if event.type == "message_start" and event.message is not None:
        usage.model = event.message.model
        _count(usage, event.message.usage, start=True)
    elif event.type == "message_delta":
        _count(usage, event.usage)
        if isinstance(event.delta, dict):
            reason = event.delta.get("stop_reason")
            usage.stop_reason = reason if isinstance(reason, str) else usage.stop_reason
        return True
    return False


class NoTap:
    """For answers whose content is of no interest (errors), or cannot be read (encoded)."""

    def framed_by(self, scanner: ChunkScanner) -> None:
        """See net.splice.Tap."""

    def feed(self, data: bytes) -> None:
        """Nothing."""

    def between_events(self) -> bool:
        """There are no events."""
        return False

    def finish(self) -> Usage:
        """Nothing is known but that the framing was whole."""
        return Usage(complete=True)


class JsonTap:
    """Reads a whole JSON message at its end."""

    __slots__ = ("_framed", "_pieces", "_size")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        self._framed = False

    def framed_by(self, scanner: ChunkScanner) -> None:
        """See net.splice.Tap."""
        self._framed = True

    def feed(self, data: bytes) -> None:
        """Keep the piece (not a copy) until the end."""
        self._size += len(data)
        if self._size <= _MAX_JSON:
            self._pieces.append(data)

    def between_events(self) -> bool:
        """There are no events."""
        return False

    def finish(self) -> Usage:
        """Read the document."""
        pieces = self._pieces
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if self._framed:
            body = ChunkReader().feed(body)
        usage = message_usage(body)
        usage.complete = usage.complete or self._size > _MAX_JSON
        return usage


def message_usage(body: bytes) -> Usage:
    """What a whole JSON answer used."""
    usage = Usage(complete=True)
    try:
        message = _decode_message(body)
    except (msgspec.ValidationError, UnicodeDecodeError, RecursionError):
        return usage  # whole, if odd: the caller may judge it
    except msgspec.DecodeError:
        usage.complete = False
        return usage
    usage.model = message.model
    usage.stop_reason = message.stop_reason
    _count(usage, message.usage)
    return usage


class _Unframed:
    left = 0
    single = True  # nothing in it can be torn by framing


_unframed: Final = _Unframed()


def _untorn(data: bytes) -> bool:
    """Whether each of several chunks ends with an event, so that no event is in two of them."""
    return data.count(b"\r\n") == 2 * data.count(b"\n\n\r\n")


class StreamTap:
    """Watches a stream of events.

    Only two events of a stream speak of usage, so nearly every piece is passed over by one
    search; it is parsed only if it does, or if it begins or ends within an event.
    """

    __slots__ = (
        "_aligned",
        "_chunks",
        "_closing",
        "_ending",
        "_events",
        "_framing",
        "_last",
        "_quiet",
        "_usage",
    )

    def __init__(self) -> None:
        self._framing: ChunkScanner | _Unframed = _unframed
        self._chunks: ChunkReader | None = None
        self._ending = b"\n\n"
        self._events = EventReader()
        self._aligned = True  # between two chunks and between two events
        self._closing = False  # the event before the last one was seen: all is parsed
        self._quiet = True  # aligned, and not closing
        self._last = b""
        self._usage = Usage()

    def framed_by(self, scanner: ChunkScanner) -> None:
        """See net.splice.Tap."""
        self._framing = scanner
        self._chunks = ChunkReader()
        self._ending = b"\n\n\r\n"

    def feed(self, data: bytes) -> None:
        """Look at a piece."""
        framing = self._framing
        if (
            self._quiet
            and _USAGE not in data
            and data.endswith(self._ending)
            and (framing.single or (not framing.left and _untorn(data)))
        ):
            self._last = data
        else:
            self._parse(data)

    def between_events(self) -> bool:
        """Whether what has passed ends with a whole event."""
        return self._aligned

    def finish(self) -> Usage:
        """What the stream said of its usage."""
        usage = self._usage
        if not usage.complete and (ending := _ENDING.search(self._last)) is not None:
            usage.complete = True
            usage.error = ending[0].startswith(b"event")
        return usage

    def _parse(self, data: bytes) -> None:
        payload = data if self._chunks is None else self._chunks.feed(data)
        self._usage.complete = self._usage.complete or _ENDING.search(self._last) is not None
        self._last = b""
        for event in self._events.feed(payload):
            if _USAGE in event.data and record_event(self._usage, event.data):
                self._closing = True
            if event.name == b"error":
                self._usage.complete = self._usage.error = True
            elif b'"message_stop"' in event.data:
                self._usage.complete = True
        self._aligned = not self._framing.left and not self._events.pending
        self._quiet = self._aligned and not self._closing
