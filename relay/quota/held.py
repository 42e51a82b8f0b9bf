"""The holdings of a process in a ledger, as they are sent to another one.

Decides the form alone; `quota.transfer` makes and applies it.
"""

import msgspec

from relay.quota.bucket import Mark
from relay.quota.state import Row


class HeldFurther(msgspec.Struct, frozen=True, array_like=True):
    """A part of a reservation in limits beside the plan's."""

    scope: str
    owner: str
    taken: list[tuple[str, int, int, Mark]]  # kind, period, amount, mark


class HeldQuota(msgspec.Struct, frozen=True, array_like=True):
    """A reservation: whose it is, what was taken from which bucket, and the money held."""

    scope: str
    owner: str
    key: str
    account: str
    requests: list[tuple[str, int, Mark]]  # kind, period, mark
    tokens: list[tuple[str, int, int, Mark]]  # kind, period, amount, mark
    prepaid: bool
    cost: int  # micro-dollars held
    further: list[HeldFurther] = []


class Share(msgspec.Struct):
    """The sum that all requests in flight of one process hold."""

    keys: dict[str, int] = {}  # requests by key
    counters: dict[str, int] = {}  # requests by scope and owner
    held: dict[str, int] = {}  # micro-dollars by account

    def add(self, held: HeldQuota, number: int = 1) -> None:
        """Count one reservation more, or with -1 less."""
        add(self.keys, held.key, number)
        add(self.counters, place(held.scope, held.owner), number)
        for further in held.further:
            add(self.counters, place(further.scope, further.owner), number)
        if held.prepaid:
            add(self.held, held.account, number * held.cost)

    def include(self, other: "Share") -> None:
        """Count what another process holds, too."""
        for mine, others in self._pairs(other):
            for name, number in others.items():
                add(mine, name, number)

    def _pairs(self, other: "Share") -> list[tuple[dict[str, int], dict[str, int]]]:
        return [
            (self.keys, other.keys),
            (self.counters, other.counters),
            (self.held, other.held),
        ]

    def subtract(self, other: "Share") -> None:
        """Leave out what another process holds."""
        for mine, others in self._pairs(other):
            for name, number in others.items():
                add(mine, name, -number)


class State(msgspec.Struct):
    """A ledger's state beside what its database has."""

    rows: list[Row]  # changes that the journal has not written
    marks: list[tuple[str, str, int, Mark]]  # place, kind, period, mark of each bucket in use
    share: Share


def place(scope: str, owner: str) -> str:
    """The name of a scope's owner."""
    return f"{scope}/{owner}"


def add(numbers: dict[str, int], name: str, number: int) -> None:
    """Add to the number of a name, which is left out once it is zero."""
    total = numbers.get(name, 0) + number
    if total:
        numbers[name] = total
    else:
        numbers.pop(name, None)
