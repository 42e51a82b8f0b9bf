"""The chunked coding (RFC 9112 §7.1), read in two ways.

`ChunkScanner` finds chunk boundaries in passing and gives the same octets back, framing
included, for a splice: it stops before the last chunk, so that whoever splices decides
when and how the body ends, and it never lets an octet past the end through.
`ChunkReader` takes the framing off. Both are strict: sizes are plain hex digits, lines
end in CR LF, and no trailer field may speak of framing.
"""

import re
from typing import Final

from relay.errors import INVALID_REQUEST, RelayError
from relay.wire.headers import HOP_BY_HOP

LAST_CHUNK: Final = b"0\r\n\r\n"

_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,8})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_SIZE_LINE_PART = re.compile(rb"[0-9A-Fa-f]{1,8}(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*|[ \t]*)?\r?")
_MAX_SIZE_LINE = 256
_MAX_TRAILERS = 8 * 1024
_TRAILER = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[\x20-\x7e\t\x80-\xff]*")
_FORBIDDEN_TRAILERS = HOP_BY_HOP | {
    b"content-length",
    b"host",
    b"content-encoding",
    b"content-type",
}
_REMEMBERED_SIZES = 4096

_sizes: dict[bytes, int] = {}  # size line → size: a look-up costs a tenth of a match and int()


def _bad(message: str) -> RelayError:
    return RelayError(INVALID_REQUEST, message)


def _size(line: bytes) -> int:
    """The size that a chunk's first line tells."""
    match = _SIZE_LINE.fullmatch(line)
    if match is None or len(line) > _MAX_SIZE_LINE:
        raise _bad("A chunk's size is malformed.")
    size = int(match[1], 16)
    if len(line) <= 8:
        if len(_sizes) >= _REMEMBERED_SIZES:
            _sizes.clear()
        _sizes[line] = size
    return size


def _judge_size_part(part: bytes) -> None:
    """Refuse the beginning of a size line that no further octet can make right."""
    size = len(part) - part.endswith(b"\r")
    if part and (size > _MAX_SIZE_LINE or _SIZE_LINE_PART.fullmatch(part) is None):
        raise _bad("A chunk's size is malformed.")


def _end_of_trailers(data: bytes) -> int:
    """Where the trailer section that begins `data` (after the CR LF of the size line) ends; -1."""
    end = data.find(b"\r\n\r\n")
    if (end if end >= 0 else len(data) - 3) > _MAX_TRAILERS:
        raise _bad("The trailer section is too long.")
    lines = (data[2:end] if end >= 0 else data[2:]).split(b"\r\n")
    if end < 0:
        part = lines.pop()
        if b"\n" in part or not (part == b"\r" or re.fullmatch(_PART_OF_TRAILER, part)):
            raise _bad("A trailer field is malformed.")
    for line in lines:
        match = _TRAILER.fullmatch(line)
        if match is None and line:
            raise _bad("A trailer field is malformed.")
        if match is not None and match[1].lower() in _FORBIDDEN_TRAILERS:
            raise _bad("A trailer field may not speak of framing.")
    return -1 if end < 0 else end + 4


_PART_OF_TRAILER = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+(?::[\x20-\x7e\t\x80-\xff]*\r?)?)?")


class ChunkScanner:
    """Passes a chunked body on as it is, up to its last chunk.

    `left` counts the octets to the end of the chunk under way, its CR LF included. `single`
    tells whether the last piece was one whole chunk: how upstreams send an event.
    """

    __slots__ = ("_clear", "_held", "_trailers", "done", "left", "rest", "single")

    def __init__(self) -> None:
        self.left = 0
        self.single = False
        self.done = False
        self._clear = True  # between two chunks, with nothing held
        self.rest = b""
        self._held = b""  # an unfinished size line, or a lone CR: not passed on yet
        self._trailers = False

    def at_boundary(self) -> bool:
        """Whether all that was passed on ends with a whole chunk."""
        return not self.left

    def feed(self, data: bytes) -> bytes:
        """Take the next octets; return those to pass on.

        Raises:
            RelayError: the coding is broken.
        """
        size = len(data)
        if self._clear:
            stop = data.find(b"\r\n", 0, 10)
            length = _sizes.get(data[:stop])
            if length and stop + length + 4 == size and data.endswith(b"\r\n"):
                self.single = True
                return data
        self.single = False
        data = self._scan(data)
        self._clear = not (self.left or self._held or self._trailers)
        return data

    def _scan(self, data: bytes) -> bytes:
        """Find the chunks' ends, wherever the pieces were cut."""
        if self._held:
            data = self._held + data
            self._held = b""
        if self._trailers:
            self._read_trailers(data)
            return b""
        size = len(data)
        end = self.left  # of the chunk under way
        while end <= size:
            if end and data[end - 2 : end] != b"\r\n":
                raise _bad("A chunk does not end where its size says.")
            if end == size:
                self.left = 0
                return data
            stop = data.find(b"\r\n", end, end + _MAX_SIZE_LINE + 2)
            if stop < 0:
                self._held = data[end:]
                _judge_size_part(self._held)
                self.left = 0
                return data[:end]
            line = data[end:stop]
            length = _sizes.get(line)
            if length is None:
                length = _size(line)
            if not length:
                self.left = 0
                self._read_trailers(data[stop:])
                return data[:end]
            end = stop + 2 + length + 2
        if end - size == 1:  # CR and LF are judged together
            self._held = data[-1:]
            if self._held != b"\r":
                raise _bad("A chunk does not end where its size says.")
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
    """Takes the chunked coding off: octets in, payload out."""

    __slots__ = ("_buffer", "_in_chunk", "_left", "_trailers", "done", "rest")

    def __init__(self) -> None:
        self._buffer = b""
        self._left = 0
        self._in_chunk = False
        self._trailers = False
        self.done = False
        self.rest = b""

    def at_boundary(self) -> bool:
        """Always: what it returns has no framing."""
        return True

    def feed(self, data: bytes) -> bytes:
        """Take the next octets; return the payload among them.

        Raises:
            RelayError: the coding is broken.
        """
        buffer = self._buffer + data if self._buffer else data
        payload = []
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
                        raise _bad("A chunk does not end where its size says.")
                    break
                if buffer[at : at + 2] != b"\r\n":
                    raise _bad("A chunk does not end where its size says.")
                at += 2
                self._in_chunk = False
            else:
                stop = buffer.find(b"\r\n", at, at + _MAX_SIZE_LINE + 2)
                if stop < 0:
                    _judge_size_part(buffer[at:])
                    break
                self._left = _size(buffer[at:stop])
                self._in_chunk = True
                at = stop + 2
                if not self._left:
                    self._trailers = True
                    at = stop
        self._buffer = b"" if self.done else buffer[at:]
        if self.done:
            self.rest = buffer[at:]
        return payload[0] if len(payload) == 1 else b"".join(payload)
