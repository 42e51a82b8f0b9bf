"""The places that this process holds at upstreams with `max_concurrency`, see `places`.

Decides for which upstreams requests wait, and gives back what the owner demands. A request waits
only for an upstream that could serve it at once if there were a place. While the owner has not said
that no place is free, an upstream without one here is due like any other, so no request goes to
another one, or is refused, for want of a message. Must not know the link, or other processes.
"""

import asyncio
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Final, Protocol

from relay.pool.leases import Upstreams
from relay.pool.places import UNBOUNDED
from relay.pool.sharing import place_of
from relay.pool.upstream import Upstream

_FULL_SECONDS: Final = 0.025  # for which "no place is free" holds, once nobody waits for one
_MAY_HAVE: Final = 0.0
_FULL: Final = float("inf")
_MAX_CALLERS: Final = 64  # that are named; the others follow


class Borrowing(Protocol):
    """What a process sends to the owner, see `PlaceBank`."""

    def want(self, place: str, callers: dict[str, int]) -> None:
        """The requests that wait for a place, by caller."""

    def give_back(self, place: str, number: int, *, reply: bool) -> None:
        """Places that are not in use; `reply`: to a demand."""

    def claim(self, place: str, number: int) -> None:
        """Places that are in use, and were not lent."""


class _Held:
    """The places at one upstream."""

    __slots__ = ("demanded", "is_capped", "upstream", "wanted")

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.is_capped = False
        self.demanded = False  # the owner wants back what is not in use
        self.wanted: dict[str, int] = {}  # as the owner knows it

    def take_idle(self) -> int:
        """Give up the places that are not in use; returns how many these were."""
        upstream = self.upstream
        idle = max(0, upstream.places - upstream.in_flight)
        upstream.places -= idle
        return idle


class HeldPlaces:
    """All places of this process. They are in force from `attach` on."""

    def __init__(self, upstreams: Upstreams, borrowing: Borrowing) -> None:
        self._upstreams = upstreams
        self._borrowing = borrowing
        self._held: dict[str, _Held] = {}
        self._scheduled = False
        self._loop = asyncio.get_running_loop()
        upstreams.on_queue = self._on_queue

    def attach(self) -> None:
        """Hold places at the present upstreams, and no longer at others."""
        before, self._held = self._held, {}
        for upstream in self._upstreams:
            place = place_of(upstream)
            held = before.pop(place, None)
            if held is None or held.upstream is not upstream:
                held = _Held(upstream)
                upstream.borrows = True
                upstream.places = UNBOUNDED
            self._held[place] = held
            self._cap(place, held)
        for place, held in before.items():
            if held.is_capped:
                held.upstream.on_release = None
                self._borrowing.give_back(place, held.take_idle(), reply=False)
        self._on_queue()

    def _cap(self, place: str, held: _Held) -> None:
        upstream, is_capped = held.upstream, held.upstream.max_concurrency > 0
        if is_capped and not held.is_capped:
            upstream.places = upstream.in_flight
            upstream.full_until = _MAY_HAVE
            if upstream.in_flight:
                self._borrowing.claim(place, upstream.in_flight)
        elif held.is_capped and not is_capped:
            self._borrowing.give_back(place, upstream.places, reply=False)
            upstream.places = UNBOUNDED
            upstream.on_release = None
        held.is_capped = is_capped

    # --- what the owner sends ---

    def lend(self, place: str, callers: Iterable[str], more: int) -> None:
        """Places for requests of these callers, and some more."""
        callers = list(callers)
        held = self._held.get(place)
        if held is None or not held.is_capped:
            self._borrowing.give_back(place, len(callers) + more, reply=False)
            return
        for caller in callers:
            waiting = held.wanted.get(caller, 0) - 1
            held.wanted.pop(caller, None)
            if waiting > 0:
                held.wanted[caller] = waiting
        held.upstream.places += len(callers) + more
        held.upstream.full_until = _MAY_HAVE
        self._upstreams.serve(callers)
        if held.demanded:
            self._return(place, held)

    def demand(self, place: str, *, on: bool) -> None:
        """`on`: give back what is not in use, now and from now on."""
        held = self._held.get(place)
        if held is None or not held.is_capped:
            if on:
                self._borrowing.give_back(place, 0, reply=True)
            return
        held.demanded = on
        held.upstream.on_release = partial(self._return, place, held) if on else None
        if on:
            self._borrowing.give_back(place, held.take_idle(), reply=True)

    def none_free(self, place: str) -> None:
        """No process has a place that is not in use: requests take other upstreams."""
        held = self._held.get(place)
        if held is not None:
            if held.wanted:
                held.upstream.full_until = _FULL
            self._upstreams.wake()

    def renew(self, place: str) -> None:
        """The owner knows an upstream now, and nothing of the requests that wait for it."""
        held = self._held.get(place)
        if held is not None and held.is_capped:
            held.wanted = {}
            held.upstream.full_until = _MAY_HAVE
            self._on_queue()

    def _return(self, place: str, held: _Held) -> None:
        idle = held.take_idle()
        if idle:
            self._borrowing.give_back(place, idle, reply=False)

    # --- what waits ---

    def _on_queue(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._compare)

    def _compare(self) -> None:
        """Send the owner who waits, where that has changed."""
        self._scheduled = False
        waiting = {id(one.upstream): dict[str, int]() for one in self._held.values()}
        for upstream, caller, number in self._lacking():
            callers = waiting.get(id(upstream))
            if callers is not None and (caller in callers or len(callers) < _MAX_CALLERS):
                callers[caller] = callers.get(caller, 0) + number
        for place, held in self._held.items():
            wanted = waiting[id(held.upstream)] if held.is_capped else {}
            if wanted == held.wanted:
                continue
            if not wanted and held.upstream.full_until == _FULL:
                held.upstream.full_until = self._upstreams.now() + _FULL_SECONDS
            held.wanted = wanted
            self._borrowing.want(place, wanted)

    def _lacking(self) -> Iterator[tuple[Upstream, str, int]]:
        """Each upstream that lacks a place, with a caller and the number of its requests that wait
        for one."""
        for request, number in self._upstreams.queued():
            for target in request.route.targets:
                upstream = target.upstream
                lacks = upstream.places <= upstream.in_flight
                if lacks and self._upstreams.could_serve(target, request):
                    yield upstream, request.caller, number
