"""The errors of requests that find no place at an upstream, with the time of the next try.

Decides their words. Must not know the queue.
"""

from typing import Final

from relay.clock import rfc3339
from relay.errors import NOT_FOUND, OVERLOADED, Header, RelayError
from relay.pool import clock as pool_clock
from relay.pool.selection import RoutingRequest

_RETRY_WITHIN_SECONDS: Final = 60.0  # a longer wait gets `x-should-retry: false`
_NO_RETRY: Final[Header] = (b"x-should-retry", b"false")


def queue_full_error() -> RelayError:
    """The queue has no room for another request."""
    return RelayError(
        OVERLOADED,
        "All upstreams are busy and too many requests wait for them. Try again.",
        headers=((b"retry-after", b"1"),),
    )


def unavailable_error(request: RoutingRequest, ready: float, now: float) -> RelayError:
    """The error of a request that finds no place; `ready` is when the first upstream is back."""
    if request.counting and ready == float("inf"):  # Claude Code then estimates
        return RelayError(NOT_FOUND, "No upstream for this model counts tokens.")
    if ready <= now:
        return RelayError(
            OVERLOADED,
            "All upstreams for this model are busy. Try again in a moment.",
            headers=((b"retry-after", b"2"),),
        )
    if ready == float("inf"):
        return RelayError(OVERLOADED, "No upstream can serve this model now. Try again later.")
    seconds = max(1, int(ready - now + 0.999))
    headers: tuple[Header, ...] = ((b"retry-after", b"%d" % seconds),)
    if seconds > _RETRY_WITHIN_SECONDS:
        headers += (_NO_RETRY,)
    return RelayError(
        OVERLOADED,
        f"No upstream can serve this model before {rfc3339(pool_clock.shown(ready))}.",
        headers=headers,
    )
