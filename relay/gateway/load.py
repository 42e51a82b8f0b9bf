"""Whether the relay can take one more request, or sheds it to keep those that it has.

Two signs of overload: more requests in flight than `max_in_flight`, or an event loop that is late
again and again. By the second, a share of new requests is refused. It grows while the loop is late
and falls while it is not, so that the loop stays busy and punctual. A request is refused at its
head, before its body is collected; streams in flight go on.

Must not know requests.
"""

from typing import Final

from relay.errors import OVERLOADED, RelayError

_MORE: Final = 0.1  # of the share, for each late timer; twenty a second
_LESS: Final = 0.02
_RETRY_SPREAD_SECONDS: Final = 3  # so that those refused together do not come back together


class ShedError(RelayError):
    """A request is refused, for there are too many."""


class Load:
    """`in_flight` is the number of requests; `share` of new ones is refused, from 0 to 1. `shed`
    counts those that were refused."""

    __slots__ = ("_debt", "_max_lag", "in_flight", "max_in_flight", "share", "shed")

    def __init__(self, max_in_flight: int, max_lag: float) -> None:
        """`max_lag`: the longest standing lag of the loop, in seconds; 0: any."""
        self.max_in_flight = max_in_flight
        self._max_lag = max_lag
        self.in_flight = 0
        self.share = 0.0
        self.shed = 0
        self._debt = 0.0  # of requests to refuse

    def bound(self, max_in_flight: int, max_lag: float) -> None:
        """Use these bounds from now on."""
        self.max_in_flight = max_in_flight
        self._max_lag = max_lag

    def observe(self, lag: float) -> None:
        """Adapt the share to the lag that stands; called at regular intervals."""
        if self._max_lag and lag > self._max_lag:
            self.share = min(1.0, self.share + _MORE)
        elif self.share:
            self.share = max(0.0, self.share - _LESS)

    def check(self) -> None:
        """Called with each request that costs work, once it is counted in `in_flight`.

        Raises:
            ShedError: 503, it is to be refused.
        """
        if self.in_flight <= self.max_in_flight:
            self._debt += self.share
            if self._debt < 1.0:
                return
            self._debt -= 1.0
        self.shed += 1
        seconds = 1 + self.shed % _RETRY_SPREAD_SECONDS
        raise ShedError(
            OVERLOADED,
            "The relay has more requests than it can serve. Try again in a moment.",
            headers=((b"retry-after", b"%d" % seconds),),
        )
