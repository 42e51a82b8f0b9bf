"""Compiles plans from the settings, once at the start.

Decides how each limit refills, and which limit each group of header fields reports. Must not know
who is on a plan or what they have used.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from relay import config
from relay.config import ConfigError

Kind: TypeAlias = Literal["requests", "tokens", "money"]

Refill: TypeAlias = Literal["smooth", "window", "day", "week", "month"]
CALENDAR: Final = ("day", "week", "month")

MINUTE: Final = 60
HOUR: Final = 3600
FIVE_HOURS: Final = 5 * HOUR
WEEK: Final = 7 * 24 * HOUR

# Claude Code sends 24 count requests at once for its /context, its VS Code extension 40 to 50
# a second when it starts. Counting costs the operator no more than a connection.
COUNTS_PER_MINUTE: Final = 600

# Periods of limits, in seconds.
_NONE: Final = range(0)
_ANY: Final = range(10**18)
_OVER_AN_HOUR: Final = range(HOUR + 1, 10**18)


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `size` requests, tokens or micro-dollars in `per` seconds.

    `refill`: see `bucket`; by a calendar it is "day", "week" or "month", in UTC.
    """

    kind: Kind
    size: int
    per: int
    refill: Refill

    @property
    def counts_when_refunded(self) -> bool:
        """Whether a refunded request still counts.

        It does in limits of up to an hour, which protect against floods of requests, but not
        in the plan's longer ones.
        """
        return self.kind == "requests" and self.per <= HOUR

    @property
    def name(self) -> str:
        """In words: `40 requests per 5 hours`."""
        if self.kind == "money":
            amount = f"${self.size / 1_000_000:,.6f}".rstrip("0").rstrip(".")
            period = self.refill if self.refill in CALENDAR else period_text(self.per)
            return f"{amount} per {period}"
        kind = self.kind if self.size != 1 else self.kind[:-1]
        return f"{self.size:,} {kind} per {period_text(self.per)}"


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Plan:
    """A compiled plan; plans are equal only if they are the same object.

    The last six are indices into `limits`: the limit that a group of header fields reports.
    None: the plan has no such limit, and the group is left out.

    `primary`       `x-ratelimit-*` and Codex's primary meter: the 5-hour limit on requests,
                    else the shortest one on requests over an hour
    `secondary`     Codex's secondary meter: the weekly limit on requests, else the longest
                    one over an hour that is not `primary`
    `request_pace`  `anthropic-ratelimit-requests-*`: the limit per minute, else the tightest,
                    which is the one of the fewest requests
    `token_pace`    `anthropic-ratelimit-tokens-*`: the limit per minute, else the shortest one
    `five_hours`    `anthropic-ratelimit-unified-5h-*`: a limit of exactly this period
    `week`          `anthropic-ratelimit-unified-7d-*`: a limit of exactly this period
    """

    id: str
    name: str
    limits: tuple[Limit, ...]
    by_account: bool  # the keys of an account share its limits
    prepaid: bool  # requests are paid from the account's balance
    max_concurrency: int
    cache_breakpoints: bool  # add cache markers to prompts of other dialects
    excluded: frozenset[str]  # what requests may not use
    primary: int | None
    secondary: int | None
    request_pace: int | None
    token_pace: int | None
    five_hours: int | None
    week: int | None
    title: str = ""  # how an error names it; "": as the plan `name`

    @property
    def counts_money(self) -> bool:
        """Whether a limit counts money."""
        return any(limit.kind == "money" for limit in self.limits)


def compile_plans(plans: Iterable[config.PlanSettings]) -> dict[str, Plan]:
    """All plans of the settings, by id.

    Raises:
        ConfigError: a plan contradicts itself.
    """
    return {plan.id: compile_plan(plan, f"plan[{number}]") for number, plan in enumerate(plans)}


def compile_changed(
    plans: Sequence[config.PlanSettings],
    before: Sequence[config.PlanSettings],
    compiled: Mapping[str, Plan],
) -> dict[str, Plan]:
    """All plans of new settings; one that is as `before` stays the same object.

    Raises:
        ConfigError: a plan contradicts itself.
    """
    same = {old.id: old for old in before}
    return {
        plan.id: compiled[plan.id] if plan == same.get(plan.id) else new
        for plan, new in zip(plans, compile_plans(plans).values(), strict=True)
    }


def compile_plan(plan: config.PlanSettings, path: str = "plan") -> Plan:
    """One plan; `path` is its place in the settings.

    Raises:
        ConfigError: two limits have the same kind and period.
    """
    limits = tuple([_limit(limit) for limit in plan.limits])
    for number, limit in enumerate(limits):
        for other in limits[:number]:
            if (limit.kind, limit.per) == (other.kind, other.per):
                raise ConfigError(
                    f"{path}.limits[{number}]",
                    f"plan {plan.id!r} limits {limit.kind} per {period_text(limit.per)} twice",
                )

    def find(kind: Kind, per: int, fallback: range = _NONE) -> int | None:
        """Index of the limit with exactly this period, else of the shortest in the range."""
        fits = [
            (limit.per != per, limit.per, number)
            for number, limit in enumerate(limits)
            if limit.kind == kind and (limit.per == per or limit.per in fallback)
        ]
        return min(fits)[2] if fits else None

    primary = find("requests", FIVE_HOURS, _OVER_AN_HOUR)
    paces = [
        (limit.per != MINUTE, limit.size, limit.per, number)
        for number, limit in enumerate(limits)
        if limit.kind == "requests"
    ]
    longer = [
        (limit.per == WEEK, limit.per, number)
        for number, limit in enumerate(limits)
        if limit.kind == "requests" and limit.per in _OVER_AN_HOUR and number != primary
    ]
    return Plan(
        id=plan.id,
        name=plan.name or plan.id,
        limits=limits,
        by_account=plan.enforce == "account",
        prepaid=plan.billing == "per-token",
        max_concurrency=plan.max_concurrency,
        cache_breakpoints=plan.cache_breakpoints,
        excluded=frozenset(plan.exclude),
        primary=primary,
        secondary=max(longer)[2] if longer else None,
        request_pace=min(paces)[3] if paces else None,
        token_pace=find("tokens", MINUTE, _ANY),
        five_hours=find("requests", FIVE_HOURS),
        week=find("requests", WEEK),
    )


def further_limits(id: str, title: str, limits: Iterable[Limit], max_concurrency: int = 0) -> Plan:
    """Limits that stand beside those of a plan: of one key, or on an account's spending. No header
    field reports them."""
    return Plan(
        id=id,
        name=title,
        limits=tuple(limits),
        by_account=False,
        prepaid=False,
        max_concurrency=max_concurrency,
        cache_breakpoints=True,
        excluded=frozenset(),
        primary=None,
        secondary=None,
        request_pace=None,
        token_pace=None,
        five_hours=None,
        week=None,
        title=title,
    )


def _limit(limit: config.LimitSettings) -> Limit:
    per = limit.per.seconds
    kind: Kind = "tokens" if limit.requests is None else "requests"
    size = limit.requests or limit.tokens or 0
    return Limit(kind, size, per, limit.refill or ("smooth" if per <= HOUR else "window"))


_UNITS: Final = ((86400, "day"), (HOUR, "hour"), (MINUTE, "minute"), (1, "second"))


def period_text(seconds: int) -> str:
    """A period as it is read after "per": `5 hours`, `minute`."""
    if seconds == WEEK:
        return "week"
    unit, name = next(pair for pair in _UNITS if seconds % pair[0] == 0)
    return name if seconds == unit else f"{seconds // unit} {name}s"
