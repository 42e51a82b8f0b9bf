"""Which pages of a browser may read the API's answers (CORS).

Decides from `server.cors_origins` and a request's `Origin`. Keys are in header fields and no cookie
counts at the API, so any page may ask by default. Must not know endpoints.
"""

import re
from collections.abc import Sequence
from typing import Final

ANY: Final = "*"
_READABLE: Final = b"access-control-expose-headers: *\r\n"
_ANY_ORIGIN: Final = b"access-control-allow-origin: *\r\n" + _READABLE
_ONE_ORIGIN: Final = b"access-control-allow-origin: %b\r\nvary: origin\r\n" + _READABLE
_OTHER_ORIGIN: Final = b"vary: origin\r\n"
_FIELD_NAMES: Final = re.compile(rb"[A-Za-z0-9_\-, ]{1,1024}")
_USUAL_FIELDS: Final = b"authorization, content-type, x-api-key, anthropic-version, anthropic-beta"
_PREFLIGHT: Final = (
    b"access-control-allow-methods: GET, POST, DELETE, OPTIONS\r\n"
    b"access-control-allow-headers: %b\r\n"
    b"access-control-max-age: 7200\r\n"
)


class Cors:
    """See the module. `constant`: the field lines of each answer; empty if they depend on the
    request, or there are none."""

    __slots__ = ("_origins", "constant")

    def __init__(self, origins: Sequence[str]) -> None:
        """`origins`: `*` for any, else schemes with hosts as browsers send them."""
        self.constant = _ANY_ORIGIN if ANY in origins else b""
        self._origins = frozenset(origin.encode() for origin in origins)

    def fields(self, headers: dict[bytes, bytes]) -> bytes:
        """The field lines of the answer to a request with these `headers`."""
        if self.constant or not self._origins:
            return self.constant
        origin = headers.get(b"origin", b"")
        return _ONE_ORIGIN % origin if origin in self._origins else _OTHER_ORIGIN

    def preflight_fields(self, headers: dict[bytes, bytes]) -> bytes:
        """The field lines of the answer to a browser that asks what it may send."""
        asked = headers.get(b"access-control-request-headers", b"")
        names = asked if _FIELD_NAMES.fullmatch(asked) else _USUAL_FIELDS
        return self.fields(headers) + _PREFLIGHT % names
