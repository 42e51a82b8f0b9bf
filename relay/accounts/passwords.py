"""Passwords: what one must be, and their hashing beside the loop.

Decides the parameters of argon2id (OWASP, 2024: 19 MiB, two passes, one lane) and how many hashes
may wait. A hash takes 30 ms of a core, so it is made on a thread whose priority is below that of
the loop, or on two where there are three cores. Must not know accounts or SQL.
"""

import contextlib
import os
import threading
from collections import Counter
from collections.abc import Callable
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final, TypeVar

from relay.accounts import InvalidError
from relay.store.executor import PendingCall

if TYPE_CHECKING:
    from argon2 import PasswordHasher

T = TypeVar("T")

MIN_LENGTH: Final = 10
MAX_LENGTH: Final = 200
_MIN_DIFFERENT: Final = 5
# A core is left to the loop: with a hash on each core, streams waited for tens of milliseconds.
THREADS: Final = max(1, min(2, len(os.sched_getaffinity(0)) - 1))
_MAX_WAITING: Final = 64  # two seconds of work: a burst waits, rather than being refused
_MAX_WAITING_OF_NETWORK: Final = 32  # so that one network leaves room to the others
_NICENESS: Final = 10


class HashingBusyError(Exception):
    """So many passwords wait to be hashed that this one cannot."""


class WeakPasswordError(InvalidError):
    """The password is too short, too long or too simple; `reason` says which."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the password is too {reason}")
        self.reason = reason  # short, long or simple


def check_strength(password: str, email: str) -> None:
    """Refuse a password that is easily guessed.

    Raises:
        WeakPasswordError: it cannot be taken.
    """
    if len(password) < MIN_LENGTH:
        raise WeakPasswordError("short")
    if len(password) > MAX_LENGTH:
        raise WeakPasswordError("long")
    plain = password.casefold()
    local = email.partition("@")[0].casefold()
    if len(set(plain)) < _MIN_DIFFERENT or plain in (email.casefold(), local):
        raise WeakPasswordError("simple")


class Passwords:
    """Hashes and checks passwords. Its threads start with the first one."""

    def __init__(
        self, most_waiting: int = _MAX_WAITING, most_of_network: int = _MAX_WAITING_OF_NETWORK
    ) -> None:
        self._calls: SimpleQueue[PendingCall] = SimpleQueue()
        self._most_waiting = most_waiting
        self._most_of_network = most_of_network
        self._networks: Counter[str] = Counter()  # of those that wait
        self._pending = 0
        self._started = False
        self._decoy = ""  # the hash of a password that nobody knows

    async def hash(self, password: str) -> str:
        """The hash to store, with its parameters and its salt.

        Raises:
            HashingBusyError: too many wait already.
        """
        return await self._call(lambda: _hasher().hash(password))

    async def verify(self, password_hash: str | None, password: str, network: str = "") -> bool:
        """Whether a password is the one of a stored hash; takes as long where there is none.
        `network` is where it comes from, if that counts.

        Raises:
            HashingBusyError: too many wait already, in all or from this network.
        """
        if network and self._networks[network] >= self._most_of_network:
            raise HashingBusyError
        self._networks[network] += 1
        try:
            return await self._call(lambda: self._verify(password_hash, password))
        finally:
            self._networks[network] -= 1
            if not self._networks[network]:
                del self._networks[network]

    def _verify(self, password_hash: str | None, password: str) -> bool:
        import argon2

        if not self._decoy:
            self._decoy = _hasher().hash(os.urandom(16).hex())
        try:
            _hasher().verify(password_hash or self._decoy, password)
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
            return False
        return password_hash is not None

    async def _call(self, function: Callable[[], T]) -> T:
        if self._pending >= self._most_waiting + THREADS:
            raise HashingBusyError
        if not self._started:
            self._started = True
            for number in range(THREADS):
                name = f"passwords-{number}"
                threading.Thread(target=self._run, name=name, daemon=True).start()
        call = PendingCall(function)
        call.future.add_done_callback(self._done)
        self._pending += 1
        self._calls.put(call)
        result: T = await call.future
        return result

    def _done(self, _: object) -> None:
        self._pending -= 1

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        for call in iter(self._calls.get, None):
            call.run()
            del call


def _hasher() -> "PasswordHasher":
    """Imported late: most relays that start hash no password."""
    from argon2 import PasswordHasher

    return PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
