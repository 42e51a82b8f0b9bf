"""The endpoints behind the router: relayed dialects, model lists, stored responses, probes.

Decides how each path is answered. A relayed request is answered by `gateway.relay`.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from relay.api import trickle, usage
from relay.api.models import Models
from relay.api.paths import (
    ALIVE,
    CHAT_COMPLETIONS,
    COMPACT,
    COUNT_TOKENS,
    INPUT_TOKENS,
    MESSAGES,
    MODELS,
    READYZ,
    REPORTS,
    RESPONSES,
    error_shape,
    speaks_messages,
)
from relay.api.router import Endpoint, Endpoints, PageSite
from relay.api.stored_responses import StoredResponses
from relay.api.trickle import Trickle
from relay.api.usage import KeyUsage
from relay.errors import ErrorShape
from relay.gateway.authentication import KeyIndex
from relay.gateway.chat import Chat
from relay.gateway.context import Outcome, RequestContext
from relay.gateway.dialect import Dialect
from relay.gateway.history import ConversationHistory
from relay.gateway.load import Load
from relay.gateway.messages import Messages
from relay.gateway.metering import Metering
from relay.gateway.relay import Relay
from relay.gateway.responses import Compaction, InputTokens, Responses

_JSON: Final = (b"content-type", b"application/json")
_TEXT: Final = (b"content-type", b"text/plain; charset=utf-8")
_SUBAGENT_FIELD: Final = b"x-openai-subagent"
_MAX_AGENT_OCTETS: Final = 40  # of a subagent's name in the log

DialectsByPath = dict[bytes, Dialect]


def dialects(seal_key: bytes, history: ConversationHistory) -> DialectsByPath:
    """The dialect of each relayed path. `seal_key` has 32 octets, see `Responses`."""
    return {
        MESSAGES: Messages(),
        COUNT_TOKENS: Messages(counting=True),
        CHAT_COMPLETIONS: Chat(),
        RESPONSES: Responses(seal_key, history),
        COMPACT: Compaction(seal_key, history),
        INPUT_TOKENS: InputTokens(seal_key, history),
    }


class ApiEndpoints:
    """The endpoints of the API, as the router finds them."""

    def __init__(
        self,
        models: Models,
        stored: StoredResponses,
        keys: KeyIndex,
        metering: Metering,
        key_usage: KeyUsage,
        unready: Callable[[], str],
    ) -> None:
        """`unready`: why `GET /readyz` fails, "" if it succeeds."""
        self.models = models
        self._stored = stored
        self._keys = keys
        self._metering = metering
        self._usage = key_usage
        self._unready = unready
        self.trickle = Trickle()
        self.pages: PageSite | None = None

    def routes(self, relay: Relay, relayed: DialectsByPath, load: Load) -> Endpoints:
        """All endpoints by path; the `relayed` paths lead to `relay`, as `load` allows."""
        endpoints = Endpoints()
        endpoints.pages = self.pages
        for path, dialect in relayed.items():
            logs_agent = path.startswith(RESPONSES)  # Codex CLI names its sub-agents
            endpoint = _RelayEndpoint(relay, dialect, load, logs_agent=logs_agent)
            endpoints.post(path, endpoint.serve)
        endpoints.get(MODELS, self._list_models)
        endpoints.get(usage.PATH, self._show_usage)
        endpoints.model(self._show_model)
        endpoints.response(self._stored_response)
        endpoints.post(trickle.PATH, self.trickle.serve, listed=False)
        endpoints.preflight(_preflight)
        for prefix in REPORTS:
            endpoints.post_prefix(prefix, _ignore)
        endpoints.get(READYZ, self._readiness)
        endpoints.get(b"/", self._front)
        for path in ALIVE:
            endpoints.get(path, _alive)
        return endpoints

    async def _front(self, ctx: RequestContext) -> None:
        """A page for browsers; for probes, a sign of life."""
        accept = ctx.exchange.request.headers.get(b"accept", b"")
        if self.pages is not None and b"text/html" in accept and self.pages.serves(b"/", accept):
            await self.pages.serve(ctx)
        else:
            await _alive(ctx)

    async def _list_models(self, ctx: RequestContext) -> None:
        self._identify(ctx)
        request = ctx.exchange.request
        query = request.target.partition(b"?")[2]
        _respond_json(ctx, self.models.list(query, speaks_messages(request)))

    async def _show_usage(self, ctx: RequestContext) -> None:
        self._identify(ctx)
        assert ctx.caller is not None
        _respond_json(ctx, await self._usage.document(ctx, ctx.caller.key_id))

    def _show_model(self, name: bytes) -> Endpoint:
        async def show(ctx: RequestContext) -> None:
            self._identify(ctx)
            _respond_json(ctx, self.models.show(name, speaks_messages(ctx.exchange.request)))

        return show

    def _stored_response(self, id: str, below: bytes) -> Endpoint | None:
        """The endpoint of a stored response; `below` is the path behind its id."""
        stored = self._stored

        async def show(ctx: RequestContext) -> None:
            owner, request = self._identify(ctx), ctx.exchange.request
            query = request.target.partition(b"?")[2]
            if request.method == b"DELETE":
                _respond_json(ctx, await stored.delete(owner, id))
            else:
                _respond_json(ctx, await stored.show(owner, id, query))

        async def input_items(ctx: RequestContext) -> None:
            owner = self._identify(ctx)
            query = ctx.exchange.request.target.partition(b"?")[2]
            _respond_json(ctx, await stored.input_items(owner, id, query))

        async def cancel(ctx: RequestContext) -> None:
            _respond_json(ctx, await stored.cancel(self._identify(ctx), id))

        return {b"": show, b"input_items": input_items, b"cancel": cancel}.get(below)

    async def _readiness(self, ctx: RequestContext) -> None:
        ctx.end(Outcome.COMPLETE)
        reason = self._unready()
        body = f"not ready: {reason}\n".encode() if reason else b"ready\n"
        ctx.exchange.respond(503 if reason else 200, [_TEXT], body)

    def _identify(self, ctx: RequestContext) -> str:
        """The caller's account.

        Raises:
            RelayError: 401 without a live key, 403 for a suspended account or a removed plan.
        """
        request = ctx.exchange.request
        caller = self._keys.identify(request.headers, request.target)
        self._metering.enter(ctx, caller)
        return caller.user_id


class _RelayEndpoint:
    """The endpoint of one relayed path."""

    __slots__ = ("_dialect", "_load", "_logs_agent", "_relay")

    def __init__(self, relay: Relay, dialect: Dialect, load: Load, *, logs_agent: bool) -> None:
        self._relay = relay
        self._dialect = dialect
        self._load = load
        self._logs_agent = logs_agent

    def serve(self, ctx: RequestContext) -> Awaitable[None]:
        load = self._load
        if load.share or load.in_flight > load.max_in_flight:
            load.check()
        if self._logs_agent:
            agent = ctx.exchange.request.headers.get(_SUBAGENT_FIELD, b"")
            ctx.agent = agent[:_MAX_AGENT_OCTETS].decode("latin-1")
        return self._relay.relay(ctx, self._dialect)


async def _preflight(ctx: RequestContext) -> None:
    ctx.end(Outcome.COMPLETE)
    fields = ctx.catalog.cors.preflight_fields(ctx.exchange.request.headers)
    ctx.exchange.respond(204, [(b"request-id", ctx.exchange.id)], b"", fields)


async def _ignore(ctx: RequestContext) -> None:
    ctx.end(Outcome.COMPLETE)
    ctx.exchange.respond(204, [], b"")


async def _alive(ctx: RequestContext) -> None:
    ctx.end(Outcome.COMPLETE)
    ctx.exchange.respond(200, [_TEXT], b"ok\n")


def _respond_json(ctx: RequestContext, body: bytes) -> None:
    ctx.end(Outcome.COMPLETE)
    exchange = ctx.exchange
    headers = [_JSON, (b"request-id", exchange.id), exchange.own_timing()]
    if error_shape(exchange.request) is not ErrorShape.MESSAGES:  # OpenAI's SDKs read this field
        headers.append((b"x-request-id", exchange.id))
    exchange.respond(200, headers, body, ctx.limit_fields())
