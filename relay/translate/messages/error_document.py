"""An upstream's error as OpenAI's: whatever its shape, its message word for word.

This decides which type and code it has in OpenAI's terms (docs: guides/error-codes), by the
type that the upstream gave and else by its status. It must not know what the error means for
the upstream: that is judged elsewhere.
"""

import re
from typing import Any, Final, NamedTuple

import msgspec

from relay import errors
from relay.errors import Dialect, Kind, RelayError

# Three that the relay itself never has.
_CONFLICT: Final = Kind(409, "conflict_error", "invalid_request_error")
_BILLING: Final = Kind(402, "billing_error", "insufficient_quota", "insufficient_quota")
_TOO_LONG: Final = Kind(
    400, "invalid_request_error", "invalid_request_error", "context_length_exceeded"
)

_BY_TYPE: Final = {
    "invalid_request_error": errors.INVALID_REQUEST,
    "authentication_error": errors.UNAUTHENTICATED,
    "billing_error": _BILLING,
    "permission_error": errors.FORBIDDEN,
    "not_found_error": errors.MODEL_NOT_FOUND,
    "conflict_error": _CONFLICT,
    "request_too_large": errors.TOO_LARGE,
    "rate_limit_error": errors.RATE_LIMITED,
    "api_error": errors.INTERNAL,
    "timeout_error": errors.UPSTREAM_TIMEOUT,
    "overloaded_error": errors.OVERLOADED,
}
_BY_STATUS: Final = {
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
_BY_CODE: Final = {  # of vendors that speak of these as OpenAI does
    "context_length_exceeded": _TOO_LONG,
    "model_not_found": errors.MODEL_NOT_FOUND,
}
_GENERAL: Final = (None, errors.INVALID_REQUEST, errors.INTERNAL)
_OVERFLOW: Final = re.compile(
    r"prompt is too long"
    r"|exceed\w*[^.]{0,60}?\bcontext (?:limit|window|length|size)"
    r"|context (?:limit|window|length|size)[^.]{0,30}? exceeded"
    r"|maximum context (?:length|window)",
    re.IGNORECASE,
)
_WITHOUT_STATUS: Final = "The model's upstream ended its answer with an error."


class _Said(NamedTuple):
    """An error document's fields; "" where there is none."""

    type: str = ""
    code: str = ""
    message: str = ""


def error(status: int, payload: bytes) -> tuple[int, bytes]:
    """An upstream's error document as OpenAI's, and the status it goes out with.

    That is the upstream's own, but for 529, which OpenAI does not have, and for an error in an
    answer that called itself none.
    """
    status, told = judged(status, payload)
    return status, told.body(Dialect.OPENAI)


def error_event(payload: bytes) -> bytes:
    """The data of an error event as the event that ends a stream of chunks."""
    return judged_event(payload).event(Dialect.OPENAI)


def judged(status: int, payload: bytes) -> tuple[int, RelayError]:
    """What an error document tells, and the status it goes out with; see `error`."""
    said = _read(payload)
    kind = _kind(said, status)
    message = said.message or f"The model's upstream answered {status}."
    if status < 400:
        status = kind.status
    elif status == 529:
        status = errors.OVERLOADED.status
    return status, RelayError(kind, message)


def judged_event(payload: bytes) -> RelayError:
    """What the data of an error event tells."""
    said = _read(payload)
    kind = _kind(said, _number(said.code))
    return RelayError(kind, said.message or _WITHOUT_STATUS)


def _kind(said: _Said, status: int) -> Kind:
    """`status` is 0 where there is none. A type tells more than a status, if it is not one of
    the two that stand for anything."""
    kind = _BY_CODE.get(said.code) or _BY_TYPE.get(said.type)
    if kind in _GENERAL:
        kind = _BY_STATUS.get(status) or kind
    if kind is None:
        kind = errors.INVALID_REQUEST if 400 <= status < 500 else errors.BAD_UPSTREAM
    if kind is errors.INVALID_REQUEST and _OVERFLOW.search(said.message) is not None:
        return _TOO_LONG
    return kind


def _read(payload: bytes) -> _Said:
    """A document in any of the shapes that vendors have.

    `{"type":"error","error":{"type","message"}}` (Anthropic), `{"error":{"code","message"}}`
    (Z.ai; Kimi has a type), `{"error":"…"}`, `{"base_resp":{"status_code","status_msg"}}`
    (MiniMax), `{"code","msg"}`, `{"detail":"…"}`.
    """
    try:
        document = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Said()
    if not isinstance(document, dict):
        return _Said()
    inner = document.get("error")
    answer = document.get("base_resp")
    if isinstance(inner, dict):
        message = _text(inner.get("message")) or _text(inner.get("msg"))
        return _Said(_text(inner.get("type")), _text(inner.get("code")), message)
    if isinstance(inner, str):
        code, message = _text(document.get("code")), _text(document.get("message"))
        return _Said("", code, message or inner)
    if isinstance(answer, dict):
        return _Said("", _text(answer.get("status_code")), _text(answer.get("status_msg")))
    said = (_text(document.get(name)) for name in ("msg", "message", "detail"))
    message = next((each for each in said if each), "")
    return _Said(_text(document.get("type")), _text(document.get("code")), message)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return ""


def _number(code: str) -> int:
    """The HTTP status that vendors put where a code should be; 0: it is another code."""
    return int(code) if len(code) == 3 and code.isascii() and code.isdigit() else 0
