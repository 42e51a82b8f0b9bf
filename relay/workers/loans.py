"""Reservations of one key that the owner made ahead, for requests that have not come.

Decides how a loan stands in the limits, and how one that is used or returned leaves them. Must not
know links or the journal.
"""

from collections.abc import Sequence

from relay.quota.bucket import Bucket, FixedWindow, Mark, TokenBucket
from relay.quota.ledger import Ledger
from relay.quota.state import LimitCounters, Reservation


class _Part:
    """The part of one bucket that each reservation of a loan took. `is_kept`: a refund leaves it
    there, as in limits of up to an hour."""

    __slots__ = ("amount", "bucket", "counters", "is_kept", "mark", "name", "units")

    def __init__(
        self, counters: LimitCounters, bucket: Bucket, amount: int, mark: Mark, is_kept: bool
    ) -> None:
        self.counters = counters
        self.bucket = bucket
        self.amount = amount
        self.mark = mark
        self.is_kept = is_kept
        self.units = amount * bucket.per if isinstance(bucket, TokenBucket) else amount
        self.name = ("", 0)
        for name, one in counters.all_buckets.items():
            if one is bucket:
                self.name = name

    def is_over(self, now: int) -> bool:
        """Whether it is not in the bucket as it was taken: the bucket was reset, its window is
        over, or it has refilled since."""
        bucket = self.bucket
        if isinstance(bucket, FixedWindow):
            return self.mark[0] != bucket.mark[0] or now >= bucket.end
        return now > bucket.moment or self.mark != bucket.mark

    def take_again(self, count: int, now: int) -> None:
        """Let those of so many reservations count from this moment on."""
        bucket, amount = self.bucket, self.amount
        bucket.give_back(count * amount, self.mark, now)
        if bucket.take(count * amount, now):
            return
        for _ in range(count):  # the first may open a window that is too small for all
            if not bucket.take(amount, now):
                bucket.charge(amount, bucket.mark, now)


class Loan:
    """Reservations that were made at one moment, each of the same amounts."""

    __slots__ = ("_parts", "account")

    def __init__(self, account: str, one: Reservation, count: int, tokens: int) -> None:
        """`one` of `count` reservations, each of so many tokens."""
        self.account = account
        counters = one.counters
        parts = [
            _Part(counters, bucket, 1, bucket.mark, bucket not in counters.refundable)
            for bucket in counters.request_buckets
        ]
        for bucket in counters.token_buckets:
            parts.append(_Part(counters, bucket, min(tokens, bucket.size), bucket.mark, False))
        for further in one.further:
            for limit, bucket, amount, mark in further.taken:
                kept = limit.counts_when_refunded
                parts.append(_Part(further.counters, bucket, amount, mark, kept))
        self._parts = parts
        for part in parts:
            part.counters.lend(part.name, part.mark[0], part.units * count)

    def use(self, ledger: Ledger, count: int) -> None:
        """So many of them are not lent any more."""
        for part in self._parts:
            part.counters.lend(part.name, part.mark[0], -part.units * count)
            ledger.mark_changed(part.counters)

    def begin(self, reservations: Sequence[Reservation], now: int) -> None:
        """Requests were admitted by some of them: these count from this moment on."""
        is_over = False
        for part in self._parts:
            if part.is_over(now):
                is_over = True
                part.take_again(len(reservations), now)
        if is_over:
            for one in reservations:
                _renew(one)

    def withdraw(self, now: int) -> None:
        """One of them was refunded unused: it leaves no trace in short limits either."""
        for part in self._parts:
            if part.is_kept:
                part.bucket.give_back(part.amount, part.mark, now)


def _renew(reservation: Reservation) -> None:
    """All that it holds was taken a moment ago."""
    reservation.requests = [(one, one.mark) for one, _ in reservation.requests]
    reservation.tokens = [(one, held, one.mark) for one, held, _ in reservation.tokens]
    for further in reservation.further:
        further.taken = [(limit, one, held, one.mark) for limit, one, held, _ in further.taken]


def trim(reservation: Reservation, tokens: int, cost: int, now: int) -> None:
    """Give back the part of a reservation that its request does not need."""
    for place, (bucket, amount, mark) in enumerate(reservation.tokens):
        if amount > tokens:
            bucket.give_back(amount - tokens, mark, now)
            reservation.tokens[place] = (bucket, tokens, mark)
    for further in reservation.further:
        for place, (limit, bucket, amount, mark) in enumerate(further.taken):
            if limit.kind == "tokens" and amount > tokens:
                bucket.give_back(amount - tokens, mark, now)
                further.taken[place] = (limit, bucket, tokens, mark)
    balance = reservation.balance
    if balance is not None and reservation.cost > cost:
        balance.held -= reservation.cost - cost
        reservation.cost = cost
