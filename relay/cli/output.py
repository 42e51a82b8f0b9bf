"""What commands print: JSON, tables, and lines for standard error."""

import json
import sys
from typing import Any

import click

from relay import clock


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def tell(message: str) -> None:
    click.echo(" ".join(message.split()), err=True)


def print_records(records: list[dict[str, Any]], as_json: bool, none: str) -> None:
    """Print rows that have the same names: a table with these as its headings, or JSON. `none`
    is said where there are no rows."""
    if as_json:
        print_json(records)
        return
    if not records:
        click.echo(none)
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name, value in records[0].items():
        number = isinstance(value, int) and not isinstance(value, bool)
        table.add_column(
            name.removesuffix("_micro").replace("_", " "),
            overflow="fold",
            justify="right" if number else "left",
        )
    for record in records:
        table.add_row(*(_cell(name, value) for name, value in record.items()))
    # A pipe has no width: every row stays on its line there.
    width = None if sys.stdout.isatty() else 1000
    Console(width=width, markup=False, highlight=False, emoji=False).print(table)


def _cell(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name.endswith("_micro"):
        return dollars(value)
    return "-" if value in (None, "") else str(value)


def moment(value: float | None) -> str | None:
    return None if value is None else clock.rfc3339(value)


def dollars(micro: int) -> str:
    """Exact, with as many decimals as that takes, and two at least."""
    whole, rest = divmod(abs(micro), 10**6)
    decimals = f"{rest:06d}".rstrip("0").ljust(2, "0")
    return f"{'-' if micro < 0 else ''}${whole:,}.{decimals}"
