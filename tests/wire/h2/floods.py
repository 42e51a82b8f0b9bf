"""Floods as octets: what an attacker sends behind the preface, without an end."""

from collections.abc import Callable, Iterator
from itertools import count

from hpack import Encoder

from relay.wire.h2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    HEADERS,
    PING,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    U32,
    WINDOW_UPDATE,
    frame,
)
from tests.fakes.http2 import get

GET = get()
POST = [(":method", "POST"), *GET[1:]]
UNKNOWN = 0x20

_get = Encoder().encode(GET, huffman=False)  # the next block may be the same: one entry is double
_post = Encoder().encode(POST, huffman=False)

Flood = Callable[[], Iterator[bytes]]


def _streams() -> Iterator[int]:
    return count(1, 2)


def _rapid_reset() -> Iterator[bytes]:
    for stream in _streams():
        yield frame(HEADERS, 5, stream, _get)
        yield frame(RST_STREAM, 0, stream, U32.pack(8))


def _provoked(*provocation: tuple[int, int, bytes], block: bytes = _post, flags: int = 4) -> Flood:
    """Requests that the server is made to reset."""

    def flood() -> Iterator[bytes]:
        for stream in _streams():
            yield frame(HEADERS, flags, stream, block)
            for kind, its_flags, payload in provocation:
                yield frame(kind, its_flags, stream, payload)

    return flood


def _repeated(*octets: bytes, first: bytes = b"") -> Flood:
    def flood() -> Iterator[bytes]:
        yield first
        while True:
            yield from octets

    return flood


def _bomb() -> Iterator[bytes]:
    """CVE-2016-6581: an entry of the table that is used again and again."""
    entry = b"\x40\x01a" + b"\x7f\x81\x1e" + b"x" * 4000
    for stream in _streams():
        yield frame(HEADERS, 5, stream, _get[:-1] + entry + b"\xbe" * 12_000)


_OPEN = frame(HEADERS, 4, 1, _post)
_INCREMENT_0 = (WINDOW_UPDATE, 0, U32.pack(0))
_OVERFLOW = (WINDOW_UPDATE, 0, U32.pack((1 << 31) - 1))


def _self_dependent() -> Iterator[bytes]:
    for stream in _streams():
        yield frame(HEADERS, 4, stream, _post)
        yield frame(PRIORITY, 0, stream, U32.pack(stream) + b"\x10")


MADE_YOU_RESET: dict[str, Flood] = {
    "WINDOW_UPDATE of 0": _provoked(_INCREMENT_0),
    "WINDOW_UPDATE above the limit": _provoked(_OVERFLOW),
    "DATA after the end": _provoked((DATA, 0, b"more than a few octets" * 4), block=_get, flags=5),
    "HEADERS after the end": _provoked((HEADERS, 5, _get), block=_get, flags=5),
    "PRIORITY of 4 octets": _provoked((PRIORITY, 0, bytes(4))),
    "PRIORITY on itself": _self_dependent,
}

FLOODS: dict[str, Flood] = {
    "rapid reset": _rapid_reset,
    **MADE_YOU_RESET,
    "malformed requests": _provoked(block=_post + b"\x00\x01A\x01a"),
    "CONTINUATION": _repeated(
        frame(CONTINUATION, 0, 1, b"\x00\x01a\x01b"), first=frame(HEADERS, 1, 1, _get)
    ),
    "empty CONTINUATION": _repeated(
        frame(CONTINUATION, 0, 1, b""), first=frame(HEADERS, 1, 1, _get)
    ),
    "HPACK bomb": _bomb,
    "PING": _repeated(frame(PING, 0, 0, bytes(8))),
    "PING ACK": _repeated(frame(PING, ACK, 0, bytes(8))),
    "SETTINGS": _repeated(frame(SETTINGS, 0, 0, b"\0\4\0\0\xff\xff")),
    "SETTINGS ACK": _repeated(frame(SETTINGS, ACK, 0, b"")),
    "empty DATA": _repeated(frame(DATA, 0, 1, b""), first=_OPEN),
    "DATA of padding": _repeated(frame(DATA, 8, 1, b"\xff" + bytes(255)), first=_OPEN),
    "DATA of one octet": _repeated(frame(DATA, 0, 1, b"x"), first=_OPEN),
    "PRIORITY": _repeated(frame(PRIORITY, 0, 1, bytes(4) + b"\x10"), first=_OPEN),
    "WINDOW_UPDATE of 1": _repeated(frame(WINDOW_UPDATE, 0, 0, U32.pack(1))),
    "WINDOW_UPDATE of a closed stream": _repeated(
        frame(WINDOW_UPDATE, 0, 1, U32.pack(70000)),
        first=_OPEN + frame(RST_STREAM, 0, 1, U32.pack(8)),
    ),
    "unknown frames": _repeated(frame(UNKNOWN, 0, 0, b"?")),
    "GOAWAY": _repeated(frame(7, 0, 0, bytes(8))),
}
