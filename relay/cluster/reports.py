"""Reports of a node's use that no request asks for: idle leases, late settlements, new engines.

Decides when a lease goes back, when a window is forgotten, and when all use is reported again: an
engine that has restarted, or took over from another, may lack the last commits. Must not know how
claims are sent.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final, TypeVar

from relay.cluster.windows import NodeWindow

if TYPE_CHECKING:
    from relay.cluster.limits import SharedLimits

T = TypeVar("T")

_KEEP_TIME: Final = 30_000  # milliseconds after its last request that a key is remembered
_SCARCE: Final = 20  # of a window less than a twentieth is free
_SLICE: Final = 500  # windows that one call looks at: about a millisecond


class Reports:
    """See the module."""

    def __init__(self, limits: "SharedLimits", on_reported: Callable[[int], None]) -> None:
        """`on_reported`: gets an incarnation once it has all of the node's use."""
        self.reported: int | None = None  # the incarnation that has all of the node's use
        self._limits = limits
        self._on_reported = on_reported
        self._incarnation = 0
        self._unreported: set[str] = set()  # windows that this incarnation has yet to hear of
        self._to_report: list[str] = []  # of these, those that the present round has yet to send
        # Those that the present round has yet to look at.
        self._live: list[NodeWindow] = []
        self._draws: list[tuple[str, str]] = []
        self._windows: list[NodeWindow] = []

    # --- another incarnation ----------------------------------------------------------

    def observe(self, incarnation: int) -> None:
        """The engine's present incarnation. All use is reported to a new one."""
        if incarnation == self._incarnation:
            return
        is_first = not self._incarnation
        self._incarnation = incarnation
        now = self._limits.clock()
        if not is_first:  # else nothing was used yet
            self._unreported = {
                name for name, it in self._limits.windows.items()
                if it.leased.epoch and it.leased.reset_in(now)
            }  # fmt: skip
        self._to_report = list(self._unreported)
        self.report_again()

    def answered(self, windows: Iterable[NodeWindow], incarnation: int) -> None:
        """The engine has heard of these windows."""
        self.observe(incarnation)
        if self._unreported:
            self._unreported.difference_update([window.name for window in windows])
            self._note_reported()

    def report_again(self) -> None:
        """Report some windows of which the present incarnation has yet to hear."""
        now = self._limits.clock()
        self._to_report = self._to_report or list(self._unreported)
        for name in _some(self._to_report):
            window = self._limits.windows.get(name)
            if window is None or not window.leased.reset_in(now):
                self._unreported.discard(name)
            elif not window.claimed and name in self._unreported:
                self._limits.send([(window, 0)], now, urgent=False)
        self._note_reported()

    def _note_reported(self) -> None:
        if not self._unreported and self.reported != self._incarnation:
            self.reported = self._incarnation
            self._on_reported(self._incarnation)

    # --- leases that nobody uses ------------------------------------------------------

    def sweep(self) -> None:
        """Look at some windows: renew what is in use, give back what is idle, report what is not
        known, and forget what is over."""
        limits, now = self._limits, self._limits.clock()
        self._live = self._live or list(limits.live.values())
        for window in _some(self._live):
            self._sweep_window(window, now)
        self._draws = self._draws or list(limits.draws)
        for name in _some(self._draws):
            draw = limits.draws.get(name)
            if draw is not None and not draw.queue and now - draw.used_at > _KEEP_TIME:
                del limits.draws[name]
                draw.forget()
        self._windows = self._windows or list(limits.windows.values())
        for window in _some(self._windows):
            # Not before its end: it would come back as another lease, with a row of its own.
            is_over = not window.leased.reset_in(now)
            if is_over and not window.users and window.name not in limits.live:
                limits.windows.pop(window.name, None)

    def _sweep_window(self, window: NodeWindow, now: int) -> None:
        leased = window.leased
        if window.claimed or window.draws:
            return
        # Where nothing is free, a request that waits finds out when there is.
        if leased.is_low(now) and (leased.free or leased.left(now)):
            self._limits.claim_ahead(window, now)
        elif leased.is_idle(now):
            self._limits.release(window, now, urgent=False)
        elif leased.left(now):
            # Its next claim reports the use, which is early enough unless others may need what was
            # given back here.
            if leased.spent < window.reported and leased.free * _SCARCE < leased.size:
                self._limits.claim_ahead(window, now)
        elif not window.is_settled(now) or leased.must_renew(now):
            self._limits.release(window, now, urgent=False)
        elif not window.held:
            self._limits.live.pop(window.name, None)


def _some(waiting: list[T]) -> Iterator[T]:
    """Some of them, taken out."""
    for _ in range(min(_SLICE, len(waiting))):
        yield waiting.pop()


def unused(windows: Iterable[NodeWindow], now: int) -> tuple[int, int]:
    """The number of leases with something unused, and the unused amount of all."""
    left = [window.leased.left(now) for window in windows]
    return sum(1 for one in left if one), sum(left)
