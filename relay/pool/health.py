"""Whether an upstream can be used now, and if not, why, for whom and until when.

A time that an upstream states is a fact, and respected. An outage that the relay infers from a
failure is a guess: other upstreams are preferred, but if none is left this one is tried, so a
guess alone refuses no request.

No caller's requests alone take an upstream out for others. A verdict that is not sure
(`vendor_errors.Verdict.sure`) holds for the caller whose request got it, and for everybody once a
request of a second caller gets the same. Failures in a row take it out for everybody if they are
of two callers, if the connection itself failed, or if a probe of the relay's own fails, too.

Such an outage ends with a probe of the relay's own (`pool.probing`). One that was read from an
answer, such as a 401, ends with one caller's request: another refusal comes at once, and the
request goes elsewhere.

Decides the level of one upstream. Must not read a clock: `now` is seconds of the pool's clock.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeAlias

from relay.pool.health_view import view_of
from relay.pool.outages import Level, Outage, Outages, prevailing
from relay.pool.vendor_errors import Scope, Verdict

ORIGIN: Final = ""  # in the place of a caller: the failure is no request's

_FAILURES_TO_EJECT: Final = 3  # in a row
_EJECTION_SECONDS: Final = 10.0  # until it is probed
_NEVER: Final = float("inf")
_MAX_CALLERS: Final = 1000  # with outages of their own

# Takes a change, by the name of its method and its arguments, and makes it in its own time.
Share: TypeAlias = Callable[[str, tuple[object, ...]], None]
OnOutage: TypeAlias = Callable[[str, Scope, Outage, str], None]


class Health(Outages):
    """The state of one upstream. `degraded` is False if it has no outage of any kind.

    A caller is an account; `ORIGIN` stands for evidence that is no caller's. `share`, if there is
    one, gets every change in place of this object, but none that would change nothing.
    `on_outage`, if there is one, gets each outage that was found here: the caller that it holds
    for, its scope, itself and the model. `on_doubts_over` is called when guesses have ended.
    """

    __slots__ = (
        "bodies_blamed",
        "by_caller",
        "degraded",
        "errors",
        "expire_callers_at",
        "failed_at",
        "failures",
        "failures_by_caller",
        "last_error",
        "on_doubts_over",
        "on_outage",
        "paused",
        "probe_at",
        "probe_model",
        "probing",
        "share",
    )

    def __init__(self) -> None:
        super().__init__()
        self.share: Share | None = None  # None: there is one process
        self.on_outage: OnOutage | None = None
        self.on_doubts_over: Callable[[], None] | None = None
        self.degraded = False
        self.paused = False  # by the operator
        self.failures = 0  # in a row
        self.bodies_blamed = 0  # failures in a row that a request's body was blamed for
        self.failed_at = -_NEVER  # the latest failure
        self.probing = False  # a caller's request finds out whether a guess still holds
        self.probe_at = _NEVER  # when the relay's own probe is due
        self.probe_model = ""  # the model that it names
        self.errors: Counter[str] = Counter()  # by scope
        self.last_error: Outage | None = None
        self.failures_by_caller: dict[str, int] = {}  # of `failures`
        self.by_caller: dict[str, Outages] = {}
        self.expire_callers_at = _NEVER

    def _shared(self, change: str, *values: object) -> bool:
        """Whether a change was given to `share`."""
        if self.share is None:
            return False
        self.share(change, values)
        return True

    # --- results of requests ---

    def succeeded(self, model: str, caller: str = ORIGIN) -> None:
        """An answer began: drop every inferred outage. `failures` is reset later, when the
        answer completes."""
        if not self.degraded:
            return
        if self.share is not None:
            if self._has_doubts(model, caller):
                self.share("succeeded", (model, caller))
            return
        self.probing = False
        self.probe_at = _NEVER
        self.end_guesses(model)
        for name, outages in self.by_caller.items():
            if name == caller:
                outages.end_guesses(model)
            outages.fresh = False  # no more evidence against the upstream
        self._end_doubts()

    def _end_doubts(self) -> None:
        self.update_degraded()
        if self.on_doubts_over is not None:
            self.on_doubts_over()

    def _has_doubts(self, model: str, caller: str) -> bool:
        """Whether an answer to this caller would change anything."""
        return (
            self.probing
            or self.probe_at < _NEVER
            or self.has_guess(model)
            or any(
                outages.fresh or (name == caller and outages.has_guess(model))
                for name, outages in self.by_caller.items()
            )
        )

    def completed(self) -> None:
        """An answer has come to its own end: failures before it are not in a row."""
        if self._shared("completed"):
            return
        self.failures = self.bodies_blamed = 0

    def failed(self, verdict: Verdict, model: str, now: float, caller: str = ORIGIN) -> None:
        """A request failed; the verdict says whether the upstream or the request is at fault."""
        scope = verdict.scope
        if self.share is not None:
            if scope is not Scope.CALLER or self.failures or self.probing or self.is_presumed_out:
                self.share("failed", (verdict, model, now, caller))
            return
        self.probing = False
        if scope is Scope.CALLER:
            self.failures = 0  # the upstream works
            if self.is_presumed_out:
                self.account_outage = None
                self.probe_at = _NEVER
            self._end_doubts()
            return
        quota = scope is Scope.ACCOUNT
        outage = Outage(verdict.reason, now, verdict.until, verdict.stated, quota)
        self.last_error = outage
        self.errors[scope.name.lower()] += 1
        if scope is Scope.FAILURE:
            self._count_failure(verdict, outage, model, caller)
        elif scope is not Scope.FEATURE and outage.until >= now:
            self._add_outage(scope, outage, model, caller, verdict.sure)
        self.update_degraded()

    def _count_failure(self, verdict: Verdict, outage: Outage, model: str, caller: str) -> None:
        now = outage.since
        by_caller = self.failures_by_caller
        if not self.failures:  # an answer has been completed since the last failure
            by_caller.clear()
        if verdict.sure:
            caller = ORIGIN
        self.failures += 1
        self.failed_at = now
        by_caller[caller] = by_caller.get(caller, 0) + 1
        if verdict.stated:
            self._add_outage(Scope.FAILURE, outage, model, caller, sure=False)
            return
        if self.failing:
            return  # its probe decides
        if verdict.silent:
            self._probe_soon(now, model)
        ejected = replace(outage, until=now + _EJECTION_SECONDS)
        if self.failures >= _FAILURES_TO_EJECT and (len(by_caller) > 1 or ORIGIN in by_caller):
            self._eject(ejected, model)
        elif by_caller[caller] >= _FAILURES_TO_EJECT:
            self._outages_of(caller, ejected.until).add(Scope.FAILURE, ejected, model)
            self._found(caller, Scope.FAILURE, ejected, model)
            self._probe_soon(now, model)

    def _probe_soon(self, now: float, model: str) -> None:
        if self.probe_at > now:
            self.probe_at, self.probe_model = now, model

    @property
    def is_presumed_out(self) -> bool:
        """Whether there is an outage of the account that is a guess."""
        return self.account_outage is not None and not self.account_outage.stated

    @property
    def failing(self) -> bool:
        """Whether an outage holds that was inferred from failures."""
        return self.account_outage is not None and self.account_outage.failing

    def _eject(self, outage: Outage, model: str) -> None:
        """Take the upstream out until a probe of the relay's own is answered."""
        failing = replace(outage, failing=True)
        self._add_failing(failing, model)
        self._found(ORIGIN, Scope.FAILURE, failing, model)

    def _add_failing(self, outage: Outage, model: str) -> None:
        self.account_outage = prevailing(self.account_outage, outage)
        self.probe_at, self.probe_model = outage.until, model
        self.update_degraded()

    def _found(self, caller: str, scope: Scope, outage: Outage, model: str) -> None:
        if self.on_outage is not None:
            self.on_outage(caller, scope, outage, model)

    def _add_outage(
        self, scope: Scope, outage: Outage, model: str, caller: str, sure: bool
    ) -> None:
        """Note an outage for everybody if it is sure or confirmed, else for its caller."""
        confirmed = any(
            name != caller and outages.has(scope, model, outage.since)
            for name, outages in self.by_caller.items()
        )
        if sure or confirmed:
            caller = ORIGIN
        self._add_for(caller, scope, outage, model)
        self._found(caller, scope, outage, model)

    def _add_for(
        self, caller: str, scope: Scope, outage: Outage, model: str, fresh: bool = True
    ) -> None:
        if caller == ORIGIN:
            self.add(scope, outage, model)
        else:
            self._outages_of(caller, outage.until).add(scope, outage, model, fresh)

    def adopt(self, caller: str, scope: Scope, outage: Outage, model: str, fresh: bool) -> None:
        """Note an outage of another node. An answer may have disproved one that is not `fresh`."""
        if self._shared("adopt", caller, scope, outage, model, fresh):
            return
        if outage.failing:
            self._add_failing(outage, model)
        else:
            self._add_for(caller, scope, outage, model, fresh)
        self.update_degraded()

    def _outages_of(self, caller: str, until: float) -> Outages:
        outages = self.by_caller.get(caller)
        if outages is None:
            if len(self.by_caller) >= _MAX_CALLERS:
                del self.by_caller[next(iter(self.by_caller))]
            outages = self.by_caller[caller] = Outages()
        self.expire_callers_at = min(self.expire_callers_at, until)
        return outages

    def retract(self, caller: str, failed_before: float) -> None:
        """The latest failure of `caller` was its request's own: it counts no more.

        `failed_before` is `failed_at` before it.
        """
        if self._shared("retract", caller, failed_before):
            return
        self.failed_at = failed_before
        by_caller = self.failures_by_caller
        if self.failures and by_caller.get(caller):
            self.failures -= 1
            by_caller[caller] -= 1
            if not by_caller[caller]:
                del by_caller[caller]

    def blame_body(self) -> None:
        """A request's body was blamed for a failure."""
        if self._shared("blame_body"):
            return
        self.bodies_blamed += 1

    def abandoned(self) -> None:
        """A request ended without a result: its caller left."""
        if self.probing and not self._shared("abandoned"):
            self.probing = False

    def request_started(self) -> None:
        """A request was sent; the first one after a guess has expired finds out."""
        if self.is_presumed_out and not self.probing and not self._shared("request_started"):
            self.probing = True

    def cannot_count(self, until: float, caller: str = ORIGIN) -> None:
        """It does not serve count_tokens: a missing feature, not a failure."""
        if self._shared("cannot_count", until, caller):
            return
        others = any(
            name != caller and outages.counts_again_at for name, outages in self.by_caller.items()
        )
        if caller == ORIGIN or others:
            self.counts_again_at = until
        else:
            self._outages_of(caller, until).counts_again_at = until
        self.degraded = True

    # --- the relay's own probes ---

    def probe_started(self) -> None:
        """A probe of the relay's own is in flight."""
        if self._shared("probe_started"):
            return
        self.probe_at = _NEVER

    def probe_later(self, now: float) -> None:
        """A probe could not be sent."""
        if self._shared("probe_later", now):
            return
        self.probe_at = min(self.probe_at, now + _EJECTION_SECONDS)

    def probe_answered(self) -> None:
        """It works: an outage inferred from failures ends."""
        if self._shared("probe_answered"):
            return
        self.failures = 0
        if self.failing:
            self.account_outage = None
        for outages in self.by_caller.values():
            outages.fresh = False
        self._end_doubts()

    def probe_failed(self, reason: str, now: float) -> None:
        """It does not work, for nobody: that needs no second caller."""
        if self._shared("probe_failed", reason, now):
            return
        self._eject(Outage(reason, now, now + _EJECTION_SECONDS, False), self.probe_model)

    def end_quota_outage(self, polled_at: float) -> bool:
        """End an account outage that began before its vendor reported quota at `polled_at`.
        Returns whether there was one."""
        ended = [
            outages
            for outages in (self, *self.by_caller.values())
            if (outage := outages.account_outage) is not None
            and outage.quota
            and outage.since < polled_at
        ]
        if ended and self._shared("end_quota_outage", polled_at):
            return True
        for outages in ended:
            outages.account_outage = None
        if ended:
            self.probing = False
            self._end_doubts()
        return bool(ended)

    def quota_outage_since(self) -> float | None:
        """The beginning of an outage for want of quota, of all callers or of one."""
        for outages in (self, *self.by_caller.values()):
            outage = outages.account_outage
            if outage is not None and outage.quota:
                return outage.since
        return None

    # --- the operator ---

    def pause(self) -> None:
        """Send it no more requests."""
        if self._shared("pause"):
            return
        self.paused = self.degraded = True

    def resume(self) -> None:
        """The reverse of `pause`."""
        if self._shared("resume"):
            return
        self.paused = False
        self.update_degraded()

    def clear(self) -> None:
        """Forget every outage; a pause stays."""
        if self._shared("clear"):
            return
        self.account_outage = self.overload = None
        self.model_outages.clear()
        self.by_caller.clear()
        self.counts_again_at = 0.0
        self.failures = self.bodies_blamed = 0
        self.failed_at = -_NEVER
        self.probing = False
        self.probe_at = _NEVER
        self.update_degraded()

    # --- the present state ---

    def level(self, model: str, now: float, counting: bool = False, caller: str = ORIGIN) -> Level:
        """How far it can be used by a caller for a model."""
        if not self.degraded:
            return Level.FREE
        self._expire(now)
        if self.paused:
            return Level.OUT
        level = self.level_of(model, now, counting, self.probing)
        outages = self.by_caller.get(caller)
        if outages is not None:
            level = max(level, outages.level_of(model, now, counting, probing=False))
        return level

    def ready_at(
        self, model: str, now: float, counting: bool = False, caller: str = ORIGIN
    ) -> float:
        """The moment from which a caller can use it again; `inf` if only the operator knows."""
        if self.paused:
            return _NEVER
        ready = self.ready_for(model, now, counting)
        outages = self.by_caller.get(caller)
        if outages is not None:
            ready = max(ready, outages.ready_for(model, now, counting))
        return ready

    def describe(self, model: str, now: float, caller: str = ORIGIN) -> str:
        """The reason and the time left, for the operator; empty if it is free."""
        if self.paused:
            return "paused"
        outage = self.shown_outage(model, now)
        if outage is None and caller in self.by_caller:
            outage = self.by_caller[caller].shown_outage(model, now)
        if outage is None:
            return ""
        seconds = outage.until - now
        if seconds > 0:
            return f"{outage.reason}; {seconds:.0f} s to go"
        return f"{outage.reason}; " + (
            "a probe is to find out" if outage.failing else "one request is to find out"
        )

    def view(self, now: float) -> dict[str, object]:
        """The state for the operator, in the shape of `relay upstreams --json`."""
        self._expire(now)
        return view_of(self, now)

    def _expire(self, now: float) -> None:
        """Drop outages that are over. An account outage of all callers that is a guess stays
        until a request or a probe has disproved it."""
        self.expire(now, keep_guess=True)
        if self.expire_callers_at <= now:
            for caller, outages in list(self.by_caller.items()):
                outages.expire(now, keep_guess=False)
                if not outages.any():
                    del self.by_caller[caller]
            # At most one pass a second, as `level_of` compares the moments itself.
            self.expire_callers_at = now + 1.0 if self.by_caller else _NEVER
        self.update_degraded()

    def update_degraded(self) -> None:
        """Note whether there is an outage of any kind."""
        self.degraded = bool(self.paused or self.by_caller or self.any())
