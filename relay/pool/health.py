"""Whether an upstream can be used now, and if not, why and until when.

A time that an upstream states is a fact, and respected. An outage that the relay infers from a
failure is a guess: other upstreams are preferred, but if none is left this one is tried, so a
guess alone refuses no request. After a guess has expired, one request probes the upstream before
others follow.

Decides the level of one upstream. Must not read a clock: `now` is epoch seconds.
"""

from collections import Counter
from enum import IntEnum
from typing import Final

import msgspec

from relay.clock import rfc3339
from relay.pool.vendor_errors import Scope, Verdict

_FAILURES_TO_EJECT: Final = 3  # in a row
_EJECTION_SECONDS: Final = 10.0  # until one request probes it
_COUNTS_NOW: Final = 0.0


class Level(IntEnum):
    """How far an upstream can be used; lower is better."""

    FREE = 0
    STRAINED = 1  # overloaded for a moment
    DOUBTFUL = 2  # presumed not to work
    OUT = 3  # its own statement, or the operator's


class Outage(msgspec.Struct, frozen=True):
    """Why an upstream is not used. Moments in epoch seconds.

    `stated`: the upstream stated `until`. `quota`: its account has reached a limit.
    """

    reason: str
    since: float
    until: float
    stated: bool
    quota: bool = False


def _prevailing(old: Outage | None, new: Outage) -> Outage:
    """The outage that holds: a stated one before a guess, else the longer one."""
    if old is None or old.until <= new.since:
        return new
    if old.stated is not new.stated:
        return old if old.stated else new
    return old if old.until > new.until else new


