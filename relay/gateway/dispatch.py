"""A request on its way to the upstream that answers it: the first one, or the next.

While nothing of an answer has been shown, a request whose upstream failed goes elsewhere if that
may help: never twice to one upstream (but for a connection that had died unused, which is no
failure of it), and never after an upstream was silent for too long, which may be at work on it
still. The result of each attempt is noted with its upstream.
"""

import logging
import time
from functools import partial

from relay.errors import RelayError
from relay.gateway.attempt import Answer, FailedError, attempt
from relay.gateway.context import RequestContext
from relay.gateway.dialect import InboundRequest, UpstreamRefusal
from relay.gateway.large_requests import in_turns
from relay.pool.affinity import Session
from relay.pool.leases import Upstreams
from relay.pool.selection import RoutingRequest
from relay.pool.upstream import Upstream
from relay.pool.vendor_errors import Scope, Verdict

_log = logging.getLogger("relay.gateway")


class Dispatch:
    """Sends requests on."""

    def __init__(self, upstreams: Upstreams, tries: int) -> None:
        """`tries`: the number of upstreams that a request may go to."""
        self._upstreams = upstreams
        self._tries = tries

    async def first_answer(
        self,
        ctx: RequestContext,
        inbound: InboundRequest,
        wanted: RoutingRequest,
        session: Session | None,
    ) -> Answer:
        """The first answer that begins; the caller of this gives its lease back.

        `session` is the conversation's, if it is known.

        Raises:
            RelayError: 502, 503 or 504, there is no answer that could be passed on; 400, the
                request cannot be written for the upstream's model.
            UpstreamRefusal: an upstream's own error.
        """
        upstreams = self._upstreams
        last: RelayError | UpstreamRefusal | None = None
        while True:
            lease = upstreams.take(wanted)
            if lease is None:
                waits = time.monotonic()
                ctx.passed_over = upstreams.passed_over(wanted, None)
                try:
                    lease = await upstreams.wait(wanted)
                except RelayError as unavailable:
                    raise last or unavailable from None
                finally:
                    ctx.wait_us += int((time.monotonic() - waits) * 1e6)
            target = lease.target
            upstream = target.upstream
            ctx.upstream, ctx.choice = upstream.name, lease.choice
            if len(wanted.route.targets) > 1 and not ctx.wait_us:
                ctx.passed_over = upstreams.passed_over(wanted, target)
            try:
                write = partial(inbound.upstream_request, target, session)
                written = [await in_turns(write) if ctx.heavy else write()]
                answer = await attempt(ctx, lease, *written.pop())  # nothing here keeps the body
            except FailedError as failure:
                last = failure.error
                upstream.health.failed(failure.verdict, target.name, upstreams.now())
                upstreams.release(lease, used=failure.used)
                _note(ctx, upstream, failure.verdict)
                wanted.tried += (upstream,)
                if failure.final or len(wanted.tried) >= self._tries:
                    raise last from None
            except BaseException:  # nothing was found out
                upstream.health.abandoned()
                upstreams.release(lease, used=lease.sent)
                raise
            else:
                upstream.answered += 1
                upstream.health.succeeded(target.name)
                return answer


def _note(ctx: RequestContext, upstream: Upstream, verdict: Verdict) -> None:
    failure = f"{upstream.name}: {verdict.reason}"
    ctx.tried = f"{ctx.tried}; {failure}" if ctx.tried else failure
    if verdict.scope is Scope.CREDENTIAL:  # nothing gets better without the operator
        _log.error("request %s: upstream %s %s", ctx.id, upstream.name, verdict.reason)
    elif verdict.scope is not Scope.CALLER:
        _log.warning("request %s: upstream %s %s", ctx.id, upstream.name, verdict.reason)
