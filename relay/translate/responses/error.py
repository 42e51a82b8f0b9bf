"""What went wrong, as a response tells it that has failed.

This decides the code that a client stops, waits or tries again by. Codex CLI takes some for
final (codex-rs: codex-api/src/sse/responses.rs) and tries again at all others.
"""

from typing import Final

import msgspec

from relay.errors import RelayError

_AS_THEY_ARE: Final = ("context_length_exceeded", "insufficient_quota", "rate_limit_exceeded")
_ASKED_WRONG: Final = frozenset({400, 404, 413, 415, 422})


def member(told: RelayError) -> bytes:
    """The `error` of a response that has failed."""
    code = told.kind.code or ""
    if code not in _AS_THEY_ARE:
        if told.kind.openai_type in _AS_THEY_ARE:
            code = told.kind.openai_type
        elif told.kind.status in _ASKED_WRONG:
            code = "invalid_prompt"
        else:
            code = told.responses_code or "server_error"
    return msgspec.json.encode({"code": code, "message": told.message})
