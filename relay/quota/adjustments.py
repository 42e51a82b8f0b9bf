"""Changes of single windows by an operator: a reset, a bonus, and a new beginning.

Decides which limits of an account a change concerns. Must not know who made it, or when it is
written.
"""

from collections.abc import Iterable, Iterator, Sequence

from relay.quota.bucket import FixedWindow
from relay.quota.ledger import Ledger
from relay.quota.plans import Plan
from relay.quota.state import LimitCounters


def owners_of(account: str, keys: Sequence[str]) -> list[tuple[str, str]]:
    """Scope and owner of each limit that an account's plan may have."""
    return [("account", account), *(("key", key) for key in keys)]


def reset(
    ledger: Ledger, owners: Iterable[tuple[str, str]], limit: tuple[str, int], now: float
) -> int:
    """Make one limit full again; a window ends when it would have. `limit`: kind and period in
    seconds. Returns the number of limits that were reset."""
    count = 0
    for counters in _present(ledger, owners):
        bucket = counters.all_buckets.get(limit)
        if bucket is not None:
            bucket.reset(int(now * 1000))
            counters.must_check = True
            ledger.mark_changed(counters)
            count += 1
    return count


def renew(ledger: Ledger, owners: Iterable[tuple[str, str]], now: float) -> None:
    """End all windows: the next request opens new ones."""
    for counters in _present(ledger, owners):
        for bucket in counters.all_buckets.values():
            if isinstance(bucket, FixedWindow):
                bucket.renew(int(now * 1000))
        counters.must_check = True
        ledger.mark_changed(counters)


def give_bonus(
    ledger: Ledger, owner: tuple[str, str], plan: Plan, bonus: tuple[str, int, int, int], now: float
) -> bool:
    """Let the next windows of a limit be larger. `bonus`: kind, period in seconds, amount and
    number of windows, 0 to end one. False: the plan has no such window."""
    kind, per, amount, windows = bonus
    moment = int(now * 1000)
    counters = ledger.counters_of(*owner)
    if counters.plan is not plan:
        counters.adopt(plan, moment)
    bucket = counters.all_buckets.get((kind, per))
    if not isinstance(bucket, FixedWindow):
        return False
    bucket.give_bonus(amount, windows, moment)
    counters.bonuses.add((kind, per))
    counters.must_check = True
    ledger.mark_changed(counters)
    return True


def _present(ledger: Ledger, owners: Iterable[tuple[str, str]]) -> Iterator[LimitCounters]:
    for owner in owners:
        counters = ledger.find_counters(*owner)
        if counters is not None:
            yield counters
