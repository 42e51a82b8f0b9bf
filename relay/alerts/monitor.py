"""The tasks behind alerts: states are read, and alerts are sent to each receiver in order.

Decides how often states are read, how an attempt is repeated, and how many alerts an hour a
receiver gets. Nothing here makes a request wait: each receiver has a bounded queue and a thread.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final, Protocol

from relay.alerts.delivery import DeliveryError, send
from relay.alerts.rules import Alert, Condition, Tracker
from relay.config import AlertSettings, Settings
from relay.store.executor import ThreadExecutor

_log = logging.getLogger("relay.alerts")

_INTERVAL_SECONDS: Final = 5.0  # between two readings of the states in memory
_BLOCKING_EVERY: Final = 12  # readings: disks and certificates are read once a minute
_MAX_QUEUED: Final = 100  # alerts per receiver; the oldest go first
_RETRY_SECONDS: Final = (2.0, 10.0, 30.0, 120.0, 300.0, 900.0)  # between two attempts
_HOUR_SECONDS: Final = 3600.0


class _States(Protocol):
    def read(self) -> list[Condition]: ...

    def read_blocking(self) -> list[Condition]: ...


class Receiver:
    """One receiver of alerts: its queue, its attempts, its cap."""

    def __init__(
        self,
        settings: AlertSettings,
        public_url: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self._public_url = public_url
        self._clock = clock
        self._queue: deque[Alert] = deque(maxlen=_MAX_QUEUED)
        self._wake = asyncio.Event()
        self._sent: deque[float] = deque()  # moments of the last hour
        self.left_out = 0  # alerts over the cap, since the last one that was sent
        self.failure = ""  # of the latest attempt

    def put(self, alert: Alert) -> None:
        """Queue an alert, if the receiver wants such events."""
        if self.settings.events and alert.event not in self.settings.events:
            return
        self._queue.append(alert)
        self._wake.set()

    async def run(self) -> None:
        """Send the queued alerts, until cancelled."""
        executor = ThreadExecutor(f"alerts {self.settings.name}")
        try:
            while True:
                while not self._queue:
                    self._wake.clear()
                    await self._wake.wait()
                alert = self._queue.popleft()
                if self._is_over_cap():
                    self.left_out += 1
                    _log.warning(
                        "alert %s: not sent, over %d an hour: %s %s %s",
                        self.settings.name,
                        self.settings.per_hour,
                        alert.event,
                        alert.subject,
                        alert.state,
                    )
                else:
                    await self._deliver(executor, alert)
        finally:
            executor.abandon()

    def _is_over_cap(self) -> bool:
        now = self._clock()
        while self._sent and self._sent[0] <= now - _HOUR_SECONDS:
            self._sent.popleft()
        return len(self._sent) >= self.settings.per_hour

    async def _deliver(self, executor: ThreadExecutor, alert: Alert) -> None:
        self._sent.append(self._clock())
        note = f"\n{self.left_out} alerts before this one were not sent." if self.left_out else ""
        noted = Alert(
            alert.event, alert.subject, alert.state, alert.text + note, alert.since, alert.at
        )
        work = partial(send, self.settings, noted, self._public_url)
        for delay in (*_RETRY_SECONDS, None):
            try:
                await executor.call(work)
            except DeliveryError as error:
                self.failure = str(error)
                final = error.final or delay is None
            except Exception as error:  # must not end the receiver
                _log.exception("alert %s: failed unexpectedly", self.settings.name)
                self.failure = type(error).__name__
                final = True
            else:
                self.failure, self.left_out = "", 0
                return
            _log.warning(
                "alert %s: %s %s %s is not sent%s: %s",
                self.settings.name,
                alert.event,
                alert.subject,
                alert.state,
                "" if final else " yet",
                self.failure,
            )
            if final or delay is None:
                return
            await asyncio.sleep(delay)


class Monitor:
    """Reads the states and alerts the receivers. `run` does nothing without a receiver."""

    def __init__(self, settings: Settings, states: _States) -> None:
        self._states = states
        self._tracker = Tracker()
        self._disk_conditions: list[Condition] = []
        self.receivers = [Receiver(one, settings.server.public_url) for one in settings.alert]

    async def run(self) -> None:
        """Watch until cancelled."""
        if not self.receivers:
            return
        executor = ThreadExecutor("alerts states")
        tasks = [asyncio.ensure_future(receiver.run()) for receiver in self.receivers]
        try:
            count = 0
            while True:
                if count % _BLOCKING_EVERY == 0:
                    self._disk_conditions = await executor.call(self._states.read_blocking)
                count += 1
                self.observe(time.time(), [*self._states.read(), *self._disk_conditions])
                await asyncio.sleep(_INTERVAL_SECONDS)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            executor.abandon()

    def observe(self, now: float, conditions: Iterable[Condition]) -> None:
        """Take the present states into account, and queue the alerts that they give."""
        for alert in self._tracker.update(now, conditions):
            for receiver in self.receivers:
                receiver.put(alert)
