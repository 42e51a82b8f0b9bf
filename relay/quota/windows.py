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
    return [_view(limit, known.get((limit.kind, limit.per)), moment) for limit in plan.limits]


def _view(limit: Limit, bucket: Bucket | None, moment: int) -> WindowView:
    if bucket is None:
        bucket = new_bucket(limit.refill, limit.size, limit.per * 1000)
    used = bucket.used_units(moment)
    reset = bucket.reset_at(moment)
    remaining = bucket.remaining(moment)
    size = limit.size
    if _ordinary_size(bucket) != limit.size or bucket.refill != limit.refill:
        remaining = max(0, limit.size - used)  # the bucket is of the plan before
    elif isinstance(bucket, FixedWindow):  # with its bonus
        size = bucket.size if moment < bucket.end else bucket.next_size
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
