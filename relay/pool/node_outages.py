"""The outages of upstreams that several machines share, see `relay.cluster`.

An outage that this machine has found is reported with its scope and its caller, so that it becomes
no wider elsewhere. Those that others have found are adopted, each as a change of the upstream's
health like any other, so workers get them too. A guess that ends is withdrawn, before another
machine could agree with it. Nothing waits for any of this.

Decides which outages are reported, and for how long one is adopted. Must not know how they travel.
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import Final, TypeAlias

from relay.cluster.states import CLEAR, Report, State
from relay.pool.leases import Upstreams
from relay.pool.outages import Outage
from relay.pool.sharing import place_of
from relay.pool.upstream import Upstream
from relay.pool.vendor_errors import Scope

_MAX_WAITING: Final = 1000  # reports
_MAX_KNOWN: Final = 1000  # outages of an upstream
_BATCH: Final = 200  # reports
_SAME_SECONDS: Final = 1.0  # by which an end has to differ to be reported again
_CLEAR_MILLISECONDS: Final = 86_400_000  # for which machines hear of a clear
_FRESH_MILLISECONDS: Final = 10_000  # for which another machine's outage is evidence here
_SCOPES: Final = {scope.value: scope for scope in Scope}

_Key: TypeAlias = tuple[str, str, str]  # an outage's scope, model (of a model's) and caller
_Place: TypeAlias = tuple[str, str, str, str, str]  # of a report; the later one replaces it


def identity_of(upstream: Upstream) -> str:
    """The name of an upstream among machines: of the same account at the same server. Refusals of
    one account are no evidence against another."""
    credential = upstream.setup.credential.reveal().encode()
    return f"{place_of(upstream)} {hashlib.sha256(credential).hexdigest()[:8]}"


class _Known:
    """The ends of an upstream's outages that the others know, and of guesses that were reported."""

    __slots__ = ("guessed", "stated")

    def __init__(self) -> None:
        self.stated: dict[_Key, float] = {}
        self.guessed: dict[_Key, float] = {}

    def has(self, key: _Key, outage: Outage) -> bool:
        ends = self.stated if outage.stated else self.guessed
        return outage.until < ends.get(key, 0.0) + _SAME_SECONDS

    def note(self, key: _Key, outage: Outage) -> None:
        ends = self.stated if outage.stated else self.guessed
        if len(ends) >= _MAX_KNOWN:
            del ends[next(iter(ends))]
        ends[key] = outage.until


