"""Reads HTTP/1.1 heads in the canonical form that every real client sends.

`read_request` and `read_response` take one complete head with its empty line. They return
None for a head that is not canonical, which `h1_legal` then reads. Both readers agree on
every input (tests/wire/test_h1_agreement.py). `HeadReader` cuts heads off a stream of octets
and enforces the limits.

Canonical: an origin-form target, HTTP/1.1, `name: value` lines without folding or odd
spacing, no name twice, and nothing that changes the framing but one Content-Length.
"""

import re
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from relay.errors import (
    HEAD_TOO_LARGE,
    INVALID_REQUEST,
    URI_TOO_LONG,
    VERSION_NOT_SUPPORTED,
    RelayError,
)
from relay.wire import h1_legal
from relay.wire.events import CHUNKED, UNTIL_CLOSE, Limits, Request, Response
from relay.wire.h2.frames import PREFACE_HEAD
from relay.wire.headers import (
    READ_OF_ANSWER,
    READ_OF_ERROR,
    FieldTable,
    NotCanonicalError,
    goes_to_caller,
    goes_upstream,
    secrets,
)
from relay.wire.repeated_head import RepeatedHead, repeated_head

_REQUEST_LINE: Final = re.compile(
    rb"(GET|HEAD|POST|PUT|DELETE|OPTIONS|PATCH) "
    rb"((/[!$%&'()*+,\-./0-9:;=@A-Z\[\]_a-z|~]*)(?:\?[!$%&'()*+,\-./0-9:;=?@A-Z\[\]_a-z|~]*)?) "
    rb"HTTP/1\.1"
)
# A 101 answers an upgrade, which the relay never requests: h1_legal refuses it.
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.1 (?!101)([1-5][0-9][0-9]) [\x20-\x7e\t]*")
_MAX_REFUSED_OCTETS: Final = 64 * 1024
_REFUSED_LINE: Final = re.compile(
    rb"([A-Za-z]{1,32})[ \t]+(?:https?://[^/? \r\n]*+)?(/[^? \t\r\n]*+)", re.IGNORECASE
)
_REFUSED_FIELDS: Final = re.compile(
    rb"\n(anthropic-version|origin):[ \t]*([\x21-\x7e]*)", re.IGNORECASE
)
_CONNECTION: Final = re.compile(rb"keep-alive|close", re.IGNORECASE)
_MAX_LENGTH_DIGITS: Final = 15
_CONTENT_LENGTH: Final = re.compile(rb"[0-9]{1,15}")
_LENGTH_LINE: Final = re.compile(rb"\r\ncontent-length: ?([0-9]+)(?=\r\n)", re.IGNORECASE)

_REQUEST_FIELDS: Final = FieldTable(
    goes_upstream,
    {
        b"host": h1_legal.HOST,
        b"content-length": _CONTENT_LENGTH,
        b"connection": _CONNECTION,
        b"transfer-encoding": None,
        b"expect": None,
        b"upgrade": None,
    },
)
_RESPONSE_SPECIAL: Final[dict[bytes, re.Pattern[bytes] | None]] = {
    b"content-length": _CONTENT_LENGTH,
    b"connection": _CONNECTION,
    b"transfer-encoding": re.compile(rb"chunked"),
}
_RESPONSE_FIELDS: Final = FieldTable(goes_to_caller, _RESPONSE_SPECIAL, READ_OF_ANSWER)
_ERROR_FIELDS: Final = FieldTable(goes_to_caller, _RESPONSE_SPECIAL, READ_OF_ERROR)

# Caches of first lines, as clients and upstreams repeat them.
_MAX_CACHED_LINES: Final = 64
_MAX_CACHED_OCTETS: Final = 128  # of one line
_request_lines: Final[dict[bytes, tuple[bytes, bytes, bytes]]] = {}
_statuses: Final[dict[bytes, int]] = {}


def _request_line(line: bytes) -> tuple[bytes, bytes, bytes]:
    """Parse and cache method, target and path."""
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise NotCanonicalError
    parts = (match[1], match[2], match[3])
    if len(line) <= _MAX_CACHED_OCTETS:
        if len(_request_lines) >= _MAX_CACHED_LINES:
            _request_lines.clear()
        _request_lines[line] = parts
    return parts


def _status(line: bytes) -> int:
    """Parse and cache the status of a status line."""
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        raise NotCanonicalError
    if len(line) <= _MAX_CACHED_OCTETS:
        if len(_statuses) >= _MAX_CACHED_LINES:
            _statuses.clear()
        _statuses[line] = int(match[1])
    return int(match[1])


