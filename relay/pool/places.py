"""The places of upstreams with `max_concurrency`, lent to the processes of one relay.

All places of an upstream that are lent never exceed its cap. A process that has requests waiting
for a place names their callers; each free place is for the next caller in turn, wherever that
caller's request waits, so callers of all processes take turns as those of one do. If places are
free after that, the process gets some more, and needs to ask less often. If none is free, the other
processes give back those that they do not use: now, and whenever a request of theirs ends, until
all who wait are served.

Decides who gets a free place. Must not know requests, upstreams or the link.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Final, Generic, Protocol, TypeVar

UNBOUNDED: Final = 1 << 60  # places of an upstream without a cap
_SHARE: Final = 2  # a process gets one of so many parts of the free places that are its own share

_Process = TypeVar("_Process")
_Process_contra = TypeVar("_Process_contra", contravariant=True)


class Lending(Protocol[_Process_contra]):
    """What the owner sends to one process about the places of an upstream."""

    def lend(self, to: _Process_contra, place: str, callers: list[str], more: int) -> None:
        """A place for each of these callers' requests that wait, and some more."""

    def demand(self, of: _Process_contra, place: str, *, on: bool) -> None:
        """`on`: give back what is not in use, now and from now on; the reply says how many."""

    def none_free(self, to: _Process_contra, place: str) -> None:
        """No process has a place that is not in use."""


class _Places(Generic[_Process]):
    """The places of one upstream."""

    __slots__ = ("cap", "demanded", "held", "informed", "unanswered", "wanted")

    def __init__(self) -> None:
        self.cap = UNBOUNDED
        self.held: Counter[_Process] = Counter()
        # Callers in turn, with the number of requests that wait in each process.
        self.wanted: dict[str, dict[_Process, int]] = {}
        self.demanded: set[_Process] = set()  # they give back what they do not use
        self.unanswered: Counter[_Process] = Counter()  # demands
        self.informed: set[_Process] = set()  # that no place is free

    @property
    def free(self) -> int:
        """How many can be lent; negative after a smaller cap."""
        return self.cap - self.held.total()

    @property
    def wanting(self) -> set[_Process]:
        """The processes with requests that wait."""
        return {process for processes in self.wanted.values() for process in processes}

    def next_turn(self) -> tuple[_Process, str]:
        """The process and the caller that the next free place is for."""
        caller, processes = next(iter(self.wanted.items()))
        process, waiting = next(iter(processes.items()))
        del self.wanted[caller], processes[process]
        if waiting > 1:
            processes[process] = waiting - 1  # behind the caller's others
        if processes:
            self.wanted[caller] = processes  # behind all others
        return process, caller


class PlaceBank(Generic[_Process]):
    """The owner's account of all places."""

    def __init__(self, lending: Lending[_Process]) -> None:
        self._lending = lending
        self._places: dict[str, _Places[_Process]] = {}
        self._processes: set[_Process] = set()

    def configure(self, caps: Mapping[str, int]) -> None:
        """The upstreams, each with its cap; 0: none. Processes keep what they hold."""
        before, self._places = self._places, {}
        for place, cap in caps.items():
            places = self._places[place] = before.get(place) or _Places()
            places.cap = cap or UNBOUNDED
            self._settle(place)

    def join(self, process: _Process) -> None:
        """A process takes part from now on; it holds nothing."""
        self._processes.add(process)

    def leave(self, process: _Process) -> None:
        """A process is gone: its places are free."""
        self._processes.discard(process)
        for place, places in self._places.items():
            del places.held[process], places.unanswered[process]
            places.demanded.discard(process)
            places.informed.discard(process)
            self._want(places, process, {})
            self._settle(place)

    def held(self, place: str) -> dict[_Process, int]:
        """The places that each process holds."""
        places = self._places.get(place)
        return {} if places is None else {one: held for one, held in places.held.items() if held}

    # --- what processes send ---

    def want(self, process: _Process, place: str, callers: Mapping[str, int]) -> None:
        """The requests of a process that wait for a place, by caller; {}: none does any more."""
        places = self._places.get(place)
        if places is None:
            if callers:
                self._lending.none_free(process, place)
            return
        self._want(places, process, callers)
        self._settle(place, process if callers else None)

    def give_back(self, process: _Process, place: str, number: int, *, reply: bool) -> None:
        """A process gives places back; `reply`: to a demand."""
        places = self._places.get(place)
        if places is None:
            return
        places.held[process] -= min(number, places.held[process])
        if reply and places.unanswered[process]:
            places.unanswered[process] -= 1
        self._settle(place)

    def claim(self, process: _Process, place: str, number: int) -> None:
        """A process uses places that nobody lent it: until now the upstream had no cap there."""
        places = self._places.get(place)
        if places is not None:
            places.held[process] += number
            self._settle(place)

    # --- who gets what ---

    @staticmethod
    def _want(places: _Places[_Process], process: _Process, callers: Mapping[str, int]) -> None:
        """Note who waits in a process; callers keep their turns, new ones come last."""
        for caller in [one for one, processes in places.wanted.items() if process in processes]:
            if caller not in callers:
                del places.wanted[caller][process]
                if not places.wanted[caller]:
                    del places.wanted[caller]
        for caller, waiting in callers.items():
            places.wanted.setdefault(caller, {})[process] = waiting
        if not callers:
            places.informed.discard(process)

    def _settle(self, place: str, asking: _Process | None = None) -> None:
        """Lend what is free, demand what is needed, and inform those who wait in vain."""
        places = self._places[place]
        lent: dict[_Process, list[str]] = {}
        while places.wanted and places.free > 0:
            process, caller = places.next_turn()
            places.held[process] += 1
            lent.setdefault(process, []).append(caller)
        more = 0
        if asking is not None and asking in lent and not places.wanted:
            more = min(places.free, places.cap) // (_SHARE * max(1, len(self._processes)))
            places.held[asking] += more
        for process, callers in lent.items():
            places.informed.discard(process)
            self._lending.lend(process, place, callers, more if process == asking else 0)
        self._demand(place, places)

    def _demand(self, place: str, places: _Places[_Process]) -> None:
        wanting = places.wanting
        for process in self._processes:
            needed = places.free < 0 or bool(wanting - {process})
            if needed is (process in places.demanded):
                continue
            if not needed:
                places.demanded.discard(process)
                self._lending.demand(process, place, on=False)
            elif places.held[process]:
                places.demanded.add(process)
                places.unanswered[process] += 1
                self._lending.demand(process, place, on=True)
        if wanting and not places.unanswered.total():
            for process in wanting - places.informed:
                places.informed.add(process)
                self._lending.none_free(process, place)
