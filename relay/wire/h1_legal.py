"""Reads heads that are legal HTTP/1.1 but not canonical: h11 behind strict checks.

Examples are HTTP/1.0, chunked request bodies, Expect, absolute-form targets, repeated fields
and odd spacing. h11 alone is lenient: it accepts Content-Length beside Transfer-Encoding,
bare LF, folded lines, `HTTP/1.9`, `Content-Length: 1, 1` and more, each of which has been
used to smuggle a request past a proxy (RFC 9112 §11.2). So the raw octets are checked first
and all of that is refused; h11 then splits the fields.
"""

import re
from typing import Final
from urllib.parse import unquote_to_bytes

import h11

from relay.errors import (
    EXPECTATION_FAILED,
    INVALID_REQUEST,
    NOT_IMPLEMENTED,
    VERSION_NOT_SUPPORTED,
    RelayError,
)
from relay.wire.events import CHUNKED, UNTIL_CLOSE, Request, Response
from relay.wire.headers import (
    CREDENTIALS,
    READ_OF_ANSWER,
    READ_OF_ERROR,
    goes_to_caller,
    goes_upstream,
    secrets,
)

NOT_HTTP: Final = (
    "This is not HTTP/1.1 as RFC 9112 has it. If the client is set to https, "
    "use http here or put TLS in front."
)

