"""Reads the usage of an answer from its octets as they pass.

Decides which octets are read: two events of a stream, and the whole of a document. A tap must not
change, delay or copy octets. Must not know prices or plans.
"""

import re
from typing import Final

from relay.translate.messages.counts import Usage, message_usage, record_event
from relay.wire.chunked import ChunkReader, ChunkScanner
from relay.wire.sse import EventReader

__all__ = ["DATA_OCTETS", "JsonTap", "NoTap", "StreamTap", "Usage", "message_usage", "record_event"]

_USAGE: Final = b'"usage"'
_MAX_JSON_OCTETS: Final = 32 * 1024 * 1024
_LAST_EVENT: Final = re.compile(rb'"message_stop"|^event: ?error', re.MULTILINE)
_DELTA: Final = b"content_block_delta"
_TEXT: Final = re.compile(rb'"(?:text|thinking|partial_json)": ?"((?:[^"\\]|\\.)*)"', re.DOTALL)
_EVENT_OCTETS: Final = 121  # of a delta without its text, in a chunk of its own
DATA_OCTETS: Final = 80  # of its data alone
# One integer counts octets and, above them, events: an addition per piece is all that it costs.
_ONE_EVENT: Final = 1 << 36
_OCTETS: Final = _ONE_EVENT - 1


class NoTap:
    """A tap for errors, which have no usage, and for encoded answers, which cannot be read."""

    def begin(
        self, payload: bytes, scanner: ChunkScanner | None, chunks: ChunkReader | None
    ) -> None:
        """See `net.upstream.splice.Tap`."""

    def feed(self, data: bytes) -> None:
        """Ignore the octets."""

    def between_events(self) -> bool:
        """False: there are no events."""
        return False

    def finish(self) -> Usage:
        """No counts; the answer is complete, because its framing was."""
        return Usage(complete=True)


class JsonTap:
    """A tap for a JSON document, which is read at its end."""

    __slots__ = ("_chunks", "_first", "_pieces", "_size")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        self._first = b""  # the payload that was looked at ahead
        self._chunks: ChunkReader | None = None

    def begin(
        self, payload: bytes, scanner: ChunkScanner | None, chunks: ChunkReader | None
    ) -> None:
        """See `net.upstream.splice.Tap`."""
        self._first = payload
        self._size = len(payload)
        self._chunks = chunks

    def feed(self, data: bytes) -> None:
        """Keep the piece, not a copy of it, until the end."""
        self._size += len(data)
        if self._size <= _MAX_JSON_OCTETS:
            self._pieces.append(data)

    def between_events(self) -> bool:
        """False: there are no events."""
        return False

    def finish(self) -> Usage:
        """The usage of the document."""
        pieces = self._pieces
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if self._chunks is not None:
            body = self._chunks.feed(body)
        usage = message_usage(self._first + body)
        usage.complete = usage.complete or self._size > _MAX_JSON_OCTETS
        return usage


class _Unframed:
    """The framing of a stream that is not chunked; see ChunkScanner."""

    left = 0
    single = True  # no chunk can end within an event


_unframed: Final = _Unframed()


def _chunks_end_with_events(data: bytes) -> bool:
    """Whether each of several chunks ends with an event, so no event is in two chunks."""
    return data.count(b"\r\n") == 2 * data.count(b"\n\n\r\n")


class StreamTap:
    """A tap for a stream of events.

    Only two events of a stream have usage, so one search is enough for nearly every piece. A
    piece is parsed only if it has usage, or begins or ends within an event.
    """

    __slots__ = (
        "_aligned",
        "_chunks",
        "_closing",
        "_ending",
        "_events",
        "_framing",
        "_last",
        "_passed",
        "_quiet",
        "_text",
        "_usage",
    )

    def __init__(self) -> None:
        self._framing: ChunkScanner | _Unframed = _unframed
        self._chunks: ChunkReader | None = None
        self._ending = b"\n\n"
        self._events = EventReader()
        self._aligned = True  # between two chunks and between two events
        self._closing = False  # the last event but one has passed: parse the rest
        self._quiet = True  # aligned, and not closing
        self._last = b""
        self._passed = 0  # events that were not parsed, and their octets
        self._text = 0  # octets of text in deltas that were parsed
        self._usage = Usage()

    def begin(
        self, payload: bytes, scanner: ChunkScanner | None, chunks: ChunkReader | None
    ) -> None:
        """See `net.upstream.splice.Tap`."""
        if scanner is not None:
            self._framing = scanner
            self._chunks = chunks
            self._ending = b"\n\n\r\n"
        if payload:
            self._read(payload)

    def feed(self, data: bytes) -> None:
        """Read a piece of the stream."""
        framing = self._framing
        if self._quiet and _USAGE not in data and data.endswith(self._ending):
            if framing.single:
                self._last = data
                self._passed += len(data) + _ONE_EVENT
                return
            if not framing.left and _chunks_end_with_events(data):
                self._last = data
                self._passed += len(data) + data.count(b"\n\n\r\n") * _ONE_EVENT
                return
        self._parse(data)

    def between_events(self) -> bool:
        """Whether the last piece ended with an event."""
        return self._aligned

    def finish(self) -> Usage:
        """The usage of the stream."""
        usage = self._usage
        if not usage.complete and (ending := _LAST_EVENT.search(self._last)) is not None:
            usage.complete = True
            usage.error = ending[0].startswith(b"event")
        if not self._closing:
            usage.passed = self._text + _text_octets(self._passed, self._last)
        return usage

    def _parse(self, data: bytes) -> None:
        self._read(data if self._chunks is None else self._chunks.feed(data))

    def _read(self, payload: bytes) -> None:
        self._usage.complete = self._usage.complete or _LAST_EVENT.search(self._last) is not None
        self._last = b""
        for event in self._events.feed(payload):
            if event.name == _DELTA or (not event.name and _DELTA in event.data):
                self._text += max(0, len(event.data) - DATA_OCTETS)
            if _USAGE in event.data and record_event(self._usage, event.data):
                self._closing = True
            if event.name == b"error":
                self._usage.complete = self._usage.error = True
            elif b'"message_stop"' in event.data:
                self._usage.complete = True
        self._aligned = not self._framing.left and not self._events.pending
        self._quiet = self._aligned and not self._closing


def _text_octets(passed: int, sample: bytes) -> int:
    """About how many octets of text were in the events that passed unread.

    An event's framing has the same length throughout a stream. The last piece shows it, and
    whether several events came in one chunk.
    """
    octets, events = passed & _OCTETS, passed >> 36
    texts: list[bytes] = _TEXT.findall(sample)
    if not texts:
        return max(0, octets - events * _EVENT_OCTETS)
    text = sum([len(piece) - piece.count(b"\\") for piece in texts])
    if len(texts) > max(1, sample.count(b"\n\n\r\n")):
        return octets * text // len(sample)
    return max(0, octets - events * (len(sample) - text) // len(texts))
