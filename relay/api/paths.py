"""What a path means: the slips of a base URL, what is not offered, and the shape of its errors.

Decides from the path alone, as tables. Must not know endpoints or callers.
"""

import re
from dataclasses import dataclass
from typing import Final

from relay.errors import UNAUTHENTICATED, ErrorShape, RelayError
from relay.wire.events import Request

V1: Final = b"/v1"
MODELS: Final = b"/v1/models"
RESPONSES: Final = b"/v1/responses"
MESSAGES: Final = b"/v1/messages"
COUNT_TOKENS: Final = b"/v1/messages/count_tokens"
CHAT_COMPLETIONS: Final = b"/v1/chat/completions"
COMPACT: Final = b"/v1/responses/compact"
INPUT_TOKENS: Final = b"/v1/responses/input_tokens"
# The paths whose requests go to an upstream.
RELAYED: Final = frozenset(
    {MESSAGES, COUNT_TOKENS, CHAT_COMPLETIONS, RESPONSES, COMPACT, INPUT_TOKENS}
)
READYZ: Final = b"/readyz"
ALIVE: Final = (b"/healthz", b"/api/hello")
# Where Claude Code reports its own use. It is to go on, and nobody here reads the reports.
REPORTS: Final = (b"/api/event_logging", b"/api/eval")

_VERSIONS: Final = re.compile(rb"(?:/+v1(?=/|\Z))*")
# What clients add to a base URL that should have ended with /v1.
_ROOTS: Final = re.compile(
    rb"/(?:messages|chat/completions|responses|models|usage|completions|embeddings)(?:/|\Z)"
)

_SHOWN_CHARACTERS: Final = 96  # of an unknown path, in log and error
_KEY_LIKE: Final = re.compile(r"[A-Za-z0-9_-]{32,}")
_KEY_IN_PATH: Final = re.compile(rb"/sk-[A-Za-z0-9_-]{16,}(?:/|$)")
KEY_IN_PATH_WORDS: Final = (
    "There is a key in the path of this request. Take it out of the base URL, and send it as "
    "`Authorization: Bearer KEY`. Others may have seen it: make a new key, and revoke this one."
)

_OPENAI, _MESSAGES = ErrorShape.OPENAI, ErrorShape.MESSAGES


@dataclass(frozen=True, slots=True)
class NotOffered:
    """A part of another API that is not offered: its path and all below, and what to say."""

    prefix: bytes
    words: str
    shape: ErrorShape | None = None  # None: by the caller's header fields


_CHAT_INSTEAD: Final = "Use POST /v1/chat/completions or POST /v1/responses."

NOT_OFFERED: Final = (
    NotOffered(
        b"/v1/messages/batches",
        "Batches are not offered here. Send each request to POST /v1/messages.",
        _MESSAGES,
    ),
    NotOffered(
        b"/v1/batches",
        "Batches are not offered here. Send each request to POST /v1/chat/completions or "
        "POST /v1/responses.",
        _OPENAI,
    ),
    NotOffered(
        b"/v1/files",
        "Files are not kept here. Send their content within a request to POST /v1/messages, "
        "POST /v1/chat/completions or POST /v1/responses.",
    ),
    NotOffered(
        b"/v1/completions",
        "The models behind this relay take conversations, not plain prompts. Use POST "
        "/v1/chat/completions with `messages`.",
        _OPENAI,
    ),
    NotOffered(b"/v1/embeddings", f"Embeddings are not offered here. {_CHAT_INSTEAD}", _OPENAI),
    NotOffered(b"/v1/images", f"Pictures are not made here. {_CHAT_INSTEAD}", _OPENAI),
    NotOffered(b"/v1/audio", f"Speech is not offered here. {_CHAT_INSTEAD}", _OPENAI),
    NotOffered(
        b"/v1/realtime", f"Realtime sessions are not offered here. {_CHAT_INSTEAD}", _OPENAI
    ),
    NotOffered(b"/v1/moderations", f"Moderation is not offered here. {_CHAT_INSTEAD}", _OPENAI),
    NotOffered(b"/v1/assistants", f"Assistants are not offered here. {_CHAT_INSTEAD}", _OPENAI),
    NotOffered(b"/v1/threads", f"Threads are not kept here. {_CHAT_INSTEAD}", _OPENAI),
    NotOffered(
        b"/v1/conversations",
        "Conversations are not kept here. Send the items as `input` of POST /v1/responses.",
        _OPENAI,
    ),
    NotOffered(b"/v1/vector_stores", f"Vector stores are not kept here. {_CHAT_INSTEAD}", _OPENAI),
    NotOffered(b"/v1/fine_tuning", f"Fine-tuning is not offered here. {_CHAT_INSTEAD}", _OPENAI),
    NotOffered(
        b"/v1/alpha/search",
        "This search is not offered here. Use POST /v1/responses with a tool of type web_search.",
        _OPENAI,
    ),
    NotOffered(
        b"/v1beta",
        "The Gemini API is not offered here. Use POST /v1/messages, POST /v1/chat/completions or "
        "POST /v1/responses.",
        ErrorShape.GEMINI,
    ),
)


def canonical(path: bytes) -> bytes:
    """The path that a client means: with /v1 once, and without doubled or trailing slashes."""
    if not path.startswith(b"/"):  # `*`
        return path
    versions = _VERSIONS.match(path)
    assert versions is not None
    rest = path[versions.end() :].strip(b"/")
    rest = b"/" + rest if rest else b""
    if versions[0] or _ROOTS.match(rest) is not None:
        return V1 + rest
    return rest or b"/"


def below(path: bytes, prefix: bytes) -> bool:
    """Whether a path is `prefix` or below it."""
    return path == prefix or path.startswith(prefix + b"/")


def not_offered(path: bytes) -> str:
    """What to say of a part of an API that is not offered; "" if the path is of none.

    Raises:
        RelayError: 401, there is a key in the path.
    """
    if _KEY_IN_PATH.search(path) is not None:
        raise RelayError(UNAUTHENTICATED, KEY_IN_PATH_WORDS)
    for one in NOT_OFFERED:
        if below(path, one.prefix):
            return one.words
    return ""


def error_shape(request: Request) -> ErrorShape:
    """The error shape that a request's path implies."""
    path = canonical(request.path)
    if path.startswith(RESPONSES):
        return ErrorShape.RESPONSES
    if path.startswith(b"/v1/chat/"):
        return _OPENAI
    for one in NOT_OFFERED:
        if below(path, one.prefix) and one.shape is not None:
            return one.shape
    if path.startswith((MODELS, b"/v1/files", b"/v1/usage")) and not speaks_messages(request):
        return _OPENAI
    return _MESSAGES


def speaks_messages(request: Request) -> bool:
    """Whether a caller speaks Anthropic's API, whose SDKs send `anthropic-version`."""
    return b"anthropic-version" in request.headers


def without_keys(text: str) -> str:
    """`text` with "…" in place of everything that looks like a key, pasted by mistake."""
    return _KEY_LIKE.sub("…", text)


def shown(path: bytes) -> str:
    """A path as log and errors have it."""
    return without_keys(path.decode("latin-1"))[:_SHOWN_CHARACTERS]
