"""Everything that can go wrong, in one table, rendered in the caller's own dialect.

A `Kind` says once which HTTP status and which error types a failure has; a
`RelayError` is one such failure with its message. Statuses and types are those of
the Anthropic API (docs: api/errors) and of the OpenAI API (docs: guides/error-codes).
This module must not know about sockets, requests or who the caller is.
"""

from enum import Enum
from typing import NamedTuple

import orjson

Header = tuple[bytes, bytes]


class ErrorShape(Enum):
    """Whose shape an error takes: the one of the API that the caller speaks."""

    MESSAGES = "messages"
    OPENAI = "openai"
    RESPONSES = "responses"  # OpenAI's as well, but its clients stop, wait or retry by the code


class Kind(NamedTuple):
    """One row of the table: HTTP status, type per dialect, OpenAI's `code`."""

    status: int
    messages_type: str
    openai_type: str
    code: str | None = None


INVALID_REQUEST = Kind(400, "invalid_request_error", "invalid_request_error")
UNAUTHENTICATED = Kind(401, "authentication_error", "invalid_request_error", "invalid_api_key")
FORBIDDEN = Kind(403, "permission_error", "invalid_request_error", "permission_denied")
NOT_FOUND = Kind(404, "not_found_error", "invalid_request_error", "not_found")
MODEL_NOT_FOUND = Kind(404, "not_found_error", "invalid_request_error", "model_not_found")
PREVIOUS_NOT_FOUND = Kind(
    400, "invalid_request_error", "invalid_request_error", "previous_response_not_found"
)
RESPONSE_NOT_FOUND = Kind(404, "not_found_error", "invalid_request_error", "response_not_found")
WRONG_METHOD = Kind(405, "invalid_request_error", "invalid_request_error", "method_not_allowed")
REQUEST_TIMEOUT = Kind(408, "invalid_request_error", "invalid_request_error", "request_timeout")
CONFLICT = Kind(409, "invalid_request_error", "invalid_request_error", "conflict")
TOO_LARGE = Kind(413, "request_too_large", "invalid_request_error", "request_too_large")
URI_TOO_LONG = Kind(414, "invalid_request_error", "invalid_request_error", "uri_too_long")
UNKNOWN_ENCODING = Kind(
    415, "invalid_request_error", "invalid_request_error", "unsupported_encoding"
)
EXPECTATION_FAILED = Kind(417, "invalid_request_error", "invalid_request_error")
RATE_LIMITED = Kind(429, "rate_limit_error", "rate_limit_exceeded", "rate_limit_exceeded")
HEAD_TOO_LARGE = Kind(431, "invalid_request_error", "invalid_request_error", "head_too_large")
INTERNAL = Kind(500, "api_error", "server_error", "internal_error")
NOT_IMPLEMENTED = Kind(501, "invalid_request_error", "invalid_request_error", "not_implemented")
BAD_UPSTREAM = Kind(502, "api_error", "server_error", "bad_upstream")
OVERLOADED = Kind(503, "overloaded_error", "server_error", "overloaded")
UPSTREAM_TIMEOUT = Kind(504, "api_error", "server_error", "upstream_timeout")
VERSION_NOT_SUPPORTED = Kind(505, "invalid_request_error", "invalid_request_error")

# Claude Code repeats a bare 401 eleven times over three minutes; this header stops it at once.
_DO_NOT_RETRY: Header = (b"x-should-retry", b"false")
_FINAL = frozenset({401, 403})
# The code of a 503 at which Codex CLI does not try again (codex-rs: codex-api/src/api_bridge.rs).
_NOT_SOON = "server_is_overloaded"


class RelayError(Exception):
    """A failure that the caller is told about.

    `param` names the offending field where there is one; `headers` are sent beside
    the answer (for example `retry-after`).
    """

    def __init__(
        self,
        kind: Kind,
        message: str,
        *,
        param: str | None = None,
        headers: tuple[Header, ...] = (),
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.param = param
        self.headers = (*headers, _DO_NOT_RETRY) if kind.status in _FINAL else headers

    def status(self, shape: ErrorShape) -> int:
        """The HTTP status that `shape` has for this failure."""
        return self.kind.status

    def body(self, shape: ErrorShape, request_id: str | None = None) -> bytes:
        """The JSON document that `shape` has for this failure."""
        if shape is not ErrorShape.MESSAGES:
            code = self.kind.code
            if shape is ErrorShape.RESPONSES:
                code = self.responses_code or code
            error = {"message": self.message, "type": self.kind.openai_type}
            return orjson.dumps({"error": {**error, "param": self.param, "code": code}})
        document: dict[str, object] = {
            "type": "error",
            "error": {"type": self.kind.messages_type, "message": self.message},
        }
        if request_id is not None:
            document["request_id"] = request_id
        return orjson.dumps(document)

    @property
    def responses_code(self) -> str | None:
        """The code that only the Responses API has for this, if it has one of its own."""
        final = self.kind is OVERLOADED and _DO_NOT_RETRY in self.headers
        return _NOT_SOON if final else None

    def event(self, shape: ErrorShape, request_id: str | None = None) -> bytes:
        """The same as a server-sent event, for a stream that has begun; in the Responses API
        that is one of the stream's own (`translate.responses.stream`)."""
        name = b"event: error\n" if shape is ErrorShape.MESSAGES else b""
        return name + b"data: " + self.body(shape, request_id) + b"\n\n"
