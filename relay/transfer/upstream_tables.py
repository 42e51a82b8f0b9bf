"""The `[[upstream]]` tables of a relay.toml: taken out, put in, and the rest of the text as it is.

Decides how a table is written, how a list of tables in JSON or TOML is read, and which lines of a
relay.toml change. A literal secret is left out as `MASK`, for which a later import takes the
present one. The new text is parsed and compared before it is given back. Must not open any file.
"""

import json
import re
import tomllib
from collections.abc import Callable
from typing import Any, Final

from relay.transfer import TransferError

MASK: Final = "•••"
Table = dict[str, Any]

_HEADER: Final = re.compile(r"""\s*\[{1,2}\s*(["'A-Za-z0-9_.\- ]+?)\s*\]{1,2}\s*(#.*)?""")
_BEGIN: Final = re.compile(r"""\s*\[\[\s*["']?upstream["']?\s*\]\]\s*(#.*)?""")
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_MAX_TABLES: Final = 1_000
_NOT_PLAIN: Final = "its upstreams are written in a way that cannot be changed here; do it by hand"


# --- read ---


def read_tables(text: str) -> list[Table]:
    """The upstreams in a text: a list in JSON, or JSON or TOML with `upstream` alone.

    Raises:
        TransferError: it has another form.
    """
    try:
        tree = _parsed_json(text)
        tree = tomllib.loads(text) if tree is None else tree
    except ValueError as error:
        raise TransferError(f"this is neither JSON nor TOML: {error}") from None
    except RecursionError:
        raise TransferError("this is neither JSON nor TOML: it is nested too deeply") from None
    if isinstance(tree, dict):
        others = [name for name in tree if name != "upstream"]
        if others:
            raise TransferError(f"only upstreams can be imported, and here is {others[0]!r}, too")
        tree = tree.get("upstream")
    if not isinstance(tree, list) or not tree or not all(isinstance(one, dict) for one in tree):
        raise TransferError("here is no list of upstreams")
    if len(tree) > _MAX_TABLES:
        raise TransferError(f"these are more than {_MAX_TABLES:,} upstreams")
    tables = [_without_none(one) for one in tree]
    names = [one.get("name") for one in tables]
    for number, name in enumerate(names):
        if not isinstance(name, str) or not name:
            raise TransferError(f"upstream {number + 1} has no name")
        if name in names[:number]:
            raise TransferError(f"upstream {name!r} is given twice")
    return tables


def _parsed_json(text: str) -> Any:
    """A list or an object; None: it may be TOML, which begins with a bracket, too."""
    begin = text.lstrip()[:1]
    try:
        return json.loads(text) if begin in ("[", "{") else None
    except ValueError:
        if begin == "{":
            raise
        return None


def _without_none(value: Any) -> Any:
    """JSON has null, and TOML leaves the setting out."""
    if isinstance(value, dict):
        return {name: _without_none(inner) for name, inner in value.items() if inner is not None}
    return [_without_none(one) for one in value] if isinstance(value, list) else value


def merged(
    present: list[Table], given: list[Table], mask: Callable[[Table], Table], *, only: bool
) -> list[Table]:
    """The tables after an import, those of now in their order. `mask` leaves the secrets out of
    one; `only`: those that are not given go.

    Raises:
        TransferError: a secret is left out that no present table has.
    """
    named = {one["name"]: one for one in given}
    found = []
    for table in present:
        new = named.pop(table["name"], None)
        if new is None and not only:
            found.append(table)
        elif new is not None:
            found.append(_unmasked(new, mask(table), table, table["name"]))
    return found + [_unmasked(one, {}, {}, name) for name, one in named.items()]


def _unmasked(value: Any, masked: Any, present: Any, place: str) -> Any:
    if isinstance(value, dict):
        return {
            name: _unmasked(inner, _at(masked, name), _at(present, name), f"{place}.{name}")
            for name, inner in value.items()
        }
    if not isinstance(value, str) or MASK not in value:
        return value
    if value != masked:
        raise TransferError(f"upstream {place}: its secret is left out ({MASK}); write it")
    return present


def _at(tree: Any, name: str) -> Any:
    return tree.get(name) if isinstance(tree, dict) else None


# --- write ---


def as_toml(tables: list[Table]) -> str:
    """`[[upstream]]` tables as text."""
    return "\n".join(
        "\n".join(["[[upstream]]", *(_line(name, value) for name, value in table.items()), ""])
        for table in tables
    )


