"""The path of one request through the relay, in the order in which it happens.

1. identify  key → caller
2. intake    the whole body, and what it asks for; one of another dialect is read as a whole
3. route     model → the upstreams that serve it, and the one that its session is with
4. admit     what it may use is held; the journal writes that down meanwhile
5. dispatch  the caller's own octets upstream (or, of another dialect, what they mean), until
             one of them begins to answer
6. pass on   the upstream's own octets to the caller (or what they mean); the last ones once 4
             is on disk
7. settle    what was used: ledger, journal and log (in `entry`, whatever happened)
"""

from collections.abc import Awaitable
from time import monotonic
from typing import Final

from relay import config
from relay.errors import UNKNOWN_ENCODING, RelayError
from relay.gateway import chat
from relay.gateway.attempt import RefusedError
from relay.gateway.authentication import KeyIndex
from relay.gateway.context import RequestContext
from relay.gateway.dialect import InboundRequest, Reader, Translation
from relay.gateway.dispatch import Dispatch
from relay.gateway.keepalive import KeepAlive
from relay.gateway.metering import Metering, used
from relay.gateway.passthrough import pass_on, refuse, tell
from relay.gateway.responses import ResponsesReader
from relay.gateway.translated import convert
from relay.net.deadlines import Deadlines
from relay.pool.affinity import Sessions
from relay.pool.leases import RoutingRequest, Upstreams
from relay.pool.routes import Routes, Target
from relay.translate.messages.conversation_key import conversation_key, uses_one_hour_cache
from relay.translate.messages.peek import RequestSummary, peek
from relay.wire.encoding import decoded
from relay.wire.events import Request

_SUBAGENT: Final = b"x-openai-subagent"
_MOST_AGENT: Final = 40  # octets of its name in the log


class Relay:
    """Passes requests on: messages byte for byte, other dialects translated."""

    def __init__(
        self,
        callers: KeyIndex,
        routes: Routes,
        metering: Metering,
        upstreams: Upstreams,
        sessions: Sessions,
        settings: config.PoolSettings,
        timers: Deadlines,
        reader: ResponsesReader,
        most: int,
    ) -> None:
        """`most` octets may be in a body, once it is unfolded."""
        self._callers = callers
        self._routes = routes
        self._metering = metering
        self._upstreams = upstreams
        self._sessions = sessions
        self._dispatch = Dispatch(upstreams, settings.tries)
        self._settings = settings
        self._timers = timers
        self._reader = reader
        self._most = most

    def messages(self, call: RequestContext) -> Awaitable[None]:
        """`POST /v1/messages`."""
        return self._pass(call)

    def count_tokens(self, call: RequestContext) -> Awaitable[None]:
        """`POST /v1/messages/count_tokens`, which costs nothing."""
        call.counting = True
        return self._pass(call)

    def chat(self, call: RequestContext) -> Awaitable[None]:
        """`POST /v1/chat/completions`."""
        return self._pass(call, chat.read)

    def responses(self, call: RequestContext) -> Awaitable[None]:
        """`POST /v1/responses`."""
        agent = call.exchange.request.headers.get(_SUBAGENT)
        if agent is not None:
            call.record.agent = agent[:_MOST_AGENT].decode("latin-1")
        return self._pass(call, self._reader.responses)

    def compact(self, call: RequestContext) -> Awaitable[None]:
        """`POST /v1/responses/compact`."""
        return self._pass(call, self._reader.compaction)

    def input_tokens(self, call: RequestContext) -> Awaitable[None]:
        """`POST /v1/responses/input_tokens`, which costs nothing."""
        call.counting = True
        return self._pass(call, self._reader.input_tokens)

    async def _pass(self, call: RequestContext, read: Reader | None = None) -> None:
        """`read`: what reads a request of another dialect; None: it goes upstream as it is.

        Raises:
            RelayError: the answer has not begun, and this is what the caller is to be told.
        """
        exchange, record, metering = call.exchange, call.record, self._metering
        request = exchange.request
        caller = self._callers.identify(request.headers)
        plan = metering.enter(call, caller)

        body = exchange.octets or await exchange.body()
        call.begun = monotonic()
        if b"content-encoding" in request.headers:
            body = self._decoded(request, body, read)
        asked = peek(body)

        route = self._routes.find(asked.model)
        record.model = asked.model  # now known to be one that is served, no longer than its name
        if read is not None:
            marked = plan.cache_breakpoints and caller.cache_breakpoints
            asking = InboundRequest(request, body, asked.model, record.id, caller, marked)
            call.translation = told = await read(asking)
            asked = RequestSummary(asked.model, told.stream, told.max_tokens)
        counting = call.counting
        ask = RoutingRequest(caller.key_id, route, body, asked.model, plan.prepaid, counting)
        if counting:
            metering.admit_count(caller, plan)
        else:
            ask.tokens = metering.admit(call, caller, plan, asked, self._weighed(call, body))
            if len(route.targets) > 1:
                self._recall(ask, request, body, call.translation)

        alive = None
        if asked.stream is True and not counting:
            alive = KeepAlive(call, metering, self._timers, self._settings)
        try:
            answer = await self._dispatch.answer(call, ask)
            try:
                if ask.key is not None:
                    self._remember(ask, answer.lease.target, body)
                if call.translation is None:
                    await pass_on(call, route, answer, metering, alive)
                else:
                    await convert(call, call.translation, answer, metering, alive)
            finally:
                self._upstreams.release(answer.lease, tokens=used(call.usage))
        except RefusedError as refusal:
            refuse(call, refusal, metering)
        except RelayError as error:
            if not exchange.only_pings:
                raise
            tell(call, error)
        finally:
            if alive is not None:
                alive.stop()

    def _weighed(self, call: RequestContext, body: bytes) -> bytes:
        """What a request is estimated by: all that it sends, and what was kept here of it."""
        before = call.translation.before if call.translation is not None else ()
        return b"".join((body, *before)) if before else body

    def _decoded(self, request: Request, body: bytes, read: Reader | None) -> bytes:
        """The body of a request that came compressed.

        Raises:
            RelayError: 400, 413 or 415, it cannot be had; a body that goes upstream as it came
                is not unfolded.
        """
        encoding = request.headers[b"content-encoding"]
        if read is None and encoding.lower() != b"identity":
            raise RelayError(
                UNKNOWN_ENCODING,
                "Bodies go upstream as they come, and the Messages API takes no "
                "content-encoding: send the body as it is.",
            )
        return decoded(body, encoding, self._most)

    def _recall(
        self, ask: RoutingRequest, request: Request, body: bytes, translation: Translation | None
    ) -> None:
        """Find the session that a request belongs to, and the upstream that it is with."""
        before = translation.before if translation is not None else ()
        if (key := conversation_key(request.headers, body, before)) is not None:
            now = monotonic()
            ask.key = key
            ask.session = found = self._sessions.find(ask.caller, key, now)
            if found is not None and found.until > now and self._settings.sticky != "off":
                ask.bound = found.upstream

    def _remember(self, ask: RoutingRequest, target: Target, body: bytes) -> None:
        """The session is with the upstream that answers: that is where its prompt is cached."""
        upstream = target.upstream
        if ask.key is not None:
            family = upstream.vendor.thinking
            self._sessions.hold(
                ask.caller, ask.key, upstream.name, family, monotonic(), uses_one_hour_cache(body)
            )
