"""A splice that looks at error events before they are passed on.

Decides where an error event may be in a piece of a stream. Must not know what may be shown of it:
the `judge` callback decides that. A piece without the word `error`, as nearly all are, costs one
search.
"""

import re
from collections.abc import Callable
from typing import Final

from relay.errors import RelayError
from relay.net.exchange import Exchange
from relay.net.upstream.body import ResponseBody
from relay.net.upstream.connection import FailureKind, UpstreamError
from relay.net.upstream.splice import Splice, Tap

_MARK: Final = b"error"
_ERROR_EVENT: Final = re.compile(
    rb'^(?:event: ?error|data: ?\{[^\n]{0,40}?"(?:error"[ ]*:|(?:object|type)"[ ]*:[ ]*"error"))',
    re.MULTILINE,
)
_DATA: Final = re.compile(rb"^data: ?([^\r\n]*)", re.MULTILINE)
_END: Final = re.compile(rb"\r?\n\r?\n")
_MAX_HELD: Final = 64 * 1024  # octets of an error event that has come in part


class GuardedSplice(Splice):
    """Passes an event stream on. `judge` returns the failure to end it with in place of an error
    event with these data, or None if the event may be passed on."""

    __slots__ = ("_held", "_judge")

    def __init__(
        self,
        exchange: Exchange,
        body: ResponseBody,
        tap: Tap,
        judge: Callable[[bytes], UpstreamError | None],
        *,
        reframed: bool,
    ) -> None:
        super().__init__(exchange, body, tap, reframed=reframed)
        self._judge = judge
        self._held = b""

    def _first_octets(self) -> bytes:
        octets = super()._first_octets()
        if _MARK in octets and (failure := self._failure(octets)) is not None:
            raise failure
        return octets

    def _feed(self, data: bytes) -> None:
        """As in `Splice`, written out: it is called once per event."""
        extent = self._extent
        try:
            data = extent.feed(data)
        except RelayError as error:
            self._fail(UpstreamError(FailureKind.GARBAGE, error.message))
            return
        if _MARK in data:
            self._pass_guarded(data)
            return
        if data:
            if extent.done:
                self._last = data
            else:
                self._write(data)
            self._tap.feed(data)
        if extent.done:
            self._complete()

    def _feed_rest(self, data: bytes) -> None:
        """Take the next piece of an error event that has come in part."""
        try:
            data = self._extent.feed(data)
        except RelayError as error:
            self._fail(UpstreamError(FailureKind.GARBAGE, error.message))
            return
        self._pass_guarded(data)

    def _pass_guarded(self, data: bytes) -> None:
        """Pass on a piece that may have an error event, once that event is complete."""
        done = self._extent.done
        data = self._held + data
        self._held = b""
        match = _ERROR_EVENT.search(data)
        if match is not None:
            failure = self._failure(data)
            if failure is not None:
                self._fail(failure)
                return
            partial = _END.search(data, match.end()) is None
            if partial and not done and len(data) < _MAX_HELD:
                self._held = data
                self._connection.attach(self._feed_rest)
                return
        self._connection.attach(self._feed)
        if done:
            self._last = data
        else:
            self._write(data)
        self._tap.feed(data)
        if done:
            self._complete()

    def _failure(self, data: bytes) -> UpstreamError | None:
        match = _ERROR_EVENT.search(data)
        if match is None:
            return None
        end = _END.search(data, match.end())
        event = data[match.start() : end.start() if end is not None else len(data)]
        return self._judge(b"\n".join(_DATA.findall(event)))
