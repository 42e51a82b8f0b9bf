"""How often somebody may try something: log in, sign up, ask for a mail.

Decides who may try now, by tokens that refill evenly. Keeps a bounded number of names. Must not
know what is tried.
"""

from typing import Final

from relay.net.addresses import subscriber
from relay.quota.bucket import TokenBucket

_MAX_NAMES: Final = 20_000


class Throttle:
    """So many tries in so many seconds for each name; `allowed` may change while it runs."""

    def __init__(self, allowed: int, seconds: int = 60) -> None:
        self.allowed = allowed
        self._period = seconds * 1000  # milliseconds
        self._buckets: dict[str, TokenBucket] = {}

    def wait(self, name: str, now: float) -> int:
        """Count a try; the seconds to wait if there have been too many, otherwise 0."""
        moment = int(now * 1000)
        bucket = self._buckets.pop(name, None) or TokenBucket(self.allowed, self._period)
        bucket.resize(self.allowed, moment)
        if len(self._buckets) >= _MAX_NAMES:  # the one that has been idle for longest
            del self._buckets[next(iter(self._buckets))]
        self._buckets[name] = bucket
        if bucket.take(1, moment):
            return 0
        return max(1, -(-(bucket.ready_at(1, moment) - moment) // 1000))

    def blocked(self, name: str, now: float) -> int:
        """The seconds that `wait` would return now, without counting a try."""
        bucket, moment = self._buckets.get(name), int(now * 1000)
        if bucket is None or bucket.has_room(1, moment):
            return 0
        return max(1, -(-(bucket.ready_at(1, moment) - moment) // 1000))

    def forgive(self, name: str) -> None:
        """Forget the tries of a name: the last one was right."""
        self._buckets.pop(name, None)


def address_name(address: str) -> str:
    """The name of an address for a throttle: a subscriber has a complete IPv6 network."""
    return subscriber(address).hex() or address
