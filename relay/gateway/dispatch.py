"""Sends a request to an upstream and, if that one fails, to the next.

A failed request goes to another upstream only before an answer has begun, and only if another one
may serve it. It never goes to the same upstream twice, except on a new connection in place of an
idle one that was dead. It goes to no other after an upstream was silent for too long, because that
one may still be working on it. If two upstreams fail in a way that the body may cause, and both
still answer other requests, no third one is tried. Each result is recorded in the health of its
upstream.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from relay.errors import BAD_UPSTREAM, FORBIDDEN, RelayError
from relay.gateway.attempt import Answer, FailedError, attempt
from relay.gateway.context import RequestContext
from relay.gateway.dialect import InboundRequest, UpstreamRefusal
from relay.gateway.large_requests import end_reading, in_turns
from relay.net.deadlines import Deadlines
from relay.pool.affinity import Binding
from relay.pool.leases import Lease, Upstreams
from relay.pool.probing import probe
from relay.pool.routes import Target
from relay.pool.selection import RoutingRequest
from relay.pool.threads import HeldRoute
from relay.pool.threads import not_found as thread_not_found
from relay.pool.upstream import Upstream
from relay.pool.vendor_errors import Scope, Verdict

_log = logging.getLogger("relay.gateway")

_CANNOT_COUNT_SECONDS: Final = 3600.0  # until an upstream is asked again to count tokens
_BROKEN_BY_A_BODY: Final = 2  # upstreams
_RECENT_SECONDS: Final = 60.0
_MAX_BLAMED: Final = 3  # bodies in a row at one upstream


class Dispatch:
    """Sends requests on."""

    def __init__(
        self,
        upstreams: Upstreams,
        deadlines: Deadlines,
        admit_again: Callable[[RequestContext, InboundRequest], Awaitable[None]],
    ) -> None:
        """`admit_again` is called when a request has waited for its place; it raises RelayError if
        the request is to end."""
        self._admit_again = admit_again
        self._upstreams = upstreams
        self._deadlines = deadlines

    async def first_answer(
        self,
        ctx: RequestContext,
        inbound: InboundRequest,
        routing: RoutingRequest,
        binding: Binding | None,
    ) -> Answer:
        """Try upstreams until one begins to answer. The caller must release the answer's lease.

        `binding` is the conversation's, if the relay knows it.

        Raises:
            RelayError: 502, 503 or 504, no upstream gave an answer to pass on; 403, a firewall
                refused the body; 400, the request cannot be translated for the upstream's model;
                or any error of `admit_again`.
            UpstreamRefusal: an upstream's own error.
        """
        upstreams = self._upstreams
        last: RelayError | UpstreamRefusal | None = None
        if ctx.caller is not None:
            routing.account = ctx.caller.user_id
        blamed: list[tuple[Target, float]] = []  # failures that the body may have caused
        while True:
            lease = upstreams.take(routing)
            waited = lease is None
            if lease is None:
                lease = await self._wait(ctx, routing, last)
            target = lease.target
            upstream = target.upstream
            ctx.upstream, ctx.choice = upstream.name, lease.choice
            if len(routing.route.targets) > 1 and not ctx.wait_us:
                ctx.passed_over = upstreams.passed_over(routing, target)
            try:
                if waited:
                    await self._admit_again(ctx, inbound)
                if ctx.heavy:
                    work = partial(inbound.upstream_request, target, binding)
                    written = [await in_turns(routing.caller, work)]
                    end_reading(ctx)
                    answer = await attempt(ctx, lease, written.pop())  # pop: keep no reference
                else:
                    answer = await attempt(ctx, lease, inbound.upstream_request(target, binding))
            except FailedError as failure:
                failed = failure
            except BaseException as end:  # the attempt says nothing about the upstream
                if lease.sent and isinstance(end, asyncio.CancelledError):
                    ctx.admission.leave()
                upstream.health.abandoned()
                upstreams.release(lease, used=lease.sent)
                raise
            else:
                upstream.answered += 1
                if not routing.counting:  # a free request proves nothing
                    upstream.health.succeeded(target.name, routing.account)
                return answer
            last = failed.error
            upstreams.release(lease, used=failed.used)
            _note_failed_attempt(ctx, upstream, failed)
            if await self._ends(ctx, routing, target, failed, blamed):
                raise last from None

    async def _ends(
        self,
        ctx: RequestContext,
        routing: RoutingRequest,
        target: Target,
        failure: FailedError,
        blamed: list[tuple[Target, float]],
    ) -> bool:
        """Record a failure of `target`; return True if no other upstream is to be tried.

        Raises:
            RelayError: two upstreams failed in the same way, and the body is the cause.
        """
        verdict = failure.verdict
        routing.tried += (target.upstream,)
        ends = failure.final or len(routing.tried) >= ctx.catalog.pool.tries
        if verdict.of_body and not ends:
            blamed.append((target, target.upstream.health.failed_at))
            try:
                is_the_bodys = await self._is_the_bodys(routing, blamed)
            except BaseException:  # the caller left meanwhile: nothing excuses the upstream
                self._record(routing, target, verdict)
                raise
            if is_the_bodys:
                self._blame_body(routing, blamed)
                raise _body_error(failure.error) from None
        self._record(routing, target, verdict)
        return ends

    async def _wait(
        self,
        ctx: RequestContext,
        routing: RoutingRequest,
        last: RelayError | UpstreamRefusal | None,
    ) -> Lease:
        wait_began_at = time.monotonic()
        ctx.passed_over = self._upstreams.passed_over(routing, None)
        try:
            return await self._upstreams.wait(routing)
        except RelayError as unavailable:
            if isinstance(routing.route, HeldRoute):
                raise thread_not_found() from None
            raise last or unavailable from None
        finally:
            ctx.wait_us += int((time.monotonic() - wait_began_at) * 1e6)

    def _record(self, routing: RoutingRequest, target: Target, verdict: Verdict) -> None:
        """Record a failure in its upstream's health. A count_tokens request shows only whether
        the upstream serves count_tokens."""
        health, now = target.upstream.health, self._upstreams.now()
        if not routing.counting:
            health.failed(verdict, target.name, now, routing.account)
        elif verdict.scope is Scope.FEATURE:
            health.cannot_count(now + _CANNOT_COUNT_SECONDS, routing.account)

    @staticmethod
    def _blame_body(routing: RoutingRequest, failures: list[tuple[Target, float]]) -> None:
        """Count the blame at each upstream, and retract the failures that the body caused there.

        The last failure is not recorded yet, so it is not retracted.
        """
        for number, (target, failed_before) in enumerate(failures, 1):
            health = target.upstream.health
            health.blame_body()
            if number < len(failures) and not routing.counting:
                health.retract(routing.account, failed_before)

    async def _is_the_bodys(
        self, routing: RoutingRequest, failures: list[tuple[Target, float]]
    ) -> bool:
        """Whether the body caused two failures: both upstreams work for other requests.

        They do if no other request has failed there in the last minute, and both answer a probe.
        False if an upstream had `_MAX_BLAMED` such failures in a row, or if none is left to try.
        """
        if len(failures) != _BROKEN_BY_A_BODY or len(routing.tried) >= len(routing.route.targets):
            return False
        now = self._upstreams.now()
        for target, failed_before in failures:
            health = target.upstream.health
            if now - failed_before < _RECENT_SECONDS or health.bodies_blamed >= _MAX_BLAMED:
                return False
        for target, _ in reversed(failures):
            if await probe(target.upstream, target.name, self._deadlines):
                return False
        return True


def _body_error(last: RelayError | UpstreamRefusal) -> RelayError:
    """The error of a request that two upstreams failed at."""
    if isinstance(last, RelayError) and last.kind is FORBIDDEN:
        return last
    return RelayError(
        BAD_UPSTREAM,
        "Two upstreams broke down at this request, and answer others. Change the request.",
        headers=((b"x-should-retry", b"false"),),
    )


def _note_failed_attempt(ctx: RequestContext, upstream: Upstream, failed: FailedError) -> None:
    verdict = failed.verdict
    ctx.upstream_words = upstream.without_credential(failed.words)
    failure = f"{upstream.name}: {verdict.reason}"
    ctx.tried = f"{ctx.tried}; {failure}" if ctx.tried else failure
    if verdict.scope is Scope.CREDENTIAL:  # nothing gets better without the operator
        _log.error("request %s: upstream %s %s", ctx.id, upstream.name, verdict.reason)
    elif verdict.scope is not Scope.CALLER:
        _log.warning("request %s: upstream %s %s", ctx.id, upstream.name, verdict.reason)
