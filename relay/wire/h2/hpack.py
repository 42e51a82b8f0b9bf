"""Decodes header blocks (HPACK, RFC 7541).

Each field is read (`fields.read_field`) when it enters the dynamic table; an indexed field is then
a look-up. Literals that clients repeat outside of the table, such as `:path`, are cached.

Decides whether a block can be decoded, and how much it may become. Must not know which fields a
request needs.
"""

from typing import Final

from relay.wire.h2.fields import Field, read_field
from relay.wire.h2.huffman import HuffmanError, decode
from relay.wire.headers import CREDENTIALS

TABLE_OCTETS: Final = 4096  # SETTINGS_HEADER_TABLE_SIZE: the default
_MAX_SIZE_UPDATES: Final = 4  # in one block; two are enough (RFC 7541 §4.2)
_MAX_INTEGER: Final = 1 << 24
_MAX_CACHED: Final = 1024
_MAX_CACHED_OCTETS: Final = 256  # of one literal

_STATIC_FIELDS: Final = (
    b":authority|:method GET|:method POST|:path /|:path /index.html|:scheme http|:scheme https|"
    b":status 200|:status 204|:status 206|:status 304|:status 400|:status 404|:status 500|"
    b"accept-charset|accept-encoding gzip, deflate|accept-language|accept-ranges|accept|"
    b"access-control-allow-origin|age|allow|authorization|cache-control|content-disposition|"
    b"content-encoding|content-language|content-length|content-location|content-range|"
    b"content-type|cookie|date|etag|expect|expires|from|host|if-match|if-modified-since|"
    b"if-none-match|if-range|if-unmodified-since|last-modified|link|location|max-forwards|"
    b"proxy-authenticate|proxy-authorization|range|referer|refresh|retry-after|server|set-cookie|"
    b"strict-transport-security|transfer-encoding|user-agent|vary|via|www-authenticate"
)
# RFC 7541 appendix A; index 0 is not used.
STATIC: Final[list[Field]] = [read_field(b":", b"")] + [
    read_field(text.partition(b" ")[0], text.partition(b" ")[2])
    for text in _STATIC_FIELDS.split(b"|")
]
_STATIC_SIZE: Final = len(STATIC)

_literals: Final[dict[tuple[bytes, bytes], Field]] = {}


class CompressionError(ValueError):
    """A block that cannot be decoded; the connection's table is lost with it."""


class HeaderBombError(ValueError):
    """A block that would become far larger than any head may be."""


def read_integer(block: bytes, at: int, prefix: int) -> tuple[int, int]:
    """The integer whose first octet is at `at` with a prefix of this mask, and where it ends.

    Raises:
        CompressionError: it is cut off, or too large.
    """
    try:
        value = block[at] & prefix
        at += 1
        if value < prefix:
            return value, at
        shift = 0
        while True:
            octet = block[at]
            at += 1
            value += (octet & 0x7F) << shift
            if octet < 0x80:
                break
            shift += 7
            if shift > 21:
                raise CompressionError
    except IndexError:
        raise CompressionError from None
    if value > _MAX_INTEGER:
        raise CompressionError
    return value, at


class HeaderDecoder:
    """The decoder of one connection. `max_octets` bounds a decoded block (RFC 7541 §4.1)."""

    __slots__ = ("_capacity", "_credential", "_entries", "_max_octets", "_octets", "version")

    def __init__(self, max_octets: int) -> None:
        self._max_octets = max_octets
        self._entries: list[Field] = []  # the newest is the last
        self._octets = 0
        self._capacity = TABLE_OCTETS
        # The last credential outside of the table: the shared cache has none.
        self._credential: tuple[tuple[bytes, bytes], Field] | None = None
        self.version = 0  # changes with the table

    def decode(self, block: bytes) -> list[Field]:
        """The fields of a complete block.

        Raises:
            CompressionError: it is not HPACK.
            HeaderBombError: the fields are far too large.
        """
        fields: list[Field] = []
        total = at = updates = 0
        size = len(block)
        entries = self._entries
        while at < size:
            octet = block[at]
            if octet >= 0x80:
                index = octet & 0x7F
                at += 1
                if index == 0x7F:
                    index, at = read_integer(block, at - 1, 0x7F)
                if index < _STATIC_SIZE:
                    if not index:
                        raise CompressionError
                    field = STATIC[index]
                else:
                    index -= _STATIC_SIZE - 1
                    if index > len(entries):
                        raise CompressionError
                    field = entries[-index]
            elif octet & 0xE0 == 0x20:
                updates += 1
                capacity, at = read_integer(block, at, 0x1F)
                if fields or capacity > TABLE_OCTETS or updates > _MAX_SIZE_UPDATES:
                    raise CompressionError
                self._resize(capacity)
                continue
            else:
                field, at = self._literal(block, at, octet)
            total += field[4]
            if total > self._max_octets:
                raise HeaderBombError
            fields.append(field)
        return fields

    def _literal(self, block: bytes, at: int, octet: int) -> tuple[Field, int]:
        is_added = octet >= 0x40
        index, at = read_integer(block, at, 0x3F if is_added else 0x0F)
        if not index:
            start = at
            at = _end_of_string(block, at)
            name = _string(block, start, at)
        elif index < _STATIC_SIZE:
            name = STATIC[index][0]
        else:
            index -= _STATIC_SIZE - 1
            if index > len(self._entries):
                raise CompressionError
            name = self._entries[-index][0]
        start = at
        at = _end_of_string(block, at)
        if is_added:
            field = read_field(name, _string(block, start, at))
            self._add(field)
            return field, at
        key = (name, block[start:at])
        known = _literals.get(key)
        if known is not None:
            return known, at
        credential = self._credential
        if credential is not None and credential[0] == key:
            return credential[1], at
        field = read_field(name, _string(block, start, at))
        if name in CREDENTIALS:
            self._credential = (key, field)
        elif field[4] <= _MAX_CACHED_OCTETS:
            if len(_literals) >= _MAX_CACHED:
                _literals.clear()
            _literals[key] = field
        return field, at

    def _add(self, field: Field) -> None:
        """Put a field into the table; one that is larger than the table empties it."""
        self.version += 1
        self._octets += field[4]
        self._entries.append(field)
        if self._octets > self._capacity:
            self._evict()

    def _resize(self, capacity: int) -> None:
        self.version += 1
        self._capacity = capacity
        if self._octets > capacity:
            self._evict()

    def _evict(self) -> None:
        entries = self._entries
        count = 0
        while self._octets > self._capacity:
            self._octets -= entries[count][4]
            count += 1
        del entries[:count]


def _end_of_string(block: bytes, at: int) -> int:
    """Where a string literal that begins at `at` ends. Raises CompressionError: it is cut off."""
    if at >= len(block):
        raise CompressionError
    length = block[at] & 0x7F
    if length == 0x7F:
        length, at = read_integer(block, at, 0x7F)
    else:
        at += 1
    if at + length > len(block):
        raise CompressionError
    return at + length


def _string(block: bytes, start: int, end: int) -> bytes:
    """The string literal of these octets, its length included. Raises CompressionError."""
    at = read_integer(block, start, 0x7F)[1]
    if block[start] < 0x80:
        return block[at:end]
    try:
        return decode(block[at:end])
    except HuffmanError:
        raise CompressionError from None
