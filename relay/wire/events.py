"""The heads of a request and of a response, as every HTTP version tells them.

Names are lower-case octets. Bodies follow as plain octets, with the extent told here.
"""

from typing import Final

import msgspec

CHUNKED: Final = -1  # the body's end is in its chunked coding
UNTIL_CLOSE: Final = -2  # the body ends with the connection (responses only)


class Limits(msgspec.Struct, frozen=True):
    """How long a head may be: octets, but for `fields`. Precedents in relay.config.Limits."""

    request_line: int = 8 * 1024
    head: int = 32 * 1024
    fields: int = 100


class Request(msgspec.Struct, frozen=True):
    """A request without its body.

    `target` is as received (`/v1/messages?beta=true`), `path` is its part before the query.
    `headers` has every field but Content-Length; one that came several times has its values
    joined by `, `. `onward` holds the end-to-end field lines, each with its CRLF, ready for
    the head of an upstream request. `length` is the body's octets or CHUNKED.
    """

    method: bytes
    target: bytes
    path: bytes
    headers: dict[bytes, bytes]
    onward: bytes
    length: int
    keep_alive: bool
    http11: bool = True
    expects_continue: bool = False


class Response(msgspec.Struct, frozen=True):
    """A response without its body; `length` is octets, CHUNKED or UNTIL_CLOSE.

    `headers` has the fields of wire.headers.READ_OF_ANSWER (of an error: READ_OF_ERROR) but
    Content-Length; `onward` the lines of those that the caller may see.
    """

    status: int
    headers: dict[bytes, bytes]
    onward: bytes
    length: int
    keep_alive: bool
