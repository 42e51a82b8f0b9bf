"""Reads the id of a request from what an operator pastes.

Decides what counts as an id: `req_…`, a beginning of it, a header line, or the id of a translated
answer, which has the same digits. Must not know requests.
"""

import re
from typing import Final

_PREFIX: Final = "req_"
_LENGTH: Final = 32
_LEAST: Final = 8  # characters
_GIVEN: Final = re.compile(
    r"(?:(?:x-)?request-id\s*[:=]\s*)?[\"']?((?:req_|resp_|chatcmpl-)?([0-9a-f]+))[\"']?[,;]?",
    re.IGNORECASE,
)


def parse_request_id(text: str) -> str:
    """The id, or its beginning, in the form `req_…`.

    Raises:
        ValueError: it is none; the message says what one looks like.
    """
    match = _GIVEN.fullmatch(text.strip())
    if match is None or len(match[2]) > _LENGTH:
        raise ValueError(
            f"{_shown(text)} is no request id of this relay: one is {_PREFIX} and {_LENGTH} digits "
            "of 0-9 and a-f, as the answer's field request-id has it"
        )
    if len(match[1]) < _LEAST:
        raise ValueError(
            f"{_shown(text)} is too short to find a request by; give {_LEAST} characters of its id "
            "at least"
        )
    return _PREFIX + match[2].lower()


def is_complete(request_id: str) -> bool:
    """Whether this is an id, and not only the beginning of one."""
    return len(request_id) == len(_PREFIX) + _LENGTH


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 60 else text[:60] + "…")
