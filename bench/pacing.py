"""Requests at an even rate, as many for each rival: the cost of a proxy that is partly idle.

Decides when the next request is due, and refuses a window that missed its rate. A request's time
counts from when it was due, however late it was sent, so that a stall of the proxy is in the time
of every request that it delayed (no coordinated omission). Where the clients themselves were late,
the window is refused. The loop's own timers are a millisecond apart, in which several requests
would become due together; a timer of the kernel is not. Must not know which proxy answers.
"""

import asyncio
import ctypes
import os
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic_ns

from bench.headroom import LimitedError
from bench.loadgen import JsonLoad, LoadError, quantile

_CLOCK_MONOTONIC = 1
_NANOSECONDS = 1_000_000_000
# Of the requests that were due in a window, those answered in it at least.
LEAST = 0.99
# Of requests with an idle connection, one in a hundred may leave this much late.
_MAX_LATE_NS = 1_000_000
_REST_S = 10.0  # in which the requests of a window are answered
_STEP_S = 0.002


class RateMissedError(LoadError):
    """A window had fewer answers than the rate demands: it is no figure."""


class _TimerSettings(ctypes.Structure):
    """`struct itimerspec`: the interval, then the first expiration, in seconds and nanoseconds."""

    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("first_s", ctypes.c_long),
        ("first_ns", ctypes.c_long),
    )


class Pace:
    """Requests of `load` in even intervals, on whichever connection has been idle for longest."""

    def __init__(self, load: JsonLoad, rate: float, most_late_ns: int = _MAX_LATE_NS) -> None:
        self._most_late_ns = most_late_ns
        self._load = load
        self._rate = rate
        self._interval = round(_NANOSECONDS / rate)
        self._next = 0  # when the next request is due, in nanoseconds
        self._owed = 0  # requests that are due
        self._ended = False  # nothing becomes due any more
        self._late = array("Q")  # how late the clients saw that requests were due

    @contextmanager
    def running(self) -> Iterator[None]:
        """Requests are sent until this is left."""
        loop = asyncio.get_running_loop()
        timer = timer_of(self._rate)
        self._next = monotonic_ns() + self._interval
        loop.add_reader(timer, self._due, timer)
        try:
            yield
        finally:
            loop.remove_reader(timer)
            os.close(timer)

    async def window(self, seconds: float) -> int:
        """Let the load go on; the number of answers to the requests that were due.

        Requests that are unanswered when the time is up are waited for: their times count, too.

        Raises:
            RateMissedError: there were fewer than the rate demands.
            LimitedError: the clients were late by themselves.
            LoadError: one was wrong.
        """
        self._next += self._owed * self._interval  # of an earlier window, which is no figure
        self._owed = 0
        self._ended = False
        del self._late[:]
        before = self._load.completed
        loop = asyncio.get_running_loop()
        start = loop.time()
        await self._load.run(seconds)
        answers = self._load.completed - before
        wanted = self._rate * (loop.time() - start)
        late = quantile(self._late, 0.99)
        if late > self._most_late_ns:
            raise LimitedError(f"one request in a hundred was sent {late / 1e6:.1f} ms late")
        if answers < LEAST * wanted:
            raise RateMissedError(
                f"{answers} answers came at {self._rate:g}/s instead of {wanted:.0f}"
            )
        self._ended = True
        while self._owed:
            if loop.time() > start + seconds + _REST_S:
                raise RateMissedError(f"{self._owed} requests were due and never sent")
            await self._load.run(_STEP_S)
        await self._load.settled(_REST_S)
        return self._load.completed - before

    def _due(self, timer: int) -> None:
        expired = int.from_bytes(os.read(timer, 8), "little")
        if not self._owed and not self._ended:
            self._late.append(max(0, monotonic_ns() - self._next))
        if not self._ended:
            self._owed += expired
        idle = self._load.idle
        sent = min(self._owed, len(idle))
        self._owed -= sent
        ready, self._load.idle = idle[:sent], idle[sent:]
        for client in ready:
            client.send(self._next)
            self._next += self._interval


def timer_of(rate: float) -> int:
    """A descriptor from which the number of expirations can be read."""
    libc = ctypes.CDLL(None, use_errno=True)
    timer = int(libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK))
    interval = divmod(round(_NANOSECONDS / rate), _NANOSECONDS)
    settings = _TimerSettings(*interval, *interval)
    if timer < 0 or libc.timerfd_settime(timer, 0, ctypes.byref(settings), None) < 0:
        raise OSError(ctypes.get_errno(), "no timer can be had")
    return timer
