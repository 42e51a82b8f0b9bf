"""Whether an upstream can be used now, and if not, why and until when.

What an upstream says of itself (`until` told) is a fact, and respected. What the relay makes of
a failure is a guess: it has others preferred, and where nobody else is left the upstream is
tried all the same, so that a guess alone never refuses anybody. A guess that has run its time is
checked by one request before the others follow it.

Knows moments only as they are given: `now` is epoch seconds.
"""

from collections import Counter
from enum import IntEnum
from typing import Final

import msgspec

from relay.clock import rfc3339
from relay.pool.vendor_errors import Scope, Verdict

_STRIKES: Final = 3  # failures in a row
_OUT: Final = 10.0  # seconds, after which one request tries again
_NEVER: Final = 0.0


class Level(IntEnum):
    """How far it can be used; lower is better."""

    FREE = 0
    STRAINED = 1  # overloaded just now
    DOUBTFUL = 2  # it is thought not to work
    OUT = 3  # it said itself that it will not, or the operator did


class Outage(msgspec.Struct, frozen=True):
    """Why an upstream is left alone. Moments in epoch seconds. `quota`: its account is at a
    limit."""

    reason: str
    since: float
    until: float
    stated: bool
    quota: bool = False


def _stands(old: Outage | None, new: Outage) -> Outage:
    """Which of two outages holds: what was told before what is guessed, else the longer one."""
    if old is None or old.until <= new.since:
        return new
    if old.stated is not new.stated:
        return old if old.stated else new
    return old if old.until > new.until else new


class Health:
    """The state of one upstream. `hampered` is False where nothing stands in its way."""

    __slots__ = (
        "account",
        "counts_again",
        "errors",
        "failures",
        "hampered",
        "last_error",
        "models",
        "paused",
        "probing",
        "strained",
    )

    def __init__(self) -> None:
        self.hampered = False
        self.paused = False  # by the operator
        self.account: Outage | None = None
        self.models: dict[str, Outage] = {}  # by the name that is sent
        self.strained: Outage | None = None
        self.counts_again = _NEVER  # when to ask it again to count tokens
        self.failures = 0  # in a row
        self.probing = False  # a request is on its way to find out
        self.errors: Counter[str] = Counter()  # by scope
        self.last_error: Outage | None = None

    # --- what happened ---

    def succeeded(self, model: str) -> None:
        """An answer began, so that whatever was only guessed of it is wrong. That failures in a
        row are at an end is for whoever sees the answer's end to say (`failures = 0`)."""
        if not self.hampered:
            return
        self.probing = False
        self.strained = None
        if self.account is not None and not self.account.stated:
            self.account = None
        if model in self.models and not self.models[model].stated:
            del self.models[model]
        self._look()

    def failed(self, verdict: Verdict, model: str, now: float) -> None:
        """No answer came, or one that is about the upstream, not about the request."""
        scope = verdict.scope
        self.probing = False
        if scope is Scope.CALLER:
            self.failures = 0  # it works
            if self.account is not None and not self.account.stated:
                self.account = None
            self._look()
            return
        quota = scope is Scope.ACCOUNT
        outage = Outage(verdict.reason, now, verdict.until, verdict.stated, quota)
        self.last_error = outage
        self.errors[scope.name.lower()] += 1
        if scope is Scope.MODEL:
            self.models[model] = _stands(self.models.get(model), outage)
        elif scope in (Scope.ACCOUNT, Scope.CREDENTIAL):
            self.account = _stands(self.account, outage)
        elif scope is Scope.REQUEST:
            self.strained = outage
        else:
            self.failures += 1
            if verdict.stated:
                self.account = _stands(self.account, outage)
            elif self.failures >= _STRIKES:
                outage = msgspec.structs.replace(outage, until=now + _OUT)
                self.account = _stands(self.account, outage)
        self._look()

    def left(self) -> None:
        """A request ended without finding anything out: its caller went away."""
        self.probing = False

    def request_started(self) -> None:
        """A request sets out; the first one after a guess has run its time is the probe."""
        if self.account is not None and not self.account.stated:
            self.probing = True

    def cannot_count(self, until: float) -> None:
        """It has no `count_tokens`: a feature that is missing, not a failure."""
        self.counts_again = until
        self.hampered = True

    def quota_is_back(self, asked: float) -> bool:
        """Its vendor, asked at this moment, says that there is quota: an outage for want of it
        that began before is over. Whether there was one."""
        outage = self.account
        if outage is None or not outage.quota or outage.since >= asked:
            return False
        self.account = None
        self.probing = False
        self._look()
        return True

    # --- what the operator does ---

    def pause(self) -> None:
        """Give it no more requests."""
        self.paused = self.hampered = True

    def resume(self) -> None:
        """The reverse."""
        self.paused = False
        self._look()

    def clear(self) -> None:
        """Forget all trouble; it stays paused if it is."""
        self.account = self.strained = None
        self.models.clear()
        self.counts_again = _NEVER
        self.failures = 0
        self.probing = False
        self._look()

    # --- what follows ---

    def level(self, model: str, now: float, counting: bool = False) -> Level:
        """How far it can be used for a model."""
        if not self.hampered:
            return Level.FREE
        self._expire(now)
        if self.paused or (counting and self.counts_again > now):
            return Level.OUT
        found = Level.FREE
        if self.strained is not None:
            found = Level.STRAINED
        for outage in (self.account, self.models.get(model)):
            if outage is None:
                continue
            if outage.stated:
                return Level.OUT
            if outage.until > now or self.probing:
                found = Level.DOUBTFUL
        return found

    def ready(self, model: str, now: float, counting: bool = False) -> float:
        """From when on it can be used again, if that is known; `inf`: only the operator knows."""
        if self.paused or (counting and self.counts_again > now):
            return float("inf")
        outages = (self.account, self.models.get(model))
        return max([now, *[one.until for one in outages if one is not None and one.stated]])

    def why(self, model: str, now: float) -> str:
        """In a few words, for the operator; empty if it is free."""
        if self.paused:
            return "paused"
        for outage in (self.account, self.models.get(model), self.strained):
            if outage is not None and (outage.until > now or not outage.stated):
                left = outage.until - now
                return f"{outage.reason}; " + (
                    f"{left:.0f} s to go" if left > 0 else "one request is to find out"
                )
        return ""

    def view(self, now: float) -> dict[str, object]:
        """For the operator: shape as `relay upstreams --json` has it."""
        self._expire(now)
        outage = self.account or self.strained
        if self.paused:
            state = "paused"
        elif self.account is not None:
            state = "cooling" if self.account.stated else "down"
            if self.account.until <= now:
                state = "probing"
        elif self.strained is not None:
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
                for model, one in self.models.items()
            },
            "counts_tokens": self.counts_again <= now,
            "failures_in_a_row": self.failures,
            "errors": dict(self.errors),
            "last_error": None
            if self.last_error is None
            else {"why": self.last_error.reason, "at": rfc3339(self.last_error.since)},
        }

    def _expire(self, now: float) -> None:
        """Facts end with their time; guesses stay until a request has shown them wrong."""
        if self.account is not None and self.account.stated and self.account.until <= now:
            self.account = None
        if self.strained is not None and self.strained.until <= now:
            self.strained = None
        for model in [name for name, one in self.models.items() if one.until <= now]:
            del self.models[model]
        if self.counts_again <= now:
            self.counts_again = _NEVER
        self._look()

    def _look(self) -> None:
        self.hampered = bool(
            self.paused
            or self.account is not None
            or self.strained is not None
            or self.models
            or self.counts_again
        )