class Health:
    """The state of one upstream. `degraded` is False if it has no outage of any kind."""

    __slots__ = (
        "account_outage",
        "counts_again_at",
        "degraded",
        "errors",
        "failures",
        "last_error",
        "model_outages",
        "overload",
        "paused",
        "probing",
    )

    def __init__(self) -> None:
        self.degraded = False
        self.paused = False  # by the operator
        self.account_outage: Outage | None = None
        self.model_outages: dict[str, Outage] = {}  # by the name that is sent
        self.overload: Outage | None = None
        self.counts_again_at = _COUNTS_NOW  # when to send count_tokens again
        self.failures = 0  # in a row
        self.probing = False  # a probe is in flight
        self.errors: Counter[str] = Counter()  # by scope
        self.last_error: Outage | None = None

    # --- results of requests ---

    def succeeded(self, model: str) -> None:
        """An answer began: drop every inferred outage. `failures` is reset later, when the
        answer completes."""
        if not self.degraded:
            return
        self.probing = False
        self.overload = None
        if self.account_outage is not None and not self.account_outage.stated:
            self.account_outage = None
        if model in self.model_outages and not self.model_outages[model].stated:
            del self.model_outages[model]
        self._update_degraded()

    def failed(self, verdict: Verdict, model: str, now: float) -> None:
        """A request failed; the verdict says whether the upstream or the request is at fault."""
        scope = verdict.scope
        self.probing = False
        if scope is Scope.CALLER:
            self.failures = 0  # the upstream works
            if self.account_outage is not None and not self.account_outage.stated:
                self.account_outage = None
            self._update_degraded()
            return
        quota = scope is Scope.ACCOUNT
        outage = Outage(verdict.reason, now, verdict.until, verdict.stated, quota)
        self.last_error = outage
        self.errors[scope.name.lower()] += 1
        if scope is Scope.MODEL:
            self.model_outages[model] = _prevailing(self.model_outages.get(model), outage)
        elif scope in (Scope.ACCOUNT, Scope.CREDENTIAL):
            self.account_outage = _prevailing(self.account_outage, outage)
        elif scope is Scope.REQUEST:
            self.overload = outage
        else:
            self.failures += 1
            if verdict.stated:
                self.account_outage = _prevailing(self.account_outage, outage)
            elif self.failures >= _FAILURES_TO_EJECT:
                outage = msgspec.structs.replace(outage, until=now + _EJECTION_SECONDS)
                self.account_outage = _prevailing(self.account_outage, outage)
        self._update_degraded()

    def abandoned(self) -> None:
        """A request ended without a result: its caller left."""
        self.probing = False

    def request_started(self) -> None:
        """A request was sent; the first one after a guess has expired is the probe."""
        if self.account_outage is not None and not self.account_outage.stated:
            self.probing = True

    def cannot_count(self, until: float) -> None:
        """It does not serve count_tokens: a missing feature, not a failure."""
        self.counts_again_at = until
        self.degraded = True

    def end_quota_outage(self, polled_at: float) -> bool:
        """End an account outage that began before its vendor reported quota at `polled_at`.
        Returns whether there was one."""
        outage = self.account_outage
        if outage is None or not outage.quota or outage.since >= polled_at:
            return False
        self.account_outage = None
        self.probing = False
        self._update_degraded()
        return True

    # --- the operator ---

    def pause(self) -> None:
        """Send it no more requests."""
        self.paused = self.degraded = True

    def resume(self) -> None:
        """The reverse of `pause`."""
        self.paused = False
        self._update_degraded()

    def clear(self) -> None:
        """Forget every outage; a pause stays."""
        self.account_outage = self.overload = None
        self.model_outages.clear()
        self.counts_again_at = _COUNTS_NOW
        self.failures = 0
        self.probing = False
        self._update_degraded()

    # --- the present state ---

    def level(self, model: str, now: float, counting: bool = False) -> Level:
        """How far it can be used for a model."""
        if not self.degraded:
            return Level.FREE
        self._expire(now)
        if self.paused or (counting and self.counts_again_at > now):
            return Level.OUT
        level = Level.FREE
        if self.overload is not None:
            level = Level.STRAINED
        for outage in (self.account_outage, self.model_outages.get(model)):
            if outage is None:
                continue
            if outage.stated:
                return Level.OUT
            if outage.until > now or self.probing:
                level = Level.DOUBTFUL
        return level

    def ready_at(self, model: str, now: float, counting: bool = False) -> float:
        """The moment from which it can be used again; `inf` if only the operator knows."""
        if self.paused or (counting and self.counts_again_at > now):
            return float("inf")
        outages = (self.account_outage, self.model_outages.get(model))
        return max([now, *[one.until for one in outages if one is not None and one.stated]])

    def describe(self, model: str, now: float) -> str:
        """The reason and the time left, for the operator; empty if it is free."""
        if self.paused:
            return "paused"
        for outage in (self.account_outage, self.model_outages.get(model), self.overload):
            if outage is not None and (outage.until > now or not outage.stated):
                seconds = outage.until - now
                return f"{outage.reason}; " + (
                    f"{seconds:.0f} s to go" if seconds > 0 else "one request is to find out"
                )
        return ""

    def view(self, now: float) -> dict[str, object]:
        """The state for the operator, in the shape of `relay upstreams --json`."""
        self._expire(now)
        outage = self.account_outage or self.overload
        if self.paused:
            state = "paused"
        elif self.account_outage is not None:
            state = "cooling" if self.account_outage.stated else "down"
            if self.account_outage.until <= now:
                state = "probing"
        elif self.overload is not None:
            state = "strained"
        else:
            state = "ok"
        why = "" if outage is None else outage.reason
        if state == "ok" and self.failures and self.last_error is not None:
            why = f"{self.failures} failed in a row: {self.last_error.reason}"
        return {
            "state": state,
            "why": why,
            "until": None if outage is None else rfc3339(outage.until),
            "models_out": {
                model: {"why": one.reason, "until": rfc3339(one.until)}
                for model, one in self.model_outages.items()
            },
            "counts_tokens": self.counts_again_at <= now,
            "failures_in_a_row": self.failures,
            "errors": dict(self.errors),
            "last_error": None
            if self.last_error is None
            else {"why": self.last_error.reason, "at": rfc3339(self.last_error.since)},
        }

    def _expire(self, now: float) -> None:
        """Drop outages that are over. An account outage that is a guess stays until a request
        has disproved it."""
        if (
            self.account_outage is not None
            and self.account_outage.stated
            and self.account_outage.until <= now
        ):
            self.account_outage = None
        if self.overload is not None and self.overload.until <= now:
            self.overload = None
        for model in [name for name, one in self.model_outages.items() if one.until <= now]:
            del self.model_outages[model]
        if self.counts_again_at <= now:
            self.counts_again_at = _COUNTS_NOW
        self._update_degraded()

    def _update_degraded(self) -> None:
        self.degraded = bool(
            self.paused
            or self.account_outage is not None
            or self.overload is not None
            or self.model_outages
            or self.counts_again_at
        )
