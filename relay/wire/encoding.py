"""Request bodies that come compressed (RFC 9110 §8.4): gzip, deflate and zstd, within bounds.

Some millions of octets may hide in a few thousand, so a body is never unfolded beyond its limit,
and the memory that a frame may ask for is bounded, too.
"""

import zlib
from collections.abc import Callable
from typing import Final

import zstandard

from relay.errors import INVALID_REQUEST, TOO_LARGE, UNKNOWN_ENCODING, RelayError

_GZIP: Final = 31  # zlib's wbits: a gzip header is wanted
_ZLIB: Final = 15
_MOST_WINDOW: Final = 8 * 1024 * 1024  # octets; RFC 9659 §3: what every decoder is to take
# Octets that are unfolded at once: a block of 4 may say 128 KiB (RFC 8878 §3.1.1.2.2), so these
# make 32 MiB at the worst.
_STEP: Final = 1024


def decoded(body: bytes, encoding: bytes, limit: int) -> bytes:
    """The body as it was before it was encoded.

    Args:
        encoding: the value of `content-encoding`.
        limit: the most octets that it may have.

    Raises:
        RelayError: 413, it has more; 415, an encoding unknown here; 400, it is broken.
    """
    name = encoding.strip().lower()
    if name in (b"", b"identity"):
        return body
    unfold = _KNOWN.get(name)
    if unfold is None:
        raise RelayError(
            UNKNOWN_ENCODING,
            f"content-encoding: {name[:40].decode('latin-1')!r} is not known here. "
            "Send the body as it is, or in gzip or zstd.",
            headers=((b"accept-encoding", b"gzip, zstd"),),  # RFC 9110 §12.5.3
        )
    try:
        whole = unfold(body, limit)
    except (zlib.error, zstandard.ZstdError, EOFError):
        raise RelayError(
            INVALID_REQUEST, f"The request body is not whole {name.decode()}."
        ) from None
    if len(whole) > limit:
        raise RelayError(
            TOO_LARGE,
            f"The request body, once unfolded, is larger than {limit} octets. "
            "Shorten the conversation or send smaller files.",
        )
    return whole


def _gzip(body: bytes, limit: int) -> bytes:
    return _inflated(body, limit, _GZIP)


def _deflate(body: bytes, limit: int) -> bytes:
    return _inflated(body, limit, _ZLIB)


def _inflated(body: bytes, limit: int, wbits: int) -> bytes:
    machine = zlib.decompressobj(wbits)
    whole = machine.decompress(body, limit + 1)
    if len(whole) <= limit and (not machine.eof or machine.unused_data):
        raise EOFError
    return whole


def _zstd(body: bytes, limit: int) -> bytes:
    machine = zstandard.ZstdDecompressor(max_window_size=_MOST_WINDOW).decompressobj()
    pieces: list[bytes] = []
    size = 0
    for at in range(0, len(body), _STEP):
        if machine.eof:
            raise EOFError
        piece = machine.decompress(body[at : at + _STEP])
        size += len(piece)
        pieces.append(piece)
        if size > limit:
            return b"".join(pieces)
    if not machine.eof or machine.unused_data:
        raise EOFError
    return b"".join(pieces)


_KNOWN: Final[dict[bytes, Callable[[bytes, int], bytes]]] = {
    b"gzip": _gzip,
    b"x-gzip": _gzip,
    b"deflate": _deflate,
    b"zstd": _zstd,
}
