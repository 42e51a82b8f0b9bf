"""An upstream's state for the operator, in the shape of `relay upstreams --json`.

Decides the words. Must not change the state.
"""

from typing import TYPE_CHECKING

from relay.clock import rfc3339
from relay.pool.clock import shown
from relay.pool.outages import Outage, Outages

if TYPE_CHECKING:
    from relay.pool.health import Health


def view_of(health: "Health", now: float) -> dict[str, object]:
    """The state at this moment, without outages that are over."""
    account, overload = health.account_outage, health.overload
    outage = account or overload
    if health.paused:
        state = "paused"
    elif account is not None:
        state = "cooling" if account.stated else "down"
        if account.until <= now:
            state = "probing"
    elif overload is not None:
        state = "strained"
    else:
        state = "ok"
    last = health.last_error
    return {
        "state": state,
        "why": _why(health, state, outage),
        "until": None if outage is None else rfc3339(shown(outage.until)),
        "models_out": {
            model: {"why": one.reason, "until": rfc3339(shown(one.until))}
            for model, one in health.model_outages.items()
        },
        "counts_tokens": health.counts_again_at <= now,
        "failures_in_a_row": health.failures,
        "errors": dict(health.errors),
        "last_error": None
        if last is None
        else {"why": last.reason, "at": rfc3339(shown(last.since))},
    }


def _why(health: "Health", state: str, outage: Outage | None) -> str:
    if outage is not None:
        return outage.reason
    if state != "ok":
        return ""
    last = health.last_error
    if health.failures and last is not None:
        return f"{health.failures} failed in a row: {last.reason}"
    of_callers = [found for one in health.by_caller.values() if (found := _latest(one))]
    if of_callers:  # found here or on another node
        latest = max(of_callers, key=lambda one: one.since)
        return f"for {len(of_callers)} of its callers: {latest.reason}"
    return ""


def _latest(outages: Outages) -> Outage | None:
    """The latest outage of a caller, if there is one."""
    found = [outages.account_outage, outages.overload, *outages.model_outages.values()]
    return max((one for one in found if one is not None), key=lambda one: one.since, default=None)
