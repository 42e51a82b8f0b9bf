"""An upstream's state for the operator, in the shape of `relay upstreams --json`.

Decides the words. Must not change the state.
"""

from typing import TYPE_CHECKING

from relay.clock import rfc3339
from relay.pool.clock import shown
from relay.pool.outages import Outage

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
    last = health.last_error
    if state != "ok" or last is None:
        return ""
    if health.failures:
        return f"{health.failures} failed in a row: {last.reason}"
    if health.by_caller:
        return f"for {len(health.by_caller)} of its callers: {last.reason}"
    return ""
