"""The path of one request through the relay, in the order in which it happens.

1. identify  key → caller, and their plan
2. check     refuse a key without quota or balance before its body is collected; after a request
             that was refused or used up a window, also before a small body is read that came
             with its head
3. receive   the complete body, and a summary of what it asks for
4. route     model → the upstreams that serve it
5. read      parse the request in its dialect
6. admit     reserve quota; the journal writes the admission to disk during 7 and 8
7. dispatch  to the upstream that is due; if it fails, to the next, until one begins to answer
8. respond   pass the answer on, unchanged or translated; hold its last octets back until the
             admission (6) is on disk
9. settle    the reservation in the ledger; `api.handler` writes the end of the request to the
             journal and the log once its status is known

Work that grows with a body runs on the loop for small bodies, and for large ones on a thread
(`gateway.large_requests`).
"""

from functools import partial
from time import monotonic

from relay.errors import RelayError
from relay.gateway.attempt import Answer
from relay.gateway.authentication import KeyIndex
from relay.gateway.context import Outcome, RequestContext
from relay.gateway.dialect import Dialect, InboundRequest, Received, UpstreamRefusal
from relay.gateway.dispatch import Dispatch
from relay.gateway.keepalive import KeepAlive
from relay.gateway.key_rules import check_model
from relay.gateway.large_requests import (
    LARGE_OCTETS,
    PEEKED_OCTETS,
    begin_reading,
    in_turns,
    is_heavy,
    peek_at_large,
    released,
)
from relay.gateway.metering import Metering, features_of
from relay.gateway.respond import end_failed, respond_refusal
from relay.net.deadlines import Deadlines
from relay.net.exchange import UNCOUNTED_OCTETS
from relay.pool.affinity import Binding, Bindings
from relay.pool.leases import Upstreams
from relay.pool.routes import Route
from relay.pool.selection import RoutingRequest, home_of
from relay.pool.threads import Threads
from relay.quota.plans import Plan
from relay.quota.state import KeyState
from relay.store.keys import LiveKey
from relay.translate.messages.features import Features
from relay.translate.messages.peek import UNREADABLE, peek, peek_as_it_is
from relay.translate.messages.request_summary import RequestSummary


