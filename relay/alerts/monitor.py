"""The tasks behind alerts: states are read, and alerts are sent to each receiver in order.

Decides how often states are read, how an attempt is repeated, and how many alerts an hour a
receiver gets. Nothing here makes a request wait: each receiver has a bounded queue and a thread.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Final, Protocol

from relay.alerts.delivery import DeliveryError, send
from relay.alerts.rules import Alert, Condition, Tracker
from relay.config import AlertSettings, Settings
from relay.config.alerts import OCCURRENCES, Event
from relay.store import events
from relay.store.database import Database, StoreError
from relay.store.executor import ThreadExecutor

_log = logging.getLogger("relay.alerts")

_INTERVAL_SECONDS: Final = 5.0  # between two readings of the states in memory
_BLOCKING_EVERY: Final = 12  # readings: disks and certificates are read once a minute
_MAX_QUEUED: Final = 100  # alerts per receiver; the oldest go first
_RETRY_SECONDS: Final = (2.0, 10.0, 30.0, 120.0, 300.0, 900.0)  # between two attempts
_HOUR_SECONDS: Final = 3600.0
_OLD_SECONDS: Final = 86_400.0  # an event that nobody has received for a day is no news


Done = Callable[[], None]


def _nothing() -> None:
    pass


class Countdown:
    """Calls back once so many have counted; at once if none will."""

    __slots__ = ("_done", "_left")

    def __init__(self, count: int, done: Done) -> None:
        self._left, self._done = count, done
        if not count:
            done()

    def count(self) -> None:
        """One less."""
        self._left -= 1
        if not self._left:
            self._done()


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
        self._queue: deque[tuple[Alert, Done]] = deque(maxlen=_MAX_QUEUED)
        self._wake = asyncio.Event()
        self._sent: deque[float] = deque()  # moments of the last hour
        self.left_out = 0  # alerts over the cap, since the last one that was sent
        self.failure = ""  # of the latest attempt

    def wants(self, event: Event) -> bool:
        """Whether the receiver gets such events."""
        events = self.settings.events
        return event in events if events else event not in OCCURRENCES

    @property
    def has_room(self) -> bool:
        """Whether more can wait without pushing others out."""
        return len(self._queue) < _MAX_QUEUED // 2

    def put(self, alert: Alert, done: Done = _nothing) -> None:
        """Queue an alert, if the receiver wants such events. `done` is called when it needs no
        further attempt."""
        if not self.wants(alert.event):
            return
        self._queue.append((alert, done))
        self._wake.set()

    async def run(self) -> None:
        """Send the queued alerts, until cancelled."""
        executor = ThreadExecutor(f"alerts {self.settings.name}")
        try:
            while True:
                while not self._queue:
                    self._wake.clear()
                    await self._wake.wait()
                alert, done = self._queue.popleft()
                if not alert.id and self._is_over_cap():
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
                done()
        finally:
            executor.abandon()

    def _is_over_cap(self) -> bool:
        now = self._clock()
        while self._sent and self._sent[0] <= now - _HOUR_SECONDS:
            self._sent.popleft()
        return len(self._sent) >= self.settings.per_hour

    async def _deliver(self, executor: ThreadExecutor, alert: Alert) -> None:
        if not alert.id:
            self._sent.append(self._clock())
        note = f"\n{self.left_out} alerts before this one were not sent." if self.left_out else ""
        noted = replace(alert, text=alert.text + note)
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

    def __init__(
        self, settings: Settings, states: _States, database: Database | None = None
    ) -> None:
        """`database` has what occurred; None: nothing does."""
        self._database = database
        self._last = 0  # id of the last event that was queued
        self._marks: set[asyncio.Task[None]] = set()
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
                await self._queue_events()
                await asyncio.sleep(_INTERVAL_SECONDS)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            executor.abandon()

    async def _queue_events(self) -> None:
        """Queue what has occurred. An event stays in the database until each receiver has it, so
        that a restart loses none; one may then come twice, with the same id."""
        if self._database is None or not all(one.has_room for one in self.receivers):
            return
        try:
            found = await events.pending(self._database, self._last)
        except StoreError as error:
            _log.warning("events are not sent for now: %s", error)
            return
        for event in found:
            self._last = event.id
            alert = Alert(
                event.kind, event.subject, "occurred", event.text, event.time, event.time, event.id
            )
            wanting = [one for one in self.receivers if one.wants(event.kind)]
            if time.time() - event.time > _OLD_SECONDS:
                wanting = []
            left = Countdown(len(wanting), partial(self._mark_sent, event.id))
            for receiver in wanting:
                receiver.put(alert, left.count)

    def _mark_sent(self, event_id: int) -> None:
        assert self._database is not None
        mark = asyncio.ensure_future(events.mark_sent(self._database, event_id, time.time()))
        self._marks.add(mark)
        mark.add_done_callback(self._note_marked)

    def _note_marked(self, mark: "asyncio.Task[None]") -> None:
        self._marks.discard(mark)
        if not mark.cancelled() and mark.exception() is not None:
            _log.warning("an event may be sent again: %s", mark.exception())

    def observe(self, now: float, conditions: Iterable[Condition]) -> None:
        """Take the present states into account, and queue the alerts that they give."""
        for alert in self._tracker.update(now, conditions):
            for receiver in self.receivers:
                receiver.put(alert)
