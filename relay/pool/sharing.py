"""The health of upstreams in several processes, with the verdicts of one process.

Evidence counts in the order in which it reaches the owner. The owner makes each change and passes
it on. A worker makes its own changes at once and sends them; when changes of others come in
between, it goes back to the last state that the owner has confirmed, and makes those changes first,
then its own unconfirmed ones again. So every process comes to the state that one process would have
had, without a wait; and as the changes travel, not the states, a change costs the same however much
is known. Only changes of something are sent, so healthy upstreams send nothing.

Decides the order of changes. Must not know the link, or the meaning of a change.
"""

from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Generic, TypeVar

from relay.pool.health import Health
from relay.pool.health_state import (
    OF_REQUESTS,
    State,
    apply,
    captured,
    received,
    restore,
    sent,
)
from relay.pool.upstream import Upstream

_Worker = TypeVar("_Worker")


def place_of(upstream: Upstream) -> str:
    """The name of an upstream and of its server: after a reload, another process may still have
    an upstream of the same name elsewhere."""
    return f"{upstream.name} {upstream.setup.settings.base_url}"


class OwnersHealth(Generic[_Worker]):
    """The owner's side. `publish(place, change, values, but)` sends a change to all workers but
    one; `publish_state(place, state)` sends a state to all; `confirm(worker, place)` says that
    the oldest unconfirmed change of a worker was made."""

    def __init__(
        self,
        publish: Callable[[str, str, list[Any], _Worker | None], None],
        publish_state: Callable[[str, State], None],
        confirm: Callable[[_Worker, str], None],
    ) -> None:
        self._publish = publish
        self._publish_state = publish_state
        self._confirm = confirm
        self._healths: dict[str, Health] = {}
        self._probed_by: dict[str, _Worker] = {}

    def attach(self, healths: Mapping[str, Health]) -> None:
        """Share the health of these upstreams, by place, and no longer that of others."""
        before, self._healths = self._healths, dict(healths)
        for place, health in before.items():
            if self._healths.get(place) is not health:
                health.share = None
        for place, health in self._healths.items():
            if before.get(place) is not health:
                health.share = partial(self._make, place, health)
                self._publish_state(place, captured(health))

    def state(self, place: str) -> State | None:
        """The present state of an upstream; None: it is not known here."""
        health = self._healths.get(place)
        return None if health is None else captured(health)

    def take(self, worker: _Worker, place: str, change: str, values: list[Any]) -> None:
        """Make a change of a worker."""
        health = self._healths.get(place)
        try:
            if health is not None and change in OF_REQUESTS:
                apply(health, change, received(change, values))
                if health.probing and change == "request_started":
                    self._probed_by[place] = worker
                self._publish(place, change, values, worker)
        finally:
            self._confirm(worker, place)  # or the worker would wait for it for good

    def forget(self, worker: _Worker) -> None:
        """A worker is gone, with its request that was to find out whether a guess holds."""
        for place in [place for place, one in self._probed_by.items() if one is worker]:
            del self._probed_by[place]
            if place in self._healths:
                self._healths[place].abandoned()

    def _make(self, place: str, health: Health, change: str, values: tuple[object, ...]) -> None:
        apply(health, change, values)
        self._publish(place, change, sent(change, values), None)


class _Replica:
    """An upstream's health in a worker: `confirmed` by the owner, and own changes after it."""

    __slots__ = ("confirmed", "health", "is_known", "unconfirmed")

    def __init__(self, health: Health) -> None:
        self.health = health
        self.confirmed = Health()
        self.is_known = False  # the owner's state has come
        self.unconfirmed: deque[tuple[str, tuple[object, ...]]] = deque()

    def go_back(self) -> None:
        """Make the health what the owner has confirmed, with own changes after it."""
        restore(self.health, captured(self.confirmed))
        for change, values in self.unconfirmed:
            apply(self.health, change, values)


class WorkersHealth:
    """A worker's side. `send(place, change, values)` sends a change to the owner; `ask(place)`
    asks it for its state."""

    def __init__(
        self, send: Callable[[str, str, list[Any]], None], ask: Callable[[str], None]
    ) -> None:
        self._send = send
        self._ask = ask
        self._replicas: dict[str, _Replica] = {}

    def attach(self, healths: Mapping[str, Health]) -> None:
        """Share the health of these upstreams, by place, and no longer that of others."""
        before, self._replicas = self._replicas, {}
        for place, health in healths.items():
            replica = before.get(place)
            if replica is None or replica.health is not health:
                replica = _Replica(health)
                health.share = partial(self._make, place, replica)
                self._ask(place)
            else:
                del before[place]
            self._replicas[place] = replica
        for replica in before.values():
            replica.health.share = None

    def take_state(self, place: str, state: State) -> None:
        """The owner's state of an upstream has come."""
        replica = self._replicas.get(place)
        if replica is not None:
            restore(replica.confirmed, state)
            replica.is_known = True
            replica.go_back()

    def take(self, place: str, change: str, values: list[Any]) -> None:
        """The owner has made a change that is not of this worker."""
        replica = self._replicas.get(place)
        if replica is None or not replica.is_known:
            return  # its state will have it
        change_values = received(change, values)
        apply(replica.confirmed, change, change_values)
        if replica.unconfirmed:
            replica.go_back()
        else:
            apply(replica.health, change, change_values)

    def take_confirmation(self, place: str) -> None:
        """The owner has made the oldest unconfirmed change of this worker."""
        replica = self._replicas.get(place)
        if replica is not None and replica.unconfirmed:
            change, values = replica.unconfirmed.popleft()
            if replica.is_known:
                apply(replica.confirmed, change, values)

    def _make(self, place: str, replica: _Replica, change: str, values: tuple[object, ...]) -> None:
        if change in OF_REQUESTS:  # the owner's own changes come from it
            apply(replica.health, change, values)
            replica.unconfirmed.append((change, values))
            self._send(place, change, sent(change, values))
