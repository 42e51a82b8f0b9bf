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


class Request:
    """A request without its body. Immutable once it is read.

    `target` is as received (`/v1/messages?beta=true`), `path` is its part before the query.
    `headers` has every field but Content-Length; the values of a repeated field are joined by
    `, `. `onward` holds the end-to-end field lines, each with its CRLF, ready for the head of
    an upstream request. `length` is the body's octets or CHUNKED.
    """

    __slots__ = (
        "expects_continue",
        "headers",
        "http11",
        "keep_alive",
        "length",
        "method",
        "onward",
        "path",
        "target",
    )

    def __init__(
        self,
        method: bytes,
        target: bytes,
        path: bytes,
        headers: dict[bytes, bytes],
        onward: bytes,
        length: int,
    ) -> None:
        self.method = method
        self.target = target
        self.path = path
        self.headers = headers
        self.onward = onward
        self.length = length
        # The readers change these for a request that differs.
        self.keep_alive = True
        self.http11 = True
        self.expects_continue = False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Request) and self._values() == other._values()

    def _values(self) -> tuple[object, ...]:
        return (
            self.method,
            self.target,
            self.path,
            self.headers,
            self.onward,
            self.length,
            self.keep_alive,
            self.http11,
            self.expects_continue,
        )


class Response:
    """A response without its body; `length` is octets, CHUNKED or UNTIL_CLOSE.

    `headers` has the fields of wire.headers.READ_OF_ANSWER (of an error: READ_OF_ERROR) but
    Content-Length; `onward` has the lines of those that go to the caller. Immutable.
    """

    __slots__ = ("headers", "keep_alive", "length", "onward", "status")

    def __init__(
        self,
        status: int,
        headers: dict[bytes, bytes],
        onward: bytes,
        length: int,
        keep_alive: bool,
    ) -> None:
        self.status = status
        self.headers = headers
        self.onward = onward
        self.length = length
        self.keep_alive = keep_alive

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Response) and (
            (self.status, self.headers, self.onward, self.length, self.keep_alive)
            == (other.status, other.headers, other.onward, other.length, other.keep_alive)
        )
