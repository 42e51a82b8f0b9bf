"""The functions in a dump of callgrind, with the instructions of each.

Decides how a dump is read. Must not know which functions belong together. A name is written once in
a dump, then by its number; a line after `calls=` has the cost of a call, which its function has
already.
"""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

# By object file and function.
Functions = Counter[tuple[str, str]]

_NAMED = re.compile(r"(ob|fn)=\((\d+)\)(?: (.*))?")
_COST = re.compile(r"(?:\+|-)?\d+ (\d+)|\* (\d+)")
_CALLS = re.compile(r"calls=(\d+)")
_CYCLE = re.compile(r"'\d+$")  # of a function that calls itself


def read_functions(dumps: Iterable[Path]) -> Functions:
    """The instructions of each function by itself, summed over the dumps."""
    found: Functions = Counter()
    for dump in dumps:
        _read(dump, found, Counter())
    return found


def read_calls(dumps: Iterable[Path]) -> Counter[str]:
    """How often each function was called, summed over the dumps."""
    found: Counter[str] = Counter()
    for dump in dumps:
        _read(dump, Counter(), found)
    return found


def _read(dump: Path, found: Functions, calls: Counter[str]) -> None:
    names: dict[tuple[str, str], str] = {}
    at = {"ob": "", "fn": ""}
    called_function = ""
    is_call = False
    with dump.open(errors="replace") as lines:
        for line in lines:
            if named := _NAMED.match(line):
                kind, number, name = named.groups()
                if name is not None:
                    names[kind, number] = name.strip()
                at[kind] = names[kind, number]
            elif line.startswith("c"):  # cfn=, cob=, cfi=; the names in them count for later lines
                if called := _NAMED.match(line[1:]):
                    kind, number, name = called.groups()
                    if name is not None:
                        names[kind, number] = name.strip()
                    if kind == "fn":
                        called_function = _CYCLE.sub("", names[kind, number])
                elif made := _CALLS.match(line):
                    calls[called_function] += int(made[1])
                    is_call = True
            elif cost := _COST.match(line):
                if not is_call:
                    function = _CYCLE.sub("", at["fn"])
                    found[at["ob"], function] += int(cost[1] or cost[2])
                is_call = False
