"""A network namespace of a test's own, joined to this machine's by a pair of virtual interfaces."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest


class Namespace:
    """`here` is this side's address. Processes whose command begins with `command` are on the other
    side, and reach nothing but this address."""

    def __init__(self, number: int) -> None:
        network = f"198.18.{number >> 6 & 255}.{number << 2 & 252}"  # RFC 2544: for such tests
        first, _, last = network.rpartition(".")
        self.here, self._there = f"{first}.{int(last) + 1}", f"{first}.{int(last) + 2}"
        self._name = f"relay{number}"
        self._link, self._peer = f"relay{number}a", f"relay{number}b"
        self.command = ("ip", "netns", "exec", self._name)

    def create(self) -> None:
        """Raises CalledProcessError: this machine does not allow it."""
        _ip("netns", "add", self._name)
        _ip("link", "add", self._link, "type", "veth", "peer", "name", self._peer)
        _ip("link", "set", self._peer, "netns", self._name)
        _ip("address", "add", f"{self.here}/30", "dev", self._link)
        _ip("link", "set", self._link, "up")
        _ip("-n", self._name, "address", "add", f"{self._there}/30", "dev", self._peer)
        _ip("-n", self._name, "link", "set", "lo", "up")
        _ip("-n", self._name, "link", "set", self._peer, "up")

    def cut(self) -> None:
        """Let each packet vanish from now on: nothing is acknowledged, and no connection ends."""
        _ip("link", "set", self._link, "down")

    def restore(self) -> None:
        """Pass packets again."""
        _ip("link", "set", self._link, "up")

    def remove(self) -> None:
        """Remove it, with its interfaces."""
        with contextlib.suppress(subprocess.CalledProcessError):
            _ip("netns", "delete", self._name)
        with contextlib.suppress(subprocess.CalledProcessError):
            _ip("link", "delete", self._link)


def _ip(*words: str) -> None:
    subprocess.run(("ip", *words), check=True, capture_output=True)


@contextlib.contextmanager
def new_namespace() -> Iterator[Namespace]:
    """Skips the test where the machine allows none."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and Debian's package iproute2")
    namespace = Namespace(os.getpid() & 16_383)
    try:
        try:
            namespace.create()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespace can be made here: {error.stderr.decode().strip()}")
        yield namespace
    finally:
        namespace.remove()
