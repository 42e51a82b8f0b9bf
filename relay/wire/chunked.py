"""Reads the chunked coding (RFC 9112 §7.1) in two ways.

`ChunkScanner` finds chunk boundaries and returns the same octets with their framing, for a
splice. It stops before the last chunk, so that the splice decides when and how the body
ends, and returns no octet after the end. `ChunkReader` removes the framing. Both are strict:
sizes are plain hex digits, lines end in CR LF, and no trailer field may concern framing.
"""

import re
from typing import ClassVar, Final

from relay.errors import INVALID_REQUEST, RelayError
from relay.wire.headers import HOP_BY_HOP

LAST_CHUNK: Final = b"0\r\n\r\n"

_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,8})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_SIZE_LINE_PART: Final = re.compile(
    rb"[0-9A-Fa-f]{1,8}(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*|[ \t]*)?\r?"
)
_MAX_SIZE_LINE: Final = 256  # octets
_MAX_TRAILERS: Final = 8 * 1024  # octets
_TRAILER: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[\x20-\x7e\t\x80-\xff]*")
_TRAILER_PART: Final = re.compile(
    rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+(?::[\x20-\x7e\t\x80-\xff]*\r?)?)?"
)
_FORBIDDEN_TRAILERS: Final = HOP_BY_HOP | {
    b"content-length",
    b"host",
    b"content-encoding",
    b"content-type",
}
_MAX_CACHED_SIZES: Final = 4096

_HEAD_OCTETS: Final = 5  # three digits and CR LF: the chunk of any usual event
_CR: Final = 0x0D
_LF: Final = 0x0A

# Size line → size: a look-up costs a tenth of a match and int().
_sizes: Final[dict[bytes, int]] = {}
# The first octets of a small chunk → all its octets. Upstreams send an event as one chunk, and most
# reads bring one event: a look-up shows that such a read is exactly one chunk.
_totals: Final[dict[bytes, int]] = {}


def _coding_error(message: str) -> RelayError:
    return RelayError(INVALID_REQUEST, message)


def _read_size(line: bytes) -> int:
    """Parse and cache the size on a chunk's first line."""
    match = _SIZE_LINE.fullmatch(line)
    if match is None or len(line) > _MAX_SIZE_LINE:
        raise _coding_error("A chunk's size is malformed.")
    size = int(match[1], 16)
    if len(line) <= 8:
        if len(_sizes) >= _MAX_CACHED_SIZES:
            _sizes.clear()
        _sizes[line] = size
    return size


def _remember_total(head: bytes) -> None:
    """Cache the octets of the chunk that begins with `head`, if its size is known and small."""
    line, found, _ = head.partition(b"\r\n")
    length = _sizes.get(line)
    if found and length:
        if len(_totals) >= _MAX_CACHED_SIZES:
            _totals.clear()
        _totals[head] = len(line) + length + 4


def _check_size_part(part: bytes) -> None:
    """Refuse the beginning of a size line that no further octet can make legal."""
    size = len(part) - part.endswith(b"\r")
    if part and (size > _MAX_SIZE_LINE or _SIZE_LINE_PART.fullmatch(part) is None):
        raise _coding_error("A chunk's size is malformed.")


def _end_of_trailers(data: bytes) -> int:
    """Where the trailer section in `data` ends; -1 if it is incomplete.

    `data` starts with the CR LF of the last chunk's size line.
    """
    end = data.find(b"\r\n\r\n")
    if (end if end >= 0 else len(data) - 3) > _MAX_TRAILERS:
        raise _coding_error("The trailer section is too long.")
    lines = (data[2 : max(2, end)] if end >= 0 else data[2:]).split(b"\r\n")
    if end < 0:
        part = lines.pop()
        if b"\n" in part or not (part == b"\r" or _TRAILER_PART.fullmatch(part)):
            raise _coding_error("A trailer field is malformed.")
    for line in lines:
        match = _TRAILER.fullmatch(line)
        if match is None and line:
            raise _coding_error("A trailer field is malformed.")
        if match is not None and match[1].lower() in _FORBIDDEN_TRAILERS:
            raise _coding_error("A trailer field may not speak of framing.")
    return -1 if end < 0 else end + 4


