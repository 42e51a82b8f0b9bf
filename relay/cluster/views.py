"""The use of shared windows on all nodes, for people who ask how their limits stand.

Decides when PostgreSQL is asked: at most once a second for each window, for all that ask meanwhile
in one statement. Nodes that have unused leases report first, so that the figures are those of this
moment. A caller waits half a second at most, and is shown the known figures then: those of this
node, where nothing is known or too many windows are asked for at once. Must not know callers. No
request is admitted by these figures.
"""

import asyncio
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from relay.cluster.calls import WindowRead, WindowUse, read_windows
from relay.cluster.link import EngineAwayError, EngineRefusalError, Link
from relay.cluster.schema import SchemaError
from relay.cluster.shares import balance_window, shared_windows
from relay.quota.bucket import FixedWindow
from relay.quota.state import LimitCounters

if TYPE_CHECKING:
    from relay.cluster.limits import SharedLimits

_FRESH: Final = 1_000  # milliseconds for which a window is not asked for again
_LONGEST_WAIT: Final = 0.5  # seconds
_REPORT_TIME: Final = 250  # milliseconds that other nodes have to report
_PAUSE_SECONDS: Final = 0.02  # between two looks at whether they have
_BATCH: Final = 500  # windows in one statement
_MAX_HELD: Final = 10_000  # windows that are known, and as many that are being read
_SAME_MOMENT: Final = 100  # milliseconds: a window's end, as two answers say it


class _Known(NamedTuple):
    """A window as it was read. `use`: None where PostgreSQL has none of this name."""

    at: int  # milliseconds
    use: WindowUse | None


class _Asked:
    """A window that is being read. `open`: the leases that have yet to report, with the numbers of
    their claims; None: not read yet."""

    __slots__ = ("done", "open", "since")

    def __init__(self, since: int) -> None:
        self.done = asyncio.get_running_loop().create_future()
        self.since = since
        self.open: dict[str, int] | None = None


class Views:
    """See the module."""

    def __init__(self, url: str, node: str, limits: "SharedLimits") -> None:
        self._limits = limits
        self._link = Link(url, f"{node} views")
        self._known: dict[str, _Known] = {}
        self._asked: dict[str, _Asked] = {}
        self._reading: asyncio.Task[None] | None = None

    async def refresh(self, owners: Sequence[tuple[LimitCounters, str]], account: str = "") -> None:
        """Read the windows of these owners, each with the name that nodes have for it, and the
        account's balance, unless they were read within the last second."""
        names = {name for counters, owner in owners for name, _ in shared_windows(counters, owner)}
        if account:
            names.add(balance_window(account))
        await self._refresh(names)

    async def _refresh(self, names: set[str]) -> None:
        now = self._limits.clock()
        waiting = []
        for name in names:
            known = self._known.get(name)
            if known is not None and now - known.at < _FRESH:
                continue
            asked = self._asked.get(name)
            if asked is None:
                if len(self._asked) >= _MAX_HELD:
                    continue
                asked = self._asked[name] = _Asked(now)
            waiting.append(asked.done)
        if not waiting:
            return
        if self._reading is None or self._reading.done():
            self._reading = asyncio.get_running_loop().create_task(self._read_all())
        await asyncio.wait(waiting, timeout=_LONGEST_WAIT)

    def show(self, counters: LimitCounters, owner: str, moment: int) -> None:
        """Let the windows of an owner stand as they were read just now, with the use on this node
        since; `moment`: epoch ms. Those of which nothing is known stay as they are."""
        for name, bucket in shared_windows(counters, owner):
            self._show_window(name, bucket, moment)

    def _show_window(self, name: str, bucket: FixedWindow, moment: int) -> None:
        now = self._limits.clock()
        known = self._known.get(name)
        if known is None or known.use is None or now - known.at >= 2 * _FRESH:
            return
        use, left = known.use, max(0, known.at + known.use.ends_in - now)
        window = self._limits.windows.get(name)
        own = 0
        if window is not None and window.leased.reset_in(now):
            epoch = window.leased.epoch
            if epoch > use.epoch or (epoch == use.epoch and not left):
                return  # it has opened since
            if epoch == use.epoch:
                own = window.leased.spent
        if not left:
            bucket.used = bucket.end = 0
            return
        bucket.size = bucket.capacity = bucket.ordinary_size + use.bonus
        bucket.used = use.elsewhere + own
        if not -_SAME_MOMENT < bucket.end - (moment + left) < _SAME_MOMENT:
            bucket.end = moment + left

    def charged(self, account: str) -> int | None:
        """What was taken of a balance on all nodes, with what is held here, in micro-dollars; None:
        that is not known."""
        name = balance_window(account)
        now = self._limits.clock()
        known = self._known.get(name)
        if known is None or known.use is None or now - known.at >= 2 * _FRESH:
            return None
        window = self._limits.windows.get(name)
        is_same = window is not None and window.leased.epoch == known.use.epoch
        return known.use.elsewhere + (window.leased.used if window and is_same else 0)

    async def close(self) -> None:
        """End. Callers that wait are shown the known figures."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        self._end_all()
        self._link.abort()
        await self._link.close()

    async def _read_all(self) -> None:
        while self._asked:
            names = list(islice(self._asked, _BATCH))
            started = self._limits.clock()
            uses = await self._read([self._read_of(name) for name in names])
            if uses is None:
                self._end_all()
                return
            for name in names:
                self._take(name, uses.get(name), started)
            self._forget()
            if self._asked:
                await asyncio.sleep(_PAUSE_SECONDS)

    def _read_of(self, name: str) -> WindowRead:
        window = self._limits.windows.get(name)
        is_first = self._asked[name].open is None
        return WindowRead(name, "" if window is None else window.lease, is_first)

    async def _read(self, reads: list[WindowRead]) -> dict[str, WindowUse] | None:
        """None: PostgreSQL is away, or refuses."""
        # A connection that has been idle may have been lost long ago.
        for _ in range(1 if self._link.down_since is not None else 2):
            try:
                return await self._link.call(lambda it: read_windows(it, reads))
            except EngineAwayError:
                continue
            except (EngineRefusalError, SchemaError):
                return None
        return None

    def _take(self, name: str, use: WindowUse | None, started: int) -> None:
        """Keep what was read. Callers wait until all nodes have reported."""
        asked = self._asked[name]
        self._known.pop(name, None)  # those read last are at the end
        self._known[name] = _Known(started, use)
        present = {} if use is None else dict(zip(use.leases, use.numbers, strict=True))
        if asked.open is None:
            asked.open = present
        else:  # those that have not claimed since
            asked.open = {
                lease: number for lease, number in asked.open.items()
                if present.get(lease) == number
            }  # fmt: skip
        if not asked.open or started - asked.since >= _REPORT_TIME:
            del self._asked[name]
            asked.done.set_result(None)

    def _forget(self) -> None:
        """Forget those that were read first, beyond the most that are held."""
        for name in list(islice(self._known, max(0, len(self._known) - _MAX_HELD))):
            del self._known[name]

    def _end_all(self) -> None:
        asked, self._asked = self._asked, {}
        for one in asked.values():
            one.done.set_result(None)
