"""The table of clients in relay/docs/clients.md, from the rows that the runs leave.

    python -m tests.clients.matrix.table      rows/*.json into the table

A run with RELAY_CLIENT_ROWS=FOLDER writes its rows there, a file each. They are kept in the
repository, so that a run without one of the registries leaves the other clients' rows alone.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

ROWS: Final = Path(__file__).with_name("rows")
PAGE: Final = Path(__file__).parents[3] / "relay" / "docs" / "clients.md"
BEGIN: Final = "<!-- clients: written by make clients -->"
END: Final = "<!-- clients: end -->"

WORKS: Final = "✓"
NONE: Final = "–"  # the client has no notion of it
FAILS: Final = "✗"
# The cells of each row, and the heads of their columns.
CELLS: Final = {
    "plain": "plain",
    "stream": "stream",
    "loop": "tool loop",
    "parallel": "parallel tools",
    "structured": "structured output",
    "picture": "picture",
    "thinking": "thinking over turns",
    "unknown": "error shown",
    "quota": "quota shown",
}
DIALECTS: Final = ("messages", "chat", "responses")


class Row(msgspec.Struct, frozen=True):
    """A client in one dialect.

    A cell is `✓`, or `–` or `✗` with a reason behind it: `– it has no tools`.
    """

    client: str  # LangChain (Python)
    version: str  # langchain-openai 1.7.4
    dialect: str  # messages, chat or responses
    cells: dict[str, str]

    def check(self) -> None:
        """Refuse a row with a cell too many, too few, or without its reason."""
        assert self.dialect in DIALECTS, self.dialect
        assert self.cells.keys() == CELLS.keys(), self.cells.keys() ^ CELLS.keys()
        for name, cell in self.cells.items():
            assert re.fullmatch(r"✓|[–✗] \S[^|\n]*", cell), f"{self.client}: {name}: {cell!r}"


def leave(row: Row) -> None:
    """Write a row where RELAY_CLIENT_ROWS says; nowhere without it."""
    row.check()
    folder = os.environ.get("RELAY_CLIENT_ROWS")
    if not folder:
        return
    name = re.sub(r"[^a-z0-9]+", "-", f"{row.client} {row.dialect}".lower()).strip("-")
    octets = msgspec.json.format(msgspec.json.encode(row), indent=2)
    Path(folder, f"{name}.json").write_bytes(octets + b"\n")


def read(folder: Path = ROWS) -> list[Row]:
    """The rows of a folder, by client and dialect."""
    rows = [msgspec.json.decode(path.read_bytes(), type=Row) for path in folder.glob("*.json")]
    for row in rows:
        row.check()
    return sorted(rows, key=lambda row: (row.client.lower(), DIALECTS.index(row.dialect)))


def render(rows: Iterable[Row]) -> str:
    """The table, and below it the reasons, each once and numbered."""
    reasons: dict[str, int] = {}
    lines = [
        "| client | version | dialect | " + " | ".join(CELLS.values()) + " |",
        "|---" * (3 + len(CELLS)) + "|",
    ]
    for row in rows:
        cells = []
        for name in CELLS:
            mark, _, reason = row.cells[name].partition(" ")
            number = reasons.setdefault(reason, len(reasons) + 1) if reason else 0
            cells.append(f"{mark} {number}" if number else mark)
        lines.append(f"| {row.client} | {row.version} | {row.dialect} | {' | '.join(cells)} |")
    if reasons:
        lines += ["", *(f"{number}. {reason}" for reason, number in reasons.items())]
    return "\n".join(lines)


def replaced(page: str, table: str) -> str:
    """The page with this table between its two marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin, f"there is no {BEGIN} on the page"
    assert end, f"there is no {END} on the page"
    return f"{before}{begin}\n{table}\n{end}{after}"


if __name__ == "__main__":
    PAGE.write_text(replaced(PAGE.read_text(), render(read())))
