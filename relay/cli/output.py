"""How commands print: JSON, tables, and single lines on standard error.

Decides the format of times (UTC, RFC 3339) and money (dollars in tables, micro-dollars in
JSON). Must not know what the rows are about.
"""

import json
import sys
from typing import Any

import click

from relay import clock


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_stderr(message: str) -> None:
    """Print an error or a warning as one line on standard error."""
    click.echo(" ".join(message.split()), err=True)


def print_records(records: list[dict[str, Any]], as_json: bool, if_empty: str) -> None:
    """Print records with the same keys: as JSON, or as a table with the keys as headings.

    `if_empty` is the sentence that replaces an empty table.
    """
    if as_json:
        print_json(records)
        return
    if not records:
        click.echo(if_empty)
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name, value in records[0].items():
        is_number = isinstance(value, int) and not isinstance(value, bool)
        table.add_column(
            name.removesuffix("_micro").replace("_", " "),
            overflow="fold",
            justify="right" if is_number else "left",
        )
    for record in records:
        table.add_row(*(_cell(name, value) for name, value in record.items()))
    # A pipe has no width: each row stays on one line there.
    width = None if sys.stdout.isatty() else 1000
    Console(width=width, markup=False, highlight=False, emoji=False).print(table)


def _cell(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name.endswith("_micro"):
        return dollars(value)
    return "-" if value in (None, "") else str(value)


def counted(number: int, thing: str) -> str:
    """A number and a noun whose plural ends in s."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def timestamp(seconds: float | None) -> str | None:
    """Epoch seconds as RFC 3339 in UTC."""
    return None if seconds is None else clock.rfc3339(seconds)


def dollars(micro: int) -> str:
    """Micro-dollars as exact dollars, with two decimals or as many as needed."""
    units, rest = divmod(abs(micro), 10**6)
    decimals = f"{rest:06d}".rstrip("0").ljust(2, "0")
    return f"{'-' if micro < 0 else ''}${units:,}.{decimals}"
