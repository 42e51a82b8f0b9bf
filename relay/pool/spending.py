"""What an upstream has cost today and this month, and the most that it may cost.

The day and the month are those of UTC. Costs are those of the ledger, at the prices of relay.toml,
in micro-dollars; they count once a request has ended, so requests in flight can exceed a cap.

Where several processes share an upstream, each end of a link has an `Exchanged` for what its peer
knows, so that only the difference is sent: costs add up, in whatever order they come.

Decides from when on there is room again. Must not know requests or the database.
"""

from typing import TypeAlias

from relay.quota.bucket import calendar_period

# Micro-dollars of a day, its end in epoch seconds, and the same of a month.
Costs: TypeAlias = tuple[int, float, int, float]


class Spending:
    """See the module. Moments are epoch seconds. A cap of 0 is none."""

    __slots__ = ("day", "day_cap", "day_end", "month", "month_cap", "month_end")

    @property
    def is_capped(self) -> bool:
        """Whether there is a cap."""
        return bool(self.day_cap or self.month_cap)

    def __init__(self) -> None:
        self.day = self.month = 0
        self.day_cap = self.month_cap = 0
        self.day_end = self.month_end = 0.0

    def begin(self, day: int, month: int, now: float) -> None:
        """Go on with what was spent before."""
        self._turn(now)
        self.day, self.month = day, month

    def add(self, cost: int, now: float) -> None:
        """Count the cost of a request."""
        self._turn(now)
        self.day += cost
        self.month += cost

    def add_costs(self, costs: Costs, now: float) -> None:
        """Count costs of another process, unless their day or month is over."""
        self._turn(now)
        day, day_end, month, month_end = costs
        if day_end == self.day_end:
            self.day += day
        if month_end == self.month_end:
            self.month += month

    def reach(self, day: int, month: int, read_at: float, now: float) -> None:
        """Count at least these costs of all machines, which lack the latest ones of each, unless
        their day or month is over. `read_at`: when they were read."""
        self._turn(now)
        moment = int(read_at * 1000)
        if calendar_period("day", moment)[1] / 1000 == self.day_end:
            self.day = max(self.day, day)
        if calendar_period("month", moment)[1] / 1000 == self.month_end:
            self.month = max(self.month, month)

    def _turn(self, now: float) -> None:
        if now >= self.day_end:
            self.day = 0
            self.day_end = calendar_period("day", int(now * 1000))[1] / 1000
            if now >= self.month_end:
                self.month = 0
                self.month_end = calendar_period("month", int(now * 1000))[1] / 1000

    def ready_at(self, now: float) -> float:
        """From when on the caps have room; `now` if they have."""
        ready = now
        if self.day >= self.day_cap > 0 and self.day_end > now:
            ready = self.day_end
        if self.month >= self.month_cap > 0 and self.month_end > now:
            ready = self.month_end
        return ready

    def view(self, now: float) -> dict[str, int]:
        """For the operator."""
        self._turn(now)
        return {
            "day_micro": self.day,
            "day_cap_micro": self.day_cap,
            "month_micro": self.month,
            "month_cap_micro": self.month_cap,
        }


class Exchanged:
    """What one other process knows of a `Spending`."""

    __slots__ = ("_day", "_day_end", "_month", "_month_end")

    def __init__(self) -> None:
        self._day = self._month = 0
        self._day_end = self._month_end = 0.0

    def know_all(self, spending: Spending) -> Costs:
        """All costs, to be sent now."""
        self._day, self._day_end = spending.day, spending.day_end
        self._month, self._month_end = spending.month, spending.month_end
        return (self._day, self._day_end, self._month, self._month_end)

    def unknown(self, spending: Spending) -> Costs | None:
        """The costs that the other process does not know, to be sent now; None: it knows all."""
        self._turn(spending)
        day, month = spending.day - self._day, spending.month - self._month
        if not (day or month):
            return None
        self.know_all(spending)
        return (day, spending.day_end, month, spending.month_end)

    def add(self, costs: Costs, spending: Spending, now: float) -> None:
        """Count costs that the other process has sent."""
        spending.add_costs(costs, now)
        self._turn(spending)
        day, day_end, month, month_end = costs
        if day_end == self._day_end:
            self._day += day
        if month_end == self._month_end:
            self._month += month

    def begin(self, costs: Costs, spending: Spending, now: float) -> None:
        """Go on with all costs that the other process knows, and with those it does not know."""
        own = self.unknown(spending)
        spending.begin(0, 0, now)
        spending.add_costs(costs, now)
        self.know_all(spending)
        if own is not None:
            spending.add_costs(own, now)

    def _turn(self, spending: Spending) -> None:
        """The other process knows nothing of a day or a month that has begun since."""
        if self._day_end != spending.day_end:
            self._day, self._day_end = 0, spending.day_end
        if self._month_end != spending.month_end:
            self._month, self._month_end = 0, spending.month_end
