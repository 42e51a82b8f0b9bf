"""Makes a request of the fields of a header block (RFC 9113 §8.3.1).

Decides whether the fields are a legal request; the result is the same `Request` that HTTP/1.1 gives
for the same head. Must not know streams.
"""

from typing import Final
from urllib.parse import unquote_to_bytes

from relay.errors import EXPECTATION_FAILED, HEAD_TOO_LARGE, URI_TOO_LONG, RelayError
from relay.wire.events import CHUNKED, Limits, Request
from relay.wire.h2.fields import LENGTH, MALFORMED, PSEUDO, REGULAR, Field
from relay.wire.headers import CREDENTIALS, HOP_BY_HOP, secrets

_READ_OF_REFUSED: Final = frozenset({b":method", b":path", b"anthropic-version", b"origin"})
_FORBIDDEN_TRAILERS: Final = HOP_BY_HOP | {
    b"content-length",
    b"host",
    b"content-encoding",
    b"content-type",
}


class MalformedError(ValueError):
    """Fields that are no legal request (RFC 9113 §8.1.1)."""


def read_request(fields: list[Field], ended: bool) -> Request:
    """The request of these fields. `ended`: it has no body.

    Raises:
        MalformedError: they are no legal request.
        RelayError: 417, it expects what is not known here.
    """
    headers: dict[bytes, bytes] = {}
    onward: list[bytes] = []
    pseudo: dict[bytes, bytes] = {}
    length = CHUNKED
    for name, value, line, kind, _ in fields:
        if kind == REGULAR:
            if name in headers:
                headers[name] += b", " + value
            else:
                headers[name] = value
            if line:
                onward.append(line)
        elif kind == PSEUDO:
            if headers or name in pseudo or length != CHUNKED:
                raise MalformedError
            pseudo[name] = value
        elif kind == MALFORMED:
            raise MalformedError
        elif kind == LENGTH:
            if length != CHUNKED:
                raise MalformedError
            length = int(value)
        elif name in headers:
            if name != b"cookie":  # a second host or expectation
                raise MalformedError
            headers[name] += b"; " + value  # RFC 9113 §8.2.3
        else:
            headers[name] = value
    if ended:
        if length > 0:
            raise MalformedError
        length = 0
    return _request(pseudo, headers, onward, length)


def _request(
    pseudo: dict[bytes, bytes], headers: dict[bytes, bytes], onward: list[bytes], length: int
) -> Request:
    method = pseudo.get(b":method")
    target = pseudo.get(b":path")
    host = pseudo.get(b":authority") or headers.get(b"host")
    if method is None or target is None or host is None or b":scheme" not in pseudo:
        raise MalformedError
    if headers.setdefault(b"host", host) != host or (target == b"*" and method != b"OPTIONS"):
        raise MalformedError
    if method == b"CONNECT":  # it has no path, and here no meaning (RFC 9113 §8.5)
        raise MalformedError
    expectation = headers.get(b"expect")
    if expectation is not None and expectation.lower() != b"100-continue":
        raise RelayError(EXPECTATION_FAILED, "The only expectation known here is 100-continue.")
    keys = secrets([headers[name] for name in CREDENTIALS if name in headers])
    lines = b"".join(onward)
    if keys:
        readable = unquote_to_bytes(target) if b"%" in target else target
        for key in keys:
            if key in readable:  # a client of another API: the key is in its field, too
                target = target.partition(b"?")[0]
            if key in lines:
                lines = b"".join([line for line in onward if key not in line])
    request = Request(method, target, target.partition(b"?")[0], headers, lines, length)
    request.expects_continue = expectation is not None
    return request


def read_refused(fields: list[Field], length: int) -> Request:
    """What is needed of a request whose head is refused, to answer it."""
    read = {field[0]: field[1] for field in fields if field[0] in _READ_OF_REFUSED}
    target = read.pop(b":path", b"")
    method = read.pop(b":method", b"")
    return Request(method, target, target.partition(b"?")[0], read, b"", length)


def check_trailers(fields: list[Field]) -> None:
    """Raises MalformedError: the fields may not be trailers (RFC 9110 §6.5.1)."""
    for name, _, _, kind, _ in fields:
        if kind in (PSEUDO, MALFORMED) or name in _FORBIDDEN_TRAILERS:
            raise MalformedError


def check_limits(fields: list[Field], limits: Limits) -> None:
    """Refuse a head over the limits that hold for HTTP/1.1 as well.

    Raises:
        RelayError: 414 or 431.
    """
    size = sum([field[4] for field in fields])
    if size <= limits.request_line and len(fields) <= limits.fields:  # as nearly all are
        return
    if len(fields) > limits.fields:
        raise RelayError(
            HEAD_TOO_LARGE, f"The request has more than {limits.fields} header fields."
        )
    octets = 0
    for name, value, _, _, _ in fields:
        octets += len(name) + len(value) + 4  # `: ` and CR LF
        if name == b":path" and len(value) > limits.request_line:
            raise RelayError(
                URI_TOO_LONG, f"The request line is longer than {limits.request_line} octets."
            )
    if octets > limits.head:
        raise RelayError(HEAD_TOO_LARGE, f"The header is longer than {limits.head} octets.")
