"""Reads the usage of an answer from its octets as they pass.

Decides which octets are parsed: of a stream, mainly the two events with usage; of a document, all.
A tap must not change, delay or copy octets. Must not know prices or plans.
"""

import re
from typing import Final

from relay.translate.messages.answer_form import is_untyped_error
from relay.translate.messages.counts import Usage, event_type, message_usage, record_event
from relay.wire.chunked import ChunkReader, ChunkScanner
from relay.wire.sse import EventReader

__all__ = ["DATA_OCTETS", "JsonTap", "NoTap", "StreamTap", "Usage", "message_usage", "record_event"]

_USAGE: Final = b'"usage"'
_MAX_JSON_OCTETS: Final = 32 * 1024 * 1024
_ENDS: Final = frozenset({b"message_stop", b"error"})
_STOP: Final = b'"message_stop"'
_LAST_EVENT: Final = re.compile(rb"message_stop|^event: ?error", re.MULTILINE)
_DELTA: Final = b"content_block_delta"
_DELTA_HEAD: Final = b"event: content_block_delta\ndata:"
_CHUNK_END: Final = b"\n\n\r\n"  # of an event in a chunk of its own
_CHUNK_HEADS: Final = (4, 5)  # octets of the first line of a small chunk
# The first octets of a chunk that is one event of content, up to the event's data, and all the
# octets of that chunk. A look-up shows at once the size of a chunk and the kind of its event.
_passing: Final[dict[bytes, int]] = {}
_PASSING_OCTETS: Final = _CHUNK_HEADS[-1] + len(_DELTA_HEAD)
_MAX_PASSING: Final = 4096
# The start of an event with content, and a piece that has only such events, in chunks or without.
_CONTENT: Final = (
    rb'(?:event: ?content_block_delta\r?\ndata:|data: ?\{"type": ?"content_block_delta")'
)
_starts_content: Final = re.compile(
    rb'(?:event: ?|data: ?\{"type": ?")content_block_(?:delta|start)'
).match
_is_content: Final = re.compile(
    rb"(?:(?:[0-9A-Fa-f]{1,8}\r\n)?" + _CONTENT + rb"[^\r\n]*+\r?\n\r?\n(?:\r\n)?+)++"
).fullmatch
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
    clear = False  # no piece is a chunk


_unframed: Final = _Unframed()


def _chunks_end_with_events(data: bytes) -> bool:
    """Whether each of several chunks ends with an event, so no event is in two chunks."""
    return data.count(b"\r\n") == 2 * data.count(b"\n\n\r\n")


