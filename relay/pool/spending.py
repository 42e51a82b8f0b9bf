"""What an upstream has cost today and this month, and the most that it may cost.

The day and the month are those of UTC. Costs are those of the ledger, at the prices of relay.toml,
in micro-dollars; they count once a request has ended, so requests in flight can exceed a cap.

Decides from when on there is room again. Must not know requests or the database.
"""

from relay.quota.bucket import calendar_period


class Spending:
    """See the module. Moments are epoch seconds. A cap of 0 is none."""

    __slots__ = ("day", "day_cap", "day_end", "month", "month_cap", "month_end")

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
