"""Reads an upstream's error document, and converts it into an error for the caller.

Decides where each vendor has the type, the code and the message, which status a type has, and
which `RelayError` a caller gets: the upstream's message word for word, under a type and a code of
OpenAI's (OpenAI API reference, Error codes). Must not know what an error means for the upstream.
"""

import re
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from relay import errors
from relay.errors import Kind, RelayError

# Three kinds of error that the relay itself never has.
_CONFLICT: Final = Kind(409, "conflict_error", "invalid_request_error")
_BILLING: Final = Kind(402, "billing_error", "insufficient_quota", "insufficient_quota")
_CONTEXT_LENGTH: Final = Kind(
    400, "invalid_request_error", "invalid_request_error", "context_length_exceeded"
)

# Anthropic API reference, Errors: the HTTP status of each type, and its kind in OpenAI's terms.
_TYPES: Final[dict[str, tuple[int, Kind]]] = {
    "invalid_request_error": (400, errors.INVALID_REQUEST),
    "authentication_error": (401, errors.UNAUTHENTICATED),
    "billing_error": (402, _BILLING),
    "permission_error": (403, errors.FORBIDDEN),
    "not_found_error": (404, errors.MODEL_NOT_FOUND),
    "conflict_error": (409, _CONFLICT),
    "request_too_large": (413, errors.TOO_LARGE),
    "rate_limit_error": (429, errors.RATE_LIMITED),
    "api_error": (500, errors.INTERNAL),
    "timeout_error": (504, errors.UPSTREAM_TIMEOUT),
    "overloaded_error": (529, errors.OVERLOADED),
}
_UNKNOWN_TYPE: Final = (500, None)
_KIND_OF_STATUS: Final = {
    400: errors.INVALID_REQUEST,
    401: errors.UNAUTHENTICATED,
    402: _BILLING,
    403: errors.FORBIDDEN,
    404: errors.NOT_FOUND,
    408: errors.REQUEST_TIMEOUT,
    409: _CONFLICT,
    413: errors.TOO_LARGE,
    422: errors.INVALID_REQUEST,
    429: errors.RATE_LIMITED,
    500: errors.INTERNAL,
    502: errors.BAD_UPSTREAM,
    503: errors.OVERLOADED,
    504: errors.UPSTREAM_TIMEOUT,
    529: errors.OVERLOADED,
}
_KIND_OF_CODE: Final = {  # of vendors that use OpenAI's codes
    "context_length_exceeded": _CONTEXT_LENGTH,
    "model_not_found": errors.MODEL_NOT_FOUND,
}
_GENERAL_KINDS: Final = (None, errors.INVALID_REQUEST, errors.INTERNAL)
_CONTEXT_OVERFLOW: Final = re.compile(
    r"prompt is too long"
    r"|exceed\w*[^.]{0,60}?\bcontext (?:limit|window|length|size)"
    r"|context (?:limit|window|length|size)[^.]{0,30}? exceeded"
    r"|maximum context (?:length|window)",
    re.IGNORECASE,
)
_NO_MESSAGE: Final = "The model's upstream ended its answer with an error."
_MAX_FAILURE_OCTETS: Final = 256 * 1024
_BASE_RESP_SUCCESS: Final = ("", "0")
_FLAT_SUCCESS: Final = ("0", "200")


@dataclass(frozen=True, slots=True)
class ErrorDocument:
    """The fields of an error document; "" for one that is missing."""

    type: str = ""
    code: str = ""
    message: str = ""

    @property
    def type_status(self) -> int:
        """The HTTP status of the type; 0 if the type has none."""
        known = _TYPES.get(self.type)
        return known[0] if known is not None else 0

    @property
    def code_status(self) -> int:
        """The HTTP status that some vendors give as the code; 0 if the code is none."""
        code = self.code
        return int(code) if len(code) == 3 and code.isascii() and code.isdigit() else 0


NO_ERROR: Final = ErrorDocument()


def read(body: bytes, *, failures_only: bool = False) -> ErrorDocument:
    """The error document in any of the shapes that vendors have; `NO_ERROR` for anything else.

    `{"type":"error","error":{"type","message"}}` (Anthropic), `{"error":{"code","message"}}`
    (Z.ai; Kimi has a type), `{"error":"…"}`, `{"base_resp":{"status_code","status_msg"}}`
    (MiniMax), `{"code","msg"}`, `{"detail":"…"}`. A code may be a number.

    Args:
        body: the whole document, or the data of an error event.
        failures_only: do not read a document that may be an answer as an error. A code of
            success, a bare `type` and a document of over 256 KiB then count as `NO_ERROR`.
    """
    if failures_only and len(body) > _MAX_FAILURE_OCTETS:
        return NO_ERROR
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return NO_ERROR
    if not isinstance(document, dict):
        return NO_ERROR
    error = document.get("error")
    if isinstance(error, dict):
        message = _first_text(error, "message", "msg")
        return ErrorDocument(_text(error.get("type")), _text(error.get("code")), message)
    code = _text(document.get("code"))
    if isinstance(error, str):
        return ErrorDocument("", code, _text(document.get("message")) or error)
    status = document.get("base_resp")
    if isinstance(status, dict):
        code = _text(status.get("status_code"))
        if failures_only and code in _BASE_RESP_SUCCESS:
            return NO_ERROR
        return ErrorDocument("", code, _text(status.get("status_msg")))
    message = _first_text(document, "msg", "message", "detail")
    if not failures_only:
        return ErrorDocument(_text(document.get("type")), code, message)
    return NO_ERROR if code in _FLAT_SUCCESS else ErrorDocument("", code, message)


def status_of(body: bytes) -> int:
    """The HTTP status for an error document that came with status 200 or in a stream."""
    return read(body, failures_only=True).type_status or 500


def caller_error(status: int, body: bytes) -> tuple[int, RelayError]:
    """The error of an upstream's answer, and the status that the caller gets with it.

    That is the upstream's own status, with two exceptions: OpenAI has no 529, and the status of
    an answer below 400 is not an error's.
    """
    document = read(body)
    kind = _kind(document, status)
    message = document.message or f"The model's upstream answered {status}."
    if status < 400:
        status = kind.status
    elif status == 529:
        status = errors.OVERLOADED.status
    return status, RelayError(kind, message)


def stream_error(data: bytes) -> RelayError:
    """The error of an error event with this data."""
    document = read(data)
    kind = _kind(document, document.code_status)
    return RelayError(kind, document.message or _NO_MESSAGE)


def _kind(document: ErrorDocument, status: int) -> Kind:
    """The kind by code, type and status; `status` is 0 if there is none.

    A type is more exact than a status, except for the two types that cover many errors.
    """
    kind = _KIND_OF_CODE.get(document.code) or _TYPES.get(document.type, _UNKNOWN_TYPE)[1]
    if kind in _GENERAL_KINDS:
        kind = _KIND_OF_STATUS.get(status) or kind
    if kind is None:
        kind = errors.INVALID_REQUEST if 400 <= status < 500 else errors.BAD_UPSTREAM
    if kind is errors.INVALID_REQUEST and _CONTEXT_OVERFLOW.search(document.message) is not None:
        return _CONTEXT_LENGTH
    return kind


def _first_text(document: dict[str, Any], *names: str) -> str:
    """The first member with a text or a number in it."""
    return next((text for name in names if (text := _text(document.get(name)))), "")


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return ""
