"""The recorded costs, and the verdict on new ones.

Decides which record a build is compared with, and what is too much. Must not know how costs are
counted. Instructions depend on the build of Python and on whether the relay is compiled, so there
is a record for each; the reference workload distinguishes builds of one version.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench.cost.count import Cost

MARGIN = 0.03
_SAME_BUILD = 0.01  # of the reference workload
FILE = Path(__file__).with_name("baseline.json")


class Record(msgspec.Struct, frozen=True):
    """The cost of a build of the relay when it was recorded."""

    python: str
    machine: str
    compiled: bool
    cost: Cost

    def is_of(self, other: "Record") -> bool:
        """Whether both are of the same build of Python, with the relay compiled in both or none."""
        mine, theirs = self.cost.reference, other.cost.reference
        return (
            (self.python, self.machine, self.compiled)
            == (other.python, other.machine, other.compiled)
        ) and abs(mine - theirs) <= _SAME_BUILD * theirs


@dataclass(frozen=True, slots=True)
class Comparison:
    """One kind of request: its instructions before and now."""

    kind: str
    before: int
    now: int

    @property
    def change(self) -> float:
        return self.now / self.before - 1

    @property
    def too_much(self) -> bool:
        return self.change > MARGIN

    @property
    def outdated(self) -> bool:
        """So much cheaper that the record would let much of it be lost again."""
        return self.change < -MARGIN

    def __str__(self) -> str:
        verdict = "too much" if self.too_much else "record it" if self.outdated else ""
        figures = f"{self.kind:<14} {self.before:>10,} → {self.now:>10,}  {self.change:+.1%}"
        return f"{figures}  {verdict}".rstrip()


def compare(before: Cost, now: Cost) -> list[Comparison]:
    """Each kind of request that both have."""
    kinds = [kind for kind in now.requests if kind in before.requests]
    return [Comparison(kind, before.requests[kind], now.requests[kind]) for kind in kinds]


def find(records: Sequence[Record], now: Record) -> Record | None:
    """The record that `now` is compared with; None if its build has none."""
    return next((record for record in records if now.is_of(record)), None)


def renewed(records: Sequence[Record], now: Record) -> list[Record]:
    """The records with `now` in place of the one of its build."""
    others = [record for record in records if not now.is_of(record)]
    return sorted([*others, now], key=lambda one: (one.python, one.machine, one.compiled))


def read(path: Path = FILE) -> list[Record]:
    return msgspec.json.decode(path.read_bytes(), type=list[Record]) if path.exists() else []


def write(records: Sequence[Record], path: Path = FILE) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(records)) + b"\n")