class StreamTap:
    """A tap for a stream of events.

    Nearly all pieces are complete events of content. One match recognises them, and they have no
    usage. All others are parsed.
    """

    __slots__ = (
        "_aligned",
        "_chunks",
        "_closing",
        "_events",
        "_framing",
        "_last",
        "_last_data",
        "_others",
        "_passed",
        "_quiet",
        "_text",
        "_usage",
    )

    def __init__(self) -> None:
        self._framing: ChunkScanner | _Unframed = _unframed
        self._chunks: ChunkReader | None = None
        self._others: list[tuple[bytes, bytes]] = []  # events that are no content
        self._events = EventReader()
        self._aligned = True  # between two chunks and between two events
        self._closing = False  # `message_delta` has passed: parse every piece after it
        self._quiet = True  # aligned, and not closing
        self._last = b""
        self._last_data = b""  # of the last event that was parsed
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
        if payload:
            self._read(payload)

    def passes(self, data: bytes) -> bool:
        """Note a piece that is one event of content in a chunk of its own, as nearly all are.

        False: it may be anything else, and both the framing and `feed` must take it.
        """
        if not self._quiet or not self._framing.clear:
            return False
        size = len(data)
        if (
            _passing.get(data[:_PASSING_OCTETS]) != size
            or data[-len(_CHUNK_END) :] != _CHUNK_END
            or data.find(b"\n", _PASSING_OCTETS) != size - len(_CHUNK_END)  # no further line,
            or data.find(b"\r", _PASSING_OCTETS) != size - 2  # which CR alone may end, too
        ):
            return False
        self._last = data
        self._passed += size + _ONE_EVENT
        return True

    def feed(self, data: bytes) -> bool:
        """Read a piece of the stream; False if it is complete events of content only."""
        framing = self._framing
        if self._quiet and _is_content(data) is not None:
            if framing.single:
                self._last = data
                self._passed += len(data) + _ONE_EVENT
                if framing.clear:
                    _remember(data)
                return False
            if not framing.left and _chunks_end_with_events(data):
                self._last = data
                self._passed += len(data) + data.count(b"\n\n\r\n") * _ONE_EVENT
                return False
        self._parse(data)
        return True

    def take_others(self) -> list[tuple[bytes, bytes]]:
        """Name and data of the events that are no content, each once."""
        others, self._others = self._others, []
        return others

    def incomplete(self) -> bytes:
        """The part of an event that has come without its end; empty if it is content."""
        part = self._events.incomplete
        return b"" if _starts_content(part) is not None else part

    def between_events(self) -> bool:
        """Whether the last piece ended with an event."""
        return self._aligned

    def finish(self) -> Usage:
        """The usage of the stream."""
        usage = self._usage
        if not self._closing:
            usage.passed = self._text + _text_octets(self._passed, self._last)
        if not usage.complete:
            if self._last:  # not parsed yet, as it ended between two events
                self._parse_last(self._last)
            if usage.stop_reason is None:  # a last event without usage may have it
                record_event(usage, self._last_data)
        return usage

    @property
    def error(self) -> bytes:
        """The data of an error object that is no error event and was the last of the stream."""
        data = self._last_data
        return data if is_untyped_error(data) else b""

    def _parse(self, data: bytes) -> None:
        self._read(data if self._chunks is None else self._chunks.feed(data))

    def _parse_last(self, last: bytes) -> None:
        """Read a piece that was not parsed: complete chunks, and complete events."""
        payload = last if self._chunks is None else ChunkReader().feed(last)
        for name, data in EventReader().feed(payload):
            self._end_by(name, data)
            self._last_data = data

    def _read(self, payload: bytes) -> None:
        last, self._last = self._last, b""
        if not self._usage.complete and _LAST_EVENT.search(last) is not None:
            self._parse_last(last)
        for name, data in self._events.feed(payload):
            if name == _DELTA or (not name and data.find(_DELTA) >= 0):
                self._text += max(0, len(data) - DATA_OCTETS)
            else:
                self._others.append((name, data))
            if data.find(_USAGE) >= 0 and record_event(self._usage, data):
                self._closing = True
            if name in _ENDS or data.find(_STOP) >= 0:
                self._end_by(name, data)
            self._last_data = data
        self._aligned = not self._framing.left and not self._events.pending
        self._quiet = self._aligned and not self._closing

    def _end_by(self, name: bytes, data: bytes) -> None:
        """Note the end of the stream, if this event is one. A text may name such an event."""
        if name == b"message_stop":
            self._usage.complete = True
        elif name == b"error":
            self._usage.complete = self._usage.error = True
        elif not name.startswith(b"content_block") and data.find(_STOP) >= 0:
            self._usage.complete = self._usage.complete or event_type(data) == "message_stop"


def _remember(data: bytes) -> None:
    """Remember the first octets of a chunk that is nothing but events of content."""
    least, most = _CHUNK_HEADS
    if data.startswith(_DELTA_HEAD, least) or data.startswith(_DELTA_HEAD, most):
        if len(_passing) >= _MAX_PASSING:
            _passing.clear()
        _passing[data[:_PASSING_OCTETS]] = len(data)


def _text_octets(passed: int, sample: bytes) -> int:
    """Estimate the octets of text in the events that passed without being parsed.

    `passed` is their count and octets (`_ONE_EVENT`), `sample` the last of their pieces. The octets
    of an event around its text are as many in every event of a stream, so the sample shows them. It
    also shows whether one chunk has several events.
    """
    octets, events = passed & _OCTETS, passed >> 36
    texts: list[bytes] = _TEXT.findall(sample)
    if not texts:
        return max(0, octets - events * _EVENT_OCTETS)
    text = sum([len(piece) - piece.count(b"\\") for piece in texts])
    if len(texts) > max(1, sample.count(b"\n\n\r\n")):
        return octets * text // len(sample)
    return max(0, octets - events * (len(sample) - text) // len(texts))
