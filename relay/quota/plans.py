"""A plan as the ledger needs it: the settings' own, worked out once at the start.

Decides which limit refills how, which limit each group of headers tells of, and what tokens
cost. Knows nothing of who is on a plan or what they have used.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Final, Literal, TypeAlias

from relay import config
from relay.config import ConfigError

Kind: TypeAlias = Literal["requests", "tokens"]

MINUTE: Final = 60
HOUR: Final = 3600
FIVE_HOURS: Final = 5 * HOUR
WEEK: Final = 7 * 24 * HOUR

# Claude Code asks 24 times at once for its /context, its VS Code extension 40 to 50 times a
# second when it starts; counting costs the operator nothing but a connection.
COUNTS_PER_MINUTE: Final = 600

_NEVER: Final = range(0)
_SHORT: Final = range(HOUR + 1)
_ANY: Final = range(10**18)
_LONG: Final = range(HOUR + 1, 10**18)


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `size` requests or tokens in `per` seconds.

    `kept` tells whether a request counts even when it is given back: so it does in limits of
    up to an hour, which are there against floods, and not in the plan's longer ones.
    """

    kind: Kind
    size: int
    per: int
    refill: Literal["smooth", "window"]

    @property
    def kept(self) -> bool:
        """Whether a request that is given back counts all the same."""
        return self.kind == "requests" and self.per <= HOUR

    @property
    def name(self) -> str:
        """In words: `40 requests per 5 hours`."""
        kind = self.kind if self.size != 1 else self.kind[:-1]
        return f"{self.size:,} {kind} per {length(self.per)}"


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A compiled plan; two are the same only if they are one object.

    Limits that a group of headers tells of, as indices into `limits`, None where the plan has
    none that fits and the group is left out:
    `main`    `x-ratelimit-*` and Codex's primary meter: the 5-hour limit on requests, else
              the plan's shortest one on requests that is longer than an hour
    `second`  Codex's secondary meter: the weekly limit on requests, else the plan's longest
              one that is longer than an hour and not `main`
    `pace`    `anthropic-ratelimit-requests-*`: per minute, else the shortest up to an hour
    `tokens`  `anthropic-ratelimit-tokens-*`: per minute, else the shortest on tokens
    `five_hours`, `week`  the groups of `anthropic-ratelimit-unified-*`; these only exactly,
              for they name their length
    """

    id: str
    name: str
    limits: tuple[Limit, ...]
    by_account: bool  # limits are shared by the keys of an account
    prepaid: bool  # drawn from the account's balance
    max_concurrency: int
    cache_breakpoints: bool  # prompts of other dialects are marked for the cache
    main: int | None
    second: int | None
    pace: int | None
    tokens: int | None
    five_hours: int | None
    week: int | None


def compile_plans(plans: Iterable[config.PlanSettings]) -> dict[str, Plan]:
    """Each plan of the settings by its id.

    Raises:
        ConfigError: a plan contradicts itself.
    """
    return {plan.id: compile_plan(plan, f"plan[{number}]") for number, plan in enumerate(plans)}


def compile_plan(plan: config.PlanSettings, path: str = "plan") -> Plan:
    """One plan; `path` is where the settings have it.

    Raises:
        ConfigError: two limits on the same over the same time.
    """
    limits = tuple([_limit(limit) for limit in plan.limits])
    for number, limit in enumerate(limits):
        for other in limits[:number]:
            if (limit.kind, limit.per) == (other.kind, other.per):
                raise ConfigError(
                    f"{path}.limits[{number}]",
                    f"plan {plan.id!r} limits {limit.kind} per {length(limit.per)} twice",
                )

    def find(kind: Kind, per: int, otherwise: range = _NEVER) -> int | None:
        """The limit over exactly that time, else the shortest of the range."""
        fits = [
            (limit.per != per, limit.per, number)
            for number, limit in enumerate(limits)
            if limit.kind == kind and (limit.per == per or limit.per in otherwise)
        ]
        return min(fits)[2] if fits else None

    main = find("requests", FIVE_HOURS, _LONG)
    seconds = [
        (limit.per == WEEK, limit.per, number)
        for number, limit in enumerate(limits)
        if limit.kind == "requests" and limit.per in _LONG and number != main
    ]
    return Plan(
        id=plan.id,
        name=plan.name or plan.id,
        limits=limits,
        by_account=plan.enforce == "account",
        prepaid=plan.billing == "per-token",
        max_concurrency=plan.max_concurrency,
        cache_breakpoints=plan.cache_breakpoints,
        main=main,
        second=max(seconds)[2] if seconds else None,
        pace=find("requests", MINUTE, _SHORT),
        tokens=find("tokens", MINUTE, _ANY),
        five_hours=find("requests", FIVE_HOURS),
        week=find("requests", WEEK),
    )


def _limit(limit: config.LimitSettings) -> Limit:
    per = limit.per.seconds
    kind: Kind = "tokens" if limit.requests is None else "requests"
    size = limit.requests or limit.tokens or 0
    return Limit(kind, size, per, limit.refill or ("smooth" if per <= HOUR else "window"))


_LENGTHS: Final = ((86400, "day"), (HOUR, "hour"), (MINUTE, "minute"), (1, "second"))


def length(seconds: int) -> str:
    """`"5 hours"`, or `"minute"` for one of them, as it stands after `per`."""
    if seconds == WEEK:
        return "week"
    for unit, name in _LENGTHS:
        if seconds % unit == 0:
            return name if seconds == unit else f"{seconds // unit} {name}s"
    raise ValueError(f"{seconds} is no number of seconds")


@dataclass(frozen=True, slots=True)
class Prices:
    """What a model's tokens cost, in micro-dollars per *million* tokens.

    A dollar per million tokens is a micro-dollar per token, and a cached token costs a
    fraction of that. So prices keep six more digits, and a request's cost is rounded once:
    its sum, up to a whole micro-dollar.
    """

    input: int
    output: int
    cache_read: int
    cache_write: int

    def cost(self, input: int, output: int, cache_read: int = 0, cache_write: int = 0) -> int:
        """Micro-dollars, rounded up; `input` is what is neither read from a cache nor written."""
        total = (
            input * self.input
            + output * self.output
            + cache_read * self.cache_read
            + cache_write * self.cache_write
        )
        return -(-total // 1_000_000)


def compile_prices(models: Iterable[config.ModelSettings]) -> dict[str, Prices]:
    """The prices of each model that has any, by its id and its aliases."""
    return {
        name: Prices(
            _exact(model.price.input),
            _exact(model.price.output),
            _exact(model.price.cache_read),
            _exact(model.price.cache_write),
        )
        for model in models
        if model.price is not None
        for name in (model.id, *model.aliases)
    }


def _exact(price: float) -> int:
    """Dollars per million tokens as the settings have them, without a float's own digits."""
    scaled = Decimal(repr(price)) * 1_000_000
    return int(scaled.to_integral_value(rounding=ROUND_CEILING))
