"""Header fields of an HTTP/2 request, one at a time: legal or not, and which line goes onward.

A field is read once, when it enters a compression table or is first seen, and used many times.

Decides what RFC 9113 §8.2 and §8.3 say of a single field. Must not know the other fields of its
request.
"""

import re
from typing import Final, TypeAlias

from relay.wire.h1_legal import HOST
from relay.wire.headers import goes_upstream

REGULAR: Final = 0
PSEUDO: Final = 1
LENGTH: Final = 2  # content-length
SPECIAL: Final = 3  # host, cookie, expect
MALFORMED: Final = 4

# Name, value, the line to send onward with its CRLF (empty: none), kind, and size by RFC 7541 §4.1.
# A plain tuple, as a request unpacks one per field.
Field: TypeAlias = tuple[bytes, bytes, bytes, int, int]

FIELD_OCTETS: Final = 32  # RFC 7541 §4.1: the overhead of a field
_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE: Final = re.compile(
    rb"(?:[\x21-\x7e\x80-\xff](?:[\x20-\x7e\t\x80-\xff]*[\x21-\x7e\x80-\xff])?)?"
)
_PSEUDO: Final[dict[bytes, re.Pattern[bytes]]] = {
    b":method": re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"),
    b":scheme": re.compile(rb"https?"),
    b":path": re.compile(rb"/[!$%&'()*+,\-./0-9:;=?@A-Z\[\]_a-z|~]*|\*"),
    b":authority": HOST,
}
_SPECIAL: Final = frozenset({b"host", b"cookie", b"expect"})
_LENGTH_DIGITS: Final = re.compile(rb"[0-9]{1,15}")
# Fields of one connection of HTTP/1.1 (RFC 9113 §8.2.2).
_CONNECTION_FIELDS: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
)


def read_field(name: bytes, value: bytes) -> Field:
    """Check and classify one field."""
    size = len(name) + len(value) + FIELD_OCTETS
    line = b""
    if name.startswith(b":"):
        pattern = _PSEUDO.get(name)
        legal = pattern is not None and pattern.fullmatch(value) is not None
        kind = PSEUDO if legal else MALFORMED
    elif _NAME.fullmatch(name) is None or _VALUE.fullmatch(value) is None:
        kind = MALFORMED
    elif name == b"content-length":
        kind = LENGTH if _LENGTH_DIGITS.fullmatch(value) else MALFORMED
    elif name in _CONNECTION_FIELDS or (name == b"te" and value.lower() != b"trailers"):
        kind = MALFORMED
    elif name in _SPECIAL:
        kind = MALFORMED if name == b"host" and HOST.fullmatch(value) is None else SPECIAL
    else:
        kind = REGULAR
        if goes_upstream(name):
            line = b"%b: %b\r\n" % (name, value)
    return name, value, line, kind, size
