"""How a caller is told that there is nothing left: status, headers and words.

Clients differ in what stops them. `x-should-retry: false` stops Claude Code and the SDKs,
which would sit out a long `retry-after` in silence; `usage_limit_reached` stops Codex. So a
wait of up to a minute is told as a pace to keep, a longer one as the end of what there is.
"""

from typing import Final

import orjson

from relay import clock
from relay.errors import RATE_LIMITED, Dialect, Header, Kind, RelayError
from relay.quota.plans import Limit, Plan
from relay.quota.state import Balance

USED_UP: Final = Kind(429, "rate_limit_error", "insufficient_quota", "insufficient_quota")
PAYMENT_REQUIRED: Final = Kind(402, "billing_error", "insufficient_quota", "insufficient_quota")

_PATIENCE: Final = 60  # seconds; Claude Code waits as long by itself and gives up on 61
_SOON: Final = 5  # seconds after which one of several requests at once may have ended
_STOP: Final[Header] = (b"x-should-retry", b"false")


class QuotaExceeded(RelayError):  # noqa: N818 -- it is the caller's state, not a fault
    """A request that was not admitted; nothing was taken for it.

    `limit` is the one that resets last of those in the way, None if it was none of them;
    `resets_at` is when it lets the request through, epoch seconds.
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
        if not self._passes(retry_after):
            headers = (*headers, _STOP)
        super().__init__(kind, message, headers=headers)

    @staticmethod
    def _passes(retry_after: int | None) -> bool:
        return retry_after is not None and retry_after <= _PATIENCE

    def status(self, dialect: Dialect) -> int:
        """As others; a 402 is none to Codex, which tries it again six times, and a 429 is."""
        if dialect is Dialect.RESPONSES and self.kind is PAYMENT_REQUIRED:
            return USED_UP.status
        return super().status(dialect)

    def body(self, dialect: Dialect, request_id: str | None = None) -> bytes:
        """As others; on `/v1/responses` with the one type at which Codex stops, and the time
        that it names."""
        if dialect is not Dialect.RESPONSES:
            return super().body(dialect, request_id)
        if self._passes(self.retry_after):
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


def limit_reached(plan: Plan, limit: Limit, ready: int, now: int) -> QuotaExceeded:
    """The limit that keeps a request waiting longest lets it through at `ready` (both ms)."""
    wait = max(1, -((now - ready) // 1000))
    moment = -(-ready // 1000)
    whose = ", shared by all keys of this account" if plan.by_account else ""
    if wait <= _PATIENCE:
        return QuotaExceeded(
            RATE_LIMITED,
            f"Plan {plan.name} allows {limit.name}{whose}. Please try again in {wait}s.",
            limit=limit,
            retry_after=wait,
            resets_at=moment,
        )
    day, _, time = clock.rfc3339(moment)[:-5].partition("T")
    return QuotaExceeded(
        USED_UP,
        f"The limit of plan {plan.name} is reached: {limit.name}{whose}. "
        f"It resets at {day} {time} UTC, in {_span(wait)}.",
        limit=limit,
        retry_after=wait,
        resets_at=moment,
    )


def too_many_at_once(plan: Plan) -> QuotaExceeded:
    """Too many requests of one key are running."""
    most = plan.max_concurrency
    return QuotaExceeded(
        RATE_LIMITED,
        f"Plan {plan.name} allows {most} request{'s' * (most > 1)} at once per key. "
        f"Please try again in {_SOON}s.",
        retry_after=_SOON,
    )


def too_much_counting(wait: int) -> QuotaExceeded:
    """Tokens are counted too often."""
    return QuotaExceeded(
        RATE_LIMITED,
        f"Too many requests to count tokens. Please try again in {wait}s.",
        retry_after=wait,
    )


def unpaid(balance: Balance, cost: int) -> QuotaExceeded:
    """The balance does not cover what a request may cost."""
    amount = balance.amount
    if amount > 0 and amount >= cost:
        return QuotaExceeded(
            RATE_LIMITED,
            "The rest of this account's balance is held for requests that are running. "
            f"Please try again in {_SOON}s.",
            retry_after=_SOON,
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


def _span(seconds: int) -> str:
    """About how long, in two units: `4 h 59 min`."""
    minutes = -(-seconds // 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min")]
    return " ".join([f"{number} {unit}" for number, unit in parts if number][:2])
