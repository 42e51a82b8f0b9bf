"""Reads the usage of an answer from its octets as they pass.

Decides which counts apply (Anthropic API docs, Streaming messages; some vendors differ): counts in
`message_delta` are cumulative and overwrite earlier ones; the last value that is not null counts;
zero input tokens in `message_start` mean unknown. A tap must not change, delay or copy octets.
Must not know prices or plans.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from relay.translate.messages.answer_form import is_untyped_error
from relay.wire.chunked import ChunkReader, ChunkScanner
from relay.wire.sse import EventReader

_USAGE: Final = b'"usage"'
_MAX_TOKENS: Final = 10**9  # in one answer; sums and prices must not overflow
_MAX_JSON_OCTETS: Final = 32 * 1024 * 1024
_ENDS: Final = frozenset({b"message_stop", b"error"})
_STOP: Final = b'"message_stop"'
_LAST_EVENT: Final = re.compile(rb"message_stop|^event: ?error", re.MULTILINE)


@dataclass(slots=True)
class Usage:
    """The token counts of one answer; None for a count that the upstream did not state.

    `complete`: the answer has ended properly. A document decodes; a stream has a `message_stop`,
    or an `error` event, which ends it as well.
    """

    input: int | None = None
    output: int | None = None
    cache_read: int | None = None
    cache_write: int | None = None
    model: str | None = None
    stop_reason: str | None = None
    complete: bool = False
    error: bool = False  # the answer is a stream, and an error event ended it
    thinking: int | None = None  # the part of `output` that is thinking


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


_decode_message: Final = msgspec.json.Decoder(_Message).decode
_decode_event: Final = msgspec.json.Decoder(_StreamEvent).decode


def _record_counts(usage: Usage, counts: _Counts | None, *, start: bool = False) -> None:
    """Record the counts that are stated; an impossible count is ignored."""
    if counts is None:
        return
    count = counts.input_tokens
    if count is not None and 0 <= count <= _MAX_TOKENS and (count or not start):
        usage.input = count
    count = counts.output_tokens
    if count is not None and 0 <= count <= _MAX_TOKENS:
        usage.output = count
    count = counts.cache_read_input_tokens
    if count is not None and 0 <= count <= _MAX_TOKENS:
        usage.cache_read = count
    count = counts.cache_creation_input_tokens
    if count is not None and 0 <= count <= _MAX_TOKENS:
        usage.cache_write = count
    if isinstance(counts.output_tokens_details, dict):
        count = counts.output_tokens_details.get("thinking_tokens")
        if type(count) is int and 0 <= count <= _MAX_TOKENS:  # a bool is an int, too
            usage.thinking = count


def record_event(usage: Usage, data: bytes) -> bool:
    """Record the usage in the data of an event; whether the event is a `message_delta`."""
    try:
        event = _decode_event(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    if event.type == "message_start" and event.message is not None:
        usage.model = event.message.model
        _record_counts(usage, event.message.usage, start=True)
    elif event.type == "message_delta":
        _record_counts(usage, event.usage)
        if isinstance(event.delta, dict):
            reason = event.delta.get("stop_reason")
            usage.stop_reason = reason if isinstance(reason, str) else usage.stop_reason
        return True
    return False


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


def message_usage(body: bytes) -> Usage:
    """The usage of a complete JSON document."""
    usage = Usage(complete=True)
    try:
        message = _decode_message(body)
    except (msgspec.ValidationError, UnicodeDecodeError, RecursionError):
        return usage  # it is complete; the caller can check its shape
    except msgspec.DecodeError:
        if b"\\ud" not in body.lower():
            usage.complete = False
            return usage
        try:  # a lone surrogate, which only the standard library reads
            members = json.loads(body)
            known = {name: members.get(name) for name in ("model", "stop_reason", "usage")}
            message = _decode_message(json.dumps(known))
        except (AttributeError, ValueError, RecursionError):
            usage.complete = False
            return usage
    usage.model = message.model
    usage.stop_reason = message.stop_reason
    _record_counts(usage, message.usage)
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
        "_last_data",
        "_quiet",
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
        self._last_data = b""  # of the last event that was parsed
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
        if (
            self._quiet
            and _USAGE not in data
            and data.endswith(self._ending)
            and (framing.single or (not framing.left and _chunks_end_with_events(data)))
        ):
            self._last = data
        else:
            self._parse(data)

    def between_events(self) -> bool:
        """Whether the last piece ended with an event."""
        return self._aligned

    def finish(self) -> Usage:
        """The usage of the stream."""
        usage = self._usage
        if not usage.complete:
            last, self._last = self._last, b""
            if last:  # not parsed yet, as it ended between two events
                self._parse_last(last)
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
            if _USAGE in data and record_event(self._usage, data):
                self._closing = True
            if name in _ENDS or _STOP in data:
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
        elif not name.startswith(b"content_block") and _STOP in data:
            self._usage.complete = self._usage.complete or _type(data) == "message_stop"


def _type(data: bytes) -> str:
    try:
        return _decode_event(data).type
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""
