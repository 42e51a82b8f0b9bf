"""Decompresses request bodies (RFC 9110 §8.4) in gzip, deflate and zstd, within bounds.

A few thousand octets may inflate to millions. So no body is decompressed beyond its limit,
and the window size of a zstd frame is bounded.
"""

import zlib
from collections.abc import Callable
from typing import Final

import zstandard

from relay.errors import INVALID_REQUEST, TOO_LARGE, UNKNOWN_ENCODING, RelayError

_INFLATED_AT_ONCE: Final = 256 * 1024  # octets
_MAX_MEMBERS: Final = 100  # of gzip (RFC 1952 §2.2), or frames of zstd (RFC 8878 §3.1)
_GZIP: Final = 31  # zlib's wbits for a gzip header
_ZLIB: Final = 15  # and for a zlib header
_MAX_WINDOW: Final = 8 * 1024 * 1024  # octets, which every decoder supports (RFC 9659 §3)
# Octets decompressed at a time. A block of 4 octets may become 128 KiB (RFC 8878 §3.1.1.2.2),
# so a step becomes 8 MiB at most.
_STEP: Final = 256


def decoded(body: bytes, encoding: bytes, limit: int) -> bytes:
    """The decompressed body.

    Args:
        encoding: the value of `content-encoding`.
        limit: the size of the largest body to accept, in octets.

    Raises:
        RelayError: 413, the body is larger; 415, the encoding is unknown; 400, it is broken.
    """
    name = encoding.strip().lower()
    if name in (b"", b"identity"):
        return body
    decode = _DECODERS.get(name)
    if decode is None:
        raise RelayError(
            UNKNOWN_ENCODING,
            f"content-encoding: {name[:40].decode('latin-1')!r} is not known here. "
            "Send the body as it is, or in gzip, deflate or zstd.",
            headers=((b"accept-encoding", b"gzip, deflate, zstd"),),  # RFC 9110 §12.5.3
        )
    try:
        return decode(body, limit)
    except (zlib.error, zstandard.ZstdError, EOFError):
        raise RelayError(
            INVALID_REQUEST, f"The request body is not whole {name.decode()}."
        ) from None
    except _TooLargeError:
        raise RelayError(
            TOO_LARGE,
            f"The request body, once unfolded, is larger than {limit} octets. "
            "Shorten the conversation or send smaller files.",
        ) from None


def decoded_if_small(body: bytes, encoding: bytes, size: int) -> bytes | None:
    """The decompressed body, if it has at most `size` octets; no more than these are produced.

    None if it has more, if its size is not stated, or if only `decoded` can refuse it.
    """
    name = encoding.strip().lower()
    try:
        if name == b"zstd":
            # The frame states its size, and decompressing it as one stops there.
            if not 0 < zstandard.frame_content_size(body) <= size:
                return None
            machine = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
            return machine.decompress(body, allow_extra_data=False)
        wbits = _WBITS.get(name)
        return None if wbits is None else _inflate(body, size, wbits)
    except (zlib.error, zstandard.ZstdError, EOFError, _TooLargeError):
        return None


class _TooLargeError(Exception):
    """The decompressed body is larger than its limit."""


def _gzip(body: bytes, limit: int) -> bytes:
    return _inflate(body, limit, _GZIP)


def _deflate(body: bytes, limit: int) -> bytes:
    return _inflate(body, limit, _ZLIB)


def _inflate(body: bytes, limit: int, wbits: int) -> bytes:
    pieces: list[bytes] = []
    size = members = 0
    decompressor = None
    for at in range(0, len(body), _INFLATED_AT_ONCE):
        rest = body[at : at + _INFLATED_AT_ONCE]
        while rest:
            if decompressor is None or decompressor.eof:
                members += 1
                if members > (_MAX_MEMBERS if wbits == _GZIP else 1):
                    raise EOFError
                decompressor = zlib.decompressobj(wbits)
            piece = decompressor.decompress(rest, _INFLATED_AT_ONCE)
            rest = decompressor.unconsumed_tail or decompressor.unused_data
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                raise _TooLargeError
    if decompressor is None or not decompressor.eof:
        raise EOFError
    return b"".join(pieces)


def _zstd(body: bytes, limit: int) -> bytes:
    pieces: list[bytes] = []
    size = frames = 0
    frame = None
    for at in range(0, len(body), _STEP):
        rest = body[at : at + _STEP]
        while rest:
            if frame is None or frame.eof:
                frames += 1
                if frames > _MAX_MEMBERS:
                    raise EOFError
                machine = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
                frame = machine.decompressobj()
            piece = frame.decompress(rest)
            rest = frame.unused_data if frame.eof else b""
            size += len(piece)
            if size > limit:
                raise _TooLargeError
            pieces.append(piece)
    if frame is None or not frame.eof:
        raise EOFError
    return b"".join(pieces)


_WBITS: Final = {b"gzip": _GZIP, b"x-gzip": _GZIP, b"deflate": _ZLIB}
_DECODERS: Final[dict[bytes, Callable[[bytes, int], bytes]]] = {
    b"gzip": _gzip,
    b"x-gzip": _gzip,
    b"deflate": _deflate,
    b"zstd": _zstd,
}
