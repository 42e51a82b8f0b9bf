"""Which change of state gives an alert: one when a fault has lasted, one when it is over.

Decides the hysteresis: a fault counts once it has held for a while, and its end once that has held
for a while. Must not read a clock, and must not know sources or receivers.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from relay.config.alerts import Event

State = Literal["firing", "resolved", "test", "occurred"]

_MAX_TEXT_CHARACTERS: Final = 500


@dataclass(frozen=True, slots=True)
class Condition:
    """The present state of one thing."""

    event: Event
    subject: str  # such as an upstream's name
    bad: bool | None  # None: unknown at this moment, so nothing changes
    text: str = ""  # the fault, in words
    hold: float = 0.0  # seconds that it must be bad for before that counts
    clear: float = 0.0  # seconds that it must be good for before that counts


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that the operator should know; times are epoch seconds."""

    event: Event
    subject: str
    state: State
    text: str
    since: float  # when the fault began
    at: float
    id: int = 0  # of something that occurred; 0: it is a fault


class _Fault:
    """Something that is bad, or was until lately."""

    __slots__ = ("firing", "good_since", "since", "text")

    def __init__(self, since: float, text: str) -> None:
        self.since = since
        self.text = text
        self.firing = False
        self.good_since: float | None = None


class Tracker:
    """Remembers the faults, and which of them have been reported."""

    def __init__(self) -> None:
        self._faults: dict[tuple[str, str], _Fault] = {}

    @property
    def firing(self) -> int:
        """The number of faults that have been reported and are not over."""
        return sum(fault.firing for fault in self._faults.values())

    def update(self, now: float, conditions: Iterable[Condition]) -> list[Alert]:
        """The alerts that the present states give. A state that is no longer among them is
        forgotten without an alert: its upstream, say, was removed."""
        alerts = []
        present: set[tuple[str, str]] = set()
        for condition in conditions:
            key: tuple[str, str] = (condition.event, condition.subject)
            present.add(key)
            alert = self._update_one(now, key, condition)
            if alert is not None:
                alerts.append(alert)
        for key in self._faults.keys() - present:
            del self._faults[key]
        return alerts

    def _update_one(self, now: float, key: tuple[str, str], condition: Condition) -> Alert | None:
        fault = self._faults.get(key)
        if condition.bad is None:
            return None
        if condition.bad:
            if fault is None:
                fault = self._faults[key] = _Fault(now, "")
            fault.good_since = None
            fault.text = condition.text[:_MAX_TEXT_CHARACTERS]
            if fault.firing or now - fault.since < condition.hold:
                return None
            fault.firing = True
            return _alert(condition, "firing", fault, now)
        if fault is None:
            return None
        if not fault.firing:
            del self._faults[key]
            return None
        if fault.good_since is None:
            fault.good_since = now
        if now - fault.good_since < condition.clear:
            return None
        del self._faults[key]
        return _alert(condition, "resolved", fault, now)


def _alert(condition: Condition, state: State, fault: _Fault, now: float) -> Alert:
    return Alert(condition.event, condition.subject, state, fault.text, fault.since, now)
