"""Addresses that this program connects to for nobody: those of cloud metadata services.

Whoever reaches 169.254.169.254 from a machine in a cloud gets the machine's credentials. No
upstream, webhook, bucket, provider or authority is there. The check is made where Python connects
a socket, whichever library asks: after the name was resolved, so that neither a spelling of the
address nor a name server can go around it, and no new use of the network can forget it.

Decides which addresses these are. Must not know who connects.
"""

import errno
import ipaddress
import socket
import sys
from typing import Any, Final

_IPV4: Final = tuple(
    ipaddress.IPv4Network(one)
    for one in (
        "169.254.0.0/16",  # link-local: Amazon, Azure, Google and most others
        "100.100.100.200/32",  # Alibaba
        "192.0.0.192/32",  # Oracle
        "168.63.129.16/32",  # Azure's host
    )
)
_IPV6: Final = (
    ipaddress.IPv6Network("fd00:ec2::/32"),  # Amazon
    ipaddress.IPv6Network("fd20:ce::/32"),  # Google
    ipaddress.IPv6Network("fe80::a9fe:a9fe/128"),  # OpenStack
)
# What carries an IPv4 address in its last 32 bits: mapped, compatible, NAT64.
_CARRYING: Final = tuple(
    ipaddress.IPv6Network(one) for one in ("::ffff:0:0/96", "::/96", "64:ff9b::/96")
)
_6TO4: Final = ipaddress.IPv6Network("2002::/16")
_guarded: list[bool] = []  # not empty once connections are


class ForbiddenAddressError(OSError):
    """A connection to such an address was refused here."""

    def __init__(self, address: str) -> None:
        reason = f"{address} belongs to a cloud's metadata service; the relay never connects there"
        super().__init__(errno.EACCES, reason)


def is_forbidden(text: str) -> bool:
    """Whether an address, as the kernel has it, may not be connected to."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:  # a name, or an old spelling such as 2852039166
        try:
            address = ipaddress.IPv4Address(socket.inet_aton(text))
        except (OSError, ValueError):
            return False
    if isinstance(address, ipaddress.IPv6Address):
        if any(address in one for one in _IPV6):
            return True
        carried = _carried(address)
        if carried is None:
            return False
        address = carried
    return any(address in one for one in _IPV4)


def guard_connections() -> None:
    """From now on, connecting a socket to such an address raises `ForbiddenAddressError`."""
    if not _guarded:
        _guarded.append(True)
        sys.addaudithook(_check)  # nothing that a request does raises an audit event


def _check(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect":
        address = arguments[1]
        if isinstance(address, tuple) and isinstance(address[0], str) and is_forbidden(address[0]):
            raise ForbiddenAddressError(address[0])


def _carried(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address to which a packet for this one goes."""
    number = int(address)
    if any(address in one for one in _CARRYING):
        return ipaddress.IPv4Address(number & 0xFFFFFFFF)
    if address in _6TO4:
        return ipaddress.IPv4Address(number >> 80 & 0xFFFFFFFF)
    return None
