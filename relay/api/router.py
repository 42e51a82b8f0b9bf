"""Maps a method and path to an endpoint.

Decides which paths are served, and the errors for a wrong path or method. Must not know how an
endpoint answers. What a path means is decided in `paths`.
"""

from collections.abc import Awaitable, Callable
from typing import Final, Protocol
from urllib.parse import unquote

from relay.api.paths import MODELS, RESPONSES, V1, below, canonical, not_offered, shown
from relay.errors import NOT_FOUND, UPGRADE_REQUIRED, WRONG_METHOD, RelayError
from relay.gateway.context import RequestContext
from relay.wire.events import Request

Endpoint = Callable[[RequestContext], Awaitable[None]]
_Route = tuple[tuple[bytes, ...], Endpoint]


class PageSite(Protocol):
    """The pages for people, beside the API."""

    def serves(self, path: bytes, accept: bytes) -> bool:
        """Whether it answers a request for a path that is not the API's."""
        ...

    async def serve(self, ctx: RequestContext) -> None: ...


_GET: Final = (b"GET", b"HEAD")
_POST: Final = (b"POST",)
_NO_WEBSOCKET: Final = "WebSockets are not offered here. Use POST /v1/responses with stream: true."
_UPGRADE_TO: Final = ((b"upgrade", b"HTTP/1.1"),)


class Endpoints:
    """The endpoints by path. A path below `/v1/models/` or `/v1/responses/` names one object."""

    def __init__(self) -> None:
        self._fixed: dict[bytes, _Route] = {}
        self._prefixes: list[tuple[bytes, _Route]] = []
        self._model: Callable[[bytes], Endpoint] | None = None
        self._response: Callable[[str, bytes], Endpoint | None] | None = None
        self._preflight: Endpoint | None = None
        self._unlisted: set[bytes] = set()
        self.pages: PageSite | None = None
        self._mounted: list[tuple[bytes, Endpoint]] = []

    def get(self, path: bytes, endpoint: Endpoint) -> None:
        """Serve GET and HEAD of `path`."""
        self._fixed[path] = (_GET, endpoint)

    def post(self, path: bytes, endpoint: Endpoint, *, listed: bool = True) -> None:
        """Serve POST of `path`. `listed`: the 404 of an unknown path names it."""
        self._fixed[path] = (_POST, endpoint)
        if not listed:
            self._unlisted.add(path)

    def post_prefix(self, prefix: bytes, endpoint: Endpoint) -> None:
        """Serve POST of every path that begins so."""
        self._prefixes.append((prefix, (_POST, endpoint)))

    def model(self, endpoint: Callable[[bytes], Endpoint]) -> None:
        """Serve `/v1/models/{id}`; `endpoint` gets the id as it stands in the path."""
        self._model = endpoint

    def response(self, endpoint: Callable[[str, bytes], Endpoint | None]) -> None:
        """Serve `/v1/responses/{id}` and below; `endpoint` gets the id and the part below it."""
        self._response = endpoint

    def preflight(self, endpoint: Endpoint) -> None:
        """Serve OPTIONS of every path below `/v1`."""
        self._preflight = endpoint

    def mount(self, prefix: bytes, endpoint: Endpoint) -> None:
        """Serve all paths that begin so, with any method."""
        self._mounted.append((prefix, endpoint))

    def find(self, ctx: RequestContext) -> Endpoint:
        """The endpoint of a request.

        Raises:
            RelayError: 404 for an unknown path, 405 for a wrong method, 426 for a WebSocket, 401
                for a key in the path.
        """
        request = ctx.exchange.request
        route = self._fixed.get(request.path)
        if route is not None and request.method in route[0]:
            return route[1]
        return self._find_unusual(ctx, request)

    def _find_unusual(self, ctx: RequestContext, request: Request) -> Endpoint:
        """The endpoint of a path with a slip in it, of one object, or of a rare method."""
        path = canonical(request.path)
        ctx.path = shown(path)
        if path != request.path:
            ctx.exchange.request = request = _with_path(request, path)
        if request.method == b"OPTIONS" and self._preflight is not None and below(path, V1):
            return self._preflight
        methods, endpoint = self._fixed.get(path) or self._below(ctx, path)
        if request.method in methods:
            return endpoint
        if path == RESPONSES and request.headers.get(b"upgrade", b"").lower() == b"websocket":
            raise RelayError(UPGRADE_REQUIRED, _NO_WEBSOCKET, headers=_UPGRADE_TO)
        allowed = b", ".join(methods)
        raise RelayError(
            WRONG_METHOD,
            f"Use {allowed.decode()} for {ctx.path}.",
            headers=((b"allow", allowed),),
        )

    def _below(self, ctx: RequestContext, path: bytes) -> _Route:
        """The methods and the endpoint of a path that names an object, or begins as a served one.

        Raises:
            RelayError: 404 for an unknown path.
        """
        for prefix, mounted in self._mounted:
            if path.startswith(prefix):
                return (ctx.exchange.request.method,), mounted
        if path.startswith(MODELS + b"/") and self._model is not None:
            return _GET, self._model(path[len(MODELS) + 1 :])
        if path.startswith(RESPONSES + b"/") and self._response is not None:
            name, _, rest = path[len(RESPONSES) + 1 :].partition(b"/")
            endpoint = self._response(unquote(name.decode("latin-1")), rest) if name else None
            if endpoint is not None:
                return _response_methods(rest), endpoint
        for prefix, route in self._prefixes:
            if path.startswith(prefix):
                return route
        request = ctx.exchange.request
        if (
            self.pages is not None
            and not below(path, V1)
            and self.pages.serves(path, request.headers.get(b"accept", b""))
        ):
            return (request.method,), self.pages.serve
        words = not_offered(path) or f"Served here: {self.served}."
        raise RelayError(NOT_FOUND, f"There is nothing at {ctx.path}. {words}")

    @property
    def served(self) -> str:
        """The served paths below /v1, each with its methods."""
        names = [
            f"{methods[0].decode()} {path.decode()}"
            for path, (methods, _) in self._fixed.items()
            if path.startswith(V1 + b"/") and path not in self._unlisted
        ]
        if self._model is not None:
            names.append(f"GET {MODELS.decode()}/{{id}}")
        if self._response is not None:
            responses = f"{RESPONSES.decode()}/{{id}}"
            names += [f"GET and DELETE {responses}", f"GET {responses}/input_items"]
            names.append(f"POST {responses}/cancel")
        return ", ".join(names)


def _with_path(request: Request, path: bytes) -> Request:
    """The same request for another path."""
    target = path + request.target[len(request.path) :]
    copy = Request(request.method, target, path, request.headers, request.onward, request.length)
    copy.keep_alive = request.keep_alive
    copy.http11 = request.http11
    copy.expects_continue = request.expects_continue
    return copy


def _response_methods(rest: bytes) -> tuple[bytes, ...]:
    if rest == b"cancel":
        return _POST
    return _GET if rest else (*_GET, b"DELETE")
