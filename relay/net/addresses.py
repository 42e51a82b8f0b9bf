"""How many connections each address has.

An IPv6 address counts by its first 64 bits, for a subscriber has all that begin with them (RFC
6177). Must not know connections: any object stands for one.
"""

import socket
from collections.abc import Callable
from typing import Final

_MAPPED: Final = b"\0" * 10 + b"\xff\xff"  # IPv4 in IPv6 (RFC 4291 §2.5.5.2)
_LOOPBACK: Final = b"\0" * 15 + b"\x01"


def _octets(address: str) -> bytes:
    """An address as 4 or 16 octets; empty if it is none, as for a Unix socket."""
    try:
        if ":" not in address:
            return socket.inet_pton(socket.AF_INET, address)
        octets = socket.inet_pton(socket.AF_INET6, address.partition("%")[0])
    except OSError:
        return b""
    return octets[12:] if octets.startswith(_MAPPED) else octets


def subscriber(address: str) -> bytes:
    """What the addresses of one subscriber have in common; empty for a Unix socket."""
    return _octets(address)[:8]


def is_loopback(address: str) -> bool:
    """Whether an address is this machine's own: a proxy in front, a tool, a Unix socket."""
    octets = _octets(address)
    return not octets or octets == _LOOPBACK or (len(octets) == 4 and octets[0] == 127)


class AddressCounts:
    """`refused` counts connections above the cap."""

    __slots__ = ("_by_address", "_cap", "_counted", "_is_exempt", "refused")

    def __init__(self, cap: int, is_exempt: Callable[[str], bool]) -> None:
        """`cap`: the most connections of one address; 0: nothing is counted."""
        self._cap = cap
        self._is_exempt = is_exempt
        self._by_address: dict[bytes, int] = {}
        self._counted: dict[object, bytes] = {}  # a connection's address may be replaced later
        self.refused = 0

    def bound(self, cap: int, is_exempt: Callable[[str], bool]) -> None:
        """Use this cap and these exceptions from now on, for connections to come."""
        self._cap = cap
        self._is_exempt = is_exempt

    def enter(self, connection: object, address: str) -> bool:
        """Count a connection until `leave`; False if its address has too many."""
        if not self._cap or self._is_exempt(address):
            return True
        key = subscriber(address)
        count = self._by_address.get(key, 0)
        if count >= self._cap:
            self.refused += 1
            return False
        self._by_address[key] = count + 1
        self._counted[connection] = key
        return True

    def leave(self, connection: object) -> None:
        """Undo `enter`; no effect on a connection that is not counted."""
        key = self._counted.pop(connection, None)
        if key is None:
            return
        count = self._by_address[key] - 1
        if count:
            self._by_address[key] = count
        else:
            del self._by_address[key]
