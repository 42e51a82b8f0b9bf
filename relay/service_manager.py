"""The service manager's side of a process: sd_notify(3), its watchdog, and sockets that it passes.

Decides the messages and their form. Without a service manager every call has no effect. Must not
know what is served.
"""

import asyncio
import contextlib
import os
import socket
import time
from typing import Final

from relay.listeners import PassedSockets

_FIRST_PASSED: Final = 3  # sd_listen_fds(3): SD_LISTEN_FDS_START
# Names of sockets; those of callers have any other.
_ADMIN: Final = "admin"  # the admin listener's
REDIRECT: Final = "redirect"  # plain HTTP beside https
_BEATS: Final = 3  # in the time after which the watchdog acts


class Notifier:
    """Messages to the service manager, by datagrams that never wait."""

    def __init__(self, address: str = "", watchdog: float = 0.0) -> None:
        """`watchdog` is the time after which it acts, in seconds; 0: never."""
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._interval = watchdog / _BEATS
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    def of_environment(cls) -> "Notifier":
        """The service manager that started this process, if one did."""
        watched = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        microseconds = os.environ.get("WATCHDOG_USEC", "")
        seconds = int(microseconds) / 1e6 if watched and microseconds.isdigit() else 0.0
        return cls(os.environ.get("NOTIFY_SOCKET", ""), seconds)

    def ready(self, status: str, *, replaces: bool = False) -> None:
        """The process serves, or serves again after a reload. `replaces`: it takes the place of
        the service's main process. From now on the loop feeds the watchdog."""
        main = [f"MAINPID={os.getpid()}"] if replaces else []
        self._send("READY=1", f"STATUS={status}", *main)
        if self._interval and self._timer is None:
            self._beat()

    def reloading(self) -> None:
        """The settings are being read again."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str) -> None:
        """The process ends once its requests in flight have."""
        self._send("STOPPING=1", f"STATUS={status}")

    def stop(self) -> None:
        """Feed the watchdog no more: another process does."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _beat(self) -> None:
        self._send("WATCHDOG=1")
        self._timer = asyncio.get_running_loop().call_later(self._interval, self._beat)

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock,
        ):
            sock.sendto("\n".join(lines).encode(), self._address)


def passed_sockets() -> PassedSockets:
    """The listening sockets that were passed to this process, sd_listen_fds_with_names(3): those
    for the operator have the name `admin`, those for plain HTTP `redirect`.

    Raises:
        OSError: LISTEN_FDS is not a number.
    """
    passed = PassedSockets()
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return passed
    text = os.environ.get("LISTEN_FDS", "")
    if not text.isdigit():
        raise OSError(f"LISTEN_FDS is {text!r}, not a number of sockets")
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    by_name = {_ADMIN: passed.operator, REDIRECT: passed.plain}
    for index in range(int(text)):
        os.set_inheritable(_FIRST_PASSED + index, False)
        sock = socket.socket(fileno=_FIRST_PASSED + index)
        name = names[index] if index < len(names) else ""
        by_name.get(name, passed.callers).append(sock)
    return passed
