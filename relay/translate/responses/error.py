"""The `error` member of a failed response.

Decides its `code`, by which a client stops, waits or retries. Codex CLI stops at some codes
(codex-rs: codex-api/src/sse/responses.rs) and retries at all others.
"""

from typing import Final

import msgspec

from relay.errors import RelayError

_SHARED_CODES: Final = ("context_length_exceeded", "insufficient_quota", "rate_limit_exceeded")
_INVALID_REQUEST_STATUSES: Final = frozenset({400, 404, 413, 415, 422})


def member(error: RelayError) -> bytes:
    """The `error` object of a failed response."""
    code = error.kind.code or ""
    if code not in _SHARED_CODES:
        if error.kind.status in _INVALID_REQUEST_STATUSES:
            code = "invalid_prompt"
        else:
            code = error.responses_code or "server_error"
    return msgspec.json.encode({"code": code, "message": error.message})