class Relay:
    """Passes requests on: Messages byte for byte, other dialects translated."""

    def __init__(
        self,
        keys: KeyIndex,
        metering: Metering,
        upstreams: Upstreams,
        bindings: Bindings,
        deadlines: Deadlines,
    ) -> None:
        self._keys = keys
        self._metering = metering
        self._upstreams = upstreams
        self._bindings = bindings
        self._deadlines = deadlines
        self.threads = Threads()
        self._dispatch = Dispatch(upstreams, deadlines, self._admit_again)

    async def relay(self, ctx: RequestContext, dialect: Dialect) -> None:
        """Answer one request. Raises RelayError: it failed before its answer started."""
        ctx.dialect = dialect
        caller, quota = self._identify(ctx)  # 1
        exchange, body = ctx.exchange, ctx.exchange.early_body
        encoded = b"content-encoding" in exchange.request.headers
        collected = 0 < len(body) <= UNCOUNTED_OCTETS
        if quota.counters.must_check or not collected or encoded or dialect.counting:  # 2
            await self._check(ctx, caller, quota.plan, dialect)
        ctx.checked = True
        if not collected:  # 3
            body = await exchange.body(caller.key_id)
            caller, quota = self._identify(ctx)  # the key may be revoked meanwhile
        ctx.ready_at = monotonic()
        if encoded:
            body = await _decoded(ctx, dialect, body, caller.key_id)
        large = len(body) > LARGE_OCTETS
        summary = await _summary_of_large(ctx, dialect, caller, body) if large else peek(body)
        route = _route(ctx, caller, summary.model)  # 4
        if large and not ctx.heavy and _reads_on(ctx, route, quota.plan):
            await _begin_if_heavy(ctx, caller, body)
        if dialect.counting:
            self._metering.admit_count(caller, quota.plan)
        received = Received(ctx, body, summary, caller, quota.plan)
        ctx.inbound = inbound = await dialect.read(received)  # 5
        ctx.heavy = received.heavy  # turns stored for the conversation may make it heavy
        del body, received
        features = await _features_of_large(ctx, caller, quota.plan, inbound) if ctx.heavy else None
        keep_alive: KeepAlive | None = None
        answer: Answer | None = None
        try:  # whatever fails from here on gives the reservation back
            if (admissions := self._metering.admissions) is None:  # 6
                tokens = self._metering.admit(ctx, caller, quota.plan, inbound, features).tokens
            else:
                tokens = (await admissions.admit(ctx, caller, quota.plan, inbound, features)).tokens
            routing = self._routing(caller, route, inbound, tokens)
            if inbound.stream and not inbound.counting:
                keep_alive = KeepAlive(ctx, self._deadlines, ctx.catalog.pool)
            binding = await self._recall(ctx, routing, inbound) if routing.can_bind else None
            answer = await self._dispatch.first_answer(ctx, inbound, routing, binding)  # 7
            if routing.conversation is not None or inbound.thread:
                self._remember(ctx, caller, routing, answer)
            if ctx.heavy:
                await released(inbound)
            else:
                inbound.release()
            exchange.release_body(inbound.kept_octets)
            await inbound.respond(ctx, answer, keep_alive)  # 8
        except UpstreamRefusal as refusal:
            respond_refusal(ctx, refusal)
        except Exception as error:
            if not _ended(ctx, inbound, keep_alive, error):
                raise
        finally:
            if keep_alive is not None:
                keep_alive.stop()
            ctx.admission.close(complete=ctx.outcome is Outcome.COMPLETE)  # 9
            if answer is not None:
                ended = ctx.admission
                self._upstreams.release(answer.lease, tokens=ended.settled_tokens, cost=ended.cost)

    def _identify(self, ctx: RequestContext) -> tuple[LiveKey, KeyState]:
        """Find the caller and their plan; note the quota that every answer's header fields show.

        Raises:
            RelayError: 401 or 403, the key, the account or the plan is not valid.
        """
        request = ctx.exchange.request
        caller = self._keys.identify(request.headers, request.target)
        return caller, self._metering.enter(ctx, caller)

    async def _check(
        self, ctx: RequestContext, caller: LiveKey, plan: Plan, dialect: Dialect
    ) -> None:
        """Refuse a caller whose next request cannot be admitted. Raises RelayError: 429 or 402."""
        metering = self._metering
        if (admissions := metering.admissions) is None:
            metering.check(ctx, caller, plan, counting=dialect.counting)
        else:
            await admissions.check(ctx, caller, plan, counting=dialect.counting)

    def _routing(
        self, caller: LiveKey, route: Route, inbound: InboundRequest, tokens: int
    ) -> RoutingRequest:
        """What the pool needs to know of a request. Raises RelayError: its thread is not here."""
        if inbound.thread:
            route = self.threads.narrowed(caller.user_id, route, inbound.thread)
        return RoutingRequest(caller.key_id, route, inbound.counting, tokens)

    async def _admit_again(self, ctx: RequestContext, inbound: InboundRequest) -> None:
        """Check the caller again after the request has waited in the queue.

        If the plan has changed, the request is admitted under the new one, and its first admission
        leaves no trace. If the new plan refuses it, the first admission ends as refunded.

        Raises:
            RelayError: 401 or 403, the key, the account or the plan is no longer valid; or any
                error of `Metering.admit` under the new plan.
        """
        before = ctx.caller
        caller, quota = self._identify(ctx)
        if inbound.counting or before is None or caller.plan == before.plan:
            return
        features = None
        text = inbound.estimated_text()  # not looked at before, maybe
        if ctx.heavy or (len(text) > LARGE_OCTETS and is_heavy(text)):
            # Whatever the plan: it may change again meanwhile.
            features = await in_turns(caller.key_id, partial(features_of, ctx, inbound))
            caller, quota = self._identify(ctx)
        admissions = self._metering.admissions
        if admissions is not None and not admissions.admits_again:  # its admission stands
            return
        admission = ctx.admission
        if not admission.refund():  # it has an answer to pay for already
            return
        if admissions is None:
            self._metering.admit(ctx, caller, quota.plan, inbound, features)
        else:
            await admissions.admit(ctx, caller, quota.plan, inbound, features)

    async def _recall(
        self, ctx: RequestContext, routing: RoutingRequest, inbound: InboundRequest
    ) -> Binding | None:
        """Find the request's conversation; note its key and its upstream in `routing`."""
        if ctx.heavy:
            key, routing.caches_for_an_hour = await in_turns(
                routing.caller, partial(_conversation_of, inbound)
            )
        else:
            key = inbound.conversation_key()
        if key is None:
            return None
        routing.conversation = key
        now = monotonic()
        binding = self._bindings.find(routing.caller, key, now)
        if ctx.catalog.pool.sticky != "off":
            routing.by_hash = self._upstreams.by_hash
            if binding is not None and binding.until > now:
                routing.bound = binding.upstream
        return binding

    def _remember(
        self, ctx: RequestContext, caller: LiveKey, routing: RoutingRequest, answer: Answer
    ) -> None:
        """Bind the conversation to the upstream that answers: it caches the prompt, and holds the
        thread."""
        target, inbound, key = answer.lease.target, ctx.inbound, routing.conversation
        upstream = target.upstream
        assert inbound is not None
        if inbound.thread and not inbound.counting:
            self.threads.remember(caller.user_id, target, answer.beginning)
        if key is None:
            return
        hour = routing.caches_for_an_hour if ctx.heavy else inbound.caches_for_an_hour()
        moved = home_of(routing) is not target if answer.lease.choice == "hash" else None
        self._bindings.hold(
            (routing.caller, key),
            upstream.name,
            upstream.vendor.thinking,
            monotonic(),
            hour,
            moved,
        )


