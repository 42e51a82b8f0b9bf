"""The heads of a request and of a response, the same for every HTTP version.

Names are lower-case octets. Bodies follow as plain octets; `length` says where they end.
"""

from dataclasses import dataclass
from typing import Final

CHUNKED: Final = -1  # the chunked coding marks the body's end
UNTIL_CLOSE: Final = -2  # the body ends with the connection (responses only)


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest head to accept, as relay.config.HeadLimitSettings sets it."""

    request_line: int = 8 * 1024  # octets
    head: int = 32 * 1024  # octets
    fields: int = 100  # number of field lines


@dataclass(slots=True)
class Request:
    """A request without its body; immutable by convention, as `frozen` costs a microsecond.

    `target` is as received (`/v1/messages?beta=true`), `path` is its part before the query.
    `headers` has every field but Content-Length; the values of a repeated field are joined by
    `, `. `onward` holds the end-to-end field lines, each with its CRLF, ready for the head of
    an upstream request. `length` is the body's octets or CHUNKED.
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


@dataclass(slots=True)
class Response:
    """A response without its body; `length` is octets, CHUNKED or UNTIL_CLOSE.

    `headers` has the fields of wire.headers.READ_OF_ANSWER (of an error: READ_OF_ERROR) but
    Content-Length; `onward` has the lines of those that go to the caller. Immutable by
    convention, as Request.
    """

    status: int
    headers: dict[bytes, bytes]
    onward: bytes
    length: int
    keep_alive: bool
