"""Life in a stream that has nothing to show: a ping after a while, and the head before that.

A caller who sees no octet gives up, or whoever stands between does (Cloudflare after 100 s,
Claude Code tells its user after 20 s). So a stream is begun after a time of grace, within which
a failure still gets its true status, and from then on silence is filled with `event: ping`,
which the Messages API sends itself and SDKs skip anywhere, or with what its dialect has in
place of it. It hides nothing: what an upstream
may be silent for is its connection's own deadline, which these pings do not touch.
"""

from typing import Final, Protocol

from relay import config
from relay.gateway.context import RequestContext
from relay.gateway.metering import Metering
from relay.net.deadlines import NEVER, Deadlines
from relay.net.upstream.splice import Splice
from relay.wire.events import UNTIL_CLOSE

PING: Final = b'event: ping\ndata: {"type": "ping"}\n\n'
_COMMENT: Final = b":\n\n"
UNBUFFERED: Final = b"x-accel-buffering: no\r\n"  # nginx and others buffer unless told not to
UNCACHED: Final = b"cache-control: no-cache, no-transform\r\n"
_FIELDS: Final = b"content-type: text/event-stream; charset=utf-8\r\n" + UNBUFFERED + UNCACHED


class Heard(Protocol):
    """What a stream comes out of; `heard` is when it last brought something."""

    heard: float


class KeepAlive:
    """Watches one stream from the request on until `stop`. Times in seconds."""

    __slots__ = (
        "_call",
        "_metering",
        "_silence",
        "_source",
        "_splice",
        "_timers",
        "deadline",
    )

    def __init__(
        self,
        call: RequestContext,
        metering: Metering,
        timers: Deadlines,
        settings: config.PoolSettings,
    ) -> None:
        self._call = call
        self._metering = metering
        self._timers = timers
        self._silence = settings.keep_alive
        self._splice: Splice | None = None
        self._source: Heard | None = None
        self.deadline = timers.now + settings.grace
        timers.watch(self)

    def follow(self, splice: Splice, source: Heard) -> None:
        """From now on the answer comes through this splice, out of that source."""
        self._call.exchange.only_pings = False
        self._splice = splice
        self._source = source
        self.deadline = self._timers.now + self._silence

    def stop(self) -> None:
        """The answer is complete, or will not be."""
        self.deadline = NEVER
        self._timers.forget(self)

    def expire(self) -> None:
        """Nothing came for a while."""
        exchange = self._call.exchange
        splice, source = self._splice, self._source
        if splice is not None and source is not None:
            due = source.heard + self._silence
            if due > self._timers.swept:
                self.deadline = due
                return
            if not exchange.paused:  # or the caller has enough to read
                splice.interject(self._ping())
        elif exchange.started:
            exchange.write(self._ping())
        else:
            call = self._call
            fields = self._metering.lines(call) + b"request-id: %b\r\n%b: %b\r\n%b" % (
                exchange.id,
                *exchange.own_timing(),
                _FIELDS,
            )
            exchange.begin_with(200, fields, UNTIL_CLOSE, exchange.framed(self._ping()))
            exchange.only_pings = True
            exchange.probe = self._probe
        self.deadline = self._timers.now + self._silence

    def _ping(self) -> bytes:
        translation = self._call.translation
        return PING if translation is None else translation.keep_alive()

    def _probe(self) -> bool:
        self._call.exchange.write(_COMMENT)
        return True
