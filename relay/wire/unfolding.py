"""Decompresses an upstream's body as it arrives, within bounds.

The relay asks for `identity`, but an upstream may send gzip, deflate or zstd all the same (RFC
9110 §12.5.3). Decides the coding by the first octets: the label is often wrong, or missing. Must
not know what the content means.
"""

import re
import zlib
from collections.abc import Callable
from typing import ClassVar, Final

import zstandard

from relay.errors import INVALID_REQUEST, RelayError
from relay.wire.body import Extent

_GZIP: Final = 31  # zlib's wbits for a gzip header
_ZLIB: Final = 15  # and for a zlib header
_RAW: Final = -15  # and for none, which some send as `deflate`
_GZIP_MAGIC: Final = b"\x1f\x8b"
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_MAX_WINDOW: Final = 8 * 1024 * 1024  # octets, which every decoder supports (RFC 9659 §3)
_MAX_PIECE: Final = 4 * 1024 * 1024  # octets that one piece off the network may become
_STEP: Final = 1024  # octets of zstd decompressed at a time
# `br` has no magic octets, so it is known by its label alone, where the body is no text.
_LABELS: Final = frozenset({b"", b"identity", b"gzip", b"x-gzip", b"deflate", b"zstd"})
_TEXT: Final = re.compile(
    rb'\s*(?:\{\s*["}]|\[\s*[\[{"\]]|<[!?A-Za-z]|(?:event|data|id|retry)?:|[\w ]{4})'
)
_UNPRINTABLE: Final = re.compile(rb"[^\x20-\x7e]")
_UNCODED: Final = frozenset(b'{[<:"\t\r\n \xef') | frozenset(b"abcdefghijklmnopqrstuvwxyz")


class Unfolded:
    """An extent whose payload comes decompressed. `done`: the body and its coding are complete."""

    __slots__ = ("_decode", "_ended", "_extent", "_first", "_label", "_zlib", "done", "rest")

    single: ClassVar[bool] = False  # see ChunkScanner

    def __init__(self, extent: Extent, label: bytes) -> None:
        """`extent` has no framing left in its octets; `label` is the `content-encoding`."""
        self._extent = extent
        self._label = label.strip().lower()
        self._first = b""  # too few octets to know the coding by
        self._decode: Callable[[bytes], bytes] | None = None
        self._ended: Callable[[], bool] = _always
        self._zlib = zlib.decompressobj(_GZIP)
        self.done = extent.done
        self.rest = b""

    def at_boundary(self) -> bool:
        """Always: the payload has no framing."""
        return True

    def feed(self, data: bytes) -> bytes:
        """Take the next octets; return the decompressed payload.

        Raises:
            RelayError: the framing or the coding is broken, or a piece becomes too large.
        """
        extent = self._extent
        octets = self._first + extent.feed(data)
        self._first = b""
        payload = b""
        if octets:
            if self._decode is None and len(octets) < len(_ZSTD_MAGIC) and not extent.done:
                self._first = octets
                return b""
            decode = self._decode
            if decode is None:
                decode = self._decode = self._decoder(octets)
            try:
                payload = decode(octets)
            except (zlib.error, zstandard.ZstdError, EOFError):
                raise _broken() from None
        if extent.done:
            self.rest = extent.rest
            if not self.finished():
                raise _broken()
        return payload

    def finished(self) -> bool:
        """Whether the coding is complete, now that the body's last octet has come."""
        self.done = not self._first and self._ended()
        return self.done

    def _decoder(self, octets: bytes) -> Callable[[bytes], bytes]:
        if octets.startswith(_GZIP_MAGIC):
            self._ended = self._inflated
            return self._inflate
        if octets.startswith(_ZSTD_MAGIC):
            frame = _Zstd()
            self._ended = frame.ended
            return frame.decode
        if self._label not in _LABELS and _TEXT.match(octets) is None:
            coding = _UNPRINTABLE.sub(b"?", self._label[:40]).decode()
            raise RelayError(
                INVALID_REQUEST, f"Its content-encoding is {coding!r}, which was not asked for."
            )
        has_header = octets[0] & 15 == 8 and not int.from_bytes(octets[:2], "big") % 31
        if octets[0] in _UNCODED and not has_header:
            return _as_it_is
        if has_header or self._label == b"deflate":
            self._zlib = zlib.decompressobj(_ZLIB if has_header else _RAW)
            self._ended = self._inflated
            return self._inflate
        raise RelayError(INVALID_REQUEST, "The body has a content-encoding that was not asked for.")

    def _inflate(self, octets: bytes) -> bytes:
        payload = self._zlib.decompress(octets, _MAX_PIECE)
        while (rest := self._zlib.unused_data) and len(payload) < _MAX_PIECE:
            if not _GZIP_MAGIC.startswith(rest[:2]):
                raise EOFError
            self._zlib = zlib.decompressobj(_GZIP)  # another member (RFC 1952 §2.2)
            payload += self._zlib.decompress(rest, _MAX_PIECE)
        if self._zlib.unconsumed_tail or len(payload) >= _MAX_PIECE:
            raise _too_large()
        return payload

    def _inflated(self) -> bool:
        return self._zlib.eof


class _Zstd:
    """A decompressor of one zstd frame."""

    __slots__ = ("_frame",)

    def __init__(self) -> None:
        window = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
        self._frame = window.decompressobj()

    def decode(self, octets: bytes) -> bytes:
        """The next payload.

        Raises:
            RelayError: it is too large.
        """
        pieces: list[bytes] = []
        size = 0
        for at in range(0, len(octets), _STEP):
            if self._frame.eof:
                raise EOFError
            piece = self._frame.decompress(octets[at : at + _STEP])
            pieces.append(piece)
            size += len(piece)
            if size > _MAX_PIECE:
                raise _too_large()
        if self._frame.unused_data:
            raise EOFError
        return b"".join(pieces)

    def ended(self) -> bool:
        """Whether the frame is complete."""
        return self._frame.eof


def _always() -> bool:
    return True


def _as_it_is(octets: bytes) -> bytes:
    return octets


def _broken() -> RelayError:
    return RelayError(INVALID_REQUEST, "The body's content-encoding is broken.")


def _too_large() -> RelayError:
    return RelayError(INVALID_REQUEST, "The body unfolds to too many octets.")
