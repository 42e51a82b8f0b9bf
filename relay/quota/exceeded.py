"""Decides how a refused caller learns that a limit is reached: status, headers and message.

Clients differ in what stops them. `x-should-retry: false` stops Claude Code and the SDKs,
which would otherwise sit out a long `retry-after` in silence; `usage_limit_reached` stops
Codex. So a wait of up to a minute is reported as a rate limit, a longer one as a used-up quota.
"""

from operator import itemgetter
from typing import Final

import orjson

from relay import clock
from relay.errors import RATE_LIMITED, ErrorShape, Header, Kind, RelayError
from relay.quota.bucket import Bucket
from relay.quota.plans import Limit, Plan
from relay.quota.state import Balance, KeyState

USED_UP: Final = Kind(429, "rate_limit_error", "insufficient_quota", "insufficient_quota")
PAYMENT_REQUIRED: Final = Kind(402, "billing_error", "insufficient_quota", "insufficient_quota")

_MAX_RETRY_AFTER_SECONDS: Final = 60  # Claude Code waits that long by itself and gives up on 61
_CONCURRENCY_RETRY_SECONDS: Final = 5  # one of several concurrent requests may have ended by then
_NO_RETRY: Final[Header] = (b"x-should-retry", b"false")


class QuotaExceeded(RelayError):  # noqa: N818 -- it is the caller's state, not a fault
    """A request that was not admitted; nothing was taken for it.

    `limit` is the exceeded limit that resets last, None if no limit was exceeded;
    `resets_at` is when it has room for the request, epoch seconds.
    """

    def __init__(
        self,
        kind: Kind,
        message: str,
        *,
        limit: Limit | None = None,
        retry_after: int | None = None,
        resets_at: int | None = None,
    ) -> None:
        self.limit = limit
        self.retry_after = retry_after
        self.resets_at = resets_at
        headers: tuple[Header, ...] = ()
        if retry_after is not None:
            headers = ((b"retry-after", b"%d" % retry_after),)
        if not self._is_worth_waiting(retry_after):
            headers = (*headers, _NO_RETRY)
        super().__init__(kind, message, headers=headers)

    @staticmethod
    def _is_worth_waiting(retry_after: int | None) -> bool:
        return retry_after is not None and retry_after <= _MAX_RETRY_AFTER_SECONDS

    def status(self, shape: ErrorShape) -> int:
        """As in RelayError, but 429 for a 402 in the Responses dialect.

        Codex repeats a 402 six times and stops at a 429.
        """
        if shape is ErrorShape.RESPONSES and self.kind is PAYMENT_REQUIRED:
            return USED_UP.status
        return super().status(shape)

    def body(self, shape: ErrorShape, request_id: str | None = None) -> bytes:
        """As in RelayError, but with the type and the time that Codex acts on.

        On `/v1/responses` only: Codex stops at `usage_limit_reached` and shows `resets_at`.
        """
        if shape is not ErrorShape.RESPONSES:
            return super().body(shape, request_id)
        if self._is_worth_waiting(self.retry_after):
            kind, code = RATE_LIMITED.openai_type, RATE_LIMITED.code
        elif self.resets_at is not None:
            kind, code = "usage_limit_reached", "usage_limit_reached"
        else:
            kind, code = self.kind.openai_type, self.kind.code
        error: dict[str, object] = {
            "message": self.message,
            "type": kind,
            "param": None,
            "code": code,
        }
        if self.resets_at is not None:
            error["resets_at"] = self.resets_at
        return orjson.dumps({"error": error})


