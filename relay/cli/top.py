"""`relay top`: the running relay live in a terminal.

Decides what an operator sees at a glance: load, upstreams, limits that are nearly used up. Rates
are differences of two answers of the admin listener. Must not know how they are counted.
"""

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import click

from relay import config
from relay.cli.admin_client import call
from relay.cli.output import print_json
from relay.cli.program import Failure, config_option, json_option, load_settings

if TYPE_CHECKING:
    from rich.console import Group

_FIRST_INTERVAL_SECONDS: Final = 0.5  # between the two answers of a single frame
_NEARLY_USED: Final = 0.5  # of a limit, from which it is shown
_COLORS: Final = {"ok": "green", "strained": "yellow", "probing": "yellow", "paused": "blue"}

Status = dict[str, Any]


@click.command()
@config_option
@json_option
@click.option("--once", is_flag=True, help="Print one frame and end.")
@click.option(
    "--every",
    type=click.FloatRange(0.5, 60),
    default=2.0,
    show_default=True,
    help="Seconds between two frames.",
)
def top(as_json: bool, once: bool, every: float) -> None:
    """Load, upstreams and limits of the running relay, live."""
    settings = load_settings()
    before = _status(settings)
    time.sleep(_FIRST_INTERVAL_SECONDS)
    now = _status(settings)
    if as_json:
        print_json({**now, "per_second": _per_second(before, now, "requests")})
        return
    from rich.console import Console
    from rich.live import Live

    console = Console()
    if once or not console.is_terminal:
        console.print(_frame(before, now))
        return
    try:
        with Live(_frame(before, now), console=console, screen=True, auto_refresh=False) as live:
            while True:
                time.sleep(every)
                try:
                    before, now = now, _status(settings)
                except Failure as error:
                    live.update(error.format_message(), refresh=True)
                    continue
                live.update(_frame(before, now), refresh=True)
    except KeyboardInterrupt:
        return


def _status(settings: config.Settings) -> Status:
    status: Status = call(settings, "GET", "/status")
    return status


def _per_second(before: Status, now: Status, name: str) -> float:
    """The growth of a count; 0.0 where the relay was started again meanwhile."""
    if now["started_at"] != before["started_at"]:
        return 0.0
    seconds = max(0.001, now["now"] - before["now"])
    growth: float = now[name] - before[name]
    return round(growth / float(seconds), 1)


def _frame(before: Status, now: Status) -> "Group":
    from rich.console import Group
    from rich.text import Text

    up = timedelta(seconds=int(now["now"] - now["started_at"]))
    journal = now["journal"]
    state = Text("ok", "green") if journal["healthy"] else Text(journal["failure"], "bold red")
    lag = now["loop_lag_seconds"] * 1000
    codes = "  ".join(f"{code} {count:,}" for code, count in now["by_code"].items())
    lines = [
        Text.assemble(("relay ", "bold"), f"{now['version']}   up {up}   {now['database']}"),
        Text.assemble(
            (f"{_per_second(before, now, 'requests'):,.1f}/s", "bold"),
            f"   in flight {now['in_flight']:,}/{now['in_flight_limit']:,}"
            f"   waiting {now['waiting']:,}   connections {now['connections']:,}"
            f"   shed {now['shed']:,}",
        ),
        Text.assemble(
            f"{codes}   loop lag ",
            (f"{lag:.0f} ms", "bold red" if lag > 100 else ""),
            f"   bodies {now['held_bytes'] / 2**20:.0f} MiB   journal ",
            state,
        ),
    ]
    if "workers" in now:
        lines.append(_processes(now["workers"]))
    tables = [_upstreams(before, now)]
    if any(row["used"] >= _NEARLY_USED for row in now["limits"]):
        tables.append(_limits(now))
    return Group(*lines, *tables)


def _processes(workers: dict[str, Any]) -> Any:
    """The number of processes, and which of them do not answer."""
    from rich.text import Text

    processes = workers["processes"]
    silent = ", ".join(one["process"] for one in processes if not one["answers"])
    return Text.assemble(
        f"processes {len(processes)}   replaced {workers['restarts']:,}",
        (f"   no answer from worker {silent}" if silent else "", "bold red"),
    )


def _table(*columns: str) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        is_text = name in ("upstream", "state", "account", "plan", "limit", "resets")
        table.add_column(name, justify="left" if is_text else "right", overflow="ellipsis",
                         no_wrap=True)  # fmt: skip
    return table


def _upstreams(before: Status, now: Status) -> Any:
    from rich.text import Text

    table = _table("upstream", "state", "busy", "answers", "errors", "mean", "first", "left")
    for row in now["upstreams"]:
        name, state = row["name"], row["state"]
        cap = f"/{row['max_concurrency']}" if row["max_concurrency"] else ""
        limits = [f"{limit['left']:,} of {limit['limit']}" for limit in row["limits"]]
        shown = f"{state}: {row['why']}" if row["why"] else state
        table.add_row(
            Text(name),
            Text(shown, _COLORS.get(state, "red")),
            f"{row['in_flight']}{cap}",
            f"{row['answered']:,}",
            f"{sum(row['errors'].values()):,}",
            _mean(before, now, name, "seconds", "requests"),
            _mean(before, now, name, "first_seconds", "streams"),
            Text(limits[0] if limits else f"{row['left']:,}" if row["left"] is not None else "-"),
        )
    return table


def _mean(before: Status, now: Status, name: str, total: str, count: str) -> str:
    """The mean since the last frame, or since the start where nothing came since then."""
    newer = now["latencies"].get(name)
    if newer is None or not newer[count]:
        return "-"
    older = before["latencies"].get(name) or dict.fromkeys(newer, 0.0)
    requests = newer[count] - older[count]
    if requests <= 0:
        return f"{newer[total] / newer[count]:.2f} s"
    return f"{(newer[total] - older[total]) / requests:.2f} s"


def _limits(now: Status) -> Any:
    from rich.text import Text

    table = _table("account", "plan", "limit", "used", "resets")
    for row in now["limits"]:
        if row["used"] >= _NEARLY_USED:
            used = Text(f"{row['used']:.0%}", "bold red" if row["used"] >= 0.9 else "yellow")
            who = Text(row["account"])
            table.add_row(who, Text(row["plan"]), row["limit"], used, row["reset"][5:16])
    return table
