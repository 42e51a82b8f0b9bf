"""Counts the use of one limit and decides when there is room again.

A `FixedWindow` opens with the first request and is full again when it ends. A `TokenBucket`
refills all the time. Both store what is *used*, not what is left, so that a limit may change
its size while the use stays. Must not know what is counted, for whom or why.

Moments and periods are whole milliseconds, all arithmetic is in integers. A backward clock
step grants nothing and delays callers by at most `per`; a leap forward refills a bucket at
most once.
"""

import math
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias

# A bucket's state when something was taken from it. First the round: the window, or the time
# since the bucket was last full. Then the decay x of the round's use: e^-x of it was left.
Mark: TypeAlias = tuple[int, float]

_NEW_MARK: Final = (0, 0.0)


class FixedWindow:
    """A window that the first request opens, and that is full again at its `end`.

    A later refund or charge counts in the window of its request, or not at all when that
    window is over. A window whose use was all refunded closes, as a request that does not
    count must not start the clock.
    """

    __slots__ = (
        "bonus",
        "bonus_windows",
        "capacity",
        "end",
        "mark",
        "ordinary_size",
        "per",
        "size",
        "until",
        "used",
    )
    refill: str = "window"

    def __init__(self, size: int, per: int, used: int = 0, moment: int = 0) -> None:
        self.size = size  # with the bonus of the present window, if it has one
        self.per = per
        self.capacity = size  # the use at which nothing is left
        self.used = used
        self.end = moment  # 0 while it is closed
        self.mark: Mark = _NEW_MARK
        self.ordinary_size = size
        self.bonus = 0
        self.bonus_windows = 0  # that will have the bonus, the present one left out
        self.until = 0  # no window outlasts this moment; 0: there is none

    def _open(self, now: int) -> None:
        """A window begins."""
        self.end = self._end_from(now)
        if self.bonus:
            if self.bonus_windows:
                self.bonus_windows -= 1
                self.size = self.capacity = self.ordinary_size + self.bonus
            else:
                self.bonus = 0
                self.size = self.capacity = self.ordinary_size

    def _end_from(self, now: int) -> int:
        end = now + self.per
        return self.until if now < self.until < end else end

    def _close(self) -> None:
        """The present window was not used after all."""
        self.used = self.end = 0
        if self.bonus:
            self.bonus_windows += 1

    @property
    def next_size(self) -> int:
        """The size of the window that the next request opens."""
        return self.ordinary_size + self.bonus if self.bonus_windows else self.ordinary_size

    def give_bonus(self, amount: int, windows: int, now: int) -> None:
        """Let so many windows be larger, the present one first. Replaces an earlier bonus."""
        is_open = now < self.end
        self.bonus = amount if windows else 0
        self.bonus_windows = windows - 1 if windows and is_open else windows
        self.size = self.capacity = self.ordinary_size + self.bonus

    def restore_bonus(self, amount: int, windows: int) -> None:
        """The bonus of an earlier process's bucket."""
        self.bonus, self.bonus_windows = amount, windows
        self.size = self.capacity = self.ordinary_size + amount

    def reset(self, now: int) -> None:
        """Forget the use of the present window, but not when it ends. What its requests used, or
        give back, counts no more."""
        self.used = 0
        self.mark = (self.mark[0] + 1, 0.0)

    def renew(self, now: int) -> None:
        """End the present window."""
        self.used = self.end = 0
        self.mark = (self.mark[0] + 1, 0.0)

    def take(self, amount: int, now: int) -> bool:
        """Use an amount if it remains; returns whether it did."""
        if now >= self.end:
            if amount > self.next_size:
                return False
            self.used = amount
            self._open(now)
            self.mark = (self.mark[0] + 1, 0.0)
            return True
        if self.end - now > self.per:  # the clock was stepped back since it opened
            self.end = now + self.per
        used = self.used + amount
        if used > self.size:
            return False
        self.used = used
        return True

    def has_room(self, amount: int, now: int) -> bool:
        """Whether an amount could be taken now."""
        if now >= self.end:
            return amount <= self.next_size
        return self.used + amount <= self.size

    def give_back(self, amount: int, mark: Mark, now: int) -> None:
        """Undo the use of an amount that was taken when the bucket had this mark."""
        if mark[0] == self.mark[0] and now < self.end:
            self.used -= amount
            if self.used <= 0:
                self._close()

    def charge(self, amount: int, mark: Mark, now: int) -> None:
        """Use an amount beyond that taken at `mark`, even if it does not remain."""
        if mark[0] == self.mark[0]:
            if not self.end:  # all other use was refunded meanwhile
                self._open(now)
            if now < self.end:
                self.used += amount

    def remaining(self, now: int) -> int:
        """The amount that could be taken now."""
        return self.remaining_and_reset(now)[0]

    def reset_at(self, now: int) -> int:
        """When it is full again; `now` if it is full."""
        return self.remaining_and_reset(now)[1]

    def remaining_and_reset(self, now: int) -> tuple[int, int]:
        """`remaining` and `reset_at` in one step."""
        end = self.end
        if now >= end:
            return self.next_size, now
        left = self.size - self.used
        return left if left > 0 else 0, end if end - now <= self.per else now + self.per

    def ready_at(self, amount: int, now: int) -> int:
        """When the amount can be taken; `now` if it remains."""
        return now if self.has_room(amount, now) else self.reset_at(now)

    def resize(self, size: int, now: int) -> None:
        """Change the limit's size; a bonus stays."""
        self.ordinary_size = size
        self.size = self.capacity = size + self.bonus

    def used_units(self, now: int) -> int:
        """The use, rounded up to whole units."""
        return 0 if now >= self.end else self.used

    def state(self) -> tuple[int, int]:
        """`used` and `moment`, the arguments that make an equal bucket."""
        return self.used, self.end