def _fields(lines: list[bytes], table: FieldTable) -> tuple[dict[bytes, bytes], bytes]:
    """The fields by name, and the lines to send onward. `lines`: the first one is no field."""
    headers: dict[bytes, bytes] = {}
    onward: list[bytes] = []
    seen, ignored = table.seen, table.ignored
    number = 1
    while number < len(lines):
        line = lines[number]
        number += 1
        if line in ignored:  # most lines of a response
            continue
        field = seen.get(line)
        if field is None:
            field = table.learn(line)
            if field is None:
                continue
        headers[field[0]] = field[1]
        onward.append(field[2])
    if len(headers) != len(onward):  # a name came twice
        raise NotCanonicalError
    return headers, b"".join(onward)


def read_request(head: bytes) -> Request | None:
    """Read a request head; None if it is not canonical."""
    lines = head[:-4].split(b"\r\n")
    first = lines[0]
    try:
        method, target, path = _request_lines.get(first) or _request_line(first)
        headers, onward = _fields(lines, _REQUEST_FIELDS)
    except NotCanonicalError:
        return None
    if b"host" not in headers:
        return None
    for name in (b"x-api-key", b"authorization"):
        for key in secrets((headers.get(name, b""),)):
            if key in onward or key in target or b"%" in target:
                return None  # the other reader leaves out the field or the query that repeats it
    length = headers.pop(b"content-length", None)
    connection = headers.get(b"connection")
    request = Request(method, target, path, headers, onward, 0 if length is None else int(length))
    if connection is not None and connection.lower() == b"close":
        request.keep_alive = False
    return request


def read_response(head: bytes) -> Response | None:
    """Read a response head; None if it is not canonical."""
    lines = head[:-4].split(b"\r\n")
    first = lines[0]
    try:
        status = _statuses.get(first) or _status(first)
        headers, onward = _fields(lines, _RESPONSE_FIELDS if status < 400 else _ERROR_FIELDS)
    except NotCanonicalError:
        return None
    length = UNTIL_CLOSE
    if b"transfer-encoding" in headers:
        if b"content-length" in headers:
            return None
        length = CHUNKED
    elif (digits := headers.pop(b"content-length", None)) is not None:
        length = int(digits)
    if status < 200 or status in (204, 304):  # no body, despite any length field
        if length == CHUNKED:
            return None
        length = 0
    connection = headers.get(b"connection")
    keep_alive = length != UNTIL_CLOSE and (connection is None or connection.lower() != b"close")
    return Response(status, headers, onward, length, keep_alive)


def read_refused(octets: bytes) -> Request:
    """What can be read of octets that are no request: path, origin, and the API that is spoken."""
    octets = octets[:_MAX_REFUSED_OCTETS]
    line = _REFUSED_LINE.match(octets)
    method, path = (line[1], line[2]) if line is not None else (b"", b"")
    headers = {match[1].lower(): match[2] for match in _REFUSED_FIELDS.finditer(octets)}
    return Request(method, path, path, headers, b"", 0)


class RequestMemory:
    """Reads request heads as `read_request` does, and keeps the last one.

    A client repeats its head on a kept connection octet for octet, except for the digits of
    Content-Length. Two comparisons then replace the parse.
    """

    __slots__ = ("_digits", "_last", "_shared", "_text")

    def __init__(self) -> None:
        self._last: Request | None = None
        # The last head up to the digits of Content-Length, the digits, and the octets after them.
        # Of a head without that field: the head, and nothing.
        self._text = (b"", b"")
        self._digits = b""
        self._shared: RepeatedHead | None = None

    def recall(self, head: bytes) -> Request | None:
        """The request, if this head equals the last one except for Content-Length."""
        last = self._last
        if last is None:
            return None
        before, after = self._text
        if not after:
            return last if head == before else None
        if not head.startswith(before) or not head.endswith(after):
            return None
        digits = head[len(before) : len(head) - len(after)]
        if digits == self._digits:
            return last
        if len(digits) > _MAX_LENGTH_DIGITS or not digits.isdigit():
            return None
        request = Request(
            last.method, last.target, last.path, last.headers, last.onward, int(digits)
        )
        request.keep_alive = last.keep_alive
        return request

    def read(self, head: bytes) -> Request | None:
        """Read a head and keep it; None if it is not canonical."""
        request = self._last = read_request(head)
        if request is not None:
            match = _LENGTH_LINE.search(head)
            before = head[: match.start(1)] if match else head
            after = head[match.end(1) :] if match else b""
            self._digits = match[1] if match else b""
            shared = self._shared = repeated_head(before, after, request)
            self._text = shared.text
            request.headers, request.onward = shared.headers, shared.onward
        return request


class Http2PrefaceError(RelayError):
    """The client speaks HTTP/2 (RFC 9113 §3.4); `rest` are the octets that follow the head."""

    def __init__(self, rest: bytes) -> None:
        super().__init__(VERSION_NOT_SUPPORTED, "Use HTTP/1.1.")
        self.rest = rest