class ChunkScanner:
    """Passes a chunked body on unchanged, up to its last chunk.

    `left` is the number of octets to the end of the current chunk, its CR LF included.
    `single` is whether the last piece was exactly one chunk: upstreams send an event so.
    `clear`: between two chunks, with no octets held. A piece that is exactly one chunk may then
    pass without `feed`.
    """

    __slots__ = ("_held", "_trailers", "clear", "done", "left", "rest", "single")

    def __init__(self) -> None:
        self.left = 0
        self.single = False
        self.done = False
        self.clear = True
        self.rest = b""
        self._held = b""  # a part of a size line, or a lone CR: not passed on yet
        self._trailers = False

    def at_boundary(self) -> bool:
        """Whether the octets passed on end with a complete chunk."""
        return not self.left

    def feed(self, data: bytes) -> bytes:
        """Take the next octets; return those to pass on.

        Raises:
            RelayError: the coding is broken.
        """
        if not self.clear:
            self.single = False
            data = self._scan(data)
        else:
            head = data[:_HEAD_OCTETS]
            if _totals.get(head) == len(data) and data[-1] == _LF and data[-2] == _CR:
                self.single = True
                return data
            self.single = False
            data = self._scan(data)
            _remember_total(head)
        self.clear = not (self.left or self._held or self._trailers)
        return data

    def _scan(self, data: bytes) -> bytes:
        """Find the chunks' ends, wherever the pieces are cut."""
        if self._held:
            data = self._held + data
            self._held = b""
        if self._trailers:
            self._read_trailers(data)
            return b""
        size = len(data)
        end = self.left  # of the current chunk
        while end <= size:
            if end and data[end - 2 : end] != b"\r\n":
                raise _coding_error("A chunk does not end where its size says.")
            if end == size:
                self.left = 0
                return data
            stop = data.find(b"\r\n", end, end + _MAX_SIZE_LINE + 2)
            if stop < 0:
                self._held = data[end:]
                _check_size_part(self._held)
                self.left = 0
                return data[:end]
            line = data[end:stop]
            length = _sizes.get(line)
            if length is None:
                length = _read_size(line)
            if not length:
                self.left = 0
                self._read_trailers(data[stop:])
                return data[:end]
            end = stop + 2 + length + 2
        if end - size == 1:  # CR and LF are checked together
            self._held = data[-1:]
            if self._held != b"\r":
                raise _coding_error("A chunk does not end where its size says.")
            self.left = 2
            return data[:-1]
        self.left = end - size
        return data

    def _read_trailers(self, data: bytes) -> None:
        self._trailers = True
        end = _end_of_trailers(data)
        if end < 0:
            self._held = data
        else:
            self.done = True
            self.rest = data[end:]


class ChunkReader:
    """Removes the chunked coding: octets in, payload out."""

    __slots__ = ("_buffer", "_clear", "_in_chunk", "_left", "_trailers", "done", "rest")

    single: ClassVar[bool] = False  # see ChunkScanner

    def __init__(self) -> None:
        self._buffer = b""
        self._clear = True  # between two chunks, with no octets held
        self._left = 0
        self._in_chunk = False
        self._trailers = False
        self.done = False
        self.rest = b""

    def at_boundary(self) -> bool:
        """Always: the payload has no framing."""
        return True

    def feed(self, data: bytes) -> bytes:
        """Take the next octets; return the payload among them.

        Raises:
            RelayError: the coding is broken.
        """
        if not self._clear:
            data = self._read(data)
        else:
            head = data[:_HEAD_OCTETS]
            if _totals.get(head) == len(data) and data[-1] == _LF and data[-2] == _CR:
                return data[head.index(b"\n") + 1 : -2]
            data = self._read(data)
            _remember_total(head)
        held = self._buffer or self._left or self._in_chunk or self._trailers
        self._clear = not (held or self.done)
        return data

    def _read(self, data: bytes) -> bytes:
        """Remove the coding, wherever the pieces are cut."""
        buffer = self._buffer + data if self._buffer else data
        payload: list[bytes] = []
        at = 0
        while not self.done:
            if self._trailers:
                end = _end_of_trailers(buffer[at:])
                if end < 0:
                    break
                at += end
                self.done = True
            elif self._left:
                piece = buffer[at : at + self._left]
                if not piece:
                    break
                payload.append(piece)
                at += len(piece)
                self._left -= len(piece)
            elif self._in_chunk:
                if len(buffer) - at < 2:
                    if buffer[at:] not in (b"", b"\r"):
                        raise _coding_error("A chunk does not end where its size says.")
                    break
                if buffer[at : at + 2] != b"\r\n":
                    raise _coding_error("A chunk does not end where its size says.")
                at += 2
                self._in_chunk = False
            else:
                stop = buffer.find(b"\r\n", at, at + _MAX_SIZE_LINE + 2)
                if stop < 0:
                    _check_size_part(buffer[at:])
                    break
                line = buffer[at:stop]
                length = _sizes.get(line)
                self._left = length = _read_size(line) if length is None else length
                at = stop + 2
                end = at + length
                if length and buffer[end : end + 2] == b"\r\n":  # a complete chunk
                    payload.append(buffer[at:end])
                    at = end + 2
                    self._left = 0
                    continue
                self._in_chunk = True
                if not self._left:
                    self._trailers = True
                    at = stop
        self._buffer = b"" if self.done else buffer[at:]
        if self.done:
            self.rest = buffer[at:]
        return payload[0] if len(payload) == 1 else b"".join(payload)
