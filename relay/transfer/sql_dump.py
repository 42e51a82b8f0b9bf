"""The rows of a dump of SQL text, as pg_dump, mysqldump and sqlite3 write it.

Decides which statements carry rows: PostgreSQL's COPY, INSERT in every dialect, and CREATE TABLE
for the columns that an INSERT leaves out. Values stay text, None for NULL. Must not know what the
tables mean.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final

Row = dict[str, str | None]

_IDENTIFIER: Final = r'(?:"[^"]+"|`[^`]+`|\[[^\]]+\]|[A-Za-z_][A-Za-z0-9_$]*)'
_TABLE: Final = rf"(?:{_IDENTIFIER}\.)?({_IDENTIFIER})"
_TYPE_CAST: Final = re.compile(r"::[a-z_ \[\]]+")  # PostgreSQL's, behind a text
_COPY: Final = re.compile(rf"COPY {_TABLE} \(([^)]*)\) FROM stdin;", re.IGNORECASE)
_CREATE: Final = re.compile(
    rf"CREATE TABLE (?:IF NOT EXISTS )?{_TABLE} ?\((.*)", re.IGNORECASE | re.DOTALL
)
_INSERT: Final = re.compile(
    rf"(?:INSERT|REPLACE)(?: OR [A-Z]+| IGNORE)? INTO {_TABLE} ?(?:\(([^)]*)\) ?)?"
    r"(?:OVERRIDING [A-Z]+ VALUE )?VALUES\s*",
    re.IGNORECASE,
)
_PARENTHESES: Final = re.compile(r"\((?:[^()]|\([^()]*\))*\)")  # of a type, a default or an index
_PART: Final = re.compile(r"[^,]+")
_FIRST: Final = re.compile(_IDENTIFIER)
_NO_COLUMN: Final = {
    "primary", "unique", "key", "index", "constraint", "foreign", "check", "fulltext", "exclude",
}  # fmt: skip
_COPY_ESCAPES: Final = {
    "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v",
}  # fmt: skip
_MYSQL_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t", "0": "\0", "b": "\b", "Z": "\x1a"}
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_QUOTED: Final = re.compile(r"'((?:[^'\\]|''|\\.)*)'", re.DOTALL)
_STANDARD_QUOTED: Final = re.compile(r"'((?:[^']|'')*)'", re.DOTALL)
_BARE: Final = re.compile(r"[^,()']+")


def read_tables(lines: Iterable[str], names: Iterable[str]) -> dict[str, list[Row]]:
    """The rows of these tables. A table without any row is not in the result.

    Raises:
        ValueError: a statement cannot be read; the message says which.
    """
    wanted = set(names)
    reader = _Reader(wanted)
    found: dict[str, list[Row]] = {}
    for table, row in reader.rows(iter(lines)):
        found.setdefault(table, []).append(row)
    return found


class _Reader:
    def __init__(self, wanted: set[str]) -> None:
        self._wanted = wanted
        self._columns: dict[str, list[str]] = {}
        self._backslashes = False  # escapes within quotes, as in MySQL's dumps

    def rows(self, lines: Iterator[str]) -> Iterator[tuple[str, Row]]:
        for line in lines:
            if "MySQL dump" in line or "MariaDB dump" in line:
                self._backslashes = True
            start = line.lstrip()[:20].upper()
            if start.startswith("COPY "):
                yield from self._copy(line, lines)
            elif start.startswith(("INSERT ", "REPLACE ")):
                yield from self._insert(self._statement(line, lines))
            elif start.startswith("CREATE TABLE"):
                self._create(self._statement(line, lines))

    def _statement(self, line: str, lines: Iterator[str]) -> str:
        """The statement that begins in `line`, up to the semicolon outside quotes."""
        parts = [line]
        inside = self._ends_inside_text(line, False)
        while inside or not parts[-1].rstrip().endswith(";"):
            following = next(lines, None)
            if following is None:
                raise ValueError(f"a statement does not end: {line[:60].strip()}")
            parts.append(following)
            inside = self._ends_inside_text(following, inside)
        return "".join(parts)

    def _ends_inside_text(self, line: str, inside: bool) -> bool:
        """Doubled quotes within a text count twice, so they change nothing."""
        if self._backslashes:
            line = _ESCAPED.sub("", line)
        return inside ^ bool(line.count("'") % 2)

    def _quoted(self) -> re.Pattern[str]:
        return _QUOTED if self._backslashes else _STANDARD_QUOTED

    def _copy(self, line: str, lines: Iterator[str]) -> Iterator[tuple[str, Row]]:
        match = _COPY.match(line.strip())
        table = _plain(match[1]) if match else ""
        columns = [_plain(name) for name in match[2].split(",")] if match else []
        for row in lines:
            text = row.rstrip("\r\n")
            if text == "\\.":
                return
            if table in self._wanted:
                values = [_copied(value) for value in text.split("\t")]
                yield table, _paired(table, columns, values)
        raise ValueError(f"the rows of {table or line[:60]} do not end")

    def _create(self, statement: str) -> None:
        match = _CREATE.match(statement.strip())
        if match is None or _plain(match[1]) not in self._wanted:
            return
        parts = _PART.findall(_PARENTHESES.sub("", self._quoted().sub("", match[2])))
        names = [found[0] for part in parts if (found := _FIRST.match(part.strip()))]
        self._columns[_plain(match[1])] = [
            _plain(name) for name in names if name.lower() not in _NO_COLUMN
        ]

    def _insert(self, statement: str) -> Iterator[tuple[str, Row]]:
        match = _INSERT.match(statement.strip())
        if match is None or _plain(match[1]) not in self._wanted:
            return
        table = _plain(match[1])
        columns = self._columns.get(table, [])
        if match[2] is not None:
            columns = [_plain(name) for name in match[2].split(",")]
        if not columns:
            raise ValueError(
                f"the columns of {table} are unknown; dump with the table's definition"
            )
        for values in self._values(statement.strip()[match.end() :]):
            yield table, _paired(table, columns, values)

    def _values(self, text: str) -> Iterator[list[str | None]]:
        """The rows of `(1, 'a'), (2, NULL);`."""
        quoted = self._quoted()
        position = 0
        row: list[str | None] | None = None
        while position < len(text):
            character = text[position]
            if character == "'":
                match = quoted.match(text, position)
                if match is None or row is None:
                    raise ValueError(f"a text does not end: {text[position : position + 40]}")
                row.append(self._unescaped(match[1]))
                position = match.end()
                type_cast = _TYPE_CAST.match(text, position)
                position = position if type_cast is None else type_cast.end()
            elif character == "(" and row is None:
                row, position = [], position + 1
            elif character == ")" and row is not None:
                yield row
                row, position = None, position + 1
            elif row is not None and (bare := _BARE.match(text, position)) is not None:
                word = bare[0].strip()
                if word not in ("", "E", "e", "_binary", "N"):  # before a quoted text
                    row.append(None if word.upper() == "NULL" else word)
                position = bare.end()
            else:
                position += 1

    def _unescaped(self, text: str) -> str:
        text = text.replace("''", "'")
        if self._backslashes:
            text = _ESCAPED.sub(lambda found: _MYSQL_ESCAPES.get(found[1], found[1]), text)
        return text


def _plain(name: str) -> str:
    name = name.strip()
    return name[1:-1] if name[:1] in ('"', "`", "[") else name


def _copied(value: str) -> str | None:
    if value == "\\N":
        return None
    return _ESCAPED.sub(lambda found: _COPY_ESCAPES.get(found[1], found[1]), value)


def _paired(table: str, columns: list[str], values: list[str | None]) -> Row:
    if len(columns) != len(values):
        raise ValueError(f"a row of {table} has {len(values)} values for {len(columns)} columns")
    return dict(zip(columns, values, strict=True))
