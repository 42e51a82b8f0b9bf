"""Each row of the scoreboard has tests."""

import re
from functools import cache
from pathlib import Path

import pytest

from tests.scoreboard import ROWS, line_of

ROOT = Path(__file__).parents[1]


@cache
def names(file: str) -> list[str]:
    return re.findall(r"^async def (test_\w+)|^def (test_\w+)", (ROOT / file).read_text(), re.M)


@pytest.mark.parametrize("beginning", [test for row in ROWS for test in row.tests])
def test_a_rows_tests_exist(beginning: str) -> None:
    file, _, test = beginning.partition("::")
    if not file.endswith(".py"):
        assert list((ROOT / file).glob("test_*.py"))
        return
    name = test.partition("[")[0]
    assert any(one.startswith(name) for pair in names(file) for one in pair if one)


def test_a_row_says_what_failed_and_what_was_measured() -> None:
    row = ROWS[0]
    test = row.tests[0]
    assert "no test ran" in line_of(row, {})
    line = line_of(row, {f"{test}[a]": (True, ["3 ms"]), f"{test}[b]": (False, ["4 ms"])})
    assert "1 of 2" in line
    assert "FAILED" in line
    assert line.endswith("3 ms; 4 ms")
