"""One finding of `relay doctor`. Must not know how it was found."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "fault"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`what` was looked at, what is the matter (`found`), and what to do (`remedy`)."""

    level: Level
    what: str
    found: str
    remedy: str = ""


def passed(what: str, found: str) -> Finding:
    """All is well."""
    return Finding("ok", what, found)


def warning(what: str, found: str, remedy: str) -> Finding:
    """It works, but not for long or not for everybody."""
    return Finding("warning", what, found, remedy)


def fault(what: str, found: str, remedy: str) -> Finding:
    """It does not work."""
    return Finding("fault", what, found, remedy)
