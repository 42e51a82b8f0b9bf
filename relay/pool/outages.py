"""The outages of one upstream: why it is not used, for which requests and until when.

Decides how far they let a request pass. Must not know callers or what an outage follows from.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from relay.pool.vendor_errors import Scope

_COUNTS_NOW: Final = 0.0
_NEVER: Final = float("inf")


class Level(IntEnum):
    """How far an upstream can be used; lower is better."""

    FREE = 0
    STRAINED = 1  # overloaded for a moment
    DOUBTFUL = 2  # presumed not to work
    OUT = 3  # its own statement, or the operator's


@dataclass(frozen=True)
class Outage:
    """Why an upstream is not used. Moments in seconds of the pool's clock.

    `stated`: the upstream stated `until`. `quota`: its account has reached a limit. `failing`:
    inferred from failures, so a probe of the relay's own ends it.
    """

    reason: str
    since: float
    until: float
    stated: bool
    quota: bool = False
    failing: bool = False


def prevailing(old: Outage | None, new: Outage) -> Outage:
    """The outage that holds: a stated one before a guess, else the longer one."""
    if old is None or old.until <= new.since:
        return new
    if old.stated is not new.stated:
        return old if old.stated else new
    return old if old.until > new.until else new


class Outages:
    """The outages that hold for one caller, or for all."""

    __slots__ = ("account_outage", "counts_again_at", "fresh", "model_outages", "overload")

    def __init__(self) -> None:
        self.account_outage: Outage | None = None
        self.model_outages: dict[str, Outage] = {}  # by the name that is sent
        self.overload: Outage | None = None
        self.counts_again_at = _COUNTS_NOW  # when to send count_tokens again
        self.fresh = True  # as far as is known, no request has been answered since the latest one

    def add(self, scope: Scope, outage: Outage, model: str, fresh: bool = True) -> None:
        """Note an outage in the place of its scope. It is no evidence if it is not `fresh`."""
        self.fresh = fresh
        if scope is Scope.MODEL:
            self.model_outages[model] = prevailing(self.model_outages.get(model), outage)
        elif scope is Scope.REQUEST:
            if outage.until > outage.since:
                self.overload = outage
        else:
            self.account_outage = prevailing(self.account_outage, outage)

    def has(self, scope: Scope, model: str, now: float) -> bool:
        """Whether there is an outage in the place of a scope, not disproved by an answer."""
        if scope is Scope.MODEL:
            outage = self.model_outages.get(model)
        elif scope is Scope.REQUEST:
            outage = self.overload
        else:
            outage = self.account_outage
        return self.fresh and outage is not None and outage.until > now

    def has_guess(self, model: str) -> bool:
        """Whether `end_guesses` would change anything."""
        outages = (self.account_outage, self.model_outages.get(model))
        return self.overload is not None or any(
            one is not None and not one.stated for one in outages
        )

    def end_guesses(self, model: str) -> None:
        """An answer has come: drop every guess."""
        self.overload = None
        if self.account_outage is not None and not self.account_outage.stated:
            self.account_outage = None
        if model in self.model_outages and not self.model_outages[model].stated:
            del self.model_outages[model]

    def expire(self, now: float, keep_guess: bool) -> None:
        """Drop outages that are over; `keep_guess`: but for an account outage that is a guess."""
        account = self.account_outage
        if account is not None and account.until <= now and (account.stated or not keep_guess):
            self.account_outage = None
        if self.overload is not None and self.overload.until <= now:
            self.overload = None
        for model in [name for name, one in self.model_outages.items() if one.until <= now]:
            del self.model_outages[model]
        if self.counts_again_at <= now:
            self.counts_again_at = _COUNTS_NOW

    def any(self) -> bool:
        """Whether there is an outage of any kind."""
        return bool(
            self.account_outage is not None
            or self.overload is not None
            or self.model_outages
            or self.counts_again_at
        )

    def level_of(self, model: str, now: float, counting: bool, probing: bool) -> Level:
        """How far these outages allow a request for a model; `probing`: a probe is in flight."""
        if counting and self.counts_again_at > now:
            return Level.OUT
        level = Level.FREE
        if self.overload is not None and self.overload.until > now:
            level = Level.STRAINED
        for outage in (self.account_outage, self.model_outages.get(model)):
            if outage is None:
                continue
            if outage.stated and outage.until > now:
                return Level.OUT
            if outage.until > now or (not outage.stated and (probing or outage.failing)):
                level = Level.DOUBTFUL
        return level

    def ready_for(self, model: str, now: float, counting: bool) -> float:
        """The moment from which these outages let a request pass."""
        if counting and self.counts_again_at > now:
            return _NEVER
        outages = (self.account_outage, self.model_outages.get(model))
        return max([now, *[one.until for one in outages if one is not None and one.stated]])

    def shown_outage(self, model: str, now: float) -> Outage | None:
        """The outage to describe; the account's first."""
        for outage in (self.account_outage, self.model_outages.get(model), self.overload):
            if outage is not None and (outage.until > now or not outage.stated):
                return outage
        return None
