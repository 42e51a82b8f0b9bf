"""A log line names the package that wrote it, so an operator can filter by it."""

import re
from pathlib import Path

import pytest

import relay

ROOT = Path(relay.__file__).parent
NAME = re.compile(r"getLogger\(([^)]+)\)")
LOGGERS = [
    (path.relative_to(ROOT.parent), name)
    for path in sorted(ROOT.rglob("*.py"))
    for name in NAME.findall(path.read_text())
]


@pytest.mark.parametrize(("path", "name"), LOGGERS, ids=lambda one: str(one).strip('"'))
def test_a_logger_has_the_name_of_its_package(path: Path, name: str) -> None:
    package = ".".join(path.parts[:2]) if len(path.parts) > 2 else "relay"
    assert name in (f'"{package}"', "__name__", "")
