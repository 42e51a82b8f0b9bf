"""Life in a silent stream: a keep-alive after a while, and the head before that.

A caller that sees no octet gives up, or a proxy in between does (Cloudflare after 100 s; Claude
Code warns its user after 20 s). So a stream begins after a grace time, within which a failure
still gets its true status; from then on silence is filled with the dialect's keep-alive. It hides
nothing: the limit of an upstream's silence is its connection's own deadline, which keep-alives do
not touch.
"""

from typing import Final, Protocol

from relay import config
from relay.gateway.context import RequestContext
from relay.net.deadlines import NEVER, Deadlines
from relay.net.upstream.splice import Splice

_COMMENT: Final = b":\n\n"
UNBUFFERED: Final = b"x-accel-buffering: no\r\n"  # nginx and others buffer without it
UNCACHED: Final = b"cache-control: no-cache, no-transform\r\n"
_FIELDS: Final = b"content-type: text/event-stream; charset=utf-8\r\n" + UNBUFFERED + UNCACHED


class Heard(Protocol):
    """The source of a stream; `heard` is when it last brought something, as `Deadlines` count."""

    heard: float


class KeepAlive:
    """Watches one stream from the request on until `stop`. Times in seconds.

    `alone`: the answer has started, and of the upstream's answer nothing is written.
    """

    __slots__ = (
        "_ctx",
        "_deadlines",
        "_silence",
        "_source",
        "_splice",
        "alone",
        "deadline",
    )

    def __init__(
        self, ctx: RequestContext, deadlines: Deadlines, settings: config.PoolSettings
    ) -> None:
        self._ctx = ctx
        self._deadlines = deadlines
        self._silence = settings.keep_alive
        self._splice: Splice | None = None
        self._source: Heard | None = None
        self.alone = False
        self.deadline = deadlines.now + settings.grace
        deadlines.watch(self)

    def follow(self, splice: Splice, source: Heard) -> None:
        """From now on the answer comes through this splice, out of that source."""
        self.alone = False
        self._splice = splice
        self._source = source
        self.deadline = self._deadlines.now + self._silence

    def stop(self) -> None:
        """The answer is complete, or never will be."""
        self.deadline = NEVER
        self._deadlines.forget(self)

    def expire(self) -> None:
        """Nothing came for a while."""
        exchange = self._ctx.exchange
        splice, source = self._splice, self._source
        if splice is not None and source is not None:
            due = source.heard + self._silence
            if due > self._deadlines.swept:
                self.deadline = due
                return
            if not exchange.paused:  # or the caller has enough to read
                splice.interject(self._event())
        elif exchange.started:
            exchange.write(self._event())
        else:
            fields = self._ctx.limit_fields() + b"request-id: %b\r\n%b: %b\r\n%b" % (
                exchange.id,
                *exchange.own_timing(),
                _FIELDS,
            )
            exchange.begin_stream(200, fields, self._event())
            exchange.probe = self._probe
            self.alone = True
        self.deadline = self._deadlines.now + self._silence

    def _event(self) -> bytes:
        inbound = self._ctx.inbound
        assert inbound is not None
        return inbound.keep_alive()

    def _probe(self) -> bool:
        self._ctx.exchange.write(_COMMENT)
        return True
