"""The server name and the protocols that a TLS client offers, from its first octets.

Source: RFC 8446 §4.1.2 and §5.1, RFC 6066 §3, RFC 7301 §3.1. Only for telling an authority's
TLS-ALPN-01 challenge (RFC 8737) from other clients: Python's ssl does not show the offer before it
chooses a certificate. Decides nothing about TLS. Must not know sockets.
"""

from dataclasses import dataclass
from typing import Final

RECORD_HEADER_OCTETS: Final = 5
MAX_OCTETS: Final = 16 * 1024 + RECORD_HEADER_OCTETS  # one record

_HANDSHAKE: Final = 22
_CLIENT_HELLO: Final = 1
_SERVER_NAME: Final = 0
_ALPN: Final = 16


@dataclass(frozen=True, slots=True)
class ClientHello:
    """What a client asks for."""

    name: str  # "": none
    protocols: tuple[bytes, ...]


class _Octets:
    """Reads vectors, each after its length. Raises ValueError where they end early."""

    __slots__ = ("_data", "_position")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def take(self, count: int) -> bytes:
        end = self._position + count
        if end > len(self._data):
            raise ValueError("it ends early")
        taken = self._data[self._position : end]
        self._position = end
        return taken

    def number(self, octets: int) -> int:
        return int.from_bytes(self.take(octets), "big")

    def vector(self, length_octets: int) -> bytes:
        return self.take(self.number(length_octets))

    def __bool__(self) -> bool:
        return self._position < len(self._data)


def record_octets(data: bytes) -> int:
    """The length of the first record, with its header, of which `data` has at least that.

    Raises:
        ValueError: it is no record of a handshake.
    """
    if data[0] != _HANDSHAKE or data[1] != 3:
        raise ValueError("no TLS handshake")
    length = RECORD_HEADER_OCTETS + int.from_bytes(data[3:5], "big")
    if length > MAX_OCTETS:
        raise ValueError("a record that is too long")
    return length


def client_hello(record: bytes) -> ClientHello:
    """Read a record that holds a complete ClientHello.

    Raises:
        ValueError: it does not.
    """
    octets = _Octets(record[RECORD_HEADER_OCTETS:])
    if octets.number(1) != _CLIENT_HELLO:
        raise ValueError("no ClientHello")
    hello = _Octets(octets.vector(3))
    hello.take(2 + 32)  # version, random
    hello.vector(1)  # session
    hello.vector(2)  # ciphers
    hello.vector(1)  # compression
    name = ""
    protocols: tuple[bytes, ...] = ()
    extensions = _Octets(hello.vector(2) if hello else b"")
    while extensions:
        kind, content = extensions.number(2), _Octets(extensions.vector(2))
        if kind == _SERVER_NAME:
            name = _server_name(_Octets(content.vector(2)))
        elif kind == _ALPN:
            protocols = _protocols(_Octets(content.vector(2)))
    return ClientHello(name, protocols)


def _server_name(names: _Octets) -> str:
    while names:
        kind, name = names.number(1), names.vector(2)
        if kind == 0:  # host_name
            return name.decode("latin-1").lower()
    return ""


def _protocols(offer: _Octets) -> tuple[bytes, ...]:
    protocols = []
    while offer:
        protocols.append(offer.vector(1))
    return tuple(protocols)
