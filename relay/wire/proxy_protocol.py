"""The PROXY protocol, version 2: a proxy's header before the octets of the connection.

Source: HAProxy, "The PROXY protocol, versions 1 & 2", §2.2. Decides whether a header is valid and
which address it names. Must not know sockets, nor who may send one. Version 1 has no length, so
it is not read.
"""

import ipaddress
from typing import Final

HEADER_OCTETS: Final = 16  # signature, command, family, length
MAX_REST_OCTETS: Final = 2048  # addresses and extensions; 216 + extensions of a few hundred

_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_LOCAL: Final = 0x20  # a connection of the proxy's own, such as a health check
_PROXY: Final = 0x21
# Octets of the source's address, and of the complete address block, by family and transport.
_FAMILIES: Final = {0x00: (0, 0), 0x11: (4, 12), 0x21: (16, 36), 0x31: (0, 216)}


def rest_octets(header: bytes) -> int:
    """How many octets follow the first HEADER_OCTETS.

    Raises:
        ValueError: it is no such header, or one that cannot be used.
    """
    if header[:12] != _SIGNATURE:
        raise ValueError("no PROXY header of version 2")
    if header[12] not in (_LOCAL, _PROXY):
        raise ValueError(f"version and command 0x{header[12]:02x}")
    length = header[14] << 8 | header[15]
    if length > MAX_REST_OCTETS:
        raise ValueError(f"a length of {length} octets")
    if header[12] == _PROXY:
        if header[13] not in _FAMILIES:
            raise ValueError(f"family and transport 0x{header[13]:02x}")
        if length < _FAMILIES[header[13]][1]:
            raise ValueError(f"a length of {length} octets, too few for its addresses")
    return length


def source_address(header: bytes, rest: bytes) -> str | None:
    """The address of the caller; None: the header names none, so the caller is the proxy.

    Args:
        header: HEADER_OCTETS that `rest_octets` accepts.
        rest: as many octets as it says.

    Raises:
        ValueError: the extensions are not framed.
    """
    if header[12] == _LOCAL:
        return None
    address_octets, block_octets = _FAMILIES[header[13]]
    position = block_octets
    while position < len(rest):
        if position + 3 > len(rest):
            raise ValueError("an extension without its length")
        position += 3 + (rest[position + 1] << 8 | rest[position + 2])
    if position != len(rest):
        raise ValueError("an extension beyond the header's end")
    if not address_octets:
        return None
    return str(ipaddress.ip_address(rest[:address_octets]))
