"""Maps a method and path to an endpoint, and a path to the shape of its errors.

Decides which paths are served, and the errors for a wrong path or method. Must not know how an
endpoint answers.
"""

import re
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import unquote

from relay.errors import NOT_FOUND, WRONG_METHOD, ErrorShape, RelayError
from relay.gateway.context import RequestContext
from relay.wire.events import Request

Endpoint = Callable[[RequestContext], Awaitable[None]]

MODELS: Final = b"/v1/models"
RESPONSES: Final = b"/v1/responses"
_GET: Final = (b"GET", b"HEAD")
_POST: Final = (b"POST",)
_OPENAI_PATHS: Final = (b"/v1/chat/", b"/v1/completions", b"/v1/embeddings")
_PATHS_WITHOUT_V1: Final = frozenset(
    {b"/chat/completions", b"/completions", b"/responses", b"/models"}
)
_SERVED: Final = (
    "POST /v1/messages, POST /v1/messages/count_tokens, POST /v1/chat/completions, "
    "POST /v1/responses, POST /v1/responses/compact, POST /v1/responses/input_tokens, "
    "GET /v1/models and GET /v1/models/{id}"
)
_ADD_V1: Final = "The base URL that OpenAI clients want ends with /v1: add that to yours."
_NO_COMPLETIONS: Final = (
    "There is nothing at /v1/completions: the models behind this relay take conversations, not "
    "plain prompts. Use POST /v1/chat/completions with `messages`."
)
_SHOWN_PATH_CHARACTERS: Final = 96  # of an unknown path, in log and error
_KEY_LIKE: Final = re.compile(r"[A-Za-z0-9_-]{32,}")


class Endpoints:
    """The endpoints by path. A path below `/v1/models/` or `/v1/responses/` names one object."""

    def __init__(self) -> None:
        self._fixed: dict[bytes, tuple[tuple[bytes, ...], Endpoint]] = {}
        self._model: Callable[[bytes], Endpoint] | None = None
        self._response: Callable[[str, bytes], Endpoint | None] | None = None
        self._mounted: list[tuple[bytes, Endpoint]] = []

    def get(self, path: bytes, endpoint: Endpoint) -> None:
        """Serve GET and HEAD of `path`."""
        self._fixed[path] = (_GET, endpoint)

    def post(self, path: bytes, endpoint: Endpoint) -> None:
        """Serve POST of `path`."""
        self._fixed[path] = (_POST, endpoint)

    def model(self, endpoint: Callable[[bytes], Endpoint]) -> None:
        """Serve `/v1/models/{id}`; `endpoint` gets the id as it stands in the path."""
        self._model = endpoint

    def response(self, endpoint: Callable[[str, bytes], Endpoint | None]) -> None:
        """Serve `/v1/responses/{id}` and below; `endpoint` gets the id and the part below it."""
        self._response = endpoint

    def mount(self, prefix: bytes, endpoint: Endpoint) -> None:
        """Serve all paths that begin so, with any method."""
        self._mounted.append((prefix, endpoint))

    def find(self, ctx: RequestContext) -> Endpoint:
        """The endpoint of a request.

        Raises:
            RelayError: 404 for an unknown path, 405 for a wrong method.
        """
        request = ctx.exchange.request
        path = request.path
        methods, endpoint = self._fixed.get(path) or self._below(ctx, path)
        if request.method not in methods:
            allowed = b", ".join(methods)
            raise RelayError(
                WRONG_METHOD,
                f"Use {allowed.decode()} for {path.decode()}.",
                headers=((b"allow", allowed),),
            )
        return endpoint

    def _below(self, ctx: RequestContext, path: bytes) -> tuple[tuple[bytes, ...], Endpoint]:
        """The methods and the endpoint of a path that names an object.

        Raises:
            RelayError: 404 for an unknown path.
        """
        shown = ctx.path = without_keys(path.decode("latin-1"))[:_SHOWN_PATH_CHARACTERS]
        for prefix, mounted in self._mounted:
            if path.startswith(prefix):
                return (ctx.exchange.request.method,), mounted
        if path.startswith(MODELS + b"/") and self._model is not None:
            return _GET, self._model(path[len(MODELS) + 1 :])
        if path.startswith(RESPONSES + b"/") and self._response is not None:
            name, _, below = path[len(RESPONSES) + 1 :].partition(b"/")
            endpoint = self._response(unquote(name.decode("latin-1")), below) if name else None
            if endpoint is not None:
                return _response_methods(below), endpoint
        if path == b"/v1/completions":
            raise RelayError(NOT_FOUND, _NO_COMPLETIONS)
        if path in _PATHS_WITHOUT_V1:
            raise RelayError(NOT_FOUND, f"There is nothing at {shown}. {_ADD_V1}")
        raise RelayError(NOT_FOUND, f"There is nothing at {shown}. Served here: {_SERVED}.")


def _response_methods(below: bytes) -> tuple[bytes, ...]:
    if below == b"cancel":
        return _POST
    return _GET if below else (*_GET, b"DELETE")


def without_keys(text: str) -> str:
    """`text` with "…" in place of everything that looks like a key, pasted by mistake."""
    return _KEY_LIKE.sub("…", text)


def error_shape(request: Request) -> ErrorShape:
    """The error shape that a request's path implies."""
    path = request.path
    if path.startswith(RESPONSES):
        return ErrorShape.RESPONSES
    if path.startswith(_OPENAI_PATHS) or path in _PATHS_WITHOUT_V1:
        return ErrorShape.OPENAI
    if path.startswith(MODELS) and not speaks_messages(request):
        return ErrorShape.OPENAI
    return ErrorShape.MESSAGES


def speaks_messages(request: Request) -> bool:
    """Whether a caller speaks Anthropic's API, whose SDKs send `anthropic-version`."""
    return b"anthropic-version" in request.headers
