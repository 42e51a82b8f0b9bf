"""Reads tests/corpora/*.txt: named messages, octet for octet as on the wire, in readable form.

A case is `== name`, then its expected result (`-> …`), then its lines. `#` begins a
comment. Lines are joined without anything between them: `\\r\\n` is written out.
"""

import re
from typing import NamedTuple

import pytest

from tests.corpora import CORPORA

_REPEATED = re.compile(r"\{(\d+)\*([^}]*)\}")
_ESCAPED = re.compile(r"\\(?:x([0-9a-fA-F]{2})|([rnt0\\]))")
_NAMED = {"r": "\r", "n": "\n", "t": "\t", "0": "\0", "\\": "\\"}


class Case(NamedTuple):
    name: str
    expected: list[bytes]
    octets: bytes


def octets(text: str) -> bytes:
    """The octets that a line of a corpus stands for."""
    text = _REPEATED.sub(lambda found: found[2] * int(found[1]), text)
    text = _ESCAPED.sub(
        lambda found: chr(int(found[1], 16)) if found[1] else _NAMED[found[2]], text
    )
    return text.encode("latin-1")


def read(file: str) -> list[Case]:
    """Every case of a corpus; no name twice."""
    cases: list[Case] = []
    for line in (CORPORA / file).read_text("utf-8").split("\n"):
        if line.startswith("== "):
            cases.append(Case(line[3:], [], b""))
        elif line.startswith("->"):
            cases[-1].expected.append(octets(line[3:]))
        elif line and not line.startswith("#"):
            last = cases.pop()
            cases.append(last._replace(octets=last.octets + octets(line)))
    names = [case.name for case in cases]
    assert len(set(names)) == len(names), "a name stands twice"
    assert all(case.octets for case in cases)
    return cases


def each(file: str) -> pytest.MarkDecorator:
    """Parametrize a test by the cases of a corpus."""
    return pytest.mark.parametrize("case", read(file), ids=lambda case: case.name)
