"""A splice that looks at events before they are passed on.

An upstream may quote the operator's credential in an error, or in any event of its own making:
`{"detail": …}`, say. What a model writes cannot quote it, because no model is shown it. So pieces
that are nothing but content pass at no cost of their own: the tap recognises them, as it must in
any case. All other events are judged once they are complete, wherever reads and chunks cut them.

Decides which octets wait for the end of their event. Must not know what may be shown of an event:
the `judge` callback decides that.
"""

from collections.abc import Callable
from typing import Final, Protocol

from relay.errors import RelayError
from relay.net.exchange import Exchange
from relay.net.upstream.body import ResponseBody
from relay.net.upstream.connection import FailureKind, UpstreamError
from relay.net.upstream.splice import Splice
from relay.net.upstream.splice import Tap as AnyTap
from relay.wire.body import Sized
from relay.wire.chunked import ChunkScanner

_MAX_HELD: Final = 1024 * 1024  # octets of an event that has come in part, and is no content
_EVENT_END: Final = b"\n\n"

Judge = Callable[[bytes, bytes], UpstreamError | None]


class EventTap(AnyTap, Protocol):
    """A tap that reads events."""

    def passes(self, data: bytes) -> bool:
        """Take octets that are one event of content in a chunk of its own, which the framing need
        not take; False for all others, of which it takes none."""
        ...

    def feed(self, data: bytes) -> bool:
        """Take octets; return False if they are complete events of content, and nothing else."""
        ...

    def take_others(self) -> list[tuple[bytes, bytes]]:
        """Name and data of the events so far that are no content, each once."""
        ...

    def incomplete(self) -> bytes:
        """The part of an event that has come without its end; empty if it is content."""
        ...


class GuardedSplice(Splice):
    """Passes an event stream on. `judge` takes an event's name and data, and returns the failure to
    end the stream with in its place, or None if the event may be passed on."""

    __slots__ = ("_between", "_ending", "_events", "_held", "_judge", "_refused")

    def __init__(
        self,
        exchange: Exchange,
        body: ResponseBody,
        tap: EventTap,
        judge: Judge,
        *,
        reframed: bool,
    ) -> None:
        super().__init__(exchange, body, tap, reframed=reframed)
        self._events = tap
        self._judge = judge
        self._held = b""
        self._refused = False  # an event was not passed on
        self._ending = _EVENT_END  # what the octets of an event end with, its chunk included
        if isinstance(self._extent, ChunkScanner):
            self._ending += b"\r\n"
        self._between = True  # the octets passed on end with an event

    def interject(self, payload: bytes) -> bool:
        """As in `Splice`; in place of a refused event, of which no octet was passed on, as well."""
        fits = self._framed or not isinstance(self._extent, Sized)
        if self._refused and self._between and fits and not self._last:
            self._exchange.write(payload)
            return True
        return super().interject(payload)

    def _first_octets(self) -> bytes:
        return self._judged(super()._first_octets())

    def _feed(self, data: bytes) -> None:
        """As in `Splice`, written out: it is called once per event."""
        extent = self._extent
        try:
            if self._events.passes(data):
                self._write(data)
                return
            data = extent.feed(data)
            if data:
                if self._events.feed(data):
                    data = self._judged(data)
                if extent.done:
                    self._last = data
                elif data:
                    self._write(data)
        except RelayError as error:
            self._fail(UpstreamError(FailureKind.GARBAGE, error.message))
            return
        except Exception as failure:  # UpstreamError, or a fault of the relay's own
            self._fail(failure)
            return
        if extent.done:
            self._complete()

    def _judged(self, data: bytes) -> bytes:
        """The octets that may be passed on; the others are held.

        Raises:
            UpstreamError: none of them may be, and the stream is to end.
        """
        data, self._held = self._held + data, b""
        for name, event in self._events.take_others():
            if (failure := self._judge(name, event)) is not None:
                self._refused = True
                raise failure
        incomplete = self._events.incomplete()
        if incomplete:
            if len(incomplete) > _MAX_HELD:
                self._refused = True
                raise UpstreamError(FailureKind.GARBAGE, "an event that is too long")
            # The framing may cut an event anywhere, so more may be held than the event itself.
            before, ending, part = data.rpartition(self._ending)
            data, self._held = before + ending, part
        if data:
            self._between = data.endswith(self._ending)
        return data

    def _complete(self) -> None:
        if self._held:  # the last event has no end
            failure = self._judge(b"", self._events.incomplete())
            if failure is not None:
                self._fail(failure)
                return
            self._last, self._held = self._last + self._held, b""
        super()._complete()
