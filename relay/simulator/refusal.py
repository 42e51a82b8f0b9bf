"""A refusal: the error answer of the simulated API as a value.

Decides the error type and the default message of each status. Must not know HTTP framing, nor
the request that is refused.
"""

from collections.abc import Iterable
from typing import Any, Final

import orjson

# Anthropic API reference, Errors.
TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}

MESSAGES: Final = {
    400: "Simulated: the request is invalid.",
    401: "invalid x-api-key",
    402: "Your credit balance is too low to access the Anthropic API.",
    403: "Your API key does not have permission to use the specified resource.",
    404: "Not found",
    413: "Request exceeds the maximum size",
    429: "This request would exceed your organization's rate limit. Please try again later.",
    500: "Internal server error",
    503: "Service temporarily unavailable",
    504: "The request timed out",
    529: "Overloaded",
}


class Refusal(Exception):  # noqa: N818 - an answer, not a failure of the simulator
    """Status, error type and message for one request; `details` are for programs."""

    def __init__(
        self, status: int, message: str | None = None, details: dict[str, Any] | None = None
    ) -> None:
        self.status = status
        self.details = details
        fallback = "api_error" if status >= 500 else "invalid_request_error"
        self.type = TYPES.get(status, fallback)
        self.message = MESSAGES.get(status, "Simulated error") if message is None else message
        super().__init__(f"{status} {self.type}: {self.message}")

    def body(self, request_id: str) -> bytes:
        """The JSON document of the error answer."""
        error: dict[str, Any] = {"type": self.type, "message": self.message}
        if self.details is not None:
            error["details"] = self.details
        return orjson.dumps({"type": "error", "error": error, "request_id": request_id})


def invalid(message: str) -> Refusal:
    """The refusal of a request that breaks a rule of the API."""
    return Refusal(400, message)


def extra(path: str) -> Refusal:
    """The refusal of a field that the API does not have, or not without a beta."""
    return invalid(f"{path}: Extra inputs are not permitted")


def unknown_tag(path: str, tag: object, expected: Iterable[str]) -> Refusal:
    """The refusal of a `type` that is not one of the `expected`."""
    tags = ", ".join(repr(name) for name in sorted(expected))
    return invalid(
        f"{path}: Input tag '{tag}' found using 'type' does not match any of the expected tags: "
        f"{tags}"
    )
