"""Which columns of a table a person has hidden, kept in a cookie.

Decides which tables have a choice, and how it is written. The first column always stays. Must not
know what columns show.
"""

import re
from collections.abc import Mapping
from typing import Final

TABLES: Final = {"requests": 6, "usage": 8, "people": 7, "all_requests": 8}  # number of columns
_ENTRY: Final = re.compile(r"([a-z_]{1,20})((?:-[2-9])+)")

Hidden = dict[str, tuple[int, ...]]


def read(cookie: str) -> Hidden:
    """The hidden columns by table; what makes no sense is left out."""
    found: Hidden = {}
    for part in cookie[:200].split("."):
        entry = _ENTRY.fullmatch(part)
        if entry is not None and entry[1] in TABLES:
            numbers = {int(one) for one in entry[2][1:].split("-")}
            found[entry[1]] = tuple(sorted(one for one in numbers if one <= TABLES[entry[1]]))
    return found


def write(hidden: Hidden) -> str:
    """The cookie."""
    return ".".join(
        "-".join([table, *map(str, numbers)]) for table, numbers in hidden.items() if numbers
    )


def chosen(table: str, form: Mapping[str, str]) -> tuple[int, ...]:
    """The columns that a form hides: it has a field `c2` for each one that is shown."""
    return tuple(one for one in range(2, TABLES[table] + 1) if f"c{one}" not in form)