class NodeOutages:
    """See the module, and `relay.cluster.states.UpstreamStates`."""

    def __init__(self, pool: Upstreams, wake: Callable[[], None]) -> None:
        """`wake` lets what is here be sent soon."""
        self._pool = pool
        self._wake = wake
        self._upstreams: dict[str, Upstream] = {}  # by identity
        self._known: dict[str, _Known] = {}
        self._unread: set[str] = set()
        self._waiting: dict[_Place, tuple[Report, float, float]] = {}  # with its moment and end
        pool.on_replaced.append(self._attach)
        self._attach()

    def _attach(self) -> None:
        """Share the outages of the present upstreams."""
        before, self._upstreams = self._upstreams, {identity_of(one): one for one in self._pool}
        for identity, upstream in before.items():
            if self._upstreams.get(identity) is not upstream:
                upstream.health.on_outage = upstream.health.on_doubts_over = None
                upstream.on_cleared = None
                self._forget(identity)
                del self._known[identity]
        for identity, upstream in self._upstreams.items():
            if before.get(identity) is not upstream:
                upstream.health.on_outage = partial(self._found, identity)
                upstream.health.on_doubts_over = partial(self._withdraw, identity)
                upstream.on_cleared = partial(self._clear, identity)
                self._known[identity] = _Known()
                self._unread.add(identity)
        self._unread &= self._upstreams.keys()
        self._wake()

    def _forget(self, identity: str) -> None:
        """Neither this machine nor any other knows anything of an upstream."""
        self._known[identity] = _Known()
        for place in [place for place in self._waiting if place[0] == identity]:
            del self._waiting[place]

    # --- to the others ---

    def _found(self, identity: str, caller: str, scope: Scope, outage: Outage, model: str) -> None:
        key = (scope.value, model if scope is Scope.MODEL else "", caller)
        known = self._known[identity]
        if outage.until < outage.since + _SAME_SECONDS or known.has(key, outage):
            return
        known.note(key, outage)
        kind = (outage.stated, outage.quota, outage.failing)
        self._put(Report("outage", identity, *key, 0, *kind, model, outage.reason), outage.until)

    def _withdraw(self, identity: str) -> None:
        """Guesses about an upstream have ended."""
        health, now = self._upstreams[identity].health, self._pool.now()
        guessed = self._known[identity].guessed
        for key in list(guessed):
            scope, about, caller = key
            outages = health.by_caller.get(caller) if caller else health
            if outages is None or not outages.has(_SCOPES[scope], about, now):
                del guessed[key]
                self._put(Report("withdrawal", identity, *key), now)

    def _clear(self, identity: str) -> None:
        self._forget(identity)
        self._put(_clear_of(identity), self._pool.now() + _CLEAR_MILLISECONDS / 1000)

    def _put(self, report: Report, until: float) -> None:
        place = _place_of(report)
        if self._waiting.pop(place, None) is None and len(self._waiting) >= _MAX_WAITING:
            del self._waiting[next(iter(self._waiting))]
        self._waiting[place] = (report, self._pool.now(), until)
        self._wake()

    def take_reports(self) -> list[Report]:
        """See `UpstreamStates`."""
        now = self._pool.now()
        reports = []
        for place in list(islice(self._waiting, _BATCH)):
            report, since, until = self._waiting.pop(place)
            left, age = int((until - now) * 1000), int((now - since) * 1000)
            if left > 0 or report.kind == "withdrawal":
                reports.append(report._replace(left=left, age=age))
        return reports

    def put_back(self, reports: Sequence[Report]) -> None:
        """See `UpstreamStates`."""
        now = self._pool.now()
        again = {
            _place_of(one): (one, now - one.age / 1000, now + one.left / 1000) for one in reports
        }
        self._waiting = {**again, **self._waiting}

    # --- from the others ---

    def unread(self) -> list[str]:
        """See `UpstreamStates`."""
        return list(self._unread)

    def take(self, states: Sequence[State], read: Sequence[str]) -> None:
        """See `UpstreamStates`."""
        self._unread.difference_update(read)
        for state in states:
            upstream = self._upstreams.get(state.upstream)
            if upstream is None or _place_of(_clear_of(state.upstream)) in self._waiting:
                continue
            if state.scope == CLEAR:
                self._forget(state.upstream)
                upstream.health.clear()
            elif (scope := _SCOPES.get(state.scope)) is not None:
                self._adopt(upstream, scope, state)
        if states:
            self._pool.wake()

    def _adopt(self, upstream: Upstream, scope: Scope, state: State) -> None:
        """Another machine's longest cooldown may be longer."""
        now = self._pool.now()
        until = now + min(state.left / 1000, upstream.setup.longest_cooldown)
        outage = Outage(state.reason, now, until, state.stated, state.quota, state.failing)
        if state.stated:
            self._known[state.upstream].note((state.scope, state.about, state.caller), outage)
        is_fresh = state.age <= _FRESH_MILLISECONDS
        upstream.health.adopt(state.caller, scope, outage, state.model, is_fresh)


def _clear_of(identity: str) -> Report:
    return Report("clear", identity, CLEAR)


def _place_of(report: Report) -> _Place:
    """A clear and a statement stand beside the guess of the same outage."""
    kind = "stated" if report.stated else ""
    return (report.upstream, report.scope, report.about, report.caller, kind)