_REQUEST_LINE: Final = re.compile(
    rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+ ([\x21-\x7e]+) (HTTP/[0-9]\.[0-9])"
)
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] [1-5][0-9][0-9](?: [\x20-\x7e\t\x80-\xff]*)?")
# `*+` does not backtrack: with `*`, 32 KiB of blanks before a NUL take six seconds.
_FIELD_LINE: Final = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*+((?:[\x21-\x7e\x80-\xff](?:[\x20-\x7e\t\x80-\xff]*"
    rb"[\x21-\x7e\x80-\xff])?)?)[ \t]*"
)
_TARGET: Final = re.compile(rb"[!$%&'()*+,\-./0-9:;=?@A-Z\[\]_a-z|~]+")
_ORIGIN: Final = re.compile(rb"https?://([^/?]+)([/?].*)?", re.IGNORECASE)
HOST: Final[re.Pattern[bytes]] = re.compile(
    rb"(?:[A-Za-z0-9._\-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
)
_DIGITS: Final = re.compile(rb"[0-9]{1,20}")


def _head_error(message: str) -> RelayError:
    return RelayError(INVALID_REQUEST, message)


def _checked_values(lines: list[bytes]) -> dict[bytes, list[bytes]]:
    """Check each field line against the grammar; return the values by lower-case name."""
    values: dict[bytes, list[bytes]] = {}
    for line in lines:
        match = _FIELD_LINE.fullmatch(line)
        if match is None:
            raise _head_error("A header field is malformed: send `name: value`, ended by CR LF.")
        values.setdefault(match[1].lower(), []).append(match[2])
    return values


def _length(values: dict[bytes, list[bytes]], http11: bool) -> int | None:
    """The body's extent under the strictest reading (RFC 9112 §6.3); None without a field."""
    coding = values.get(b"transfer-encoding")
    lengths = values.get(b"content-length")
    if coding is not None:
        if lengths is not None:
            raise _head_error("Send either Content-Length or Transfer-Encoding, not both.")
        if not http11:
            raise _head_error("Transfer-Encoding needs HTTP/1.1.")
        if len(coding) != 1 or coding[0].lower() != b"chunked":
            raise RelayError(NOT_IMPLEMENTED, "The only Transfer-Encoding known here is chunked.")
        return CHUNKED
    if lengths is None:
        return None
    if len(lengths) != 1 or _DIGITS.fullmatch(lengths[0]) is None:
        raise _head_error("Content-Length must be one whole number, given once.")
    return int(lengths[0])


def _joined_values(values: dict[bytes, list[bytes]]) -> dict[bytes, bytes]:
    return {
        name: b", ".join(several)
        for name, several in values.items()
        if name != b"content-length"  # `Request.length` has it
    }


def _nominated_fields(values: dict[bytes, list[bytes]]) -> set[bytes]:
    """The fields that Connection restricts to this hop (RFC 9110 §7.6.1)."""
    joined = b",".join(values.get(b"connection", []))
    return {option.strip().lower() for option in joined.split(b",")} - {b""}


def _origin_form(target: bytes, values: dict[bytes, list[bytes]]) -> bytes:
    """The path and query of a target in any legal form (RFC 9112 §3.2).

    An absolute form replaces the Host field.
    """
    if target.startswith(b"/") or target == b"*":
        return target
    absolute = _ORIGIN.fullmatch(target)
    if absolute is None:
        raise _head_error("The request target must be a path such as /v1/messages.")
    if HOST.fullmatch(absolute[1]) is None:
        raise _head_error("The request target names no valid host.")
    values[b"host"] = [absolute[1]]
    rest = absolute[2] or b"/"
    return rest if rest.startswith(b"/") else b"/" + rest


def read_request(head: bytes) -> Request:
    """Read a complete request head with its empty line.

    Raises:
        RelayError: 400, 417, 501 or 505, with the reason.
    """
    lines = head[:-4].split(b"\r\n")
    match = _REQUEST_LINE.fullmatch(lines[0])
    if match is None:
        raise _head_error(NOT_HTTP)
    version = match[2]
    if version not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise RelayError(VERSION_NOT_SUPPORTED, "Use HTTP/1.1.")
    http11 = version == b"HTTP/1.1"
    if _TARGET.fullmatch(match[1]) is None:
        raise _head_error("The request target has a character that must be percent-encoded.")
    values = _checked_values(lines[1:])
    hosts = values.get(b"host", [])
    if len(hosts) > 1 or (http11 and not hosts) or any(not HOST.fullmatch(h) for h in hosts):
        raise _head_error("Send one Host field with a host name and, where needed, a port.")
    length = _length(values, http11)
    expectation = values.get(b"expect")
    if expectation is not None and (
        len(expectation) != 1 or expectation[0].lower() != b"100-continue"
    ):
        raise RelayError(EXPECTATION_FAILED, "The only expectation known here is 100-continue.")
    target = _origin_form(match[1], values)

    keys = secrets(value for name in CREDENTIALS for value in values.get(name, ()))
    if any(key in unquote_to_bytes(target) for key in keys):
        target = target.partition(b"?")[0]  # a client of another API: the key is in its field, too

    event = _h11_request(head)
    connection = _nominated_fields(values)
    dropped = connection | {b"connection"}
    onward = b"".join(
        b"%b: %b\r\n" % (name, value)
        for name, value in event.headers.raw_items()
        if goes_upstream(name.lower())
        and name.lower() not in dropped
        and not any(key in value for key in keys)
    )
    path = target.partition(b"?")[0]
    request = Request(
        bytes(event.method),
        target,
        path,
        _joined_values(values),
        onward,
        length or 0,
    )
    request.keep_alive = http11 and b"close" not in connection
    request.http11 = http11
    request.expects_continue = http11 and expectation is not None
    return request


def _h11_request(head: bytes) -> h11.Request:
    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=len(head) + 1)
    parser.receive_data(head)
    try:
        event = parser.next_event()
    except h11.RemoteProtocolError as error:  # pragma: no cover - the checks are stricter
        raise _head_error(f"The request header cannot be read: {error}.") from None
    if not isinstance(event, h11.Request):  # pragma: no cover - the head is complete
        raise _head_error(NOT_HTTP)
    return event


def read_response(head: bytes) -> Response:
    """Read a complete response head with its empty line.

    Raises:
        RelayError: the head is not safe to use. The connection reports a failed upstream.
    """
    lines = head[:-4].split(b"\r\n")
    if _STATUS_LINE.fullmatch(lines[0]) is None:
        raise _head_error("no HTTP/1.1 status line")
    http11 = lines[0].startswith(b"HTTP/1.1")
    values = _checked_values(lines[1:])
    length = _length(values, http11)
    parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=len(head) + 1)
    parser.send(h11.Request(method="POST", target="/", headers=[("host", "upstream")]))
    parser.send(h11.EndOfMessage())
    parser.receive_data(head)
    try:
        event = parser.next_event()
    except h11.RemoteProtocolError as error:
        raise _head_error(str(error)) from None
    if not isinstance(
        event, h11.Response | h11.InformationalResponse
    ):  # pragma: no cover - complete
        raise _head_error("no HTTP/1.1 response head")
    status = event.status_code
    if status < 200 or status in (204, 304):
        if length == CHUNKED:
            raise _head_error(f"a {status} response cannot be chunked")
        length = 0
    connection = _nominated_fields(values)
    dropped = connection | {b"connection"}
    onward = b"".join(
        b"%b: %b\r\n" % (name, value)
        for name, value in event.headers
        if goes_to_caller(name) and name not in dropped
    )
    keep_alive = http11 and length is not None and b"close" not in connection
    read = READ_OF_ANSWER if status < 400 else READ_OF_ERROR
    headers = {name: value for name, value in _joined_values(values).items() if name in read}
    return Response(status, headers, onward, UNTIL_CLOSE if length is None else length, keep_alive)
