"""Heads of HTTP/1.1 messages in the canonical form that every real client sends.

`read_request` and `read_response` take one whole head (up to and with its empty line)
and return None for anything that is not canonical, which `h1_legal` then judges; both
readers give one verdict on every input (tests/wire/test_h1_agreement.py).
`HeadReader` cuts heads off a stream of octets and holds the limits.

Canonical: an origin-form target, HTTP/1.1, `name: value` lines without folding or odd
spacing, no name twice, and nothing that changes the framing but one Content-Length.
"""

import re
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from relay.errors import HEAD_TOO_LARGE, INVALID_REQUEST, URI_TOO_LONG, RelayError
from relay.wire import h1_legal
from relay.wire.events import CHUNKED, UNTIL_CLOSE, Limits, Request, Response
from relay.wire.headers import (
    READ_OF_ANSWER,
    READ_OF_ERROR,
    FieldTable,
    NotCanonicalError,
    goes_to_caller,
    goes_upstream,
)

_REQUEST_LINE = re.compile(
    rb"(GET|HEAD|POST|PUT|DELETE|OPTIONS|PATCH) "
    rb"((/[!$%&'()*+,\-./0-9:;=@A-Z\[\]_a-z|~]*)(?:\?[!$%&'()*+,\-./0-9:;=?@A-Z\[\]_a-z|~]*)?) "
    rb"HTTP/1\.1"
)
# A 101 answers an upgrade, which the relay never asks for: h1_legal refuses it.
_STATUS_LINE = re.compile(rb"HTTP/1\.1 (?!101)([1-5][0-9][0-9]) [\x20-\x7e\t]*")
_CONNECTION = re.compile(rb"keep-alive|close", re.IGNORECASE)
_LENGTH_DIGITS = 15
_CONTENT_LENGTH = re.compile(rb"[0-9]{1,15}")
_LENGTH_LINE = re.compile(rb"\r\ncontent-length: ?([0-9]+)(?=\r\n)", re.IGNORECASE)

_REQUEST_FIELDS = FieldTable(
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
_RESPONSE_SPECIAL: dict[bytes, re.Pattern[bytes] | None] = {
    b"content-length": _CONTENT_LENGTH,
    b"connection": _CONNECTION,
    b"transfer-encoding": re.compile(rb"chunked"),
}
_RESPONSE_FIELDS = FieldTable(goes_to_caller, _RESPONSE_SPECIAL, READ_OF_ANSWER)
_ERROR_FIELDS = FieldTable(goes_to_caller, _RESPONSE_SPECIAL, READ_OF_ERROR)

_REMEMBERED_LINES = 64
_REMEMBERED_LENGTH = 128
_request_lines: dict[bytes, tuple[bytes, bytes, bytes]] = {}
_statuses: dict[bytes, int] = {}


def _request_line(line: bytes) -> tuple[bytes, bytes, bytes]:
    """Method, target and path. Remembered, as clients ask for the same thing again and again."""
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise NotCanonicalError
    parts = (match[1], match[2], match[3])
    if len(line) <= _REMEMBERED_LENGTH:
        if len(_request_lines) >= _REMEMBERED_LINES:
            _request_lines.clear()
        _request_lines[line] = parts
    return parts


def _status(line: bytes) -> int:
    """The status that a status line tells. Remembered, as there are few."""
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        raise NotCanonicalError
    if len(line) <= _REMEMBERED_LENGTH:
        if len(_statuses) >= _REMEMBERED_LINES:
            _statuses.clear()
        _statuses[line] = int(match[1])
    return int(match[1])


def _fields(lines: list[bytes], table: FieldTable) -> tuple[dict[bytes, bytes], bytes]:
    """The fields by name, and the lines to send onward."""
    headers: dict[bytes, bytes] = {}
    onward = []
    known = table.seen.get
    if table.ignored:
        ignored = table.ignored
        lines = [line for line in lines if line not in ignored]
    for line in lines:
        field = known(line) or table.learn(line)
        if field is not None:
            name, headers[name], send = field
            onward.append(send)
    if len(headers) != len(onward):  # a name came twice
        raise NotCanonicalError
    return headers, b"".join(onward)


def read_request(head: bytes) -> Request | None:
    """Read a canonical request head. None: not canonical, ask h1_legal."""
    lines = head[:-4].split(b"\r\n")
    first = lines.pop(0)
    try:
        method, target, path = _request_lines.get(first) or _request_line(first)
        headers, onward = _fields(lines, _REQUEST_FIELDS)
    except NotCanonicalError:
        return None
    if b"host" not in headers:
        return None
    length = headers.pop(b"content-length", None)
    connection = headers.get(b"connection")
    return Request(
        method,
        target,
        path,
        headers,
        onward,
        0 if length is None else int(length),
        connection is None or connection.lower() != b"close",
    )


def read_response(head: bytes) -> Response | None:
    """Read a canonical response head. None: not canonical, ask h1_legal."""
    lines = head[:-4].split(b"\r\n")
    first = lines.pop(0)
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
    elif (told := headers.pop(b"content-length", None)) is not None:
        length = int(told)
    if status < 200 or status in (204, 304):  # these have no body, whatever they say
        if length == CHUNKED:
            return None
        length = 0
    connection = headers.get(b"connection")
    keep_alive = length != UNTIL_CLOSE and (connection is None or connection.lower() != b"close")
    return Response(status, headers, onward, length, keep_alive)


class RequestMemory:
    """Reads request heads as `read_request` does, and remembers the last one.

    A client that keeps a connection repeats its head octet for octet, but for the digits of
    Content-Length: two comparisons then stand for the parse.
    """

    __slots__ = ("_after", "_before", "_last")

    def __init__(self) -> None:
        self._before = b""
        self._after = b""
        self._last: Request | None = None

    def recall(self, head: bytes) -> Request | None:
        """The request, if this head differs from the last one in its length alone."""
        last = self._last
        if last is None or not head.startswith(self._before):
            return None
        if not self._after:  # no Content-Length, so the whole head is `before`
            return last if len(head) == len(self._before) else None
        digits = head[len(self._before) : -len(self._after)]
        if not digits.isdigit() or len(digits) > _LENGTH_DIGITS or not head.endswith(self._after):
            return None
        return Request(
            last.method,
            last.target,
            last.path,
            last.headers,
            last.onward,
            int(digits),
            last.keep_alive,
        )

    def read(self, head: bytes) -> Request | None:
        """Read a canonical head and remember it. None: not canonical."""
        request = self._last = read_request(head)
        if request is not None:
            match = _LENGTH_LINE.search(head)
            self._before = head[: match.start(1)] if match else head
            self._after = head[match.end(1) :] if match else b""
        return request


Head = TypeVar("Head", Request, Response)

_END: Final = b"\r\n\r\n"
_BARE_LF = re.compile(rb"(?<!\r)\n")
_TOKEN_FIRST = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]")


