"""Attempts to connect to a server that refuses the relay: one at a time for the whole process.

Decides which refusals last, as a wrong password does, and how long the next attempt waits for all
connections to that server. One that is away or busy is none of these: each connection has a pause
of its own then. Must not know who connects.
"""

import asyncio
import contextlib
import random
import re
import time
from typing import Final
from weakref import WeakValueDictionary

import psycopg

WRONG_USER: Final = re.compile(
    r"authentication failed|no password supplied|no pg_hba\.conf entry"
    r"|role \".*\" (?:does not exist|is not permitted to log in)"
)
NO_DATABASE: Final = re.compile(r"database (\".*\") does not exist")
_NO_RIGHTS: Final = re.compile(r"permission denied for database")
_WRONG_TLS: Final = re.compile(
    r"server does not support SSL|certificate verify failed|server certificate for|root certificate"
)
_LASTING: Final = (WRONG_USER, NO_DATABASE, _NO_RIGHTS, _WRONG_TLS)
_FIRST_PAUSE: Final = 0.05  # seconds, doubled each time
_LONGEST_PAUSE: Final = 2.0  # an operator's correction is noticed so soon


class Attempts:
    """The attempts at one URL. Made by `attempts_at`."""

    def __init__(self) -> None:
        self.reason = ""  # why attempts are held back; empty: they are not
        self._pause = 0.0
        self._next = 0.0  # monotonic seconds
        self._refused = 0.0  # when the last refusal came, monotonic seconds
        self._over = asyncio.Event()

    async def wait(self) -> None:
        """Wait for the time of the next attempt, or for one that succeeds. Another connection may
        be first then: `begin` says so, and what waits for this one hears of the refusal."""
        if (left := self._left()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._over.wait()

    def begin(self) -> bool:
        """Begin an attempt; False: it is held back. While they are held back, others wait for the
        outcome of this one, or for the time that it has."""
        if self._left() > 0:
            return False
        if self.reason:
            self._next = time.monotonic() + _LONGEST_PAUSE
        return True

    def end(self, error: Exception | None, began: float) -> bool:
        """Note the outcome of an attempt that began at `began`, monotonic seconds; whether further
        ones are held back. `error`: None if it succeeded."""
        if error is None or not _is_lasting(error):
            self.reason, self._pause, self._next = "", 0.0, 0.0
            self._over.set()
            return False
        if not self.reason:
            self._over = asyncio.Event()
        self.reason = first_line(error)
        if began >= self._refused:  # else it began at once with another one
            self._refused = time.monotonic()
            self._pause = min(_LONGEST_PAUSE, max(_FIRST_PAUSE, self._pause * 2))
            # Relays that are refused at once do not come back at once.
            self._next = self._refused + self._pause * random.uniform(0.5, 1.0)  # noqa: S311
        return True

    def _left(self) -> float:
        """Seconds until the next attempt."""
        return self._next - time.monotonic()


_known: Final = WeakValueDictionary[str, Attempts]()


def attempts_at(url: str) -> Attempts:
    """Those of all connections of this process to a URL, for as long as one of them has it."""
    return _known.setdefault(url, Attempts())


def first_line(error: Exception) -> str:
    """The first line of an error; libpq adds the attempts it made in further ones."""
    return str(error).partition("\n")[0] or type(error).__name__


def _is_lasting(error: Exception) -> bool:
    """Whether the server refuses until an operator corrects something. A connection that fails has
    no code, so its text decides."""
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return True
    text = str(error) if isinstance(error, psycopg.Error) else ""
    return any(one.search(text) for one in _LASTING)
