"""What is left of each limit of a plan, for people to read. Changes nothing.

Decides how a limit is shown that nobody has used yet, or whose plan has changed since. Must not
know who reads it.
"""

from dataclasses import dataclass

from relay.quota.bucket import Bucket, FixedWindow, new_bucket
from relay.quota.ledger import Ledger
from relay.quota.plans import Limit, Plan


@dataclass(frozen=True, slots=True)
class WindowView:
    """One limit as it stands; times are epoch seconds, periods seconds.

    `reset` is when it is full again; None: it is full. `is_smooth`: it refills all the time;
    otherwise a window opens at the first use and ends after its period.
    """

    kind: str  # requests or tokens
    per: int
    size: int
    used: int
    remaining: int
    reset: float | None
    is_smooth: bool


def windows(ledger: Ledger, owner: str, plan: Plan, now: float) -> list[WindowView]:
    """All limits of a plan. `owner` is the account if its keys share them, else a key."""
    counters = ledger.find_counters("account" if plan.by_account else "key", owner)
    known = {} if counters is None else counters.all_buckets
    moment = int(now * 1000)
    is_current = counters is not None and counters.plan is plan
    return [
        _view(limit, known.get((limit.kind, limit.per)), moment, is_current=is_current)
        for limit in plan.limits
    ]


def present_size(bucket: Bucket, moment: int) -> int:
    """The size at this moment (ms): of a window with its bonus, of a limit that machines have
    divided this one's part."""
    if isinstance(bucket, FixedWindow):
        return bucket.size if moment < bucket.end else bucket.next_size
    return bucket.size


def _view(limit: Limit, bucket: Bucket | None, moment: int, *, is_current: bool) -> WindowView:
    """`is_current`: the bucket is of this very plan."""
    if bucket is None:
        bucket = new_bucket(limit.refill, limit.size, limit.per * 1000)
    used = bucket.used_units(moment)
    reset = bucket.reset_at(moment)
    remaining = bucket.remaining(moment)
    size = limit.size
    if is_current:
        size = present_size(bucket, moment)
    elif _ordinary_size(bucket) != limit.size or bucket.refill != limit.refill:
        remaining = max(0, limit.size - used)  # the bucket is of the plan before
    else:
        size = present_size(bucket, moment)
    return WindowView(
        limit.kind,
        limit.per,
        size,
        used,
        remaining,
        reset / 1000 if used else None,
        limit.refill == "smooth",
    )


def _ordinary_size(bucket: Bucket) -> int:
    return bucket.ordinary_size if isinstance(bucket, FixedWindow) else bucket.size
