"""How much of one limit is used: the two ways in which a limit fills up again.

A `FixedWindow` opens with the first request, and is whole again when it ends. A `TokenBucket`
bucket
fills up all the time. Both hold what is *used*, not what is left, so that a limit may change
its size and used stays used. Nothing here knows what is counted, for whom or why.

Moments and lengths are whole milliseconds, all arithmetic is in integers. Of clocks that
jump: a step back grants nothing, a leap forward fills a bucket once at most. What a step back
makes wait, it makes wait no longer than `per`.
"""

import math
from typing import Final, TypeAlias

# What a bucket looked like when something was taken: which round it was in, and how far what
# had been taken in this round had faded by then.
Mark: TypeAlias = tuple[int, float]

_UNTOUCHED: Final = (0, 0.0)


class FixedWindow:
    """Whole until the first request, which opens it; whole again at its `end`.

    What is given back or charged later counts in the window in which it was taken, or not at
    all when that one is over. A window from which everything was given back closes: a
    request that does not count does not start the clock.
    """

    __slots__ = ("end", "mark", "per", "size", "used")
    refill: Final = "window"

    def __init__(self, size: int, per: int, used: int = 0, moment: int = 0) -> None:
        self.size = size
        self.per = per
        self.used = used
        self.end = moment  # 0: closed
        self.mark: Mark = _UNTOUCHED

    def take(self, amount: int, now: int) -> bool:
        """Use so much, if there is so much."""
        if now >= self.end:
            if amount > self.size:
                return False
            self.used = amount
            self.end = now + self.per
            self.mark = (self.mark[0] + 1, 0.0)
            return True
        if self.end - now > self.per:  # the clock was stepped back since it opened
            self.end = now + self.per
        used = self.used + amount
        if used > self.size:
            return False
        self.used = used
        return True

    def give_back(self, amount: int, mark: Mark, now: int) -> None:
        """Undo the use of so much, taken when `mark` was the bucket's mark."""
        if mark is self.mark and now < self.end:
            self.used -= amount
            if self.used <= 0:
                self.used = self.end = 0

    def charge(self, amount: int, mark: Mark, now: int) -> None:
        """Use so much more than was taken at `mark`, be it there or not."""
        if mark is self.mark:
            if not self.end:  # all else was given back meanwhile
                self.end = now + self.per
            if now < self.end:
                self.used += amount

    def remaining(self, now: int) -> int:
        """What could be taken at this moment."""
        return self.remaining_and_reset(now)[0]

    def reset_at(self, now: int) -> int:
        """The moment at which it is whole again; this one if it is."""
        return self.remaining_and_reset(now)[1]

    def remaining_and_reset(self, now: int) -> tuple[int, int]:
        """What is `available`, and the `reset`, in one step."""
        end = self.end
        if now >= end:
            return self.size, now
        left = self.size - self.used
        return left if left > 0 else 0, end if end - now <= self.per else now + self.per

    def ready_at(self, amount: int, now: int) -> int:
        """The moment from which on so much could be taken."""
        return now if self.remaining(now) >= amount else self.reset_at(now)

    def resize(self, size: int, now: int) -> None:
        """Let the limit be another."""
        self.size = size

    def used_units(self, now: int) -> int:
        """What is used, rounded up to whole units."""
        return 0 if now >= self.end else self.used

    def state(self) -> tuple[int, int]:
        """`used` and `moment`, with which an equal bucket can be made."""
        return self.used, self.end


