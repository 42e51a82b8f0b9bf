"""The health of an upstream by value, for another process.

Decides which values there are, in an order that both sides know. Moments are those of the pool's
clock, which forked processes share. Must not know how the values travel.
"""

from collections import Counter
from typing import Any, Final

from relay.pool.health import Health
from relay.pool.outages import Outage, Outages
from relay.pool.vendor_errors import Scope, Verdict

State = list[Any]  # of builtins

_OWN: Final = (
    "paused", "failures", "bodies_blamed", "failed_at", "probing", "probe_at", "probe_model",
    "expire_callers_at",
)  # fmt: skip
# The changes that follow from requests; the others are the owner's alone.
OF_REQUESTS: Final = frozenset(
    {
        "succeeded", "completed", "failed", "retract", "blame_body", "abandoned",
        "request_started", "cannot_count",
    }
)  # fmt: skip
CHANGES: Final = OF_REQUESTS | {
    "probe_started", "probe_later", "probe_answered", "probe_failed", "end_quota_outage",
    "pause", "resume", "clear", "adopt",
}  # fmt: skip


def captured(health: Health) -> State:
    """All that is known of an upstream."""
    return [
        [getattr(health, name) for name in _OWN],
        _outages(health),
        {caller: _outages(one) for caller, one in health.by_caller.items()},
        dict(health.failures_by_caller),
        dict(health.errors),
        _outage(health.last_error),
    ]


def restore(health: Health, state: State) -> None:
    """Replace all that is known of an upstream."""
    own, everybody, by_caller, failures_by_caller, errors, last_error = state
    for name, value in zip(_OWN, own, strict=True):
        setattr(health, name, value)
    _restore(health, everybody)
    health.by_caller = {}
    for caller, values in by_caller.items():
        health.by_caller[caller] = outages = Outages()
        _restore(outages, values)
    health.failures_by_caller = dict(failures_by_caller)
    health.errors = Counter(errors)
    health.last_error = _read(last_error)
    health.update_degraded()


def apply(health: Health, change: str, values: list[Any] | tuple[object, ...]) -> None:
    """Make one change, here alone. Raises ValueError: there is no such change."""
    if change not in CHANGES:
        raise ValueError(change)
    share, health.share = health.share, None
    try:
        getattr(health, change)(*values)
    finally:
        health.share = share


def sent(change: str, values: tuple[object, ...]) -> list[Any]:
    """The values of a change, as builtins."""
    if change == "failed":
        verdict, *others = values
        assert isinstance(verdict, Verdict)
        return [[verdict.scope.value, *verdict[1:]], *others]
    if change == "adopt":
        caller, scope, outage, *others = values
        assert isinstance(scope, Scope)
        assert isinstance(outage, Outage)
        return [caller, scope.value, _outage(outage), *others]
    return list(values)


def received(change: str, values: list[Any]) -> list[Any]:
    """The reverse of `sent`."""
    if change == "failed":
        (scope, *fields), *others = values
        return [Verdict(Scope(scope), *fields), *others]
    if change == "adopt":
        caller, scope, outage, *others = values
        return [caller, Scope(scope), _read(outage), *others]
    return values


def _outages(one: Outages) -> list[Any]:
    return [
        _outage(one.account_outage),
        {model: _outage(outage) for model, outage in one.model_outages.items()},
        _outage(one.overload),
        one.counts_again_at,
        one.fresh,
    ]


def _restore(one: Outages, values: list[Any]) -> None:
    account, models, overload, one.counts_again_at, one.fresh = values
    one.account_outage = _read(account)
    one.overload = _read(overload)
    one.model_outages = {
        model: outage for model, outage in zip(models, map(_read, models.values()), strict=True)
        if outage is not None
    }  # fmt: skip


def _outage(one: Outage | None) -> list[Any] | None:
    if one is None:
        return None
    return [one.reason, one.since, one.until, one.stated, one.quota, one.failing]


def _read(values: list[Any] | None) -> Outage | None:
    return None if values is None else Outage(*values)
