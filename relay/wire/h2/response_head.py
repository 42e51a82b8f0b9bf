"""Writes the header blocks of responses (HPACK, RFC 7541 §6).

Literals without indexing: a block depends on no table, so that the octets of a line that comes
again are a look-up. Names have an index where the static table has one.

Decides how a field line of HTTP/1.1 looks in HTTP/2. Must not know what lines an answer has.
"""

from typing import Final

from relay.wire.h2.hpack import STATIC
from relay.wire.headers import HOP_BY_HOP

_MAX_CACHED: Final = 512
# Their values differ from answer to answer.
_UNCACHED: Final = frozenset({b"request-id", b"x-request-id", b"server-timing", b"content-length"})
_MAX_CACHED_OCTETS: Final = 128  # of one line

NO_TABLE: Final = b"\x20"  # a dynamic table size update to 0 (RFC 7541 §6.3)


def _integer(value: int, prefix: int, first: int) -> bytes:
    """RFC 7541 §5.1; `prefix` is the mask of the first octet's bits, `first` its other bits."""
    if value < prefix:
        return bytes((first | value,))
    out = bytearray((first | prefix,))
    value -= prefix
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_NAME_INDEX: Final[dict[bytes, int]] = {
    field[0]: index for index, field in reversed(list(enumerate(STATIC))) if index
}
_LENGTH_OCTETS: Final = [_integer(length, 0x7F, 0) for length in range(0x7F)]
_STATUSES: Final[dict[int, bytes]] = {
    int(field[1]): bytes((0x80 | index,))
    for index, field in enumerate(STATIC)
    if field[0] == b":status"
}
CONTENT_LENGTH: Final = _integer(_NAME_INDEX[b"content-length"], 0x0F, 0)

_names: Final[dict[bytes, bytes]] = {}
_lines: Final[dict[bytes, bytes]] = {b"": b""}


def status_field(status: int) -> bytes:
    """The `:status` of a response."""
    known = _STATUSES.get(status)
    if known is None:
        known = _STATUSES[status] = _integer(_NAME_INDEX[b":status"], 0x0F, 0) + b"\x03%d" % status
    return known


def length_field(length: int) -> bytes:
    """The `content-length` of a response."""
    digits = b"%d" % length
    return CONTENT_LENGTH + _LENGTH_OCTETS[len(digits)] + digits


def fields_block(lines: bytes) -> bytes:
    """The fields of these lines, each with its CR LF, without those of a connection."""
    known = _lines.get
    out = []
    for line in lines.split(b"\r\n"):
        coded = known(line)
        out.append(_line(line) if coded is None else coded)
    return b"".join(out)


def _line(line: bytes) -> bytes:
    name, _, value = line.partition(b":")
    start = _names.get(name) or _name(name)
    value = value.strip(b" \t")
    size = len(value)
    coded = start + (_LENGTH_OCTETS[size] if size < 0x7F else _integer(size, 0x7F, 0)) + value
    if name in HOP_BY_HOP:
        coded = b""
    if name not in _UNCACHED and len(line) <= _MAX_CACHED_OCTETS:
        if len(_lines) >= _MAX_CACHED:
            _lines.clear()
            _lines[b""] = b""
        _lines[line] = coded
    return coded


def _name(name: bytes) -> bytes:
    """The first octets of a literal with this name; its names are few, and the relay's own."""
    lower = name.lower()
    index = _NAME_INDEX.get(lower)
    if index is not None:
        coded = _integer(index, 0x0F, 0)
    else:
        coded = b"\x00" + _integer(len(lower), 0x7F, 0) + lower
    if len(_names) >= _MAX_CACHED:
        _names.clear()
    _names[name] = coded
    return coded