def _ended(
    ctx: RequestContext, inbound: InboundRequest, keep_alive: KeepAlive | None, error: Exception
) -> bool:
    """Refund a request that failed without an answer; end it with an error event, and return True,
    if its stream has brought keep-alives alone."""
    if not ctx.exchange.started:
        ctx.admission.refund()
    unanswered = keep_alive is not None and keep_alive.only_keep_alives
    if not unanswered or not isinstance(error, RelayError):
        return False
    ctx.end(Outcome.REFUSED, error.message)
    end_failed(ctx, inbound.error_event(error))
    return True


def _route(ctx: RequestContext, caller: LiveKey, model: str) -> Route:
    """The route of a model. Raises RelayError: 404, 503, or 403 where the key may not use it."""
    route = ctx.catalog.route(model)
    ctx.model = model  # known to be available, so no longer than a name may be
    if caller.rules is not None:
        check_model(caller, model, ctx.catalog)
    return route


async def _decoded(ctx: RequestContext, dialect: Dialect, body: bytes, key: str) -> bytes:
    """A body without its content encoding. Raises RelayError: see `Dialect.decoded`."""
    exchange = ctx.exchange
    body = await dialect.decoded(exchange.request, body, ctx.catalog.body_limit, key)
    exchange.replace_body(key, len(body))
    return body


def _reads_on(ctx: RequestContext, route: Route, plan: Plan) -> bool:
    """Whether more of a body is read than `peek` has: for its conversation, or its price."""
    key_state = ctx.key_state
    counts_money = plan.prepaid or (key_state is not None and key_state.counts_money)
    return len(route.targets) > 1 or counts_money or bool(plan.excluded)


async def _summary_of_large(
    ctx: RequestContext, dialect: Dialect, caller: LiveKey, body: bytes
) -> RequestSummary:
    """The summary of a large body. Raises RelayError: as `_begin_if_heavy`."""
    if dialect.reads_bodies or len(body) > PEEKED_OCTETS:
        summary = await _begin_if_heavy(ctx, caller, body)
        if summary is not None:
            return summary
    try:
        return peek_as_it_is(body)
    except UNREADABLE:  # to mend a body of 1 MiB takes up to 150 ms
        pass
    return await _begin_heavy(ctx, caller, body)


async def _begin_if_heavy(
    ctx: RequestContext, caller: LiveKey, body: bytes
) -> RequestSummary | None:
    """The summary of a body if it is heavy, so that all work on it is done on a thread.

    Raises:
        RelayError: 429, see `begin_reading`; 400 or 413, see `peek_at_large`.
    """
    return await _begin_heavy(ctx, caller, body) if is_heavy(body) else None


async def _begin_heavy(ctx: RequestContext, caller: LiveKey, body: bytes) -> RequestSummary:
    """The summary of a body, read on a thread. Raises RelayError: see `_begin_if_heavy`."""
    ctx.heavy = True
    begin_reading(ctx, caller.key_id)
    return await in_turns(caller.key_id, partial(peek_at_large, body))


def _conversation_of(inbound: InboundRequest) -> tuple[bytes | None, bool]:
    """The key of a request's conversation, and whether its prompt cache lives for an hour."""
    return inbound.conversation_key(), inbound.caches_for_an_hour()


async def _features_of_large(
    ctx: RequestContext, caller: LiveKey, plan: Plan, inbound: InboundRequest
) -> Features | None:
    """The features of a large request, where its plan has a price for them or excludes them."""
    counts_money = ctx.key_state is not None and ctx.key_state.counts_money
    if inbound.counting or not (plan.prepaid or plan.excluded or counts_money):
        return None
    return await in_turns(caller.key_id, partial(features_of, ctx, inbound))