class TokenBucket:
    """Fills at an even pace, `size` in `per`.

    `used` is in units of 1/`per` of what is counted: then each millisecond takes off exactly
    `size` of them. It may exceed the whole bucket by what turned out to cost more than was
    taken for it; that debt fills up first.

    What fades from a bucket in use fades from all that was taken alike, and only what is left
    of a part can be given back. Giving back all of it would let a caller hold a large
    estimate while it fades, and then have it a second time.
    """

    __slots__ = ("capacity", "mark", "moment", "per", "size", "used")
    refill: Final = "smooth"

    def __init__(self, size: int, per: int, used: int = 0, moment: int = 0) -> None:
        self.size = size
        self.per = per
        self.capacity = size * per
        self.used = used
        self.moment = moment  # up to when it has been filled
        self.mark: Mark = _UNTOUCHED

    def take(self, amount: int, now: int) -> bool:
        """Use so much, if there is so much."""
        if now != self.moment:
            self._fill(now)
        used = self.used + amount * self.per
        if used > self.capacity:
            return False
        self.used = used
        return True

    def _fill(self, now: int) -> None:
        passed = now - self.moment
        if passed > 0:
            used = self.used
            if used:
                left = used - passed * self.size
                if left > 0:
                    self.used = left
                    round_, faded = self.mark
                    self.mark = (round_, faded + math.log(used / left))
                else:  # whole: nothing that was taken before can be given back
                    self.used = 0
                    self.mark = (self.mark[0] + 1, 0.0)
            self.moment = now
        elif passed < -self.per:  # the clock was stepped back: go on from here, as used as it was
            self.moment = now
        # A smaller step back: wait until the clock is there again, or it would fill twice.

    def give_back(self, amount: int, mark: Mark, now: int) -> None:
        """Undo the use of so much, taken when `mark` was the bucket's mark."""
        self._fill(now)
        round_, faded = self.mark
        if mark[0] == round_:
            left = amount * self.per
            if mark[1] != faded:
                left = int(left * math.exp(mark[1] - faded))
            self.used = max(0, self.used - left)

    def charge(self, amount: int, mark: Mark, now: int) -> None:
        """Use so much more than was taken, be it there or not."""
        self._fill(now)
        self.used += amount * self.per

    def _used(self, now: int) -> int:
        passed = now - self.moment
        return max(0, self.used - passed * self.size) if passed > 0 else self.used

    def remaining(self, now: int) -> int:
        """What could be taken at this moment."""
        return self.remaining_and_reset(now)[0]

    def reset_at(self, now: int) -> int:
        """The moment at which it is whole again; this one if it is."""
        return self.remaining_and_reset(now)[1]

    def remaining_and_reset(self, now: int) -> tuple[int, int]:
        """What is `available`, and the `reset`, in one step."""
        passed = now - self.moment
        used = self.used
        if passed > 0:
            used -= passed * self.size
            if used <= 0:
                return self.size, now
        elif passed:
            return max(0, self.capacity - used) // self.per, self._when(used, now)
        left = (self.capacity - used) // self.per if used < self.capacity else 0
        return left, now - (-used // self.size)

    def ready_at(self, amount: int, now: int) -> int:
        """The moment from which on so much could be taken."""
        return self._when(self._used(now) + amount * self.per - self.capacity, now)

    def _when(self, excess: int, now: int) -> int:
        if excess <= 0:
            return now
        ahead = self.moment - now  # of the clock, after a step back
        waits = ahead if 0 < ahead <= self.per else 0
        return now + waits - (-excess // self.size)

    def resize(self, size: int, now: int) -> None:
        """Let the limit be another from now on."""
        if size != self.size:
            self._fill(now)
            self.size = size
            self.capacity = size * self.per

    def used_units(self, now: int) -> int:
        """What is used, rounded up to whole units."""
        return -(-self._used(now) // self.per)

    def state(self) -> tuple[int, int]:
        """`used` and `moment`, with which an equal bucket can be made."""
        return self.used, self.moment


Bucket: TypeAlias = FixedWindow | TokenBucket


def new_bucket(refill: str, size: int, per: int, used: int = 0, moment: int = 0) -> Bucket:
    """A bucket of one of the two kinds."""
    return (FixedWindow if refill == FixedWindow.refill else TokenBucket)(size, per, used, moment)


def convert_bucket(bucket: Bucket, refill: str, size: int, now: int) -> Bucket:
    """A bucket of the other kind, just as used, over a stretch of the same length."""
    spent = bucket.used_units(now)
    if refill == TokenBucket.refill:
        return TokenBucket(size, bucket.per, spent * bucket.per, now)
    return FixedWindow(size, bucket.per, spent, now + bucket.per if spent else 0)
