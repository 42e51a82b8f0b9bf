"""HTTP/2 frames as octets (RFC 9113 §4 and §6).

Decides the layout of frames. Must not know streams or connections.
"""

from struct import Struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PREFACE_HEAD: Final = b"PRI * HTTP/2.0\r\n\r\n"  # an HTTP/1.1 reader takes it for a head

DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

ACK: Final = 0x1
END_STREAM: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITY_FLAG: Final = 0x20

NO_ERROR: Final = 0
PROTOCOL_ERROR: Final = 1
INTERNAL_ERROR: Final = 2
FLOW_CONTROL_ERROR: Final = 3
STREAM_CLOSED: Final = 5
FRAME_SIZE_ERROR: Final = 6
REFUSED_STREAM: Final = 7
CANCEL: Final = 8
COMPRESSION_ERROR: Final = 9
ENHANCE_YOUR_CALM: Final = 11

HEADER_TABLE_SIZE: Final = 1
ENABLE_PUSH: Final = 2
MAX_CONCURRENT_STREAMS: Final = 3
INITIAL_WINDOW_SIZE: Final = 4
MAX_FRAME_SIZE: Final = 5
MAX_HEADER_LIST_SIZE: Final = 6

FRAME_HEAD_OCTETS: Final = 9
DEFAULT_FRAME_SIZE: Final = 16384
LARGEST_FRAME_SIZE: Final = (1 << 24) - 1
DEFAULT_WINDOW: Final = 65535
LARGEST_WINDOW: Final = (1 << 31) - 1
LARGEST_STREAM: Final = (1 << 31) - 1

FRAME_HEAD: Final = Struct(">IBI")  # length and type, flags, stream
U32: Final = Struct(">I")
U64: Final = Struct(">Q")
SETTING: Final = Struct(">HI")


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A complete frame."""
    return FRAME_HEAD.pack(len(payload) << 8 | kind, flags, stream) + payload


def settings_frame(values: list[tuple[int, int]]) -> bytes:
    """A SETTINGS frame of (identifier, value)."""
    payload = b"".join([SETTING.pack(identifier, value) for identifier, value in values])
    return frame(SETTINGS, 0, 0, payload)


SETTINGS_ACK: Final = frame(SETTINGS, ACK, 0, b"")


def rst_stream_frame(stream: int, code: int) -> bytes:
    """A RST_STREAM frame."""
    return frame(RST_STREAM, 0, stream, U32.pack(code))


def window_update_frame(stream: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame; `stream` 0 is the connection."""
    return frame(WINDOW_UPDATE, 0, stream, U32.pack(increment))


def goaway_frame(last_stream: int, code: int) -> bytes:
    """A GOAWAY frame without debug data."""
    return frame(GOAWAY, 0, 0, U64.pack(last_stream << 32 | code))


def headers_frames(stream: int, block: bytes, *, end: bool, limit: int) -> bytes:
    """A header block in one HEADERS frame, or with CONTINUATION frames above `limit` octets."""
    flags = END_STREAM if end else 0
    if len(block) <= limit:
        return frame(HEADERS, flags | END_HEADERS, stream, block)
    frames = [frame(HEADERS, flags, stream, block[:limit])]
    for start in range(limit, len(block), limit):
        piece = block[start : start + limit]
        ended = END_HEADERS if start + limit >= len(block) else 0
        frames.append(frame(CONTINUATION, ended, stream, piece))
    return b"".join(frames)