def limit_error(plan: Plan, limit: Limit, ready: int, now: int) -> QuotaExceeded:
    """A limit is used up and has room again at `ready` (both moments in ms)."""
    wait = max(1, -((now - ready) // 1000))
    moment = -(-ready // 1000)
    scope = ", shared by all keys of this account" if plan.by_account else ""
    if wait <= _MAX_RETRY_AFTER_SECONDS:
        return QuotaExceeded(
            RATE_LIMITED,
            f"{_subject(plan)} allows {limit.name}{scope}. Please try again in {wait}s.",
            limit=limit,
            retry_after=wait,
            resets_at=moment,
        )
    day, _, time = clock.rfc3339(moment)[:-5].partition("T")
    return QuotaExceeded(
        USED_UP,
        f"The limit of {plan.title or f'plan {plan.name}'} is reached: {limit.name}{scope}. "
        f"It resets at {day} {time} UTC, in {_duration_text(wait)}.",
        limit=limit,
        retry_after=wait,
        resets_at=moment,
    )


def _subject(plan: Plan) -> str:
    """The plan as the first words of a sentence."""
    return plan.title.capitalize() if plan.title else f"Plan {plan.name}"


def concurrency_error(plan: Plan) -> QuotaExceeded:
    """One key has as many requests in flight as the plan allows."""
    allowed = plan.max_concurrency
    per_key = "" if plan.title else " per key"
    return QuotaExceeded(
        RATE_LIMITED,
        f"{_subject(plan)} allows {allowed} request{'s' * (allowed > 1)} at once{per_key}. "
        f"Please try again in {_CONCURRENCY_RETRY_SECONDS}s.",
        retry_after=_CONCURRENCY_RETRY_SECONDS,
    )


def counting_error(wait: int) -> QuotaExceeded:
    """Too many requests to count tokens; there is room again in `wait` seconds."""
    return QuotaExceeded(
        RATE_LIMITED,
        f"Too many requests to count tokens. Please try again in {wait}s.",
        retry_after=wait,
    )


def balance_error(balance: Balance, cost: int) -> QuotaExceeded:
    """The balance does not cover a request's highest cost, in micro-dollars."""
    amount = balance.amount
    if amount > 0 and amount >= cost:
        return QuotaExceeded(
            RATE_LIMITED,
            "The rest of this account's balance is held for requests that are running. "
            f"Please try again in {_CONCURRENCY_RETRY_SECONDS}s.",
            retry_after=_CONCURRENCY_RETRY_SECONDS,
        )
    if amount <= 0:
        reason = "The balance of this account is used up."
    else:
        reason = (
            f"The balance of this account, {_dollars(amount)}, does not cover this request, "
            f"which may cost {_dollars(cost)}; a lower max_tokens makes it less."
        )
    return QuotaExceeded(PAYMENT_REQUIRED, f"{reason} Ask the operator of this relay for credit.")


def _dollars(micro: int) -> str:
    return f"${micro / 1_000_000:,.6f}".rstrip("0").rstrip(".")


def _duration_text(seconds: int) -> str:
    """A duration rounded up to minutes, in its two largest units: `4 h 59 min`."""
    minutes = -(-seconds // 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min")]
    return " ".join([f"{number} {unit}" for number, unit in parts if number][:2])


def short_limit_error(key_state: KeyState, now: int) -> QuotaExceeded:
    """The error for the request limit of up to an hour that takes longest to have room."""
    plan = key_state.plan
    ready, limit = max(
        (
            (bucket.ready_at(1, now), limit)
            for limit, bucket in zip(plan.limits, key_state.counters.buckets, strict=True)
            if limit.counts_when_refunded
        ),
        key=itemgetter(0),
    )
    return limit_error(plan, limit, ready, now)


def obstacle_error(key_state: KeyState, now: int, tokens: int, cost: int) -> QuotaExceeded:
    """The error for the obstacle that ends last; an exhausted balance never ends."""
    plan, balance = key_state.plan, key_state.balance
    if balance is not None and not balance.covers(cost) and balance.amount < max(cost, 1):
        return balance_error(balance, cost)
    last: tuple[Plan, Limit] | None = None
    until = now
    for counters in (key_state.counters, *key_state.further):
        assert counters.plan is not None
        for limit, bucket in zip(counters.plan.limits, counters.buckets, strict=True):
            ready = bucket.ready_at(_wanted(limit, bucket, tokens, cost), now)
            if ready > until:
                last, until = (counters.plan, limit), ready
    if last is not None:
        return limit_error(*last, until, now)
    if balance is not None and not balance.covers(cost):
        return balance_error(balance, cost)
    for counters in key_state.further:
        further = counters.plan
        if further is not None and 0 < further.max_concurrency <= key_state.in_flight:
            return concurrency_error(further)
    return concurrency_error(plan)


def _wanted(limit: Limit, bucket: Bucket, tokens: int, cost: int) -> int:
    if limit.kind == "requests":
        return 1
    return min(tokens if limit.kind == "tokens" else cost, bucket.size)


def check_further(key_state: KeyState, now: int) -> None:
    """Check that the smallest possible request has room in the limits beside the plan's.

    Raises:
        QuotaExceeded: it has not.
    """
    for counters in key_state.further:
        plan = counters.plan
        assert plan is not None
        if 0 < plan.max_concurrency <= key_state.in_flight:
            raise obstacle_error(key_state, now, 0, 0)
        for limit, bucket in zip(plan.limits, counters.buckets, strict=True):
            if not bucket.has_room(limit.kind == "requests", now):
                raise obstacle_error(key_state, now, 0, 0)
