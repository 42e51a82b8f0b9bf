"""Joins and decodes the header blocks of a connection (RFC 9113 §4.3).

Decides how much a block may be, and which frames continue it. Must not know what its fields mean.
"""

from typing import Final

from relay.wire.events import Limits
from relay.wire.h2.fields import FIELD_OCTETS, Field
from relay.wire.h2.frames import (
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FRAME_SIZE_ERROR,
    LARGEST_STREAM,
    PADDED,
    PRIORITY_FLAG,
    PROTOCOL_ERROR,
)
from relay.wire.h2.hpack import HeaderDecoder
from relay.wire.h2.peer_settings import ProtocolError

_MAX_CONTINUATIONS: Final = 8
_MAX_OCTETS: Final = 32 * 1024  # of a block, compressed
_MAX_REMEMBERED: Final = 1024  # octets of the last block


class HeaderBlocks:
    """See the module.

    `open`: the stream of an unfinished block, 0 for none. `ended`: the block's HEADERS frame ended
    the stream's request. `self_dependent`: its priority depends on the stream itself.
    """

    __slots__ = (
        "_block",
        "_continuations",
        "_decoder",
        "_last_block",
        "_last_fields",
        "_max_octets",
        "_version",
        "ended",
        "open",
        "self_dependent",
    )

    def __init__(self, limits: Limits) -> None:
        self.open = 0
        self.ended = False
        self.self_dependent = False
        self._block = b""
        self._continuations = 0
        self._max_octets = max(_MAX_OCTETS, limits.head)
        self._decoder = HeaderDecoder(2 * (limits.head + FIELD_OCTETS * limits.fields))
        self._last_block = b""  # decoded without a change of the table
        self._last_fields: list[Field] = []
        self._version = 0

    def begin(self, flags: int, stream: int, payload: bytes) -> list[Field] | None:
        """Take a HEADERS frame; the fields, if the block is complete.

        Raises:
            ProtocolError: its layout is wrong.
            CompressionError, HeaderBombError: as in `HeaderDecoder.decode`.
        """
        self.self_dependent = False
        if flags & PADDED:
            payload = unpadded(payload)
        if flags & PRIORITY_FLAG:
            if len(payload) < 5:
                raise ProtocolError(FRAME_SIZE_ERROR)
            depends_on = int.from_bytes(payload[:4], "big") & LARGEST_STREAM
            self.self_dependent = depends_on == stream
            payload = payload[5:]
        self.ended = bool(flags & END_STREAM)
        if flags & END_HEADERS:
            return self._decode(payload)
        self._block = payload
        self.open = stream
        self._continuations = 0
        return None

    def proceed(self, flags: int, payload: bytes) -> list[Field] | None:
        """Take a CONTINUATION frame; the fields, if the block is complete.

        Raises:
            ProtocolError: there are too many, or no block is open.
            CompressionError, HeaderBombError: as in `HeaderDecoder.decode`.
        """
        if not self.open:
            raise ProtocolError(PROTOCOL_ERROR)
        self._continuations += 1
        self._block += payload
        if self._continuations > _MAX_CONTINUATIONS or len(self._block) > self._max_octets:
            raise ProtocolError(ENHANCE_YOUR_CALM)
        if not flags & END_HEADERS:
            return None
        block, self._block = self._block, b""
        self.open = 0
        return self._decode(block)

    def clear(self) -> None:
        """Free the octets of an unfinished block."""
        self._block = b""

    def _decode(self, block: bytes) -> list[Field]:
        """The fields of a block. Without a change of the table, the same octets have the same."""
        decoder = self._decoder
        if block == self._last_block and self._version == decoder.version:
            return self._last_fields
        version = decoder.version
        fields = decoder.decode(block)
        if version == decoder.version and len(block) <= _MAX_REMEMBERED:
            self._last_block = block
            self._last_fields = fields
            self._version = version
        return fields


def unpadded(payload: bytes) -> bytes:
    """A payload without its padding. Raises ProtocolError: the padding is longer."""
    if not payload or payload[0] >= len(payload):
        raise ProtocolError(PROTOCOL_ERROR)
    return payload[1 : len(payload) - payload[0]]