class HeadReader(Generic[Head]):
    """Cuts heads off the front of a stream: octets in, (head, what follows) out."""

    __slots__ = ("_canonical", "_held", "_legal", "_limits", "_recall")

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
        self._held = b""

    @property
    def started(self) -> bool:
        """Whether a part of a head has come, and not its end."""
        return bool(self._held)

    def feed(self, data: bytes) -> tuple[Head, bytes] | None:
        """Take the next octets. None: the head is not complete yet.

        Raises:
            RelayError: 400, 414, 431, 501 or 505, as soon as that is sure.
        """
        searched = 0
        if self._held:
            searched = max(0, len(self._held) - 3)
            data = self._held + data
        end = data.find(_END, searched) + 4
        if end == 3:
            self._judge_part(data, len(self._held))
            self._held = data
            return None
        self._held = b""
        head = data if end == len(data) else data[:end]
        if self._recall is not None and (known := self._recall(head)) is not None:
            if end > self._limits.head:  # by more digits than the last one had
                raise _head_too_long(self._limits)
            return known, data[end:]
        self._judge(head)
        found = self._canonical(head)
        if found is None:
            self._judge_part(head[:-1])
            found = self._legal(head)
        return found, data[end:]

    def _judge(self, head: bytes) -> None:
        limits = self._limits
        # A field takes five octets at least, so that most heads need not be counted.
        many = len(head) > 5 * limits.fields and head.count(b"\n") - 2 > limits.fields
        if many or len(head) > limits.request_line or len(head) > limits.head:
            self._judge_part(head[:-1])
        if many:
            raise RelayError(
                HEAD_TOO_LARGE, f"The request has more than {limits.fields} header fields."
            )

    def _judge_part(self, part: bytes, judged: int = 0) -> None:
        """Refuse what no further octet can make right, so that nobody waits for it.

        The fault that comes first on the wire is the one told, wherever the stream was cut.
        The first `judged` octets were found good before.
        """
        limits = self._limits
        line = limits.request_line + 2
        if (part and not _TOKEN_FIRST.match(part)) or _BARE_LF.search(part, judged, line):
            raise RelayError(INVALID_REQUEST, h1_legal.NOT_HTTP)
        if len(part) >= line and part.find(b"\r\n", 0, line) < 0:
            raise _line_too_long(limits)
        if _BARE_LF.search(part, judged, limits.head):
            raise RelayError(INVALID_REQUEST, h1_legal.NOT_HTTP)
        if len(part) >= limits.head:
            raise _head_too_long(limits)


def _line_too_long(limits: Limits) -> RelayError:
    return RelayError(
        URI_TOO_LONG, f"The request line is longer than {limits.request_line} octets."
    )


def _head_too_long(limits: Limits) -> RelayError:
    return RelayError(HEAD_TOO_LARGE, f"The header is longer than {limits.head} octets.")


def request_reader(limits: Limits) -> HeadReader[Request]:
    """A reader of requests, for one connection."""
    memory = RequestMemory()
    return HeadReader(memory.read, h1_legal.read_request, limits, memory.recall)


def response_reader(limits: Limits) -> HeadReader[Response]:
    """A reader of responses, for one connection."""
    return HeadReader(read_response, h1_legal.read_response, limits)
