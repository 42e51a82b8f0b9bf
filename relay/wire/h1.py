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
from relay.wire.headers import FieldTable, goes_to_caller, goes_upstream

_REQUEST_LINE = re.compile(
    rb"(GET|HEAD|POST|PUT|DELETE|OPTIONS|PATCH) "
    rb"((/[!$%&'()*+,\-./0-9:;=@A-Z\[\]_a-z|~]*)(?:\?[!$%&'()*+,\-./0-9:;=?@A-Z\[\]_a-z|~]*)?) "
    rb"HTTP/1\.1"
)
# A 101 answers an upgrade, which the relay never asks for: h1_legal refuses it.
_STATUS_LINE = re.compile(rb"HTTP/1\.1 (?!101)([1-5][0-9][0-9]) [\x20-\x7e\t]*")
_CONNECTION = re.compile(rb"keep-alive|close", re.IGNORECASE)
_CONTENT_LENGTH = re.compile(rb"[0-9]{1,15}")
_HOST = re.compile(rb"(?:[A-Za-z0-9._\-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")

_REQUEST_FIELDS = FieldTable(
    goes_upstream,
    {
        b"host": _HOST,
        b"content-length": _CONTENT_LENGTH,
        b"connection": _CONNECTION,
        b"transfer-encoding": None,
        b"expect": None,
        b"upgrade": None,
    },
)
_RESPONSE_FIELDS = FieldTable(
    goes_to_caller,
    {
        b"content-length": _CONTENT_LENGTH,
        b"connection": _CONNECTION,
        b"transfer-encoding": re.compile(rb"chunked"),
    },
)

_SEEN_LINES: dict[bytes, tuple[bytes, bytes, bytes]] = {}
_REMEMBERED_LINES = 64


def read_request(head: bytes) -> Request | None:
    """Read a canonical request head. None: not canonical, ask h1_legal."""
    lines = head.split(b"\r\n")
    line = _SEEN_LINES.get(lines[0])
    if line is None:
        match = _REQUEST_LINE.fullmatch(lines[0])
        if match is None:
            return None
        line = (match[1], match[2], match[3])
        if len(lines[0]) < 128:
            if len(_SEEN_LINES) >= _REMEMBERED_LINES:
                _SEEN_LINES.clear()
            _SEEN_LINES[lines[0]] = line
    headers: dict[bytes, bytes] = {}
    onward = []
    seen = _REQUEST_FIELDS.seen
    for text in lines[1:-2]:
        field = seen.get(text) or _REQUEST_FIELDS.learn(text)
        if field is None:
            return None
        headers[field[0]] = field[1]
        onward.append(field[2])
    if len(headers) != len(onward) or b"host" not in headers:
        return None  # a name came twice, or Host is missing
    length = headers.get(b"content-length")
    connection = headers.get(b"connection")
    return Request(
        line[0],
        line[1],
        line[2],
        headers,
        b"".join(onward),
        0 if length is None else int(length),
        connection is None or connection.lower() != b"close",
    )


def read_response(head: bytes) -> Response | None:
    """Read a canonical response head. None: not canonical, ask h1_legal."""
    lines = head.split(b"\r\n")
    match = _STATUS_LINE.fullmatch(lines[0])
    if match is None:
        return None
    status = int(match[1])
    headers: dict[bytes, bytes] = {}
    onward = []
    seen = _RESPONSE_FIELDS.seen
    for text in lines[1:-2]:
        field = seen.get(text) or _RESPONSE_FIELDS.learn(text)
        if field is None:
            return None
        headers[field[0]] = field[1]
        onward.append(field[2])
    if len(headers) != len(onward):
        return None
    length = UNTIL_CLOSE
    if b"transfer-encoding" in headers:
        if b"content-length" in headers:
            return None
        length = CHUNKED
    elif (told := headers.get(b"content-length")) is not None:
        length = int(told)
    if status < 200 or status in (204, 304):
        if length == CHUNKED:
            return None
        length = 0
    connection = headers.get(b"connection")
    keep_alive = length != UNTIL_CLOSE and (connection is None or connection.lower() != b"close")
    return Response(status, headers, b"".join(onward), length, keep_alive)


Head = TypeVar("Head", Request, Response)

_END: Final = b"\r\n\r\n"
_BARE_LF = re.compile(rb"(?<!\r)\n")
_TOKEN_FIRST = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]")


class HeadReader(Generic[Head]):
    """Cuts heads off the front of a stream: octets in, (head, what follows) out."""

    __slots__ = ("_canonical", "_held", "_legal", "_limits")

    def __init__(
        self,
        canonical: Callable[[bytes], Head | None],
        legal: Callable[[bytes], Head],
        limits: Limits,
    ) -> None:
        self._canonical: Callable[[bytes], Head | None] = canonical
        self._legal: Callable[[bytes], Head] = legal
        self._limits = limits
        self._held = b""

    @property
    def begun(self) -> bool:
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
        end = data.find(_END, searched)
        if end < 0:
            self._judge_part(data, len(self._held))
            self._held = data
            return None
        self._held = b""
        end += 4
        limits = self._limits
        if end > limits.request_line or end > limits.head:
            self._judge_part(data[: end - 1])
        head = data if end == len(data) else data[:end]
        if head.count(b"\n") - 2 > limits.fields:
            self._judge_part(head[:-1])
            raise RelayError(
                HEAD_TOO_LARGE, f"The request has more than {limits.fields} header fields."
            )
        found = self._canonical(head)
        if found is None:
            self._judge_part(head[:-1])
            found = self._legal(head)
        return found, data[end:]

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
    return HeadReader(read_request, h1_legal.read_request, limits)


def response_reader(limits: Limits) -> HeadReader[Response]:
    """A reader of responses, for one connection."""
    return HeadReader(read_response, h1_legal.read_response, limits)