class CalendarWindow(FixedWindow):
    """A window that ends with the day, the week (on Monday) or the month, in UTC."""

    __slots__ = ("refill",)

    def __init__(self, refill: str, size: int, per: int, used: int = 0, moment: int = 0) -> None:
        super().__init__(size, per, used, moment)
        self.refill = refill

    def _end_from(self, now: int) -> int:
        return calendar_period(self.refill, now)[1]


def calendar_period(unit: str, now: int) -> tuple[int, int]:
    """Begin and end (ms) of the day, week or month in UTC that `now` is in."""
    day = datetime.fromtimestamp(now // 1000, UTC).replace(hour=0, minute=0, second=0)
    if unit == "day":
        begin, end = day, day + timedelta(days=1)
    elif unit == "week":
        begin = day - timedelta(days=day.weekday())
        end = begin + timedelta(days=7)
    else:
        begin = day.replace(day=1)
        end = (begin + timedelta(days=32)).replace(day=1)
    return int(begin.timestamp()) * 1000, int(end.timestamp()) * 1000


class TokenBucket:
    """Refills at an even pace, `size` in `per`.

    `used` is in units of 1/`per` of what is counted, so that each millisecond takes off
    exactly `size` of them. It exceeds the capacity where requests cost more than was taken
    for them; that debt is refilled first.

    Refilling reduces the use of all requests in proportion, and only the remainder of an
    amount can be given back. Giving back all of it would let a caller hold a large estimate
    while the bucket refills, and then use it a second time.
    """

    __slots__ = ("capacity", "mark", "moment", "per", "size", "used")
    refill: Final = "smooth"

    def __init__(self, size: int, per: int, used: int = 0, moment: int = 0) -> None:
        self.size = size
        self.per = per
        self.capacity = size * per
        self.used = used
        self.moment = moment  # refilled up to here
        self.mark: Mark = _NEW_MARK

    def take(self, amount: int, now: int) -> bool:
        """Use an amount if it remains; returns whether it did."""
        if now != self.moment:
            self._refill(now)
        used = self.used + amount * self.per
        if used > self.capacity:
            return False
        self.used = used
        return True

    def _refill(self, now: int) -> None:
        passed = now - self.moment
        if passed > 0:
            used = self.used
            if used:
                left = used - passed * self.size
                if left > 0:
                    self.used = left
                    round_, faded = self.mark
                    self.mark = (round_, faded + math.log(used / left))
                else:  # full: nothing taken before can be given back
                    self.used = 0
                    self.mark = (self.mark[0] + 1, 0.0)
            self.moment = now
        elif passed < -self.per:  # the clock was stepped back: keep the use, go on from here
            self.moment = now
        # After a smaller step back, wait for the clock to catch up, or it would refill twice.

    def has_room(self, amount: int, now: int) -> bool:
        """Whether an amount could be taken now."""
        wanted = amount * self.per
        return self.used + wanted <= self.capacity or self._used_at(now) + wanted <= self.capacity

    def give_back(self, amount: int, mark: Mark, now: int) -> None:
        """Undo the use of an amount that was taken when the bucket had this mark."""
        self._refill(now)
        round_, faded = self.mark
        if mark[0] == round_:
            left = amount * self.per
            if mark[1] != faded:
                left = int(left * math.exp(mark[1] - faded))
            self.used = max(0, self.used - left)

    def charge(self, amount: int, mark: Mark, now: int) -> None:
        """Use an amount beyond that taken, even if it does not remain."""
        self._refill(now)
        self.used += amount * self.per

    def _used_at(self, now: int) -> int:
        passed = now - self.moment
        return max(0, self.used - passed * self.size) if passed > 0 else self.used

    def remaining(self, now: int) -> int:
        """The amount that could be taken now."""
        return self.remaining_and_reset(now)[0]

    def reset_at(self, now: int) -> int:
        """When it is full again; `now` if it is full."""
        return self.remaining_and_reset(now)[1]

    def remaining_and_reset(self, now: int) -> tuple[int, int]:
        """`remaining` and `reset_at` in one step."""
        passed = now - self.moment
        used = self.used
        if passed > 0:
            used -= passed * self.size
            if used <= 0:
                return self.size, now
        elif passed:
            return max(0, self.capacity - used) // self.per, self._refilled_at(used, now)
        left = (self.capacity - used) // self.per if used < self.capacity else 0
        return left, now - (-used // self.size)

    def ready_at(self, amount: int, now: int) -> int:
        """When the amount can be taken; `now` if it remains."""
        return self._refilled_at(self._used_at(now) + amount * self.per - self.capacity, now)

    def _refilled_at(self, excess: int, now: int) -> int:
        """When so much of the use, in the units of `used`, is refilled."""
        if excess <= 0:
            return now
        ahead = self.moment - now  # positive after a backward clock step
        pause = ahead if 0 < ahead <= self.per else 0
        return now + pause - (-excess // self.size)

    def reset(self, now: int) -> None:
        """Forget all use. What earlier requests give back counts no more."""
        self.used = 0
        self.mark = (self.mark[0] + 1, 0.0)

    def resize(self, size: int, now: int) -> None:
        """Change the limit's size from now on."""
        if size != self.size:
            self._refill(now)
            self.size = size
            self.capacity = size * self.per

    def used_units(self, now: int) -> int:
        """The use, rounded up to whole units."""
        return -(-self._used_at(now) // self.per)

    def state(self) -> tuple[int, int]:
        """`used` and `moment`, the arguments that make an equal bucket."""
        return self.used, self.moment


Bucket: TypeAlias = FixedWindow | TokenBucket


def new_bucket(refill: str, size: int, per: int, used: int = 0, moment: int = 0) -> Bucket:
    """Make a bucket of the kind that refills so: `window`, `smooth`, or by a calendar."""
    if refill in ("window", "smooth"):
        return (FixedWindow if refill == "window" else TokenBucket)(size, per, used, moment)
    return CalendarWindow(refill, size, per, used, moment)


def convert_bucket(bucket: Bucket, refill: str, size: int, now: int) -> Bucket:
    """A bucket of the other kind with the same use and period."""
    used = bucket.used_units(now)
    if refill == TokenBucket.refill:
        return TokenBucket(size, bucket.per, used * bucket.per, now)
    return FixedWindow(size, bucket.per, used, now + bucket.per if used else 0)