Head = TypeVar("Head", Request, Response)

_END: Final = b"\r\n\r\n"
_EMPTY_LINE: Final = b"\r\n"
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
_TOKEN_FIRST: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]")


class HeadReader(Generic[Head]):
    """Cuts heads off the front of a stream: octets in, (head, following octets) out.

    `held` is the part of a head that has arrived without its end.
    """

    __slots__ = ("_canonical", "_legal", "_limits", "_recall", "held")

    def __init__(
        self,
        canonical: Callable[[bytes], Head | None],
        legal: Callable[[bytes], Head],
        limits: Limits,
        recall: Callable[[bytes], Head | None] | None = None,
    ) -> None:
        self._canonical: Callable[[bytes], Head | None] = canonical
        self._legal: Callable[[bytes], Head] = legal
        self._recall: Callable[[bytes], Head | None] | None = recall
        self._limits = limits
        self.held = b""

    def feed(self, data: bytes) -> tuple[Head, bytes] | None:
        """Take the next octets; None while the head is incomplete.

        Raises:
            RelayError: 400, 414, 417, 431, 501 or 505, as soon as the fault is certain.
        """
        searched = 0
        if self.held:
            searched = max(0, len(self.held) - 3)
            data = self.held + data
        end = data.find(_END, searched) + 4
        if end == 3:
            if self._recall is None or not _EMPTY_LINE.startswith(data[:2]):
                self._check_part(data, len(self.held))
            elif len(data) > len(_EMPTY_LINE):
                self.held = b""
                return self._feed_after_line(data)
            self.held = data
            return None
        self.held = b""
        head = data if end == len(data) else data[:end]
        if self._recall is not None and (known := self._recall(head)) is not None:
            if end > self._limits.head:  # Content-Length has more digits than in the last head
                raise _head_too_long_error(self._limits)
            return known, data[end:]
        self._check_limits(head)
        found = self._canonical(head)
        if found is None:
            if head == PREFACE_HEAD:
                raise Http2PrefaceError(data[end:])
            if self._recall is not None and head.startswith(_EMPTY_LINE):
                return self._feed_after_line(data)
            self._check_part(head[:-1])
            found = self._legal(head)
        return found, data[end:]

    def _feed_after_line(self, data: bytes) -> tuple[Head, bytes] | None:
        """Take octets that begin with an empty line: one before a request is passed over (RFC 9112
        §2.2)."""
        rest = data[len(_EMPTY_LINE) :]
        if rest.startswith(_EMPTY_LINE[:1]):
            raise RelayError(INVALID_REQUEST, h1_legal.NOT_HTTP)
        return self.feed(rest)

    def _check_limits(self, head: bytes) -> None:
        limits = self._limits
        # A field has five octets or more, so most heads need no count.
        too_many = len(head) > 5 * limits.fields and head.count(b"\n") - 2 > limits.fields
        if too_many or len(head) > limits.request_line or len(head) > limits.head:
            self._check_part(head[:-1])
        if too_many:
            raise RelayError(
                HEAD_TOO_LARGE, f"The request has more than {limits.fields} header fields."
            )

    def _check_part(self, part: bytes, checked: int = 0) -> None:
        """Refuse a head that no further octet can make legal.

        Raises for the first fault on the wire, wherever the stream was cut. The first
        `checked` octets are known to be good.
        """
        limits = self._limits
        line = limits.request_line + 2
        if (part and not _TOKEN_FIRST.match(part)) or _BARE_LF.search(part, checked, line):
            raise RelayError(INVALID_REQUEST, h1_legal.NOT_HTTP)
        if len(part) >= line and part.find(b"\r\n", 0, line) < 0:
            raise _line_too_long_error(limits)
        if _BARE_LF.search(part, checked, limits.head):
            raise RelayError(INVALID_REQUEST, h1_legal.NOT_HTTP)
        if len(part) >= limits.head:
            raise _head_too_long_error(limits)


def _line_too_long_error(limits: Limits) -> RelayError:
    return RelayError(
        URI_TOO_LONG, f"The request line is longer than {limits.request_line} octets."
    )


def _head_too_long_error(limits: Limits) -> RelayError:
    return RelayError(HEAD_TOO_LARGE, f"The header is longer than {limits.head} octets.")


def request_reader(limits: Limits) -> HeadReader[Request]:
    """A reader of the request heads of one connection."""
    memory = RequestMemory()
    return HeadReader(memory.read, h1_legal.read_request, limits, memory.recall)


def response_reader(limits: Limits) -> HeadReader[Response]:
    """A reader of the response heads of one connection."""
    return HeadReader(read_response, h1_legal.read_response, limits)
