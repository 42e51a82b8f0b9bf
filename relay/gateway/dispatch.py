"""A request on its way to the upstream that answers it: the first one, or the next.

While nothing of an answer has been shown, a request whose upstream failed goes elsewhere if that
may help: never twice to one upstream (but for a connection that had died unused, which is no
failure of it), and never after an upstream was silent for too long, which may be at work on it
still. What came of each attempt is noted with its upstream.
"""

import logging
import time

from relay.errors import RelayError
from relay.gateway.attempt import Answer, FailedError, RefusedError, attempt
from relay.gateway.context import RequestContext
from relay.pool.leases import RoutingRequest, Upstreams
from relay.pool.routes import Target
from relay.pool.upstream import Upstream
from relay.pool.vendor_errors import Scope, Verdict
from relay.translate.messages.peek import with_model
from relay.translate.messages.thinking_filter import without_thinking

_log = logging.getLogger("relay.gateway")


class Dispatch:
    """Sends requests on."""

    def __init__(self, upstreams: Upstreams, tries: int) -> None:
        self._upstreams = upstreams
        self._tries = tries

    async def answer(self, call: RequestContext, ask: RoutingRequest) -> Answer:
        """The first answer that begins; whoever gets it gives its lease back.

        Raises:
            RelayError: 502, 503 or 504, there is no answer that could be passed on; 400, the
                model's name cannot be replaced.
            RefusedError: an upstream's own error.
        """
        upstreams, record = self._upstreams, call.record
        last: RelayError | RefusedError | None = None
        while True:
            lease = upstreams.take(ask)
            if lease is None:
                waits = time.monotonic()
                record.passed = upstreams.passed_over(ask, None)
                try:
                    lease = await upstreams.wait(ask)
                except RelayError as unavailable:
                    raise last or unavailable from None
                finally:
                    record.wait_us += int((time.monotonic() - waits) * 1e6)
            target = lease.target
            upstream = target.upstream
            record.upstream, record.choice = upstream.name, lease.how
            if len(ask.route.targets) > 1 and not record.wait_us:
                record.passed = upstreams.passed_over(ask, target)
            try:
                answer = await attempt(call, lease, _body(call, ask, target))
            except FailedError as failure:
                last = failure.told
                upstream.health.failed(failure.verdict, target.name, time.time())
                upstreams.release(lease, used=failure.used)
                _note(call, upstream, failure.verdict)
                ask.tried += (upstream,)
                if failure.final or len(ask.tried) >= self._tries:
                    raise last from None
            except BaseException:  # nothing was found out
                upstream.health.left()
                upstreams.release(lease, used=lease.sent)
                raise
            else:
                upstream.answered += 1
                upstream.health.succeeded(target.name)
                return answer


def _body(call: RequestContext, ask: RoutingRequest, target: Target) -> bytes:
    """The request's body as an upstream gets it: the octets that came, but for what must differ."""
    if call.translation is not None:
        return call.translation.octets(target.fit)
    body, session = ask.body, ask.session
    if session is not None:
        family = target.upstream.vendor.thinking
        if session.mixed or session.family != family:
            if ask.clean is None:  # what other models have signed, this one would refuse
                ask.clean = without_thinking(body)
            body = ask.clean
    if target.model is not None or ask.prepaid:  # whose price depends on the name: make it plain
        body = with_model(body, target.model or ask.model)
    return body


def _note(call: RequestContext, upstream: Upstream, verdict: Verdict) -> None:
    record = call.record
    what = f"{upstream.name}: {verdict.reason}"
    record.tried = f"{record.tried}; {what}" if record.tried else what
    if verdict.scope is Scope.CREDENTIAL:  # nothing gets better without the operator
        _log.error("request %s: upstream %s %s", record.id, upstream.name, verdict.reason)
    elif verdict.scope is not Scope.CALLER:
        _log.warning("request %s: upstream %s %s", record.id, upstream.name, verdict.reason)