def _line(name: str, value: Any) -> str:
    return f"{_key(name)} = {_value(value)}"


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _value(name)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, dict):
        inner = ", ".join(_line(name, one) for name, one in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    return str(value)


def rewritten(text: str, tables: list[Table]) -> str:
    """The text of a relay.toml with other upstreams; all else stays, comments included.

    Raises:
        TransferError: its upstreams are written in an unusual way.
    """
    tree = tomllib.loads(text)
    present: list[Table] = tree.get("upstream", [])
    named = {one["name"]: one for one in tables}
    lines = text.removesuffix("\n").split("\n")  # `splitlines` would part values, too
    blocks = _blocks(lines)
    if len(blocks) != len(present):
        raise TransferError(_NOT_PLAIN)
    at = blocks[-1][1] if blocks else len(lines)
    added = [one for one in tables if one["name"] not in {old.get("name") for old in present}]
    if added:
        gap = [""] if at < len(lines) and lines[at].strip() else []
        lines[at:at] = ["", *as_toml(added).rstrip().split("\n"), *gap]
    for (start, end), old in reversed(list(zip(blocks, present, strict=True))):
        new = named.get(old.get("name", ""))
        if new is None:
            while end < len(lines) and not lines[end].strip():
                end += 1
            lines[start:end] = []
        elif new != old:
            lines[start:end] = _edited(lines[start:end], old, new)
    result = "\n".join(lines) + "\n"
    expected = {name: value for name, value in tree.items() if name != "upstream"}
    if tables:
        expected["upstream"] = tables
    if _parsed(result) != expected:
        raise TransferError(_NOT_PLAIN)
    return result


def _parsed(text: str) -> Table | None:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None


def _blocks(lines: list[str]) -> list[tuple[int, int]]:
    """The lines of each upstream, with its tables below and the comments right after it."""
    blocks: list[tuple[int, int]] = []
    start: int | None = None
    for number, line in enumerate([*lines, "[end]"]):
        header = _HEADER.fullmatch(line)
        if header is None or (start is not None and header[1].startswith("upstream.")):
            continue
        if start is not None:
            blocks.append((start, _end(lines, start, number)))
        start = number if _BEGIN.fullmatch(line) else None
    return blocks


def _end(lines: list[str], start: int, end: int) -> int:
    """Where a block ends that the next header ends at the latest: a blank line, and the comments
    after it, are no part of it."""
    last = end - 1
    while not lines[last].strip() or lines[last].lstrip().startswith("#"):
        last -= 1
    while last + 1 < end and lines[last + 1].lstrip().startswith("#"):
        last += 1
    return max(last, start) + 1


def _edited(block: list[str], old: Table, new: Table) -> list[str]:
    """A block with other values; the lines of those that stay, and comments, are kept."""
    lines = block[:]
    after = 1  # where a further setting goes
    for name, value in old.items():
        span = _span(lines, name, value)
        if span is None:
            if new.get(name) == value:  # a table below, say
                continue
            return as_toml([new]).rstrip().split("\n")
        first, end = span
        if name not in new:
            lines[first:end] = []
            end = first
        elif new[name] != value:
            lines[first:end] = [_line(name, new[name]) + _comment(lines[first:end])]
            end = first + 1
        after = max(after, end)
    lines[after:after] = [_line(name, new[name]) for name in new if name not in old]
    result = _parsed("\n".join(lines))
    if result != {"upstream": [new]}:
        return as_toml([new]).rstrip().split("\n")
    return lines


def _span(lines: list[str], name: str, value: Any) -> tuple[int, int] | None:
    """The lines of one setting, before any table below."""
    begin = re.compile(rf"""\s*["']?{re.escape(name)}["']?\s*=""")
    for first in range(1, len(lines)):
        if _HEADER.fullmatch(lines[first]):
            return None
        if begin.match(lines[first]):
            for end in range(first + 1, len(lines) + 1):
                if _parsed("\n".join(lines[first:end])) == {name: value}:
                    return first, end
    return None


def _comment(lines: list[str]) -> str:
    """The comment after a value on one line."""
    if len(lines) != 1:
        return ""
    line = lines[0]
    for place in (match.start() for match in re.finditer("#", line)):
        if _parsed(line[:place]):
            return "  " + line[place:]
    return ""
