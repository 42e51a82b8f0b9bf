"""Who the caller is behind trusted proxies, by X-Forwarded-For.

Each proxy appends the address that it was called from, so the field is read from its right end: the
first address that is no trusted proxy's is the caller. All that is left of it may be invented.

Decides the caller's address. Must not know sockets. Nothing else is taken from a forwarded field.
"""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Final

UNIX: Final = "unix"  # the peer of a Unix socket

_FIELD: Final = b"x-forwarded-for"
_MAX_PROXIES: Final = 32  # in a row
_WITH_PORT: Final = re.compile(r"\[([0-9a-fA-F:.]+)\](?::\d+)?|([0-9.]+):\d+")

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


class TrustedProxies:
    """The proxies that may name the caller."""

    __slots__ = ("_has_unix", "_networks")

    def __init__(self, networks: Sequence[IpNetwork], *, unix: bool = False) -> None:
        """`unix`: those that connect to a Unix socket, too."""
        self._networks = tuple(networks)
        self._has_unix = unix

    def trusts(self, peer: str) -> bool:
        """Whether `peer`, an address or UNIX, is one of them."""
        if peer == UNIX:
            return self._has_unix
        address = address_of(peer)
        return address is not None and self._contains(address)

    def caller(self, peer: str, headers: Mapping[bytes, bytes]) -> str:
        """The address of the caller; `peer` is a trusted proxy that sent `headers`."""
        field = headers.get(_FIELD)
        if field is None:
            return peer
        caller = peer
        for entry in reversed(field.decode("latin-1").rsplit(",", _MAX_PROXIES)[-_MAX_PROXIES:]):
            address = address_of(entry.strip())
            if address is None:  # such as "unknown": a proxy whose caller is hidden
                break
            caller = str(address)
            if not self._contains(address):
                break
        return caller

    def _contains(self, address: IpAddress) -> bool:
        return any(
            network.version == address.version and address in network for network in self._networks
        )


def address_of(text: str) -> IpAddress | None:
    """An address, with a port or without; IPv4 within IPv6 becomes IPv4. None: it is none."""
    match = _WITH_PORT.fullmatch(text)
    if match is not None:
        text = match[1] or match[2]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return None
        return address.ipv4_mapped or address
    return address
