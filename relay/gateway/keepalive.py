"""Writes keep-alives into a silent stream, and its response head first if the upstream is slow.

A client that receives no octet gives up, or a proxy in between does (Cloudflare after 100 s; Claude
Code warns its user after 20 s). So after `pool.grace` seconds without an answer the relay sends a
head with status 200. A failure before that still gets its own status. Keep-alives do not extend the
time that an upstream may be silent: its connection has a deadline of its own.
"""

from typing import Final, Protocol

from relay import config
from relay.gateway.context import RequestContext
from relay.net.deadlines import NEVER, Deadlines
from relay.net.upstream.splice import Splice

_SSE_COMMENT: Final = b":\n\n"
UNBUFFERED: Final = b"x-accel-buffering: no\r\n"  # nginx and others buffer without it
UNCACHED: Final = b"cache-control: no-cache, no-transform\r\n"
_FIELDS: Final = b"content-type: text/event-stream; charset=utf-8\r\n" + UNBUFFERED + UNCACHED


class StreamSource(Protocol):
    """The source of a stream. `heard`: the time of its last octets, on the clock of `Deadlines`."""

    heard: float


class KeepAlive:
    """Watches one stream from the request until `stop`. Times in seconds.

    `only_keep_alives`: the caller has the head and keep-alives, and no octet of an answer yet.
    """

    __slots__ = (
        "_ctx",
        "_deadlines",
        "_silence",
        "_source",
        "_splice",
        "deadline",
        "only_keep_alives",
    )

    def __init__(
        self, ctx: RequestContext, deadlines: Deadlines, settings: config.PoolSettings
    ) -> None:
        self._ctx = ctx
        self._deadlines = deadlines
        self._silence = settings.keep_alive
        self._splice: Splice | None = None
        self._source: StreamSource | None = None
        self.only_keep_alives = False
        self.deadline = deadlines.now + settings.grace
        deadlines.watch(self)

    def follow(self, splice: Splice, source: StreamSource) -> None:
        """Watch an answer that comes from `source` through `splice`."""
        self.only_keep_alives = False
        self._splice = splice
        self._source = source
        self.deadline = self._deadlines.now + self._silence

    def stop(self) -> None:
        """Stop watching: the answer has ended, completely or not."""
        self.deadline = NEVER
        self._deadlines.forget(self)

    def expire(self) -> None:
        """The deadline passed: write a keep-alive after silence, else set the next deadline."""
        exchange = self._ctx.exchange
        splice, source = self._splice, self._source
        if splice is not None and source is not None:
            due = source.heard + self._silence
            if due > self._deadlines.swept:
                self.deadline = due
                return
            if not exchange.paused:  # a caller with unread octets needs no sign of life
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
            self.only_keep_alives = True
        self.deadline = self._deadlines.now + self._silence

    def _event(self) -> bytes:
        inbound = self._ctx.inbound
        assert inbound is not None
        return inbound.keep_alive()

    def _probe(self) -> bool:
        """Write a comment, which a closed socket answers with a reset (`Exchange.still_read`)."""
        self._ctx.exchange.write(_SSE_COMMENT)
        return True
