"""`relay upstreams`: the state of a running relay's upstreams; pausing and resuming them.

Decides how they are shown. Must not know how upstreams are chosen.
"""

import time
from typing import Any, Final
from urllib.parse import quote

import click

from relay import clock
from relay.cli.admin_client import call
from relay.cli.output import dollars, print_json, print_records
from relay.cli.program import config_option, json_option, load_settings

_JSON_FLAG: Final = "relay.cli.upstreams.json"


@click.group(invoke_without_command=True)
@config_option
@json_option
@click.pass_context
def upstreams(context: click.Context, as_json: bool) -> None:
    """Upstreams of the running relay: their state at this moment."""
    context.meta[_JSON_FLAG] = as_json  # `--json` may stand before the subcommand, too
    if context.invoked_subcommand is not None:
        return
    found = call(load_settings())
    if as_json:
        print_json(found)
        return
    rows = [_row(one) for one in found["upstreams"]]
    # Columns without any value are left out, for width.
    empty = {name for name in (rows[0] if rows else ()) if not any(row[name] for row in rows)}
    empty -= {"in_flight", "requests", "sessions"}
    shown = [{name: row[name] for name in row if name not in empty} for row in rows]
    print_records(shown, False, "There are no upstreams.")
    if found["waiting"]:
        click.echo(f"Requests that wait for an upstream: {found['waiting']}.")
    for line in _terms(found["upstreams"]):
        click.echo(line)


@upstreams.command("pause")
@click.argument("name")
@config_option
@json_option
def upstreams_pause(name: str, as_json: bool) -> None:
    """Give the upstream NAME no more requests, until resumed, over restarts too."""
    upstream = _act(name, "pause")
    in_flight = upstream["in_flight"]
    remaining = f" Requests still in flight: {in_flight}." if in_flight else ""
    _print_upstream(upstream, as_json, f"{name} is paused.{remaining}")


@upstreams.command("resume")
@click.argument("name")
@config_option
@json_option
def upstreams_resume(name: str, as_json: bool) -> None:
    """Give the upstream NAME requests again."""
    upstream = _act(name, "resume")
    is_ok = upstream["state"] == "ok"
    state = "" if is_ok else f" It is {_state(upstream)}: {upstream['why']}."
    _print_upstream(upstream, as_json, f"{name} is resumed.{state}")


@upstreams.command("clear")
@click.argument("name")
@config_option
@json_option
def upstreams_clear(name: str, as_json: bool) -> None:
    """Forget the outages of the upstream NAME, and try it again at once."""
    upstream = _act(name, "clear")
    pause = " It stays paused." if upstream["state"] == "paused" else ""
    _print_upstream(
        upstream, as_json, f"{name} may serve again; its earlier errors stay counted.{pause}"
    )


def _print_upstream(upstream: dict[str, Any], as_json: bool, sentence: str) -> None:
    """Print an upstream after a change: as JSON, or the sentence that describes the change."""
    if as_json or click.get_current_context().meta[_JSON_FLAG]:
        print_json(upstream)
    else:
        click.echo(sentence)


def _act(name: str, action: str) -> dict[str, Any]:
    """Apply an action to an upstream of the running relay; returns the upstream afterwards."""
    settings = load_settings()
    call(settings)  # fails with a clear message if another relay listens there
    path = f"/upstreams/{quote(name, safe='')}/{action}"
    upstream: dict[str, Any] = call(settings, "POST", path)
    return upstream


# --- showing ---


def _row(one: dict[str, Any]) -> dict[str, Any]:
    limit = f"/{one['max_concurrency']}" if one["max_concurrency"] else ""
    return {
        "name": one["name"],
        "state": _state(one),
        "why": _why(one),
        "in_flight": f"{one['in_flight']}{limit}",
        "requests": one["requests"],
        "priority": one["priority"],
        "weight": one["weight"],
        "share": f"{one['share']:.0%}" if one["answered"] else "",
        "errors": _errors(one),
        "sessions": one["sessions"],
        "limits": ", ".join(f"{row['left']:,} left of {row['limit']}" for row in one["limits"]),
        "cost": _cost(one["cost"]),
        "left": "" if one["left"] is None else f"{one['left']:,}",
        "vendor": one["vendor"],
    }


def _cost(cost: dict[str, int]) -> str:
    """What it has cost today and this month, with the caps that it has."""
    parts = []
    for name, word in (("day", "today"), ("month", "this month")):
        spent, cap = cost[f"{name}_micro"], cost[f"{name}_cap_micro"]
        if spent or cap:
            of = f" of {dollars(cap)}" if cap else ""
            parts.append(f"{dollars(spent)}{of} {word}")
    return ", ".join(parts)


def _state(one: dict[str, Any]) -> str:
    """The state, and until when if it ends by itself."""
    state, until = str(one["state"]), one["until"]
    if until is None or state in ("paused", "probing"):
        return state
    return f"{state} until {_short_time(until)}"


def _short_time(timestamp: str) -> str:
    """RFC 3339 without fractions, and without the date if it is today's: `12:01:00Z`."""
    today = clock.rfc3339(time.time())[:11]
    return timestamp.removeprefix(today).split(".")[0] + "Z"


def _why(one: dict[str, Any]) -> str:
    reasons = [one["why"]] if one["why"] else []
    for model, outage in one["models_out"].items():
        reasons.append(f"{model}: {outage['why']}, until {_short_time(outage['until'])}")
    return "; ".join(reasons)


def _errors(one: dict[str, Any]) -> str:
    parts = [f"{number} {scope}" for scope, number in sorted(one["errors"].items())]
    if one["other_model"]:
        parts.append(f"{one['other_model']} from another model")
    return ", ".join(parts)


def _terms(found: list[dict[str, Any]]) -> list[str]:
    """One line for each vendor with terms of use."""
    terms: dict[str, str] = {one["vendor"]: one["terms"] for one in found if one["terms"]}
    return [f"Terms of {vendor}: {' '.join(note.split())}" for vendor, note in terms.items()]
