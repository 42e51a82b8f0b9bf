"""The table of errors, and their rendering in the shape of each API.

A `Kind` fixes the HTTP status and the error types of a failure; a `RelayError` is one such
failure with its message. Statuses and types follow the Anthropic API reference (Errors) and the
OpenAI API documentation (Error codes).

Decides status, type and document of every error. Must not know sockets, requests or callers.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

import orjson

Header = tuple[bytes, bytes]


class ErrorShape(Enum):
    """The API whose shape an error takes: the one that the caller speaks."""

    MESSAGES = "messages"
    OPENAI = "openai"
    RESPONSES = "responses"  # OpenAI's shape too, but Codex stops, waits or retries by the code
    GEMINI = "gemini"  # for refusals alone


@dataclass(frozen=True, slots=True)
class Kind:
    """One row of the table: HTTP status, type per API, OpenAI's `code`."""

    status: int
    messages_type: str
    openai_type: str
    code: str | None = None


INVALID_REQUEST: Final = Kind(400, "invalid_request_error", "invalid_request_error")
UNAUTHENTICATED: Final = Kind(
    401, "authentication_error", "invalid_request_error", "invalid_api_key"
)
FORBIDDEN: Final = Kind(403, "permission_error", "invalid_request_error", "permission_denied")
UNKNOWN_PARAMETER: Final = Kind(
    400, "invalid_request_error", "invalid_request_error", "unknown_parameter"
)
NOT_FOUND: Final = Kind(404, "not_found_error", "invalid_request_error", "not_found")
MODEL_NOT_FOUND: Final = Kind(404, "not_found_error", "invalid_request_error", "model_not_found")
PREVIOUS_NOT_FOUND: Final = Kind(
    400, "invalid_request_error", "invalid_request_error", "previous_response_not_found"
)
RESPONSE_NOT_FOUND: Final = Kind(
    404, "not_found_error", "invalid_request_error", "response_not_found"
)
WRONG_METHOD: Final = Kind(
    405, "invalid_request_error", "invalid_request_error", "method_not_allowed"
)
REQUEST_TIMEOUT: Final = Kind(
    408, "invalid_request_error", "invalid_request_error", "request_timeout"
)
CONFLICT: Final = Kind(409, "invalid_request_error", "invalid_request_error", "conflict")
TOO_LARGE: Final = Kind(413, "request_too_large", "invalid_request_error", "request_too_large")
URI_TOO_LONG: Final = Kind(414, "invalid_request_error", "invalid_request_error", "uri_too_long")
UNKNOWN_ENCODING: Final = Kind(
    415, "invalid_request_error", "invalid_request_error", "unsupported_encoding"
)
EXPECTATION_FAILED: Final = Kind(417, "invalid_request_error", "invalid_request_error")
UPGRADE_REQUIRED: Final = Kind(
    426, "invalid_request_error", "invalid_request_error", "upgrade_required"
)
RATE_LIMITED: Final = Kind(429, "rate_limit_error", "rate_limit_exceeded", "rate_limit_exceeded")
HEAD_TOO_LARGE: Final = Kind(
    431, "invalid_request_error", "invalid_request_error", "head_too_large"
)
INTERNAL: Final = Kind(500, "api_error", "server_error", "internal_error")
NOT_IMPLEMENTED: Final = Kind(
    501, "invalid_request_error", "invalid_request_error", "not_implemented"
)
BAD_UPSTREAM: Final = Kind(502, "api_error", "server_error", "bad_upstream")
OVERLOADED: Final = Kind(503, "overloaded_error", "server_error", "overloaded")
UPSTREAM_TIMEOUT: Final = Kind(504, "api_error", "server_error", "upstream_timeout")
VERSION_NOT_SUPPORTED: Final = Kind(505, "invalid_request_error", "invalid_request_error")

# Claude Code repeats a bare 401 eleven times over three minutes; this header stops it at once.
_DO_NOT_RETRY: Final[Header] = (b"x-should-retry", b"false")
_UNRETRYABLE_STATUSES: Final = frozenset({401, 403})
# Google Cloud APIs, "Errors": HTTP mapping.
_GEMINI_STATUSES: Final = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}
# The code of a 503 that Codex CLI does not retry (codex-rs: codex-api/src/api_bridge.rs).
_UNRETRYABLE_OVERLOAD: Final = "server_is_overloaded"


class RelayError(Exception):
    """A failure that the caller gets as an error answer.

    `param` names the offending field, if there is one; `headers` are sent with the answer (for
    example `retry-after`); `details` are read by Anthropic's SDKs.
    """

    def __init__(
        self,
        kind: Kind,
        message: str,
        *,
        param: str | None = None,
        headers: tuple[Header, ...] = (),
        details: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.param = param
        self.details = details
        self.headers = (
            (*headers, _DO_NOT_RETRY) if kind.status in _UNRETRYABLE_STATUSES else headers
        )

    def status(self, shape: ErrorShape) -> int:
        """The HTTP status of this failure in `shape`."""
        return self.kind.status

    def body(self, shape: ErrorShape, request_id: str | None = None) -> bytes:
        """The JSON document of this failure in `shape`."""
        if shape is ErrorShape.GEMINI:
            status = _GEMINI_STATUSES.get(self.kind.status, "FAILED_PRECONDITION")
            gemini = {"code": self.kind.status, "message": self.message, "status": status}
            return orjson.dumps({"error": gemini})
        if shape is not ErrorShape.MESSAGES:
            code = self.kind.code
            if shape is ErrorShape.RESPONSES:
                code = self.responses_code or code
            error = {"message": self.message, "type": self.kind.openai_type}
            return orjson.dumps({"error": {**error, "param": self.param, "code": code}})
        stated: dict[str, object] = {"type": self.kind.messages_type, "message": self.message}
        if self.details is not None:
            stated["details"] = self.details
        document: dict[str, object] = {"type": "error", "error": stated}
        if request_id is not None:
            document["request_id"] = request_id
        return orjson.dumps(document)

    @property
    def responses_code(self) -> str | None:
        """The code that only the Responses API uses for this failure, if there is one."""
        unretryable = self.kind is OVERLOADED and _DO_NOT_RETRY in self.headers
        return _UNRETRYABLE_OVERLOAD if unretryable else None

    def event(self, shape: ErrorShape, request_id: str | None = None) -> bytes:
        """The document as a server-sent event, for a stream that has started.

        Not for the Responses API: its streams have an error event of their own
        (`translate.responses.stream`).
        """
        name = b"event: error\n" if shape is ErrorShape.MESSAGES else b""
        return name + b"data: " + self.body(shape, request_id) + b"\n\n"
