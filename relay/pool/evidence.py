"""What an error shows, and what it may owe to the one request that got it.

Decides whether the words of an error name the credential, the model, a feature or something of
the caller's own. Must not know scopes, vendors or times.
"""

import re
from typing import Final

from relay.translate.messages.error_document import NO_ERROR, ErrorDocument

CODE_IN_MESSAGE: Final = re.compile(r"\A\[([0-9]{4,5})\]|\(([0-9]{4,5})\)\s*\Z")
# Statuses whose message may repeat words of the request; 0: an error within an answer.
_ECHOING: Final = frozenset({0, 400, 404, 405, 406, 409, 410, 413, 415, 422})
_ECHO: Final = re.compile(
    r":(?:\s|\Z)|['\"`{}\[\]()]|\b(?:not|invalid|unknown|unexpected|unsupported)\b", re.IGNORECASE
)
NOT_OF_A_BODY: Final = frozenset({408, 503, 504, 522, 523, 529})  # the origin's state
REFUSALS: Final = frozenset({400, 401, 402, 403, 406, 451})  # by a firewall, with a page
_HTML: Final = re.compile(rb"\s*<(?:!doctype|html|head|\?xml)", re.IGNORECASE)
_CREDENTIAL_TYPES: Final = frozenset({"authentication_error", "invalid_api_key"})
_CREDENTIAL_WORDS: Final = re.compile(
    r"(?:invalid|incorrect|expired|revoked|disabled|missing|no such|wrong|unknown)\b[^.]{0,40}?"
    r"\b(?:api[ _-]?key|x-api-key|credentials?|token|authentication)\b"
    r"|\b(?:api[ _-]?key|x-api-key|credentials?|token|authentication)\b[^.]{0,40}?"
    r"\b(?:invalid|incorrect|expired|revoked|disabled|missing|failed|not found)\b",
    re.IGNORECASE,
)
# A permission that one request lacks is no fault of the credential for all others.
_PERMISSION_OF_ONE: Final = re.compile(
    r"\b(?:resource|feature|beta|model|region|tool|workspace|file|container|skill)s?\b",
    re.IGNORECASE,
)
# Anthropic API docs, Fast mode: limits of its own. Long context: sub2api #572.
FAST_MODE: Final = b"anthropic-fast-"
FEATURE_WORDS: Final = re.compile(
    r"\bfast[ -]mode\b|\bspeed\b|\blong[ -]context\b|\bcontext-1m\b|\b1m context\b"
    r"|\bextra usage\b[^.]{0,40}\brequired\b|\brequires?\b[^.]{0,40}\bextra usage\b",
    re.IGNORECASE,
)
_MODEL_NAMED: Final = re.compile(r"model: ?(\S+)")
# Something of the caller's own making that is not there: Anthropic API reference, Files, Skills,
# Code execution tool (containers), Message threads.
OWN_OBJECT: Final = re.compile(
    r"\b(?:files?|file_\w+|containers?|container_\w+|skills?|skill_\w+|batch(?:es)?|msgbatch_\w+"
    r"|threads?|thread_\w+|previous_message_id|msg_\w+"
    r"|sessions?|documents?|images?|memory stores?|vector stores?|url)\b",
    re.IGNORECASE,
)


def is_html(headers: dict[bytes, bytes], body: bytes) -> bool:
    kind = headers.get(b"content-type", b"").lower()
    return kind.startswith(b"text/html") or _HTML.match(body) is not None


def may_be_echo(status: int, document: ErrorDocument) -> bool:
    """Whether words or a code in the message may be the request's: "…: not permitted", "`x` is no
    valid role". An error of another status, or with a code of its own, repeats nothing."""
    if status not in _ECHOING:
        return False
    message = document.message
    if document.code and not CODE_IN_MESSAGE.search(message):
        return False
    return _ECHO.search(message) is not None


def names_credential(status: int, document: ErrorDocument) -> bool:
    """Whether an error says that it is the credential's."""
    if status == 402:
        return document != NO_ERROR
    if document.type in _CREDENTIAL_TYPES or document.code in _CREDENTIAL_TYPES:
        return True
    if document.type == "permission_error":
        return _PERMISSION_OF_ONE.search(document.message) is None
    return status == 401 and _CREDENTIAL_WORDS.search(document.message) is not None


def names_model(document: ErrorDocument, model: str) -> bool:
    """Whether an error names the model that was sent, and nothing of the caller's beside it."""
    message = document.message
    if document.code == "model_not_found":
        return True
    match = _MODEL_NAMED.fullmatch(message)
    if match is not None:
        return match[1] == model
    return (
        bool(model) and model in message and OWN_OBJECT.search(message.replace(model, "")) is None
    )
